//! A service as the mesh knows it, and the workloads that it reaches.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::MeshState;
use super::workload::{KnownWorkload, inline_key};
use crate::resource::service::{Location, Port, ServiceEntry, TargetPort};
use crate::resource::workload::WorkloadEntry;
use crate::resource::{Resource, Spec};
use crate::vocab::label::Labels;
use crate::vocab::name::{Text, WorkloadKey};
use crate::vocab::origin::Kind;
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

/// A workload as an endpoint of a service.
#[derive(Debug, Clone)]
pub struct Member {
    /// The workload.
    pub workload: Arc<KnownWorkload>,
    /// Port of the service and port of the workload, by the former.
    pub ports: Vec<(u16, u16)>,
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
            | Spec::AuthorizationPolicy(_)
            | Spec::WorkloadGroup(_)
            | Spec::Gateway(_)
            | Spec::Sidecar(_)
            | Spec::ProxyConfig(_)
            | Spec::RequestAuthentication(_)
            | Spec::Telemetry(_)
            | Spec::MeshConfig(_)
            | Spec::Secret(_)
            | Spec::ConfigMap(_)
            | Spec::Endpoints(_) => None,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::service::TargetPort::{Name, Number, Same};
    use crate::state::Change;
    use crate::state::sample::{
        self, declare, entry, joined, mesh, node, port, service, service_entry, workload,
    };

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

    /// `kind/name ports: member>ports ...` of a host.
    fn known(resources: Vec<Arc<Resource>>, host: &str) -> String {
        let state = mesh(resources);
        let Some(service) = state.service(host) else { return "none".to_owned() };
        let ports: Vec<_> = service.ports.iter().map(|port| port.number.to_string()).collect();
        let members: Vec<_> = state
            .members(service)
            .iter()
            .map(|member| {
                let ports: Vec<_> = member.ports.iter().map(|(own, to)| format!("{own}-{to}")).collect();
                format!("{}>{}", member.workload.key.name, ports.join(","))
            })
            .collect();
        let key = &service.source().meta.key;
        format!("{}/{} {}: {}", key.namespace, key.name, ports.join(","), members.join(" "))
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
        assert_eq!(known(resources("app=a"), host), "default/a 80: w1>80-8080");
        assert_eq!(known(resources("app=a,version=v2"), host), "default/a 80: ");
        assert_eq!(known(resources(""), host), "default/a 80: ");
    }

    #[test]
    fn one_declaration_of_a_host_decides_and_endpoints_of_its_namespace_are_pooled() {
        let entry = |id: &str, host: &str, ports: &[&str], selector: Option<&str>| {
            let mut entry = service_entry(host, ports, vec![workload("10.0.0.1", "app=x")]);
            entry.workload_selector = selector.map(sample::labels);
            declare(id, Spec::ServiceEntry(entry))
        };
        let old = || entry("default/old@1", "ext", &["http:80"], None);
        let young = || entry("default/young@2", "ext", &["http:80", "tcp:81"], None);
        let unlike = || entry("default/unlike@3", "ext", &["http:80", "tcp:82"], Some("app=y"));
        let elsewhere = || entry("prod/elsewhere@0", "ext", &["http:90"], None);
        let check = |resources, expected: &str| assert_eq!(known(resources, "ext"), expected);
        check(vec![old()], "default/old 80: old-0>80-80");
        check(vec![young(), old()], "default/old 80,81: old-0>80-80 young-0>80-80,81-81");
        check(vec![old(), unlike()], "default/old 80: old-0>80-80 unlike-0>80-80");
        check(vec![old(), elsewhere()], "prod/elsewhere 90: elsewhere-0>90-90");
        let host = "a.default.svc.cluster.local";
        let both =
            vec![entry("default/se", host, &["http:90"], None), service("default/a@9", &["http:80"], "")];
        assert_eq!(known(both, host), "default/a 80: ");
    }

    #[test]
    fn the_operator_s_service_beats_the_short_form_whose_ports_are_joined() {
        let with = |name: &str, ports: &[&str]| {
            let mut node = node(name, "10.0.0.1", vec![]);
            node.services = vec![service("default/a", ports, "app=a")];
            node
        };
        let ports = |state: &MeshState| {
            let service = state.service("a.default.svc.cluster.local");
            service.map(|service| service.ports.iter().map(|port| port.number).collect::<Vec<_>>())
        };
        let short = joined(&mesh(vec![]), vec![with("h1", &["http:80"]), with("h2", &["http:80", "tcp:81"])]);
        assert_eq!(ports(&short), Some(vec![80, 81]));
        let declared =
            Change { upserts: vec![service("default/a", &["http:90"], "app=a")], ..Change::default() };
        let (declared, _) = short.apply(declared);
        assert_eq!(ports(&declared), Some(vec![90]));
        let removals = vec![declared.services().next().unwrap().source().meta.key.clone()];
        let (short, _) = declared.apply(Change { removals, ..Change::default() });
        assert_eq!(ports(&short), Some(vec![80, 81]));
        let left = vec![("h1".into(), None), ("h2".into(), None)];
        let (gone, _) = short.apply(Change { registrations: left, ..Change::default() });
        assert_eq!(ports(&gone), None);
    }
}
