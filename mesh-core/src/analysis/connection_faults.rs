//! Faults of connections that are over (MSH0107), or that would go on for too long (MSH0108).

use std::sync::Arc;
use std::time::Duration;

use super::facts::Facts;
use super::findings::Findings;
use crate::resource::destination_rule::ConnectionFault;
use crate::resource::diagnostic::{Diagnostic, Severity};
use crate::resource::{Resource, Spec};
use crate::vocab::origin::Kind;

const FIELD: &str = "metadata.annotations[\"mesh.io/fault\"]";

pub(super) fn check(facts: &Facts<'_>, now: u64, findings: &mut Findings) {
    for resource in facts.of(Kind::DestinationRule) {
        add(resource, now, findings);
    }
}

/// The same for the resources of a batch, which may not begin what does not end.
pub fn judge(resources: &[Arc<Resource>], now: u64) -> Vec<Diagnostic> {
    let mut findings = Findings::default();
    resources.iter().for_each(|resource| add(resource, now, &mut findings));
    findings.into_sorted()
}

fn add(resource: &Resource, now: u64, findings: &mut Findings) {
    let Spec::DestinationRule(rule) = &resource.spec else { return };
    let Some(fault) = &rule.fault else { return };
    let longest = ConnectionFault::LONGEST;
    match Duration::from_secs(fault.until).checked_sub(Duration::from_secs(now)) {
        None | Some(Duration::ZERO) => {
            let message = "the fault is over and has no effect: remove it, or set a later end in until";
            findings.add("MSH0107", Severity::Warning, resource, FIELD, message);
        }
        Some(left) if left > longest => {
            let message = format!(
                "the fault would end in {} minutes; no fault may last longer than {}: set an earlier end in until",
                left.as_secs().div_ceil(60),
                longest.as_secs() / 60
            );
            findings.add("MSH0108", Severity::Error, resource, FIELD, message);
        }
        Some(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::destination_rule::ConnectionFaultKind;
    use crate::state::sample::destination_rule;
    use crate::vocab::ratio::Ratio;

    #[test]
    fn ends_are_looked_at() {
        for (until, expected) in [
            (0, "MSH0107"),
            (10_000, "MSH0107"),
            (10_001, ""),
            (13_600, ""),
            (13_601, "MSH0108"),
            (u64::MAX, "MSH0108"),
        ] {
            let mut resource = destination_rule("prod/a", "a", &[], None);
            if let Spec::DestinationRule(rule) = &mut Arc::make_mut(&mut resource).spec {
                let kind = ConnectionFaultKind::Blackhole;
                rule.fault = Some(ConnectionFault { kind, share: Ratio::ONE, until });
            }
            let found: Vec<_> = judge(&[resource], 10_000).iter().map(|finding| finding.code).collect();
            assert_eq!(found.join(" "), expected, "{until}");
        }
    }
}
