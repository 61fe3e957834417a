//! A service port or subset with its policy.

use std::time::Duration;

use crate::balancing::balancer::LoadBalancer;
use crate::policy::mtls::ClientTls;
use crate::vocab::label::Labels;
use crate::vocab::name::{DestinationKey, Text};
use crate::vocab::protocol::Protocol;

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
