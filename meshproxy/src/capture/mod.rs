//! How the traffic of applications gets here: which sockets shall be open. Opening them is the listeners' task.

pub mod explicit;
pub mod loopback;

use std::net::SocketAddr;

use mesh_core::vocab::name::ServicePort;

/// A socket that shall be open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Where.
    pub address: SocketAddr,
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
}
