//! Services, their endpoints, and the workloads of a host.

use mesh_core::snapshot::endpoints::{Endpoint, EndpointAddress, EndpointSlice};
use mesh_core::snapshot::service::{Port, Service};
use mesh_core::snapshot::workload::{Recognition, Workload, WorkloadPort};
use mesh_core::telemetry::Telemetry;
use mesh_core::vocab::health::Health;
use mesh_core::vocab::name::Text;
use mesh_core::vocab::recognition::User;

use super::error::{ConvertError, Fault};
use super::vocab::{from_pairs, pairs, texts, wire_enum};
use super::{Wire, field, list, optional, or_default, required, to_wires};
use crate::generated as wire;

wire_enum!(Health, wire::Health, Unknown, Healthy, Unhealthy);

impl Wire for Service {
    type Message = wire::Service;

    fn to_wire(&self) -> wire::Service {
        wire::Service {
            host: self.host.to_wire(),
            namespace: self.namespace.to_wire(),
            origin: Some(self.origin.to_wire()),
            names: to_wires(&self.names),
            short_name: self.short_name.as_ref().map(Wire::to_wire),
            ports: to_wires(&self.ports),
            addresses: to_wires(&self.addresses),
            offset: self.offset,
            external: self.external,
            scope: self.scope.as_ref().map(Wire::to_wire),
            exported_to: self.exported_to.as_ref().map(|list| wire::Names { names: to_wires(list) }),
            aliases: pairs(&self.aliases),
            networks: to_wires(&self.networks),
            auto_address: self.auto_address.as_ref().map(Wire::to_wire).unwrap_or_default(),
            resolution: self.resolution.to_wire(),
            headless: self.headless,
            stands_for: self.stands_for.as_ref().map(Wire::to_wire),
        }
    }

    fn from_wire(message: wire::Service) -> Result<Service, ConvertError> {
        Ok(Service {
            host: message.host.into(),
            namespace: message.namespace.into(),
            origin: required(message.origin, "origin")?,
            names: list(message.names, "names")?,
            short_name: message.short_name.map(Text::from),
            ports: list(message.ports, "ports")?,
            addresses: list(message.addresses, "addresses")?,
            offset: message.offset,
            external: message.external,
            scope: message.scope.map(Text::from),
            exported_to: message.exported_to.map(|list| texts(list.names)),
            aliases: from_pairs(message.aliases),
            networks: list(message.networks, "networks")?,
            auto_address: match message.auto_address.is_empty() {
                true => None,
                false => Some(field(message.auto_address, "auto_address")?),
            },
            resolution: field(message.resolution, "resolution")?,
            headless: message.headless,
            stands_for: message.stands_for.map(Text::from),
        })
    }
}

impl Wire for Port {
    type Message = wire::Port;

    fn to_wire(&self) -> wire::Port {
        wire::Port {
            number: self.number.to_wire(),
            name: self.name.to_wire(),
            protocol: self.protocol.to_wire(),
        }
    }

    fn from_wire(message: wire::Port) -> Result<Port, ConvertError> {
        Ok(Port {
            number: field(message.number, "number")?,
            name: message.name.into(),
            protocol: field(message.protocol, "protocol")?,
        })
    }
}

impl Wire for EndpointSlice {
    type Message = wire::EndpointSlice;

    fn to_wire(&self) -> wire::EndpointSlice {
        wire::EndpointSlice {
            host: self.host.to_wire(),
            slice: self.slice,
            endpoints: to_wires(&self.endpoints),
            scope: self.scope.as_ref().map(Wire::to_wire),
        }
    }

    fn from_wire(message: wire::EndpointSlice) -> Result<EndpointSlice, ConvertError> {
        Ok(EndpointSlice {
            host: message.host.into(),
            slice: message.slice,
            endpoints: list(message.endpoints, "endpoints")?,
            scope: message.scope.map(Text::from),
        })
    }
}

impl Wire for Endpoint {
    type Message = wire::Endpoint;

    fn to_wire(&self) -> wire::Endpoint {
        use wire::endpoint::OtherAddress;
        let (address, other_address) = match &self.address {
            EndpointAddress::Ip(address) => (address.to_wire(), None),
            EndpointAddress::Name(name) => (Vec::new(), Some(OtherAddress::Name(name.to_wire()))),
            EndpointAddress::Unix(path) => (Vec::new(), Some(OtherAddress::Unix(path.to_wire()))),
        };
        wire::Endpoint {
            workload: Some(self.workload.to_wire()),
            address,
            other_address,
            network: self.network.as_ref().map(Wire::to_wire),
            node: self.node.as_ref().map(Wire::to_wire),
            ports: to_wires(&self.ports),
            labels: self.labels.to_wire(),
            identity: self.identity.as_ref().map(Wire::to_wire),
            tunnel: self.tunnel.as_ref().map(Wire::to_wire),
            plaintext_ports: to_wires(&self.plaintext_ports),
            locality: Some(self.locality.to_wire()),
            weight: self.weight,
            health: self.health.to_wire(),
        }
    }

    fn from_wire(message: wire::Endpoint) -> Result<Endpoint, ConvertError> {
        use wire::endpoint::OtherAddress;
        Ok(Endpoint {
            workload: required(message.workload, "workload")?,
            address: match message.other_address {
                None => EndpointAddress::Ip(field(message.address, "address")?),
                Some(OtherAddress::Name(name)) => EndpointAddress::Name(name.into()),
                Some(OtherAddress::Unix(path)) => EndpointAddress::Unix(path.into()),
            },
            network: message.network.map(Text::from),
            node: message.node.map(Text::from),
            ports: list(message.ports, "ports")?,
            labels: field(message.labels, "labels")?,
            identity: optional(message.identity, "identity")?,
            tunnel: optional(message.tunnel, "tunnel")?,
            plaintext_ports: list(message.plaintext_ports, "plaintext_ports")?,
            locality: or_default(message.locality, "locality")?,
            weight: message.weight,
            health: field(message.health, "health")?,
        })
    }
}

/// Port of the service and port of the workload.
impl Wire for (u16, u16) {
    type Message = wire::PortPair;

    fn to_wire(&self) -> wire::PortPair {
        wire::PortPair { service: self.0.to_wire(), workload: self.1.to_wire() }
    }

    fn from_wire(message: wire::PortPair) -> Result<(u16, u16), ConvertError> {
        Ok((field(message.service, "service")?, field(message.workload, "workload")?))
    }
}

impl Wire for Workload {
    type Message = wire::Workload;

    fn to_wire(&self) -> wire::Workload {
        wire::Workload {
            key: Some(self.key.to_wire()),
            address: self.address.to_wire(),
            identity: self.identity.as_ref().map(Wire::to_wire),
            labels: self.labels.to_wire(),
            ports: to_wires(&self.ports),
            mtls: Some(self.mtls.to_wire()),
            policies: to_wires(&self.policies),
            recognition: Some(self.recognition.to_wire()),
            node: self.node.to_wire(),
            locality: Some(self.locality.to_wire()),
            network: self.network.as_ref().map(Wire::to_wire),
            tokens: to_wires(&self.tokens),
            view: self.view.as_ref().map(Wire::to_wire),
            probe: self.probe.as_ref().map(Wire::to_wire),
            limits: to_wires(&self.limits),
            telemetry: (self.telemetry != Telemetry::default()).then(|| self.telemetry.to_wire()),
        }
    }

    fn from_wire(message: wire::Workload) -> Result<Workload, ConvertError> {
        Ok(Workload {
            key: required(message.key, "key")?,
            address: field(message.address, "address")?,
            identity: optional(message.identity, "identity")?,
            labels: field(message.labels, "labels")?,
            ports: list(message.ports, "ports")?,
            mtls: required(message.mtls, "mtls")?,
            policies: list(message.policies, "policies")?,
            recognition: or_default(message.recognition, "recognition")?,
            node: message.node.into(),
            locality: or_default(message.locality, "locality")?,
            network: message.network.map(Text::from),
            tokens: list(message.tokens, "tokens")?,
            view: message.view.map(Text::from),
            probe: optional(message.probe, "probe")?,
            telemetry: or_default(message.telemetry, "telemetry")?,
            limits: list(message.limits, "limits")?,
        })
    }
}

impl Wire for Recognition {
    type Message = wire::Recognition;

    fn to_wire(&self) -> wire::Recognition {
        let (user, user_name) = match &self.user {
            Some(User::Id(id)) => (Some(*id), None),
            Some(User::Name(name)) => (None, Some(name.to_wire())),
            None => (None, None),
        };
        wire::Recognition {
            user,
            user_name,
            cgroup: self.cgroup.as_ref().map(Wire::to_wire),
            netns: self.netns.as_ref().map(Wire::to_wire),
        }
    }

    fn from_wire(message: wire::Recognition) -> Result<Recognition, ConvertError> {
        let name = message.user_name.map(|name| User::Name(name.into()));
        Ok(Recognition {
            user: message.user.map(User::Id).or(name),
            cgroup: message.cgroup.map(Text::from),
            netns: message.netns.map(Text::from),
        })
    }
}

impl Wire for WorkloadPort {
    type Message = wire::WorkloadPort;

    fn to_wire(&self) -> wire::WorkloadPort {
        wire::WorkloadPort {
            number: self.number.to_wire(),
            protocol: self.protocol.to_wire(),
            service: self.service.to_wire(),
            endpoint: self.endpoint.as_ref().map(Wire::to_wire),
            pool: Some(self.pool.to_wire()),
        }
    }

    fn from_wire(message: wire::WorkloadPort) -> Result<WorkloadPort, ConvertError> {
        Ok(WorkloadPort {
            number: field(message.number, "number")?,
            protocol: field(message.protocol, "protocol")?,
            service: message.service.into(),
            endpoint: message.endpoint.map(Text::from),
            pool: or_default(message.pool, "pool")?,
        })
    }
}
