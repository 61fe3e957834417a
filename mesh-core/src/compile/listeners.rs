//! What a workload listens on: the ports that services reach, or those that its Sidecar lists.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::resilience::pool::ConnectionPool;
use crate::resource::Spec;
use crate::resource::sidecar::Sidecar;
use crate::snapshot::workload::WorkloadPort;
use crate::state::MeshState;
use crate::state::index::{KnownService, KnownWorkload};
use crate::vocab::name::Text;
use crate::vocab::protocol::Protocol;

/// A service that reaches a port of a workload.
struct Reaching {
    service: Arc<KnownService>,
    /// Port of the service.
    number: u16,
    protocol: Protocol,
}

/// The ports of a workload, by number. Where several services reach one, a Service counts before a ServiceEntry, then
/// the older one. A Sidecar with `ingress` lists all that there is; what it leaves out is bytes to the proxy.
pub(super) fn ports(state: &MeshState, workload: &KnownWorkload) -> Vec<WorkloadPort> {
    let reached = reached(state, workload);
    let sidecar = sidecar(state, workload);
    let everywhere = sidecar.and_then(|sidecar| sidecar.inbound_connection_pool);
    let pool = |reaching: Option<&Reaching>| {
        let declared = everywhere.or_else(|| reaching.and_then(|reaching| pool_of(state, reaching)));
        declared.unwrap_or_default()
    };
    let listed = sidecar.map_or(&[][..], |sidecar| &sidecar.ingress);
    if listed.is_empty() {
        let ports = reached.into_iter().map(|(number, reaching)| WorkloadPort {
            number,
            protocol: reaching.protocol,
            service: reaching.service.host.clone(),
            endpoint: None,
            pool: pool(Some(&reaching)),
        });
        return ports.collect();
    }
    let mut ports: BTreeMap<u16, WorkloadPort> = BTreeMap::new();
    for ingress in listed {
        let number = ingress.port.number;
        let reaching = reached.get(&number);
        ports.entry(number).or_insert_with(|| WorkloadPort {
            number,
            protocol: ingress.port.protocol,
            service: reaching.map_or_else(|| Text::from(""), |reaching| reaching.service.host.clone()),
            endpoint: ingress.default_endpoint.clone(),
            pool: ingress.connection_pool.unwrap_or_else(|| pool(reaching)),
        });
    }
    ports.into_values().collect()
}

/// What reaches each port.
fn reached(state: &MeshState, workload: &KnownWorkload) -> BTreeMap<u16, Reaching> {
    let mut services = state.services_of(workload);
    services.retain(|service| !service.external);
    services.sort_by(|a, b| a.rank().cmp(&b.rank()).then_with(|| a.host.cmp(&b.host)));
    let mut reached = BTreeMap::new();
    for service in &services {
        for (number, target) in service.reaches(workload).unwrap_or_default() {
            let Some(port) = service.port(number) else { continue };
            reached.entry(target).or_insert_with(|| Reaching {
                service: service.clone(),
                number,
                protocol: port.protocol,
            });
        }
    }
    reached
}

fn sidecar<'s>(state: &'s MeshState, workload: &'s KnownWorkload) -> Option<&'s Sidecar> {
    match &state.sidecar_of(&workload.key.namespace, &workload.entry.labels)?.spec {
        Spec::Sidecar(sidecar) => Some(sidecar),
        _ => None,
    }
}

/// The limits that the service's own DestinationRule sets for a port: its entry for the port, else its top level.
fn pool_of(state: &MeshState, reaching: &Reaching) -> Option<ConnectionPool> {
    let service = &reaching.service;
    let view = state.gateway_view(&service.namespace);
    let (_, policy) = state.rules_for(&view, &service.namespace, &service.host).policy?;
    let own = policy.ports.iter().find(|(number, _)| *number == reaching.number);
    own.map_or(policy.blocks.connection_pool, |(_, blocks)| blocks.connection_pool)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::destination_rule::{TrafficBlocks, TrafficPolicy};
    use crate::resource::sidecar::{Ingress, SidecarPort};
    use crate::state::sample::{declare, destination_rule, entry, mesh, service};
    use crate::vocab::name::WorkloadKey;

    fn limit(connections: u32) -> Option<ConnectionPool> {
        Some(ConnectionPool { max_connections: Some(connections), ..ConnectionPool::default() })
    }

    /// `number protocol service endpoint connections` of each port of the workload `default/w`.
    fn found(state: &MeshState) -> Vec<String> {
        let key = WorkloadKey { namespace: "default".into(), name: "w".into() };
        let ports = ports(state, state.workload(&key).unwrap());
        let words = ports.iter().map(|port| {
            let endpoint = port.endpoint.as_deref().unwrap_or("-");
            let name = port.service.split('.').next().unwrap_or_default();
            let limit = port.pool.max_connections.unwrap_or(0);
            format!("{} {} {name} {endpoint} {limit}", port.number, port.protocol.name())
        });
        words.collect()
    }

    #[test]
    fn a_sidecar_s_ingress_lists_all_that_there_is() {
        let ingress = |number, protocol, pool| Ingress {
            port: SidecarPort { number, name: "p".into(), protocol },
            bind: None,
            capture: Default::default(),
            default_endpoint: Some("127.0.0.1:1".into()),
            tls: None,
            connection_pool: pool,
        };
        let with = |ingress: Vec<Ingress>, pool| Sidecar {
            ingress,
            inbound_connection_pool: pool,
            ..Sidecar::default()
        };
        let check = |sidecar: Option<Sidecar>, rule: bool, expected: &[&str]| {
            let mut resources = vec![
                service("default/s", &["http:80:8080", "tcp:90"], "app=a"),
                entry("default/w", "10.0.0.1", "app=a"),
            ];
            resources.extend(sidecar.map(|sidecar| declare("default/side", Spec::Sidecar(sidecar))));
            let blocks = |pool| TrafficBlocks { connection_pool: pool, ..TrafficBlocks::default() };
            let policy = TrafficPolicy {
                blocks: blocks(limit(4)),
                ports: vec![(80, blocks(limit(3)))],
                ..TrafficPolicy::default()
            };
            let policy = rule.then(|| destination_rule("default/r", "s", &[], Some(policy)));
            resources.extend(policy);
            assert_eq!(found(&mesh(resources)), expected);
        };
        check(None, false, &["90 tcp s - 0", "8080 http s - 0"]);
        check(None, true, &["90 tcp s - 4", "8080 http s - 3"]);
        check(Some(with(vec![], limit(2))), true, &["90 tcp s - 2", "8080 http s - 2"]);
        let listed = || vec![ingress(8080, Protocol::Grpc, limit(1)), ingress(7, Protocol::Tcp, None)];
        check(Some(with(listed(), limit(2))), true, &["7 tcp  127.0.0.1:1 2", "8080 grpc s 127.0.0.1:1 1"]);
        check(Some(with(listed(), None)), true, &["7 tcp  127.0.0.1:1 0", "8080 grpc s 127.0.0.1:1 1"]);
    }
}
