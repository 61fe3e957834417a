//! Host, then rules, with every backend resolved to a destination.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::condition_index::ConditionIndex;
use super::hosts::Hosts;
use crate::matching::request::{Caller, Request, RequestMatch};
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
    /// Rules by port number and view, in this order.
    pub(crate) scoped: Vec<(u16, Text, Arc<RouteTable>)>,
}

impl ServiceTable {
    /// The rules of a port, for callers whose view finds no others.
    pub fn routes(&self, port: u16) -> Option<&Arc<RouteTable>> {
        self.ports.iter().find(|(number, _)| *number == port).map(|(_, routes)| routes)
    }

    /// The rules of a port for callers of a view.
    pub fn routes_for(&self, port: u16, view: Option<&str>) -> Option<&Arc<RouteTable>> {
        self.own_routes(port, view).or_else(|| self.routes(port))
    }

    /// The rules of a port that are a view's own.
    pub(crate) fn own_routes(&self, port: u16, view: Option<&str>) -> Option<&Arc<RouteTable>> {
        let wanted = (port, view.filter(|_| !self.scoped.is_empty())?);
        let found =
            self.scoped.binary_search_by(|(number, scope, _)| (*number, &**scope).cmp(&wanted)).ok()?;
        self.scoped.get(found).map(|(.., routes)| routes)
    }
}

/// The rules of a host and port. Rules and their resolved backends have the same indices.
#[derive(Debug)]
pub struct RouteTable {
    /// The rules. Where they have a fallback it has the index after the last rule of a list.
    pub section: Arc<Routes>,
    conditions: Option<ConditionIndex>,
    /// A match for each kind of caller that the rules for requests are for, by rule and match; `None` where some rule is
    /// for all callers.
    audiences: Option<Vec<(usize, usize)>>,
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
            conditions: ConditionIndex::new(&section.http),
            audiences: audiences(&section.http),
            section,
        }
    }

    /// The first rule of the list for requests that has no condition or one that `holds`, with that condition. It is
    /// asked only about those that may hold, in the order of the list.
    pub(crate) fn first_http(
        &self,
        request: &Request<'_>,
        mut holds: impl FnMut(&RequestMatch) -> bool,
    ) -> Option<(usize, Option<usize>)> {
        let rules = &self.section.http;
        if let Some(index) = &self.conditions {
            return index.first(request, |rule, condition| {
                condition.is_none_or(|condition| holds(&rules[rule].matches[condition]))
            });
        }
        rules.iter().enumerate().find_map(|(number, rule)| {
            let held = rule.matches.iter().position(&mut holds);
            (rule.matches.is_empty() || held.is_some()).then_some((number, held))
        })
    }

    /// Whether every rule for requests is for other callers.
    pub(crate) fn is_for_others(&self, caller: Option<&Caller<'_>>) -> bool {
        let concerns = |(rule, condition): &(usize, usize)| {
            self.section.http[*rule].matches[*condition].concerns(caller)
        };
        self.audiences.as_ref().is_some_and(|audiences| !audiences.iter().any(concerns))
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
    /// Every view that shapes this host for its own callers, with the destination if it defines it; in the order of
    /// the views.
    pub(crate) scoped: Vec<(Text, Option<usize>)>,
}

impl Resolved {
    pub(crate) fn for_view(&self, view: Option<&str>) -> Option<usize> {
        let own = view
            .filter(|_| !self.scoped.is_empty())
            .and_then(|wanted| self.scoped.binary_search_by(|(view, _)| (**view).cmp(wanted)).ok());
        match own.and_then(|own| self.scoped.get(own)) {
            Some((_, destination)) => *destination,
            None => self.general,
        }
    }
}

/// One condition for each kind of caller that the conditions of a list name, if all rules name some.
fn audiences(rules: &[HttpRule]) -> Option<Vec<(usize, usize)>> {
    let mut known = HashSet::new();
    let mut found = Vec::new();
    for (number, rule) in rules.iter().enumerate() {
        if rule.matches.is_empty() {
            return None;
        }
        for (within, condition) in rule.matches.iter().enumerate() {
            if condition.caller_labels.is_empty() && condition.caller_namespace.is_none() {
                return None;
            }
            if known.insert((&condition.caller_labels, &condition.caller_namespace)) {
                found.push((number, within));
            }
        }
    }
    Some(found)
}

/// Rules of a host that no service has (a VirtualService alone), possibly a wildcard.
#[derive(Debug)]
pub(crate) struct HostRoutes {
    pub(crate) host: Text,
    pub(crate) port: u16,
    pub(crate) scope: Option<Text>,
    pub(crate) routes: Arc<RouteTable>,
}

/// The rules of all such hosts.
#[derive(Debug, Default)]
pub(crate) struct Unowned {
    /// Of each host by port and view.
    hosts: Hosts<Vec<HostRoutes>>,
}

impl Unowned {
    /// Arranges rules.
    pub(crate) fn new(list: impl IntoIterator<Item = HostRoutes>) -> Unowned {
        let mut by_host: BTreeMap<Text, Vec<HostRoutes>> = BTreeMap::new();
        for entry in list {
            by_host.entry(entry.host.clone()).or_default().push(entry);
        }
        for entries in by_host.values_mut() {
            entries.sort_by(|a, b| (a.port, &a.scope).cmp(&(b.port, &b.scope)));
        }
        Unowned { hosts: Hosts::new(by_host) }
    }

    /// Whether this very host is one of them, and no wildcard.
    pub(crate) fn names(&self, host: &str) -> bool {
        self.hosts.named(host).is_some()
    }

    /// The most specific of the hosts that callers of a view know. Of one host the rules of the view count; where
    /// these are empty its callers do not know the host. `seen` tells of rules that are not the view's own whether its
    /// callers see them.
    pub(crate) fn find(
        &self,
        host: &str,
        port: u16,
        view: Option<&str>,
        seen: impl Fn(&HostRoutes) -> bool,
    ) -> Option<&Arc<RouteTable>> {
        self.hosts.most_specific(host, |entries| {
            let of = |scope: Option<&str>| {
                let found = entries
                    .binary_search_by(|entry| (entry.port, entry.scope.as_deref()).cmp(&(port, scope)));
                found.ok().map(|index| &entries[index])
            };
            let own = view.and_then(|view| of(Some(view)));
            let chosen = own.or_else(|| of(None))?;
            let visible = chosen.scope.is_some() || seen(chosen);
            (visible && !chosen.routes.section.http.is_empty()).then_some(&chosen.routes)
        })
    }
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
