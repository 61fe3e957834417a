//! Ordered rules of each host and port.
//!
//! One VirtualService binds a host: of the most specific pattern that holds it the oldest with a rule for the port;
//! others for the same pattern are not merged in. Where nothing is left the default route to the service takes its
//! place. A list for byte streams ends with that route unless a rule takes everything, as a listener of Istio's does.

use std::borrow::Cow;
use std::sync::Arc;

use super::delegates::bound_routes;
use super::limits;
use super::rules::Site;
use crate::resource::reach::GatewayRef;
use crate::resource::service::Port;
use crate::resource::virtual_service::{HttpRoute, VirtualService};
use crate::resource::{Resource, Spec};
use crate::routing::rule::{HttpRule, StreamMatch, TcpRule};
use crate::snapshot::routes::{Fallback, Routes};
use crate::state::index::KnownService;
use crate::state::view::View;
use crate::state::{MeshState, hosts};
use crate::vocab::name::{ServicePort, Text};
use crate::vocab::origin::{Origin, ResourceKey};
use crate::vocab::protocol::Protocol;

/// The only port on which a host that is no service is routed (as Istio's sidecars do).
const PORT_WITHOUT_SERVICE: u16 = 80;

/// A rule for requests of a VirtualService, delegates resolved.
pub(super) struct BoundRoute<'s> {
    /// The VirtualService that it stands in; its namespace completes short names.
    pub(super) resource: &'s ResourceKey,
    /// Its index there.
    pub(super) index: usize,
    /// What it says.
    pub(super) route: Cow<'s, HttpRoute>,
}

/// The routes of a service for the callers of a view, port by port.
pub(super) fn of_service(state: &MeshState, view: &View, service: &KnownService) -> Vec<Routes> {
    service.ports.iter().map(|port| of_port(state, view, service, port)).collect()
}

/// The routes of a host or wildcard that the callers of a view find no service for.
pub(super) fn without_service(state: &MeshState, view: &View, host: &Text) -> Option<Routes> {
    // A wildcard stands for hosts of its own only while it captures no service on the port.
    let found = |service: &Arc<KnownService>| {
        let there = |found: &Arc<KnownService>| found.port(PORT_WITHOUT_SERVICE).is_some();
        hosts::covers(host, &service.host)
            && state.service_for(view, &service.host).is_some_and(there)
            && state.captures(view, host, &service.host, PORT_WITHOUT_SERVICE)
    };
    if hosts::is_wildcard(host) && state.services().any(found) {
        return None;
    }
    let at = ServicePort { host: host.clone(), port: PORT_WITHOUT_SERVICE };
    let bound = state.bound_exactly(view, host, at.port);
    let ports_of = |host: &str| ports_of(state, view, host);
    let site = Site { state, gateway: &GatewayRef::Mesh, port: at.port, ports_of: &ports_of };
    let (resource, http) = first(&bound, |resource| http_rules(&site, resource))?;
    let origin = Some(resource.meta.key.to_string().into());
    Some(Routes { at, scope: view.scope(), origin, http, tcp: Vec::new(), tls: Vec::new(), fallback: None })
}

fn of_port(state: &MeshState, view: &View, service: &KnownService, port: &Port) -> Routes {
    let bound = state.bound(view, &service.host, port.number);
    let ports_of = |host: &str| ports_of(state, view, host);
    let site = Site { state, gateway: &GatewayRef::Mesh, port: port.number, ports_of: &ports_of };
    let (requests, tls) =
        (port.protocol.is_http() || port.protocol == Protocol::Auto, port.protocol.is_tls());
    let streams = matches!(port.protocol, Protocol::Tcp | Protocol::Auto);
    let http = requests.then(|| first(&bound, |resource| http_rules(&site, resource))).flatten();
    let tcp = streams.then(|| first(&bound, |resource| tcp_rules(&site, resource))).flatten();
    let passed = tls.then(|| first(&bound, |resource| tls_rules(&site, resource))).flatten();
    let source = [
        http.as_ref().map(|(resource, _)| resource),
        tcp.as_ref().map(|(resource, _)| resource),
        passed.as_ref().map(|(resource, _)| resource),
    ];
    let origin = source.into_iter().flatten().next().map(|resource| resource.meta.key.to_string().into());
    let service_origin = Origin::of(&service.source().meta.key);
    let fallback = Fallback {
        http: HttpRule::default_route(
            &service_origin,
            service.host.clone(),
            port.number,
            site.default_retry(),
        ),
        stream: TcpRule::default_route(&service_origin, service.host.clone(), port.number),
    };
    let mut tcp = tcp.map(|(_, rules)| rules).unwrap_or_default();
    if !tls && !tcp.iter().any(takes_everything) {
        tcp.push(fallback.stream.clone());
    }
    let mut routes = Routes {
        at: ServicePort { host: service.host.clone(), port: port.number },
        scope: view.scope(),
        origin,
        http: http.map_or_else(|| vec![fallback.http.clone()], |(_, rules)| rules),
        tcp,
        tls: match passed {
            Some((_, rules)) => rules,
            None if tls => vec![fallback.stream.clone()],
            None => Vec::new(),
        },
        fallback: None,
    };
    routes.fallback = routes.depends_on_caller().then(|| Box::new(fallback));
    routes
}

/// The numbers of the ports of a service that a view finds.
fn ports_of(state: &MeshState, view: &View, host: &str) -> Option<Vec<u16>> {
    let service = state.reached_by(view, host)?;
    Some(service.ports.iter().map(|port| port.number).collect())
}

/// Whether no stream gets past a rule, whoever calls.
fn takes_everything(rule: &TcpRule) -> bool {
    rule.matches.is_empty() || rule.matches.contains(&StreamMatch::default())
}

/// The first VirtualService with rules.
fn first<'s, R>(
    bound: &[&'s Arc<Resource>],
    rules: impl Fn(&'s Resource) -> Vec<R>,
) -> Option<(&'s Arc<Resource>, Vec<R>)> {
    let mut with_rules = bound.iter().map(|resource| (*resource, rules(resource)));
    with_rules.find(|(_, rules)| !rules.is_empty())
}

fn content(resource: &Resource) -> Option<&VirtualService> {
    match &resource.spec {
        Spec::VirtualService(rules) => Some(rules),
        _ => None,
    }
}

/// The rules for requests of a VirtualService at a site, in order.
pub(super) fn http_rules(site: &Site<'_>, resource: &Resource) -> Vec<HttpRule> {
    let routes = bound_routes(site.state, resource).into_iter();
    let rules = routes.filter_map(|bound| {
        let mut rule = site.http_rule(bound.resource, bound.index, &bound.route)?;
        rule.limits = limits::of_rule(site.state, &resource.meta.key, bound.resource, rule.name.as_ref());
        Some(rule)
    });
    rules.collect()
}

/// The rules for byte streams of a VirtualService at a site, in order.
pub(super) fn tcp_rules(site: &Site<'_>, resource: &Resource) -> Vec<TcpRule> {
    let routes = content(resource).map_or(&[][..], |rules| &rules.tcp).iter().enumerate();
    routes.filter_map(|(index, route)| site.tcp_rule(&resource.meta.key, index, route)).collect()
}

/// The rules for TLS that is passed on of a VirtualService at a site, in order.
pub(super) fn tls_rules(site: &Site<'_>, resource: &Resource) -> Vec<TcpRule> {
    let routes = content(resource).map_or(&[][..], |rules| &rules.tls).iter().enumerate();
    routes.filter_map(|(index, route)| site.tls_rule(&resource.meta.key, index, route)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::compile;
    use crate::resource::virtual_service::{HttpMatch, Mirror, TcpMatch, TcpRoute, TlsMatch, TlsRoute};
    use crate::routing::rule::{Backend, RuleAction};
    use crate::snapshot::Version;
    use crate::snapshot::section::{Section, SectionKey};
    use crate::state::sample::{self, destination, http_route, mesh, service, virtual_service};
    use crate::vocab::origin::Kind;
    use crate::vocab::ratio::Ratio;

    const REVIEWS: &str = "reviews.default.svc.cluster.local";

    /// `origin: rule>backend*weight,...; ...` of the http rules, then of the tcp rules behind `|`.
    fn routes(resources: Vec<Arc<Resource>>, host: &str, port: u16) -> String {
        let compiled = compile(&mesh(resources)).whole(Version::default());
        let key = SectionKey::Routes { at: ServicePort { host: host.into(), port }, scope: None };
        let Some(entry) = compiled.sections.get(&key) else { return "none".to_owned() };
        let Section::Routes(routes) = &*entry.section else { return "not routes".to_owned() };
        let number = |origin: &Origin| origin.rule.map_or("-".to_owned(), |rule| rule.to_string());
        let to = |backends: &[Backend]| {
            let one = |b: &Backend| {
                let host = b.host.split('.').next().unwrap_or("");
                format!("{host}/{}:{}*{}", b.subset.as_deref().unwrap_or(""), b.port, b.weight)
            };
            backends.iter().map(one).collect::<Vec<_>>().join(",")
        };
        let http = routes.http.iter().map(|rule| match &rule.action {
            RuleAction::Route { backends, .. } => format!("{}>{}", number(&rule.origin), to(backends)),
            RuleAction::Redirect(_) | RuleAction::DirectResponse(_) => "other".to_owned(),
        });
        let streams = if routes.tls.is_empty() { &routes.tcp } else { &routes.tls };
        let tcp = streams.iter().map(|rule| format!("{}>{}", number(&rule.origin), to(&rule.backends)));
        let origin = routes.origin.as_deref().and_then(|origin| origin.rsplit('/').next()).unwrap_or("-");
        format!("{origin} {} | {}", http.collect::<Vec<_>>().join("; "), tcp.collect::<Vec<_>>().join("; "))
    }

    #[track_caller]
    fn check(more: Vec<Arc<Resource>>, port: u16, expected: &str) {
        let mut resources =
            vec![service("reviews", &["http:80", "tcp-x:81", "auto:82", "https-y:83"], "app=reviews")];
        resources.push(service("ratings", &["http:9080"], "app=ratings"));
        resources.extend(more);
        assert_eq!(routes(resources, REVIEWS, port), expected);
    }

    fn to(id: &str, host: &str, destination: &str) -> Arc<Resource> {
        virtual_service(id, &[host], vec![http_route(None, None, &[destination])])
    }

    #[test]
    fn one_virtual_service_binds_a_host() {
        check(vec![], 80, "- ->reviews/:80*100 | ->reviews/:80*100");
        check(vec![to("a", "reviews", "reviews/v1")], 80, "a 0>reviews/v1:80*100 | ->reviews/:80*100");
        let older = to("z@1", "reviews", "reviews/old");
        let newer = to("a@2", REVIEWS, "reviews/new");
        check(vec![newer, older], 80, "z 0>reviews/old:80*100 | ->reviews/:80*100");
        let same_age = vec![to("b@1", "reviews", "reviews/b"), to("a@1", "reviews", "reviews/a")];
        check(same_age, 80, "a 0>reviews/a:80*100 | ->reviews/:80*100");
        check(vec![to("other/a", "reviews", "reviews/v1")], 80, "- ->reviews/:80*100 | ->reviews/:80*100");
    }

    #[test]
    fn exact_hosts_beat_wildcards_and_long_ones_short_ones() {
        let any = || to("any@1", "*.cluster.local", "reviews/any");
        let here = || to("here@2", "*.default.svc.cluster.local", "reviews/here");
        let exact = || to("exact@3", "reviews", "reviews/exact");
        check(vec![any()], 80, "any 0>reviews/any:80*100 | ->reviews/:80*100");
        check(vec![any(), here()], 80, "here 0>reviews/here:80*100 | ->reviews/:80*100");
        check(vec![any(), here(), exact()], 80, "exact 0>reviews/exact:80*100 | ->reviews/:80*100");
    }

    #[test]
    fn the_protocol_of_the_port_decides_which_rules_count() {
        let mut both = VirtualService {
            hosts: vec!["reviews".into()],
            http: vec![http_route(None, None, &["reviews/h"])],
            tcp: vec![TcpRoute { matches: vec![], destinations: vec![destination("reviews/t")] }],
            ..VirtualService::default()
        };
        let rules = |rules: &VirtualService| vec![sample::declare("a", Spec::VirtualService(rules.clone()))];
        check(rules(&both), 80, "a 0>reviews/h:80*100 | ->reviews/:80*100");
        check(rules(&both), 81, "a ->reviews/:81*100 | 0>reviews/t:81*100");
        check(rules(&both), 82, "a 0>reviews/h:82*100 | 0>reviews/t:82*100");
        check(rules(&both), 83, "- ->reviews/:83*100 | ->reviews/:83*100");
        both.http.clear();
        check(rules(&both), 80, "- ->reviews/:80*100 | ->reviews/:80*100");
        both.tcp[0].matches = vec![TcpMatch { port: Some(82), ..TcpMatch::default() }];
        check(rules(&both), 81, "- ->reviews/:81*100 | ->reviews/:81*100");
        check(rules(&both), 82, "a ->reviews/:82*100 | 0>reviews/t:82*100");
    }

    #[test]
    fn streams_that_no_rule_takes_go_to_the_service() {
        let rules = |condition: TcpMatch| {
            let destinations = vec![destination("reviews/t")];
            let tcp = vec![TcpRoute { matches: vec![condition], destinations }];
            let rules = VirtualService { hosts: vec!["reviews".into()], tcp, ..VirtualService::default() };
            vec![sample::declare("a", Spec::VirtualService(rules))]
        };
        let network =
            TcpMatch { destination_subnets: vec!["10.0.0.0/8".parse().unwrap()], ..TcpMatch::default() };
        check(rules(network), 81, "a ->reviews/:81*100 | 0>reviews/t:81*100; ->reviews/:81*100");
        let caller = TcpMatch { caller_namespace: Some("shop".into()), ..TcpMatch::default() };
        check(rules(caller), 81, "a ->reviews/:81*100 | 0>reviews/t:81*100; ->reviews/:81*100");
        check(rules(TcpMatch::default()), 81, "a ->reviews/:81*100 | 0>reviews/t:81*100");
    }

    #[test]
    fn tls_rules_count_on_ports_of_tls() {
        let rules = |port| {
            let matches = vec![TlsMatch { sni_hosts: vec!["x".into()], port, ..TlsMatch::default() }];
            let tls = vec![TlsRoute { matches, destinations: vec![destination("reviews/t")] }];
            let rules = VirtualService { hosts: vec!["reviews".into()], tls, ..VirtualService::default() };
            vec![sample::declare("a", Spec::VirtualService(rules))]
        };
        check(rules(None), 83, "a ->reviews/:83*100 | 0>reviews/t:83*100");
        check(rules(Some(84)), 83, "- ->reviews/:83*100 | ->reviews/:83*100");
        check(rules(None), 81, "- ->reviews/:81*100 | ->reviews/:81*100");
    }

    #[test]
    fn gateways_of_a_match_stand_in_place_of_the_resource_s() {
        let gateway = || GatewayRef::Named { namespace: "default".into(), name: "edge".into() };
        let route = |gateways: &[GatewayRef]| {
            let mut route = http_route(Some("/a"), None, &["reviews/g"]);
            route.matches[0].gateways = gateways.to_vec();
            route.matches[0].request.caller_namespace = Some("shop".into());
            vec![virtual_service("a", &["reviews"], vec![route])]
        };
        check(route(&[gateway()]), 80, "- ->reviews/:80*100 | ->reviews/:80*100");
        check(route(&[GatewayRef::Mesh, gateway()]), 80, "a 0>reviews/g:80*100 | ->reviews/:80*100");
        let both = [route(&[GatewayRef::Mesh]), route(&[])].map(|resources| {
            let mut all = vec![service("reviews", &["http:80"], "app=reviews")];
            all.extend(resources);
            let compiled = compile(&mesh(all)).whole(Version::default());
            let sections = compiled.sections.into_values();
            let asks = sections.filter_map(|entry| match &*entry.section {
                Section::Routes(routes) => Some(routes.depends_on_caller()),
                _ => None,
            });
            asks.collect::<Vec<_>>()
        });
        assert_eq!(both, [[false], [true]]);
    }

    #[test]
    fn rules_for_another_port_are_dropped() {
        let rules = |routes| vec![virtual_service("a", &["reviews"], routes)];
        let only_82 = || http_route(None, Some(82), &["reviews/p"]);
        let rest = || http_route(None, None, &["reviews/r"]);
        check(rules(vec![only_82(), rest()]), 80, "a 1>reviews/r:80*100 | ->reviews/:80*100");
        check(
            rules(vec![only_82(), rest()]),
            82,
            "a 0>reviews/p:82*100; 1>reviews/r:82*100 | ->reviews/:82*100",
        );
        check(rules(vec![only_82()]), 80, "- ->reviews/:80*100 | ->reviews/:80*100");
        let mut mixed = http_route(Some("/a"), Some(80), &["reviews/m"]);
        mixed.matches.extend(http_route(Some("/b"), Some(82), &[]).matches);
        check(rules(vec![mixed]), 80, "a 0>reviews/m:80*100 | ->reviews/:80*100");
    }

    #[test]
    fn weights_and_ports_of_destinations() {
        let cases = [
            (vec!["reviews/v1*0"], "reviews/v1:80*100"),
            (vec!["reviews/v1*90", "reviews/v2*10"], "reviews/v1:80*90,reviews/v2:80*10"),
            (vec!["reviews/v1*0", "reviews/v2*10"], "reviews/v2:80*100"),
            (vec!["reviews/v1", "reviews/v2*10", "reviews/v3*30"], "reviews/v2:80*10,reviews/v3:80*30"),
            (vec!["reviews:82"], "reviews/:82*100"),
            (vec!["ratings"], "ratings/:9080*100"),
            (vec!["ratings:1"], "ratings/:1*100"),
            (vec!["nobody"], "nobody/:80*100"),
        ];
        for (destinations, expected) in cases {
            let rules = virtual_service("a", &["reviews"], vec![http_route(None, None, &destinations)]);
            check(vec![rules], 80, &format!("a 0>{expected} | ->reviews/:80*100"));
        }
    }

    #[test]
    fn a_host_that_no_service_has_is_routed_on_port_80() {
        let rules = |host: &str| {
            let only_80 = http_route(None, Some(80), &["reviews"]);
            let only_81 = http_route(None, Some(81), &["reviews"]);
            vec![
                service("reviews", &["http:80"], "a=b"),
                virtual_service("a", &[host], vec![only_80, only_81]),
            ]
        };
        assert_eq!(routes(rules("shop.example"), "shop.example", 80), "a 0>reviews/:80*100 | ");
        assert_eq!(routes(rules("shop.example"), "shop.example", 81), "none");
        assert_eq!(routes(rules("*.example"), "*.example", 80), "a 0>reviews/:80*100 | ");
        // A wildcard that holds a service is routed through that service.
        assert_eq!(routes(rules("*.local"), "*.local", 80), "none");
        assert_eq!(routes(rules("*.local"), REVIEWS, 80), "a 0>reviews/:80*100 | ->reviews/:80*100");
    }

    #[test]
    fn matches_keep_their_numbers_and_mirrors_their_shares() {
        let ports_of = |_: &str| Some(vec![9080]);
        let state = mesh(vec![]);
        let site = Site { state: &state, gateway: &GatewayRef::Mesh, port: 80, ports_of: &ports_of };
        let mut route = http_route(Some("/a"), Some(81), &["reviews"]);
        route.matches.extend(http_route(Some("/b"), Some(80), &[]).matches);
        let mirror = |share| Mirror { destination: destination("copy/v2"), share };
        route.mirrors = vec![mirror(Ratio::ZERO), mirror(Ratio::ONE)];
        let key = ResourceKey { kind: Kind::VirtualService, namespace: "shop".into(), name: "a".into() };
        let rule = site.http_rule(&key, 3, &route).unwrap();
        assert_eq!((rule.matches.len(), rule.match_number(0)), (1, 1));
        let clusters: Vec<_> = rule.mirrors.iter().map(|mirror| mirror.cluster()).collect();
        assert_eq!(clusters, ["outbound|9080|v2|copy.shop.svc.cluster.local"]);
        route.matches.clear();
        assert!(site.http_rule(&key, 3, &route).unwrap().matches.is_empty());
        route.matches = vec![HttpMatch { request: Default::default(), port: Some(81), gateways: Vec::new() }];
        assert!(site.http_rule(&key, 3, &route).is_none());
    }
}
