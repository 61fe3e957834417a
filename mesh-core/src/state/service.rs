//! A service as the mesh knows it: what all declarations of its host amount to.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::MeshState;
use super::hosts::is_wildcard;
use crate::resource::reach::ExportTo;
use crate::resource::service::{
    Location, Port, Resolution, Service, ServiceEntry, ServiceForm, TrafficDistribution,
};
use crate::resource::{Resource, Spec};
use crate::vocab::name::Text;
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
    /// Declared networks.
    pub networks: Vec<IpNet>,
    /// Outside the mesh.
    pub external: bool,
    /// How endpoints are found.
    pub resolution: Resolution,
    /// Whether endpoints are addressed one by one (`clusterIP: None`).
    pub headless: bool,
    /// The host that it is another name for (ExternalName).
    pub alias: Option<Text>,
    /// Which endpoints come first.
    pub distribution: Option<TrafficDistribution>,
    /// Whether endpoints get traffic whatever their health.
    pub publish_not_ready: bool,
    /// Names that a server's certificate may have.
    pub subject_alt_names: Vec<Text>,
    /// Who sees it.
    pub export_to: ExportTo,
    /// Whether the mesh gives it an address: it has none of its own, a name that stands for it alone, endpoints
    /// that are found by it, and does not decline.
    pub auto_address: bool,
}

impl KnownService {
    /// What all that claims this host in a namespace amounts to, or in the namespace that comes first in doubt: that
    /// of a Service, else that of the oldest ServiceEntry. In one namespace a Service is decorated by ServiceEntries
    /// for its host, and ServiceEntries are pooled; nothing is merged across namespaces.
    pub(super) fn of(state: &MeshState, host: &Text, namespace: Option<&Text>) -> Option<KnownService> {
        let claims = state.index.claims.get(host)?;
        let claims = claims.iter().filter(|key| namespace.is_none_or(|wanted| key.namespace == *wanted));
        let mut sources: Vec<_> = claims.filter_map(|key| state.declared(key)).collect();
        sources.sort_by(|a, b| rank(a).cmp(&rank(b)));
        let first = sources.first()?.clone();
        sources.retain(|source| source.meta.key.namespace == first.meta.key.namespace);
        KnownService::of_namespace(host, &first, sources)
    }

    fn of_namespace(host: &Text, first: &Arc<Resource>, own: Vec<Arc<Resource>>) -> Option<KnownService> {
        if let Some(service) = service(first) {
            let decorations = own.iter().filter_map(|source| service_entry(source));
            let names = decorations.flat_map(|entry| entry.subject_alt_names.iter().cloned());
            return Some(KnownService::of_service(host, first, service, names.collect()));
        }
        service_entry(first).map(|oldest| KnownService::of_entries(host, oldest, own))
    }

    fn of_service(
        host: &Text,
        source: &Arc<Resource>,
        service: &Service,
        subject_alt_names: Vec<Text>,
    ) -> KnownService {
        let alias = match &service.form {
            ServiceForm::ExternalName(target) => Some(target.to_ascii_lowercase().into()),
            ServiceForm::Cluster | ServiceForm::Headless => None,
        };
        KnownService {
            host: host.clone(),
            namespace: source.meta.key.namespace.clone(),
            sources: vec![source.clone()],
            ports: merged_ports([service.ports.as_slice()].into_iter()),
            addresses: service.addresses.clone(),
            networks: Vec::new(),
            external: false,
            resolution: Resolution::Static,
            headless: service.form == ServiceForm::Headless,
            alias,
            distribution: service.distribution,
            publish_not_ready: service.publish_not_ready,
            subject_alt_names,
            export_to: service.export_to.clone(),
            auto_address: false,
        }
    }

    /// The oldest says what it is. Younger ones that are like it add ports; the endpoints of all are pooled.
    fn of_entries(host: &Text, oldest: &ServiceEntry, sources: Vec<Arc<Resource>>) -> KnownService {
        let first = &sources[0];
        let alike = |source: &&Arc<Resource>| {
            service_entry(source).is_some_and(|entry| {
                entry.resolution == oldest.resolution
                    && entry.workload_selector == oldest.workload_selector
                    && entry.export_to == oldest.export_to
                    && source.meta.labels == first.meta.labels
            })
        };
        let ports = sources.iter().filter(alike).filter_map(|source| service_entry(source));
        let ports = merged_ports(ports.map(|entry| entry.ports.as_slice()));
        let addressed = !oldest.addresses.is_empty() || !oldest.networks.is_empty();
        KnownService {
            host: host.clone(),
            namespace: first.meta.key.namespace.clone(),
            ports,
            addresses: oldest.addresses.clone(),
            networks: oldest.networks.clone(),
            external: oldest.location == Location::External,
            resolution: oldest.resolution,
            headless: false,
            alias: None,
            distribution: None,
            publish_not_ready: false,
            subject_alt_names: oldest.subject_alt_names.clone(),
            export_to: oldest.export_to.clone(),
            auto_address: !addressed
                && !is_wildcard(host)
                && oldest.resolution != Resolution::None
                && !oldest.without_auto_address,
            sources,
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

    /// Istio's precedence between services that reach the same port of a workload.
    pub fn rank(&self) -> impl Ord + '_ {
        rank(self.source())
    }
}

/// So many names may lead from an alias to a service; a longer chain, or a circle, leads nowhere.
const LONGEST_ALIAS: usize = 8;

impl MeshState {
    /// The host that a host stands for: itself, or for an ExternalName Service the host that it names. `None` where
    /// aliases lead in a circle.
    pub fn concrete_host(&self, host: &Text) -> Option<Text> {
        let mut host = host.clone();
        for _ in 0..LONGEST_ALIAS {
            match self.service(&host).and_then(|service| service.alias.clone()) {
                Some(target) => host = target,
                None => return Some(host),
            }
        }
        None
    }

    /// The ExternalName Services that are another name for a host, by host.
    pub fn aliases_of(&self, host: &Text) -> Vec<Arc<KnownService>> {
        let aliases = self.index.aliases.iter();
        let leading =
            aliases.filter(|alias| *alias != host && self.concrete_host(alias).as_ref() == Some(host));
        leading.filter_map(|alias| self.service(alias)).cloned().collect()
    }

    /// The hosts that carry the name of a service besides itself, as it is before or after a change: the one that
    /// it leads to, and every alias that may lead through it.
    pub(super) fn aliased_to(&self, service: &KnownService) -> Vec<Text> {
        let target = service.alias.as_ref().and_then(|target| self.concrete_host(target));
        let concrete = self.concrete_host(&service.host);
        let chained = self.index.aliases.iter().filter(|alias| {
            self.service(alias).and_then(|alias| alias.alias.as_ref()) == Some(&service.host)
        });
        target.into_iter().chain(concrete).chain(chained.cloned()).collect()
    }
}

/// The content, if it is a Service.
pub(super) fn service(resource: &Resource) -> Option<&Service> {
    match &resource.spec {
        Spec::Service(service) => Some(service),
        _ => None,
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
