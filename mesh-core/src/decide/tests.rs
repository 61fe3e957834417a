//! Decisions over tables built from sections by hand.

use http::{HeaderMap, HeaderName};

use super::explain::{Question, explain};
use super::facts::OutboundRequest;
use super::inbound::{Inbound, admit};
use super::plan::{Action, Plan};
use super::refusal::{Reason, Refusal};
use super::request::outbound;
use super::witness::Silent;
use crate::matching::request::{Caller, Request, RequestMatch};
use crate::matching::text::TextMatch;
use crate::policy::authorization::{AuthorizationPolicy, AuthorizationRule, PolicyAction, Source, Values};
use crate::policy::mtls::{MtlsMode, MtlsPolicy};
use crate::resilience::retry::RetryPolicy;
use crate::routing::rewrite::Rewrite;
use crate::routing::rule::{Backend, HttpRule, RuleAction, TcpRule};
use crate::snapshot::destination::Destination;
use crate::snapshot::endpoints::{Endpoint, EndpointAddress, EndpointSlice};
use crate::snapshot::routes::Routes;
use crate::snapshot::section::Section;
use crate::snapshot::service::{Port, Service};
use crate::snapshot::workload::{Recognition, Workload, WorkloadPort};
use crate::snapshot::{Entry, Snapshot, Version};
use crate::tables::Tables;
use crate::tables::build::build;
use crate::vocab::health::Health;
use crate::vocab::identity::SpiffeId;
use crate::vocab::label::Labels;
use crate::vocab::locality::Locality;
use crate::vocab::name::{DestinationKey, ServicePort, WorkloadKey};
use crate::vocab::origin::Origin;
use crate::vocab::protocol::Protocol;
use crate::vocab::random::Random;
use crate::vocab::resolution::Resolution;

mod agreement;
mod captured;
mod policies;
mod routing;
mod streams;

const HOST: &str = "reviews.default.svc.cluster.local";

fn id(account: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://cluster.local/ns/default/sa/{account}")).unwrap()
}

fn key(subset: Option<&str>, scope: Option<&str>) -> DestinationKey {
    DestinationKey {
        host: HOST.into(),
        port: 9080,
        subset: subset.map(Into::into),
        scope: scope.map(Into::into),
    }
}

fn service() -> Section {
    let port = |number, name: &str, protocol| Port { number, name: name.into(), protocol };
    Section::Service(Service {
        host: HOST.into(),
        scope: None,
        exported_to: None,
        namespace: "default".into(),
        origin: Origin { resource: "service/default/reviews".into(), rule: None },
        names: vec!["reviews.default".into(), "reviews.default.svc".into(), "reviews.default.mesh".into()],
        short_name: Some("reviews".into()),
        aliases: vec![],
        ports: vec![
            port(9080, "http", Protocol::Http),
            port(9090, "tcp", Protocol::Tcp),
            port(9443, "tls", Protocol::Tls),
        ],
        addresses: vec![],
        networks: vec![],
        auto_address: None,
        resolution: Resolution::Static,
        headless: false,
        stands_for: None,
        offset: Some(3),
        external: false,
    })
}

fn destination(subset: Option<&str>, scope: Option<&str>) -> Section {
    let labels = subset.map(|version| [("version", version)].into_iter().collect()).unwrap_or_default();
    Section::Destination(Destination { labels, ..Destination::plain(key(subset, scope), Protocol::Http) })
}

fn endpoint(version: &str) -> Endpoint {
    Endpoint {
        workload: WorkloadKey { namespace: "default".into(), name: format!("reviews-{version}").into() },
        address: EndpointAddress::Ip("10.0.0.2".parse().unwrap()),
        node: Some("h2".into()),
        ports: vec![(9080, if version == "v1" { 9081 } else { 9082 })],
        labels: [("app", "reviews"), ("version", version)].into_iter().collect(),
        identity: Some(id("reviews")),
        tunnel: Some("10.0.0.2:15008".parse().unwrap()),
        plaintext_ports: vec![],
        locality: Locality::default(),
        network: None,
        weight: 1,
        health: Health::Healthy,
    }
}

fn backend(subset: &str, weight: u32) -> Backend {
    Backend { subset: Some(subset.into()), weight, ..Backend::whole(HOST.into(), 9080) }
}

fn rule(index: u32, matches: Vec<RequestMatch>, backends: Vec<Backend>) -> HttpRule {
    let origin = Origin { resource: "virtualservice/default/reviews".into(), rule: Some(index) };
    HttpRule {
        name: None,
        matches,
        action: RuleAction::Route { backends, rewrite: Rewrite::default() },
        ..HttpRule::default_route(&origin, HOST.into(), 9080, RetryPolicy::default())
    }
}

fn list(port: u16, http: Vec<HttpRule>) -> Routes {
    Routes {
        at: ServicePort { host: HOST.into(), port },
        scope: None,
        origin: Some("virtualservice/default/reviews".into()),
        http,
        tcp: vec![],
        tls: vec![],
        fallback: None,
    }
}

fn routes(http: Vec<HttpRule>) -> Section {
    Section::Routes(list(9080, http))
}

fn jason() -> RequestMatch {
    let header = (HeaderName::from_static("end-user"), TextMatch::Exact("jason".into()));
    RequestMatch { headers: vec![header], ..RequestMatch::default() }
}

fn policy(principal: &str) -> AuthorizationPolicy {
    let principals = Values { any: vec![TextMatch::policy(principal)], none: vec![] };
    AuthorizationPolicy {
        namespace: "default".into(),
        name: "only-productpage".into(),
        action: PolicyAction::Allow,
        provider: None,
        dry_run: false,
        rules: vec![AuthorizationRule {
            from: vec![Source { principals, ..Source::default() }],
            to: vec![],
            when: vec![],
        }],
    }
}

fn workload(version: &str, policies: Vec<(&str, &str)>) -> Section {
    let endpoint = endpoint(version);
    Section::Workload(Workload {
        key: endpoint.workload.clone(),
        address: endpoint.address.ip().unwrap(),
        identity: endpoint.identity.clone(),
        labels: endpoint.labels.clone(),
        node: "h2".into(),
        locality: Locality::default(),
        network: None,
        ports: vec![WorkloadPort {
            number: endpoint.ports[0].1,
            protocol: Protocol::Http,
            service: HOST.into(),
            endpoint: None,
            pool: Default::default(),
        }],
        mtls: MtlsPolicy { default: MtlsMode::Strict, ..MtlsPolicy::default() },
        policies: policies.into_iter().map(|(namespace, name)| (namespace.into(), name.into())).collect(),
        tokens: vec![],
        limits: Vec::new(),
        view: None,
        recognition: Recognition::default(),
        probe: None,
        telemetry: Default::default(),
    })
}

fn tables_of(sections: Vec<Section>) -> Tables {
    let sections = sections.into_iter().map(|section| (section.key(), Entry::new(section))).collect();
    build(&Snapshot { version: Version { number: 7, revision: 0 }, sections }, None).unwrap()
}

fn mesh(more: Vec<Section>) -> Tables {
    let mut sections = vec![
        service(),
        destination(None, None),
        destination(Some("v1"), None),
        destination(Some("v2"), None),
        routes(vec![
            rule(0, vec![jason()], vec![backend("v2", 0)]),
            rule(1, vec![], vec![backend("v1", 90), backend("v2", 10)]),
        ]),
        Section::Endpoints(EndpointSlice {
            host: HOST.into(),
            scope: None,
            slice: 0,
            endpoints: vec![endpoint("v1"), endpoint("v2")],
        }),
    ];
    sections.extend(more);
    tables_of(sections)
}

fn ask(
    tables: &Tables,
    authority: &str,
    user: Option<&str>,
    namespace: &str,
    seed: u64,
) -> Result<Plan, Refusal> {
    let mut headers = HeaderMap::new();
    if let Some(user) = user {
        headers.insert("end-user", user.parse().unwrap());
    }
    let labels = Labels::default();
    let request = Request {
        method: "GET",
        scheme: "http",
        authority,
        path: "/",
        query: None,
        headers: &headers,
        claims: None,
    };
    let view = (namespace != "default").then_some(namespace);
    let caller = Some(Caller { namespace, labels: &labels, view });
    let facts = OutboundRequest { request, port: 9080, owner: None, listener: None, caller, source: None };
    outbound(tables, &facts, &mut Random::seeded(seed), &mut Silent)
}

fn subset(tables: &Tables, plan: &Plan) -> String {
    match &plan.action {
        Action::Forward(forward) => tables.destinations[forward.destination].policy.key.to_string(),
        other => format!("{other:?}"),
    }
}

#[test]
fn every_form_of_a_name_means_the_service() {
    let tables = mesh(vec![]);
    for name in [
        "reviews",
        "Reviews:9080",
        "reviews.default",
        "reviews.default.svc:1",
        "reviews.default.mesh",
        HOST,
        "reviews.default.svc.cluster.local.",
    ] {
        let plan = ask(&tables, name, Some("jason"), "default", 0).unwrap();
        assert_eq!(subset(&tables, &plan), format!("outbound|9080|v2|{HOST}"), "{name}");
    }
    assert!(ask(&tables, "reviews.default", None, "other", 0).is_ok());
    let refusal = ask(&tables, "reviews", None, "other", 0).unwrap_err();
    assert!(matches!(refusal.reason, Reason::UnknownHost));
}

#[test]
fn the_first_rule_that_matches_wins_and_weights_share_the_rest() {
    let tables = mesh(vec![]);
    let mut to_v1 = 0;
    for seed in 0..2_000 {
        let plan = ask(&tables, "reviews", None, "default", seed * 7_919).unwrap();
        assert_eq!(plan.rule, 1);
        to_v1 += usize::from(subset(&tables, &plan).contains("|v1|"));
    }
    assert!((1_740..1_860).contains(&to_v1), "{to_v1}");
}

#[test]
fn a_missing_subset_still_matches_and_is_503_nc() {
    let tables = mesh(vec![routes(vec![rule(0, vec![], vec![backend("v9", 100)])])]);
    let refusal = ask(&tables, "reviews", None, "default", 0).unwrap_err();
    assert_eq!((refusal.status(), refusal.flag()), (503, "NC"));
}

#[test]
fn no_rule_means_404_nr() {
    let tables = mesh(vec![routes(vec![rule(0, vec![jason()], vec![backend("v1", 1)])])]);
    let refusal = ask(&tables, "reviews", None, "default", 0).unwrap_err();
    assert_eq!((refusal.status(), refusal.flag()), (404, "NR"));
}

#[test]
fn a_rule_of_the_client_s_view_shapes_its_own_traffic_only() {
    let tables = mesh(vec![destination(Some("v2"), Some("shop"))]);
    let check = |namespace: &str, expected: Option<&str>| {
        let plan = ask(&tables, "reviews.default", Some("jason"), namespace, 0);
        assert_eq!(plan.ok().map(|plan| subset(&tables, &plan)), expected.map(str::to_owned), "{namespace}");
    };
    check("default", Some(&format!("outbound|9080|v2|{HOST}")));
    check("shop", Some(&format!("outbound|9080|v2|{HOST}@shop")));
    let everyone = |namespace| ask(&tables, "reviews.default", None, namespace, 0).is_ok();
    assert!(everyone("default"));
    // `shop` has a rule of its own for the host, which defines no v1.
    let refused =
        (0..100).filter(|seed| ask(&tables, "reviews.default", None, "shop", *seed).is_err()).count();
    assert!(refused > 50, "{refused}");
}

#[test]
fn admission_fails_closed() {
    let to = "10.0.0.2:9081".parse().unwrap();
    let peer = id("productpage");
    let other = id("ratings");
    let verdict = |tables: &Tables, peer: Option<&SpiffeId>| match admit(
        tables,
        &Inbound { to, peer, shown: None, source: None, sni: None, request: None, now: 0 },
        &mut Silent,
    ) {
        Ok(_) => 200,
        Err(refusal) => refusal.status(),
    };
    let allow = policy("cluster.local/ns/default/sa/productpage");
    let named = vec![("default", "only-productpage")];
    let with_policy = mesh(vec![workload("v1", named.clone()), Section::Authorization(allow)]);
    assert_eq!(verdict(&with_policy, Some(&peer)), 200);
    assert_eq!(verdict(&with_policy, Some(&other)), 403);
    assert_eq!(verdict(&with_policy, None), 503);
    assert_eq!(verdict(&mesh(vec![workload("v1", named)]), Some(&peer)), 503);
    assert_eq!(verdict(&mesh(vec![]), Some(&peer)), 421);
}

#[test]
fn explain_names_rule_policy_and_nearest_miss() {
    let allow = policy("cluster.local/ns/default/sa/productpage");
    let named = vec![("default", "only-productpage")];
    let tables =
        mesh(vec![workload("v1", named.clone()), workload("v2", named), Section::Authorization(allow)]);
    let (headers, labels, identity) = (HeaderMap::new(), Labels::default(), id("ratings"));
    let question = Question {
        identity: Some(&identity),
        caller: Caller { namespace: "default", labels: &labels, view: None },
        node: None,
        gateway: false,
        captured: false,
        request: Request {
            method: "GET",
            scheme: "http",
            authority: "reviews:9080",
            path: "/a/../b",
            query: None,
            headers: &headers,
            claims: None,
        },
        host: "reviews",
        port: 9080,
        stream: false,
        source: None,
        now: 0,
    };
    let answer = explain(&tables, &question);
    assert_eq!(answer.path, Some(("/a/../b".to_owned(), Some("/b".to_owned()))));
    let route = answer.route.unwrap();
    assert_eq!(
        (route.resource.as_str(), route.rule, route.matched),
        ("virtualservice/default/reviews", 1, None)
    );
    let weights: Vec<_> =
        answer.destinations.iter().map(|d| (d.subset.clone().unwrap(), d.weight, d.tls)).collect();
    assert_eq!(weights, [("v1".to_owned(), 90, "mutual"), ("v2".to_owned(), 10, "mutual")]);
    let authorization = answer.authorization.unwrap();
    assert!(!authorization.allowed);
    assert_eq!(authorization.decided_by.as_deref(), Some("authorizationpolicy/default/only-productpage"));
    assert!(authorization.nearest_miss.unwrap().contains("caller is cluster.local/ns/default/sa/ratings"));
    assert_eq!((answer.status, answer.flags), (Some(403), "-"));
    assert_eq!(answer.authentication.unwrap().mtls, "STRICT");
}

#[test]
fn unchanged_destinations_are_shared_between_tables() {
    let make = |version| {
        let sections = vec![service(), destination(None, None)];
        let sections = sections.into_iter().map(|section| (section.key(), Entry::new(section))).collect();
        Snapshot { version: Version { number: version, revision: 0 }, sections }
    };
    let first = build(&make(1), None).unwrap();
    let second = build(&make(2), Some(&first)).unwrap();
    assert!(std::sync::Arc::ptr_eq(&first.destinations[0], &second.destinations[0]));
}
