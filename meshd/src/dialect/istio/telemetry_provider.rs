//! Providers of telemetry in `extensionProviders`: files and collectors.

use std::time::Duration;

use mesh_core::telemetry::format::Template;
use mesh_core::telemetry::logs::{Format, Sink};
use mesh_core::telemetry::tracing::{Collector, Transport};
use mesh_core::vocab::name::Text;

use super::extension_provider::service;
use crate::dialect::field::{Field, Message, Note, Object};
use crate::dialect::node::Value;
use crate::dialect::scalar;

pub(crate) static FILE: Message = Message {
    name: "a log in a file",
    fields: &["logFormat", "path"],
    later: &["omitEmptyValues"],
    skipped: &[],
};

static FILE_FORMAT: Message =
    Message { name: "the form of a line", fields: &["labels", "text"], later: &[], skipped: &[] };

pub(crate) static LOG: Message = Message {
    name: "a collector of logs",
    fields: &["logFormat", "logName", "port", "service"],
    later: &[],
    skipped: &[],
};

pub(crate) static TRACES: Message = Message {
    name: "a collector of traces",
    fields: &["grpc", "http", "port", "service"],
    later: &["dynatraceSampler", "maxTagLength", "resourceDetectors"],
    skipped: &[],
};

static HTTP: Message =
    Message { name: "OTLP over HTTP", fields: &["headers", "path", "timeout"], later: &[], skipped: &[] };

static GRPC: Message =
    Message { name: "OTLP over gRPC", fields: &["initialMetadata", "timeout"], later: &[], skipped: &[] };

static HEADER: Message =
    Message { name: "a header field", fields: &["name", "value"], later: &["envName"], skipped: &[] };

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] = &[
    Note::Holds(&FILE, "logFormat", &FILE_FORMAT),
    Note::Holds(&LOG, "logFormat", &FILE_FORMAT),
    Note::Holds(&TRACES, "http", &HTTP),
    Note::Holds(&TRACES, "grpc", &GRPC),
    Note::Holds(&HTTP, "headers[]", &HEADER),
    Note::Holds(&GRPC, "initialMetadata[]", &HEADER),
];

/// Where a log goes that names no path.
const STDOUT: &str = "/dev/stdout";
/// The name of a log in a collector that names none.
const LOG_NAME: &str = "otel_envoy_accesslog";
/// Where OTLP over HTTP goes that names no path.
const PATH: &str = "/v1/traces";
/// How long an export may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// `envoyFileAccessLog`.
pub(super) fn file(field: &Field<'_>) -> Option<Sink> {
    let object = field.object(&FILE)?;
    let path = object.text("path").filter(|path| !path.is_empty()).unwrap_or(STDOUT).into();
    let (text, labels) = form(&object)?;
    let format = match labels {
        Some(labels) => Format::Json(Some(labels).filter(|labels| !labels.is_empty())),
        None => Format::Text(text),
    };
    Some(Sink::File { path, format })
}

/// `envoyOtelAls`.
pub(super) fn log(field: &Field<'_>) -> Option<Sink> {
    let object = field.object(&LOG)?;
    let named = object.text("logName").filter(|name| !name.is_empty()).unwrap_or(LOG_NAME).into();
    let (body, attributes) = form(&object)?;
    if let Some([(name, _)]) = attributes.as_deref()
        && name.is_empty()
    {
        object
            .get("logFormat")?
            .never("a label of a collector's log is a text; objects, lists and numbers are not supported");
    }
    let collector = collector(&object, Transport::Grpc, Vec::new(), TIMEOUT)?;
    Some(Sink::Otlp { collector, name: named, body, attributes: attributes.unwrap_or_default() })
}

/// `opentelemetry`.
pub(super) fn traces(field: &Field<'_>) -> Option<Collector> {
    let object = field.object(&TRACES)?;
    if let (Some(_), Some(http)) = (object.get("grpc"), object.get("http")) {
        http.fault("only one of grpc and http can be set");
        return None;
    }
    if let Some(http) = object.get("http") {
        let http = http.object(&HTTP)?;
        let path = http.text("path").filter(|path| !path.is_empty()).unwrap_or(PATH);
        if !path.starts_with('/') {
            http.get("path")?.fault("must begin with '/'");
        }
        let (headers, timeout) = (headers(&http, "headers"), timeout(&http)?);
        return collector(&object, Transport::Http(path.into()), headers, timeout);
    }
    match object.get("grpc") {
        Some(grpc) => {
            let grpc = grpc.object(&GRPC)?;
            collector(&object, Transport::Grpc, headers(&grpc, "initialMetadata"), timeout(&grpc)?)
        }
        None => collector(&object, Transport::Grpc, Vec::new(), TIMEOUT),
    }
}

fn collector(
    object: &Object<'_>,
    transport: Transport,
    headers: Vec<(Text, Text)>,
    timeout: Duration,
) -> Option<Collector> {
    let service = object.require("service").and_then(|field| service(&field));
    let port = object.require("port").and_then(|field| field.port());
    Some(Collector { service: service?, port: port?, transport, headers, timeout })
}

fn timeout(object: &Object<'_>) -> Option<Duration> {
    object.get("timeout").map_or(Some(TIMEOUT), |field| scalar::duration(&field))
}

fn headers(object: &Object<'_>, key: &'static str) -> Vec<(Text, Text)> {
    let header = |field: &Field<'_>| {
        let entry = field.object(&HEADER)?;
        let name = entry.require("name")?;
        let text = name.some_text()?.to_ascii_lowercase();
        if http::HeaderName::try_from(text.as_str()).is_err() {
            name.fault("is no name of a header field");
        }
        let value = entry.text("value").unwrap_or_default();
        if http::HeaderValue::from_str(value).is_err() {
            entry.get("value")?.fault("is no value of a header field");
        }
        Some((text.into(), value.into()))
    };
    object.items(key).iter().filter_map(header).collect()
}

/// A form as text, or as names and texts.
type Form = (Option<Text>, Option<Vec<(Text, Text)>>);

/// `logFormat`.
fn form(object: &Object<'_>) -> Option<Form> {
    let Some(field) = object.get("logFormat") else { return Some((None, None)) };
    let form = field.object(&FILE_FORMAT)?;
    let text = form.text("text").filter(|text| !text.is_empty()).map(Text::from);
    if let (Some(text), Some(field)) = (&text, form.get("text"))
        && let Err(error) = Template::parse(text)
    {
        field.fault(error.to_string());
    }
    let Some(labels) = form.get("labels") else { return Some((text, None)) };
    let pairs = pairs(&labels);
    if let Err(error) = Format::Json(Some(pairs.clone())).read() {
        labels.fault(error.to_string());
    }
    Some((text, Some(pairs)))
}

/// Names and formats; where one of them is more than a text, the whole as JSON under no name.
fn pairs(labels: &Field<'_>) -> Vec<(Text, Text)> {
    let all = labels.map();
    let flat = all.iter().map(|(name, field)| match field.value() {
        Value::Text(value) => Some((Text::from(&**name), Text::from(&**value))),
        _ => None,
    });
    match flat.collect::<Option<Vec<_>>>() {
        Some(pairs) => pairs,
        None => vec![("".into(), labels.json().into())],
    }
}
