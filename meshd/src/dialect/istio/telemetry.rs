//! Telemetry: metrics and access logs; traces are in [`super::tracing`].

use std::collections::BTreeMap;
use std::time::Duration;

use mesh_core::resource::telemetry::{
    AccessLogging, MetricChoice, MetricOverride, Metrics, TagOverride, Telemetry, TelemetryMode,
};
use mesh_core::telemetry::expression::{Expression, ExpressionError};
use mesh_core::telemetry::metrics::Metric;
use mesh_core::vocab::name::Text;

use super::{target, tracing};
use crate::dialect::field::{Field, Message, Note, Object};
use crate::dialect::scalar;

pub(crate) static SPEC: Message = Message {
    name: "spec of a Telemetry",
    fields: &["accessLogging", "metrics", "selector", "targetRef", "targetRefs", "tracing"],
    later: &[],
    skipped: &[],
};

static METRICS: Message = Message {
    name: "an entry of metrics",
    fields: &["overrides", "providers", "reportingInterval"],
    later: &[],
    skipped: &[],
};

static OVERRIDE: Message =
    Message { name: "an override", fields: &["disabled", "match", "tagOverrides"], later: &[], skipped: &[] };

static METRIC: Message = Message {
    name: "the choice of a metric",
    fields: &["customMetric", "metric", "mode"],
    later: &[],
    skipped: &[],
};

static TAG: Message =
    Message { name: "a change of a tag", fields: &["operation", "value"], later: &[], skipped: &[] };

static ACCESS_LOGGING: Message = Message {
    name: "an entry of accessLogging",
    fields: &["disabled", "filter", "match", "providers"],
    later: &[],
    skipped: &[],
};

static FILTER: Message = Message { name: "a filter", fields: &["expression"], later: &[], skipped: &[] };

pub(super) static MATCH: Message =
    Message { name: "the choice of a side", fields: &["mode"], later: &[], skipped: &[] };

pub(super) static PROVIDER: Message =
    Message { name: "a provider", fields: &["name"], later: &[], skipped: &[] };

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] = &[
    Note::Holds(&SPEC, "selector", &target::SELECTOR),
    Note::Holds(&SPEC, "targetRef", &target::TARGET),
    Note::Holds(&SPEC, "targetRefs[]", &target::TARGET),
    Note::Refused(&SPEC, "targetRef", target::NOBODY),
    Note::Refused(&SPEC, "targetRefs", target::NOBODY),
    Note::Holds(&SPEC, "metrics[]", &METRICS),
    Note::Holds(&SPEC, "accessLogging[]", &ACCESS_LOGGING),
    Note::Holds(&SPEC, "tracing[]", &tracing::TRACING),
    Note::Later(&METRIC, "customMetric", "other names than those of the standard metrics"),
    Note::Later(&TAG, "value", "attributes that the mesh does not answer"),
    Note::Later(&FILTER, "expression", "attributes that the mesh does not answer"),
    Note::Holds(&METRICS, "overrides[]", &OVERRIDE),
    Note::Holds(&METRICS, "providers[]", &PROVIDER),
    Note::Holds(&OVERRIDE, "match", &METRIC),
    Note::Holds(&OVERRIDE, "tagOverrides{}", &TAG),
    Note::Holds(&ACCESS_LOGGING, "filter", &FILTER),
    Note::Holds(&ACCESS_LOGGING, "match", &MATCH),
    Note::Holds(&ACCESS_LOGGING, "providers[]", &PROVIDER),
];

/// The metrics by name.
const NAMES: [&str; 11] = [
    "ALL_METRICS",
    "REQUEST_COUNT",
    "REQUEST_DURATION",
    "REQUEST_SIZE",
    "RESPONSE_SIZE",
    "TCP_OPENED_CONNECTIONS",
    "TCP_CLOSED_CONNECTIONS",
    "TCP_SENT_BYTES",
    "TCP_RECEIVED_BYTES",
    "GRPC_REQUEST_MESSAGES",
    "GRPC_RESPONSE_MESSAGES",
];

/// The metrics by the names that Envoy's filter knows them by.
const CUSTOM: [(&str, Metric); 10] = [
    ("requests_total", Metric::RequestCount),
    ("request_duration_milliseconds", Metric::RequestDuration),
    ("request_bytes", Metric::RequestSize),
    ("response_bytes", Metric::ResponseSize),
    ("tcp_connections_opened_total", Metric::TcpOpenedConnections),
    ("tcp_connections_closed_total", Metric::TcpClosedConnections),
    ("tcp_sent_bytes_total", Metric::TcpSentBytes),
    ("tcp_received_bytes_total", Metric::TcpReceivedBytes),
    ("request_messages_total", Metric::GrpcRequestMessages),
    ("response_messages_total", Metric::GrpcResponseMessages),
];

/// Reads the spec of a Telemetry.
pub(crate) fn telemetry(field: &Field<'_>) -> Option<Telemetry> {
    let spec = field.object(&SPEC)?;
    let scope = target::scope(&spec);
    let traces = spec.items("tracing");
    if let Some(second) = traces.get(1) {
        second.warn("only the first entry of tracing counts");
    }
    Some(Telemetry {
        selector: scope.selector,
        targets: scope.targets,
        metrics: spec.items("metrics").iter().filter_map(metrics).collect(),
        access_logging: spec.items("accessLogging").iter().filter_map(access_logging).collect(),
        // The others are read for what is wrong with them.
        tracing: traces.iter().filter_map(tracing::tracing).collect(),
    })
}

/// Names of `providers`.
pub(super) fn providers(object: &Object<'_>) -> Vec<Text> {
    let name = |field: &Field<'_>| field.object(&PROVIDER)?.require("name")?.some_text().map(Text::from);
    object.items("providers").iter().filter_map(name).collect()
}

/// `match.mode` of an entry.
pub(super) fn side(object: &Object<'_>) -> TelemetryMode {
    let chosen = object.get("match").and_then(|field| field.object(&MATCH));
    chosen.map(|chosen| mode(&chosen)).unwrap_or_default()
}

fn mode(object: &Object<'_>) -> TelemetryMode {
    let modes = ["CLIENT_AND_SERVER", "CLIENT", "SERVER"];
    match object.get("mode").and_then(|field| field.choice(&modes)) {
        Some("CLIENT") => TelemetryMode::Client,
        Some("SERVER") => TelemetryMode::Server,
        _ => TelemetryMode::ClientAndServer,
    }
}

/// `true` or `false` of a field; `None` where it is not written.
pub(super) fn boolean(object: &Object<'_>, key: &'static str) -> Option<bool> {
    object.get(key)?.boolean()
}

fn metrics(field: &Field<'_>) -> Option<Metrics> {
    let entry = field.object(&METRICS)?;
    Some(Metrics {
        providers: providers(&entry),
        overrides: entry.items("overrides").iter().filter_map(change).collect(),
        reporting_interval: entry.get("reportingInterval").and_then(|field| interval(&field)),
    })
}

/// Of any precision, unlike most durations.
fn interval(field: &Field<'_>) -> Option<Duration> {
    let interval = scalar::any_duration(field)?;
    if interval < Duration::from_millis(1) {
        field.fault("must be at least 1ms");
        return None;
    }
    Some(interval)
}

fn change(field: &Field<'_>) -> Option<MetricOverride> {
    let entry = field.object(&OVERRIDE)?;
    let (mut metric, mut side) = (Some(MetricChoice::Each), TelemetryMode::default());
    if let Some(field) = entry.get("match")
        && let Some(chosen) = field.object(&METRIC)
    {
        if chosen.has("metric") && chosen.has("customMetric") {
            field.fault("only one of metric and customMetric can be set");
        }
        side = mode(&chosen);
        if let Some(field) = chosen.get("metric") {
            metric = field.choice(&NAMES).map(standard);
        } else if let Some(field) = chosen.get("customMetric") {
            metric = field.some_text().and_then(|name| custom(&field, name));
        }
    }
    let mut tags = BTreeMap::new();
    let list = entry.get("tagOverrides").map(|field| field.map()).unwrap_or_default();
    for (name, field) in list {
        if name.is_empty() {
            field.warn("the name of a tag should not be empty");
        }
        if let Some(change) = tag(&field) {
            tags.insert(name.into(), change);
        }
    }
    Some(MetricOverride { metric: metric?, mode: side, disabled: boolean(&entry, "disabled"), tags })
}

fn standard(name: &'static str) -> MetricChoice {
    let found = Metric::ALL.into_iter().find(|metric| metric.name() == name);
    found.map_or(MetricChoice::All, MetricChoice::One)
}

/// A metric by the name that Envoy knows it by; others come from filters that are not here.
fn custom(field: &Field<'_>, name: &str) -> Option<MetricChoice> {
    let found = CUSTOM.iter().find(|(known, _)| *known == name.strip_prefix("istio_").unwrap_or(name));
    if found.is_none() {
        let known: Vec<&str> = CUSTOM.iter().map(|(known, _)| *known).collect();
        field.never(format!("{name} is no metric of the proxies; there are {}", known.join(", ")));
    }
    found.map(|(_, metric)| MetricChoice::One(*metric))
}

/// Reads an expression. What is no CEL is wrong where `strict`; what is not carried out is refused by `apply`.
fn expression(field: &Field<'_>, strict: bool) -> Option<Expression> {
    let text = field.some_text()?;
    match Expression::new(text) {
        Ok(read) => return Some(read),
        Err(ExpressionError::Syntax(error)) if strict => {
            field.fault(format!("is no expression of CEL: {error}"));
        }
        Err(error @ (ExpressionError::Syntax(_) | ExpressionError::TooDeep | ExpressionError::TooLong)) => {
            field.never(format!("the expression {error}"));
        }
        Err(error) => field.never(error.to_string()),
    }
    None
}

fn tag(field: &Field<'_>) -> Option<TagOverride> {
    let entry = field.object(&TAG)?;
    let operation = match entry.get("operation") {
        Some(field) => field.choice(&["UPSERT", "REMOVE"])?,
        None => "UPSERT",
    };
    if operation == "REMOVE" {
        if let Some(value) = entry.get("value") {
            value.fault("must be left out where operation is REMOVE");
        }
        return Some(TagOverride::Remove);
    }
    let Some(value) = entry.get("value") else {
        entry.missing("value", "the field value is missing, which UPSERT sets the tag to");
        return None;
    };
    expression(&value, false).map(TagOverride::Upsert)
}

fn access_logging(field: &Field<'_>) -> Option<AccessLogging> {
    let entry = field.object(&ACCESS_LOGGING)?;
    let filter = entry.get("filter").and_then(|field| filter(&field));
    Some(AccessLogging {
        mode: side(&entry),
        providers: providers(&entry),
        disabled: boolean(&entry, "disabled"),
        filter,
    })
}

fn filter(field: &Field<'_>) -> Option<Expression> {
    expression(&field.object(&FILTER)?.require("expression")?, true)
}
