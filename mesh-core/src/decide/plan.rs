//! What to do.

use std::sync::Arc;
use std::time::Duration;

use crate::resilience::fault::FaultVerdict;
use crate::routing::rule::{HttpRule, TcpRule};
use crate::snapshot::service::Service;
use crate::tables::routes::RouteTable;
use crate::vocab::name::Text;

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
    /// Wait and abort first, if it says so. Only a forwarded request is ever aborted or delayed.
    pub fault: FaultVerdict,
    /// Then do this.
    pub action: Action,
}

impl Plan {
    /// The rule that matched: its retry policy, header changes, origin.
    pub fn rule(&self) -> &HttpRule {
        self.routes.http_rule(self.rule)
    }

    /// Name of the route for the access log: the rule's, and after a dot the match's.
    pub fn route_name(&self) -> Option<String> {
        let rule = self.rule();
        let matched = self.matched.and_then(|index| rule.matches.get(index)).and_then(|m| m.name.clone());
        match (&rule.name, matched) {
            (Some(rule), Some(matched)) => Some(format!("{rule}.{matched}")),
            (Some(name), None) => Some(name.to_string()),
            (None, matched) => matched.map(|name| name.to_string()),
        }
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
        body: Vec<u8>,
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
}

/// What to do with a byte stream.
#[derive(Debug)]
pub struct StreamPlan {
    /// The service it was addressed to.
    pub service: Arc<Service>,
    /// The rules, of which `rule` matched.
    pub routes: Arc<RouteTable>,
    /// Index of the rule.
    pub rule: usize,
    /// Index of the destination in the tables.
    pub destination: usize,
}

impl StreamPlan {
    /// The rule that matched.
    pub fn rule(&self) -> &TcpRule {
        self.routes.tcp_rule(self.rule)
    }
}
