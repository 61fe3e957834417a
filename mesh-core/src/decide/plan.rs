//! What to do.

use std::sync::Arc;
use std::time::Duration;

use super::affinity::Affinity;
use super::refusal::Refusal;
use crate::matching::request::Request;
use crate::resilience::fault::FaultVerdict;
use crate::routing::cors::Fields;
use crate::routing::header::HeaderOperations;
use crate::routing::rule::{Backend, HttpRule, RuleAction, TcpRule};
use crate::snapshot::service::Service;
use crate::tables::routes::{RouteTable, StreamKind};
use crate::vocab::name::Text;
use crate::vocab::origin::Origin;

static NO_CHANGES: HeaderOperations =
    HeaderOperations { remove: Vec::new(), set: Vec::new(), add: Vec::new() };

/// What to do with a request.
#[derive(Debug)]
pub struct Plan {
    /// The service it was addressed to; `None` for a host that only a VirtualService names.
    pub service: Option<Arc<Service>>,
    /// The rules, of which `rule` matched.
    pub routes: Arc<RouteTable>,
    /// Index of the rule.
    pub rule: usize,
    /// Index of the rule's match that held; `None` for a rule without matches.
    pub matched: Option<usize>,
    /// Wait and abort first, if it says so. Redirects and direct responses are never aborted or delayed.
    pub fault: FaultVerdict,
    /// Then do this.
    pub action: Action,
    /// Fields that the answer gets last, in place of those that it has (CORS).
    pub answer_fields: Fields,
}

impl Plan {
    /// The rule that matched: its retry policy, header changes, origin.
    pub fn rule(&self) -> &HttpRule {
        self.routes.http_rule(self.rule)
    }

    /// How a request that is sent on is changed: first as its backend says, then as the rule does.
    pub fn request_changes(&self, forward: &Forward) -> [&HeaderOperations; 2] {
        [self.backend(forward).map_or(&NO_CHANGES, |b| &b.request_headers), &self.rule().request_headers]
    }

    /// How its answer is changed, in the same order.
    pub fn response_changes(&self, forward: &Forward) -> [&HeaderOperations; 2] {
        [self.backend(forward).map_or(&NO_CHANGES, |b| &b.response_headers), &self.rule().response_headers]
    }

    /// How an answer of the proxy's own is changed: as the backend says that was chosen, then as the rule does. `None`
    /// where nothing changes. The answer to a preflight stays as it is.
    pub fn own_answer_changes(&self) -> Option<AnswerChanges> {
        let backend = match &self.action {
            Action::Forward(forward) => Some(forward.backend),
            Action::Refuse { backend, .. } => Some(*backend),
            Action::Redirect { .. } | Action::Respond { .. } | Action::Preflight { .. } => None,
        };
        let is_unchanged = self.rule().response_headers.is_empty()
            && backend
                .and_then(|index| backend_of(self.rule(), index))
                .is_none_or(|b| b.response_headers.is_empty());
        (!is_unchanged).then(|| AnswerChanges { routes: self.routes.clone(), rule: self.rule, backend })
    }

    fn backend(&self, forward: &Forward) -> Option<&Backend> {
        backend_of(self.rule(), forward.backend)
    }

    /// Which rule decided, for what is told of the exchange at its end.
    pub fn chosen(&self) -> Chosen {
        Chosen { routes: Arc::clone(&self.routes), rule: self.rule, matched: self.matched }
    }

    /// Name of the route for the access log: the rule's, and after a dot the match's.
    pub fn route_name(&self) -> Option<String> {
        route_name(self.rule(), self.matched)
    }
}

/// Which rule decided, apart from the plan that says so.
#[derive(Debug, Clone)]
pub struct Chosen {
    routes: Arc<RouteTable>,
    rule: usize,
    matched: Option<usize>,
}

impl Chosen {
    /// Where the rule was declared.
    pub fn origin(&self) -> &Origin {
        &self.routes.http_rule(self.rule).origin
    }

    /// Name of the route for the access log.
    pub fn route_name(&self) -> Option<String> {
        route_name(self.routes.http_rule(self.rule), self.matched)
    }

    /// Index of the rule's match that held; `None` for a rule without matches.
    pub fn matched(&self) -> Option<usize> {
        self.matched
    }
}

fn backend_of(rule: &HttpRule, index: usize) -> Option<&Backend> {
    match &rule.action {
        RuleAction::Route { backends, .. } => backends.get(index),
        RuleAction::Redirect(_) | RuleAction::DirectResponse(_) => None,
    }
}

/// What changes an answer of the proxy's own, apart from the plan that says so.
#[derive(Debug)]
pub struct AnswerChanges {
    routes: Arc<RouteTable>,
    rule: usize,
    backend: Option<usize>,
}

impl AnswerChanges {
    /// The changes, in the order in which they are made.
    pub fn list(&self) -> [&HeaderOperations; 2] {
        let rule = self.routes.http_rule(self.rule);
        let backend = self.backend.and_then(|index| backend_of(rule, index));
        [backend.map_or(&NO_CHANGES, |backend| &backend.response_headers), &rule.response_headers]
    }
}

/// Name of a route for the access log: the rule's, and after a dot the match's.
pub(crate) fn route_name(rule: &HttpRule, matched: Option<usize>) -> Option<String> {
    let matched = matched.and_then(|index| rule.matches.get(index)).and_then(|found| found.name.as_deref());
    match (rule.name.as_deref(), matched) {
        (Some(rule), Some(matched)) => Some(format!("{rule}.{matched}")),
        (rule, matched) => rule.or(matched).map(str::to_owned),
    }
}

/// What follows a match.
#[derive(Debug)]
pub enum Action {
    /// Send it on.
    Forward(Forward),
    /// Send the client elsewhere.
    Redirect {
        /// Status.
        status: u16,
        /// `location`.
        location: String,
    },
    /// Answer: status and body are those of the rule's direct response.
    Respond {
        /// Status.
        status: u16,
        /// Body.
        body: Arc<[u8]>,
    },
    /// Send it nowhere, for there is no such destination: faults come first, and the answer gets its fields.
    Refuse {
        /// What it is told.
        refusal: Box<Refusal>,
        /// Index of the backend that leads nowhere.
        backend: usize,
    },
    /// Answer a preflight: 200, these fields, no body, details `cors_response`.
    Preflight {
        /// Header fields.
        fields: Fields,
    },
}

/// Where a request goes, and as what.
#[derive(Debug)]
pub struct Forward {
    /// Index of the destination in the tables.
    pub destination: usize,
    /// Index of the backend in the rule: its header changes come before the rule's.
    pub backend: usize,
    /// New path without query; `None` if it stays.
    pub path: Option<String>,
    /// New authority; `None` if it stays.
    pub authority: Option<Text>,
    /// Time for the whole request, retries included. A `grpc-timeout` may shorten it (`resilience::timeout`).
    pub timeout: Option<Duration>,
    /// By what the endpoint is chosen.
    pub affinity: Affinity,
    /// Copies that are sent too; nobody waits for them.
    pub mirrors: Vec<MirrorPlan>,
}

impl Forward {
    /// What `x-envoy-original-path` says upstream: path and query as they came, where a rule rewrites the path.
    pub fn original_path(&self, request: &Request<'_>) -> Option<String> {
        self.path.as_ref()?;
        Some(match request.query {
            Some(query) => format!("{}?{query}", request.path),
            None => request.path.to_owned(),
        })
    }

    /// What `x-envoy-original-host` says upstream: the authority as it came, where a rule replaces it.
    pub fn original_authority<'r>(&self, request: &Request<'r>) -> Option<&'r str> {
        self.authority.as_ref().map(|_| request.authority)
    }
}

/// A copy of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorPlan {
    /// Index of the destination in the tables.
    pub destination: usize,
    /// Its authority: the request's own, rewritten, with `-shadow`.
    pub authority: String,
}

/// What to do with a byte stream.
#[derive(Debug)]
pub struct StreamPlan {
    /// The service it was addressed to; `None` for what is unknown and goes to an egress proxy.
    pub service: Option<Arc<Service>>,
    /// The rules, of which `rule` matched.
    pub routes: Arc<RouteTable>,
    /// Which list of them.
    pub kind: StreamKind,
    /// Index of the rule.
    pub rule: usize,
    /// Index of the destination in the tables.
    pub destination: usize,
    /// Hash that the endpoint is chosen by, where the destination has such a policy.
    pub hash: Option<u64>,
}

impl StreamPlan {
    /// The rule that matched.
    pub fn rule(&self) -> &TcpRule {
        self.routes.stream_rule(self.kind, self.rule)
    }
}
