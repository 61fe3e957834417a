//! Meshes made by hand, and decisions in them.

use std::hint::black_box;

use http::HeaderMap;
use mesh_core::decide::facts::OutboundRequest;
use mesh_core::decide::request::outbound;
use mesh_core::decide::witness::Silent;
use mesh_core::matching::request::{Caller, Request, RequestMatch};
use mesh_core::resilience::retry::RetryPolicy;
use mesh_core::routing::rule::HttpRule;
use mesh_core::snapshot::destination::Destination;
use mesh_core::snapshot::routes::Routes;
use mesh_core::snapshot::section::Section;
use mesh_core::snapshot::service::{Port, Service};
use mesh_core::snapshot::{Entry, Snapshot, Version};
use mesh_core::tables::Tables;
use mesh_core::tables::build::build;
use mesh_core::vocab::label::Labels;
use mesh_core::vocab::name::{DestinationKey, ServicePort};
use mesh_core::vocab::origin::Origin;
use mesh_core::vocab::protocol::Protocol;
use mesh_core::vocab::random::Random;
use mesh_core::vocab::resolution::Resolution;

use super::Run;

pub(crate) const HOST: &str = "reviews.default.svc.cluster.local";
pub(crate) const PORT: u16 = 9080;

/// A request, as the proxy has it when it asks what becomes of it.
pub(crate) struct Asked {
    pub(crate) authority: String,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
}

fn origin(resource: &str) -> Origin {
    Origin { resource: resource.into(), rule: Some(0) }
}

/// A rule that leads to the one service.
pub(crate) fn rule(matches: Vec<RequestMatch>) -> HttpRule {
    let origin = origin("virtualservice/default/reviews");
    HttpRule { matches, ..HttpRule::default_route(&origin, HOST.into(), PORT, RetryPolicy::default()) }
}

fn list(host: &str, http: Vec<HttpRule>) -> Section {
    Section::Routes(routes(host, http))
}

pub(crate) fn routes(host: &str, http: Vec<HttpRule>) -> Routes {
    Routes {
        at: ServicePort { host: host.into(), port: PORT },
        scope: None,
        origin: Some("virtualservice/default/reviews".into()),
        http,
        tcp: vec![],
        tls: vec![],
        fallback: None,
    }
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
        stands_for: None,
        offset: None,
        external: false,
    })
}

fn destination() -> Section {
    let key = DestinationKey { host: HOST.into(), port: PORT, subset: None, scope: None };
    Section::Destination(Destination::plain(key, Protocol::Http))
}

pub(crate) fn tables(sections: Vec<Section>) -> Tables {
    let sections = sections.into_iter().map(|section| (section.key(), Entry::new(section))).collect();
    let snapshot = Snapshot { version: Version { number: 1, revision: 0 }, sections };
    build(&snapshot, None).expect("sections of this bench")
}

/// One service with rules.
pub(crate) fn ruled(rules: Vec<HttpRule>) -> Tables {
    tables(vec![service(HOST, Some("reviews"), "default"), destination(), list(HOST, rules)])
}

/// The whole decision, as the proxy asks for it; several requests take turns.
pub(crate) fn decide(tables: Tables, asked: Vec<Asked>) -> Run {
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

pub(crate) fn named(number: usize) -> String {
    format!("service-{number:05}.shop.svc.cluster.local")
}

/// Services by name, each with its rules.
fn services(size: usize) -> Vec<Section> {
    let hosts = (0..size).map(named);
    hosts.flat_map(|host| [service(&host, None, "shop"), list(&host, vec![rule(vec![])])]).collect()
}

pub(crate) fn full_name(size: usize) -> Run {
    of_hosts(services(size), named(size - 1))
}

pub(crate) fn unknown(size: usize) -> Run {
    of_hosts(services(size), named(size))
}

/// Services of one short name in as many namespaces.
pub(crate) fn short_name(size: usize) -> Run {
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

pub(crate) fn wildcard(size: usize) -> Run {
    let hosts = (0..size).map(|number| wild(number, size));
    let sections = hosts.flat_map(|host| [service(&host, None, "shop"), list(&host, vec![rule(vec![])])]);
    of_hosts(sections.collect(), wild(size - 1, size).replace('*', "www"))
}

pub(crate) fn unowned(size: usize) -> Run {
    let sections = (0..size).map(|number| list(&named(number), vec![rule(vec![])]));
    of_hosts(sections.collect(), named(size - 1))
}

pub(crate) fn unowned_wildcard(size: usize) -> Run {
    let sections = (0..size).map(|number| list(&wild(number, size), vec![rule(vec![])]));
    of_hosts(sections.collect(), wild(size - 1, size).replace('*', "www"))
}
