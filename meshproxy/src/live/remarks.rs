//! Counters of what the policies of a workload write down: what AUDIT rules are about, and what policies in dry run
//! would do.

use mesh_core::policy::authorization::{AuthorizationPolicy, PolicyAction};
use mesh_core::policy::judge::{Decider, Remarks, Verdict};
use mesh_core::tables::workloads::HostedWorkload;
use metrics::Counter;

use crate::telemetry::entry::Remarked;
use crate::telemetry::metrics::Metrics;

const AUDITED: &str = "mesh_proxy_authorization_audited_total";
const DRY_RUN: &str = "mesh_proxy_authorization_dry_run_total";

/// Counters of the policies that hold for one workload.
#[derive(Debug, Default)]
pub struct Remarkers {
    /// By index of the policy; `None` for one that is enforced.
    policies: Vec<Option<Counter>>,
    /// For what no policy in dry run decides.
    undecided: Option<Undecided>,
}

#[derive(Debug)]
struct Undecided {
    allowed: Counter,
    denied: Counter,
}

impl Remarkers {
    /// Those of a workload.
    pub fn of(hosted: &HostedWorkload, metrics: &Metrics) -> Remarkers {
        let key = &hosted.section.key;
        let rehearsed = |policy: &str, result: &str| {
            metrics.remarks(DRY_RUN, key, &[("policy", policy), ("result", result)])
        };
        let counter = |policy: &AuthorizationPolicy| {
            let name = format!("{}/{}", policy.namespace, policy.name);
            match (policy.action, policy.dry_run) {
                (PolicyAction::Audit, _) => Some(metrics.remarks(AUDITED, key, &[("policy", &name)])),
                (PolicyAction::Deny, true) => Some(rehearsed(&name, "denied")),
                (PolicyAction::Allow, true) => Some(rehearsed(&name, "allowed")),
                (PolicyAction::Allow | PolicyAction::Deny | PolicyAction::Custom, _) => None,
            }
        };
        let policies: Vec<_> = hosted.policies().iter().map(|policy| counter(policy)).collect();
        let any = hosted.policies().iter().any(|policy| policy.dry_run);
        let undecided = any.then(|| Undecided {
            allowed: rehearsed("none", "allowed"),
            denied: rehearsed("none", "denied"),
        });
        Remarkers { policies, undecided }
    }

    /// Counts what is said, and puts it into words for the log.
    pub fn note(&self, hosted: &HostedWorkload, remarks: &Remarks) -> Box<Remarked> {
        let by = |found: Decider| {
            if let Some(Some(counter)) = self.policies.get(found.policy) {
                counter.increment(1);
            }
            let policy = hosted.policies().get(found.policy);
            policy.map_or_else(String::new, |policy| {
                format!("ns[{}]-policy[{}]-rule[{}]", policy.namespace, policy.name, found.rule)
            })
        };
        let undecided = |allowed: bool| {
            if let Some(Undecided { allowed: let_in, denied }) = &self.undecided {
                if allowed { let_in } else { denied }.increment(1);
            }
            "[none]".to_owned()
        };
        let rehearsed = remarks.rehearsed.map(|verdict| match verdict {
            Verdict::Allow(found) => format!("allowed {}", found.map_or_else(|| undecided(true), by)),
            Verdict::Deny(found) => format!("denied {}", found.map_or_else(|| undecided(false), by)),
        });
        Box::new(Remarked { audited: remarks.audited.map(by), rehearsed })
    }
}
