//! Telemetry: metrics and access logs; traces are in [`super::tracing`].

use std::collections::BTreeMap;
use std::time::Duration;

use mesh_core::resource::telemetry::{
    AccessLogging, MetricOverride, Metrics, TagOverride, Telemetry, TelemetryMode,
};
use mesh_core::vocab::name::Text;

use super::{cel, target, tracing};
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

/// Reads the spec of a Telemetry.
pub(crate) fn telemetry(field: &Field<'_>) -> Option<Telemetry> {
    field.later("the kind Telemetry");
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
    let (mut metric, mut side) = (None, TelemetryMode::default());
    if let Some(field) = entry.get("match")
        && let Some(chosen) = field.object(&METRIC)
    {
        if chosen.has("metric") && chosen.has("customMetric") {
            field.fault("only one of metric and customMetric can be set");
        }
        side = mode(&chosen);
        let known = chosen.get("metric").and_then(|field| field.choice(&NAMES));
        let custom = chosen.get("customMetric").and_then(|field| field.some_text());
        metric = known.filter(|name| *name != "ALL_METRICS").or(custom).map(Text::from);
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
    Some(MetricOverride { metric, mode: side, disabled: boolean(&entry, "disabled"), tags })
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
    value.some_text().map(|text| TagOverride::Upsert(text.into()))
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

fn filter(field: &Field<'_>) -> Option<Text> {
    let expression = field.object(&FILTER)?.require("expression")?;
    let text = expression.some_text()?;
    if let Err(error) = cel::check(text) {
        expression.fault(format!("is no expression of CEL: {error}"));
    }
    Some(text.into())
}
