//! What the called workloads say.

use super::destination::receiving;
use super::{AuthenticationFound, AuthorizationFound, Question};
use crate::decide::inbound::{Inbound, admit_to};
use crate::decide::refusal::Reason;
use crate::decide::witness::{Remembering, Witness};
use crate::matching::request::Request;
use crate::policy::authorization::{AuthorizationPolicy, HttpSubject, PolicyAction, Subject, nearest_miss};
use crate::tables::Tables;
use crate::tables::destinations::{Destination, Transport};
use crate::tables::workloads::HostedWorkload;

/// What the called workloads say, over all destinations.
#[derive(Default)]
pub(super) struct Judged {
    pub(super) reachable: usize,
    pub(super) allowed: Option<AuthorizationFound>,
    pub(super) denied: Option<AuthorizationFound>,
    pub(super) transport_refused: bool,
    pub(super) authentication: Option<AuthenticationFound>,
}

impl Judged {
    pub(super) fn judge(
        &mut self,
        tables: &Tables,
        question: &Question<'_>,
        destination: &Destination,
        request: Option<&Request<'_>>,
        witness: &mut Remembering,
    ) {
        if destination.policy.is_passthrough() {
            self.reachable += 1;
            return;
        }
        for endpoint in receiving(tables, question, destination) {
            if endpoint.transport == Transport::Unreachable {
                witness.note(|| {
                    format!(
                        "{} demands mutual TLS and nothing at {} speaks it",
                        destination.cluster, endpoint.address
                    )
                });
                continue;
            }
            self.reachable += 1;
            let Some(workload) = tables.workloads.get(&endpoint.workload) else { continue };
            let Some(to) = endpoint.address.ip() else { continue };
            let over_mesh = matches!(endpoint.transport, Transport::Mesh { .. });
            let peer = question.identity.filter(|_| over_mesh);
            let facts = Inbound { to, peer, request };
            let mode = workload.section.mtls.mode(to.port());
            self.authentication.get_or_insert_with(|| AuthenticationFound {
                mtls: mode.name(),
                decided_by: workload.section.mtls.origin.as_ref().map(ToString::to_string),
            });
            let mut steps = Remembering::default();
            let verdict = admit_to(workload, &facts, &mut steps);
            for step in steps.sentences {
                if !witness.sentences.contains(&step) {
                    witness.note(|| step);
                }
            }
            match verdict {
                Ok(admission) => {
                    self.allowed.get_or_insert_with(|| AuthorizationFound {
                        allowed: true,
                        decided_by: admission.by.map(|by| workload.policies[by.policy].resource()),
                        rule: admission.by.map(|by| by.rule),
                        nearest_miss: None,
                    });
                }
                Err(refusal) => match refusal.reason {
                    Reason::Denied(denial) => {
                        self.denied.get_or_insert_with(|| match &denial.by {
                            Some((policy, rule)) => AuthorizationFound {
                                allowed: false,
                                decided_by: Some(policy.resource()),
                                rule: Some(*rule),
                                nearest_miss: None,
                            },
                            None => nearest(workload, &facts),
                        });
                    }
                    Reason::Transport { .. } => self.transport_refused = true,
                    Reason::UnknownHost
                    | Reason::NoRoute
                    | Reason::NoDestination { .. }
                    | Reason::NotHere
                    | Reason::PolicyMissing => {}
                },
            }
        }
    }
}

fn subject<'a>(facts: &Inbound<'a>) -> Subject<'a> {
    let http = facts.request.map(|request| HttpSubject {
        method: request.method,
        path: request.path,
        authority: request.authority,
    });
    Subject { identity: facts.peer, port: facts.to.port(), http }
}

/// A denial because no ALLOW rule matched: the one that came nearest, and what it lacked.
fn nearest(workload: &HostedWorkload, facts: &Inbound<'_>) -> AuthorizationFound {
    let policies = workload.policies.iter().map(|policy| &**policy);
    let without_rules = || policies.clone().find(|policy| policy.action == PolicyAction::Allow);
    match nearest_miss(policies.clone(), &subject(facts)) {
        Some((policy, rule, reason)) => AuthorizationFound {
            allowed: false,
            decided_by: Some(workload.policies[policy].resource()),
            rule: Some(rule),
            nearest_miss: Some(reason),
        },
        None => AuthorizationFound {
            allowed: false,
            decided_by: without_rules().map(AuthorizationPolicy::resource),
            rule: None,
            nearest_miss: None,
        },
    }
}
