//! Host, then rules, with every backend resolved to a destination.

use std::sync::Arc;

use super::path_index::PathIndex;
use crate::matching::authority::host_matches;
use crate::routing::mirror::Mirror;
use crate::routing::rule::{Backend, HttpRule, RuleAction, TcpRule};
use crate::snapshot::routes::Routes;
use crate::snapshot::service::Service;
use crate::vocab::name::{Text, WorkloadKey};

/// A service with the rules of its ports.
#[derive(Debug)]
pub struct ServiceTable {
    /// The service.
    pub service: Arc<Service>,
    /// Rules by port number, for callers whose view finds no others.
    pub(crate) ports: Vec<(u16, Arc<RouteTable>)>,
    /// Rules by port number and view.
    pub(crate) scoped: Vec<(u16, Text, Arc<RouteTable>)>,
}

impl ServiceTable {
    /// The rules of a port, for callers whose view finds no others.
    pub fn routes(&self, port: u16) -> Option<&Arc<RouteTable>> {
        self.ports.iter().find(|(number, _)| *number == port).map(|(_, routes)| routes)
    }

    /// The rules of a port for callers of a view.
    pub fn routes_for(&self, port: u16, view: Option<&str>) -> Option<&Arc<RouteTable>> {
        let own = view.filter(|_| !self.scoped.is_empty()).and_then(|view| {
            self.scoped.iter().find(|(number, scope, _)| *number == port && **scope == *view)
        });
        own.map(|(_, _, routes)| routes).or_else(|| self.routes(port))
    }
}

/// The rules of a host and port. Rules and their resolved backends have the same indices.
#[derive(Debug)]
pub struct RouteTable {
    /// The rules. Where they have a fallback it has the index after the last rule of a list.
    pub section: Arc<Routes>,
    paths: Option<PathIndex>,
    http: Vec<ResolvedRule>,
    tcp: Vec<Vec<Resolved>>,
    tls: Vec<Vec<Resolved>>,
}

/// The destinations of a rule for requests.
#[derive(Debug, Default)]
struct ResolvedRule {
    backends: Vec<Resolved>,
    mirrors: Vec<Resolved>,
}

/// Which of the two lists of rules for streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    /// Byte streams.
    Tcp,
    /// TLS that is passed on.
    Tls,
}

/// A destination as a rule names it: host, port, subset.
pub(crate) type Named<'a> = (&'a Text, u16, Option<&'a Text>);

impl RouteTable {
    /// Arranges rules. `resolve` finds what a backend or mirror names.
    pub(crate) fn new(section: Arc<Routes>, resolve: impl Fn(Named<'_>) -> Resolved) -> RouteTable {
        let backends = |list: &[Backend]| -> Vec<Resolved> {
            list.iter().map(|b| resolve((&b.host, b.port, b.subset.as_ref()))).collect()
        };
        let mirrors = |list: &[Mirror]| -> Vec<Resolved> {
            list.iter().map(|m| resolve((&m.host, m.port, m.subset.as_ref()))).collect()
        };
        let fallback = section.fallback.as_deref();
        let http = section.http.iter().chain(fallback.map(|fallback| &fallback.http));
        let http = http.map(|rule| match &rule.action {
            RuleAction::Route { backends: list, .. } => {
                ResolvedRule { backends: backends(list), mirrors: mirrors(&rule.mirrors) }
            }
            RuleAction::Redirect(_) | RuleAction::DirectResponse(_) => ResolvedRule::default(),
        });
        let streams = |rules: &[TcpRule]| -> Vec<Vec<Resolved>> {
            let rules = rules.iter().chain(fallback.map(|fallback| &fallback.stream));
            rules.map(|rule| backends(&rule.backends)).collect()
        };
        RouteTable {
            http: http.collect(),
            tcp: streams(&section.tcp),
            tls: streams(&section.tls),
            paths: PathIndex::new(&section.http),
            section,
        }
    }

    /// The first rule of the list for requests that `matches`. It is asked about rules in any order, and only about
    /// those that may match the path.
    pub(crate) fn first_http<M>(
        &self,
        path: &str,
        mut matches: impl FnMut(usize) -> Option<M>,
    ) -> Option<(usize, M)> {
        match &self.paths {
            Some(index) => index.first(path, matches),
            None => (0..self.section.http.len()).find_map(|rule| Some((rule, matches(rule)?))),
        }
    }

    /// A rule for requests.
    pub fn http_rule(&self, index: usize) -> &HttpRule {
        match (&self.section.fallback, self.section.http.get(index)) {
            (Some(fallback), None) => &fallback.http,
            _ => &self.section.http[index],
        }
    }

    /// A rule for streams.
    pub fn stream_rule(&self, kind: StreamKind, index: usize) -> &TcpRule {
        let rules = self.stream_rules(kind);
        match (&self.section.fallback, rules.get(index)) {
            (Some(fallback), None) => &fallback.stream,
            _ => &rules[index],
        }
    }

    /// The rules for streams, without the fallback.
    pub fn stream_rules(&self, kind: StreamKind) -> &[TcpRule] {
        match kind {
            StreamKind::Tcp => &self.section.tcp,
            StreamKind::Tls => &self.section.tls,
        }
    }

    /// The destination of a backend for callers of a view; `None` if there is none (503 NC).
    pub fn http_destination(&self, rule: usize, backend: usize, view: Option<&str>) -> Option<usize> {
        self.http.get(rule)?.backends.get(backend)?.for_view(view)
    }

    /// The destination of a mirror for callers of a view; `None` if there is none: then nothing is copied.
    pub fn mirror_destination(&self, rule: usize, mirror: usize, view: Option<&str>) -> Option<usize> {
        self.http.get(rule)?.mirrors.get(mirror)?.for_view(view)
    }

    /// The destination of a backend of a rule for streams.
    pub fn stream_destination(
        &self,
        kind: StreamKind,
        rule: usize,
        backend: usize,
        view: Option<&str>,
    ) -> Option<usize> {
        let resolved = match kind {
            StreamKind::Tcp => &self.tcp,
            StreamKind::Tls => &self.tls,
        };
        resolved.get(rule)?.get(backend)?.for_view(view)
    }
}

/// The destinations of a backend: one for everybody, and those of views that have a DestinationRule of their own.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub(crate) general: Option<usize>,
    /// Every view that shapes this host for its own callers, with the destination if it defines it.
    pub(crate) scoped: Vec<(Text, Option<usize>)>,
}

impl Resolved {
    pub(crate) fn for_view(&self, view: Option<&str>) -> Option<usize> {
        let own = view
            .filter(|_| !self.scoped.is_empty())
            .and_then(|wanted| self.scoped.iter().find(|(view, _)| &**view == wanted));
        match own {
            Some((_, destination)) => *destination,
            None => self.general,
        }
    }
}

/// Rules of a host that no service has (a VirtualService alone), possibly a wildcard.
#[derive(Debug)]
pub(crate) struct HostRoutes {
    pub(crate) host: Text,
    pub(crate) port: u16,
    pub(crate) scope: Option<Text>,
    pub(crate) routes: Arc<RouteTable>,
}

/// The most specific of such hosts that callers of a view know; the list is sorted most specific first. Of one host
/// the rules of the view count; where these are empty its callers do not know the host. `seen` tells of rules that are
/// not the view's own whether its callers see them.
pub(crate) fn unowned<'t>(
    list: &'t [HostRoutes],
    host: &str,
    port: u16,
    view: Option<&str>,
    seen: impl Fn(&HostRoutes) -> bool,
) -> Option<&'t Arc<RouteTable>> {
    let holds = |entry: &&HostRoutes| entry.port == port && host_matches(&entry.host, host);
    let scoped = |entry: &&HostRoutes| entry.scope.as_deref() == view;
    let mut rest =
        list.iter().filter(holds).filter(|entry| entry.scope.is_none() || scoped(entry)).peekable();
    while let Some(first) = rest.next() {
        let mut chosen = first;
        while let Some(other) = rest.next_if(|entry| entry.host == first.host) {
            if other.scope.is_some() {
                chosen = other;
            }
        }
        let visible = chosen.scope.is_some() || seen(chosen);
        if visible && !chosen.routes.section.http.is_empty() {
            return Some(&chosen.routes);
        }
    }
    None
}

/// What live state is kept under: an endpoint of a destination.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EndpointKey {
    /// The destination's key, displayed.
    pub destination: Text,
    /// The workload.
    pub workload: WorkloadKey,
    /// Its address, where it is one.
    pub address: Option<std::net::IpAddr>,
    /// Its port.
    pub port: u16,
}
