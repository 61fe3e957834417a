//! What a workload of this host lets in: transport, then authorization.

use std::net::SocketAddr;
use std::sync::Arc;

use super::refusal::{Denial, Reason, Refusal};
use super::witness::Witness;
use crate::matching::request::Request;
use crate::policy::authorization::{Decider, HttpSubject, Subject, Verdict, judge, nearest_miss};
use crate::tables::Tables;
use crate::tables::workloads::HostedWorkload;
use crate::vocab::identity::SpiffeId;
use crate::vocab::protocol::Protocol;

/// What came in for a workload of this host.
#[derive(Debug, Clone, Copy)]
pub struct Inbound<'a> {
    /// Address and port of the workload.
    pub to: SocketAddr,
    /// The caller's verified identity: it came over mutual TLS exactly if there is one.
    pub peer: Option<&'a SpiffeId>,
    /// The request; `None` for a byte stream.
    pub request: Option<&'a Request<'a>>,
}

/// Let in.
#[derive(Debug)]
pub struct Admission {
    /// The workload.
    pub workload: Arc<HostedWorkload>,
    /// Its port.
    pub port: u16,
    /// What the port speaks, as declared; [`Protocol::Auto`] where no service reaches it.
    pub protocol: Protocol,
    /// The policy and rule that let it in; `None` where no policy restricts the workload.
    pub by: Option<Decider>,
}

/// Decides whether something may enter. Fails closed: an unknown workload and a missing policy refuse.
pub fn admit(tables: &Tables, facts: &Inbound<'_>, witness: &mut impl Witness) -> Result<Admission, Refusal> {
    let Some(workload) = tables.workload_at(facts.to) else {
        witness.note(|| format!("{} is no workload of this host", facts.to));
        return Err(Refusal::new(Reason::NotHere));
    };
    admit_to(workload, facts, witness)
}

/// The same for a workload that is already known.
pub(crate) fn admit_to(
    workload: &Arc<HostedWorkload>,
    facts: &Inbound<'_>,
    witness: &mut impl Witness,
) -> Result<Admission, Refusal> {
    let port = facts.to.port();
    let mode = workload.section.mtls.mode(port);
    let mutual_tls = facts.peer.is_some();
    if !mode.admits(mutual_tls) {
        witness.note(|| {
            let how = if mutual_tls { "mutual TLS" } else { "plaintext" };
            format!("{} accepts no {how}: its mode is {}", workload.section.key, mode.name())
        });
        return Err(Refusal::new(Reason::Transport { mutual_tls }));
    }
    if !workload.complete {
        return Err(Refusal::new(Reason::PolicyMissing));
    }
    let http = facts.request.map(|request| HttpSubject {
        method: request.method,
        path: request.path,
        authority: request.authority,
    });
    let subject = Subject { identity: facts.peer, port, http };
    let policies = workload.policies.iter().map(|policy| &**policy);
    match judge(&policies, &subject) {
        Verdict::Allow(decider) => {
            witness.note(|| match decider {
                Some(d) => format!("{} rule {} allows it", workload.policies[d.policy].resource(), d.rule),
                None => format!("no policy restricts {}", workload.section.key),
            });
            let protocol = workload.port(port).map_or(Protocol::Auto, |known| known.protocol);
            Ok(Admission { workload: workload.clone(), port, protocol, by: decider })
        }
        Verdict::Deny(decider) => {
            witness.note(|| match decider {
                Some(d) => format!("{} rule {} denies it", workload.policies[d.policy].resource(), d.rule),
                None => match nearest_miss(policies, &subject) {
                    Some((policy, rule, reason)) => format!(
                        "no ALLOW rule matches; nearest is {} rule {rule}: {reason}",
                        workload.policies[policy].resource()
                    ),
                    None => "an ALLOW policy applies and has no rule that could match".to_owned(),
                },
            });
            Err(Refusal::new(Reason::Denied(Denial::new(&workload.policies, decider))))
        }
    }
}
