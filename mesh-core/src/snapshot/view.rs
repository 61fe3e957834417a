//! What a caller sees of the mesh.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::matching::scope::{EgressListener, listener};
use crate::routing::rule::Backend;
use crate::snapshot::service::Service;
use crate::vocab::name::Text;
use crate::vocab::protocol::Protocol;

/// What the callers of one view see: those of a namespace that one Sidecar holds for. Its key is the `scope` of the
/// sections that differ for them from what everybody else finds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct View {
    /// Name; empty for callers that are not known.
    pub key: Text,
    /// Namespace of the callers; empty where it is not known.
    pub namespace: Text,
    /// The Sidecar that holds.
    pub origin: Option<Text>,
    /// What it imports, port by port; `None` for all that is exported to the namespace.
    pub egress: Option<Vec<EgressListener>>,
    /// Sockets that its callers find on their host, beside those by which they are captured.
    pub bound: Vec<BoundListener>,
    /// What becomes of traffic for hosts that the view does not know.
    pub outbound: Outbound,
    /// Time to connect to such a host; `None` for the usual one.
    pub connect_timeout: Option<Duration>,
}

/// A socket that a Sidecar asks for (`egress[].bind`, `captureMode: NONE`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BoundListener {
    /// Where it is.
    pub at: Bind,
    /// What is spoken there.
    pub protocol: Protocol,
    /// The port of services that is meant there; `None` where requests say it: on Unix sockets and for HTTP proxies.
    pub port: Option<u16>,
    /// Index of the entry of `egress` whose hosts are reached there.
    pub listener: usize,
}

/// Where a socket of this host is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bind {
    /// Address and port.
    Ip(SocketAddr),
    /// A path, or `@NAME`.
    Unix(Text),
}

impl Bind {
    /// Address and port, if it has them.
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            Bind::Ip(address) => Some(*address),
            Bind::Unix(_) => None,
        }
    }
}

impl From<SocketAddr> for Bind {
    fn from(address: SocketAddr) -> Bind {
        Bind::Ip(address)
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bind::Ip(address) => address.fmt(f),
            Bind::Unix(path) => write!(f, "unix://{path}"),
        }
    }
}

/// What becomes of traffic for unknown hosts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Outbound {
    /// It goes where it was sent (ALLOW_ANY), or to this backend where there is one (`egressProxy`).
    Allow(Option<Backend>),
    /// It is refused (REGISTRY_ONLY).
    Refuse,
}

impl Default for Outbound {
    fn default() -> Outbound {
        Outbound::Allow(None)
    }
}

impl View {
    /// Whether its callers may address a service on a port. A rule may lead them to any service that is exported
    /// to them, addressed or not.
    pub fn sees(&self, service: &Service, port: u16) -> bool {
        self.sees_at(None, service, port)
    }

    /// The same for those that came through a socket of a Sidecar, by the index of its entry.
    pub fn sees_at(&self, listener: Option<usize>, service: &Service, port: u16) -> bool {
        service.is_exported_to(&self.namespace)
            && self.imports(listener, port, |listener| listener.imports(&service.namespace, &service.host))
    }

    /// Whether its callers see the rules of a VirtualService of a namespace for a host that no service has.
    pub fn sees_rules(&self, namespace: &str, host: &str, port: u16) -> bool {
        self.imports(None, port, |listener| listener.imports_rules(namespace, host))
    }

    fn imports(&self, at: Option<usize>, port: u16, test: impl Fn(&EgressListener) -> bool) -> bool {
        self.egress.as_ref().is_none_or(|listeners| {
            let found = match at {
                Some(index) => listeners.get(index),
                None => listener(listeners, port),
            };
            found.is_some_and(test)
        })
    }
}
