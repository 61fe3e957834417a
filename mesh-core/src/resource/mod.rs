//! What operators declare, already valid: a resource that exists is valid by itself.

use std::collections::BTreeMap;

use crate::vocab::label::Labels;
use crate::vocab::name::Text;
use crate::vocab::origin::ResourceKey;

pub mod destination_rule;
pub mod diagnostic;
pub mod gateway;
pub mod kubernetes;
pub mod mesh_config;
pub mod proxy_config;
pub mod rate_limit;
pub mod reach;
pub mod security;
pub mod service;
pub mod sidecar;
pub mod telemetry;
pub mod virtual_service;
pub mod workload;

use destination_rule::DestinationRule;
use gateway::Gateway;
use kubernetes::{ConfigMap, Secret, StaticEndpoints};
use mesh_config::MeshConfig;
use proxy_config::ProxyConfig;
use rate_limit::RateLimit;
use security::{AuthorizationPolicy, PeerAuthentication, RequestAuthentication};
use service::{Service, ServiceEntry};
use sidecar::Sidecar;
use telemetry::Telemetry;
use virtual_service::VirtualService;
use workload::{WorkloadEntry, WorkloadGroup};

/// Where a document stands, for messages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// File as it was named; empty where there is none.
    pub file: Text,
    /// First line of the document, from 1.
    pub line: u32,
}

/// What every resource has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// Kind, namespace and name.
    pub key: ResourceKey,
    /// Labels.
    pub labels: Labels,
    /// Annotations.
    pub annotations: BTreeMap<Text, Text>,
    /// When it was first seen, in milliseconds since 1970. Older resources win conflicts.
    pub created: u64,
    /// Where it was read.
    pub place: Place,
}

impl Metadata {
    /// Istio's order of precedence: age, then name, then namespace.
    pub fn precedence(&self) -> (u64, &str, &str) {
        (self.created, &self.key.name, &self.key.namespace)
    }
}

/// A valid resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Name, labels, age.
    pub meta: Metadata,
    /// What it declares.
    pub spec: Spec,
}

/// What a resource declares, by kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spec {
    /// Kubernetes Namespace.
    Namespace,
    /// Kubernetes ServiceAccount.
    ServiceAccount,
    /// Kubernetes Service.
    Service(Service),
    /// WorkloadEntry.
    WorkloadEntry(WorkloadEntry),
    /// ServiceEntry.
    ServiceEntry(ServiceEntry),
    /// VirtualService.
    VirtualService(VirtualService),
    /// DestinationRule.
    DestinationRule(Box<DestinationRule>),
    /// PeerAuthentication.
    PeerAuthentication(PeerAuthentication),
    /// AuthorizationPolicy.
    AuthorizationPolicy(AuthorizationPolicy),
    /// WorkloadGroup.
    WorkloadGroup(WorkloadGroup),
    /// Gateway.
    Gateway(Gateway),
    /// Sidecar.
    Sidecar(Sidecar),
    /// ProxyConfig.
    ProxyConfig(ProxyConfig),
    /// RequestAuthentication.
    RequestAuthentication(RequestAuthentication),
    /// Telemetry.
    Telemetry(Telemetry),
    /// MeshConfig.
    MeshConfig(Box<MeshConfig>),
    /// Kubernetes Secret.
    Secret(Secret),
    /// Kubernetes ConfigMap.
    ConfigMap(ConfigMap),
    /// Kubernetes Endpoints or EndpointSlice.
    Endpoints(StaticEndpoints),
    /// RateLimit.
    RateLimit(RateLimit),
}
