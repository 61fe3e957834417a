//! Why not, with status and flag.

use std::fmt;
use std::sync::Arc;

use crate::policy::authorization::{AuthorizationPolicy, Decider};
use crate::snapshot::service::Service;
use crate::vocab::origin::Origin;

/// Why a request or stream goes no further. Status, flag, details and body are Envoy's for the same case.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// What is wrong.
    pub reason: Reason,
    /// The service it was addressed to, where that is known.
    pub service: Option<Arc<Service>>,
    /// The rule that led here, where one matched.
    pub route: Option<Origin>,
}

/// What is wrong.
#[derive(Debug, Clone)]
pub enum Reason {
    /// The host is known to nobody in the caller's view, and such traffic goes where it was sent (ALLOW_ANY).
    UnknownHost,
    /// The host is known to nobody in the caller's view, and such requests are refused (REGISTRY_ONLY).
    Blocked,
    /// The same for a byte stream, or for one that no rule of its port matches: it is closed.
    BlackHole,
    /// No rule matches.
    NoRoute,
    /// The rule's backend does not exist.
    NoDestination {
        /// `outbound|PORT|SUBSET|HOST`.
        cluster: String,
    },
    /// The address is not one of a workload of this host.
    NotHere,
    /// A policy that the workload names is not at hand.
    PolicyMissing,
    /// The port does not accept this kind of connection (PeerAuthentication).
    Transport {
        /// Whether it came over mutual TLS.
        mutual_tls: bool,
    },
    /// Authorization.
    Denied(Denial),
}

/// Which policy refused.
#[derive(Debug, Clone)]
pub struct Denial {
    /// The policy and the rule; `None` if no ALLOW rule matched.
    pub by: Option<(Arc<AuthorizationPolicy>, usize)>,
}

impl Denial {
    pub(crate) fn new(policies: &[Arc<AuthorizationPolicy>], decider: Option<Decider>) -> Denial {
        let by = decider.and_then(|d| Some((policies.get(d.policy)?.clone(), d.rule)));
        Denial { by }
    }
}

impl fmt::Display for Denial {
    /// `rbac_access_denied_matched_policy[ns[NS]-policy[NAME]-rule[I]]`, or `[none]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.by {
            Some((policy, rule)) => write!(
                f,
                "rbac_access_denied_matched_policy[ns[{}]-policy[{}]-rule[{rule}]]",
                policy.namespace, policy.name
            ),
            None => f.write_str("rbac_access_denied_matched_policy[none]"),
        }
    }
}

impl Refusal {
    pub(crate) fn new(reason: Reason) -> Refusal {
        Refusal { reason, service: None, route: None }
    }

    /// Status of the answer.
    pub fn status(&self) -> u16 {
        match self.reason {
            Reason::UnknownHost | Reason::NoRoute => 404,
            Reason::Blocked => 502,
            Reason::NoDestination { .. }
            | Reason::BlackHole
            | Reason::PolicyMissing
            | Reason::Transport { .. } => 503,
            Reason::NotHere => 421,
            Reason::Denied(_) => 403,
        }
    }

    /// Response flag; `-` for none.
    pub fn flag(&self) -> &'static str {
        match self.reason {
            Reason::UnknownHost | Reason::NoRoute | Reason::NotHere => "NR",
            Reason::NoDestination { .. } => "NC",
            Reason::BlackHole => "UH",
            Reason::Blocked | Reason::PolicyMissing | Reason::Denied(_) => "-",
            Reason::Transport { .. } => "UC",
        }
    }

    /// Details for the access log.
    pub fn details(&self) -> String {
        match &self.reason {
            Reason::UnknownHost | Reason::NoRoute => "route_not_found".to_owned(),
            Reason::Blocked => "direct_response".to_owned(),
            Reason::BlackHole => "no_healthy_upstream".to_owned(),
            Reason::NoDestination { .. } => "cluster_not_found".to_owned(),
            Reason::NotHere => "workload_not_found".to_owned(),
            Reason::PolicyMissing => "authorization_policy_missing".to_owned(),
            Reason::Transport { .. } => "transport_refused_by_peer_authentication".to_owned(),
            Reason::Denied(denial) => denial.to_string(),
        }
    }

    /// What the client reads.
    pub fn body(&self) -> &'static str {
        match self.reason {
            Reason::Denied(_) => "RBAC: access denied",
            Reason::UnknownHost
            | Reason::Blocked
            | Reason::BlackHole
            | Reason::NoRoute
            | Reason::NoDestination { .. }
            | Reason::NotHere
            | Reason::PolicyMissing
            | Reason::Transport { .. } => "",
        }
    }
}
