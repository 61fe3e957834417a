//! Destinations with their endpoints.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::balancing::hash::hash;
use crate::balancing::priority::{Place, Standing, arrange};
use crate::policy::mtls::ClientTls;
use crate::snapshot::destination::Destination as Policy;
use crate::snapshot::endpoints::{Endpoint as Declared, EndpointAddress};
use crate::vocab::health::Health;
use crate::vocab::identity::SpiffeId;
use crate::vocab::label::Labels;
use crate::vocab::locality::Locality;
use crate::vocab::name::{Text, WorkloadKey};

/// Longest name that a TLS client asks for (RFC 6066 leaves it open; longer ones are no host names).
const LONGEST_NAME: usize = 512;

/// How an endpoint is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Straight to its address, in the clear.
    Plaintext,
    /// Over the mesh hop: mutual TLS to the proxy of its host.
    Mesh {
        /// Where the hop ends.
        hop: SocketAddr,
        /// Who must answer there.
        peer: SpiffeId,
    },
    /// Straight to its address, in TLS as the destination's policy says.
    Tls,
    /// Not at all: mutual TLS is demanded and nothing there can speak it.
    Unreachable,
}

/// What is dialled.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dial {
    /// Address and port.
    Ip(SocketAddr),
    /// A name that is resolved, and a port.
    Name(Text, u16),
    /// A socket of this host: a path, or `@NAME`.
    Unix(Text),
}

impl Dial {
    /// Address and port, if it is an IP address.
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            Dial::Ip(address) => Some(*address),
            Dial::Name(..) | Dial::Unix(_) => None,
        }
    }

    /// What it is known by on every host.
    pub fn hash(&self) -> u64 {
        hash(self.to_string().as_bytes())
    }

    /// The port; 0 for a Unix socket.
    pub fn port(&self) -> u16 {
        match self {
            Dial::Ip(address) => address.port(),
            Dial::Name(_, port) => *port,
            Dial::Unix(_) => 0,
        }
    }
}

impl fmt::Display for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dial::Ip(address) => address.fmt(f),
            Dial::Name(name, port) => write!(f, "{name}:{port}"),
            Dial::Unix(path) => write!(f, "unix://{path}"),
        }
    }
}

/// One address and port of a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The workload.
    pub workload: WorkloadKey,
    /// Address and port of the workload.
    pub address: Dial,
    /// The host it runs on.
    pub node: Option<Text>,
    /// How it is reached.
    pub transport: Transport,
    /// Who answers there, for telemetry.
    pub identity: Option<SpiffeId>,
    /// Labels.
    pub labels: Labels,
    /// Region, zone, subzone.
    pub locality: Locality,
    /// Network that it is in.
    pub network: Option<Text>,
    /// Relative share, at least 1.
    pub weight: u32,
    /// Whether it may get traffic.
    pub health: Health,
}

impl Endpoint {
    /// Where it is.
    pub fn place(&self) -> Place<'_> {
        Place {
            locality: &self.locality,
            labels: &self.labels,
            network: self.network.as_deref(),
            node: self.node.as_deref(),
        }
    }
}

/// A destination: its policy and its endpoints, by workload.
#[derive(Debug, PartialEq, Eq)]
pub struct Destination {
    /// Key, load balancer, TLS, timeouts.
    pub policy: Policy,
    /// `outbound|PORT|SUBSET|HOST`.
    pub cluster: Text,
    /// The server name that Istio's proxies would ask for, where connections are the mesh's own TLS.
    pub server_name: Option<Text>,
    /// All endpoints, those that may not get traffic included.
    pub endpoints: Vec<Arc<Endpoint>>,
}

impl Destination {
    /// Arranges a policy with the endpoints of its host.
    pub(crate) fn new<'e>(policy: &Policy, declared: impl Iterator<Item = &'e Declared>) -> Destination {
        let endpoints = declared.filter(|endpoint| policy.labels.selects(&endpoint.labels));
        Destination {
            cluster: policy.key.cluster().into(),
            server_name: server_name(policy),
            endpoints: endpoints.filter_map(|endpoint| endpoint_of(policy, endpoint)).map(Arc::new).collect(),
            policy: policy.clone(),
        }
    }

    /// What each endpoint gets from a caller at a place: its priority and its share. Same indices as `endpoints`.
    pub fn standings(&self, caller: &Place<'_>) -> Vec<Standing> {
        let endpoints: Vec<_> =
            self.endpoints.iter().map(|endpoint| (endpoint.place(), endpoint.weight)).collect();
        let mut standings = arrange(&self.policy.preference, caller, &endpoints);
        for (standing, endpoint) in standings.iter_mut().zip(&self.endpoints) {
            if !self.reaches(endpoint, caller.node) {
                standing.weight = 0;
            }
        }
        standings
    }

    /// Whether a caller on a host reaches an endpoint: one of its own host, where the policy wants that.
    pub fn reaches(&self, endpoint: &Endpoint, node: Option<&str>) -> bool {
        !self.policy.node_local || (node.is_some() && endpoint.node.as_deref() == node)
    }

    /// The policy's TLS as proxies of hosts carry it out, or gateways: a credential that only these are given
    /// leaves the others in the clear.
    pub fn tls_of(&self, gateway: bool) -> &ClientTls {
        match &self.policy.tls {
            ClientTls::Originate(origination) if origination.gateways_only && !gateway => &ClientTls::Disable,
            tls => tls,
        }
    }
}

/// Servers see such names in lower case. One that could not be told in a field is not told.
fn server_name(policy: &Policy) -> Option<Text> {
    let name = match &policy.tls {
        ClientTls::Auto => policy.key.server_name().into(),
        ClientTls::IstioMutual { sni, .. } => sni.clone(),
        ClientTls::Disable | ClientTls::Originate(_) => return None,
    };
    let is_sayable = name.len() <= LONGEST_NAME && name.bytes().all(|byte| byte.is_ascii_graphic());
    is_sayable.then(|| name.to_ascii_lowercase().into())
}

pub(super) fn endpoint_of(policy: &Policy, declared: &Declared) -> Option<Endpoint> {
    let (_, target) = declared.ports.iter().find(|(service_port, _)| *service_port == policy.key.port)?;
    Some(Endpoint {
        workload: declared.workload.clone(),
        address: match &declared.address {
            EndpointAddress::Ip(address) => Dial::Ip(SocketAddr::new(*address, *target)),
            EndpointAddress::Name(name) => Dial::Name(name.clone(), *target),
            EndpointAddress::Unix(path) => Dial::Unix(path.clone()),
        },
        node: declared.node.clone(),
        transport: transport(&policy.tls, declared, *target),
        identity: declared.identity.clone(),
        labels: declared.labels.clone(),
        locality: declared.locality.clone(),
        network: declared.network.clone(),
        weight: declared.weight.max(1),
        health: declared.health,
    })
}

/// Mutual TLS and nothing else. Where a rule names who may answer, nobody else is expected.
fn mutual(declared: &Declared, names: &[Text], mesh: Option<Transport>) -> Transport {
    let named = |id: &SpiffeId| names.is_empty() || names.iter().any(|name| **name == *id.as_str());
    if declared.identity.as_ref().is_some_and(named) {
        return mesh.unwrap_or(Transport::Unreachable);
    }
    let expected = names.iter().find_map(|name| SpiffeId::parse(name).ok());
    match (declared.tunnel, expected) {
        (Some(hop), Some(peer)) => Transport::Mesh { hop, peer },
        _ => Transport::Unreachable,
    }
}

/// Auto mTLS: mutual TLS wherever the endpoint has an identity and a proxy and its port does not refuse it.
fn transport(tls: &ClientTls, declared: &Declared, port: u16) -> Transport {
    let mesh = match (&declared.tunnel, &declared.identity) {
        (Some(hop), Some(peer)) => Some(Transport::Mesh { hop: *hop, peer: peer.clone() }),
        _ => None,
    };
    match tls {
        ClientTls::Disable => Transport::Plaintext,
        ClientTls::Originate(origination) if origination.gateways_only => Transport::Plaintext,
        ClientTls::Originate(_) => Transport::Tls,
        ClientTls::IstioMutual { subject_alt_names, .. } => mutual(declared, subject_alt_names, mesh),
        ClientTls::Auto if declared.plaintext_ports.contains(&port) => Transport::Plaintext,
        ClientTls::Auto => mesh.unwrap_or(Transport::Plaintext),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::name::DestinationKey;
    use crate::vocab::protocol::Protocol;

    #[test]
    fn the_server_name_is_istio_s() {
        let key = DestinationKey {
            host: "a.example".into(),
            port: 443,
            subset: Some("v1".into()),
            scope: Some("x".into()),
        };
        let check = |tls: ClientTls, expected: Option<&str>| {
            let policy = Policy { tls, ..Policy::plain(key.clone(), Protocol::Http) };
            assert_eq!(Destination::new(&policy, [].iter()).server_name.as_deref(), expected);
        };
        let mutual = |sni: &str| ClientTls::IstioMutual { sni: sni.into(), subject_alt_names: Vec::new() };
        check(ClientTls::Auto, Some("outbound_.443_.v1_.a.example"));
        check(mutual("My.Name"), Some("my.name"));
        check(mutual("no name"), None);
        check(ClientTls::Disable, None);
    }

    #[test]
    fn mutual_tls_expects_whom_a_rule_names() {
        let id =
            |name: &str| SpiffeId::parse(&format!("spiffe://cluster.local/ns/default/sa/{name}")).unwrap();
        let hop: SocketAddr = "10.0.0.1:15008".parse().unwrap();
        let endpoint = |identity: Option<&str>, tunnel: Option<SocketAddr>| Declared {
            workload: WorkloadKey { namespace: "default".into(), name: "a".into() },
            address: EndpointAddress::Ip(hop.ip()),
            node: None,
            ports: vec![(80, 80)],
            labels: Labels::default(),
            identity: identity.map(id),
            tunnel,
            plaintext_ports: Vec::new(),
            locality: Locality::default(),
            network: None,
            weight: 1,
            health: Health::Healthy,
        };
        let check = |names: &[&str], identity, tunnel, expected: Option<&str>| {
            let names: Vec<Text> = names.iter().map(|name| id(name).as_str().into()).collect();
            let tls = ClientTls::IstioMutual { sni: "s".into(), subject_alt_names: names };
            let expected = match expected {
                Some(peer) => Transport::Mesh { hop, peer: id(peer) },
                None => Transport::Unreachable,
            };
            assert_eq!(transport(&tls, &endpoint(identity, tunnel), 80), expected, "{tls:?}");
        };
        check(&[], Some("a"), Some(hop), Some("a"));
        check(&[], Some("a"), None, None);
        check(&[], None, Some(hop), None);
        check(&["b", "a"], Some("a"), Some(hop), Some("a"));
        // Who answers there cannot prove to be this one, so that the connection fails.
        check(&["b"], Some("a"), Some(hop), Some("b"));
        check(&["b"], Some("a"), None, None);
        let auto = |identity, tunnel, refusing: &[u16]| {
            let declared = Declared { plaintext_ports: refusing.to_vec(), ..endpoint(identity, tunnel) };
            transport(&ClientTls::Auto, &declared, 80)
        };
        assert_eq!(auto(Some("a"), Some(hop), &[]), Transport::Mesh { hop, peer: id("a") });
        assert_eq!(auto(Some("a"), Some(hop), &[81]), Transport::Mesh { hop, peer: id("a") });
        assert_eq!(auto(Some("a"), Some(hop), &[80]), Transport::Plaintext);
        assert_eq!(auto(Some("a"), None, &[]), Transport::Plaintext);
        assert_eq!(auto(None, Some(hop), &[]), Transport::Plaintext);
        let disabled = transport(&ClientTls::Disable, &endpoint(Some("a"), Some(hop)), 80);
        assert_eq!(disabled, Transport::Plaintext);
    }
}
