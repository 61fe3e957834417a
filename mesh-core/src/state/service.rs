//! A service as the mesh knows it: what all declarations of its host amount to.

use std::collections::{BTreeMap, BTreeSet};
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
    /// Whether a client keeps its endpoint where no rule says how endpoints are chosen.
    pub client_affinity: bool,
    /// Whether callers reach the endpoints of their own host only.
    pub node_local: bool,
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
            client_affinity: service.client_affinity,
            node_local: service.node_local,
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
            client_affinity: false,
            node_local: false,
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
        let names = self.leading_through(host);
        let leading = names.iter().filter(|alias| self.concrete_host(alias).as_ref() == Some(host));
        leading.filter_map(|alias| self.service(alias)).cloned().collect()
    }

    /// The names that lead to a host, and through it to another if it is itself a name for one.
    pub(super) fn leading_through(&self, host: &Text) -> BTreeSet<Text> {
        let mut found: BTreeSet<Text> = BTreeSet::new();
        let mut reached = vec![host.clone()];
        while let Some(target) = reached.pop() {
            for alias in self.index.aliases.get(&target).into_iter().flatten() {
                if alias != host && found.insert(alias.clone()) {
                    reached.push(alias.clone());
                }
            }
        }
        found
    }

    /// The hosts that carry the name of a service besides itself, as it is before or after a change: the one that
    /// it leads to, and the one that it led to if it was another name.
    pub(super) fn aliased_to(&self, service: &KnownService) -> impl Iterator<Item = Text> {
        let target = service.alias.as_ref().and_then(|target| self.concrete_host(target));
        target.into_iter().chain(self.concrete_host(&service.host))
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
    use crate::resource::reach::Export;
    use crate::state::Change;
    use crate::state::sample::{declare, joined, labels, mesh, node, port, service, service_entry, workload};

    /// A ServiceEntry of host `ext`, changed by what follows.
    fn entry(id: &str, ports: &[&str], change: impl FnOnce(&mut ServiceEntry)) -> Arc<Resource> {
        let mut entry = service_entry("ext", ports, vec![workload("10.0.0.1", "app=x")]);
        entry.resolution = Resolution::Static;
        change(&mut entry);
        declare(id, Spec::ServiceEntry(entry))
    }

    /// `namespace/name ports: members` of a host.
    fn known(resources: Vec<Arc<Resource>>, host: &str) -> String {
        let state = mesh(resources);
        let Some(service) = state.service(host) else { return "none".to_owned() };
        let ports: Vec<_> = service.ports.iter().map(|port| port.number.to_string()).collect();
        let members: Vec<_> =
            state.members(service).iter().map(|member| member.workload.key.name.to_string()).collect();
        let key = &service.source().meta.key;
        format!("{}/{} {}: {}", key.namespace, key.name, ports.join(","), members.join(" "))
    }

    #[test]
    fn one_declaration_of_a_host_decides_and_those_like_it_in_its_namespace_add_ports() {
        let old = || entry("default/old@1", &["http:80"], |_| {});
        let young = |change: fn(&mut ServiceEntry)| entry("default/young@2", &["http:80", "tcp:81"], change);
        let elsewhere = || entry("prod/elsewhere@0", &["http:90"], |_| {});
        let check = |resources, expected: &str| assert_eq!(known(resources, "ext"), expected);
        check(vec![old()], "default/old 80: old-0");
        check(vec![young(|_| {}), old()], "default/old 80,81: old-0 young-0");
        check(
            vec![young(|entry| entry.location = Location::Internal), old()],
            "default/old 80,81: old-0 young-0",
        );
        // What differs in one of these adds endpoints alone.
        check(
            vec![young(|entry| entry.resolution = Resolution::Dns), old()],
            "default/old 80: old-0 young-0",
        );
        check(
            vec![young(|entry| entry.workload_selector = Some(labels("app=y"))), old()],
            "default/old 80: old-0 young-0",
        );
        check(
            vec![young(|entry| entry.export_to.entries = vec![Export::Own]), old()],
            "default/old 80: old-0 young-0",
        );
        let labelled = |resource: Arc<Resource>| {
            let mut resource = Resource::clone(&resource);
            resource.meta.labels = labels("a=b");
            Arc::new(resource)
        };
        check(vec![labelled(young(|_| {})), old()], "default/old 80: old-0 young-0");
        // Nothing is merged across namespaces.
        check(vec![old(), elsewhere()], "prod/elsewhere 90: elsewhere-0");
    }

    #[test]
    fn a_service_beats_every_entry_and_those_of_its_namespace_decorate_it() {
        let host = "a.default.svc.cluster.local";
        let names = |id: &str, name: &str| {
            entry(id, &["http:90"], |entry| {
                entry.hosts = vec![host.into()];
                entry.subject_alt_names = vec![name.into()];
            })
        };
        let resources = || {
            vec![
                names("default/se", "own"),
                names("prod/se", "foreign"),
                service("default/a@9", &["http:80"], ""),
            ]
        };
        assert_eq!(known(resources(), host), "default/a 80: ");
        let state = mesh(resources());
        assert_eq!(state.service(host).unwrap().subject_alt_names, [Text::from("own")]);
    }

    #[test]
    fn the_mesh_gives_an_address_to_names_that_stand_for_one_thing() {
        let check = |change: fn(&mut ServiceEntry), expected: bool| {
            let state = mesh(vec![entry("default/e", &["http:80"], change)]);
            let service = state.services().next().unwrap();
            assert_eq!(service.auto_address, expected, "{:?}", service.source().spec);
        };
        check(|_| {}, true);
        check(|entry| entry.resolution = Resolution::Dns, true);
        check(|entry| entry.resolution = Resolution::None, false);
        check(|entry| entry.addresses = vec!["10.0.0.9".parse().unwrap()], false);
        check(|entry| entry.networks = vec!["10.0.0.0/24".parse().unwrap()], false);
        check(|entry| entry.without_auto_address = true, false);
        check(
            |entry| {
                entry.hosts = vec!["*.ext".into()];
                entry.resolution = Resolution::DynamicDns;
            },
            false,
        );
        let state = mesh(vec![service("default/a", &["http:80"], "app=a")]);
        assert!(!state.services().next().unwrap().auto_address);
    }

    #[test]
    fn aliases_lead_to_a_service_and_never_in_a_circle() {
        let alias = |id: &str, target: &str| {
            let form = ServiceForm::ExternalName(target.into());
            declare(id, Spec::Service(Service { form, ports: vec![port("http:80")], ..Service::default() }))
        };
        let host = |name: &str| Text::from(format!("{name}.default.svc.cluster.local"));
        let state = mesh(vec![
            service("default/a", &["http:80"], "app=a"),
            alias("default/b", "A.default.svc.cluster.local"),
            alias("default/c", "b.default.svc.cluster.local"),
            alias("default/d", "d.default.svc.cluster.local"),
            alias("default/e", "example.com"),
        ]);
        let check = |name: &str, expected: Option<Text>| {
            assert_eq!(state.concrete_host(&host(name)), expected, "{name}");
        };
        check("a", Some(host("a")));
        check("b", Some(host("a")));
        check("c", Some(host("a")));
        check("d", None);
        check("e", Some("example.com".into()));
        let aliases: Vec<_> = state.aliases_of(&host("a")).iter().map(|alias| alias.host.clone()).collect();
        assert_eq!(aliases, [host("b"), host("c")]);
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
