//! What enters: through a gateway, and into a workload.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue};
use mesh_core::decide::gateway::{Entered, Entering, enter};
use mesh_core::decide::inbound::{Inbound, admit};
use mesh_core::decide::witness::Silent;
use mesh_core::matching::path::PathMatch;
use mesh_core::matching::request::Request;
use mesh_core::matching::text::TextMatch;
use mesh_core::policy::authorization::{
    AuthorizationPolicy, AuthorizationRule, Operation, PolicyAction, Source, Values,
};
use mesh_core::policy::mtls::{MtlsMode, MtlsPolicy};
use mesh_core::snapshot::gateway::{Gateway, GatewayListener, GatewayServer, GatewayTls, VirtualHost};
use mesh_core::snapshot::section::Section;
use mesh_core::snapshot::workload::{Recognition, Workload, WorkloadPort};
use mesh_core::vocab::identity::SpiffeId;
use mesh_core::vocab::label::Labels;
use mesh_core::vocab::locality::Locality;
use mesh_core::vocab::name::{Text, WorkloadKey};
use mesh_core::vocab::protocol::Protocol;

use super::Run;
use super::mesh::{HOST, PORT, named, routes, rule, tables};

/// What enters a gateway finds the virtual host of its name.
pub(crate) fn virtual_host(size: usize) -> Run {
    let host =
        |number| VirtualHost { routes: routes(&named(number), vec![rule(vec![])]), https_redirect: false };
    let server = GatewayServer {
        origin: "gateway/default/entry".into(),
        index: 0,
        protocol: Protocol::Http,
        tls: GatewayTls::None,
        https_redirect: false,
        hosts: vec!["*".into()],
        credentials: vec![],
        virtual_hosts: vec![],
        streams: routes("*", vec![]),
    };
    let listener = GatewayListener {
        port: PORT,
        servers: vec![server],
        virtual_hosts: (0..size).map(host).collect(),
        dropped: vec![],
    };
    let tables = tables(vec![Section::Gateway(Gateway {
        namespace: "default".into(),
        name: "entry".into(),
        workload: None,
        workload_namespace: "default".into(),
        labels: Labels::default(),
        identity: None,
        selector: Labels::default(),
        view: "default".into(),
        trusted_proxies: 0,
        policies: vec![],
        tokens: vec![],
        listeners: vec![listener],
    })]);
    let (authority, headers) = (named(size - 1), HeaderMap::new());
    Box::new(move || {
        let request = Request {
            method: "GET",
            scheme: "http",
            authority: &authority,
            path: "/orders/17",
            query: None,
            headers: &headers,
            claims: None,
        };
        let facts =
            Entering { port: PORT, tls: false, sni: None, request: Some(request), source: None, now: 0 };
        let gateway = tables.gateway("default", "entry").expect("the gateway of this bench");
        let entered = enter(&tables, gateway, black_box(&facts), &mut Silent);
        assert!(matches!(entered, Ok(Entered::Host(_))), "the virtual host is found");
        drop(black_box(entered));
    })
}

/// An identity.
pub(super) fn account(name: &str) -> SpiffeId {
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

/// A workload under policies of the namespace `default`.
pub(super) fn workload(address: Ipv4Addr, policies: Vec<Text>) -> Section {
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
        policies: policies.into_iter().map(|name| ("default".into(), name)).collect(),
        tokens: vec![],
        limits: vec![],
        view: None,
        recognition: Recognition::default(),
        probe: None,
        telemetry: Default::default(),
    })
}

/// A request over mutual TLS under a policy whose last rule lets it in.
pub(crate) fn inbound(size: usize) -> Run {
    let address = Ipv4Addr::new(10, 0, 0, 2);
    let tables = tables(vec![workload(address, vec!["callers".into()]), policy(size)]);
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
            shown: None,
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
