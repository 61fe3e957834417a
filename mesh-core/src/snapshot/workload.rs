//! Workloads that the node hosts.

use std::net::IpAddr;

use crate::policy::mtls::MtlsPolicy;
use crate::vocab::identity::SpiffeId;
use crate::vocab::label::Labels;
use crate::vocab::name::{Text, WorkloadKey};
use crate::vocab::protocol::Protocol;

/// How processes of a workload are recognised on its host (annotations `mesh.io/user`, `mesh.io/cgroup`, `mesh.io/netns`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Recognition {
    /// User id of its processes.
    pub user: Option<u32>,
}

/// A port of a workload that a service reaches.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WorkloadPort {
    /// Port of the workload.
    pub number: u16,
    /// What it speaks.
    pub protocol: Protocol,
    /// Host of the service that reaches it, for telemetry.
    pub service: Text,
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
    /// Ports that services reach, by number.
    pub ports: Vec<WorkloadPort>,
    /// What its ports accept.
    pub mtls: MtlsPolicy,
    /// Namespace and name of every authorization policy that holds for it. All must be at hand before it is served.
    pub policies: Vec<(Text, Text)>,
    /// How its processes are recognised.
    pub recognition: Recognition,
}
