//! A service port or subset with its policy.

use std::time::Duration;

use crate::balancing::balancer::LoadBalancer;
use crate::vocab::label::Labels;
use crate::vocab::name::{DestinationKey, Text};
use crate::vocab::protocol::Protocol;

/// How connections to the endpoints are secured.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum ClientTls {
    /// Mutual TLS to every endpoint that has an identity and a proxy, plaintext to others (auto mTLS).
    #[default]
    Auto,
    /// Plaintext.
    Disable,
    /// Mutual TLS with the mesh's identities; an endpoint that has none cannot be reached.
    IstioMutual,
}

impl ClientTls {
    /// The word shown to people; `AUTO` where no DestinationRule says anything.
    pub fn name(&self) -> &'static str {
        match self {
            ClientTls::Auto => "AUTO",
            ClientTls::Disable => "DISABLE",
            ClientTls::IstioMutual => "ISTIO_MUTUAL",
        }
    }
}

/// Where traffic goes and how: the endpoints of `key.host` whose labels `labels` selects.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Destination {
    /// Host, port, subset and scope.
    pub key: DestinationKey,
    /// The DestinationRule that shaped it.
    pub origin: Option<Text>,
    /// What the port speaks.
    pub protocol: Protocol,
    /// Labels of the subset; empty selects all.
    pub labels: Labels,
    /// How an endpoint is chosen.
    pub load_balancer: LoadBalancer,
    /// How connections are secured.
    pub tls: ClientTls,
    /// Time to connect.
    pub connect_timeout: Duration,
}
