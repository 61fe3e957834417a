//! RateLimits: for nobody (IST0127), and attached to what does not exist (IST0101).

use super::facts::Facts;
use super::findings::{Findings, pairs};
use crate::resource::Spec;
use crate::resource::diagnostic::Severity;
use crate::vocab::origin::Kind;

pub(super) fn check(facts: &Facts<'_>, findings: &mut Findings) {
    for resource in facts.of(Kind::RateLimit) {
        let Spec::RateLimit(limit) = &resource.spec else { continue };
        let namespace = &resource.meta.key.namespace;
        if let (true, Some(labels)) = (limit.targets.is_empty(), &limit.selector)
            && !facts.selects_any(namespace, labels, true)
        {
            let message = format!(
                "no workload has the labels {}: the rate limit limits nothing; correct the selector, or label the workload",
                pairs(labels)
            );
            findings.add("IST0127", Severity::Warning, resource, "spec.selector", message);
        }
        for (index, target) in limit.targets.iter().enumerate() {
            let kind = target.kind.kind();
            let exists = facts.of_in(kind, namespace).iter().any(|other| other.meta.key.name == target.name);
            if !exists {
                let message = format!(
                    "namespace {namespace} has no {} {}: declare it, or correct the name",
                    kind.name(),
                    target.name
                );
                let field = format!("spec.targetRefs[{index}].name");
                findings.add("IST0101", Severity::Error, resource, &field, message);
            }
        }
    }
}
