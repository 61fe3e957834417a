//! Host, then rules, with every backend resolved to a destination.

use std::sync::Arc;

use crate::matching::authority::host_matches;
use crate::routing::rule::{HttpRule, TcpRule};
use crate::snapshot::routes::Routes;
use crate::snapshot::service::Service;
use crate::vocab::name::{Text, WorkloadKey};

/// A service with the rules of its ports.
#[derive(Debug)]
pub struct ServiceTable {
    /// The service.
    pub service: Arc<Service>,
    /// Rules by port number.
    pub(crate) ports: Vec<(u16, Arc<RouteTable>)>,
}

impl ServiceTable {
    /// The rules of a port.
    pub fn routes(&self, port: u16) -> Option<&Arc<RouteTable>> {
        self.ports.iter().find(|(number, _)| *number == port).map(|(_, routes)| routes)
    }
}

/// The rules of a host and port. Rules and their resolved backends have the same indices.
#[derive(Debug)]
pub struct RouteTable {
    /// The rules.
    pub section: Arc<Routes>,
    /// What callers get whom no rule concerns (all their `sourceLabels` name others): the default route. It has
    /// the index after the last rule.
    pub(crate) fallback: Option<Box<Fallback>>,
    pub(crate) http: Vec<Vec<Resolved>>,
    pub(crate) tcp: Vec<Vec<Resolved>>,
}

/// The default routes of a service port.
#[derive(Debug)]
pub(crate) struct Fallback {
    pub(crate) http: HttpRule,
    pub(crate) tcp: TcpRule,
}

impl RouteTable {
    /// A rule for requests.
    pub fn http_rule(&self, index: usize) -> &HttpRule {
        match (&self.fallback, self.section.http.get(index)) {
            (Some(fallback), None) => &fallback.http,
            _ => &self.section.http[index],
        }
    }

    /// A rule for byte streams.
    pub fn tcp_rule(&self, index: usize) -> &TcpRule {
        match (&self.fallback, self.section.tcp.get(index)) {
            (Some(fallback), None) => &fallback.tcp,
            _ => &self.section.tcp[index],
        }
    }

    /// The destination of a backend for callers of a namespace; `None` if there is none (503 NC).
    pub fn http_destination(&self, rule: usize, backend: usize, namespace: Option<&str>) -> Option<usize> {
        self.http.get(rule)?.get(backend)?.for_namespace(namespace)
    }

    /// The same for a byte stream.
    pub fn tcp_destination(&self, rule: usize, backend: usize, namespace: Option<&str>) -> Option<usize> {
        self.tcp.get(rule)?.get(backend)?.for_namespace(namespace)
    }
}

/// The destinations of a backend: one for everybody, and those of namespaces that have a DestinationRule of their own.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub(crate) general: Option<usize>,
    /// Every namespace that shapes this host for its own clients, with the destination if it defines it.
    pub(crate) scoped: Vec<(Text, Option<usize>)>,
}

impl Resolved {
    fn for_namespace(&self, namespace: Option<&str>) -> Option<usize> {
        let own =
            namespace.and_then(|wanted| self.scoped.iter().find(|(namespace, _)| &**namespace == wanted));
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
    pub(crate) routes: Arc<RouteTable>,
}

/// The most specific of such hosts; the list is sorted most specific first.
pub(crate) fn unowned<'t>(list: &'t [HostRoutes], host: &str, port: u16) -> Option<&'t Arc<RouteTable>> {
    let found = list.iter().find(|entry| entry.port == port && host_matches(&entry.host, host));
    found.map(|entry| &entry.routes)
}

/// What live state is kept under: an endpoint of a destination.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EndpointKey {
    /// The destination's key, displayed.
    pub destination: Text,
    /// The workload.
    pub workload: WorkloadKey,
    /// Its port.
    pub port: u16,
}
