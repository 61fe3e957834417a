//! Service ports and subsets with the policy that holds for them.
//!
//! Which DestinationRules hold is settled before ([`Merged`]); here their blocks are laid over one another, defaults
//! filled in, and turned into what a proxy carries out.

use std::sync::Arc;

use super::origination::{Named, client_tls};
use crate::balancing::balancer::LoadBalancer;
use crate::balancing::locality::Preference;
use crate::balancing::policy::{Algorithm, HashKey, HashTable, LoadBalancerPolicy, Warmup};
use crate::policy::mtls::ClientTls;
use crate::resilience::pool::{ConnectionPool, H2Upgrade, RetryBudget};
use crate::resource::Resource;
use crate::resource::destination_rule::{Subset, TrafficBlocks, TrafficPolicy, Tunnel};
use crate::resource::service::{Port, TargetPort, TrafficDistribution};
use crate::snapshot::destination::Destination;
use crate::state::MeshState;
use crate::state::index::KnownService;
use crate::state::rules::Merged;
use crate::vocab::label::Labels;
use crate::vocab::name::{DestinationKey, Text};
use crate::vocab::protocol::{Protocol, UpstreamProtocol};
use crate::vocab::resolution::Resolution;

/// Points of the ring that `sessionAffinity: ClientIP` is carried out by.
const RING: u64 = 1024;
/// Labels that endpoints are preferred by where a Service says `PreferSameZone` or `PreferClose`.
const SAME_ZONE: [&str; 4] = [
    "topology.istio.io/network",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.istio.io/subzone",
];
/// The same for `PreferSameNode`.
const SAME_NODE: [&str; 5] = [
    "topology.istio.io/network",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.istio.io/subzone",
    "kubernetes.io/hostname",
];

/// The destinations of a service under the rules that hold for it: each port, as a whole and by subset.
pub(super) fn of_service(
    state: &MeshState,
    service: &KnownService,
    rules: &Merged,
    scope: Option<&Text>,
) -> Vec<Destination> {
    let mut destinations = Vec::new();
    for port in &service.ports {
        let shape = Shape { state, service, port, rules, scope };
        destinations.push(shape.destination(None));
        destinations.extend(rules.subsets.iter().map(|subset| shape.destination(Some(subset))));
    }
    destinations
}

/// What shapes the destinations of a port.
struct Shape<'s> {
    state: &'s MeshState,
    service: &'s KnownService,
    port: &'s Port,
    rules: &'s Merged,
    scope: Option<&'s Text>,
}

impl Shape<'_> {
    fn destination(&self, subset: Option<&(Arc<Resource>, Subset)>) -> Destination {
        let (service, port, mesh) = (self.service, self.port, self.state.mesh());
        let top = self.rules.policy.as_ref();
        let origin = subset.map(|(resource, _)| resource).or(self.rules.origin.as_ref());
        let own = subset.and_then(|(_, subset)| subset.policy.as_ref());
        let policy = effective(top.map(|(_, policy)| policy), own, port.number);
        let blocks = &policy.blocks;
        let pool = blocks.connection_pool.or(mesh.default_connection_pool).unwrap_or_default();
        let outliers = blocks.outlier_detection.clone().or_else(|| mesh.default_outlier_detection.clone());
        let balancing = blocks.load_balancer.clone().unwrap_or_default();
        let passthrough = service.resolution == Resolution::None;
        let load_balancer = match &blocks.load_balancer {
            _ if passthrough => Algorithm::Passthrough,
            None if service.client_affinity => {
                Algorithm::ConsistentHash { key: HashKey::SourceIp, table: HashTable::Ring(RING) }
            }
            _ => balancing.algorithm.clone(),
        };
        let key = DestinationKey {
            host: service.host.clone(),
            port: port.number,
            subset: subset.map(|(_, subset)| subset.name.clone()),
            scope: self.scope.cloned(),
        };
        let tls = match &blocks.tls {
            Some(settings) => {
                let from = subset.map(|(resource, _)| resource).or(top.map(|(resource, _)| resource));
                let namespace = from.map_or(&service.namespace, |resource| &resource.meta.key.namespace);
                let named =
                    Named { names: &service.subject_alt_names, namespace, selected: self.rules.selects };
                client_tls(settings, &key, &named)
            }
            None if self.state.auto_mtls() => ClientTls::Auto,
            None => ClientTls::Disable,
        };
        Destination {
            origin: origin.map(|resource| resource.meta.key.to_string().into()),
            protocol: port.protocol,
            labels: subset.map_or_else(Labels::default, |(_, subset)| subset.labels.clone()),
            resolution: service.resolution,
            target_port: own_port(service, port),
            preference: match load_balancer {
                Algorithm::Passthrough => Preference::None,
                Algorithm::Simple(_) | Algorithm::ConsistentHash { .. } | Algorithm::Utilization(_) => {
                    self.preference(&balancing, outliers.is_some())
                }
            },
            warmup: warmup(&balancing, &load_balancer),
            load_balancer,
            tls,
            connect_timeout: pool.connect_timeout.unwrap_or(self.state.connect_timeout()),
            pool: pool.limits(mesh.tcp_keepalive),
            outlier_detection: outliers,
            retry_budget: policy.retry_budget,
            fault: self.rules.fault,
            tunnel: policy.tunnel,
            proxy_protocol: policy.proxy_protocol,
            upstream: upstream(port.protocol, &pool, mesh.h2_upgrade),
            node_local: service.node_local,
            key,
        }
    }

    fn preference(&self, balancing: &LoadBalancerPolicy, outliers_detected: bool) -> Preference {
        let distribution = self.service.distribution.map(|distribution| match distribution {
            TrafficDistribution::SameZone => SAME_ZONE.as_slice(),
            TrafficDistribution::SameNode => SAME_NODE.as_slice(),
        });
        let mesh = self.state.mesh().locality.as_ref();
        Preference::of(balancing.locality.as_ref(), distribution, mesh, outliers_detected)
    }
}

/// Blocks that hold, and what a policy says besides.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Effective {
    blocks: TrafficBlocks,
    tunnel: Option<Tunnel>,
    proxy_protocol: Option<u8>,
    retry_budget: Option<RetryBudget>,
}

/// Low to high: the top level, its entry for the port, the subset, the subset's entry for the port. A subset wins
/// block by block. An entry for the port is the whole policy, with defaults where it is silent: at the top level
/// what no entry can say is lost with it, in a subset it stays.
fn effective(top: Option<&TrafficPolicy>, subset: Option<&TrafficPolicy>, port: u16) -> Effective {
    let base = match top.map(|policy| (policy, for_port(policy, port))) {
        None => Effective::default(),
        Some((_, Some(entry))) => Effective { blocks: entry.clone(), ..Effective::default() },
        Some((policy, None)) => Effective {
            blocks: policy.blocks.clone(),
            tunnel: policy.tunnel.clone(),
            proxy_protocol: policy.proxy_protocol,
            retry_budget: policy.retry_budget,
        },
    };
    let Some(subset) = subset else { return base };
    let own = &subset.blocks;
    Effective {
        blocks: match for_port(subset, port) {
            Some(entry) => entry.clone(),
            None => TrafficBlocks {
                load_balancer: own.load_balancer.clone().or(base.blocks.load_balancer),
                connection_pool: own.connection_pool.or(base.blocks.connection_pool),
                outlier_detection: own.outlier_detection.clone().or(base.blocks.outlier_detection),
                tls: own.tls.clone().or(base.blocks.tls),
            },
        },
        tunnel: subset.tunnel.clone().or(base.tunnel),
        proxy_protocol: subset.proxy_protocol.or(base.proxy_protocol),
        retry_budget: subset.retry_budget.or(base.retry_budget),
    }
}

fn for_port(policy: &TrafficPolicy, port: u16) -> Option<&TrafficBlocks> {
    policy.ports.iter().find(|(number, _)| *number == port).map(|(_, blocks)| blocks)
}

/// Where traffic goes to where it was sent, or to the name that it asks for, only a target port changes anything.
fn own_port(service: &KnownService, port: &Port) -> Option<u16> {
    match (service.resolution, &port.target) {
        (Resolution::None | Resolution::DynamicDns, TargetPort::Number(number)) => Some(*number),
        _ => None,
    }
}

/// Only these two algorithms know weights that grow.
fn warmup(balancing: &LoadBalancerPolicy, algorithm: &Algorithm) -> Option<Warmup> {
    let grows = matches!(algorithm, Algorithm::Simple(LoadBalancer::RoundRobin | LoadBalancer::LeastRequest));
    balancing.warmup.filter(|_| grows)
}

/// What endpoints are spoken to in. A rule may upgrade a port that is declared as anything; the mesh upgrades those
/// that are declared HTTP.
fn upstream(protocol: Protocol, pool: &ConnectionPool, mesh_upgrades: bool) -> UpstreamProtocol {
    let declared = protocol.upstream();
    if declared == UpstreamProtocol::Opaque {
        return declared;
    }
    if pool.use_client_protocol {
        return UpstreamProtocol::AsClient;
    }
    let upgraded = match pool.h2_upgrade {
        H2Upgrade::Upgrade => true,
        H2Upgrade::DoNotUpgrade => false,
        H2Upgrade::Default => mesh_upgrades && protocol.is_http(),
    };
    if upgraded { UpstreamProtocol::Http2 } else { declared }
}

#[cfg(test)]
mod tests;
