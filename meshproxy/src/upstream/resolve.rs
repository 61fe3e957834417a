//! Names of services outside the mesh, and the guard against dialling ourselves.

use std::net::SocketAddr;
use std::time::Duration;

use super::failure::ConnectError;
use crate::live::root::{Root, Roots};

const PATIENCE: Duration = Duration::from_secs(5);

/// The addresses of a host outside the mesh, none of which is a listener of ours.
pub async fn outside(roots: &Roots, host: &str, port: u16) -> Result<Vec<SocketAddr>, ConnectError> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let found: Vec<SocketAddr> = match bare.parse() {
        Ok(ip) => vec![SocketAddr::new(ip, port)],
        Err(_) => tokio::time::timeout(PATIENCE, tokio::net::lookup_host((bare, port)))
            .await
            .map_err(|_elapsed| ConnectError::Resolve("timeout".to_owned()))?
            .map_err(|error| ConnectError::Resolve(error.to_string()))?
            .collect(),
    };
    if found.is_empty() {
        return Err(ConnectError::Resolve("no address".to_owned()));
    }
    let root = roots.load();
    let others: Vec<SocketAddr> =
        found.into_iter().filter(|address| !is_own(roots, &root, *address)).collect();
    if others.is_empty() { Err(ConnectError::Loop) } else { Ok(others) }
}

/// Whether an address is one of our own listeners.
pub fn is_own(roots: &Roots, root: &Root, address: SocketAddr) -> bool {
    let ours = |ip: std::net::IpAddr| {
        ip.is_loopback()
            || ip.is_unspecified()
            || root.locals.iter().any(|local| local.hosted.section.address == ip)
    };
    roots.sockets().open.iter().any(|open| {
        open.port() == address.port()
            && (open.ip() == address.ip() || (open.ip().is_unspecified() && ours(address.ip())))
    })
}
