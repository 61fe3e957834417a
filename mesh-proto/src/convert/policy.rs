//! Authorization and mutual TLS.

use ipnet::IpNet;
use mesh_core::matching::path::PathMatch;
use mesh_core::matching::text::TextMatch;
use mesh_core::policy::authorization::{
    AuthorizationPolicy, AuthorizationRule, Condition, Operation, PolicyAction, Source, Values,
};
use mesh_core::policy::external::{Authorizer, Provider};
use mesh_core::policy::mtls::{MtlsMode, MtlsPolicy};
use mesh_core::vocab::name::Text;

use super::error::{ConvertError, Fault};
use super::vocab::wire_enum;
use super::{Wire, field, list, optional, or_default, required, to_wires};
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
            provider: self.provider.as_ref().map(Wire::to_wire),
            dry_run: self.dry_run,
        }
    }

    fn from_wire(message: wire::AuthorizationPolicy) -> Result<AuthorizationPolicy, ConvertError> {
        Ok(AuthorizationPolicy {
            namespace: message.namespace.into(),
            name: message.name.into(),
            action: field(message.action, "action")?,
            rules: list(message.rules, "rules")?,
            provider: optional(message.provider, "provider")?,
            dry_run: message.dry_run,
        })
    }
}

impl Wire for Provider {
    type Message = wire::Provider;

    fn to_wire(&self) -> wire::Provider {
        let authorizer = |authorizer: &Authorizer| wire::Authorizer {
            grpc: authorizer.grpc,
            service: authorizer.service.to_wire(),
            port: authorizer.port.to_wire(),
            timeout: Some(authorizer.timeout.to_wire()),
            fail_open: authorizer.fail_open,
            status_on_error: authorizer.status_on_error.to_wire(),
        };
        wire::Provider { name: self.name.to_wire(), authorizer: self.authorizer.as_ref().map(authorizer) }
    }

    fn from_wire(message: wire::Provider) -> Result<Provider, ConvertError> {
        let authorizer = match message.authorizer {
            None => None,
            Some(authorizer) => Some(Authorizer {
                grpc: authorizer.grpc,
                service: authorizer.service.into(),
                port: field(authorizer.port, "authorizer.port")?,
                timeout: required(authorizer.timeout, "authorizer.timeout")?,
                fail_open: authorizer.fail_open,
                status_on_error: field(authorizer.status_on_error, "authorizer.status_on_error")?,
            }),
        };
        Ok(Provider { name: message.name.into(), authorizer })
    }
}

impl Wire for AuthorizationRule {
    type Message = wire::AuthorizationRule;

    fn to_wire(&self) -> wire::AuthorizationRule {
        wire::AuthorizationRule {
            from: to_wires(&self.from),
            to: to_wires(&self.to),
            when: to_wires(&self.when),
        }
    }

    fn from_wire(message: wire::AuthorizationRule) -> Result<AuthorizationRule, ConvertError> {
        Ok(AuthorizationRule {
            from: list(message.from, "from")?,
            to: list(message.to, "to")?,
            when: list(message.when, "when")?,
        })
    }
}

impl Wire for Source {
    type Message = wire::PolicySource;

    fn to_wire(&self) -> wire::PolicySource {
        wire::PolicySource {
            principals: Some(self.principals.to_wire()),
            namespaces: Some(self.namespaces.to_wire()),
            service_accounts: Some(self.service_accounts.to_wire()),
            trust_domains: Some(self.trust_domains.to_wire()),
            ip_blocks: Some(self.ip_blocks.to_wire()),
            remote_ip_blocks: Some(self.remote_ip_blocks.to_wire()),
            request_principals: Some(self.request_principals.to_wire()),
        }
    }

    fn from_wire(message: wire::PolicySource) -> Result<Source, ConvertError> {
        Ok(Source {
            principals: or_default(message.principals, "principals")?,
            namespaces: or_default(message.namespaces, "namespaces")?,
            service_accounts: or_default(message.service_accounts, "service_accounts")?,
            trust_domains: or_default(message.trust_domains, "trust_domains")?,
            ip_blocks: or_default(message.ip_blocks, "ip_blocks")?,
            remote_ip_blocks: or_default(message.remote_ip_blocks, "remote_ip_blocks")?,
            request_principals: or_default(message.request_principals, "request_principals")?,
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
wire_values!(IpNet, NetworkValues);
wire_values!(Text, NameValues);

impl Wire for MtlsPolicy {
    type Message = wire::MtlsPolicy;

    fn to_wire(&self) -> wire::MtlsPolicy {
        wire::MtlsPolicy {
            default: self.default.to_wire(),
            origin: self.origin.as_ref().map(Wire::to_wire),
            ports: to_wires(&self.ports),
            ports_origin: self.ports_origin.as_ref().map(Wire::to_wire),
        }
    }

    fn from_wire(message: wire::MtlsPolicy) -> Result<MtlsPolicy, ConvertError> {
        Ok(MtlsPolicy {
            default: field(message.default, "default")?,
            origin: message.origin.map(Text::from),
            ports: list(message.ports, "ports")?,
            ports_origin: message.ports_origin.map(Text::from),
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

/// A header field or a piece of metadata, and what it may say.
fn named(name: &str, values: &Values<TextMatch>) -> wire::NamedValues {
    wire::NamedValues { name: name.to_owned(), values: Some(values.to_wire()) }
}

impl Wire for Condition {
    type Message = wire::PolicyCondition;

    fn to_wire(&self) -> wire::PolicyCondition {
        use wire::policy_condition::Condition as Kind;
        let condition = match self {
            Condition::Header(name, values) => Kind::Header(named(name.as_str(), values)),
            Condition::Pseudo(name, values) => Kind::Pseudo(named(name, values)),
            Condition::SourceIp(values) => Kind::SourceIp(values.to_wire()),
            Condition::RemoteIp(values) => Kind::RemoteIp(values.to_wire()),
            Condition::SourceNamespace(values) => Kind::SourceNamespace(values.to_wire()),
            Condition::SourceServiceAccount(values) => Kind::SourceServiceAccount(values.to_wire()),
            Condition::SourcePrincipal(values) => Kind::SourcePrincipal(values.to_wire()),
            Condition::SourceTrustDomain(values) => Kind::SourceTrustDomain(values.to_wire()),
            Condition::RequestPrincipal(values) => Kind::RequestPrincipal(values.to_wire()),
            Condition::Audiences(values) => Kind::Audiences(values.to_wire()),
            Condition::Presenter(values) => Kind::Presenter(values.to_wire()),
            Condition::Claim(path, values) => {
                Kind::Claim(wire::ClaimValues { path: to_wires(path), values: Some(values.to_wire()) })
            }
            Condition::DestinationIp(values) => Kind::DestinationIp(values.to_wire()),
            Condition::DestinationPort(values) => Kind::DestinationPort(values.to_wire()),
            Condition::Sni(values) => Kind::Sni(values.to_wire()),
            Condition::Metadata(name, values) => Kind::Metadata(named(name, values)),
        };
        wire::PolicyCondition { condition: Some(condition) }
    }

    fn from_wire(message: wire::PolicyCondition) -> Result<Condition, ConvertError> {
        use wire::policy_condition::Condition as Kind;
        Ok(match message.condition.ok_or(Fault::Missing)? {
            Kind::Header(wire::NamedValues { name, values }) => {
                Condition::Header(field(name, "header.name")?, or_default(values, "header.values")?)
            }
            Kind::Pseudo(wire::NamedValues { name, values }) => {
                Condition::Pseudo(name.into(), or_default(values, "pseudo.values")?)
            }
            Kind::SourceIp(values) => Condition::SourceIp(field(values, "source_ip")?),
            Kind::RemoteIp(values) => Condition::RemoteIp(field(values, "remote_ip")?),
            Kind::SourceNamespace(values) => Condition::SourceNamespace(field(values, "source_namespace")?),
            Kind::SourceServiceAccount(values) => {
                Condition::SourceServiceAccount(field(values, "source_service_account")?)
            }
            Kind::SourcePrincipal(values) => Condition::SourcePrincipal(field(values, "source_principal")?),
            Kind::SourceTrustDomain(values) => {
                Condition::SourceTrustDomain(field(values, "source_trust_domain")?)
            }
            Kind::RequestPrincipal(values) => {
                Condition::RequestPrincipal(field(values, "request_principal")?)
            }
            Kind::Audiences(values) => Condition::Audiences(field(values, "audiences")?),
            Kind::Presenter(values) => Condition::Presenter(field(values, "presenter")?),
            Kind::Claim(wire::ClaimValues { path, values }) => {
                Condition::Claim(list(path, "claim.path")?, or_default(values, "claim.values")?)
            }
            Kind::DestinationIp(values) => Condition::DestinationIp(field(values, "destination_ip")?),
            Kind::DestinationPort(values) => Condition::DestinationPort(field(values, "destination_port")?),
            Kind::Sni(values) => Condition::Sni(field(values, "sni")?),
            Kind::Metadata(wire::NamedValues { name, values }) => {
                Condition::Metadata(name.into(), or_default(values, "metadata.values")?)
            }
        })
    }
}
