//! Telemetry that names no provider where the mesh has no default (IST0157), or one that Istio gives up (IST0002).

use super::facts::Facts;
use super::findings::Findings;
use crate::resource::Spec;
use crate::resource::diagnostic::Severity;
use crate::resource::mesh_config::ProviderKind;
use crate::vocab::origin::Kind;

pub(super) fn check(facts: &Facts<'_>, findings: &mut Findings) {
    lightstep(facts, findings);
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
