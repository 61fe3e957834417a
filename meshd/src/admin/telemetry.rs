//! What is told of traffic, as `proxy config` and `explain` show it. What is as Istio has it is left out.

use mesh_core::telemetry::logs::{Format, Log, Logs, Sink};
use mesh_core::telemetry::metrics::{Metrics, TagChange};
use mesh_core::telemetry::tracing::{Collector, Tracing, Transport};
use mesh_core::telemetry::{Side, Telemetry};
use serde_json::{Map, Value, json};

/// Both sides.
pub(super) fn shape(telemetry: &Telemetry) -> Value {
    let mut shown = Map::new();
    for (name, one) in [("client", &telemetry.client), ("server", &telemetry.server)] {
        if *one != Side::default() {
            shown.insert(name.to_owned(), side(one));
        }
    }
    Value::Object(shown)
}

/// One side.
pub(super) fn side(side: &Side) -> Value {
    let mut shown = Map::new();
    if let Logs::These(logs) = &side.logs {
        shown.insert("access_log".to_owned(), logs.iter().map(log).collect());
    }
    if side.tracing != Tracing::default() {
        shown.insert("tracing".to_owned(), tracing(&side.tracing));
    }
    if side.metrics != Metrics::default() {
        shown.insert("metrics".to_owned(), metrics(&side.metrics));
    }
    Value::Object(shown)
}

/// A sentence for each part that is not as Istio has it.
pub(super) fn sentences(side: &Side) -> Vec<String> {
    let mut said = Vec::new();
    if let Logs::These(logs) = &side.logs {
        let one = |log: &Log| {
            let filter = log.filter.as_ref().map(|filter| format!(", if {}", filter.source()));
            format!("{} ({}{})", log.provider, log.origin, filter.unwrap_or_default())
        };
        said.push(match logs.as_slice() {
            [] => "the caller's proxy writes no access log of it".to_owned(),
            _ => format!(
                "the caller's proxy logs it to {}",
                logs.iter().map(one).collect::<Vec<_>>().join(" and to ")
            ),
        });
    }
    let tracing = &side.tracing;
    if !tracing.report {
        said.push("the caller's proxy reports no span of it".to_owned());
    } else if let Some(provider) = &tracing.provider {
        let percent = tracing.sampling.map_or(1.0, |sampling| sampling.percent());
        let origin = tracing.origin.as_deref().unwrap_or_default();
        said.push(format!("of the traces that begin here {percent} % are reported to {provider} ({origin})"));
    }
    let disabled = disabled(&side.metrics);
    if !side.metrics.enabled {
        said.push("the caller's proxy counts it in no metric".to_owned());
    } else if !disabled.is_empty() {
        said.push(format!("the caller's proxy does not count it in {}", disabled.join(", ")));
    }
    said
}

fn log(log: &Log) -> Value {
    let mut shown = json!({"provider": &*log.provider, "origin": &*log.origin});
    if let Some(filter) = &log.filter {
        shown["filter"] = json!(filter.source());
    }
    match &log.sink {
        Sink::File { path, format } => {
            shown["path"] = json!(&**path);
            shown["encoding"] = json!(if matches!(format, Format::Text(_)) { "TEXT" } else { "JSON" });
        }
        Sink::Otlp { collector, .. } => shown["collector"] = json!(address(collector)),
    }
    shown
}

fn address(collector: &Collector) -> String {
    let path = match &collector.transport {
        Transport::Grpc => "",
        Transport::Http(path) => path,
    };
    format!("{}:{}{path}", collector.service, collector.port)
}

fn tracing(tracing: &Tracing) -> Value {
    let mut shown = json!({"sampling": tracing.sampling.map_or(1.0, |sampling| sampling.percent())});
    if let Some(provider) = &tracing.provider {
        shown["provider"] = json!(&**provider);
    }
    if let Some(origin) = &tracing.origin {
        shown["origin"] = json!(&**origin);
    }
    if let Some(collector) = &tracing.collector {
        shown["collector"] = json!(address(collector));
    }
    if !tracing.report {
        shown["report"] = json!(false);
    }
    if !tracing.propagate {
        shown["propagate"] = json!(false);
    }
    if !tracing.tags.is_empty() {
        shown["tags"] = tracing.tags.iter().map(|(name, _)| &**name).collect();
    }
    shown
}

fn disabled(metrics: &Metrics) -> Vec<&'static str> {
    metrics.changes.iter().filter(|(_, change)| change.disabled).map(|(metric, _)| metric.name()).collect()
}

fn metrics(metrics: &Metrics) -> Value {
    let mut tags = Map::new();
    for (metric, change) in metrics.changes.iter().filter(|(_, change)| !change.tags.is_empty()) {
        let of_metric = change.tags.iter().map(|(name, change)| {
            let value = match change {
                TagChange::Remove => Value::Null,
                TagChange::Set(expression) => json!(expression.source()),
            };
            (name.to_string(), value)
        });
        tags.insert(metric.name().to_owned(), Value::Object(of_metric.collect()));
    }
    let mut shown = json!({"enabled": metrics.enabled, "disabled": disabled(metrics)});
    if !tags.is_empty() {
        shown["tags"] = Value::Object(tags);
    }
    shown
}
