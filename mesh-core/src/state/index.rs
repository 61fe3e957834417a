//! What the mesh knows once resources and registrations are joined: services by host, workloads by key.
//!
//! Derived from [`MeshState`](super::MeshState) alone; `change.rs` keeps it up to date. A known service or workload holds all that
//! its sections are compiled from, apart from the policies and rules that are looked up by host and namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

pub use super::gateway::KnownGateway;
use super::hosts::HostTable;
pub use super::members::Member;
pub use super::service::KnownService;
pub(super) use super::service::{merged_ports, service_entry};
use super::view::View;
pub(super) use super::workload::inline_key;
pub use super::workload::{KnownWorkload, speaks_mutual_tls};
use crate::resource::Resource;
use crate::vocab::name::{Text, WorkloadKey};
use crate::vocab::origin::ResourceKey;

/// Resources by a namespace and a name.
pub(super) type ByName = BTreeMap<(Text, Text), Vec<Arc<Resource>>>;

/// Everything that is looked up by something else than a resource key.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    /// The Services and ServiceEntries that claim a host.
    pub(super) claims: Arc<BTreeMap<Text, BTreeSet<ResourceKey>>>,
    /// By host.
    pub(super) services: Arc<BTreeMap<Text, Arc<KnownService>>>,
    /// All services of the hosts that several namespaces declare, the one that comes first in doubt first.
    pub(super) shared_hosts: Arc<BTreeMap<Text, Vec<Arc<KnownService>>>>,
    /// Hosts of the services of a namespace.
    pub(super) namespaces: Arc<BTreeMap<Text, BTreeSet<Text>>>,
    /// Hosts of the services that are another name for a host (ExternalName), by that host.
    pub(super) aliases: Arc<BTreeMap<Text, BTreeSet<Text>>>,
    /// By key, that is by namespace first.
    pub(super) workloads: Arc<BTreeMap<WorkloadKey, Arc<KnownWorkload>>>,
    /// VirtualServices for the mesh's own callers, by host.
    pub(super) virtual_services: Arc<HostTable>,
    /// VirtualServices by the Gateways that they are bound to, each list by precedence.
    pub(super) gateway_rules: Arc<ByName>,
    /// VirtualServices by what they delegate to.
    pub(super) delegating: Arc<BTreeMap<ResourceKey, BTreeSet<ResourceKey>>>,
    /// VirtualServices by the hosts that they name as destinations without a port.
    pub(super) portless: Arc<BTreeMap<Text, BTreeSet<ResourceKey>>>,
    /// DestinationRules by namespace and host.
    pub(super) destination_rules: Arc<BTreeMap<Text, HostTable>>,
    /// DestinationRules of all namespaces by host.
    pub(super) all_rules: Arc<HostTable>,
    /// DestinationRules that select their callers, by namespace, each list by precedence.
    pub(super) selecting_rules: Arc<BTreeMap<Text, Vec<Arc<Resource>>>>,
    /// What callers see, by the key of the view, and how many workloads and gateways have it.
    pub(super) views: Arc<BTreeMap<Text, (Arc<View>, usize)>>,
    /// The key of the view of each workload that a joined node has.
    pub(super) callers: Arc<BTreeMap<WorkloadKey, Text>>,
    /// Who answers for each Gateway.
    pub(super) gateways: Arc<BTreeMap<ResourceKey, Arc<KnownGateway>>>,
    /// Workloads that nodes announce, by node.
    pub(super) announced: Arc<BTreeMap<ResourceKey, BTreeMap<Text, Arc<Resource>>>>,
    /// Joined nodes by address.
    pub(super) addresses: Arc<BTreeMap<IpAddr, BTreeSet<Text>>>,
}
