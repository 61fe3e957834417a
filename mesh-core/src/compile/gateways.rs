//! Gateways: listeners by port, servers by host, and the rules of each virtual host.
//!
//! All Gateways that select a gateway's workload share its ports. VirtualServices for one host are merged here, unlike
//! in the mesh: oldest first, with rules for everything at the end.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::routes::{http_rules, tcp_rules, tls_rules};
use super::rules::Site;
use super::security::governing;
use crate::matching::authority::specificity;
use crate::matching::request::RequestMatch;
use crate::matching::text::TextMatch;
use crate::resource::gateway::{
    Gateway as Declared, HostNamespace, Server, ServerHost, ServerTls, ServerTlsMode,
};
use crate::resource::reach::GatewayRef;
use crate::resource::{Resource, Spec};
use crate::routing::rule::HttpRule;
use crate::snapshot::gateway::{Gateway, GatewayListener, GatewayServer, GatewayTls, VirtualHost};
use crate::snapshot::routes::Routes;
use crate::snapshot::section::Section;
use crate::state::index::KnownGateway;
use crate::state::view::View;
use crate::state::{MeshState, hosts};
use crate::vocab::identity::SpiffeId;
use crate::vocab::name::{ServicePort, Text};
use crate::vocab::origin::{Kind, ResourceKey};
use crate::vocab::protocol::Protocol;

/// The host under which rules for streams stand: which one is meant shows only in the server name.
const ANY: &str = "*";

/// The section of a Gateway.
pub(super) fn gateway(state: &MeshState, key: &ResourceKey) -> Option<Section> {
    let declared = content(state.resource(key)?)?;
    let known = state.gateway(key)?;
    let view = state.gateway_view(&known.namespace);
    let workload = known.workload.as_ref().and_then(|key| state.workload(key));
    Some(Section::Gateway(Gateway {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        workload: known.workload.clone(),
        workload_namespace: known.namespace.clone(),
        labels: known.labels.clone(),
        identity: match workload {
            Some(workload) => workload.identity.clone(),
            None => usual_identity(state, &key.name, known),
        },
        selector: declared.selector.clone(),
        view: view.key.clone(),
        trusted_proxies: state.mesh().trusted_proxies,
        policies: governing(state, Kind::AuthorizationPolicy, &known.namespace, &known.labels),
        tokens: governing(state, Kind::RequestAuthentication, &known.namespace, &known.labels),
        listeners: listeners(state, known, &view),
    }))
}

/// As whom a gateway of unknown workload is taken to call: by the account that Istio installs such gateways with, else
/// by the name of the Gateway.
fn usual_identity(state: &MeshState, name: &str, known: &KnownGateway) -> Option<SpiffeId> {
    let account = match known.labels.value("istio") {
        Some(gateway) => format!("istio-{gateway}-service-account"),
        None => name.to_owned(),
    };
    SpiffeId::workload(&state.settings().trust_domain, &known.namespace, &account).ok()
}

fn content(resource: &Resource) -> Option<&Declared> {
    match &resource.spec {
        Spec::Gateway(gateway) => Some(gateway),
        _ => None,
    }
}

/// What may share a port.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    /// Plain HTTP, told apart by host.
    Http,
    /// TLS, told apart by server name.
    Tls,
    /// Bytes: nothing tells them apart.
    Bytes,
}

fn family(protocol: Protocol) -> Family {
    if protocol.is_tls() {
        Family::Tls
    } else if protocol.is_http() {
        Family::Http
    } else {
        Family::Bytes
    }
}

/// A server of a Gateway on a port.
#[derive(Clone, Copy)]
struct Placed<'s> {
    resource: &'s Arc<Resource>,
    index: usize,
    server: &'s Server,
}

fn listeners(state: &MeshState, known: &KnownGateway, view: &View) -> Vec<GatewayListener> {
    let mut ports: BTreeMap<u16, Vec<Placed<'_>>> = BTreeMap::new();
    for resource in state.gateways_on(known) {
        let servers = content(resource).map_or(&[][..], |declared| &declared.servers);
        for (index, server) in servers.iter().enumerate() {
            ports.entry(server.port).or_default().push(Placed { resource, index, server });
        }
    }
    ports.into_iter().map(|(port, placed)| listener(state, view, port, &placed)).collect()
}

fn listener(state: &MeshState, view: &View, port: u16, placed: &[Placed<'_>]) -> GatewayListener {
    let mut kept: Vec<Placed<'_>> = Vec::new();
    let mut dropped = Vec::new();
    for placed in placed {
        match kept.first().and_then(|first| conflict(first, placed)) {
            Some(reason) => dropped.push((placed.resource.meta.key.to_string().into(), reason)),
            None => kept.push(*placed),
        }
    }
    let maker = Maker { state, view };
    let plain = kept.iter().all(|placed| family(placed.server.protocol) == Family::Http);
    let virtual_hosts = if plain { maker.virtual_hosts(&kept) } else { Vec::new() };
    let servers = kept.iter().map(|placed| maker.server(placed)).collect();
    GatewayListener { port, servers, virtual_hosts, dropped }
}

/// Why a server cannot share a port with the one that has it.
fn conflict(first: &Placed<'_>, other: &Placed<'_>) -> Option<Text> {
    let (own, theirs) = (other.server.protocol, first.server.protocol);
    let (mine, held) = (family(own), family(theirs));
    let reason = if mine != held {
        format!("port {} is {} by {}", other.server.port, theirs.name(), first.resource.meta.key)
    } else if mine == Family::Bytes {
        format!("port {} is taken by {}, and bytes have no host", other.server.port, first.resource.meta.key)
    } else {
        return None;
    };
    Some(reason.into())
}

/// What a gateway's rules are made from.
struct Maker<'s> {
    state: &'s MeshState,
    view: &'s View,
}

/// Virtual hosts of one route table, by host.
#[derive(Default)]
struct Hosts {
    by_host: BTreeMap<Text, VirtualHost>,
}

impl Maker<'_> {
    fn server(&self, placed: &Placed<'_>) -> GatewayServer {
        let server = placed.server;
        let tls = tls_mode(server);
        let ends_in_http = server.protocol == Protocol::Https && tls.terminates();
        let mut names: Vec<Text> = server.hosts.iter().map(|host| host.host.clone()).collect();
        names.sort_by(|a, b| specificity(b).cmp(&specificity(a)).then_with(|| a.cmp(b)));
        names.dedup();
        GatewayServer {
            origin: placed.resource.meta.key.to_string().into(),
            index: u32::try_from(placed.index).unwrap_or(u32::MAX),
            protocol: server.protocol,
            tls,
            https_redirect: redirects(server),
            hosts: names,
            credentials: server.tls.as_ref().map(|tls| tls.credentials.clone()).unwrap_or_default(),
            virtual_hosts: if ends_in_http { self.virtual_hosts(&[*placed]) } else { Vec::new() },
            streams: self.streams(placed, tls),
        }
    }

    /// The VirtualServices that a server may use, with the hosts that both have.
    fn bound<'s>(&'s self, placed: &Placed<'s>) -> Vec<(&'s Arc<Resource>, Vec<Text>)> {
        let key = &placed.resource.meta.key;
        let bound = self.state.bound_to_gateway(&key.namespace, &key.name).iter();
        let bound = bound.filter(|rules| self.state.is_exported(rules, &self.view.namespace));
        let with_hosts = bound.map(|rules| (rules, shared_hosts(placed, rules)));
        with_hosts.filter(|(_, hosts)| !hosts.is_empty()).collect()
    }

    /// The rules of each host of servers that share a route table.
    fn virtual_hosts(&self, servers: &[Placed<'_>]) -> Vec<VirtualHost> {
        let mut found = Hosts::default();
        for placed in servers {
            let port = placed.server.port;
            let key = &placed.resource.meta.key;
            let at = GatewayRef::Named { namespace: key.namespace.clone(), name: key.name.clone() };
            for (resource, names) in self.bound(placed) {
                let rules = self.at(&at, port, |site| up_to_catch_all(http_rules(site, resource)));
                if rules.is_empty() {
                    continue;
                }
                for host in names {
                    found.add(host, port, &resource.meta.key, rules.clone(), redirects(placed.server));
                }
            }
            if redirects(placed.server) {
                for host in &placed.server.hosts {
                    found.redirect(host.host.clone(), port);
                }
            }
        }
        found.finish()
    }

    fn at<R>(&self, gateway: &GatewayRef, port: u16, make: impl Fn(&Site<'_>) -> R) -> R {
        let ports_of = |host: &str| {
            let service = self.state.reached_by(self.view, host)?;
            Some(service.ports.iter().map(|port| port.number).collect())
        };
        make(&Site { state: self.state, gateway, port, ports_of: &ports_of })
    }

    /// The rules for streams of a server: those of every VirtualService for it, oldest first.
    fn streams(&self, placed: &Placed<'_>, tls: GatewayTls) -> Routes {
        let port = placed.server.port;
        let mut routes = empty_routes(ANY.into(), port);
        let by_name = tls == GatewayTls::Passthrough;
        let of_bytes = match family(placed.server.protocol) {
            Family::Bytes => true,
            Family::Tls => tls.terminates() && placed.server.protocol != Protocol::Https,
            Family::Http => false,
        };
        if !by_name && !of_bytes {
            return routes;
        }
        let key = &placed.resource.meta.key;
        let at = GatewayRef::Named { namespace: key.namespace.clone(), name: key.name.clone() };
        for (resource, _) in self.bound(placed) {
            let before = routes.tcp.len() + routes.tls.len();
            if by_name {
                routes.tls.extend(self.at(&at, port, |site| tls_rules(site, resource)));
            } else {
                routes.tcp.extend(self.at(&at, port, |site| tcp_rules(site, resource)));
            }
            if routes.origin.is_none() && routes.tcp.len() + routes.tls.len() > before {
                routes.origin = Some(resource.meta.key.to_string().into());
            }
        }
        routes
    }
}

impl Hosts {
    fn entry(&mut self, host: Text, port: u16) -> &mut VirtualHost {
        let routes = empty_routes(host.clone(), port);
        self.by_host.entry(host).or_insert(VirtualHost { routes, https_redirect: false })
    }

    fn add(&mut self, host: Text, port: u16, key: &ResourceKey, rules: Vec<HttpRule>, redirected: bool) {
        let held = self.entry(host, port);
        held.https_redirect |= redirected;
        held.routes.origin.get_or_insert_with(|| key.to_string().into());
        held.routes.http.extend(rules);
    }

    fn redirect(&mut self, host: Text, port: u16) {
        self.entry(host, port).https_redirect = true;
    }

    fn finish(self) -> Vec<VirtualHost> {
        let mut hosts: Vec<VirtualHost> = self.by_host.into_values().collect();
        for host in &mut hosts {
            let (everything, some): (Vec<_>, Vec<_>) =
                std::mem::take(&mut host.routes.http).into_iter().partition(takes_everything);
            host.routes.http = some.into_iter().chain(everything).collect();
        }
        let host = |entry: &VirtualHost| entry.routes.at.host.clone();
        hosts.sort_by(|a, b| {
            specificity(&host(b)).cmp(&specificity(&host(a))).then_with(|| host(a).cmp(&host(b)))
        });
        hosts
    }
}

fn empty_routes(host: Text, port: u16) -> Routes {
    let at = ServicePort { host, port };
    Routes {
        at,
        scope: None,
        origin: None,
        http: Vec::new(),
        tcp: Vec::new(),
        tls: Vec::new(),
        fallback: None,
    }
}

/// The hosts that a server and a VirtualService share: of two that overlap the narrower.
fn shared_hosts(placed: &Placed<'_>, resource: &Resource) -> Vec<Text> {
    let Spec::VirtualService(rules) = &resource.spec else { return Vec::new() };
    let namespace = &resource.meta.key.namespace;
    let own: Vec<Text> = rules.hosts.iter().map(|host| hosts::resolve(host, namespace)).collect();
    let open = placed.server.hosts.iter().filter(|host| is_open_to(host, placed, namespace));
    let mut shared: Vec<Text> = open
        .flat_map(|offered| own.iter().filter_map(|wanted| narrower(&offered.host, wanted).cloned()))
        .collect();
    shared.sort();
    shared.dedup();
    shared
}

/// Whether VirtualServices of a namespace may use a host of a server.
fn is_open_to(host: &ServerHost, placed: &Placed<'_>, namespace: &Text) -> bool {
    match &host.namespace {
        HostNamespace::All => true,
        HostNamespace::Own => placed.resource.meta.key.namespace == *namespace,
        HostNamespace::Named(name) => name == namespace,
    }
}

fn narrower<'h>(a: &'h Text, b: &'h Text) -> Option<&'h Text> {
    if hosts::covers(a, b) { Some(b) } else { hosts::covers(b, a).then_some(a) }
}

fn redirects(server: &Server) -> bool {
    !server.protocol.is_tls() && server.tls.as_ref().is_some_and(|tls: &ServerTls| tls.https_redirect)
}

fn tls_mode(server: &Server) -> GatewayTls {
    let Some(tls) = server.tls.as_ref().filter(|_| server.protocol.is_tls()) else { return GatewayTls::None };
    match tls.mode {
        ServerTlsMode::Passthrough => GatewayTls::Passthrough,
        ServerTlsMode::AutoPassthrough => GatewayTls::AutoPassthrough,
        ServerTlsMode::Simple => GatewayTls::Simple,
        ServerTlsMode::Mutual => GatewayTls::Mutual,
        ServerTlsMode::OptionalMutual => GatewayTls::OptionalMutual,
        ServerTlsMode::IstioMutual => GatewayTls::IstioMutual,
    }
}

/// The rules of one VirtualService as far as the first match of everything, which stands alone: behind it no rule of
/// that VirtualService is ever reached, but merged ones of others are to come before it.
fn up_to_catch_all(rules: Vec<HttpRule>) -> Vec<HttpRule> {
    let mut kept = Vec::new();
    for mut rule in rules {
        let Some(place) = rule.matches.iter().position(is_catch_all) else {
            let ends = rule.matches.is_empty();
            kept.push(rule);
            if ends {
                break;
            }
            continue;
        };
        let number =
            |rule: &HttpRule, index: usize| u32::try_from(rule.match_number(index)).unwrap_or(u32::MAX);
        let mut last = rule.clone();
        last.numbers = vec![number(&rule, place)];
        last.matches = vec![rule.matches[place].clone()];
        rule.numbers = (0..place).map(|index| number(&rule, index)).collect();
        rule.matches.truncate(place);
        if place > 0 {
            kept.push(rule);
        }
        kept.push(last);
        break;
    }
    kept
}

/// Whether a rule's only match is one of everything.
fn takes_everything(rule: &HttpRule) -> bool {
    match rule.matches.as_slice() {
        [] => true,
        [only] => is_catch_all(only),
        _ => false,
    }
}

/// Prefix `/` or regex `.*` with no other condition.
fn is_catch_all(condition: &RequestMatch) -> bool {
    let path = match &condition.uri {
        None => true,
        Some(TextMatch::Prefix(prefix) | TextMatch::PrefixIgnoringCase(prefix)) => &**prefix == "/",
        Some(TextMatch::Regex(pattern)) => pattern.source() == ".*",
        Some(_) => false,
    };
    path && RequestMatch { uri: None, name: None, ..condition.clone() } == RequestMatch::default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::virtual_service::HttpMatch;
    use crate::state::sample::{declare, http_route, labels, mesh, virtual_service};

    /// `PORT PROTOCOL HOST...` of each server.
    fn gateway_of(id: &str, selector: &str, servers: &[&str]) -> Arc<Resource> {
        let server = |text: &&str| {
            let mut words = text.split(' ');
            let port = words.next().unwrap().parse().unwrap();
            let protocol = words.next().unwrap();
            let protocol = Protocol::from_name(protocol).unwrap();
            let host = |text: &str| match text.split_once('/') {
                None => ServerHost { namespace: HostNamespace::All, host: text.into() },
                Some((".", host)) => ServerHost { namespace: HostNamespace::Own, host: host.into() },
                Some((name, host)) => {
                    ServerHost { namespace: HostNamespace::Named(name.into()), host: host.into() }
                }
            };
            let (name, port_name, bind, tls) =
                (None, "p".into(), None, protocol.is_tls().then(ServerTls::default));
            Server { name, port, port_name, protocol, bind, hosts: words.map(host).collect(), tls }
        };
        let servers = servers.iter().map(server).collect();
        declare(id, Spec::Gateway(Declared { selector: labels(selector), servers }))
    }

    fn bound(id: &str, hosts: &[&str], paths: &[Option<&str>]) -> Arc<Resource> {
        let routes = paths.iter().map(|path| http_route(*path, None, &["a"])).collect();
        let mut resource = virtual_service(id, hosts, routes);
        if let Spec::VirtualService(rules) = &mut Arc::make_mut(&mut resource).spec {
            rules.gateways = vec![GatewayRef::Named { namespace: "default".into(), name: "g".into() }];
        }
        resource
    }

    fn compiled(resources: Vec<Arc<Resource>>) -> Gateway {
        let state = mesh(resources);
        let key = ResourceKey { kind: Kind::Gateway, namespace: "default".into(), name: "g".into() };
        match gateway(&state, &key) {
            Some(Section::Gateway(section)) => section,
            other => panic!("{other:?}"),
        }
    }

    /// `host: path path` of each virtual host of the first listener, with `*` for what takes everything.
    fn hosts_of(gateway: &Gateway) -> Vec<String> {
        let host = |host: &VirtualHost| {
            let paths = host.routes.http.iter().map(|rule| match rule.matches.first() {
                None => "*".to_owned(),
                Some(first) => first.uri.as_ref().map_or("*".to_owned(), |uri| uri.to_string()),
            });
            format!("{}: {}", host.routes.at.host, paths.collect::<Vec<_>>().join(" "))
        };
        gateway.listeners[0].virtual_hosts.iter().map(host).collect()
    }

    #[test]
    fn hosts_of_both_sides_are_narrowed_and_namespaces_kept_apart() {
        let server = "80 http *.com ./own.org prod/theirs.org *.deep.net";
        let rules = bound("default/v", &["a.com", "own.org", "theirs.org", "*.net", "com"], &[None]);
        let found = hosts_of(&compiled(vec![gateway_of("default/g", "app=g", &[server]), rules]));
        assert_eq!(found, ["own.org: *", "a.com: *", "*.deep.net: *"]);
    }

    #[test]
    fn virtual_services_are_merged_by_age_with_what_takes_everything_last() {
        let resources = vec![
            gateway_of("default/g", "app=g", &["80 http *"]),
            bound("default/old@1", &["a.com"], &[Some("/1"), Some("/"), Some("/never")]),
            bound("default/young@2", &["a.com"], &[Some("/2"), None]),
            bound("default/other@3", &["*.com"], &[Some("/3")]),
        ];
        let found = hosts_of(&compiled(resources));
        assert_eq!(found, ["a.com: /1* /2* /* *", "*.com: /3*"]);
    }

    #[test]
    fn a_rule_is_split_at_its_match_of_everything() {
        let mut resource = bound("default/v", &["a.com"], &[Some("/1")]);
        if let Spec::VirtualService(rules) = &mut Arc::make_mut(&mut resource).spec {
            let all = HttpMatch { request: RequestMatch::default(), port: None, gateways: Vec::new() };
            rules.http[0].matches.push(all);
        }
        let second = bound("default/w", &["a.com"], &[Some("/2")]);
        let gateway = compiled(vec![gateway_of("default/g", "app=g", &["80 http *"]), resource, second]);
        assert_eq!(hosts_of(&gateway), ["a.com: /1* /2* *"]);
        let last = gateway.listeners[0].virtual_hosts[0].routes.http.last().unwrap();
        assert_eq!(
            (last.numbers.as_slice(), &last.origin.resource),
            (&[1][..], &"virtualservice/default/v".into())
        );
    }

    #[test]
    fn a_port_speaks_one_protocol() {
        let resources = vec![
            gateway_of("default/g@1", "app=g", &["80 http a.com", "443 https a.com", "9 tcp *"]),
            gateway_of("other/young@2", "app=g", &["80 http b.com", "80 tcp *", "443 tls c.com", "9 tcp *"]),
            gateway_of("other/wide@3", "", &["443 http d.com"]),
            gateway_of("other/elsewhere@0", "app=x", &["80 tcp *"]),
        ];
        let found = compiled(resources);
        let shown: Vec<_> = found
            .listeners
            .iter()
            .map(|l| format!("{}: {} kept, {} dropped", l.port, l.servers.len(), l.dropped.len()))
            .collect();
        assert_eq!(shown, ["9: 1 kept, 1 dropped", "80: 2 kept, 1 dropped", "443: 2 kept, 1 dropped"]);
    }
}
