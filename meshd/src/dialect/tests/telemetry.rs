use std::time::Duration;

use mesh_core::resource::telemetry::{CustomTag, MetricChoice, TagOverride, Telemetry, TelemetryMode};
use mesh_core::telemetry::metrics::Metric;
use mesh_core::vocab::ratio::Ratio;

use super::*;

#[track_caller]
fn telemetry(spec: &str) -> Telemetry {
    let Spec::Telemetry(read) = offline_specs(&resource("Telemetry", spec)).remove(0) else { panic!() };
    read
}

#[test]
fn every_field() {
    let read = telemetry(
        "{selector: {matchLabels: {a: b}}, metrics: [{providers: [{name: p}], reportingInterval: 5s, overrides: [ \
         {match: {metric: REQUEST_COUNT, mode: SERVER}, disabled: true, tagOverrides: {t: {value: request.host}, u: {operation: REMOVE}}}, \
         {match: {metric: ALL_METRICS}}, {match: {customMetric: requests_total}}, {}]}], \
         accessLogging: [{match: {mode: CLIENT}, disabled: null, filter: {expression: 'response.code >= 400'}}], \
         tracing: [{randomSamplingPercentage: 54.5, customTags: {l: {literal: {value: v}}, h: {header: {name: n}}, \
         e: {environment: {name: E, defaultValue: d}}, f: {formatter: {value: '%PATH%'}}, nothing: {}}, enableIstioTags: false}]}",
    );
    let metrics = &read.metrics[0];
    assert_eq!((metrics.providers.len(), metrics.reporting_interval), (1, Some(Duration::from_secs(5))));
    let first = &metrics.overrides[0];
    assert_eq!((first.metric, first.mode), (MetricChoice::One(Metric::RequestCount), TelemetryMode::Server));
    assert_eq!(first.disabled, Some(true));
    assert!(
        matches!(first.tags.get("t"), Some(TagOverride::Upsert(read)) if read.source() == "request.host")
    );
    assert_eq!(first.tags.get("u"), Some(&TagOverride::Remove));
    let chosen: Vec<_> = metrics.overrides[1..].iter().map(|change| change.metric).collect();
    assert_eq!(chosen, [MetricChoice::All, MetricChoice::One(Metric::RequestCount), MetricChoice::Each]);
    let log = &read.access_logging[0];
    assert_eq!((log.mode, log.disabled), (TelemetryMode::Client, None));
    assert_eq!(log.filter.as_ref().map(|read| read.source()), Some("response.code >= 400"));
    let traces = &read.tracing[0];
    assert_eq!((traces.sampling, traces.enable_istio_tags), (Ratio::from_percent(54.5), Some(false)));
    let tags = traces.custom_tags.as_ref().unwrap();
    assert_eq!(tags.len(), 4);
    assert_eq!(tags.get("e"), Some(&CustomTag::Environment("E".into(), "d".into())));
    accepted(&resource("Telemetry", "{tracing: [{}, {}]}"), "only the first entry");
    accepted(&resource("Telemetry", "{tracing: [{providers: [{name: a}, {name: b}]}]}"), "only one provider");
}

#[test]
fn what_is_refused() {
    for (spec, field, words) in [
        ("{metrics: [{providers: [{name: ''}]}]}", "spec.metrics[0].providers[0].name", "must not be empty"),
        ("{tracing: [{providers: [{}]}]}", "spec.tracing[0].providers[0]", "name is missing"),
        ("{metrics: [{reportingInterval: 0s}]}", "spec.metrics[0].reportingInterval", "at least 1ms"),
        (
            "{metrics: [{overrides: [{match: {customMetric: ''}}]}]}",
            "spec.metrics[0].overrides[0].match.customMetric",
            "must not be empty",
        ),
        (
            "{metrics: [{overrides: [{match: {customMetric: a, metric: REQUEST_COUNT}}]}]}",
            "spec.metrics[0].overrides[0].match",
            "only one of",
        ),
        (
            "{metrics: [{overrides: [{match: {metric: REQUESTS}}]}]}",
            "spec.metrics[0].overrides[0].match.metric",
            "allowed: ALL_METRICS",
        ),
        (
            "{metrics: [{overrides: [{tagOverrides: {t: {operation: UPSERT}}}]}]}",
            "spec.metrics[0].overrides[0].tagOverrides.t",
            "value is missing",
        ),
        (
            "{metrics: [{overrides: [{tagOverrides: {t: {}}}]}]}",
            "spec.metrics[0].overrides[0].tagOverrides.t",
            "value is missing",
        ),
        (
            "{metrics: [{overrides: [{tagOverrides: {t: {value: ''}}}]}]}",
            "spec.metrics[0].overrides[0].tagOverrides.t.value",
            "must not be empty",
        ),
        (
            "{metrics: [{overrides: [{tagOverrides: {t: {operation: REMOVE, value: x}}}]}]}",
            "spec.metrics[0].overrides[0].tagOverrides.t.value",
            "must be left out",
        ),
        ("{accessLogging: [{filter: {}}]}", "spec.accessLogging[0].filter", "expression is missing"),
        (
            "{accessLogging: [{filter: {expression: 'a &&'}}]}",
            "spec.accessLogging[0].filter.expression",
            "is no expression of CEL",
        ),
        (
            "{tracing: [{randomSamplingPercentage: 101}]}",
            "spec.tracing[0].randomSamplingPercentage",
            "out of range",
        ),
        (
            "{tracing: [{customTags: {a: {literal: {value: ''}}}}]}",
            "spec.tracing[0].customTags.a.literal.value",
            "must not be empty",
        ),
        (
            "{tracing: [{customTags: {a: {header: {}}}}]}",
            "spec.tracing[0].customTags.a.header",
            "name is missing",
        ),
        (
            "{tracing: [{customTags: {a: {header: {name: a}, literal: {value: b}}}}]}",
            "spec.tracing[0].customTags.a",
            "only one of",
        ),
        ("{tracing: [{customTags: {a: null}}]}", "spec.tracing[0].customTags.a", "null is not allowed"),
        ("{metrics: [{reportingInterval: 0.9ms}]}", "spec.metrics[0].reportingInterval", "at least 1ms"),
        ("{metric: []}", "spec.metric", "did you mean metrics?"),
    ] {
        faulty(&resource("Telemetry", spec), field, words);
    }
}

#[test]
fn an_interval_of_any_precision() {
    accepted(&resource("Telemetry", "{metrics: [{reportingInterval: 1.5ms}]}"), "");
}

/// What Istio takes and the proxies do not do is read, and refused by `apply`.
#[test]
fn what_is_not_carried_out() {
    let filter = |text: &str| format!("{{accessLogging: [{{filter: {{expression: \"{text}\"}}}}]}}");
    let tag = |text: &str| {
        format!("{{metrics: [{{overrides: [{{tagOverrides: {{t: {{value: \"{text}\"}}}}}}]}}]}}")
    };
    let at_filter = "spec.accessLogging[0].filter.expression";
    let at_tag = "spec.metrics[0].overrides[0].tagOverrides.t.value";
    for (spec, field, words) in [
        (filter("request.hots == 'a'"), at_filter, "did you mean request.host?"),
        (filter("request.time.getHours() == 1"), at_filter, "is no attribute"),
        (tag("istio_operationId"), at_tag, "is no attribute that this mesh answers"),
        (tag("request.host +"), at_tag, "the expression mismatched input"),
        (
            "{metrics: [{overrides: [{match: {customMetric: mine}}]}]}".to_owned(),
            "spec.metrics[0].overrides[0].match.customMetric",
            "there are requests_total",
        ),
    ] {
        refused(&resource("Telemetry", &spec), field, words);
    }
    for spec in [filter("response.code >= 400 && connection.mtls"), tag("string(destination.port)")] {
        specs(&resource("Telemetry", &spec));
    }
}
