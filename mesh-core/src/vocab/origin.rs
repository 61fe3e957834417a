//! Where something was declared.

use std::fmt;

use super::name::Text;

/// The kinds of resource that the mesh knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Kubernetes `v1` Namespace.
    Namespace,
    /// Kubernetes `v1` ServiceAccount.
    ServiceAccount,
    /// Kubernetes `v1` Service.
    Service,
    /// Istio `networking` WorkloadEntry.
    WorkloadEntry,
    /// Istio `networking` ServiceEntry.
    ServiceEntry,
    /// Istio `networking` VirtualService.
    VirtualService,
    /// Istio `networking` DestinationRule.
    DestinationRule,
    /// Istio `security` PeerAuthentication.
    PeerAuthentication,
    /// Istio `security` AuthorizationPolicy.
    AuthorizationPolicy,
    /// Istio `networking` WorkloadGroup.
    WorkloadGroup,
    /// Istio `networking` Gateway.
    Gateway,
    /// Istio `networking` Sidecar.
    Sidecar,
    /// Istio `networking` ProxyConfig.
    ProxyConfig,
    /// Istio `security` RequestAuthentication.
    RequestAuthentication,
    /// Istio `telemetry` Telemetry.
    Telemetry,
    /// MeshConfig, or Istio's ConfigMap with one.
    MeshConfig,
    /// Kubernetes `v1` Secret.
    Secret,
    /// Kubernetes `v1` ConfigMap.
    ConfigMap,
    /// Kubernetes `v1` Endpoints.
    Endpoints,
    /// Kubernetes `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
    /// Our own `mesh.io` RateLimit.
    RateLimit,
}

impl Kind {
    /// Every kind, in the order in which they are listed to people.
    pub const ALL: [Kind; 21] = [
        Kind::Namespace,
        Kind::ServiceAccount,
        Kind::Service,
        Kind::WorkloadEntry,
        Kind::ServiceEntry,
        Kind::VirtualService,
        Kind::DestinationRule,
        Kind::PeerAuthentication,
        Kind::AuthorizationPolicy,
        Kind::WorkloadGroup,
        Kind::Gateway,
        Kind::Sidecar,
        Kind::ProxyConfig,
        Kind::RequestAuthentication,
        Kind::Telemetry,
        Kind::MeshConfig,
        Kind::Secret,
        Kind::ConfigMap,
        Kind::Endpoints,
        Kind::EndpointSlice,
        Kind::RateLimit,
    ];

    /// The name in a manifest: `VirtualService`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Namespace => "Namespace",
            Kind::ServiceAccount => "ServiceAccount",
            Kind::Service => "Service",
            Kind::WorkloadEntry => "WorkloadEntry",
            Kind::ServiceEntry => "ServiceEntry",
            Kind::VirtualService => "VirtualService",
            Kind::DestinationRule => "DestinationRule",
            Kind::PeerAuthentication => "PeerAuthentication",
            Kind::AuthorizationPolicy => "AuthorizationPolicy",
            Kind::WorkloadGroup => "WorkloadGroup",
            Kind::Gateway => "Gateway",
            Kind::Sidecar => "Sidecar",
            Kind::ProxyConfig => "ProxyConfig",
            Kind::RequestAuthentication => "RequestAuthentication",
            Kind::Telemetry => "Telemetry",
            Kind::MeshConfig => "MeshConfig",
            Kind::Secret => "Secret",
            Kind::ConfigMap => "ConfigMap",
            Kind::Endpoints => "Endpoints",
            Kind::EndpointSlice => "EndpointSlice",
            Kind::RateLimit => "RateLimit",
        }
    }

    /// The name in commands and messages: `virtualservice`.
    pub fn singular(self) -> &'static str {
        match self {
            Kind::Namespace => "namespace",
            Kind::ServiceAccount => "serviceaccount",
            Kind::Service => "service",
            Kind::WorkloadEntry => "workloadentry",
            Kind::ServiceEntry => "serviceentry",
            Kind::VirtualService => "virtualservice",
            Kind::DestinationRule => "destinationrule",
            Kind::PeerAuthentication => "peerauthentication",
            Kind::AuthorizationPolicy => "authorizationpolicy",
            Kind::WorkloadGroup => "workloadgroup",
            Kind::Gateway => "gateway",
            Kind::Sidecar => "sidecar",
            Kind::ProxyConfig => "proxyconfig",
            Kind::RequestAuthentication => "requestauthentication",
            Kind::Telemetry => "telemetry",
            Kind::MeshConfig => "meshconfig",
            Kind::Secret => "secret",
            Kind::ConfigMap => "configmap",
            Kind::Endpoints => "endpoints",
            Kind::EndpointSlice => "endpointslice",
            Kind::RateLimit => "ratelimit",
        }
    }

    /// The plural and short names that commands take beside the singular.
    pub fn aliases(self) -> &'static [&'static str] {
        match self {
            Kind::Namespace => &["namespaces", "ns"],
            Kind::ServiceAccount => &["serviceaccounts", "sa"],
            Kind::Service => &["services", "svc"],
            Kind::WorkloadEntry => &["workloadentries", "we"],
            Kind::ServiceEntry => &["serviceentries", "se"],
            Kind::VirtualService => &["virtualservices", "vs"],
            Kind::DestinationRule => &["destinationrules", "dr"],
            Kind::PeerAuthentication => &["peerauthentications", "pa"],
            Kind::AuthorizationPolicy => &["authorizationpolicies", "ap"],
            Kind::WorkloadGroup => &["workloadgroups", "wg"],
            Kind::Gateway => &["gateways", "gw"],
            Kind::Sidecar => &["sidecars"],
            Kind::ProxyConfig => &["proxyconfigs", "pc"],
            Kind::RequestAuthentication => &["requestauthentications", "ra"],
            Kind::Telemetry => &["telemetries"],
            Kind::MeshConfig => &["meshconfigs"],
            Kind::Secret => &["secrets"],
            Kind::ConfigMap => &["configmaps", "cm"],
            Kind::Endpoints => &["ep"],
            Kind::EndpointSlice => &["endpointslices"],
            Kind::RateLimit => &["ratelimits", "rl"],
        }
    }

    /// The kind that a word of the command line means: singular, plural or short, in any case.
    pub fn from_word(word: &str) -> Option<Kind> {
        let word = word.to_ascii_lowercase();
        Kind::ALL.into_iter().find(|kind| kind.singular() == word || kind.aliases().contains(&word.as_str()))
    }
}

/// Names one resource: `virtualservice/default/reviews`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceKey {
    /// What it is.
    pub kind: Kind,
    /// Its namespace; empty for a Namespace.
    pub namespace: Text,
    /// Its name.
    pub name: Text,
}

impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            return write!(f, "{}/{}", self.kind.singular(), self.name);
        }
        write!(f, "{}/{}/{}", self.kind.singular(), self.namespace, self.name)
    }
}

/// Where a compiled part came from: the text `virtualservice/default/reviews` and the rule in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// The resource, as [`ResourceKey`] displays it.
    pub resource: Text,
    /// Index of the rule inside the resource, where it has rules.
    pub rule: Option<u32>,
}

impl Origin {
    /// The origin of a whole resource.
    pub fn of(key: &ResourceKey) -> Origin {
        Origin { resource: key.to_string().into(), rule: None }
    }

    /// The origin of one rule of a resource.
    pub fn rule(key: &ResourceKey, rule: usize) -> Origin {
        Origin { resource: key.to_string().into(), rule: u32::try_from(rule).ok() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_of_a_kind_names_it() {
        for kind in Kind::ALL {
            for word in kind.aliases().iter().chain([&kind.singular(), &kind.name()]) {
                assert_eq!(Kind::from_word(word), Some(kind), "{word}");
            }
        }
        assert_eq!(Kind::from_word("pod"), None);
    }
}
