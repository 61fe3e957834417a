//! Rules: matches, and what follows.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::cors::CorsPolicy;
use super::header::HeaderOperations;
use super::limit::RateLimit;
use super::mirror::Mirror;
use super::rewrite::{Redirect, Rewrite};
use crate::matching::request::{Caller, RequestMatch, caller_passes, caller_words, write_words};
use crate::resilience::fault::FaultPolicy;
use crate::resilience::retry::RetryPolicy;
use crate::vocab::label::Labels;
use crate::vocab::name::{Text, cluster_name};
use crate::vocab::origin::Origin;

/// Where a rule sends traffic: a service port or a subset of it. Whether it exists shows only when tables
/// are built; a rule with a missing backend still matches and is answered with 503 NC.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Backend {
    /// Fully qualified host.
    pub host: Text,
    /// Service port.
    pub port: u16,
    /// Subset of the host's DestinationRule.
    pub subset: Option<Text>,
    /// Share, relative to the other backends of the rule.
    pub weight: u32,
    /// Changes of the request's header fields for this backend.
    pub request_headers: HeaderOperations,
    /// Changes of the response's header fields for this backend.
    pub response_headers: HeaderOperations,
    /// Authority set by this backend's header operations; the rule's own rewrite wins.
    pub authority: Option<Text>,
}

/// An answer given by the proxy itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DirectResponse {
    /// Status, 200 to 599.
    pub status: u16,
    /// Body; every answer shares it.
    pub body: Arc<[u8]>,
}

/// What follows a match.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RuleAction {
    /// Send it to one of these. Never empty, no weight 0 among several.
    Route {
        /// The choice.
        backends: Vec<Backend>,
        /// What is sent in place of what came.
        rewrite: Rewrite,
    },
    /// Send the client elsewhere.
    Redirect(Redirect),
    /// Answer.
    DirectResponse(DirectResponse),
}

/// One rule for requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HttpRule {
    /// The resource and the index of the rule in it.
    pub origin: Origin,
    /// Name, for the access log.
    pub name: Option<Text>,
    /// Any of these; none at all matches everything.
    pub matches: Vec<RequestMatch>,
    /// The index that each match has in the resource; empty where that is its index here.
    pub numbers: Vec<u32>,
    /// What follows.
    pub action: RuleAction,
    /// Time for the whole request, retries included; `None` for no limit.
    pub timeout: Option<Duration>,
    /// Retries.
    pub retry: RetryPolicy,
    /// Injected faults.
    pub fault: FaultPolicy,
    /// Copies of a request that is sent on.
    pub mirrors: Vec<Mirror>,
    /// Cross-origin requests.
    pub cors: Option<CorsPolicy>,
    /// Changes of the request's header fields.
    pub request_headers: HeaderOperations,
    /// Changes of the response's header fields.
    pub response_headers: HeaderOperations,
    /// Rate limits of what it matches.
    pub limits: Vec<RateLimit>,
}

impl Backend {
    /// The whole of a service port, with all of the traffic.
    pub fn whole(host: Text, port: u16) -> Backend {
        Backend {
            host,
            port,
            subset: None,
            weight: 100,
            request_headers: HeaderOperations::default(),
            response_headers: HeaderOperations::default(),
            authority: None,
        }
    }

    /// The name of its destination in logs: `outbound|PORT|SUBSET|HOST`, whether it exists or not.
    pub fn cluster(&self) -> String {
        cluster_name(self.port, self.subset.as_deref(), &self.host)
    }
}

impl HttpRule {
    /// The index in the resource of a match.
    pub fn match_number(&self, index: usize) -> usize {
        self.numbers.get(index).map_or(index, |number| *number as usize)
    }

    /// The default route: every request to the service itself, with the mesh's default retries.
    pub fn default_route(service: &Origin, host: Text, port: u16, retry: RetryPolicy) -> HttpRule {
        HttpRule {
            origin: service.clone(),
            name: Some("default".into()),
            matches: Vec::new(),
            numbers: Vec::new(),
            action: RuleAction::Route {
                backends: vec![Backend::whole(host, port)],
                rewrite: Rewrite::default(),
            },
            timeout: None,
            retry,
            fault: FaultPolicy::default(),
            mirrors: Vec::new(),
            cors: None,
            request_headers: HeaderOperations::default(),
            response_headers: HeaderOperations::default(),
            limits: Vec::new(),
        }
    }
}

/// Conditions on a byte stream that must all hold. The default holds always.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct StreamMatch {
    /// Server names of which one must be what a client's TLS asks for, lower case, may be wildcards; none asks nothing.
    pub sni_hosts: Vec<Text>,
    /// Networks of which one must hold the original destination; none means any.
    pub destination_subnets: Vec<IpNet>,
    /// Labels that the caller must have.
    pub caller_labels: Labels,
    /// Namespace that the caller must be in.
    pub caller_namespace: Option<Text>,
}

/// One rule for byte streams, or for TLS that is passed on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TcpRule {
    /// The resource and the index of the rule in it.
    pub origin: Origin,
    /// Any of these; none at all matches everything.
    pub matches: Vec<StreamMatch>,
    /// The index that each match has in the resource; empty where that is its index here.
    pub numbers: Vec<u32>,
    /// The choice, per connection.
    pub backends: Vec<Backend>,
}

impl StreamMatch {
    /// Whether the conditions on the caller hold. An unknown caller has no labels and no namespace.
    pub fn concerns(&self, caller: Option<&Caller<'_>>) -> bool {
        caller_passes(&self.caller_labels, self.caller_namespace.as_deref(), caller)
    }
}

impl TcpRule {
    /// The index in the resource of a match.
    pub fn match_number(&self, index: usize) -> usize {
        self.numbers.get(index).map_or(index, |number| *number as usize)
    }

    /// The default route: every stream to the service itself.
    pub fn default_route(service: &Origin, host: Text, port: u16) -> TcpRule {
        TcpRule {
            origin: service.clone(),
            matches: Vec::new(),
            numbers: Vec::new(),
            backends: vec![Backend::whole(host, port)],
        }
    }
}

impl fmt::Display for StreamMatch {
    /// The conditions in words; `anything` where there is none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words: Vec<String> = self.sni_hosts.iter().map(|host| format!("SNI {host}")).collect();
        words.extend(self.destination_subnets.iter().map(|net| format!("destination in {net}")));
        caller_words(&self.caller_labels, self.caller_namespace.as_deref(), &mut words);
        write_words(f, &words)
    }
}
