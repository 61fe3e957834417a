//! The decision about a request, foretold: the same functions that the proxy calls, with every choice laid open.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use self::captured::Original;
use super::witness::Remembering;
use crate::matching::request::{Caller, Request};
use crate::resilience::connection_fault::ConnectionFault;
use crate::resilience::fault::FaultPolicy;
use crate::resilience::hedge::Hedge;
use crate::resilience::retry::RetryPolicy;
use crate::routing::limit::{Asking, RateLimit, counted};
use crate::snapshot::Version;
use crate::tables::Tables;
use crate::tables::destinations::Endpoint;
use crate::vocab::identity::SpiffeId;
use crate::vocab::protocol::Protocol;
use crate::vocab::ratio::Ratio;

mod captured;
mod destination;
pub mod gateway;
mod judgement;
mod outcome;
mod request;
mod stream;

/// What is asked. The tables must be those of the whole mesh, so that they hold the called workloads too.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Identity of the caller.
    pub identity: Option<&'a SpiffeId>,
    /// Namespace and labels of the caller.
    pub caller: Caller<'a>,
    /// The host that the caller runs on, where one is meant.
    pub node: Option<&'a str>,
    /// Whether the caller is a gateway.
    pub gateway: bool,
    /// Whether connections of the caller are captured, so that the address which one is opened to has a meaning.
    pub captured: bool,
    /// The request; its path as received.
    pub request: Request<'a>,
    /// The host that the caller connects to. As with loopback capture, its service answers for an authority that the
    /// mesh does not know.
    pub host: &'a str,
    /// The port it is addressed to.
    pub port: u16,
    /// Whether a byte stream is meant whatever the port is declared as.
    pub stream: bool,
    /// Address of the caller; `None` for that of its workload, where there is one.
    pub source: Option<IpAddr>,
    /// The time, in seconds since 1970.
    pub now: u64,
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
    /// Path as received, and as every decision saw it; `None` in its place if it is malformed.
    pub path: Option<(String, Option<String>)>,
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
    /// Where copies go.
    pub mirrors: Vec<MirrorFound>,
    /// Time for the whole request.
    pub timeout: Option<Duration>,
    /// Retries; `None` where they are disabled.
    pub retries: Option<RetryPolicy>,
    /// Attempts beside one without an answer; `None` where requests such as this one have none.
    pub hedge: Option<Hedge>,
    /// Injected faults.
    pub fault: FaultPolicy,
    /// What authorization says at the destination.
    pub authorization: Option<AuthorizationFound>,
    /// What the destination accepts.
    pub authentication: Option<AuthenticationFound>,
    /// The rate limits that it counts against.
    pub limits: Vec<LimitFound>,
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
    /// `mutual`, `simple` or `none`.
    pub tls: &'static str,
    /// Load balancer; `None` for a destination that does not exist.
    pub load_balancer: Option<&'static str>,
    /// What happens to connections to it on purpose, now.
    pub fault: Option<ConnectionFault>,
    /// Its endpoints.
    pub endpoints: Vec<EndpointFound>,
}

/// Where copies of a request go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorFound {
    /// Host.
    pub host: String,
    /// Subset.
    pub subset: Option<String>,
    /// Port.
    pub port: u16,
    /// `outbound|PORT|SUBSET|HOST`.
    pub cluster: String,
    /// Share of requests.
    pub share: Ratio,
    /// Authority of a copy.
    pub authority: String,
    /// Whether the destination exists; nothing is copied to one that does not.
    pub exists: bool,
}

/// An endpoint of a destination, as the caller sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointFound {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// 0 comes first.
    pub priority: u32,
    /// Share among those of its priority; 0 for no traffic.
    pub weight: u32,
}

/// A rate limit that a request counts against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitFound {
    /// The resource.
    pub resource: String,
    /// What it is attached to.
    pub target: String,
    /// Name of the limit.
    pub name: String,
    /// How much passes: `100 requests per 1s, burst 20`.
    pub rate: String,
    /// Whose bucket it takes from; `None` where all requests have one together.
    pub key: Option<String>,
    /// Who counts: the proxy of the `caller` or of the `workload`.
    pub side: &'static str,
    /// Whether all proxies together keep to it.
    pub shared: bool,
    /// Whether it only counts what it would refuse.
    pub dry_run: bool,
}

impl LimitFound {
    fn all(
        limits: &[RateLimit],
        port: Option<u16>,
        asking: &Asking<'_>,
        side: &'static str,
    ) -> Vec<LimitFound> {
        let found = counted(limits, port, asking, 0).map(|one| LimitFound {
            resource: one.by.origin.to_string(),
            target: one.by.target.to_string(),
            name: one.limit.name.to_string(),
            rate: one.limit.to_string(),
            key: one.limit.whose(asking),
            side,
            shared: one.by.terms.shared,
            dry_run: one.by.terms.dry_run,
        });
        found.collect()
    }

    fn sentence(&self) -> String {
        let LimitFound { resource, target, name, rate, .. } = self;
        let whose = self.key.as_ref().map_or_else(|| "all together".to_owned(), |key| format!("for {key}"));
        let who = match (self.side, self.shared) {
            (_, true) => "all proxies together",
            ("caller", false) => "the caller's proxy",
            _ => "the workload's proxy",
        };
        let dry_run = if self.dry_run { ", which only counts" } else { "" };
        format!("{who}: {resource} ({target}) limit {name} counts it {whose}: {rate}{dry_run}")
    }
}

/// What authorization says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationFound {
    /// Whether it may pass.
    pub allowed: bool,
    /// The policy that decided, a CUSTOM one where its provider does; `None` if no policy applies.
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
    /// `none`, `valid ISSUER/SUBJECT`, or `invalid: ` and why.
    pub jwt: String,
}

/// Foretells what the data plane does with a request.
pub fn explain(tables: &Tables, question: &Question<'_>) -> Explanation {
    let mut witness = Remembering::default();
    let mut answer =
        Explanation { version: tables.version, port: question.port, flags: "-", ..Explanation::default() };
    let original = Original::of(tables, question);
    if let Some(original) = &original {
        original.note(tables, &mut witness);
    }
    if is_stream(tables, question, original.as_ref()) {
        stream::explain(tables, question, original.as_ref(), &mut answer, &mut witness);
    } else {
        request::explain(tables, question, original.as_ref(), &mut answer, &mut witness);
    }
    answer.why = witness.sentences;
    answer
}

fn addressed(tables: &Tables, question: &Question<'_>, original: Option<&Original>) -> Option<usize> {
    if let Some(original) = original {
        return original.service(tables, question);
    }
    tables.service_addressed(question.host, question.port, Some(question.caller.namespace))
}

fn declared_protocol(
    tables: &Tables,
    question: &Question<'_>,
    original: Option<&Original>,
) -> Option<Protocol> {
    if let Some(original) = original {
        return original.protocol(tables, question);
    }
    let service = &tables.services[addressed(tables, question, None)?].service;
    service.ports.iter().find(|port| port.number == question.port).map(|port| port.protocol)
}

/// TLS of the application is bytes, unless the port is declared to be HTTP.
fn is_stream(tables: &Tables, question: &Question<'_>, original: Option<&Original>) -> bool {
    let tls = question.request.scheme == "https";
    let opaque = match declared_protocol(tables, question, original) {
        Some(Protocol::Auto) => tls,
        Some(protocol) => matches!(protocol, Protocol::Tcp | Protocol::Udp) || protocol.is_tls(),
        None => tls && addressed(tables, question, original).is_none(),
    };
    question.stream || opaque
}
