//! The decision about a request, foretold: the same functions that the proxy calls, with every choice laid open.

use std::sync::Arc;
use std::time::Duration;

use super::facts::{OutboundRequest, OutboundStream};
use super::inbound::{Inbound, admit_to};
use super::refusal::{Reason, Refusal};
use super::request::{Selected, forward, select};
use super::witness::{Remembering, Witness};
use crate::matching::path::normalize;
use crate::matching::request::{Caller, Request};
use crate::policy::authorization::{AuthorizationPolicy, HttpSubject, PolicyAction, Subject, nearest_miss};
use crate::resilience::fault::{AbortStatus, FaultPolicy};
use crate::resilience::retry::RetryPolicy;
use crate::routing::header::HeaderChanges;
use crate::routing::rule::{Backend, RuleAction};
use crate::snapshot::Version;
use crate::snapshot::service::Service;
use crate::tables::Tables;
use crate::tables::destinations::{Destination, Endpoint, Transport};
use crate::tables::workloads::HostedWorkload;
use crate::vocab::health::Health;
use crate::vocab::identity::SpiffeId;
use crate::vocab::protocol::Protocol;
use crate::vocab::random::Random;
use crate::vocab::ratio::Ratio;

/// What is asked. The tables must be those of the whole mesh, so that they hold the called workloads too.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Identity of the caller.
    pub identity: Option<&'a SpiffeId>,
    /// Namespace and labels of the caller.
    pub caller: Caller<'a>,
    /// The request; its path as received.
    pub request: Request<'a>,
    /// The host that the caller connects to. As with loopback capture, its service answers for an authority that the
    /// mesh does not know.
    pub host: &'a str,
    /// The port it is addressed to.
    pub port: u16,
    /// Whether a byte stream is meant whatever the port is declared as.
    pub stream: bool,
}

/// The answer. Fields that do not apply are `None` or empty.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Explanation {
    /// Version of the configuration.
    pub version: Version,
    /// Host of the service.
    pub service: Option<String>,
    /// Port of the service.
    pub port: u16,
    /// `http`, `http2`, `grpc`, `tcp`, ...
    pub protocol: String,
    /// Path as received and as every decision saw it.
    pub path: Option<(String, String)>,
    /// The rule that matched.
    pub route: Option<RouteFound>,
    /// `route`, `redirect`, `direct_response`, `passthrough`, `not_found` or `blocked`.
    pub action: &'static str,
    /// Of a redirect, direct response or error.
    pub status: Option<u16>,
    /// Of a redirect.
    pub location: Option<String>,
    /// New path, where the rule rewrites it.
    pub rewrite_path: Option<String>,
    /// New authority, where the rule rewrites it.
    pub rewrite_authority: Option<String>,
    /// Where it may go, with weights.
    pub destinations: Vec<DestinationFound>,
    /// Time for the whole request.
    pub timeout: Option<Duration>,
    /// Retries; `None` where they are disabled.
    pub retries: Option<RetryPolicy>,
    /// Injected faults.
    pub fault: FaultPolicy,
    /// What authorization says at the destination.
    pub authorization: Option<AuthorizationFound>,
    /// What the destination accepts.
    pub authentication: Option<AuthenticationFound>,
    /// Response flags that the access log would show.
    pub flags: &'static str,
    /// One sentence a step.
    pub why: Vec<String>,
}

/// The rule that matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteFound {
    /// The resource.
    pub resource: String,
    /// Index of the rule.
    pub rule: usize,
    /// Index of the match.
    pub matched: Option<usize>,
    /// Name.
    pub name: Option<String>,
}

/// A destination of the rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestinationFound {
    /// Host.
    pub host: String,
    /// Subset.
    pub subset: Option<String>,
    /// Port.
    pub port: u16,
    /// Share in percent of the whole rule, or as written.
    pub weight: u32,
    /// `outbound|PORT|SUBSET|HOST`.
    pub cluster: String,
    /// `mutual` or `none`.
    pub tls: &'static str,
    /// Load balancer; `None` for a destination that does not exist.
    pub load_balancer: Option<&'static str>,
    /// Its endpoints.
    pub endpoints: Vec<Arc<Endpoint>>,
}

/// What authorization says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationFound {
    /// Whether it may pass.
    pub allowed: bool,
    /// The policy that decided; `None` if no policy applies or no ALLOW rule matched.
    pub decided_by: Option<String>,
    /// The rule of it.
    pub rule: Option<usize>,
    /// What the nearest ALLOW rule lacked.
    pub nearest_miss: Option<String>,
}

/// What the destination accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthenticationFound {
    /// `STRICT`, `PERMISSIVE` or `DISABLE`.
    pub mtls: &'static str,
    /// The PeerAuthentication; `None` for the default of the mesh.
    pub decided_by: Option<String>,
}

/// Foretells what the data plane does with a request.
pub fn explain(tables: &Tables, question: &Question<'_>) -> Explanation {
    let mut witness = Remembering::default();
    let mut answer =
        Explanation { version: tables.version, port: question.port, flags: "-", ..Explanation::default() };
    if is_stream(tables, question) {
        explain_stream(tables, question, &mut answer, &mut witness);
        // A refused byte stream is closed without a word.
        answer.status = None;
    } else {
        explain_request(tables, question, &mut answer, &mut witness);
    }
    answer.why = witness.sentences;
    answer
}

fn addressed(tables: &Tables, question: &Question<'_>) -> Option<usize> {
    tables.service_named(question.host, Some(question.caller.namespace))
}

fn declared_protocol(tables: &Tables, question: &Question<'_>) -> Option<Protocol> {
    let service = &tables.services[addressed(tables, question)?].service;
    service.ports.iter().find(|port| port.number == question.port).map(|port| port.protocol)
}

fn is_stream(tables: &Tables, question: &Question<'_>) -> bool {
    let opaque = matches!(
        declared_protocol(tables, question),
        Some(Protocol::Tcp | Protocol::Tls | Protocol::Https | Protocol::Udp)
    );
    question.stream || opaque
}

fn explain_request(
    tables: &Tables,
    question: &Question<'_>,
    answer: &mut Explanation,
    witness: &mut Remembering,
) {
    let received = question.request.path;
    let Ok(normalized) = normalize(received) else {
        witness.note(|| format!("the path {received} is malformed, so the answer is 400"));
        (answer.action, answer.status) = ("blocked", Some(400));
        return;
    };
    answer.path = Some((received.to_owned(), normalized.to_string()));
    answer.protocol = match declared_protocol(tables, question) {
        Some(Protocol::Auto) | None => "http".to_owned(),
        Some(protocol) => protocol.name().to_owned(),
    };
    let request = Request { path: &normalized, ..question.request };
    let owner = addressed(tables, question);
    let facts = OutboundRequest { request, port: question.port, owner, caller: Some(question.caller) };
    let selected = match select(tables, &facts, witness) {
        Ok(selected) => selected,
        Err(refusal) => return refuse(answer, &refusal, witness),
    };
    answer.service = selected.service.as_ref().map(|service| service.host.to_string());
    let rule = selected.rule();
    answer.route = Some(RouteFound {
        resource: rule.origin.resource.to_string(),
        rule: rule.origin.rule.map_or(0, |index| index as usize),
        matched: selected.matched,
        name: route_name(&selected),
    });
    match &rule.action {
        RuleAction::Redirect(redirect) => {
            (answer.action, answer.status) = ("redirect", Some(redirect.code));
            answer.location = Some(redirect.location(&request, selected.uri()));
        }
        RuleAction::DirectResponse(response) => {
            (answer.action, answer.status) = ("direct_response", Some(response.status));
        }
        RuleAction::Route { backends, .. } => {
            answer.action = "route";
            answer.timeout = rule.timeout;
            answer.retries = (rule.retry.attempts > 0).then(|| rule.retry.clone());
            answer.fault = rule.fault;
            note_fault(&rule.fault, witness);
            explain_backends(tables, question, &facts, &selected, backends, answer, witness);
        }
    }
}

fn route_name(selected: &Selected) -> Option<String> {
    let rule = selected.rule();
    let matched =
        selected.matched.and_then(|index| rule.matches.get(index)).and_then(|found| found.name.as_deref());
    match (rule.name.as_deref(), matched) {
        (Some(rule), Some(matched)) => Some(format!("{rule}.{matched}")),
        (rule, matched) => rule.or(matched).map(str::to_owned),
    }
}

fn refuse(answer: &mut Explanation, refusal: &Refusal, witness: &mut Remembering) {
    answer.service = refusal.service.as_ref().map(|service| service.host.to_string());
    if matches!(refusal.reason, Reason::UnknownHost) {
        witness.note(|| "hosts that the mesh does not know are passed on as they are".to_owned());
        answer.action = "passthrough";
        return;
    }
    answer.action = "not_found";
    answer.status = Some(refusal.status());
    answer.flags = refusal.flag();
}

fn note_fault(fault: &FaultPolicy, witness: &mut Remembering) {
    if let Some((share, duration)) = fault.delay {
        witness.note(|| format!("{share} of the requests wait {duration:?} first"));
    }
    if let Some((share, status)) = fault.abort {
        witness.note(|| match status {
            AbortStatus::Http(status) => {
                format!("{share} of the requests are answered with {status} at once")
            }
            AbortStatus::Grpc(status) => {
                format!("{share} of the requests are answered with gRPC status {status} at once")
            }
        });
    }
}

fn explain_backends(
    tables: &Tables,
    question: &Question<'_>,
    facts: &OutboundRequest<'_>,
    selected: &Selected,
    backends: &[Backend],
    answer: &mut Explanation,
    witness: &mut Remembering,
) {
    let mut judged = Judged::default();
    for (index, backend) in backends.iter().enumerate() {
        let Ok(planned) = forward(selected, index, facts) else {
            witness.note(|| format!("{} does not exist", backend.cluster()));
            answer.destinations.push(missing(backend, backends.len()));
            continue;
        };
        let destination = &tables.destinations[planned.destination];
        answer.destinations.push(found(backend, backends.len(), destination));
        note_destination(destination, backend, backends.len(), witness);
        answer.rewrite_path = answer.rewrite_path.take().or_else(|| planned.path.clone());
        answer.rewrite_authority =
            answer.rewrite_authority.take().or_else(|| planned.authority.as_ref().map(ToString::to_string));
        let mut headers = facts.request.headers.clone();
        let changes: [&HeaderChanges; 2] = [&backend.request_headers, &selected.rule().request_headers];
        changes.iter().for_each(|change| change.apply(&mut headers));
        let arriving = Request {
            path: planned.path.as_deref().unwrap_or(facts.request.path),
            authority: planned.authority.as_deref().unwrap_or(facts.request.authority),
            headers: &headers,
            ..facts.request
        };
        judged.judge(tables, question, destination, Some(&arriving), witness);
    }
    conclude(answer, judged);
}

fn share(backend: &Backend, of: usize) -> u32 {
    if of == 1 { 100 } else { backend.weight }
}

fn missing(backend: &Backend, of: usize) -> DestinationFound {
    DestinationFound {
        host: backend.host.to_string(),
        subset: backend.subset.as_ref().map(ToString::to_string),
        port: backend.port,
        weight: share(backend, of),
        cluster: backend.cluster(),
        tls: "none",
        load_balancer: None,
        endpoints: Vec::new(),
    }
}

fn found(backend: &Backend, of: usize, destination: &Destination) -> DestinationFound {
    let mutual =
        destination.endpoints.iter().any(|endpoint| matches!(endpoint.transport, Transport::Mesh { .. }));
    DestinationFound {
        tls: if mutual { "mutual" } else { "none" },
        load_balancer: Some(destination.policy.load_balancer.name()),
        endpoints: destination.endpoints.clone(),
        ..missing(backend, of)
    }
}

fn note_destination(destination: &Destination, backend: &Backend, of: usize, witness: &mut Remembering) {
    let healthy = destination.endpoints.iter().filter(|endpoint| endpoint.health == Health::Healthy).count();
    witness.note(|| {
        let weight = share(backend, of);
        let rule =
            destination.policy.origin.as_deref().map(|rule| format!(" shaped by {rule}")).unwrap_or_default();
        format!(
            "weight {weight} goes to {}{rule}: {healthy} of {} endpoints healthy, {}",
            destination.cluster,
            destination.endpoints.len(),
            destination.policy.load_balancer.name()
        )
    });
}

/// What the called workloads say, over all destinations.
#[derive(Default)]
struct Judged {
    reachable: usize,
    allowed: Option<AuthorizationFound>,
    denied: Option<AuthorizationFound>,
    transport_refused: bool,
    authentication: Option<AuthenticationFound>,
}

impl Judged {
    fn judge(
        &mut self,
        tables: &Tables,
        question: &Question<'_>,
        destination: &Destination,
        request: Option<&Request<'_>>,
        witness: &mut Remembering,
    ) {
        let healthy = destination.endpoints.iter().filter(|endpoint| endpoint.health == Health::Healthy);
        for endpoint in healthy {
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
            let over_mesh = matches!(endpoint.transport, Transport::Mesh { .. });
            let peer = question.identity.filter(|_| over_mesh);
            let facts = Inbound { to: endpoint.address, peer, request };
            let mode = workload.section.mtls.mode(endpoint.address.port());
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

fn conclude(answer: &mut Explanation, judged: Judged) {
    answer.authentication = judged.authentication;
    // One called workload that refuses is what an operator asks about, whatever the others do.
    answer.authorization = judged.denied.or(judged.allowed);
    let denied = answer.authorization.as_ref().is_some_and(|authorization| !authorization.allowed);
    let exists = answer.destinations.iter().any(|destination| destination.load_balancer.is_some());
    let aborted = match answer.fault.abort {
        Some((Ratio::ONE, AbortStatus::Http(status))) => Some(status),
        _ => None,
    };
    let (status, flags) = match aborted {
        Some(status) => (Some(status), "FI"),
        None if !exists => (Some(503), "NC"),
        None if judged.reachable == 0 => (Some(503), "UH"),
        None if denied => (Some(403), "-"),
        None if judged.transport_refused => (Some(503), "UC"),
        None => (None, "-"),
    };
    answer.status = status;
    answer.flags = flags;
}

fn explain_stream(
    tables: &Tables,
    question: &Question<'_>,
    answer: &mut Explanation,
    witness: &mut Remembering,
) {
    answer.protocol = "tcp".to_owned();
    let Some(service) = addressed(tables, question) else {
        witness.note(|| format!("no service is called {}", question.host));
        return refuse(answer, &Refusal::new(Reason::UnknownHost), witness);
    };
    let declared: &Arc<Service> = &tables.services[service].service;
    answer.service = Some(declared.host.to_string());
    let facts =
        OutboundStream { service, port: question.port, destination: None, caller: Some(question.caller) };
    // The dice fall on one backend; the rule, which is what is asked for, is the same whatever they show.
    let mut random = Random::seeded(0);
    let (routes, rule) = match super::stream::outbound(tables, &facts, &mut random, witness) {
        Ok(plan) => (plan.routes.clone(), plan.rule),
        Err(refusal) => match (&refusal.reason, tables.services[service].routes(question.port)) {
            (Reason::NoDestination { cluster }, Some(_)) => {
                witness.note(|| format!("{cluster} does not exist"));
                (answer.action, answer.status, answer.flags) = ("route", Some(503), "NC");
                return;
            }
            _ => return refuse(answer, &refusal, witness),
        },
    };
    let found_rule = routes.tcp_rule(rule);
    answer.action = "route";
    answer.route = Some(RouteFound {
        resource: found_rule.origin.resource.to_string(),
        rule: found_rule.origin.rule.map_or(0, |index| index as usize),
        matched: None,
        name: None,
    });
    let mut judged = Judged::default();
    for (index, backend) in found_rule.backends.iter().enumerate() {
        let of = found_rule.backends.len();
        match routes.tcp_destination(rule, index, Some(question.caller.namespace)) {
            Some(destination) => {
                let destination = &tables.destinations[destination];
                answer.destinations.push(found(backend, of, destination));
                note_destination(destination, backend, of, witness);
                judged.judge(tables, question, destination, None, witness);
            }
            None => answer.destinations.push(missing(backend, of)),
        }
    }
    conclude(answer, judged);
}
