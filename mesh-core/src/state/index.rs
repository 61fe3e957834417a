//! What the mesh knows once resources and registrations are joined: services by host, workloads by key.
//!
//! Derived from [`MeshState`] alone; `change.rs` keeps it up to date. A known service or workload holds all that
//! its sections are compiled from, apart from the policies and rules that are looked up by host and namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::hosts::HostTable;
use super::{MeshState, Registration};
use crate::resource::service::{Location, Port, ServiceEntry, TargetPort};
use crate::resource::workload::WorkloadEntry;
use crate::resource::{Resource, Spec};
use crate::snapshot::endpoints::Health;
use crate::vocab::identity::SpiffeId;
use crate::vocab::label::Labels;
use crate::vocab::name::{Text, WorkloadKey};
use crate::vocab::origin::{Kind, ResourceKey};
use crate::vocab::protocol::Protocol;

/// A service as the mesh knows it: what all declarations of its host amount to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownService {
    /// Fully qualified host.
    pub host: Text,
    /// Namespace of the declaration that counts.
    pub namespace: Text,
    /// The declarations whose endpoints count, the one that decides all else first: a Service alone, or the
    /// ServiceEntries of one namespace by age. Never empty.
    pub sources: Vec<Arc<Resource>>,
    /// Ports, by number, without datagram ports.
    pub ports: Vec<Port>,
    /// Declared addresses.
    pub addresses: Vec<IpAddr>,
    /// Outside the mesh.
    pub external: bool,
}

/// A workload as the mesh knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownWorkload {
    /// Namespace and name.
    pub key: WorkloadKey,
    /// Address, ports, labels.
    pub entry: Arc<WorkloadEntry>,
    /// The WorkloadEntry, or the ServiceEntry that it is written into.
    pub source: ResourceKey,
    /// Who it is; `None` if it has no service account.
    pub identity: Option<SpiffeId>,
    /// The joined host it belongs to.
    pub node: Option<Text>,
    /// Where the mesh hop to it ends.
    pub tunnel: Option<SocketAddr>,
    /// Whether it may get traffic.
    pub health: Health,
    /// Why it is not healthy; empty where it is.
    pub reason: Text,
}

/// A workload as an endpoint of a service.
#[derive(Debug, Clone)]
pub struct Member {
    /// The workload.
    pub workload: Arc<KnownWorkload>,
    /// Port of the service and port of the workload, by the former.
    pub ports: Vec<(u16, u16)>,
}

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

impl KnownService {
    /// What all that claims this host amounts to. A Service beats every ServiceEntry; of these the oldest counts,
    /// and the endpoints of others in its namespace are added.
    pub(super) fn of(state: &MeshState, host: &Text) -> Option<KnownService> {
        let claims = state.index.claims.get(host)?;
        let mut sources: Vec<_> = claims.iter().filter_map(|key| state.declared(key)).collect();
        sources.sort_by(|a, b| rank(a).cmp(&rank(b)));
        let first = sources.first()?.clone();
        let namespace = first.meta.key.namespace.clone();
        match &first.spec {
            Spec::Service(service) => Some(KnownService {
                host: host.clone(),
                namespace,
                sources: vec![first.clone()],
                ports: merged_ports([service.ports.as_slice()].into_iter()),
                addresses: service.addresses.clone(),
                external: false,
            }),
            Spec::ServiceEntry(oldest) => {
                sources.retain(|source| source.meta.key.namespace == namespace);
                let alike = |source: &&Arc<Resource>| {
                    service_entry(source).is_some_and(|entry| {
                        entry.workload_selector == oldest.workload_selector
                            && source.meta.labels == first.meta.labels
                    })
                };
                let ports = sources.iter().filter(alike).filter_map(|source| service_entry(source));
                let ports = merged_ports(ports.map(|entry| entry.ports.as_slice()));
                Some(KnownService {
                    host: host.clone(),
                    namespace,
                    ports,
                    addresses: oldest.addresses.clone(),
                    external: oldest.location == Location::External,
                    sources: sources.clone(),
                })
            }
            Spec::Namespace
            | Spec::ServiceAccount
            | Spec::WorkloadEntry(_)
            | Spec::VirtualService(_)
            | Spec::DestinationRule(_)
            | Spec::PeerAuthentication(_)
            | Spec::AuthorizationPolicy(_) => None,
        }
    }

    /// The declaration that decides.
    pub fn source(&self) -> &Arc<Resource> {
        &self.sources[0]
    }

    /// The bare name of a Service; `None` for a ServiceEntry.
    pub fn short_name(&self) -> Option<&Text> {
        let key = &self.source().meta.key;
        (key.kind == Kind::Service).then_some(&key.name)
    }

    /// The port of that number.
    pub fn port(&self, number: u16) -> Option<&Port> {
        self.ports.iter().find(|port| port.number == number)
    }

    /// The ports through which a workload is reached, by service port; `None` if it is no endpoint of the service.
    pub fn reaches(&self, workload: &KnownWorkload) -> Option<Vec<(u16, u16)>> {
        let selecting: Vec<_> = self.sources.iter().filter(|source| selects(source, workload)).collect();
        if selecting.is_empty() {
            return None;
        }
        let mut ports = BTreeMap::new();
        for source in selecting {
            let own = match &source.spec {
                Spec::ServiceEntry(entry) => entry.ports.as_slice(),
                _ => self.ports.as_slice(),
            };
            for port in own.iter().filter(|port| self.port(port.number).is_some()) {
                let is_entry = source.meta.key.kind == Kind::ServiceEntry;
                ports.entry(port.number).or_insert_with(|| target(port, &workload.entry, is_entry));
            }
        }
        Some(ports.into_iter().collect())
    }

    /// Istio's precedence between services that reach the same port of a workload.
    pub fn rank(&self) -> impl Ord + '_ {
        rank(self.source())
    }
}

impl KnownWorkload {
    /// Whether it is written into a ServiceEntry.
    pub fn is_inline(&self) -> bool {
        self.source.kind == Kind::ServiceEntry
    }

    /// The workload of that key: announced, else declared by the operator, else written into a ServiceEntry.
    pub(super) fn of(state: &MeshState, key: &WorkloadKey) -> Option<KnownWorkload> {
        let resource_key = ResourceKey {
            kind: Kind::WorkloadEntry,
            namespace: key.namespace.clone(),
            name: key.name.clone(),
        };
        let announcer = state.index.announced.get(&resource_key).and_then(|nodes| nodes.iter().next());
        let (source, entry, node) = match announcer {
            Some((node, resource)) => (resource.clone(), workload_entry(resource)?, Some(node.clone())),
            None => match state.resources.get(&resource_key) {
                Some(resource) => (resource.clone(), workload_entry(resource)?, None),
                None => {
                    let (source, entry) = inline_workload(state, key)?;
                    (source, entry, None)
                }
            },
        };
        let owner = node.or_else(|| {
            state.index.addresses.get(&entry.address).and_then(|nodes| nodes.iter().next()).cloned()
        });
        let registration = owner.as_ref().and_then(|node| state.registrations.get(node));
        let (health, reason) = health(registration.map(|r| &**r), key);
        Some(KnownWorkload {
            key: key.clone(),
            source: source.meta.key.clone(),
            identity: identity(state, &key.namespace, &entry),
            tunnel: registration.map(|registration| registration.inbound),
            node: owner,
            health,
            reason,
            entry: Arc::new(entry),
        })
    }

    /// An endpoint of a ServiceEntry that is no workload of the mesh: outside of it, or its key is another's.
    fn detached(state: &MeshState, source: &Resource, index: usize, entry: &WorkloadEntry) -> KnownWorkload {
        KnownWorkload {
            key: inline_key(source, index),
            source: source.meta.key.clone(),
            identity: identity(state, &source.meta.key.namespace, entry),
            node: None,
            tunnel: None,
            health: Health::Healthy,
            reason: "".into(),
            entry: Arc::new(entry.clone()),
        }
    }
}

impl MeshState {
    /// The endpoints of a service, by workload.
    pub fn members(&self, service: &KnownService) -> Vec<Member> {
        let mut members: Vec<Member> = self
            .workloads_in(&service.namespace)
            .filter(|workload| !workload.is_inline())
            .filter_map(|workload| {
                service.reaches(workload).map(|ports| Member { workload: workload.clone(), ports })
            })
            .collect();
        for source in &service.sources {
            let Some(entry) = service_entry(source) else { continue };
            for (index, endpoint) in entry.endpoints.iter().enumerate() {
                let workload = match self.index.workloads.get(&inline_key(source, index)) {
                    Some(known) if known.source == source.meta.key => known.clone(),
                    _ => Arc::new(KnownWorkload::detached(self, source, index, endpoint)),
                };
                let ports = service.reaches(&workload).unwrap_or_default();
                members.push(Member { workload, ports });
            }
        }
        members.sort_by(|a, b| a.workload.key.cmp(&b.workload.key));
        members
    }

    /// The services that have this workload as an endpoint, by host.
    pub fn services_of(&self, workload: &KnownWorkload) -> Vec<Arc<KnownService>> {
        let hosts = self.index.namespaces.get(&workload.key.namespace).into_iter().flatten();
        hosts
            .filter_map(|host| self.index.services.get(host))
            .filter(|service| service.reaches(workload).is_some())
            .cloned()
            .collect()
    }

    /// The workloads of a namespace.
    pub fn workloads_in(&self, namespace: &Text) -> impl Iterator<Item = &Arc<KnownWorkload>> {
        let first = WorkloadKey { namespace: namespace.clone(), name: "".into() };
        let namespace = namespace.clone();
        self.index
            .workloads
            .range(first..)
            .take_while(move |(key, _)| key.namespace == namespace)
            .map(|(_, workload)| workload)
    }
}

/// The name of an endpoint that is written into a ServiceEntry.
pub(super) fn inline_key(source: &Resource, index: usize) -> WorkloadKey {
    let key = &source.meta.key;
    WorkloadKey { namespace: key.namespace.clone(), name: format!("{}-{index}", key.name).into() }
}

/// The content, if it is a ServiceEntry.
pub(super) fn service_entry(resource: &Resource) -> Option<&ServiceEntry> {
    match &resource.spec {
        Spec::ServiceEntry(entry) => Some(entry),
        _ => None,
    }
}

/// Services before ServiceEntries, then by age.
fn rank(resource: &Resource) -> (Kind, (u64, &str, &str)) {
    (resource.meta.key.kind, resource.meta.precedence())
}

fn workload_entry(resource: &Resource) -> Option<WorkloadEntry> {
    match &resource.spec {
        Spec::WorkloadEntry(entry) => Some(entry.clone()),
        _ => None,
    }
}

/// Endpoints of entries outside the mesh are no workloads: no proxy stands before them.
fn inline_workload(state: &MeshState, key: &WorkloadKey) -> Option<(Arc<Resource>, WorkloadEntry)> {
    let (name, index) = key.name.rsplit_once('-')?;
    let source =
        ResourceKey { kind: Kind::ServiceEntry, namespace: key.namespace.clone(), name: name.into() };
    let source = state.resources.get(&source)?;
    let entry = service_entry(source).filter(|entry| entry.location == Location::Internal)?;
    let index: usize = index.parse().ok()?;
    // `01` is not how the key of an endpoint is written.
    (inline_key(source, index) == *key).then_some(())?;
    Some((source.clone(), entry.endpoints.get(index)?.clone()))
}

fn identity(state: &MeshState, namespace: &str, entry: &WorkloadEntry) -> Option<SpiffeId> {
    let account = entry.service_account.as_deref()?;
    SpiffeId::workload(&state.settings.trust_domain, namespace, account).ok()
}

/// A workload of no joined node is not subject to checks. One of a node is unknown until the node reports.
fn health(registration: Option<&Registration>, key: &WorkloadKey) -> (Health, Text) {
    match registration {
        None => (Health::Healthy, "".into()),
        Some(registration) if registration.drained => (Health::Unhealthy, "drained".into()),
        Some(registration) => match registration.health.get(key) {
            Some(reported) => reported.clone(),
            None => (Health::Unknown, "not checked yet".into()),
        },
    }
}

fn selects(source: &Resource, workload: &KnownWorkload) -> bool {
    if source.meta.key.namespace != workload.key.namespace {
        return false;
    }
    let matches = |selector: &Option<Labels>| {
        selector.as_ref().is_some_and(|selector| selector.selects(&workload.entry.labels))
    };
    match &source.spec {
        // As in Kubernetes, a Service with an empty selector selects nothing.
        Spec::Service(service) => {
            let empty = service.selector.as_ref().is_none_or(Labels::is_empty);
            !empty && !workload.is_inline() && matches(&service.selector)
        }
        Spec::ServiceEntry(_) if workload.is_inline() => workload.source == source.meta.key,
        Spec::ServiceEntry(entry) => matches(&entry.workload_selector),
        _ => false,
    }
}

/// The port of a workload that a service port leads to.
fn target(port: &Port, entry: &WorkloadEntry, of_service_entry: bool) -> u16 {
    let by_name = || entry.ports.get(&port.name).copied();
    match &port.target {
        TargetPort::Number(number) if of_service_entry => by_name().unwrap_or(*number),
        TargetPort::Number(number) => *number,
        TargetPort::Name(name) => entry.ports.get(name).copied().or_else(by_name).unwrap_or(port.number),
        TargetPort::Same => by_name().unwrap_or(port.number),
    }
}

/// Ports by number, the first declaration of a number winning, without datagram ports.
pub(super) fn merged_ports<'p>(lists: impl Iterator<Item = &'p [Port]>) -> Vec<Port> {
    let mut ports: BTreeMap<u16, &Port> = BTreeMap::new();
    for port in lists.flatten().filter(|port| port.protocol != Protocol::Udp) {
        ports.entry(port.number).or_insert(port);
    }
    ports.into_values().cloned().collect()
}
