//! Views and gateways.

use mesh_core::matching::scope::{EgressListener, Import};
use mesh_core::snapshot::gateway::{Gateway, GatewayListener, GatewayServer, GatewayTls, VirtualHost};
use mesh_core::snapshot::view::{Bind, BoundListener, Outbound, View};
use mesh_core::vocab::name::Text;

use super::error::{At as _, ConvertError, Fault};
use super::vocab::{from_pairs, pairs, texts, wire_enum};
use super::{Wire, field, list, optional, required, to_wires};
use crate::generated as wire;

wire_enum!(
    GatewayTls,
    wire::GatewayTls,
    None,
    Passthrough,
    AutoPassthrough,
    Simple,
    Mutual,
    OptionalMutual,
    IstioMutual,
);

impl Wire for View {
    type Message = wire::View;

    fn to_wire(&self) -> wire::View {
        use wire::view::Outbound as Kind;
        wire::View {
            key: self.key.to_wire(),
            namespace: self.namespace.to_wire(),
            origin: self.origin.as_ref().map(Wire::to_wire),
            egress: self.egress.as_ref().map(|listeners| wire::Egress { listeners: to_wires(listeners) }),
            bound: to_wires(&self.bound),
            outbound: Some(match &self.outbound {
                Outbound::Allow(proxy) => {
                    Kind::Allow(wire::AllowAny { proxy: proxy.as_ref().map(Wire::to_wire) })
                }
                Outbound::Refuse => Kind::Refuse(true),
            }),
            connect_timeout: self.connect_timeout.as_ref().map(Wire::to_wire),
        }
    }

    fn from_wire(message: wire::View) -> Result<View, ConvertError> {
        use wire::view::Outbound as Kind;
        Ok(View {
            key: message.key.into(),
            namespace: message.namespace.into(),
            origin: message.origin.map(Text::from),
            egress: message.egress.map(|egress| list(egress.listeners, "egress.listeners")).transpose()?,
            bound: list(message.bound, "bound")?,
            outbound: match message.outbound.ok_or(Fault::Missing).at("outbound")? {
                Kind::Allow(wire::AllowAny { proxy }) => Outbound::Allow(optional(proxy, "allow.proxy")?),
                Kind::Refuse(true) => Outbound::Refuse,
                Kind::Refuse(false) => return Err(Fault::Missing).at("refuse"),
            },
            connect_timeout: optional(message.connect_timeout, "connect_timeout")?,
        })
    }
}

impl Wire for BoundListener {
    type Message = wire::BoundListener;

    fn to_wire(&self) -> wire::BoundListener {
        use wire::bound_listener::At as Kind;
        wire::BoundListener {
            at: Some(match &self.at {
                Bind::Ip(address) => Kind::Ip(address.to_wire()),
                Bind::Unix(path) => Kind::Unix(path.to_wire()),
            }),
            protocol: self.protocol.to_wire(),
            port: self.port.as_ref().map(Wire::to_wire),
            listener: self.listener.try_into().unwrap_or(u32::MAX),
        }
    }

    fn from_wire(message: wire::BoundListener) -> Result<BoundListener, ConvertError> {
        use wire::bound_listener::At as Kind;
        Ok(BoundListener {
            at: match message.at.ok_or(Fault::Missing).at("at")? {
                Kind::Ip(address) => Bind::Ip(field(address, "ip")?),
                Kind::Unix(path) => Bind::Unix(path.into()),
            },
            protocol: field(message.protocol, "protocol")?,
            port: optional(message.port, "port")?,
            listener: usize::try_from(message.listener)
                .map_err(|_| Fault::OutOfRange(message.listener.into()))
                .at("listener")?,
        })
    }
}

impl Wire for EgressListener {
    type Message = wire::EgressListener;

    fn to_wire(&self) -> wire::EgressListener {
        wire::EgressListener { port: self.port.as_ref().map(Wire::to_wire), imports: to_wires(&self.imports) }
    }

    fn from_wire(message: wire::EgressListener) -> Result<EgressListener, ConvertError> {
        Ok(EgressListener {
            port: optional(message.port, "port")?,
            imports: list(message.imports, "imports")?,
        })
    }
}

impl Wire for Import {
    type Message = wire::Import;

    fn to_wire(&self) -> wire::Import {
        wire::Import {
            excluded: self.excluded,
            namespace: self.namespace.as_ref().map(Wire::to_wire),
            host: self.host.to_wire(),
        }
    }

    fn from_wire(message: wire::Import) -> Result<Import, ConvertError> {
        Ok(Import {
            excluded: message.excluded,
            namespace: message.namespace.map(Text::from),
            host: message.host.into(),
        })
    }
}

impl Wire for Gateway {
    type Message = wire::Gateway;

    fn to_wire(&self) -> wire::Gateway {
        wire::Gateway {
            namespace: self.namespace.to_wire(),
            name: self.name.to_wire(),
            workload: self.workload.as_ref().map(Wire::to_wire),
            identity: self.identity.as_ref().map(Wire::to_wire),
            view: self.view.to_wire(),
            listeners: to_wires(&self.listeners),
            workload_namespace: self.workload_namespace.to_wire(),
            labels: self.labels.to_wire(),
            selector: self.selector.to_wire(),
            policies: to_wires(&self.policies),
            tokens: to_wires(&self.tokens),
            trusted_proxies: self.trusted_proxies,
        }
    }

    fn from_wire(message: wire::Gateway) -> Result<Gateway, ConvertError> {
        Ok(Gateway {
            namespace: message.namespace.into(),
            name: message.name.into(),
            workload: optional(message.workload, "workload")?,
            identity: optional(message.identity, "identity")?,
            view: message.view.into(),
            listeners: list(message.listeners, "listeners")?,
            workload_namespace: message.workload_namespace.into(),
            labels: field(message.labels, "labels")?,
            selector: field(message.selector, "selector")?,
            policies: list(message.policies, "policies")?,
            tokens: list(message.tokens, "tokens")?,
            trusted_proxies: message.trusted_proxies,
        })
    }
}

impl Wire for GatewayListener {
    type Message = wire::GatewayListener;

    fn to_wire(&self) -> wire::GatewayListener {
        wire::GatewayListener {
            port: self.port.to_wire(),
            servers: to_wires(&self.servers),
            dropped: pairs(&self.dropped),
            virtual_hosts: to_wires(&self.virtual_hosts),
        }
    }

    fn from_wire(message: wire::GatewayListener) -> Result<GatewayListener, ConvertError> {
        Ok(GatewayListener {
            port: field(message.port, "port")?,
            servers: list(message.servers, "servers")?,
            dropped: from_pairs(message.dropped),
            virtual_hosts: list(message.virtual_hosts, "virtual_hosts")?,
        })
    }
}

impl Wire for VirtualHost {
    type Message = wire::VirtualHost;

    fn to_wire(&self) -> wire::VirtualHost {
        wire::VirtualHost { routes: Some(self.routes.to_wire()), https_redirect: self.https_redirect }
    }

    fn from_wire(message: wire::VirtualHost) -> Result<VirtualHost, ConvertError> {
        Ok(VirtualHost {
            routes: required(message.routes, "routes")?,
            https_redirect: message.https_redirect,
        })
    }
}

impl Wire for GatewayServer {
    type Message = wire::GatewayServer;

    fn to_wire(&self) -> wire::GatewayServer {
        wire::GatewayServer {
            origin: self.origin.to_wire(),
            index: self.index,
            protocol: self.protocol.to_wire(),
            tls: self.tls.to_wire(),
            https_redirect: self.https_redirect,
            hosts: to_wires(&self.hosts),
            credentials: to_wires(&self.credentials),
            virtual_hosts: to_wires(&self.virtual_hosts),
            streams: Some(self.streams.to_wire()),
        }
    }

    fn from_wire(message: wire::GatewayServer) -> Result<GatewayServer, ConvertError> {
        Ok(GatewayServer {
            origin: message.origin.into(),
            index: message.index,
            protocol: field(message.protocol, "protocol")?,
            tls: field(message.tls, "tls")?,
            https_redirect: message.https_redirect,
            hosts: texts(message.hosts),
            credentials: texts(message.credentials),
            virtual_hosts: list(message.virtual_hosts, "virtual_hosts")?,
            streams: required(message.streams, "streams")?,
        })
    }
}
