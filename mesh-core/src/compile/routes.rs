//! Ordered rules of each host and port.
//!
//! One VirtualService binds a host: of the most specific pattern that holds it the oldest; others for the same
//! pattern are not merged in. What is known of a port is settled here: rules for other ports are gone behind the
//! snapshot, and where nothing is left the default route to the service takes its place.

use std::sync::Arc;

use crate::resource::service::Port;
use crate::resource::virtual_service::{HttpAction, HttpRoute, RouteDestination, TcpRoute, VirtualService};
use crate::resource::{Resource, Spec};
use crate::routing::header::HeaderChanges;
use crate::routing::rule::{Backend, HttpRule, RuleAction, StreamMatch, TcpRule};
use crate::snapshot::routes::Routes;
use crate::state::index::KnownService;
use crate::state::{MeshState, hosts};
use crate::vocab::name::{ServicePort, Text};
use crate::vocab::origin::Origin;
use crate::vocab::protocol::Protocol;

/// The only port on which a host that is no service is routed (as Istio's sidecars do).
const PORT_WITHOUT_SERVICE: u16 = 80;
/// The weight of a destination that stands alone.
const ALONE: u32 = 100;

/// The routes of a service, port by port.
pub(super) fn of_service(state: &MeshState, service: &KnownService) -> Vec<Routes> {
    let bound = state.virtual_service(&service.host).and_then(|resource| Bound::new(state, resource));
    service.ports.iter().map(|port| of_port(bound.as_ref(), service, port)).collect()
}

/// The routes of a host or wildcard that no service has.
pub(super) fn without_service(state: &MeshState, host: &Text) -> Option<Routes> {
    let resource = state.virtual_services().of(host).first()?;
    let holds_a_service =
        || hosts::is_wildcard(host) && state.services().any(|service| hosts::covers(host, &service.host));
    if holds_a_service() {
        return None;
    }
    let at = ServicePort { host: host.clone(), port: PORT_WITHOUT_SERVICE };
    let bound = Bound::new(state, resource)?;
    let http = bound.http(at.port);
    let routed = !http.is_empty();
    routed.then(|| Routes { at, origin: Some(bound.name()), http, tcp: Vec::new() })
}

fn of_port(bound: Option<&Bound<'_>>, service: &KnownService, port: &Port) -> Routes {
    let http = bound.filter(|_| port.protocol.is_http() || port.protocol == Protocol::Auto);
    let http = http.map(|bound| bound.http(port.number)).filter(|rules| !rules.is_empty());
    let tcp = bound.filter(|_| matches!(port.protocol, Protocol::Tcp | Protocol::Auto));
    let tcp = tcp.map(|bound| bound.tcp(port.number)).filter(|rules| !rules.is_empty());
    let declared = http.is_some() || tcp.is_some();
    Routes {
        at: ServicePort { host: service.host.clone(), port: port.number },
        origin: bound.filter(|_| declared).map(Bound::name),
        http: http.unwrap_or_else(|| {
            vec![HttpRule::default_route(&service_origin(service), service.host.clone(), port.number)]
        }),
        tcp: tcp.unwrap_or_else(|| {
            vec![TcpRule::default_route(&service_origin(service), service.host.clone(), port.number)]
        }),
    }
}

fn service_origin(service: &KnownService) -> Origin {
    Origin::of(&service.source().meta.key)
}

/// A VirtualService that binds a host.
struct Bound<'s> {
    state: &'s MeshState,
    resource: &'s Arc<Resource>,
    rules: &'s VirtualService,
}

impl<'s> Bound<'s> {
    fn new(state: &'s MeshState, resource: &'s Arc<Resource>) -> Option<Bound<'s>> {
        match &resource.spec {
            Spec::VirtualService(rules) => Some(Bound { state, resource, rules }),
            _ => None,
        }
    }

    fn name(&self) -> Text {
        self.resource.meta.key.to_string().into()
    }

    /// The rules for requests on a port, numbered as they are declared.
    fn http(&self, port: u16) -> Vec<HttpRule> {
        let routes = self.rules.http.iter().enumerate();
        routes.filter_map(|(index, route)| self.http_rule(index, route, port)).collect()
    }

    fn http_rule(&self, index: usize, route: &HttpRoute, port: u16) -> Option<HttpRule> {
        let here = route.matches.iter().filter(|entry| entry.port.is_none_or(|wanted| wanted == port));
        let matches: Vec<_> = here.map(|entry| entry.request.clone()).collect();
        if matches.is_empty() && !route.matches.is_empty() {
            return None;
        }
        let action = match &route.action {
            HttpAction::Route { destinations, rewrite } => {
                RuleAction::Route { backends: self.backends(destinations, port), rewrite: rewrite.clone() }
            }
            HttpAction::Redirect(redirect) => RuleAction::Redirect(redirect.clone()),
            HttpAction::DirectResponse(response) => RuleAction::DirectResponse(response.clone()),
            HttpAction::Delegate { .. } => return None,
        };
        Some(HttpRule {
            origin: Origin::rule(&self.resource.meta.key, index),
            name: route.name.clone(),
            matches,
            action,
            timeout: route.timeout.filter(|timeout| !timeout.is_zero()),
            retry: route.retry.clone().unwrap_or_default(),
            fault: route.fault.unwrap_or_default(),
            request_headers: in_key_order(&route.request_headers),
            response_headers: in_key_order(&route.response_headers),
        })
    }

    /// The rules for byte streams on a port, numbered as they are declared.
    fn tcp(&self, port: u16) -> Vec<TcpRule> {
        let routes = self.rules.tcp.iter().enumerate();
        routes.filter_map(|(index, route)| self.tcp_rule(index, route, port)).collect()
    }

    fn tcp_rule(&self, index: usize, route: &TcpRoute, port: u16) -> Option<TcpRule> {
        let here = route.matches.iter().filter(|entry| entry.port.is_none_or(|wanted| wanted == port));
        let matches: Vec<_> = here
            .map(|entry| StreamMatch {
                destination_subnets: entry.destination_subnets.clone(),
                caller_labels: entry.caller_labels.clone(),
                caller_namespace: entry.caller_namespace.clone(),
            })
            .collect();
        if matches.is_empty() && !route.matches.is_empty() {
            return None;
        }
        Some(TcpRule {
            origin: Origin::rule(&self.resource.meta.key, index),
            matches,
            backends: self.backends(&route.destinations, port),
        })
    }

    /// One destination gets everything whatever its weight; of several, those without weight get nothing.
    fn backends(&self, destinations: &[RouteDestination], port: u16) -> Vec<Backend> {
        let weighted = destinations.iter().filter_map(|destination| {
            let weight = destination.weight.filter(|weight| *weight > 0)?;
            Some(self.backend(destination, weight, port))
        });
        let mut backends: Vec<_> = weighted.collect();
        if backends.is_empty() {
            // A rule whose weights are all 0 is refused before; a lone destination needs none.
            backends.extend(destinations.first().map(|alone| self.backend(alone, ALONE, port)));
        }
        if let [alone] = backends.as_mut_slice() {
            alone.weight = ALONE;
        }
        backends
    }

    fn backend(&self, destination: &RouteDestination, weight: u32, addressed: u16) -> Backend {
        let host = hosts::resolve(&destination.host, &self.resource.meta.key.namespace);
        let only = || match self.state.service(&host)?.ports.as_slice() {
            [only] => Some(only.number),
            _ => None,
        };
        let port = destination.port.or_else(only).unwrap_or(addressed);
        Backend {
            port,
            subset: destination.subset.clone(),
            weight,
            request_headers: in_key_order(&destination.request_headers),
            response_headers: in_key_order(&destination.response_headers),
            authority: destination.authority.clone(),
            host,
        }
    }
}

fn in_key_order(changes: &HeaderChanges) -> HeaderChanges {
    let mut sorted = changes.clone();
    sorted.remove.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    sorted.set.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
    sorted.add.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::compile;
    use crate::resource::virtual_service::TcpMatch;
    use crate::snapshot::Version;
    use crate::snapshot::section::{Section, SectionKey};
    use crate::state::sample::{self, destination, http_route, mesh, service, virtual_service};

    const REVIEWS: &str = "reviews.default.svc.cluster.local";

    /// `origin: rule>backend*weight,...; ...` of the http rules, then of the tcp rules behind `|`.
    fn routes(resources: Vec<Arc<Resource>>, host: &str, port: u16) -> String {
        let compiled = compile(&mesh(resources)).whole(Version::default());
        let key = SectionKey::Routes(ServicePort { host: host.into(), port });
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
        let tcp = routes.tcp.iter().map(|rule| format!("{}>{}", number(&rule.origin), to(&rule.backends)));
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
    fn header_changes_are_in_key_order() {
        let field = |name: &str| (name.parse().unwrap(), "x".parse().unwrap());
        let changes = HeaderChanges { set: vec![field("b"), field("a")], ..HeaderChanges::default() };
        assert_eq!(in_key_order(&changes).set, [field("a"), field("b")]);
    }
}
