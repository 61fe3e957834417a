//! Who may do what: the rules of an AuthorizationPolicy.

use http::HeaderName;
use ipnet::IpNet;

use super::external::Provider;
use crate::matching::path::PathMatch;
use crate::matching::text::TextMatch;
use crate::vocab::name::Text;

/// What a matching rule leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PolicyAction {
    /// Lets through; where any such policy applies, one must match. The default.
    #[default]
    Allow,
    /// Refuses.
    Deny,
    /// Is written down; changes nothing.
    Audit,
    /// Asks a provider first, which may refuse.
    Custom,
}

impl PolicyAction {
    /// The word in an AuthorizationPolicy.
    pub fn name(self) -> &'static str {
        match self {
            PolicyAction::Allow => "ALLOW",
            PolicyAction::Deny => "DENY",
            PolicyAction::Audit => "AUDIT",
            PolicyAction::Custom => "CUSTOM",
        }
    }
}

/// A list of which one must match, and a list of which none may. Empty lists demand nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Values<M> {
    /// One of these, unless there are none.
    pub any: Vec<M>,
    /// None of these.
    pub none: Vec<M>,
}

impl<M> Default for Values<M> {
    fn default() -> Values<M> {
        Values { any: Vec::new(), none: Vec::new() }
    }
}

impl<M> Values<M> {
    /// Whether nothing is demanded.
    pub fn is_empty(&self) -> bool {
        self.any.is_empty() && self.none.is_empty()
    }

    pub(super) fn pass(&self, matches: impl Fn(&M) -> bool) -> bool {
        (self.any.is_empty() || self.any.iter().any(&matches)) && !self.none.iter().any(&matches)
    }
}

/// Who calls: all conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Source {
    /// SPIFFE IDs without `spiffe://`.
    pub principals: Values<TextMatch>,
    /// Namespaces of the caller's identity.
    pub namespaces: Values<TextMatch>,
    /// Service accounts of the caller's identity, `NAMESPACE/ACCOUNT`.
    pub service_accounts: Values<Text>,
    /// Trust domains of the caller's identity.
    pub trust_domains: Values<TextMatch>,
    /// Address of the direct peer.
    pub ip_blocks: Values<IpNet>,
    /// Address of the client as X-Forwarded-For or the PROXY protocol tell it.
    pub remote_ip_blocks: Values<IpNet>,
    /// `ISSUER/SUBJECT` of a validated token.
    pub request_principals: Values<TextMatch>,
}

/// What a condition of `when` looks at, and the values it may or must not have.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Condition {
    /// `request.headers[NAME]`.
    Header(HeaderName, Values<TextMatch>),
    /// `request.headers[:authority]`, `[:method]`, `[:path]` (with its query) or `[:scheme]`, by the name with its
    /// colon.
    Pseudo(Text, Values<TextMatch>),
    /// `source.ip`.
    SourceIp(Values<IpNet>),
    /// `remote.ip`.
    RemoteIp(Values<IpNet>),
    /// `source.namespace`.
    SourceNamespace(Values<TextMatch>),
    /// `source.serviceAccount`.
    SourceServiceAccount(Values<Text>),
    /// `source.principal`.
    SourcePrincipal(Values<TextMatch>),
    /// `source.trustDomain`.
    SourceTrustDomain(Values<TextMatch>),
    /// `request.auth.principal`.
    RequestPrincipal(Values<TextMatch>),
    /// `request.auth.audiences`.
    Audiences(Values<TextMatch>),
    /// `request.auth.presenter`.
    Presenter(Values<TextMatch>),
    /// `request.auth.claims[A][B]`.
    Claim(Vec<Text>, Values<TextMatch>),
    /// `destination.ip`.
    DestinationIp(Values<IpNet>),
    /// `destination.port`.
    DestinationPort(Values<u16>),
    /// `connection.sni`.
    Sni(Values<TextMatch>),
    /// `experimental.envoy.filters.*`: dynamic metadata of Envoy, which nothing here produces, so it has no value.
    Metadata(Text, Values<TextMatch>),
}

/// What is called: all conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Operation {
    /// Authorities as sent, without regard to case.
    pub hosts: Values<TextMatch>,
    /// Methods.
    pub methods: Values<TextMatch>,
    /// Normalised paths without query.
    pub paths: Values<PathMatch>,
    /// Ports of the workload.
    pub ports: Values<u16>,
}

/// One rule: one of `from`, one of `to`; an empty list demands nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct AuthorizationRule {
    /// Callers.
    pub from: Vec<Source>,
    /// Operations.
    pub to: Vec<Operation>,
    /// Conditions that must all hold.
    pub when: Vec<Condition>,
}

/// A policy as it stands for the workloads that name it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AuthorizationPolicy {
    /// Namespace of the resource.
    pub namespace: Text,
    /// Name of the resource.
    pub name: Text,
    /// What a match leads to.
    pub action: PolicyAction,
    /// Who is asked; of a CUSTOM policy only.
    pub provider: Option<Provider>,
    /// Whether it is judged and told, but not enforced.
    pub dry_run: bool,
    /// Any of these matches. None never matches.
    pub rules: Vec<AuthorizationRule>,
}

impl AuthorizationPolicy {
    /// `authorizationpolicy/NAMESPACE/NAME`.
    pub fn resource(&self) -> String {
        format!("authorizationpolicy/{}/{}", self.namespace, self.name)
    }
}
