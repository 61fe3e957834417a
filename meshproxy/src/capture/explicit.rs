//! The sockets that do not depend on what is declared: the HTTP proxy and the mesh listener.

use std::net::SocketAddr;

use super::{Purpose, Wanted};

/// The mesh listener and, where applications may use it, the HTTP proxy.
pub fn wanted(inbound: SocketAddr, explicit: Option<SocketAddr>) -> Vec<Wanted> {
    let mut wanted = vec![Wanted { address: inbound.into(), purpose: Purpose::Inbound }];
    wanted.extend(explicit.map(|address| Wanted { address: address.into(), purpose: Purpose::Explicit }));
    wanted
}
