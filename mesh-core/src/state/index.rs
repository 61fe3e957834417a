//! What the mesh knows once resources and registrations are joined: services by host, workloads by key.
//!
//! Derived from [`MeshState`](super::MeshState) alone; `change.rs` keeps it up to date. A known service or workload holds all that
//! its sections are compiled from, apart from the policies and rules that are looked up by host and namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::hosts::HostTable;
pub use super::service::{KnownService, Member};
pub(super) use super::service::{merged_ports, service_entry};
pub use super::workload::KnownWorkload;
pub(super) use super::workload::inline_key;
use crate::resource::Resource;
use crate::vocab::name::{Text, WorkloadKey};
use crate::vocab::origin::ResourceKey;

/// Everything that is looked up by something else than a resource key.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    /// The Services and ServiceEntries that claim a host.
    pub(super) claims: Arc<BTreeMap<Text, BTreeSet<ResourceKey>>>,
    /// By host.
    pub(super) services: Arc<BTreeMap<Text, Arc<KnownService>>>,
    /// Hosts of the services of a namespace.
    pub(super) namespaces: Arc<BTreeMap<Text, BTreeSet<Text>>>,
    /// By key, that is by namespace first.
    pub(super) workloads: Arc<BTreeMap<WorkloadKey, Arc<KnownWorkload>>>,
    /// VirtualServices by host.
    pub(super) virtual_services: Arc<HostTable>,
    /// DestinationRules by namespace and host.
    pub(super) destination_rules: Arc<BTreeMap<Text, HostTable>>,
    /// Workloads that nodes announce, by node.
    pub(super) announced: Arc<BTreeMap<ResourceKey, BTreeMap<Text, Arc<Resource>>>>,
    /// Joined nodes by address.
    pub(super) addresses: Arc<BTreeMap<IpAddr, BTreeSet<Text>>>,
}
