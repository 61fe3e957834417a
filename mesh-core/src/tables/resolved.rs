//! Destinations whose endpoints are names, and those without endpoints: with the addresses that names turned out to have.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::destinations::{Destination, Dial, Endpoint, endpoint_of};
use crate::balancing::policy::Algorithm;
use crate::snapshot::destination::Destination as Policy;
use crate::snapshot::endpoints::{Endpoint as Declared, EndpointAddress};
use crate::vocab::health::Health;
use crate::vocab::label::Labels;
use crate::vocab::locality::Locality;
use crate::vocab::name::{Text, WorkloadKey};
use crate::vocab::resolution::Resolution;

impl Destination {
    /// The names that its endpoints have in the place of addresses.
    pub fn names(&self) -> impl Iterator<Item = &Text> {
        self.endpoints.iter().filter_map(|endpoint| match &endpoint.address {
            Dial::Name(name, _) => Some(name),
            Dial::Ip(_) | Dial::Unix(_) => None,
        })
    }

    /// The destination with an endpoint for each address of each name: for the first one only where its resolution says
    /// so. A name of which no address is known has none.
    pub fn resolved<'a>(&self, addresses: impl Fn(&str) -> &'a [IpAddr]) -> Destination {
        let mut endpoints = Vec::with_capacity(self.endpoints.len());
        for endpoint in &self.endpoints {
            let Dial::Name(name, port) = &endpoint.address else {
                endpoints.push(Arc::clone(endpoint));
                continue;
            };
            let found = addresses(name);
            let most = match self.policy.resolution {
                Resolution::DnsRoundRobin => 1,
                Resolution::None | Resolution::Static | Resolution::Dns | Resolution::DynamicDns => {
                    found.len()
                }
            };
            let at = |ip: &IpAddr| Endpoint {
                address: Dial::Ip(SocketAddr::new(*ip, *port)),
                ..Endpoint::clone(endpoint)
            };
            endpoints.extend(found.iter().take(most).map(at).map(Arc::new));
        }
        Destination { endpoints, ..self.bare() }
    }

    /// The destination with these addresses as its endpoints: those of what a caller means where no endpoint is chosen.
    pub fn aimed(&self, name: &str, addresses: &[SocketAddr]) -> Destination {
        let declared = |address: &SocketAddr| Declared {
            workload: WorkloadKey { namespace: Text::from("unknown"), name: Text::from(name) },
            address: EndpointAddress::Ip(address.ip()),
            node: None,
            ports: vec![(self.policy.key.port, address.port())],
            labels: Labels::default(),
            identity: None,
            tunnel: None,
            plaintext_ports: Vec::new(),
            locality: Locality::default(),
            network: None,
            weight: 1,
            health: Health::Healthy,
        };
        let endpoints = addresses.iter().filter_map(|address| endpoint_of(&self.policy, &declared(address)));
        Destination { endpoints: endpoints.map(Arc::new).collect(), ..self.bare() }
    }

    /// The destination with one of its endpoints, for a connection that is meant for no other: there is nothing to
    /// choose, and who was addressed is reached wherever it runs.
    pub fn only(&self, endpoint: &Arc<Endpoint>) -> Destination {
        let policy = Policy { load_balancer: Algorithm::default(), node_local: false, ..self.policy.clone() };
        Destination { policy, endpoints: vec![Arc::clone(endpoint)], ..self.bare() }
    }

    /// The destination without any endpoint.
    pub fn bare(&self) -> Destination {
        Destination {
            policy: self.policy.clone(),
            cluster: self.cluster.clone(),
            server_name: self.server_name.clone(),
            endpoints: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::name::DestinationKey;
    use crate::vocab::protocol::Protocol;

    fn destination(resolution: Resolution) -> Destination {
        let key = DestinationKey { host: "api.example".into(), port: 80, subset: None, scope: None };
        let plain = Policy { resolution, ..Policy::plain(key, Protocol::Http) };
        let aimed =
            Destination { policy: plain, cluster: "c".into(), server_name: None, endpoints: Vec::new() };
        let mut named = aimed.aimed("x", &["10.0.0.9:80".parse().unwrap()]);
        let name =
            Endpoint { address: Dial::Name("a.example".into(), 8080), ..(*named.endpoints[0]).clone() };
        named.endpoints.push(Arc::new(name));
        named
    }

    #[test]
    fn names_become_addresses() {
        let check = |resolution: Resolution, found: &[&str], expected: &[&str]| {
            let destination = destination(resolution);
            assert_eq!(destination.names().collect::<Vec<_>>(), [&Text::from("a.example")]);
            let found: Vec<IpAddr> = found.iter().map(|text| text.parse().unwrap()).collect();
            let resolved = destination.resolved(|name| if name == "a.example" { &found } else { &[] });
            let shown: Vec<String> = resolved.endpoints.iter().map(|e| e.address.to_string()).collect();
            assert_eq!(shown, expected, "{resolution:?}");
        };
        let two = ["10.0.0.1", "10.0.0.2"];
        check(Resolution::Dns, &two, &["10.0.0.9:80", "10.0.0.1:8080", "10.0.0.2:8080"]);
        check(Resolution::DnsRoundRobin, &two, &["10.0.0.9:80", "10.0.0.1:8080"]);
        check(Resolution::Dns, &[], &["10.0.0.9:80"]);
    }
}
