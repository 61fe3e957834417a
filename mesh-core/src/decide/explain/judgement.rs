//! What the called workloads say.

use std::net::IpAddr;
use std::sync::Arc;

use super::destination::receiving;
use super::{AuthenticationFound, AuthorizationFound, LimitFound, Question};
use crate::decide::inbound::{Admission, Inbound, admit_to, check_shown};
use crate::decide::limits::entering;
use crate::decide::refusal::{Denial, Reason, Refusal};
use crate::decide::witness::{Remembering, Witness};
use crate::matching::request::Request;
use crate::policy::authorization::{AuthorizationPolicy, PolicyAction};
use crate::policy::mtls::{ClientTls, MtlsMode, TlsOrigination};
use crate::tables::Tables;
use crate::tables::destinations::{Destination, Endpoint, Transport};
use crate::tables::workloads::HostedWorkload;
use crate::vocab::identity::SpiffeId;
use crate::vocab::protocol::Protocol;

/// What the called workloads say, over all destinations. One that refuses is what an operator asks about, whatever the
/// others do.
#[derive(Default)]
pub(super) struct Judged {
    pub(super) reachable: usize,
    /// Whether some endpoint cannot be spoken to, because it has no TLS and the destination demands it.
    pub(super) unreachable: bool,
    pub(super) authentication: Option<AuthenticationFound>,
    /// Rate limits of the workloads that let it in, each once.
    pub(super) limits: Vec<LimitFound>,
    allowed: Option<AuthorizationFound>,
    denied: Option<AuthorizationFound>,
    /// Status and flag of the first request that policies refuse, and of the first that the transport does.
    by_policy: Option<(u16, &'static str)>,
    by_transport: Option<(u16, &'static str)>,
}

impl Judged {
    /// What authorization says.
    pub(super) fn authorization(&self) -> Option<&AuthorizationFound> {
        self.denied.as_ref().or(self.allowed.as_ref())
    }

    /// Status and flag, if a called workload refuses.
    pub(super) fn refused(&self) -> Option<(u16, &'static str)> {
        self.by_policy.or(self.by_transport)
    }

    pub(super) fn judge(
        &mut self,
        tables: &Tables,
        question: &Question<'_>,
        destination: &Destination,
        request: Option<&Request<'_>>,
        witness: &mut Remembering,
    ) {
        if destination.policy.is_passthrough() && destination.endpoints.is_empty() {
            self.reachable += 1;
            return;
        }
        let source = question.source.or_else(|| address_of(tables, question));
        let needed = destination.policy.tls.credentials(question.gateway);
        let lacks_credential = needed.iter().any(|key| !tables.credentials.contains_key(key));
        for endpoint in receiving(tables, question, destination) {
            if lacks_credential && endpoint.transport == Transport::Tls {
                self.unreachable = true;
                continue;
            }
            if endpoint.transport == Transport::Unreachable {
                self.unreachable = true;
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
            let shown = match &endpoint.transport {
                Transport::Mesh { peer, .. } => Some(peer),
                Transport::Plaintext | Transport::Tls | Transport::Unreachable => None,
            };
            let peer = question.identity.filter(|_| shown.is_some());
            let port = to.port();
            self.authentication.get_or_insert_with(|| AuthenticationFound {
                mtls: workload.section.mtls.mode(port).name(),
                decided_by: workload.section.mtls.origin(port).map(ToString::to_string),
                jwt: "none".to_owned(),
            });
            if endpoint.transport == Transport::Tls && !takes_foreign_tls(workload, port) {
                self.by_transport.get_or_insert((503, "UF"));
                witness.note(|| {
                    format!("{} takes no TLS but the mesh's own on port {port}", workload.section.key)
                });
                continue;
            }
            if let Some(expected) = shown.filter(|expected| !is_proven(tables, workload, expected)) {
                self.by_transport.get_or_insert((503, "UF"));
                witness.note(|| {
                    format!("nobody on the host of {} proves to be {expected}", workload.section.key)
                });
                continue;
            }
            // What comes in TLS that is not the mesh's own is bytes to the proxy there.
            let request = request.filter(|_| endpoint.transport != Transport::Tls);
            // The called proxy brings the path into its form again, for a rule may have rewritten it.
            let path = request.map(|request| tables.normalization().apply(request.path)).transpose();
            let Ok(path) = path else {
                self.by_policy.get_or_insert((400, "-"));
                witness.note(|| "the rewritten path is malformed, so the answer is 400".to_owned());
                continue;
            };
            let request = request.zip(path.as_deref()).map(|(request, path)| Request { path, ..*request });
            let sni = server_name(question, destination, endpoint);
            let facts = Inbound {
                to,
                peer,
                shown,
                source,
                sni: sni.as_deref(),
                request: request.as_ref(),
                now: question.now,
            };
            let mut steps = Remembering::default();
            if source.is_none() && workload.governance.program.reads_addresses() {
                steps.note(|| "the caller's address is not known, so no rule about it can match".to_owned());
            }
            let verdict = admit_to(workload, &facts, &mut steps)
                .and_then(|admission| check_shown(workload, &facts, &mut steps).map(|()| admission));
            for step in steps.sentences {
                if !witness.sentences.contains(&step) {
                    witness.note(|| step);
                }
            }
            match verdict {
                Ok(admission) => {
                    self.let_in(&admission);
                    self.count(&admission, &facts, witness);
                }
                Err(refusal) => self.keep_out(workload, &refusal),
            }
        }
    }

    /// Notes the rate limits that a request which is let in counts against.
    fn count(&mut self, admission: &Admission, facts: &Inbound<'_>, witness: &mut Remembering) {
        let Some(request) = facts.request else { return };
        let rewritten = admission.judgement.token.headers.as_ref().unwrap_or(request.headers);
        let request = Request { headers: rewritten, ..*request };
        let limits = &admission.workload.section.limits;
        let found = LimitFound::all(limits, Some(admission.port), &entering(facts, &request), "workload");
        for limit in found {
            if !self.limits.contains(&limit) {
                witness.note(|| limit.sentence());
                self.limits.push(limit);
            }
        }
    }

    fn let_in(&mut self, admission: &Admission) {
        let judgement = &admission.judgement;
        if judgement.token.claims.is_some() {
            self.token(true, valid(judgement.token.principal()));
        }
        // Where no ALLOW rule is behind it, the provider that is asked has the last word.
        let found = judgement.by.or(judgement.ask);
        self.allowed.get_or_insert_with(|| AuthorizationFound {
            allowed: true,
            decided_by: found.map(|by| admission.workload.policies()[by.policy].resource()),
            rule: found.map(|by| by.rule),
            nearest_miss: None,
        });
    }

    fn keep_out(&mut self, workload: &HostedWorkload, refusal: &Refusal) {
        let answer = (refusal.status(), refusal.flag());
        match &refusal.reason {
            Reason::Denied(denial) => {
                if let Some(principal) = &denial.principal {
                    self.token(false, valid(Some(principal.clone())));
                }
                self.by_policy.get_or_insert(answer);
                self.denied.get_or_insert_with(|| found(workload.policies(), denial));
            }
            Reason::Token { error, .. } => {
                self.token(false, format!("invalid: {error}"));
                self.by_policy.get_or_insert(answer);
            }
            _ => {
                self.by_transport.get_or_insert(answer);
            }
        }
    }

    /// Notes what is said of the token. The first word of a workload that refuses stands against all others.
    fn token(&mut self, passes: bool, said: String) {
        let refused = self.by_policy.is_some();
        if let Some(authentication) = self.authentication.as_mut().filter(|_| !refused)
            && (!passes || authentication.jwt == "none")
        {
            authentication.jwt = said;
        }
    }
}

pub(super) fn valid(principal: Option<String>) -> String {
    principal.map_or("valid".to_owned(), |principal| format!("valid {principal}"))
}

/// What a denial says: the rule that denied, else the one that came nearest to allowing.
pub(super) fn found(policies: &[Arc<AuthorizationPolicy>], denial: &Denial) -> AuthorizationFound {
    let (policy, rule, miss) = match (&denial.by, &denial.nearest) {
        (Some((policy, rule)), _) => (Some(policy), Some(*rule), None),
        (None, Some((policy, rule, reason))) => (Some(policy), Some(*rule), Some(reason.clone())),
        (None, None) => {
            let allow =
                |policy: &AuthorizationPolicy| policy.action == PolicyAction::Allow && !policy.dry_run;
            let without_rules = policies.iter().find(|policy| allow(policy));
            (
                without_rules,
                None,
                without_rules.map(|_| "the policy has no rule, so that nothing matches".to_owned()),
            )
        }
    };
    AuthorizationFound {
        allowed: false,
        decided_by: policy.map(|policy| policy.resource()),
        rule,
        nearest_miss: miss,
    }
}

/// Whether a port passes on TLS that is not the mesh's own, as bytes.
fn takes_foreign_tls(workload: &HostedWorkload, port: u16) -> bool {
    let protocol = workload.port(port).map_or(Protocol::Auto, |port| port.protocol);
    workload.section.mtls.mode(port) != MtlsMode::Strict && !protocol.is_http()
}

/// The address of the caller's workload, if one has its identity: on the host meant, if one is, and with its labels.
fn address_of(tables: &Tables, question: &Question<'_>) -> Option<IpAddr> {
    let identity = question.identity?;
    let same = tables.workloads.values().map(|workload| &workload.section).filter(|workload| {
        workload.identity.as_ref() == Some(identity)
            && question.node.is_none_or(|node| *workload.node == *node)
    });
    let same: Vec<_> = same.collect();
    let labelled = same.iter().find(|workload| workload.labels == *question.caller.labels);
    let caller = labelled.or(same.first())?;
    // Between proxies the connection comes from the caller's host, wherever on it the caller has its own address.
    let mut endpoints = tables.destinations.iter().flat_map(|destination| &destination.endpoints);
    let host = endpoints.find_map(|endpoint| match endpoint.transport {
        Transport::Mesh { hop, .. } if endpoint.workload == caller.key => Some(hop.ip()),
        _ => None,
    });
    Some(host.unwrap_or(caller.address))
}

/// The server name that the called workload's policies see.
fn server_name(question: &Question<'_>, destination: &Destination, endpoint: &Endpoint) -> Option<String> {
    let asked = || question.host.to_ascii_lowercase();
    match (&endpoint.transport, &destination.policy.tls) {
        (Transport::Mesh { .. }, _) => destination.server_name.as_deref().map(str::to_owned),
        (Transport::Tls, ClientTls::Originate(TlsOrigination { sni: Some(sni), .. })) => {
            Some(sni.to_ascii_lowercase())
        }
        (Transport::Tls, _) => Some(asked()),
        // The application's own TLS.
        (Transport::Plaintext, _) => (question.request.scheme == "https").then(asked),
        (Transport::Unreachable, _) => None,
    }
}

/// Whether the host of a workload can show itself as somebody.
fn is_proven(tables: &Tables, workload: &HostedWorkload, expected: &SpiffeId) -> bool {
    let sections = tables.workloads.values().map(|hosted| &hosted.section);
    let mut here = sections.filter(|section| section.node == workload.section.node);
    here.any(|section| section.identity.as_ref() == Some(expected))
}
