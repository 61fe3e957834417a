//! An address for each service: the base of the loopback net plus the offset that meshd assigned once and for all.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::Ipv4Net;
use mesh_core::snapshot::service::Service;
use mesh_core::vocab::name::ServicePort;
use mesh_core::vocab::protocol::Protocol;

use super::{Purpose, Wanted};

/// The address of a service on this host; `None` if it has no offset or the net is too small for it.
pub fn address(net: Ipv4Net, service: &Service) -> Option<Ipv4Addr> {
    let address = Ipv4Addr::from(u32::from(net.network()).checked_add(service.offset?)?);
    net.contains(&address).then_some(address)
}

/// The sockets of one service: each of its ports that carries a byte stream.
pub fn wanted(net: Ipv4Net, service: &Service) -> Vec<Wanted> {
    let Some(address) = address(net, service) else { return Vec::new() };
    let streams = service.ports.iter().filter(|port| port.protocol != Protocol::Udp);
    streams
        .map(|port| Wanted {
            address: SocketAddr::new(IpAddr::V4(address), port.number).into(),
            purpose: Purpose::Service(ServicePort { host: service.host.clone(), port: port.number }),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use mesh_core::snapshot::service::Port;
    use mesh_core::vocab::origin::Origin;
    use mesh_core::vocab::resolution::Resolution;

    use super::*;

    fn service(offset: Option<u32>, ports: &[(u16, Protocol)]) -> Service {
        Service {
            host: "reviews.default.svc.cluster.local".into(),
            namespace: "default".into(),
            origin: Origin { resource: "service/default/reviews".into(), rule: None },
            names: Vec::new(),
            short_name: Some("reviews".into()),
            ports: ports
                .iter()
                .map(|&(number, protocol)| Port { number, name: "".into(), protocol })
                .collect(),
            addresses: Vec::new(),
            offset,
            scope: None,
            exported_to: None,
            aliases: Vec::new(),
            networks: Vec::new(),
            auto_address: None,
            resolution: Resolution::Static,
            headless: false,
            stands_for: None,
            external: false,
        }
    }

    #[test]
    fn base_plus_offset_while_the_net_lasts() {
        let net: Ipv4Net = "127.64.0.0/30".parse().unwrap();
        let check = |offset, expected: Option<&str>| {
            let expected = expected.map(|text| text.parse().unwrap());
            assert_eq!(address(net, &service(offset, &[])), expected, "{offset:?}");
        };
        check(Some(3), Some("127.64.0.3"));
        check(Some(4), None);
        check(Some(u32::MAX), None);
        check(None, None);
    }

    #[test]
    fn a_socket_for_each_stream_port() {
        let net: Ipv4Net = "127.64.0.0/10".parse().unwrap();
        let service = service(Some(1), &[(53, Protocol::Udp), (9080, Protocol::Http)]);
        let wanted = wanted(net, &service);
        assert_eq!(wanted.len(), 1);
        assert_eq!(wanted[0].address.to_string(), "127.64.0.1:9080");
    }
}
