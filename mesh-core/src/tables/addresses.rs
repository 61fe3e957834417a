//! Whose an address is: what captured connections are looked up in. Arranged only where connections are captured, as
//! nothing else asks.

use std::collections::HashSet;
use std::net::SocketAddr;

use super::destinations::{Dial, Transport};
use super::{Index, Tables};
use crate::vocab::protocol::Protocol;

/// An endpoint of a destination, by indices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The destination.
    pub destination: usize,
    /// Its endpoint.
    pub endpoint: usize,
}

/// Addresses of one version's tables.
#[derive(Debug, Default)]
pub struct Addresses {
    /// Those over the mesh hop first, of equals the destinations in their order.
    endpoints: Index<SocketAddr, Vec<Place>>,
    /// Services by the offset of their address in each host's loopback net.
    offsets: Index<u32, usize>,
    /// Ports of services on which what a client says first may tell the service.
    telling: HashSet<u16>,
}

impl Addresses {
    /// Arranges the addresses of tables.
    pub fn of(tables: &Tables) -> Addresses {
        let mut addresses = Addresses::default();
        // The rules of a host that no service has hold on this port.
        addresses.telling.insert(80);
        for (index, table) in tables.services.iter().enumerate() {
            if let (Some(offset), None) = (table.service.offset, &table.service.scope) {
                addresses.offsets.entry(offset).or_insert(index);
            }
            let ports = table.service.ports.iter();
            let ports = ports.filter(|port| !matches!(port.protocol, Protocol::Tcp | Protocol::Udp));
            addresses.telling.extend(ports.map(|port| port.number));
        }
        for (index, destination) in tables.destinations.iter().enumerate() {
            if destination.policy.key.subset.is_some() || destination.policy.key.scope.is_some() {
                continue;
            }
            for (endpoint, declared) in destination.endpoints.iter().enumerate() {
                let Dial::Ip(address) = declared.address else { continue };
                let place = Place { destination: index, endpoint };
                let places: &mut Vec<Place> = addresses.endpoints.entry(address).or_default();
                match declared.transport {
                    Transport::Mesh { .. } => {
                        let is_mesh = |place: &Place| {
                            let endpoint = &tables.destinations[place.destination].endpoints[place.endpoint];
                            matches!(endpoint.transport, Transport::Mesh { .. })
                        };
                        let before = places.iter().take_while(|place| is_mesh(place)).count();
                        places.insert(before, place);
                    }
                    Transport::Plaintext | Transport::Tls | Transport::Unreachable => places.push(place),
                }
            }
        }
        addresses
    }

    /// The endpoints at an address and port, the one to be preferred first.
    pub fn endpoints(&self, address: SocketAddr) -> &[Place] {
        self.endpoints.get(&address).map_or(&[], Vec::as_slice)
    }

    /// The service whose address in a loopback net has this offset.
    pub fn at_offset(&self, offset: u32) -> Option<usize> {
        self.offsets.get(&offset).copied()
    }

    /// Whether what a client says first may tell the service, on a port of an address that is nobody's.
    pub fn may_tell(&self, port: u16) -> bool {
        self.telling.contains(&port)
    }
}
