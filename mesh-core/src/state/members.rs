//! The workloads that a service reaches, and the ports through which.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::MeshState;
use super::service::{KnownService, service, service_entry};
use super::workload::{KnownWorkload, inline_key};
use crate::resource::kubernetes::StaticAddress;
use crate::resource::service::{Port, ServiceEntry, TargetPort};
use crate::resource::workload::{Address, WorkloadEntry};
use crate::resource::{Resource, Spec};
use crate::vocab::label::Labels;
use crate::vocab::locality::Locality;
use crate::vocab::name::{Text, WorkloadKey};
use crate::vocab::origin::{Kind, ResourceKey};

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
        let (namespace, kind) = (known.namespace.clone(), Kind::Endpoints);
        // Endpoints have the name of their Service; slices name it.
        let declared = self.resource(&ResourceKey { kind, namespace, name: name.clone() });
        let members: Vec<Member> =
            declared.into_iter().flat_map(|resource| self.addresses_in(known, name, resource)).collect();
        // A slice that mirrors the Endpoints of the same Service would count every address twice.
        if !members.is_empty() {
            return members;
        }
        let slices = self.resources_in(Kind::EndpointSlice, &known.namespace);
        slices.flat_map(|resource| self.addresses_in(known, name, resource)).collect()
    }

    /// The addresses that one resource gives the Service of that name.
    fn addresses_in(&self, known: &KnownService, name: &str, resource: &Resource) -> Vec<Member> {
        let Spec::Endpoints(endpoints) = &resource.spec else { return Vec::new() };
        if *endpoints.service != *name {
            return Vec::new();
        }
        let addresses = endpoints.subsets.iter().flat_map(|subset| {
            subset.addresses.iter().map(move |address| (address, subset.ports.as_slice()))
        });
        let member = |index: usize, address: &StaticAddress, ports: &[(Text, u16)]| {
            let mut entry = written(Address::Ip(address.ip));
            entry.locality = Locality { zone: address.zone.clone(), ..Locality::default() };
            if let Some(node) = &address.node {
                entry.labels.set("kubernetes.io/hostname", node.clone());
            }
            let mut workload = KnownWorkload::detached(self, resource, inline_key(resource, index), entry);
            workload.set_ready(address.ready);
            Member { workload: Arc::new(workload), ports: known.static_ports(ports) }
        };
        addresses.enumerate().map(|(index, (address, ports))| member(index, address, ports)).collect()
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
        recognition: Default::default(),
        probe: None,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::kubernetes::{StaticEndpoints, StaticSubset};
    use crate::resource::service::TargetPort::{Name, Number, Same};
    use crate::resource::service::{Resolution, Service};
    use crate::state::sample::{declare, entry, mesh, port, service, service_entry, workload};

    #[test]
    fn the_port_of_a_workload() {
        let mut entry = workload("10.0.0.1", "app=a");
        entry.ports = [("http", 9000), ("alt", 9001)].into_iter().map(|(k, v)| (k.into(), v)).collect();
        let check = |name: &str, to: TargetPort, service: u16, of_service_entry: u16| {
            let port = Port { target: to.clone(), ..port(&format!("{name}:80")) };
            assert_eq!(target(&port, &entry, false), service, "{name} {to:?}");
            assert_eq!(target(&port, &entry, true), of_service_entry, "{name} {to:?}");
        };
        check("http", Same, 9000, 9000);
        check("other", Same, 80, 80);
        check("http", Number(8080), 8080, 9000);
        check("other", Number(8080), 8080, 8080);
        check("http", Name("alt".into()), 9001, 9001);
        check("http", Name("nothing".into()), 9000, 9000);
        check("other", Name("nothing".into()), 80, 80);
    }

    /// `address>ports:health` of each member of a host.
    fn members(resources: Vec<Arc<Resource>>, host: &str) -> String {
        let state = mesh(resources);
        let Some(service) = state.service(host) else { return "no service".to_owned() };
        let member = |member: &Member| {
            let ports: Vec<_> = member.ports.iter().map(|(own, to)| format!("{own}-{to}")).collect();
            let address = match &member.workload.entry.address {
                Address::Ip(address) => address.to_string(),
                Address::Host(name) | Address::Unix(name) => name.to_string(),
                Address::Unknown => "?".to_owned(),
            };
            format!("{address}>{}:{}", ports.join(","), member.workload.health.name())
        };
        state.members(service).iter().map(member).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_service_selects_workloads_of_its_namespace() {
        let resources = |selector: &str| {
            vec![
                service("default/a", &["http:80:8080", "udp-x:53"], selector),
                entry("default/w1", "10.0.0.1", "app=a,version=v1"),
                entry("default/w2", "10.0.0.2", "app=b"),
                entry("prod/w3", "10.0.0.3", "app=a"),
            ]
        };
        let host = "a.default.svc.cluster.local";
        assert_eq!(members(resources("app=a"), host), "10.0.0.1>80-8080:healthy");
        assert_eq!(members(resources("app=a,version=v2"), host), "");
        assert_eq!(members(resources(""), host), "");
    }

    #[test]
    fn a_name_that_is_resolved_is_its_own_endpoint_where_none_is_given() {
        let entry = |resolution: Resolution, endpoints: Vec<WorkloadEntry>, ports: &[&str]| {
            let mut entry = service_entry("api.example", ports, endpoints);
            entry.resolution = resolution;
            declare("default/e", Spec::ServiceEntry(entry))
        };
        let check = |resolution: Resolution, endpoints: Vec<WorkloadEntry>, expected: &str| {
            let resources = vec![entry(resolution, endpoints, &["http:80", "tls:443:8443"])];
            assert_eq!(members(resources, "api.example"), expected, "{resolution:?}");
        };
        let named = || {
            let mut entry = written(Address::Host("one.example".into()));
            entry.ports = [("tls".into(), 9443)].into_iter().collect();
            vec![entry]
        };
        check(Resolution::Dns, vec![], "api.example>80-80,443-8443:healthy");
        check(Resolution::DnsRoundRobin, vec![], "api.example>80-80,443-8443:healthy");
        check(Resolution::Dns, named(), "one.example>80-80,443-9443:healthy");
        check(Resolution::None, vec![], "");
        check(Resolution::Static, vec![], "");
        check(Resolution::DynamicDns, vec![], "");
        check(
            Resolution::Static,
            vec![written(Address::Unix("/run/x".into()))],
            "/run/x>80-80,443-8443:healthy",
        );
    }

    #[test]
    fn addresses_that_are_written_down_are_those_of_a_service_without_selector() {
        let address = |ip: &str, ready: bool| StaticAddress {
            ip: ip.parse().unwrap(),
            ready,
            zone: Some("z1".into()),
            node: None,
        };
        let endpoints = |id: &str, of: &str, ports: &[(&str, u16)]| {
            let subset = StaticSubset {
                addresses: vec![address("10.0.0.1", true), address("10.0.0.2", false)],
                ports: ports.iter().map(|(name, port)| ((*name).into(), *port)).collect(),
            };
            let endpoints = StaticEndpoints { service: of.into(), subsets: vec![subset] };
            declare(id, Spec::Endpoints(endpoints))
        };
        let without = |ports: &[&str]| {
            let ports = ports.iter().map(|text| port(text)).collect();
            declare("default/a", Spec::Service(Service { ports, ..Service::default() }))
        };
        let check = |resources: Vec<Arc<Resource>>, expected: &str| {
            assert_eq!(members(resources, "a.default.svc.cluster.local"), expected);
        };
        let two = || endpoints("default/a", "a", &[("http", 8080), ("tcp", 9000)]);
        let both = "10.0.0.1>80-8080,81-9000:healthy 10.0.0.2>80-8080,81-9000:unhealthy";
        check(vec![without(&["http:80", "tcp:81"]), two()], both);
        check(
            vec![without(&["http:80", "other:82"]), two()],
            "10.0.0.1>80-8080:healthy 10.0.0.2>80-8080:unhealthy",
        );
        check(
            vec![without(&["http:80"]), endpoints("default/a", "a", &[("", 8080)])],
            "10.0.0.1>80-8080:healthy 10.0.0.2>80-8080:unhealthy",
        );
        check(vec![without(&["http:80"]), endpoints("prod/a", "a", &[("http", 8080)])], "");
        check(vec![without(&["http:80"]), endpoints("default/b", "b", &[("http", 8080)])], "");
        check(vec![service("default/a", &["http:80"], "app=a"), two()], "");
    }
}
