//! Why not, with status and flag.

use std::fmt;
use std::sync::Arc;

use crate::policy::authorization::{AuthorizationPolicy, PolicyAction};
use crate::policy::judge::Remarks;
use crate::policy::jwt::error::TokenError;
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
    /// The caller was shown another identity than that of the workload: it expected nobody else.
    NotShown,
    /// A policy that the workload names is not at hand.
    PolicyMissing,
    /// The port does not accept this kind of connection (PeerAuthentication).
    Transport {
        /// Whether it came over mutual TLS.
        mutual_tls: bool,
    },
    /// Its token is not accepted, or there is none where one is demanded.
    Token {
        /// What is wrong with it.
        error: TokenError,
        /// The URI that it was for.
        uri: String,
    },
    /// Authorization.
    Denied(Denial),
}

/// Which policy refused.
#[derive(Debug, Clone)]
pub struct Denial {
    /// The policy and the rule; `None` if no ALLOW rule matched.
    pub by: Option<(Arc<AuthorizationPolicy>, usize)>,
    /// Where no ALLOW rule matched: the one that came nearest, and what it lacked. Only found out where somebody listens.
    pub nearest: Option<(Arc<AuthorizationPolicy>, usize, String)>,
    /// `ISSUER/SUBJECT` of a valid token. Only found out where somebody listens.
    pub principal: Option<String>,
    /// What is to be written down beside.
    pub remarks: Option<Box<Remarks>>,
}

impl fmt::Display for Denial {
    /// `rbac_access_denied_matched_policy[ns[NS]-policy[NAME]-rule[I]]`, or `[none]`. A CUSTOM policy refuses by itself
    /// only where nobody can be asked, and its rule has the name that Istio gives it then.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((policy, rule)) = &self.by else {
            return f.write_str("rbac_access_denied_matched_policy[none]");
        };
        let name = format!("ns[{}]-policy[{}]-rule[{rule}]", policy.namespace, policy.name);
        let provider = policy.provider.as_ref().map(|provider| format!("{}-", provider.name));
        match policy.action {
            PolicyAction::Custom => write!(
                f,
                "rbac_access_denied_matched_policy[istio-ext-authz-{}{name}-deny-due-to-bad-CUSTOM-action]",
                provider.unwrap_or_default()
            ),
            PolicyAction::Allow | PolicyAction::Deny | PolicyAction::Audit => {
                write!(f, "rbac_access_denied_matched_policy[{name}]")
            }
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
            Reason::NotHere | Reason::NotShown => 421,
            Reason::Token { error, .. } => error.status(),
            Reason::Denied(_) => 403,
        }
    }

    /// Response flag; `-` for none.
    pub fn flag(&self) -> &'static str {
        match self.reason {
            Reason::UnknownHost | Reason::NoRoute | Reason::NotHere | Reason::NotShown => "NR",
            Reason::NoDestination { .. } => "NC",
            Reason::BlackHole => "UH",
            Reason::Blocked | Reason::PolicyMissing | Reason::Token { .. } | Reason::Denied(_) => "-",
            // Plaintext is cut off by a server that wants TLS; a TLS client is not understood by one that wants none.
            Reason::Transport { mutual_tls: false } => "UC",
            Reason::Transport { mutual_tls: true } => "UF",
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
            Reason::NotShown => "identity_not_of_workload".to_owned(),
            Reason::PolicyMissing => "authorization_policy_missing".to_owned(),
            Reason::Transport { .. } => "transport_refused_by_peer_authentication".to_owned(),
            Reason::Token { error, .. } => {
                format!("jwt_authn_access_denied{{{}}}", error.text().replace(' ', "_"))
            }
            Reason::Denied(denial) => denial.to_string(),
        }
    }

    /// What the client reads.
    pub fn body(&self) -> &'static str {
        match self.reason {
            Reason::Denied(_) => "RBAC: access denied",
            Reason::Token { error, .. } => error.text(),
            Reason::UnknownHost
            | Reason::Blocked
            | Reason::BlackHole
            | Reason::NoRoute
            | Reason::NoDestination { .. }
            | Reason::NotHere
            | Reason::NotShown
            | Reason::PolicyMissing
            | Reason::Transport { .. } => "",
        }
    }

    /// Value of `www-authenticate`.
    pub fn challenge(&self) -> Option<String> {
        match &self.reason {
            Reason::Token { error, uri } => Some(error.challenge(uri)),
            _ => None,
        }
    }
}
