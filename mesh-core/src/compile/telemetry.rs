//! What is told of a workload's traffic: Telemetry of the root namespace, the namespace and the workload, laid over
//! each other, with the providers of the MeshConfig.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::resource::mesh_config::{AccessLogEncoding, ProviderKind};
use crate::resource::telemetry::{
    AccessLogging, CustomTag, MetricChoice, MetricOverride, Metrics as DeclaredMetrics, TagOverride,
    Telemetry as Declared, TelemetryMode, Tracing as DeclaredTracing,
};
use crate::resource::{Resource, Spec};
use crate::snapshot::section::Section;
use crate::state::MeshState;
use crate::telemetry::logs::{Format, Log, Logs, Sink};
use crate::telemetry::metrics::{Metric, Metrics, TagChange};
use crate::telemetry::tracing::{TagValue, Tracing};
use crate::telemetry::{Side, Telemetry};
use crate::vocab::label::Labels;
use crate::vocab::name::Text;
use crate::vocab::origin::Kind;

/// The provider of metrics where the MeshConfig names none, as Istio is installed.
const METRICS: &str = "prometheus";

/// The provider of logs that is there without being declared.
const BUILT_IN_LOG: &str = "envoy";

/// What the log of `accessLogFile` is called.
const LEGACY_LOG: &str = "accessLogFile";

/// One level: the resource, and what it declares.
type Level<'s> = (&'s Arc<Resource>, &'s Declared);

/// What is told of the traffic of a workload.
pub fn of_workload(state: &MeshState, namespace: &str, labels: &Labels) -> Telemetry {
    both(state, &levels(state, Some((namespace, labels))))
}

/// The section for traffic of which no workload is known; `None` where nothing was declared.
pub(super) fn section(state: &MeshState) -> Option<Section> {
    let telemetry = both(state, &levels(state, None));
    (telemetry != Telemetry::default()).then_some(Section::Telemetry(telemetry))
}

fn both(state: &MeshState, levels: &[Level<'_>]) -> Telemetry {
    let side = |mode| Side {
        metrics: metrics(state, levels, mode),
        logs: logs(state, levels, mode),
        tracing: tracing(state, levels, mode),
    };
    Telemetry { client: side(TelemetryMode::Client), server: side(TelemetryMode::Server) }
}

/// The resources that hold, the root namespace's first: the oldest of each level.
fn levels<'s>(state: &'s MeshState, workload: Option<(&'s str, &Labels)>) -> Vec<Level<'s>> {
    let root = &*state.settings().root_namespace;
    let general = |telemetry: &Declared| !selects(telemetry);
    let mut levels: Vec<Level<'s>> = oldest(state, root, general).into_iter().collect();
    if let Some((namespace, labels)) = workload {
        if namespace != root {
            levels.extend(oldest(state, namespace, general));
        }
        let own = |telemetry: &Declared| {
            selects(telemetry) && telemetry.selector.as_ref().is_some_and(|selector| selector.selects(labels))
        };
        levels.extend(oldest(state, namespace, own));
    }
    levels
}

fn selects(telemetry: &Declared) -> bool {
    telemetry.selector.as_ref().is_some_and(|selector| !selector.is_empty())
}

fn oldest<'s>(
    state: &'s MeshState,
    namespace: &'s str,
    wanted: impl Fn(&Declared) -> bool,
) -> Option<Level<'s>> {
    let all = state.resources_in(Kind::Telemetry, namespace).filter_map(|resource| match &resource.spec {
        // Those that are attached to an object are for waypoints and gateways of Kubernetes.
        Spec::Telemetry(telemetry) if telemetry.targets.is_empty() => Some((resource, telemetry)),
        _ => None,
    });
    all.filter(|(_, telemetry)| wanted(telemetry))
        .min_by(|(a, _), (b, _)| a.meta.precedence().cmp(&b.meta.precedence()))
}

fn concerns(mode: TelemetryMode, side: TelemetryMode) -> bool {
    mode == TelemetryMode::ClientAndServer || mode == side
}

fn name(resource: &Resource) -> Text {
    resource.meta.key.to_string().into()
}

/// What the settings of the mesh are called as an origin.
fn mesh_name(state: &MeshState) -> Text {
    state.mesh_source().map_or_else(|| "meshconfig".into(), |source| name(source))
}

fn metrics(state: &MeshState, levels: &[Level<'_>], side: TelemetryMode) -> Metrics {
    let default: Vec<Text> = match state.mesh().default_providers.metrics.as_slice() {
        [] => vec![METRICS.into()],
        names => names.to_vec(),
    };
    let entries = || levels.iter().flat_map(|(_, telemetry)| &telemetry.metrics);
    // The last list of providers counts; entries for others are passed over.
    let named = entries().rfind(|entry| !entry.providers.is_empty());
    let scope = named.map_or(&default, |entry| &entry.providers);
    let counted: Vec<&Text> =
        scope.iter().filter(|name| state.provider(name) == Some(ProviderKind::Prometheus)).collect();
    let mut found = Metrics { enabled: !counted.is_empty(), ..Metrics::default() };
    let mut parents = &default;
    for entry in entries() {
        if !entry.providers.is_empty() {
            parents = &entry.providers;
        }
        if parents.iter().any(|name| counted.contains(&name)) {
            apply_metrics(&mut found, entry, side);
        }
    }
    // What was changed back is not kept.
    found.changes.retain(|_, change| change.disabled || !change.tags.is_empty());
    found
}

fn apply_metrics(found: &mut Metrics, entry: &DeclaredMetrics, side: TelemetryMode) {
    if let Some(interval) = entry.reporting_interval {
        found.reporting_interval = interval;
    }
    for change in entry.overrides.iter().filter(|change| concerns(change.mode, side)) {
        if change.metric == MetricChoice::All && change.disabled == Some(true) {
            found.enabled = false;
            continue;
        }
        // A lower level that says anything else of it turns it on again.
        found.enabled = true;
        match change.metric {
            MetricChoice::One(metric) => apply_override(found, metric, change),
            MetricChoice::Each | MetricChoice::All => {
                Metric::ALL.into_iter().for_each(|metric| apply_override(found, metric, change));
            }
        }
    }
}

fn apply_override(found: &mut Metrics, metric: Metric, change: &MetricOverride) {
    let held = found.changes.entry(metric).or_default();
    held.disabled = change.disabled.unwrap_or(held.disabled);
    for (tag, value) in &change.tags {
        let value = match value {
            TagOverride::Upsert(expression) => TagChange::Set(expression.clone()),
            TagOverride::Remove => TagChange::Remove,
        };
        held.tags.insert(tag.clone(), value);
    }
}

fn logs(state: &MeshState, levels: &[Level<'_>], side: TelemetryMode) -> Logs {
    let default = &state.mesh().default_providers.access_logging;
    let entries: Vec<(Text, Vec<&AccessLogging>)> = levels
        .iter()
        .map(|(resource, telemetry)| {
            let concerning = telemetry.access_logging.iter().filter(|entry| concerns(entry.mode, side));
            (name(resource), concerning.collect::<Vec<_>>())
        })
        .filter(|(_, entries)| !entries.is_empty())
        .collect();
    if entries.is_empty() && default.is_empty() {
        return legacy(state);
    }
    // The last level that names providers says which; what others say of further ones is passed over.
    let of_level = |(_, entries): &(Text, Vec<&AccessLogging>)| {
        let names: BTreeSet<Text> =
            entries.iter().flat_map(|entry| entry.providers.iter().cloned()).collect();
        (!names.is_empty()).then_some(names)
    };
    let scope = entries.iter().rev().find_map(of_level).unwrap_or_else(|| default.iter().cloned().collect());
    let mut chosen: BTreeMap<&Text, Option<(&AccessLogging, &Text)>> = BTreeMap::new();
    let mut parents: &Vec<Text> = default;
    let mut off = false;
    for (origin, entry) in
        entries.iter().flat_map(|(origin, entries)| entries.iter().map(move |e| (origin, *e)))
    {
        if !entry.providers.is_empty() {
            parents = &entry.providers;
        }
        let disabled = entry.disabled == Some(true);
        // Where nobody has named a provider, what the proxies were started with is meant.
        off = if parents.is_empty() { disabled } else { off };
        for provider in parents.iter().filter(|provider| scope.contains(*provider)) {
            chosen.insert(provider, (!disabled).then_some((entry, origin)));
        }
    }
    if entries.is_empty() {
        let mesh = mesh_name(state);
        let logs = default.iter().filter_map(|provider| log(state, provider, None, &mesh));
        return Logs::These(logs.collect());
    }
    if chosen.is_empty() && !off {
        return legacy(state);
    }
    let logs = chosen.into_iter().filter_map(|(provider, entry)| {
        let (entry, origin) = entry?;
        log(state, provider, entry.filter.clone(), origin)
    });
    Logs::These(logs.collect())
}

fn log(
    state: &MeshState,
    provider: &Text,
    filter: Option<crate::telemetry::expression::Expression>,
    origin: &Text,
) -> Option<Log> {
    let ProviderKind::Log(mut sink) = state.provider(provider)? else { return None };
    // Istio's own provider of a log in a file takes the form of the mesh.
    if let Sink::File { format, .. } = &mut sink
        && *format == Format::Text(None)
        && provider.eq_ignore_ascii_case(BUILT_IN_LOG)
    {
        *format = mesh_format(state);
    }
    Some(Log { provider: provider.clone(), sink, filter, origin: origin.clone() })
}

/// `accessLogEncoding` and `accessLogFormat`.
fn mesh_format(state: &MeshState) -> Format {
    let mesh = state.mesh();
    let written = mesh.access_log_format.as_ref().filter(|format| !format.is_empty());
    match mesh.access_log_encoding {
        AccessLogEncoding::Text => Format::Text(written.cloned()),
        // The JSON text of the whole.
        AccessLogEncoding::Json => Format::Json(written.map(|format| vec![("".into(), format.clone())])),
    }
}

/// `accessLogFile`.
fn legacy(state: &MeshState) -> Logs {
    match &state.mesh().access_log_file {
        None => Logs::AsStarted,
        Some(path) if path.is_empty() => Logs::These(Vec::new()),
        Some(path) => Logs::These(vec![Log {
            provider: LEGACY_LOG.into(),
            sink: Sink::File { path: path.clone(), format: mesh_format(state) },
            filter: None,
            origin: mesh_name(state),
        }]),
    }
}

fn tracing(state: &MeshState, levels: &[Level<'_>], side: TelemetryMode) -> Tracing {
    let mesh = state.mesh();
    let mut found = Tracing {
        // Off where the mesh says so; else what the proxy was started with knows whether there is a collector.
        report: mesh.enable_tracing != Some(false),
        sampling: mesh.tracing.sampling,
        istio_tags: mesh.tracing.istio_tags.unwrap_or(true),
        tags: mesh.tracing.custom_tags.iter().map(tag).collect(),
        ..Tracing::default()
    };
    let mut chosen = mesh.default_providers.tracing.first().cloned().map(|name| (name, mesh_name(state)));
    if chosen.is_some() {
        found.report = true;
    }
    for (resource, telemetry) in levels {
        // Of a resource the first entry counts.
        for entry in telemetry.tracing.iter().filter(|entry| concerns(entry.mode, side)) {
            if let Some(provider) = entry.providers.first() {
                chosen = Some((provider.clone(), name(resource)));
                found.report = true;
            }
            apply_tracing(&mut found, entry);
        }
    }
    if let Some((provider, origin)) = chosen {
        match state.provider(&provider) {
            Some(ProviderKind::Traces(collector)) => found.collector = Some(collector),
            // One that is not there: spans are not reported, as in Istio.
            _ => found.report = false,
        }
        (found.provider, found.origin) = (Some(provider), Some(origin));
    }
    found
}

fn apply_tracing(found: &mut Tracing, entry: &DeclaredTracing) {
    found.sampling = entry.sampling.or(found.sampling);
    found.report = entry.disable_span_reporting.map_or(found.report, |disabled| !disabled);
    found.propagate = entry.disable_context_propagation.map_or(found.propagate, |disabled| !disabled);
    found.istio_tags = entry.enable_istio_tags.unwrap_or(found.istio_tags);
    found.use_request_id = entry.use_request_id.unwrap_or(found.use_request_id);
    if let Some(tags) = &entry.custom_tags {
        found.tags = tags.iter().map(tag).collect();
    }
}

fn tag((name, value): (&Text, &CustomTag)) -> (Text, TagValue) {
    let value = match value {
        CustomTag::Literal(text) => TagValue::Literal(text.clone()),
        CustomTag::Environment(variable, default) => TagValue::Environment(variable.clone(), default.clone()),
        CustomTag::Header(field, default) => TagValue::Header(field.clone(), default.clone()),
        CustomTag::Formatter(format) => TagValue::Format(format.clone()),
    };
    (name.clone(), value)
}

#[cfg(test)]
mod tests;
