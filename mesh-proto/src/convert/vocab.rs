//! Names, labels, numbers and addresses.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use mesh_core::vocab::identity::{SpiffeId, TrustDomain};
use mesh_core::vocab::label::Labels;
use mesh_core::vocab::locality::Locality;
use mesh_core::vocab::name::{DestinationKey, ServicePort, Text, WorkloadKey};
use mesh_core::vocab::node::Role;
use mesh_core::vocab::origin::Origin;
use mesh_core::vocab::protocol::{Protocol, UpstreamProtocol};
use mesh_core::vocab::ratio::Ratio;
use mesh_core::vocab::resolution::Resolution;

use super::error::{At as _, ConvertError, Fault};
use super::{Wire, field};
use crate::generated as wire;

impl Wire for Text {
    type Message = String;

    fn to_wire(&self) -> String {
        (**self).to_owned()
    }

    fn from_wire(message: String) -> Result<Text, ConvertError> {
        Ok(message.into())
    }
}

/// Ports and status codes.
impl Wire for u16 {
    type Message = u32;

    fn to_wire(&self) -> u32 {
        u32::from(*self)
    }

    fn from_wire(message: u32) -> Result<u16, ConvertError> {
        u16::try_from(message).map_err(|_| Fault::OutOfRange(message.into()).into())
    }
}

impl Wire for Ratio {
    type Message = u32;

    fn to_wire(&self) -> u32 {
        self.ppm()
    }

    fn from_wire(message: u32) -> Result<Ratio, ConvertError> {
        Ratio::from_ppm(message).ok_or(Fault::OutOfRange(message.into()).into())
    }
}

impl Wire for Duration {
    type Message = wire::Duration;

    fn to_wire(&self) -> wire::Duration {
        wire::Duration { seconds: self.as_secs(), nanos: self.subsec_nanos() }
    }

    fn from_wire(message: wire::Duration) -> Result<Duration, ConvertError> {
        if message.nanos >= 1_000_000_000 {
            return Err(Fault::OutOfRange(message.nanos.into())).at("nanos");
        }
        Ok(Duration::new(message.seconds, message.nanos))
    }
}

impl Wire for IpAddr {
    type Message = Vec<u8>;

    fn to_wire(&self) -> Vec<u8> {
        match self {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        }
    }

    fn from_wire(message: Vec<u8>) -> Result<IpAddr, ConvertError> {
        if let Ok(octets) = <[u8; 4]>::try_from(message.as_slice()) {
            return Ok(octets.into());
        }
        let octets = <[u8; 16]>::try_from(message.as_slice());
        octets.map(IpAddr::from).map_err(|_| Fault::Address(message.len()).into())
    }
}

/// Address and port: a tunnel has no IPv6 flow label or scope.
impl Wire for SocketAddr {
    type Message = wire::SocketAddress;

    fn to_wire(&self) -> wire::SocketAddress {
        wire::SocketAddress { address: self.ip().to_wire(), port: self.port().to_wire() }
    }

    fn from_wire(message: wire::SocketAddress) -> Result<SocketAddr, ConvertError> {
        Ok(SocketAddr::new(field(message.address, "address")?, field(message.port, "port")?))
    }
}

impl Wire for IpNet {
    type Message = String;

    fn to_wire(&self) -> String {
        self.to_string()
    }

    fn from_wire(message: String) -> Result<IpNet, ConvertError> {
        message.parse().map_err(|_| Fault::Network(message).into())
    }
}

impl Wire for TrustDomain {
    type Message = String;

    fn to_wire(&self) -> String {
        self.as_str().to_owned()
    }

    fn from_wire(message: String) -> Result<TrustDomain, ConvertError> {
        Ok(TrustDomain::new(&message).map_err(Fault::from)?)
    }
}

impl Wire for SpiffeId {
    type Message = String;

    fn to_wire(&self) -> String {
        self.as_str().to_owned()
    }

    fn from_wire(message: String) -> Result<SpiffeId, ConvertError> {
        Ok(SpiffeId::parse(&message).map_err(Fault::from)?)
    }
}

impl Wire for Labels {
    type Message = Vec<wire::Label>;

    fn to_wire(&self) -> Vec<wire::Label> {
        self.iter().map(|(key, value)| wire::Label { key: key.to_wire(), value: value.to_wire() }).collect()
    }

    fn from_wire(message: Vec<wire::Label>) -> Result<Labels, ConvertError> {
        Ok(message.into_iter().map(|label| (label.key, label.value)).collect())
    }
}

impl Wire for Locality {
    type Message = wire::Locality;

    fn to_wire(&self) -> wire::Locality {
        let text = |part: &Option<Text>| part.as_ref().map(Wire::to_wire);
        wire::Locality { region: text(&self.region), zone: text(&self.zone), subzone: text(&self.subzone) }
    }

    fn from_wire(message: wire::Locality) -> Result<Locality, ConvertError> {
        let wire::Locality { region, zone, subzone } = message;
        Ok(Locality {
            region: region.map(Text::from),
            zone: zone.map(Text::from),
            subzone: subzone.map(Text::from),
        })
    }
}

impl Wire for Origin {
    type Message = wire::Origin;

    fn to_wire(&self) -> wire::Origin {
        wire::Origin { resource: self.resource.to_wire(), rule: self.rule }
    }

    fn from_wire(message: wire::Origin) -> Result<Origin, ConvertError> {
        Ok(Origin { resource: message.resource.into(), rule: message.rule })
    }
}

/// Two texts that are not namespace and name.
pub(super) fn pairs(list: &[(Text, Text)]) -> Vec<wire::NamePair> {
    let pair =
        |(first, second): &(Text, Text)| wire::NamePair { first: first.to_wire(), second: second.to_wire() };
    list.iter().map(pair).collect()
}

/// The texts of [`pairs`].
pub(super) fn from_pairs(list: Vec<wire::NamePair>) -> Vec<(Text, Text)> {
    list.into_iter().map(|pair| (pair.first.into(), pair.second.into())).collect()
}

/// Several texts.
pub(super) fn texts(list: Vec<String>) -> Vec<Text> {
    list.into_iter().map(Text::from).collect()
}

/// Namespace and name.
impl Wire for (Text, Text) {
    type Message = wire::NamespacedName;

    fn to_wire(&self) -> wire::NamespacedName {
        wire::NamespacedName { namespace: self.0.to_wire(), name: self.1.to_wire() }
    }

    fn from_wire(message: wire::NamespacedName) -> Result<(Text, Text), ConvertError> {
        Ok((message.namespace.into(), message.name.into()))
    }
}

impl Wire for WorkloadKey {
    type Message = wire::NamespacedName;

    fn to_wire(&self) -> wire::NamespacedName {
        wire::NamespacedName { namespace: self.namespace.to_wire(), name: self.name.to_wire() }
    }

    fn from_wire(message: wire::NamespacedName) -> Result<WorkloadKey, ConvertError> {
        Ok(WorkloadKey { namespace: message.namespace.into(), name: message.name.into() })
    }
}

impl Wire for ServicePort {
    type Message = wire::ServicePort;

    fn to_wire(&self) -> wire::ServicePort {
        wire::ServicePort { host: self.host.to_wire(), port: self.port.to_wire() }
    }

    fn from_wire(message: wire::ServicePort) -> Result<ServicePort, ConvertError> {
        Ok(ServicePort { host: message.host.into(), port: field(message.port, "port")? })
    }
}

impl Wire for DestinationKey {
    type Message = wire::DestinationKey;

    fn to_wire(&self) -> wire::DestinationKey {
        wire::DestinationKey {
            host: self.host.to_wire(),
            port: self.port.to_wire(),
            subset: self.subset.as_ref().map(Wire::to_wire),
            scope: self.scope.as_ref().map(Wire::to_wire),
        }
    }

    fn from_wire(message: wire::DestinationKey) -> Result<DestinationKey, ConvertError> {
        Ok(DestinationKey {
            host: message.host.into(),
            port: field(message.port, "port")?,
            subset: message.subset.map(Text::from),
            scope: message.scope.map(Text::from),
        })
    }
}

/// Both directions of an enumeration from one list, so that neither can forget a value. The match over the
/// core's values is exhaustive; a number that is not in the list is an error.
macro_rules! wire_enum {
    ($core:ty, $wire:ty, $($value:ident),+ $(,)?) => {
        impl Wire for $core {
            type Message = i32;

            fn to_wire(&self) -> i32 {
                match self {
                    $(<$core>::$value => <$wire>::$value.into(),)+
                }
            }

            fn from_wire(message: i32) -> Result<Self, ConvertError> {
                $(if message == i32::from(<$wire>::$value) {
                    return Ok(<$core>::$value);
                })+
                Err(Fault::UnknownValue(message).into())
            }
        }
    };
}
pub(super) use wire_enum;

wire_enum!(Role, wire::Role, Host);
wire_enum!(Resolution, wire::Resolution, None, Static, Dns, DnsRoundRobin, DynamicDns);
wire_enum!(UpstreamProtocol, wire::UpstreamProtocol, Http1, Http2, AsClient, Opaque);
wire_enum!(Protocol, wire::Protocol, Auto, Http, Http2, Grpc, GrpcWeb, Https, Tls, Tcp, Udp);
