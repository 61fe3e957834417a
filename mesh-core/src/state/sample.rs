//! Small meshes for tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Change, MeshState, Registration, Settings};
use crate::matching::request::RequestMatch;
use crate::matching::text::TextMatch;
use crate::policy::mtls::MtlsMode;
use crate::resource::destination_rule::{DestinationRule, Subset, TrafficPolicy};
use crate::resource::security::PeerAuthentication;
use crate::resource::service::{Location, Port, Resolution, Service, ServiceEntry, TargetPort};
use crate::resource::virtual_service::{HttpAction, HttpMatch, HttpRoute, RouteDestination, VirtualService};
use crate::resource::workload::{Address, WorkloadEntry};
use crate::resource::{Metadata, Place, Resource, Spec};
use crate::vocab::health::{Health, HostStanding};
use crate::vocab::identity::TrustDomain;
use crate::vocab::label::Labels;
use crate::vocab::locality::Locality;
use crate::vocab::name::{Text, WorkloadKey};
use crate::vocab::origin::{Kind, ResourceKey};
use crate::vocab::protocol::Protocol;

/// `NAMESPACE/NAME`, created at `@N` if that follows.
pub(crate) fn declare(id: &str, spec: Spec) -> Arc<Resource> {
    let (id, created) = id.split_once('@').unwrap_or((id, "0"));
    let (namespace, name) = id.split_once('/').unwrap_or(("default", id));
    let kind = match &spec {
        Spec::Namespace => Kind::Namespace,
        Spec::ServiceAccount => Kind::ServiceAccount,
        Spec::Service(_) => Kind::Service,
        Spec::WorkloadEntry(_) => Kind::WorkloadEntry,
        Spec::ServiceEntry(_) => Kind::ServiceEntry,
        Spec::VirtualService(_) => Kind::VirtualService,
        Spec::DestinationRule(_) => Kind::DestinationRule,
        Spec::PeerAuthentication(_) => Kind::PeerAuthentication,
        Spec::AuthorizationPolicy(_) => Kind::AuthorizationPolicy,
        Spec::WorkloadGroup(_) => Kind::WorkloadGroup,
        Spec::Gateway(_) => Kind::Gateway,
        Spec::Sidecar(_) => Kind::Sidecar,
        Spec::ProxyConfig(_) => Kind::ProxyConfig,
        Spec::RequestAuthentication(_) => Kind::RequestAuthentication,
        Spec::Telemetry(_) => Kind::Telemetry,
        Spec::MeshConfig(_) => Kind::MeshConfig,
        Spec::Secret(_) => Kind::Secret,
        Spec::ConfigMap(_) => Kind::ConfigMap,
        Spec::Endpoints(_) => Kind::Endpoints,
        Spec::RateLimit(_) => Kind::RateLimit,
    };
    let meta = Metadata {
        key: ResourceKey { kind, namespace: namespace.into(), name: name.into() },
        labels: Labels::default(),
        annotations: BTreeMap::new(),
        created: created.parse().unwrap(),
        place: Place::default(),
    };
    Arc::new(Resource { meta, spec })
}

/// `app=a,version=v1`.
pub(crate) fn labels(text: &str) -> Labels {
    text.split(',').filter_map(|pair| pair.split_once('=')).collect()
}

/// `http:80` or `http:80:8080` or `http:80:named`, the protocol by name.
pub(crate) fn port(text: &str) -> Port {
    let mut parts = text.split(':');
    let name = parts.next().unwrap();
    let number = parts.next().unwrap().parse().unwrap();
    let target = match parts.next() {
        None => TargetPort::Same,
        Some(target) => target.parse().map_or_else(|_| TargetPort::Name(target.into()), TargetPort::Number),
    };
    Port { name: name.into(), number, protocol: Protocol::select(None, name, number), target }
}

fn ports(texts: &[&str]) -> Vec<Port> {
    texts.iter().map(|text| port(text)).collect()
}

pub(crate) fn service(id: &str, ports_: &[&str], selector: &str) -> Arc<Resource> {
    let service = Service { ports: ports(ports_), selector: Some(labels(selector)), ..Service::default() };
    declare(id, Spec::Service(service))
}

/// A workload with the account of its first label's value.
pub(crate) fn workload(address: &str, labels_: &str) -> WorkloadEntry {
    let labels = labels(labels_);
    let account = labels.iter().next().map(|(_, value)| value.clone());
    WorkloadEntry {
        address: Address::Ip(address.parse().unwrap()),
        network: None,
        ports: BTreeMap::new(),
        service_account: account,
        labels,
        locality: Locality::default(),
        weight: 1,
        recognition: Default::default(),
        probe: None,
    }
}

pub(crate) fn entry(id: &str, address: &str, labels: &str) -> Arc<Resource> {
    declare(id, Spec::WorkloadEntry(workload(address, labels)))
}

pub(crate) fn external(
    id: &str,
    host: &str,
    ports_: &[&str],
    endpoints: Vec<WorkloadEntry>,
) -> Arc<Resource> {
    declare(id, Spec::ServiceEntry(service_entry(host, ports_, endpoints)))
}

pub(crate) fn service_entry(host: &str, ports_: &[&str], endpoints: Vec<WorkloadEntry>) -> ServiceEntry {
    ServiceEntry {
        hosts: vec![host.into()],
        ports: ports(ports_),
        location: Location::External,
        resolution: Resolution::Static,
        endpoints,
        ..ServiceEntry::default()
    }
}

/// `HOST`, `HOST/SUBSET`, with `:PORT` and `*WEIGHT` after it.
pub(crate) fn destination(text: &str) -> RouteDestination {
    let (text, weight) = text.split_once('*').map_or((text, None), |(text, weight)| (text, Some(weight)));
    let (text, port) = text.split_once(':').map_or((text, None), |(text, port)| (text, Some(port)));
    let (host, subset) = text.split_once('/').map_or((text, None), |(host, subset)| (host, Some(subset)));
    RouteDestination {
        host: host.into(),
        subset: subset.map(Text::from),
        port: port.map(|port| port.parse().unwrap()),
        weight: weight.map(|weight| weight.parse().unwrap()),
        request_headers: Default::default(),
        response_headers: Default::default(),
        authority: None,
    }
}

/// A rule for a path prefix (`None` for all) on a port (`None` for all).
pub(crate) fn http_route(prefix: Option<&str>, port: Option<u16>, destinations: &[&str]) -> HttpRoute {
    let request = RequestMatch {
        uri: prefix.map(|prefix| TextMatch::Prefix(prefix.into())),
        ..RequestMatch::default()
    };
    let matches =
        (prefix.is_some() || port.is_some()).then_some(HttpMatch { request, port, gateways: Vec::new() });
    HttpRoute {
        name: None,
        matches: matches.into_iter().collect(),
        action: HttpAction::Route {
            destinations: destinations.iter().map(|text| destination(text)).collect(),
            rewrite: Default::default(),
        },
        timeout: None,
        retry: None,
        hedge: None,
        fault: None,
        mirrors: Vec::new(),
        cors: None,
        request_headers: Default::default(),
        response_headers: Default::default(),
    }
}

pub(crate) fn virtual_service(id: &str, hosts: &[&str], http: Vec<HttpRoute>) -> Arc<Resource> {
    let hosts = hosts.iter().map(|host| Text::from(*host)).collect();
    declare(id, Spec::VirtualService(VirtualService { hosts, http, ..VirtualService::default() }))
}

/// Subsets by name, each selecting the label `version` of that value.
pub(crate) fn destination_rule(
    id: &str,
    host: &str,
    subsets: &[&str],
    policy: Option<TrafficPolicy>,
) -> Arc<Resource> {
    let subset = |name: &&str| Subset {
        name: (*name).into(),
        labels: labels(&format!("version={name}")),
        policy: None,
    };
    let subsets = subsets.iter().map(subset).collect();
    let rule = DestinationRule { host: host.into(), policy, subsets, ..DestinationRule::default() };
    declare(id, Spec::DestinationRule(Box::new(rule)))
}

pub(crate) fn peer_authentication(
    id: &str,
    selector: Option<&str>,
    mode: Option<MtlsMode>,
    ports: &[(u16, Option<MtlsMode>)],
) -> Arc<Resource> {
    let selector = selector.map(labels);
    declare(id, Spec::PeerAuthentication(PeerAuthentication { selector, mode, ports: ports.to_vec() }))
}

pub(crate) fn node(name: &str, address: &str, workloads: Vec<Arc<Resource>>) -> Registration {
    let address = address.parse().unwrap();
    let healthy = |resource: &Arc<Resource>| {
        let key = &resource.meta.key;
        let key = WorkloadKey { namespace: key.namespace.clone(), name: key.name.clone() };
        (key, (Health::Healthy, Text::from("")))
    };
    Registration {
        node: name.into(),
        address,
        inbound: (address, 15008).into(),
        health: workloads.iter().map(healthy).collect(),
        workloads,
        services: Vec::new(),
        standing: HostStanding::Serves,
    }
}

pub(crate) fn empty() -> MeshState {
    let trust_domain = TrustDomain::new("cluster.local").unwrap();
    MeshState::new(Settings { trust_domain, root_namespace: "istio-system".into() })
}

pub(crate) fn mesh(resources: Vec<Arc<Resource>>) -> MeshState {
    empty().apply(Change { upserts: resources, ..Change::default() }).0
}

pub(crate) fn joined(state: &MeshState, registrations: Vec<Registration>) -> MeshState {
    let registrations = registrations.into_iter().map(|r| (r.node.clone(), Some(r))).collect();
    state.apply(Change { registrations, ..Change::default() }).0
}
