//! Meshes made by hand, and decisions in them.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue};
use mesh_core::decide::facts::OutboundRequest;
use mesh_core::decide::inbound::{Inbound, admit};
use mesh_core::decide::request::outbound;
use mesh_core::decide::witness::Silent;
use mesh_core::matching::path::PathMatch;
use mesh_core::matching::request::{Caller, Request, RequestMatch};
use mesh_core::matching::text::TextMatch;
use mesh_core::policy::authorization::{
    AuthorizationPolicy, AuthorizationRule, Operation, PolicyAction, Source, Values,
};
use mesh_core::policy::mtls::{MtlsMode, MtlsPolicy};
use mesh_core::resilience::retry::RetryPolicy;
use mesh_core::routing::rule::HttpRule;
use mesh_core::snapshot::destination::Destination;
use mesh_core::snapshot::routes::Routes;
use mesh_core::snapshot::section::Section;
use mesh_core::snapshot::service::{Port, Service};
use mesh_core::snapshot::workload::{Recognition, Workload, WorkloadPort};
use mesh_core::snapshot::{Entry, Snapshot, Version};
use mesh_core::tables::Tables;
use mesh_core::tables::build::build;
use mesh_core::vocab::identity::SpiffeId;
use mesh_core::vocab::label::Labels;
use mesh_core::vocab::locality::Locality;
use mesh_core::vocab::name::{DestinationKey, ServicePort, WorkloadKey};
use mesh_core::vocab::origin::Origin;
use mesh_core::vocab::protocol::Protocol;
use mesh_core::vocab::random::Random;
use mesh_core::vocab::resolution::Resolution;

use super::Run;

pub const HOST: &str = "reviews.default.svc.cluster.local";
const PORT: u16 = 9080;

/// A request, as the proxy has it when it asks what becomes of it.
pub struct Asked {
    pub authority: String,
    pub path: String,
    pub headers: HeaderMap,
}

fn origin(resource: &str) -> Origin {
    Origin { resource: resource.into(), rule: Some(0) }
}

/// A rule that leads to the one service.
pub fn rule(matches: Vec<RequestMatch>) -> HttpRule {
    let origin = origin("virtualservice/default/reviews");
    HttpRule { matches, ..HttpRule::default_route(&origin, HOST.into(), PORT, RetryPolicy::default()) }
}

fn list(host: &str, http: Vec<HttpRule>) -> Section {
    Section::Routes(Routes {
        at: ServicePort { host: host.into(), port: PORT },
        scope: None,
        origin: Some("virtualservice/default/reviews".into()),
        http,
        tcp: vec![],
        tls: vec![],
        fallback: None,
    })
}

fn service(host: &str, short_name: Option<&str>, namespace: &str) -> Section {
    Section::Service(Service {
        host: host.into(),
        scope: None,
        exported_to: None,
        namespace: namespace.into(),
        origin: origin("service/default/reviews"),
        names: vec![],
        short_name: short_name.map(Into::into),
        aliases: vec![],
        ports: vec![Port { number: PORT, name: "http".into(), protocol: Protocol::Http }],
        addresses: vec![],
        networks: vec![],
        auto_address: None,
        resolution: Resolution::Static,
        headless: false,
        offset: None,
        external: false,
    })
}

fn destination() -> Section {
    let key = DestinationKey { host: HOST.into(), port: PORT, subset: None, scope: None };
    Section::Destination(Destination::plain(key, Protocol::Http))
}

fn tables(sections: Vec<Section>) -> Tables {
    let sections = sections.into_iter().map(|section| (section.key(), Entry::new(section))).collect();
    let snapshot = Snapshot { version: Version { number: 1, revision: 0 }, sections };
    build(&snapshot, None).expect("sections of this bench")
}

/// One service with rules.
pub fn ruled(rules: Vec<HttpRule>) -> Tables {
    tables(vec![service(HOST, Some("reviews"), "default"), destination(), list(HOST, rules)])
}

/// The whole decision, as the proxy asks for it; several requests take turns.
pub fn decide(tables: Tables, asked: Vec<Asked>) -> Run {
    let labels = Labels::default();
    let mut random = Random::seeded(1);
    let mut turn = 0;
    Box::new(move || {
        let one = &asked[turn];
        turn = if turn + 1 < asked.len() { turn + 1 } else { 0 };
        let request = Request {
            method: "GET",
            scheme: "http",
            authority: &one.authority,
            path: &one.path,
            query: None,
            headers: &one.headers,
            claims: None,
        };
        let caller = Some(Caller { namespace: "default", labels: &labels, view: None });
        let facts =
            OutboundRequest { request, port: PORT, owner: None, listener: None, caller, source: None };
        drop(black_box(outbound(&tables, black_box(&facts), &mut random, &mut Silent)));
    })
}

fn of_hosts(mut sections: Vec<Section>, authority: String) -> Run {
    sections.push(destination());
    decide(tables(sections), vec![Asked { authority, path: "/".into(), headers: HeaderMap::new() }])
}

fn named(number: usize) -> String {
    format!("service-{number:05}.shop.svc.cluster.local")
}

/// Services by name, each with its rules.
fn services(size: usize) -> Vec<Section> {
    let hosts = (0..size).map(named);
    hosts.flat_map(|host| [service(&host, None, "shop"), list(&host, vec![rule(vec![])])]).collect()
}

pub fn full_name(size: usize) -> Run {
    of_hosts(services(size), named(size - 1))
}

pub fn unknown(size: usize) -> Run {
    of_hosts(services(size), named(size))
}

/// Services of one short name in as many namespaces.
pub fn short_name(size: usize) -> Run {
    let namespace =
        |number: usize| if number + 1 == size { "default".to_owned() } else { format!("team-{number}") };
    let sections = (0..size).flat_map(|number| {
        let host = format!("web.{}.svc.cluster.local", namespace(number));
        [service(&host, Some("web"), &namespace(number)), list(&host, vec![rule(vec![])])]
    });
    of_hosts(sections.collect(), "web".into())
}

/// Suffixes of many lengths.
fn wild(number: usize, size: usize) -> String {
    format!("*.{}zone-{number:05}.example", "x".repeat((size - 1 - number) % 40))
}

pub fn wildcard(size: usize) -> Run {
    let hosts = (0..size).map(|number| wild(number, size));
    let sections = hosts.flat_map(|host| [service(&host, None, "shop"), list(&host, vec![rule(vec![])])]);
    of_hosts(sections.collect(), wild(size - 1, size).replace('*', "www"))
}

pub fn unowned(size: usize) -> Run {
    let sections = (0..size).map(|number| list(&named(number), vec![rule(vec![])]));
    of_hosts(sections.collect(), named(size - 1))
}

pub fn unowned_wildcard(size: usize) -> Run {
    let sections = (0..size).map(|number| list(&wild(number, size), vec![rule(vec![])]));
    of_hosts(sections.collect(), wild(size - 1, size).replace('*', "www"))
}

fn account(name: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://cluster.local/ns/default/sa/{name}"))
        .expect("an identity of this bench")
}

fn policy(size: usize) -> Section {
    let rules = (0..size).map(|number| {
        let who = TextMatch::Exact(format!("cluster.local/ns/default/sa/caller-{number}").into());
        let paths = Values { any: vec![PathMatch::Text(TextMatch::Prefix("/orders/".into()))], none: vec![] };
        AuthorizationRule {
            from: vec![Source { principals: Values { any: vec![who], none: vec![] }, ..Source::default() }],
            to: vec![Operation { paths, ..Operation::default() }],
            when: vec![],
        }
    });
    Section::Authorization(AuthorizationPolicy {
        namespace: "default".into(),
        name: "callers".into(),
        action: PolicyAction::Allow,
        provider: None,
        dry_run: false,
        rules: rules.collect(),
    })
}

fn workload(address: Ipv4Addr) -> Section {
    let port = WorkloadPort {
        number: PORT,
        protocol: Protocol::Http,
        service: HOST.into(),
        endpoint: None,
        pool: Default::default(),
    };
    Section::Workload(Workload {
        key: WorkloadKey { namespace: "default".into(), name: "reviews".into() },
        address: IpAddr::from(address),
        identity: Some(account("reviews")),
        labels: Labels::default(),
        node: "h1".into(),
        locality: Locality::default(),
        network: None,
        ports: vec![port],
        mtls: MtlsPolicy { default: MtlsMode::Strict, ..MtlsPolicy::default() },
        policies: vec![("default".into(), "callers".into())],
        tokens: vec![],
        view: None,
        recognition: Recognition::default(),
        probe: None,
    })
}

/// A request over mutual TLS under a policy whose last rule lets it in.
pub fn inbound(size: usize) -> Run {
    let address = Ipv4Addr::new(10, 0, 0, 2);
    let tables = tables(vec![workload(address), policy(size)]);
    let peer = account(&format!("caller-{}", size - 1));
    let mut headers = HeaderMap::new();
    headers.insert(HeaderName::from_static("user-agent"), HeaderValue::from_static("bench"));
    Box::new(move || {
        let request = Request {
            method: "GET",
            scheme: "http",
            authority: HOST,
            path: "/orders/17",
            query: None,
            headers: &headers,
            claims: None,
        };
        let facts = Inbound {
            to: SocketAddr::from((address, PORT)),
            peer: Some(&peer),
            source: None,
            sni: None,
            request: Some(&request),
            now: 0,
        };
        let admitted = admit(&tables, black_box(&facts), &mut Silent);
        assert!(admitted.is_ok(), "the policy lets it in");
        drop(black_box(admitted));
    })
}
