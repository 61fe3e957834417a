//! The mesh as one immutable value: resources, registrations of nodes, and what they amount to together.
//!
//! A [`MeshState`] is changed only by [`MeshState::apply`], which yields a new one that shares what did not change
//! and tells what the compile step must redo. The result never depends on the order in which things were applied.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::resource::{Resource, Spec};
use crate::vocab::health::{Health, HostStanding};
use crate::vocab::identity::{Mark, TrustDomain};
use crate::vocab::name::{Text, WorkloadKey};
use crate::vocab::origin::{Kind, ResourceKey};

mod analysis;
mod announcement;
mod apart;
#[cfg(test)]
pub(crate) mod arbitrary;
pub mod binding;
mod candidates;
mod change;
mod gateway;
pub mod hosts;
pub mod index;
mod members;
mod mesh;
mod refresh;
pub mod rules;
#[cfg(test)]
pub(crate) mod sample;
mod service;
mod touched;
pub mod view;
mod workload;

pub use change::Change;
use index::{Index, KnownService, KnownWorkload};
pub use touched::Touched;

/// What holds for the whole life of a control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Root of all identities.
    pub trust_domain: TrustDomain,
    /// Namespace whose policies hold for the whole mesh.
    pub root_namespace: Text,
}

/// A joined node and what it announces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Name of the node.
    pub node: Text,
    /// Where peers reach the host.
    pub address: IpAddr,
    /// Where its proxy accepts the mesh hop.
    pub inbound: SocketAddr,
    /// WorkloadEntries of its workloads.
    pub workloads: Vec<Arc<Resource>>,
    /// Services made by the short form; they count where the operator declares none of that key.
    pub services: Vec<Arc<Resource>>,
    /// Health of its workloads, with the reason where it is not good.
    pub health: BTreeMap<WorkloadKey, (Health, Text)>,
    /// How it stands towards those who call its workloads.
    pub standing: HostStanding,
}

/// All resources and registrations, indexed. Cheap to clone.
#[derive(Debug, Clone)]
pub struct MeshState {
    base: Arc<Settings>,
    mesh: Arc<mesh::Mesh>,
    resources: Arc<BTreeMap<ResourceKey, Arc<Resource>>>,
    registrations: Arc<BTreeMap<Text, Arc<Registration>>>,
    /// Services that nodes announce, by node.
    announced_services: Arc<BTreeMap<ResourceKey, BTreeMap<Text, Arc<Resource>>>>,
    offsets: Arc<BTreeMap<Text, u32>>,
    roots: Arc<Vec<Vec<u8>>>,
    revoked: Arc<Vec<Mark>>,
    /// Key sets by the URI that they were fetched from.
    keys: Arc<BTreeMap<Text, Text>>,
    index: Index,
}

impl MeshState {
    /// A mesh without anything.
    pub fn new(settings: Settings) -> MeshState {
        MeshState {
            mesh: Arc::new(mesh::Mesh::new(&settings, None)),
            base: Arc::new(settings),
            resources: Arc::default(),
            registrations: Arc::default(),
            announced_services: Arc::default(),
            offsets: Arc::default(),
            roots: Arc::default(),
            revoked: Arc::default(),
            keys: Arc::default(),
            index: Index::default(),
        }
    }

    /// Trust domain and root namespace: those that the control plane was started with, unless MeshConfig has others.
    pub fn settings(&self) -> &Settings {
        &self.mesh.settings
    }

    /// A resource that the operator declared.
    pub fn resource(&self, key: &ResourceKey) -> Option<&Arc<Resource>> {
        self.resources.get(key)
    }

    /// The operator's resources of a kind, by namespace and name.
    pub fn resources(&self, kind: Kind) -> impl Iterator<Item = &Arc<Resource>> {
        self.range(kind, "").take_while(move |resource| resource.meta.key.kind == kind)
    }

    /// The operator's resources of a kind in a namespace, by name.
    pub fn resources_in<'s>(
        &'s self,
        kind: Kind,
        namespace: &'s str,
    ) -> impl Iterator<Item = &'s Arc<Resource>> + 's {
        self.range(kind, namespace).take_while(move |resource| {
            let key = &resource.meta.key;
            key.kind == kind && &*key.namespace == namespace
        })
    }

    fn range(&self, kind: Kind, namespace: &str) -> impl Iterator<Item = &Arc<Resource>> {
        let first = ResourceKey { kind, namespace: namespace.into(), name: "".into() };
        self.resources.range(first..).map(|(_, resource)| resource)
    }

    /// Whether callers turn away from the workloads of a node in good order.
    pub fn is_draining(&self, node: &str) -> bool {
        self.registrations.get(node).is_some_and(|registration| registration.standing.is_draining())
    }

    /// A resource of the operator, else the Service that nodes announce by that key.
    pub fn declared(&self, key: &ResourceKey) -> Option<Arc<Resource>> {
        match self.resources.get(key) {
            Some(resource) => Some(resource.clone()),
            None => self.announced_services.get(key).and_then(announcement::merged_announcements),
        }
    }

    /// Every service, by host.
    pub fn services(&self) -> impl Iterator<Item = &Arc<KnownService>> {
        self.index.services.values()
    }

    /// The service of a host.
    pub fn service(&self, host: &str) -> Option<&Arc<KnownService>> {
        self.index.services.get(host)
    }

    /// Every workload, by namespace and name.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<KnownWorkload>> {
        self.index.workloads.values()
    }

    /// The workload of a key.
    pub fn workload(&self, key: &WorkloadKey) -> Option<&Arc<KnownWorkload>> {
        self.index.workloads.get(key)
    }

    /// Every joined node, by name.
    pub fn registrations(&self) -> impl Iterator<Item = &Arc<Registration>> {
        self.registrations.values()
    }

    /// The registration of a node.
    pub fn registration(&self, node: &str) -> Option<&Arc<Registration>> {
        self.registrations.get(node)
    }

    /// The key set that was fetched from a URI.
    pub fn fetched_keys(&self, uri: &str) -> Option<&Text> {
        self.keys.get(uri)
    }

    /// Every URI that key sets must be fetched from, sorted.
    pub fn wanted_keys(&self) -> Vec<Text> {
        let policies =
            self.resources(Kind::RequestAuthentication).filter_map(|resource| match &resource.spec {
                Spec::RequestAuthentication(policy) => Some(policy),
                _ => None,
            });
        let mut uris: Vec<Text> =
            policies.flat_map(|policy| &policy.rules).filter_map(|rule| rule.keys_from()).collect();
        uris.sort();
        uris.dedup();
        uris
    }

    /// Roots that verify the mesh's identities, DER.
    pub fn roots(&self) -> &[Vec<u8>] {
        &self.roots
    }

    /// Marks of certificates that are worth nothing any more, sorted.
    pub fn revoked(&self) -> &[Mark] {
        &self.revoked
    }

    /// Offset of a host's address in each node's loopback net.
    pub fn offset(&self, host: &str) -> Option<u32> {
        self.offsets.get(host).copied()
    }

    /// Every offset ever assigned, of hosts that are gone too.
    pub fn offsets(&self) -> &BTreeMap<Text, u32> {
        &self.offsets
    }

    /// Hosts that must be given an offset before clients can reach them by address, sorted.
    pub fn hosts_without_offset(&self) -> Vec<Text> {
        let hosts = self.index.services.keys();
        hosts.filter(|host| !hosts::is_wildcard(host) && !self.offsets.contains_key(*host)).cloned().collect()
    }

    /// The VirtualService that binds a host for who sees every one: of the most specific pattern that holds it,
    /// the oldest.
    pub fn virtual_service<'s>(&'s self, host: &'s str) -> Option<&'s Arc<Resource>> {
        self.index.virtual_services.most_specific(host).first()
    }

    /// VirtualServices for the mesh's own callers, by host.
    pub fn virtual_services(&self) -> &hosts::HostTable {
        &self.index.virtual_services
    }

    /// DestinationRules by namespace and host.
    pub fn destination_rules(&self) -> impl Iterator<Item = (&Text, &hosts::HostTable)> {
        self.index.destination_rules.iter()
    }

    /// The DestinationRules of a namespace for a host, by precedence.
    pub fn destination_rules_in<'s>(&'s self, namespace: &str, host: &'s str) -> &'s [Arc<Resource>] {
        self.index.destination_rules.get(namespace).map_or(&[], |table| table.most_specific(host))
    }
}
