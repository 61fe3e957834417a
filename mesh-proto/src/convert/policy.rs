//! Authorization and mutual TLS.

use mesh_core::matching::path::PathMatch;
use mesh_core::matching::text::TextMatch;
use mesh_core::policy::authorization::{
    AuthorizationPolicy, AuthorizationRule, Operation, PolicyAction, Source, Values,
};
use mesh_core::policy::mtls::{MtlsMode, MtlsPolicy};
use mesh_core::vocab::name::Text;

use super::error::{ConvertError, Fault};
use super::vocab::wire_enum;
use super::{Wire, field, list, or_default, to_wires};
use crate::generated as wire;

wire_enum!(PolicyAction, wire::PolicyAction, Allow, Deny, Audit, Custom);
wire_enum!(MtlsMode, wire::MtlsMode, Disable, Permissive, Strict);

impl Wire for AuthorizationPolicy {
    type Message = wire::AuthorizationPolicy;

    fn to_wire(&self) -> wire::AuthorizationPolicy {
        wire::AuthorizationPolicy {
            namespace: self.namespace.to_wire(),
            name: self.name.to_wire(),
            action: self.action.to_wire(),
            rules: to_wires(&self.rules),
        }
    }

    fn from_wire(message: wire::AuthorizationPolicy) -> Result<AuthorizationPolicy, ConvertError> {
        Ok(AuthorizationPolicy {
            namespace: message.namespace.into(),
            name: message.name.into(),
            action: field(message.action, "action")?,
            rules: list(message.rules, "rules")?,
        })
    }
}

impl Wire for AuthorizationRule {
    type Message = wire::AuthorizationRule;

    fn to_wire(&self) -> wire::AuthorizationRule {
        wire::AuthorizationRule { from: to_wires(&self.from), to: to_wires(&self.to) }
    }

    fn from_wire(message: wire::AuthorizationRule) -> Result<AuthorizationRule, ConvertError> {
        Ok(AuthorizationRule {
            from: list(message.from, "from")?,
            to: list(message.to, "to")?,
            ..AuthorizationRule::default()
        })
    }
}

impl Wire for Source {
    type Message = wire::PolicySource;

    fn to_wire(&self) -> wire::PolicySource {
        wire::PolicySource {
            principals: Some(self.principals.to_wire()),
            namespaces: Some(self.namespaces.to_wire()),
        }
    }

    fn from_wire(message: wire::PolicySource) -> Result<Source, ConvertError> {
        Ok(Source {
            principals: or_default(message.principals, "principals")?,
            namespaces: or_default(message.namespaces, "namespaces")?,
            ..Source::default()
        })
    }
}

impl Wire for Operation {
    type Message = wire::PolicyOperation;

    fn to_wire(&self) -> wire::PolicyOperation {
        wire::PolicyOperation {
            hosts: Some(self.hosts.to_wire()),
            methods: Some(self.methods.to_wire()),
            paths: Some(self.paths.to_wire()),
            ports: Some(self.ports.to_wire()),
        }
    }

    fn from_wire(message: wire::PolicyOperation) -> Result<Operation, ConvertError> {
        Ok(Operation {
            hosts: or_default(message.hosts, "hosts")?,
            methods: or_default(message.methods, "methods")?,
            paths: or_default(message.paths, "paths")?,
            ports: or_default(message.ports, "ports")?,
        })
    }
}

/// `Values` of each kind has a message of its own: protobuf knows no type parameters.
macro_rules! wire_values {
    ($core:ty, $wire:ident) => {
        impl Wire for Values<$core> {
            type Message = wire::$wire;

            fn to_wire(&self) -> wire::$wire {
                wire::$wire { any: to_wires(&self.any), none: to_wires(&self.none) }
            }

            fn from_wire(message: wire::$wire) -> Result<Self, ConvertError> {
                Ok(Values { any: list(message.any, "any")?, none: list(message.none, "none")? })
            }
        }
    };
}

wire_values!(TextMatch, TextValues);
wire_values!(PathMatch, PathValues);
wire_values!(u16, PortValues);

impl Wire for MtlsPolicy {
    type Message = wire::MtlsPolicy;

    fn to_wire(&self) -> wire::MtlsPolicy {
        wire::MtlsPolicy {
            default: self.default.to_wire(),
            origin: self.origin.as_ref().map(Wire::to_wire),
            ports: to_wires(&self.ports),
        }
    }

    fn from_wire(message: wire::MtlsPolicy) -> Result<MtlsPolicy, ConvertError> {
        Ok(MtlsPolicy {
            default: field(message.default, "default")?,
            origin: message.origin.map(Text::from),
            ports: list(message.ports, "ports")?,
        })
    }
}

impl Wire for (u16, MtlsMode) {
    type Message = wire::PortMtls;

    fn to_wire(&self) -> wire::PortMtls {
        wire::PortMtls { port: self.0.to_wire(), mode: self.1.to_wire() }
    }

    fn from_wire(message: wire::PortMtls) -> Result<(u16, MtlsMode), ConvertError> {
        Ok((field(message.port, "port")?, field(message.mode, "mode")?))
    }
}
