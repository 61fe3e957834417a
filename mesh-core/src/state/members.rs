//! The workloads that a service reaches, and the ports through which.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::MeshState;
use super::service::{KnownService, service, service_entry};
use super::workload::{KnownWorkload, inline_key};
use crate::resource::service::{Port, ServiceEntry, TargetPort};
use crate::resource::workload::{Address, WorkloadEntry};
use crate::resource::{Resource, Spec};
use crate::vocab::label::Labels;
use crate::vocab::locality::Locality;
use crate::vocab::name::{Text, WorkloadKey};
use crate::vocab::origin::Kind;

/// A workload as an endpoint of a service.
#[derive(Debug, Clone)]
pub struct Member {
    /// The workload.
    pub workload: Arc<KnownWorkload>,
    /// Port of the service and port of the workload, by the former.
    pub ports: Vec<(u16, u16)>,
}

impl KnownService {
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

    /// The ports of the host itself where its name is resolved.
    fn own_ports(&self) -> Vec<(u16, u16)> {
        let target = |port: &Port| match port.target {
            TargetPort::Number(number) => number,
            TargetPort::Same | TargetPort::Name(_) => port.number,
        };
        self.ports.iter().map(|port| (port.number, target(port))).collect()
    }

    /// The ports of an address that is written into an Endpoints or EndpointSlice, whose ports are named.
    fn static_ports(&self, named: &[(Text, u16)]) -> Vec<(u16, u16)> {
        let only = self.ports.len() == 1 && named.len() == 1;
        let target = |port: &Port| {
            let by_name = named.iter().find(|(name, _)| *name == port.name || only);
            by_name.map(|(_, target)| (port.number, *target))
        };
        self.ports.iter().filter_map(target).collect()
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
            if let Some(entry) = service_entry(source) {
                members.extend(self.inline_members(service, source, entry));
            }
        }
        members.extend(self.resolved_member(service));
        members.extend(self.static_members(service));
        members.sort_by(|a, b| a.workload.key.cmp(&b.workload.key));
        members
    }

    fn inline_members<'s>(
        &'s self,
        service: &'s KnownService,
        source: &'s Arc<Resource>,
        entry: &'s ServiceEntry,
    ) -> impl Iterator<Item = Member> + 's {
        entry.endpoints.iter().enumerate().map(move |(index, endpoint)| {
            let workload = match self.index.workloads.get(&inline_key(source, index)) {
                Some(known) if known.source == source.meta.key => known.clone(),
                _ => Arc::new(KnownWorkload::detached(
                    self,
                    source,
                    inline_key(source, index),
                    endpoint.clone(),
                )),
            };
            let ports = service.reaches(&workload).unwrap_or_default();
            Member { workload, ports }
        })
    }

    /// The host itself, where its name is resolved and no endpoint is written or selected.
    fn resolved_member(&self, service: &KnownService) -> Option<Member> {
        let source = service.source();
        let bare = service
            .sources
            .iter()
            .filter_map(|source| service_entry(source))
            .all(|entry| entry.endpoints.is_empty() && entry.workload_selector.is_none());
        if !service.resolution.resolves_names() || !bare {
            return None;
        }
        let entry = written(Address::Host(service.host.clone()));
        let workload = KnownWorkload::detached(self, source, inline_key(source, 0), entry);
        Some(Member { workload: Arc::new(workload), ports: service.own_ports() })
    }

    /// The addresses that Endpoints and EndpointSlices give a Service without a selector.
    fn static_members(&self, known: &KnownService) -> Vec<Member> {
        let source = known.source();
        let Some(declared) = service(source) else { return Vec::new() };
        if declared.selector.as_ref().is_some_and(|selector| !selector.is_empty()) || known.alias.is_some() {
            return Vec::new();
        }
        let name = &source.meta.key.name;
        let mut members = Vec::new();
        for kind in [Kind::Endpoints, Kind::EndpointSlice] {
            for resource in self.resources_in(kind, &known.namespace) {
                let Spec::Endpoints(endpoints) = &resource.spec else { continue };
                if endpoints.service != *name {
                    continue;
                }
                let addresses = endpoints.subsets.iter().flat_map(|subset| {
                    subset.addresses.iter().map(move |address| (address, subset.ports.as_slice()))
                });
                for (index, (address, ports)) in addresses.enumerate() {
                    let mut entry = written(Address::Ip(address.ip));
                    entry.locality = Locality { zone: address.zone.clone(), ..Locality::default() };
                    if let Some(node) = &address.node {
                        entry.labels.set("kubernetes.io/hostname", node.clone());
                    }
                    let mut workload =
                        KnownWorkload::detached(self, resource, inline_key(resource, index), entry);
                    workload.set_ready(address.ready);
                    let ports = known.static_ports(ports);
                    members.push(Member { workload: Arc::new(workload), ports });
                }
            }
            // An EndpointSlice that mirrors the Endpoints of the same Service would count every address twice.
            if !members.is_empty() {
                break;
            }
        }
        members
    }

    /// The services that have this workload as an endpoint, by host.
    pub fn services_of(&self, workload: &KnownWorkload) -> Vec<Arc<KnownService>> {
        let hosts = self.index.namespaces.get(&workload.key.namespace).into_iter().flatten();
        hosts
            .flat_map(|host| self.candidates(host))
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

/// An endpoint of which only the address is known.
fn written(address: Address) -> WorkloadEntry {
    WorkloadEntry {
        address,
        network: None,
        ports: BTreeMap::new(),
        labels: Labels::default(),
        locality: Locality::default(),
        weight: 1,
        service_account: None,
        user: None,
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

/// The port of a workload that a service port leads to. A Unix socket has none, and the number means nothing there.
fn target(port: &Port, entry: &WorkloadEntry, of_service_entry: bool) -> u16 {
    let by_name = || entry.ports.get(&port.name).copied();
    match &port.target {
        TargetPort::Number(number) if of_service_entry => by_name().unwrap_or(*number),
        TargetPort::Number(number) => *number,
        TargetPort::Name(name) => entry.ports.get(name).copied().or_else(by_name).unwrap_or(port.number),
        TargetPort::Same => by_name().unwrap_or(port.number),
    }
}
