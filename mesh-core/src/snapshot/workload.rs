//! Workloads that the node hosts.

use std::net::IpAddr;

use crate::policy::mtls::MtlsPolicy;
use crate::resilience::pool::ConnectionPool;
use crate::routing::limit::RateLimit;
use crate::telemetry::Telemetry;
use crate::vocab::health::Probe;
use crate::vocab::identity::SpiffeId;
use crate::vocab::label::Labels;
use crate::vocab::locality::Locality;
use crate::vocab::name::{Text, WorkloadKey};
use crate::vocab::protocol::Protocol;
pub use crate::vocab::recognition::Recognition;

/// A port of a workload that a service reaches.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WorkloadPort {
    /// Port of the workload.
    pub number: u16,
    /// What it speaks.
    pub protocol: Protocol,
    /// Host of the service that reaches it, for telemetry.
    pub service: Text,
    /// Where the application listens (Sidecar `ingress[].defaultEndpoint`): `127.0.0.1:PORT`, `[::1]:PORT`,
    /// `0.0.0.0:PORT` for the workload's own address, `unix:///PATH`. `None` for the port itself.
    pub endpoint: Option<Text>,
    /// Limits of connections to the application.
    pub pool: ConnectionPool,
}

/// A running instance with an identity, as its own proxy needs it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Workload {
    /// Namespace and name.
    pub key: WorkloadKey,
    /// Address that its endpoints have.
    pub address: IpAddr,
    /// Who it is; `None` if it has no service account.
    pub identity: Option<SpiffeId>,
    /// Labels.
    pub labels: Labels,
    /// The joined host it runs on.
    pub node: Text,
    /// Region, zone, subzone: what it is near to as a caller.
    pub locality: Locality,
    /// Network that it is in.
    pub network: Option<Text>,
    /// Ports that services reach, by number.
    pub ports: Vec<WorkloadPort>,
    /// What its ports accept.
    pub mtls: MtlsPolicy,
    /// Namespace and name of every authorization policy that holds for it. All must be at hand before it is served.
    pub policies: Vec<(Text, Text)>,
    /// Namespace and name of every RequestAuthentication that holds for it. All must be at hand before it is served.
    pub tokens: Vec<(Text, Text)>,
    /// Rate limits of what reaches it.
    pub limits: Vec<RateLimit>,
    /// What it sees of the mesh: the key of its view; `None` for what everybody sees.
    pub view: Option<Text>,
    /// How its processes are recognised.
    pub recognition: Recognition,
    /// How it is checked; `None` for what its proxy is told.
    pub probe: Option<Probe>,
    /// What is told of its traffic.
    pub telemetry: Telemetry,
}
