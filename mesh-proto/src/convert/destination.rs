//! Destinations: how an endpoint is chosen and spoken to.

use mesh_core::balancing::balancer::LoadBalancer;
use mesh_core::balancing::locality::{Distribute, Preference};
use mesh_core::balancing::policy::{Algorithm, HashKey, HashTable, Warmup};
use mesh_core::balancing::utilization::Utilization;
use mesh_core::policy::mtls::{
    ClientCertificate, ClientTls, CredentialKey, ServerNames, ServerRoots, TlsOrigination,
};
use mesh_core::snapshot::credential::{Credential, Pem};
use mesh_core::snapshot::destination::Destination;
use mesh_core::vocab::name::Text;
use mesh_core::vocab::tunnel::Tunnel;

use super::error::{At as _, ConvertError, Fault};
use super::vocab::texts;
use super::{Wire, field, list, optional, or_default, required, to_wires};
use crate::generated as wire;

impl Wire for Destination {
    type Message = wire::Destination;

    fn to_wire(&self) -> wire::Destination {
        let (load_balancer, hash) = algorithm(&self.load_balancer);
        let (tls, mutual, origination) = client_tls(&self.tls);
        wire::Destination {
            key: Some(self.key.to_wire()),
            origin: self.origin.as_ref().map(Wire::to_wire),
            protocol: self.protocol.to_wire(),
            labels: self.labels.to_wire(),
            load_balancer: load_balancer.into(),
            tls: tls.into(),
            connect_timeout: Some(self.connect_timeout.to_wire()),
            mutual,
            origination,
            hash,
            resolution: self.resolution.to_wire(),
            target_port: self.target_port.as_ref().map(Wire::to_wire),
            preference: Some(self.preference.to_wire()),
            warmup: self.warmup.as_ref().map(Wire::to_wire),
            pool: Some(self.pool.to_wire()),
            outlier_detection: self.outlier_detection.as_ref().map(Wire::to_wire),
            retry_budget: self.retry_budget.as_ref().map(Wire::to_wire),
            fault: self.fault.as_ref().map(Wire::to_wire),
            tunnel: self.tunnel.as_ref().map(Wire::to_wire),
            proxy_protocol: self.proxy_protocol.map(u32::from),
            upstream: self.upstream.to_wire(),
            node_local: self.node_local,
            utilization: self.load_balancer.utilization().map(Wire::to_wire),
        }
    }

    fn from_wire(message: wire::Destination) -> Result<Destination, ConvertError> {
        Ok(Destination {
            key: required(message.key, "key")?,
            origin: message.origin.map(Text::from),
            protocol: field(message.protocol, "protocol")?,
            labels: field(message.labels, "labels")?,
            resolution: field(message.resolution, "resolution")?,
            target_port: optional(message.target_port, "target_port")?,
            load_balancer: from_algorithm(message.load_balancer, message.hash, message.utilization)?,
            preference: or_default(message.preference, "preference")?,
            warmup: optional(message.warmup, "warmup")?,
            tls: from_client_tls(message.tls, message.mutual, message.origination)?,
            connect_timeout: required(message.connect_timeout, "connect_timeout")?,
            pool: required(message.pool, "pool")?,
            outlier_detection: optional(message.outlier_detection, "outlier_detection")?,
            retry_budget: optional(message.retry_budget, "retry_budget")?,
            fault: optional(message.fault, "fault")?,
            tunnel: optional(message.tunnel, "tunnel")?,
            proxy_protocol: match message.proxy_protocol {
                None => None,
                Some(version) => Some(
                    u8::try_from(version)
                        .map_err(|_| Fault::OutOfRange(version.into()))
                        .at("proxy_protocol")?,
                ),
            },
            upstream: field(message.upstream, "upstream")?,
            node_local: message.node_local,
        })
    }
}

fn algorithm(algorithm: &Algorithm) -> (wire::LoadBalancer, Option<wire::HashPolicy>) {
    match algorithm {
        Algorithm::Simple(LoadBalancer::RoundRobin) => (wire::LoadBalancer::RoundRobin, None),
        Algorithm::Simple(LoadBalancer::LeastRequest) => (wire::LoadBalancer::LeastRequest, None),
        Algorithm::Simple(LoadBalancer::Random) => (wire::LoadBalancer::Random, None),
        Algorithm::Passthrough => (wire::LoadBalancer::Passthrough, None),
        Algorithm::Utilization(_) => (wire::LoadBalancer::Utilization, None),
        Algorithm::ConsistentHash { key, table } => {
            let policy = wire::HashPolicy { key: Some(hash_key(key)), table: Some(hash_table(*table)) };
            (wire::LoadBalancer::Hash, Some(policy))
        }
    }
}

impl Wire for Utilization {
    type Message = wire::Utilization;

    fn to_wire(&self) -> wire::Utilization {
        wire::Utilization {
            error_penalty_percent: self.error_penalty_percent,
            metrics: to_wires(&self.metrics),
            stabilization: Some(self.stabilization.to_wire()),
            expiration: Some(self.expiration.to_wire()),
            update: Some(self.update.to_wire()),
        }
    }

    fn from_wire(message: wire::Utilization) -> Result<Utilization, ConvertError> {
        Ok(Utilization {
            error_penalty_percent: message.error_penalty_percent,
            metrics: texts(message.metrics),
            stabilization: required(message.stabilization, "stabilization")?,
            expiration: required(message.expiration, "expiration")?,
            update: required(message.update, "update")?,
        })
    }
}

fn hash_key(key: &HashKey) -> wire::hash_policy::Key {
    use wire::hash_policy::Key;
    match key {
        HashKey::Header(name) => Key::Header(name.to_wire()),
        HashKey::Cookie { name, path, ttl, attributes } => {
            let attribute =
                |(key, value): &(Text, Text)| wire::Label { key: key.to_wire(), value: value.to_wire() };
            Key::Cookie(wire::HashCookie {
                name: name.to_wire(),
                path: path.as_ref().map(Wire::to_wire),
                ttl: ttl.as_ref().map(Wire::to_wire),
                attributes: attributes.iter().map(attribute).collect(),
            })
        }
        HashKey::SourceIp => Key::SourceIp(true),
        HashKey::QueryParameter(name) => Key::QueryParameter(name.to_wire()),
    }
}

fn hash_table(table: HashTable) -> wire::hash_policy::Table {
    match table {
        HashTable::Ring(size) => wire::hash_policy::Table::Ring(size),
        HashTable::Maglev(size) => wire::hash_policy::Table::Maglev(size),
    }
}

fn from_algorithm(
    number: i32,
    hash: Option<wire::HashPolicy>,
    utilization: Option<wire::Utilization>,
) -> Result<Algorithm, ConvertError> {
    use wire::LoadBalancer as Kind;
    let kind = Kind::try_from(number).map_err(|_| Fault::UnknownValue(number)).at("load_balancer")?;
    Ok(match kind {
        Kind::Unspecified => return Err(Fault::UnknownValue(number)).at("load_balancer"),
        Kind::RoundRobin => Algorithm::Simple(LoadBalancer::RoundRobin),
        Kind::LeastRequest => Algorithm::Simple(LoadBalancer::LeastRequest),
        Kind::Random => Algorithm::Simple(LoadBalancer::Random),
        Kind::Passthrough => Algorithm::Passthrough,
        Kind::Utilization => Algorithm::Utilization(required(utilization, "utilization")?),
        Kind::Hash => {
            let hash = hash.ok_or(Fault::Missing).at("hash")?;
            Algorithm::ConsistentHash { key: from_hash_key(hash.key)?, table: from_hash_table(hash.table)? }
        }
    })
}

fn from_hash_key(key: Option<wire::hash_policy::Key>) -> Result<HashKey, ConvertError> {
    use wire::hash_policy::Key;
    Ok(match key.ok_or(Fault::Missing).at("hash.key")? {
        Key::Header(name) => HashKey::Header(name.into()),
        Key::Cookie(cookie) => HashKey::Cookie {
            name: cookie.name.into(),
            path: cookie.path.map(Text::from),
            ttl: optional(cookie.ttl, "hash.cookie.ttl")?,
            attributes: cookie.attributes.into_iter().map(|a| (a.key.into(), a.value.into())).collect(),
        },
        Key::SourceIp(true) => HashKey::SourceIp,
        Key::SourceIp(false) => return Err(Fault::Missing).at("hash.source_ip"),
        Key::QueryParameter(name) => HashKey::QueryParameter(name.into()),
    })
}

fn from_hash_table(table: Option<wire::hash_policy::Table>) -> Result<HashTable, ConvertError> {
    Ok(match table.ok_or(Fault::Missing).at("hash.table")? {
        wire::hash_policy::Table::Ring(size) => HashTable::Ring(size),
        wire::hash_policy::Table::Maglev(size) => HashTable::Maglev(size),
    })
}

type TlsParts = (wire::ClientTls, Option<wire::MutualTls>, Option<wire::TlsOrigination>);

fn client_tls(tls: &ClientTls) -> TlsParts {
    match tls {
        ClientTls::Auto => (wire::ClientTls::Auto, None, None),
        ClientTls::Disable => (wire::ClientTls::Disable, None, None),
        ClientTls::IstioMutual { sni, subject_alt_names } => {
            let mutual =
                wire::MutualTls { sni: sni.to_wire(), subject_alt_names: to_wires(subject_alt_names) };
            (wire::ClientTls::IstioMutual, Some(mutual), None)
        }
        ClientTls::Originate(origination) => (wire::ClientTls::Originate, None, Some(origination.to_wire())),
    }
}

fn from_client_tls(
    number: i32,
    mutual: Option<wire::MutualTls>,
    origination: Option<wire::TlsOrigination>,
) -> Result<ClientTls, ConvertError> {
    use wire::ClientTls as Kind;
    let kind = Kind::try_from(number).map_err(|_| Fault::UnknownValue(number)).at("tls")?;
    Ok(match kind {
        Kind::Unspecified => return Err(Fault::UnknownValue(number)).at("tls"),
        Kind::Auto => ClientTls::Auto,
        Kind::Disable => ClientTls::Disable,
        Kind::IstioMutual => {
            let wire::MutualTls { sni, subject_alt_names } = mutual.ok_or(Fault::Missing).at("mutual")?;
            ClientTls::IstioMutual { sni: sni.into(), subject_alt_names: texts(subject_alt_names) }
        }
        Kind::Originate => ClientTls::Originate(required(origination, "origination")?),
    })
}

impl Wire for TlsOrigination {
    type Message = wire::TlsOrigination;

    fn to_wire(&self) -> wire::TlsOrigination {
        use wire::tls_origination::{Names, Roots};
        wire::TlsOrigination {
            certificate: self.certificate.as_ref().map(Wire::to_wire),
            roots: match &self.roots {
                ServerRoots::System => None,
                ServerRoots::File(path) => Some(Roots::File(path.to_wire())),
                ServerRoots::Credential(name) => Some(Roots::Credential(name.to_wire())),
                ServerRoots::Unverified => Some(Roots::Unverified(true)),
            },
            crl: self.crl.as_ref().map(Wire::to_wire),
            sni: self.sni.as_ref().map(Wire::to_wire),
            names: match &self.names {
                ServerNames::Requested => None,
                ServerNames::OneOf(names) => Some(Names::OneOf(wire::Names { names: to_wires(names) })),
                ServerNames::Any => Some(Names::AnyName(true)),
            },
            gateways_only: self.gateways_only,
        }
    }

    fn from_wire(message: wire::TlsOrigination) -> Result<TlsOrigination, ConvertError> {
        use wire::tls_origination::{Names, Roots};
        Ok(TlsOrigination {
            certificate: optional(message.certificate, "certificate")?,
            roots: match message.roots {
                None => ServerRoots::System,
                Some(Roots::File(path)) => ServerRoots::File(path.into()),
                Some(Roots::Credential(name)) => ServerRoots::Credential(name.into()),
                Some(Roots::Unverified(true)) => ServerRoots::Unverified,
                Some(Roots::Unverified(false)) => return Err(Fault::Missing).at("unverified"),
            },
            crl: message.crl.map(Text::from),
            sni: message.sni.map(Text::from),
            names: match message.names {
                None => ServerNames::Requested,
                Some(Names::OneOf(names)) => ServerNames::OneOf(texts(names.names)),
                Some(Names::AnyName(true)) => ServerNames::Any,
                Some(Names::AnyName(false)) => return Err(Fault::Missing).at("any_name"),
            },
            gateways_only: message.gateways_only,
        })
    }
}

impl Wire for ClientCertificate {
    type Message = wire::ClientCertificate;

    fn to_wire(&self) -> wire::ClientCertificate {
        use wire::client_certificate::Source;
        let source = match self {
            ClientCertificate::Files { chain, key } => {
                Source::Files(wire::CertificateFiles { chain: chain.to_wire(), key: key.to_wire() })
            }
            ClientCertificate::Credential(name) => Source::Credential(name.to_wire()),
        };
        wire::ClientCertificate { source: Some(source) }
    }

    fn from_wire(message: wire::ClientCertificate) -> Result<ClientCertificate, ConvertError> {
        use wire::client_certificate::Source;
        Ok(match message.source.ok_or(Fault::Missing).at("source")? {
            Source::Files(wire::CertificateFiles { chain, key }) => {
                ClientCertificate::Files { chain: chain.into(), key: key.into() }
            }
            Source::Credential(name) => ClientCertificate::Credential(name.into()),
        })
    }
}

impl Wire for CredentialKey {
    type Message = wire::CredentialKey;

    fn to_wire(&self) -> wire::CredentialKey {
        use wire::credential_key::Half;
        let half = match self {
            CredentialKey::Shown(name) => Half::Shown(name.to_wire()),
            CredentialKey::Authority(name) => Half::Authority(name.to_wire()),
        };
        wire::CredentialKey { half: Some(half) }
    }

    fn from_wire(message: wire::CredentialKey) -> Result<CredentialKey, ConvertError> {
        use wire::credential_key::Half;
        Ok(match message.half.ok_or(Fault::Missing).at("half")? {
            Half::Shown(name) => CredentialKey::Shown(name.into()),
            Half::Authority(name) => CredentialKey::Authority(name.into()),
        })
    }
}

impl Wire for Credential {
    type Message = wire::Credential;

    fn to_wire(&self) -> wire::Credential {
        wire::Credential {
            key: Some(self.key.to_wire()),
            certificates: self.certificates.0.clone(),
            other: self.other.0.clone(),
        }
    }

    fn from_wire(message: wire::Credential) -> Result<Credential, ConvertError> {
        Ok(Credential {
            key: required(message.key, "key")?,
            certificates: Pem(message.certificates),
            other: Pem(message.other),
        })
    }
}

impl Wire for Preference {
    type Message = wire::Preference;

    fn to_wire(&self) -> wire::Preference {
        use wire::preference::Kind;
        let kind = match self {
            Preference::None => None,
            Preference::Shares(shares) => Some(Kind::Shares(wire::Shares { distribute: to_wires(shares) })),
            Preference::Order { labels, regions: order } => Some(Kind::Order(wire::Order {
                labels: to_wires(labels),
                regions: order.as_deref().map(regions),
            })),
            Preference::Zones { labels, regions: order, min_cluster_size } => {
                Some(Kind::Zones(wire::Zones {
                    labels: to_wires(labels),
                    regions: Some(regions(order)),
                    min_cluster_size: *min_cluster_size,
                }))
            }
        };
        wire::Preference { kind }
    }

    fn from_wire(message: wire::Preference) -> Result<Preference, ConvertError> {
        use wire::preference::Kind;
        Ok(match message.kind {
            None => Preference::None,
            Some(Kind::Shares(shares)) => Preference::Shares(list(shares.distribute, "shares.distribute")?),
            Some(Kind::Order(order)) => {
                Preference::Order { labels: texts(order.labels), regions: order.regions.map(from_regions) }
            }
            Some(Kind::Zones(zones)) => Preference::Zones {
                labels: texts(zones.labels),
                regions: zones.regions.map(from_regions).unwrap_or_default(),
                min_cluster_size: zones.min_cluster_size,
            },
        })
    }
}

fn regions(list: &[(Text, Text)]) -> wire::Regions {
    let label = |(from, to): &(Text, Text)| wire::Label { key: from.to_wire(), value: to.to_wire() };
    wire::Regions { failover: list.iter().map(label).collect() }
}

fn from_regions(regions: wire::Regions) -> Vec<(Text, Text)> {
    regions.failover.into_iter().map(|label| (label.key.into(), label.value.into())).collect()
}

impl Wire for Distribute {
    type Message = wire::Distribute;

    fn to_wire(&self) -> wire::Distribute {
        let share = |(locality, percent): &(Text, u32)| wire::Share {
            locality: locality.to_wire(),
            percent: *percent,
        };
        wire::Distribute { from: self.from.to_wire(), to: self.to.iter().map(share).collect() }
    }

    fn from_wire(message: wire::Distribute) -> Result<Distribute, ConvertError> {
        let to = message.to.into_iter().map(|share| (share.locality.into(), share.percent)).collect();
        Ok(Distribute { from: message.from.into(), to })
    }
}

impl Wire for Warmup {
    type Message = wire::Warmup;

    fn to_wire(&self) -> wire::Warmup {
        wire::Warmup {
            duration: Some(self.duration.to_wire()),
            minimum_ppm: self.minimum.to_wire(),
            aggression_thousandths: self.aggression_thousandths,
        }
    }

    fn from_wire(message: wire::Warmup) -> Result<Warmup, ConvertError> {
        Ok(Warmup {
            duration: required(message.duration, "duration")?,
            minimum: field(message.minimum_ppm, "minimum_ppm")?,
            aggression_thousandths: message.aggression_thousandths,
        })
    }
}

impl Wire for Tunnel {
    type Message = wire::StreamTunnel;

    fn to_wire(&self) -> wire::StreamTunnel {
        wire::StreamTunnel { post: self.post, host: self.host.to_wire(), port: self.port.to_wire() }
    }

    fn from_wire(message: wire::StreamTunnel) -> Result<Tunnel, ConvertError> {
        Ok(Tunnel { post: message.post, host: message.host.into(), port: field(message.port, "port")? })
    }
}
