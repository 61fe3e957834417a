//! Telemetry that names no provider where the mesh has no default (IST0157), one that is not there or does something else
//! (MSH0109), or one that Istio gives up (IST0002).

use super::facts::Facts;
use super::findings::Findings;
use crate::resource::Spec;
use crate::resource::diagnostic::Severity;
use crate::resource::mesh_config::ProviderKind;
use crate::vocab::origin::Kind;

pub(super) fn check(facts: &Facts<'_>, findings: &mut Findings) {
    lightstep(facts, findings);
    named(facts, findings);
    if facts.mesh.is_some_and(|mesh| !mesh.default_providers.access_logging.is_empty()) {
        return;
    }
    for resource in facts.of(Kind::Telemetry) {
        let Spec::Telemetry(telemetry) = &resource.spec else { continue };
        for (index, logging) in telemetry.access_logging.iter().enumerate() {
            if logging.disabled != Some(true) && logging.providers.is_empty() {
                let message = "the entry names no provider and the mesh has no default one: it has no effect; \
                               name one in providers, or set defaultProviders.accessLogging in MeshConfig";
                let field = format!("spec.accessLogging[{index}]");
                findings.add("IST0157", Severity::Warning, resource, field, message);
            }
        }
    }
}

/// What a provider is named for.
#[derive(Clone, Copy)]
enum Purpose {
    Metrics,
    Logs,
    Traces,
}

impl Purpose {
    /// What is wrong with a provider for it.
    fn against(self, kind: &ProviderKind) -> Option<String> {
        let (fits, wanted) = match self {
            Purpose::Metrics => (matches!(kind, ProviderKind::Prometheus), "metrics are for prometheus"),
            Purpose::Logs => {
                (matches!(kind, ProviderKind::Log(_)), "logs go to envoyFileAccessLog or envoyOtelAls")
            }
            Purpose::Traces => (matches!(kind, ProviderKind::Traces(_)), "traces go to opentelemetry"),
        };
        (!fits).then(|| match kind {
            ProviderKind::Other(kind) => format!("is of the kind {kind}, which is not supported: {wanted}"),
            _ => format!("is of another kind: {wanted}"),
        })
    }
}

/// Providers that resources name.
fn named(facts: &Facts<'_>, findings: &mut Findings) {
    let declared = facts.mesh.map_or(&[][..], |mesh| &mesh.providers);
    let against = |name: &str, purpose: Purpose| {
        let found = declared.iter().find(|entry| entry.name.eq_ignore_ascii_case(name));
        match found.map(|entry| entry.kind.clone()).or_else(|| ProviderKind::built_in(name)) {
            Some(kind) => purpose.against(&kind),
            None => Some("is not among extensionProviders of the MeshConfig".to_owned()),
        }
    };
    for resource in facts.of(Kind::Telemetry) {
        let Spec::Telemetry(telemetry) = &resource.spec else { continue };
        let metrics = telemetry.metrics.iter().map(|entry| &entry.providers);
        let logs = telemetry.access_logging.iter().map(|entry| &entry.providers);
        let traces = telemetry.tracing.iter().map(|entry| &entry.providers);
        let lists = metrics
            .enumerate()
            .map(|(index, names)| ("metrics", Purpose::Metrics, index, names))
            .chain(logs.enumerate().map(|(index, names)| ("accessLogging", Purpose::Logs, index, names)))
            .chain(traces.enumerate().map(|(index, names)| ("tracing", Purpose::Traces, index, names)));
        for (part, purpose, index, names) in lists {
            for (at, name) in names.iter().enumerate() {
                if let Some(reason) = against(name, purpose) {
                    let message = format!("the provider {name} {reason}; nothing goes there");
                    let field = format!("spec.{part}[{index}].providers[{at}].name");
                    findings.add("MSH0109", Severity::Warning, resource, field, message);
                }
            }
        }
    }
}

fn lightstep(facts: &Facts<'_>, findings: &mut Findings) {
    let providers = facts.mesh.map_or(&[][..], |mesh| &mesh.providers);
    let is_lightstep =
        |kind: &ProviderKind| matches!(kind, ProviderKind::Other(kind) if &**kind == "lightstep");
    let names: Vec<_> = providers.iter().filter(|p| is_lightstep(&p.kind)).map(|p| &p.name).collect();
    if names.is_empty() {
        return;
    }
    for resource in facts.of(Kind::Telemetry) {
        let Spec::Telemetry(telemetry) = &resource.spec else { continue };
        for (index, tracing) in telemetry.tracing.iter().enumerate() {
            let mut used = tracing.providers.iter().enumerate();
            if let Some((at, name)) = used.find(|(_, name)| names.contains(name)) {
                let message = format!(
                    "the provider {name} is a lightstep provider, which is deprecated in Istio; use an opentelemetry provider"
                );
                let field = format!("spec.tracing[{index}].providers[{at}].name");
                findings.add("IST0002", Severity::Warning, resource, field, message);
            }
        }
    }
}
