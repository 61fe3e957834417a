//! Telemetry that names no provider where the mesh has no default (IST0157).

use super::facts::Facts;
use super::findings::Findings;
use crate::resource::Spec;
use crate::resource::diagnostic::Severity;
use crate::vocab::origin::Kind;

pub(super) fn check(facts: &Facts<'_>, findings: &mut Findings) {
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
