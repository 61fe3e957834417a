//! Connections that the rules of interception hand to us: two sockets for each family, on loopback, so that nobody
//! reaches them but by the rules.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::Ipv4Net;

use super::{Purpose, Wanted};

/// What is captured and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transparent {
    /// Port of outbound connections.
    pub outbound: u16,
    /// Port of inbound connections.
    pub inbound: u16,
    /// Addresses of services that no sockets stand behind.
    pub services: Option<Ipv4Net>,
    /// Whether this host speaks IPv6.
    pub six: bool,
}

/// The sockets.
pub fn wanted(transparent: Transparent) -> Vec<Wanted> {
    let Transparent { outbound, inbound, services, six } = transparent;
    let families = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let mut wanted = Vec::with_capacity(4);
    for family in families.into_iter().take(if six { 2 } else { 1 }) {
        let mut at = |port: u16, purpose| {
            wanted.push(Wanted { address: SocketAddr::new(family, port).into(), purpose });
        };
        at(outbound, Purpose::Leaving(services));
        at(inbound, Purpose::Entering);
    }
    wanted
}

/// The offset of a service's address in the net of such addresses.
pub fn offset(services: Option<Ipv4Net>, address: IpAddr) -> Option<u32> {
    match (services, address.to_canonical()) {
        (Some(net), IpAddr::V4(address)) if net.contains(&address) => {
            Some(u32::from(address) - u32::from(net.network()))
        }
        _ => None,
    }
}

/// Whether this host speaks IPv6 at all.
pub fn speaks_six() -> bool {
    std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_those_of_the_net() {
        let net: Ipv4Net = "127.64.0.0/10".parse().unwrap();
        let check = |net, address: &str, expected| {
            assert_eq!(offset(net, address.parse().unwrap()), expected, "{address}");
        };
        check(Some(net), "127.64.0.3", Some(3));
        check(Some(net), "::ffff:127.64.1.0", Some(256));
        check(Some(net), "127.0.0.1", None);
        check(Some(net), "::1", None);
        check(None, "127.64.0.3", None);
    }
}
