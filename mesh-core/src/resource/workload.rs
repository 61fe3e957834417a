//! WorkloadEntry and WorkloadGroup.

use std::collections::BTreeMap;
use std::net::IpAddr;

pub use crate::vocab::health::{Probe, ProbeAction};
use crate::vocab::label::Labels;
use crate::vocab::locality::Locality;
use crate::vocab::name::Text;
pub use crate::vocab::recognition::Recognition;

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
    /// Annotations `mesh.io/user`, `mesh.io/cgroup`, `mesh.io/netns`: how its processes are told from others.
    pub recognition: Recognition,
    /// How it is checked, where its WorkloadGroup says so.
    pub probe: Option<Probe>,
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
