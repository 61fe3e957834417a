//! How the traffic of applications gets here: which sockets shall be open. Opening them is the listeners' task.

pub mod bound;
pub mod explicit;
pub mod loopback;
pub mod transparent;

use ipnet::Ipv4Net;
use mesh_core::snapshot::view::Bind;
use mesh_core::vocab::name::{ServicePort, Text};
use mesh_core::vocab::protocol::Protocol;

/// A socket that shall be open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Where.
    pub address: Bind,
    /// What is accepted there.
    pub purpose: Purpose,
}

/// What is accepted on a socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// The mesh hop: mutual TLS from other proxies.
    Inbound,
    /// HTTP proxy requests and CONNECT.
    Explicit,
    /// Connections to one port of a service.
    Service(ServicePort),
    /// What a Sidecar lets out there.
    Bound(Box<Bound>),
    /// Captured connections of applications of this host, with the net of services' addresses among their
    /// destinations.
    Leaving(Option<Ipv4Net>),
    /// Captured connections to applications of this host.
    Entering,
}

/// A socket that a Sidecar asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Bound {
    /// The view whose Sidecar that is.
    pub view: Text,
    /// Index of its entry.
    pub listener: usize,
    /// The port of services that is meant; `None` where requests say it.
    pub port: Option<u16>,
    /// What is spoken there.
    pub protocol: Protocol,
    /// Where byte streams go of which nothing more is known.
    pub behind: Option<ServicePort>,
}
