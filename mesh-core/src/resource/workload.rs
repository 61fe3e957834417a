//! WorkloadEntry.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::vocab::label::Labels;
use crate::vocab::locality::Locality;
use crate::vocab::name::Text;

/// A workload: an address with ports, labels and an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadEntry {
    /// Address.
    pub address: IpAddr,
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
