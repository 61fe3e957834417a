//! WorkloadEntry and WorkloadGroup.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::vocab::label::Labels;
use crate::vocab::locality::Locality;
use crate::vocab::name::Text;

/// Where a workload is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// An IP address.
    Ip(IpAddr),
    /// A name, lower case, that is resolved.
    Host(Text),
    /// `unix://`: a socket, an absolute path or `@NAME`.
    Unix(Text),
    /// None: only the network is known.
    Unknown,
}

impl Address {
    /// The IP address, if it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Address::Ip(address) => Some(*address),
            Address::Host(_) | Address::Unix(_) | Address::Unknown => None,
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Ip(address) => address.fmt(f),
            Address::Host(name) => f.write_str(name),
            Address::Unix(path) => write!(f, "unix://{path}"),
            Address::Unknown => f.write_str("unknown"),
        }
    }
}

/// A workload: an address with ports, labels and an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadEntry {
    /// Address.
    pub address: Address,
    /// `network`: endpoints of one network reach each other.
    pub network: Option<Text>,
    /// Ports by name.
    pub ports: BTreeMap<Text, u16>,
    /// `spec.labels` with `metadata.labels` winning.
    pub labels: Labels,
    /// Region, zone, subzone.
    pub locality: Locality,
    /// Relative share, at least 1.
    pub weight: u32,
    /// Service account; its identity is `spiffe://TD/ns/NAMESPACE/sa/ACCOUNT`.
    pub service_account: Option<Text>,
    /// Annotation `mesh.io/user`: user id of its processes.
    pub user: Option<u32>,
}

/// What a probe does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeAction {
    /// `httpGet`: 200 to 399 is success.
    Http {
        /// Path, default `/`.
        path: Text,
        /// Port.
        port: u16,
        /// Host, default the workload's address.
        host: Option<Text>,
        /// Over TLS.
        https: bool,
        /// Header fields.
        headers: Vec<(Text, Text)>,
    },
    /// `tcpSocket`: a connection is success.
    Tcp {
        /// Host, default the workload's address.
        host: Option<Text>,
        /// Port.
        port: u16,
    },
    /// `exec`: exit code 0 is success.
    Exec {
        /// Command and arguments.
        command: Vec<Text>,
    },
    /// `grpc`: the health service says SERVING.
    Grpc {
        /// Port; `None` for the first.
        port: Option<u16>,
        /// Service asked for.
        service: Option<Text>,
    },
}

/// `probe` of a WorkloadGroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What it does.
    pub action: ProbeAction,
    /// Seconds before the first; default 0.
    pub initial_delay: u32,
    /// Seconds it may take; default 1.
    pub timeout: u32,
    /// Seconds between two; default 10.
    pub period: u32,
    /// Successes until healthy; default 1.
    pub success_threshold: u32,
    /// Failures until unhealthy; default 1.
    pub failure_threshold: u32,
}

/// What workloads that register under a name have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadGroup {
    /// `metadata.labels`, over those of the template.
    pub labels: Labels,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<Text, Text>,
    /// Ports, labels, account, locality; its address is not looked at.
    pub template: WorkloadEntry,
    /// How the workloads are checked.
    pub probe: Option<Probe>,
}
