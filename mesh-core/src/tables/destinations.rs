//! Destinations with their endpoints.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::policy::mtls::ClientTls;
use crate::snapshot::destination::Destination as Policy;
use crate::snapshot::endpoints::Endpoint as Declared;
use crate::vocab::health::Health;
use crate::vocab::identity::SpiffeId;
use crate::vocab::label::Labels;
use crate::vocab::locality::Locality;
use crate::vocab::name::{Text, WorkloadKey};

/// How an endpoint is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Straight to its address, in the clear.
    Plaintext,
    /// Over the mesh hop: mutual TLS to the proxy of its host.
    Mesh {
        /// Where the hop ends.
        hop: SocketAddr,
        /// Who must answer there.
        peer: SpiffeId,
    },
    /// Not at all: mutual TLS is demanded and nothing there can speak it.
    Unreachable,
}

/// One address and port of a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The workload.
    pub workload: WorkloadKey,
    /// Address and port of the workload.
    pub address: SocketAddr,
    /// The host it runs on.
    pub node: Option<Text>,
    /// How it is reached.
    pub transport: Transport,
    /// Who answers there, for telemetry.
    pub identity: Option<SpiffeId>,
    /// Labels.
    pub labels: Labels,
    /// Region, zone, subzone.
    pub locality: Locality,
    /// Relative share, at least 1.
    pub weight: u32,
    /// Whether it may get traffic.
    pub health: Health,
}

/// A destination: its policy and its endpoints, by workload.
#[derive(Debug, PartialEq, Eq)]
pub struct Destination {
    /// Key, load balancer, TLS, timeouts.
    pub policy: Policy,
    /// `outbound|PORT|SUBSET|HOST`.
    pub cluster: Text,
    /// All endpoints, those that may not get traffic included.
    pub endpoints: Vec<Arc<Endpoint>>,
}

impl Destination {
    /// Arranges a policy with the endpoints of its host.
    pub(crate) fn new<'e>(policy: &Policy, declared: impl Iterator<Item = &'e Declared>) -> Destination {
        let endpoints = declared.filter(|endpoint| policy.labels.selects(&endpoint.labels));
        Destination {
            cluster: policy.key.cluster().into(),
            endpoints: endpoints.filter_map(|endpoint| endpoint_of(policy, endpoint)).map(Arc::new).collect(),
            policy: policy.clone(),
        }
    }
}

fn endpoint_of(policy: &Policy, declared: &Declared) -> Option<Endpoint> {
    let (_, target) = declared.ports.iter().find(|(service_port, _)| *service_port == policy.key.port)?;
    Some(Endpoint {
        workload: declared.workload.clone(),
        address: SocketAddr::new(declared.address, *target),
        node: declared.node.clone(),
        transport: transport(&policy.tls, declared, *target),
        identity: declared.identity.clone(),
        labels: declared.labels.clone(),
        locality: declared.locality.clone(),
        weight: declared.weight.max(1),
        health: declared.health,
    })
}

/// Auto mTLS: mutual TLS wherever the endpoint has an identity and a proxy and its port does not refuse it.
fn transport(tls: &ClientTls, declared: &Declared, port: u16) -> Transport {
    let mesh = match (&declared.tunnel, &declared.identity) {
        (Some(hop), Some(peer)) => Some(Transport::Mesh { hop: *hop, peer: peer.clone() }),
        _ => None,
    };
    match tls {
        ClientTls::Disable => Transport::Plaintext,
        ClientTls::IstioMutual => mesh.unwrap_or(Transport::Unreachable),
        ClientTls::Auto if declared.plaintext_ports.contains(&port) => Transport::Plaintext,
        ClientTls::Auto => mesh.unwrap_or(Transport::Plaintext),
    }
}
