//! Access logs as log records of OpenTelemetry.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use mesh_core::telemetry::attribute::Role;
use mesh_core::telemetry::context::Heard;
use mesh_core::telemetry::format::Template;
use mesh_core::vocab::name::Text;
use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::render;
use super::value::Told;
use crate::telemetry::entry::Entry;
use crate::telemetry::export::parcel::text;
use crate::telemetry::line;

/// Trace and span.
pub type Ids = ([u8; 16], [u8; 8]);

/// How records look.
#[derive(Debug)]
pub struct RecordForm {
    /// The body; `None` for Istio's text.
    pub body: Option<Template>,
    /// Attributes.
    pub attributes: Vec<(Text, Template)>,
}

impl RecordForm {
    /// The record of an entry.
    pub fn record(&self, told: &Told<'_>) -> LogRecord {
        let entry = told.entry;
        let mut body = Vec::new();
        match &self.body {
            Some(template) => render::text(template, told, &mut body),
            None => {
                line::text(entry, told.clock, &mut body);
                // A record is no line.
                body.pop();
            }
        }
        let attributes = self.attributes.iter().map(|(key, template)| {
            let mut value = Vec::new();
            render::text(template, told, &mut value);
            text(key, String::from_utf8_lossy(&value).into_owned())
        });
        let (trace, span) =
            trace(entry).map(|(trace, span)| (trace.to_vec(), span.to_vec())).unwrap_or_default();
        let severity = severity(entry);
        LogRecord {
            time_unix_nano: nanos(told.clock.began(entry)),
            observed_time_unix_nano: nanos(told.clock.ended(entry)),
            severity_number: severity.into(),
            severity_text: severity.as_str_name().trim_start_matches("SEVERITY_NUMBER_").to_owned(),
            body: Some(AnyValue {
                value: Some(Value::StringValue(String::from_utf8_lossy(&body).into_owned())),
            }),
            attributes: attributes.collect(),
            trace_id: trace,
            span_id: span,
            ..LogRecord::default()
        }
    }
}

/// Whose the records are: the workload that the proxy speaks for.
pub fn resource(told: &Told<'_>, name: &Text) -> Arc<Resource> {
    let own = told.asked.party(Role::Own);
    let attributes = vec![
        text("service.name", &*own.canonical_service),
        text("service.namespace", &*own.namespace),
        text("service.version", &*own.canonical_revision),
        text("service.instance.id", format!("{}.{}", own.workload, own.namespace)),
        text("host.name", &*told.here.host),
        // What Envoy puts here.
        text("log_name", &**name),
        text("node_name", &*told.here.host),
    ];
    Arc::new(Resource { attributes, ..Resource::default() })
}

fn severity(entry: &Entry<'_>) -> SeverityNumber {
    let is_http = !entry.protocol.is_empty();
    match entry.code {
        500.. => SeverityNumber::Error,
        0 if is_http || !entry.flags.is_empty() => SeverityNumber::Error,
        400..500 => SeverityNumber::Warn,
        _ if !entry.termination.is_empty() => SeverityNumber::Warn,
        _ => SeverityNumber::Info,
    }
}

fn nanos(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The trace of an exchange: its own span where requests are traced, else the one that the client was in, as its fields say.
pub fn trace(entry: &Entry<'_>) -> Option<Ids> {
    if let Some(traced) = entry.traced {
        return Some((traced.context.trace, traced.context.span));
    }
    let parent = Heard::read(entry.request_headers?).parent?;
    Some((parent.trace, parent.span))
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use tokio::time::Instant;

    use super::*;
    use crate::telemetry::entry::sample;
    use crate::telemetry::flags::Flags;

    #[test]
    fn the_trace_is_that_of_the_client() {
        let address = "127.0.0.1:1".parse().unwrap();
        let long = "0af7651916cd43dd8448eb211c80319c";
        for (fields, expected) in [
            (vec![("traceparent", format!("00-{long}-b7ad6b7169203331-01"))], Some(long)),
            (vec![("b3", format!("{long}-b7ad6b7169203331-1"))], Some(long)),
            (
                vec![
                    ("x-b3-traceid", "8448eb211c80319c".to_owned()),
                    ("x-b3-spanid", "b7ad6b7169203331".to_owned()),
                ],
                Some("00000000000000008448eb211c80319c"),
            ),
            (vec![("traceparent", "00-x-y-01".to_owned())], None),
            (vec![("traceparent", format!("00-{}-{}-01", "0".repeat(32), "0".repeat(16)))], None),
            (vec![("b3", "0".to_owned())], None),
        ] {
            let map: HeaderMap = fields
                .iter()
                .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
                .collect();
            let entry = Entry { request_headers: Some(&map), ..sample(Instant::now(), address, address) };
            let found = trace(&entry).map(|(trace, _)| super::super::value::hex(&trace));
            assert_eq!(found.as_deref(), expected, "{fields:?}");
        }
    }

    #[test]
    fn severity_goes_by_what_became_of_it() {
        let address = "127.0.0.1:1".parse().unwrap();
        for (protocol, code, flags, termination, expected) in [
            ("HTTP/1.1", 200, "-", "", SeverityNumber::Info),
            ("HTTP/1.1", 404, "NR", "", SeverityNumber::Warn),
            ("HTTP/2", 503, "UF", "", SeverityNumber::Error),
            ("HTTP/1.1", 0, "DC", "", SeverityNumber::Error),
            ("", 0, "-", "", SeverityNumber::Info),
            ("", 0, "UF", "", SeverityNumber::Error),
            ("", 0, "-", "rbac_access_denied", SeverityNumber::Warn),
        ] {
            let entry = Entry {
                protocol,
                code,
                flags: Flags::of(flags),
                termination,
                ..sample(Instant::now(), address, address)
            };
            assert_eq!(severity(&entry), expected, "{protocol} {code} {flags} {termination}");
        }
    }
}
