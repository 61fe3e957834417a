//! Endpoint slices of a service.

use std::collections::{BTreeMap, BTreeSet};

use super::security;
use crate::policy::mtls::MtlsMode;
use crate::snapshot::endpoints::{Endpoint, EndpointSlice, slice_count, slice_of};
use crate::snapshot::section::Section;
use crate::state::MeshState;
use crate::state::index::{KnownService, Member};
use crate::vocab::name::Text;

/// The slices of a host that hold an endpoint.
pub(super) fn slices(state: &MeshState, host: &Text) -> Vec<Section> {
    let Some(service) = state.service(host) else { return Vec::new() };
    let members = state.members(service);
    let count = slice_count(members.len());
    let mut slices: BTreeMap<u32, Vec<Endpoint>> = BTreeMap::new();
    for member in &members {
        let slice = slice_of(&member.workload.key, count);
        slices.entry(slice).or_default().push(endpoint(state, service, member));
    }
    let section =
        |(slice, endpoints)| Section::Endpoints(EndpointSlice { host: host.clone(), slice, endpoints });
    slices.into_iter().map(section).collect()
}

fn endpoint(state: &MeshState, service: &KnownService, member: &Member) -> Endpoint {
    let workload = &member.workload;
    // What is outside of the mesh is never spoken to in its way.
    let tunnel = workload.tunnel.filter(|_| !service.external);
    let plaintext_ports = match tunnel {
        Some(_) => {
            let policy = security::mtls(state, &workload.key.namespace, &workload.entry.labels);
            let targets: BTreeSet<u16> = member.ports.iter().map(|(_, target)| *target).collect();
            targets.into_iter().filter(|port| policy.mode(*port) == MtlsMode::Disable).collect()
        }
        None => Vec::new(),
    };
    Endpoint {
        workload: workload.key.clone(),
        address: workload.entry.address,
        node: workload.node.clone(),
        ports: member.ports.clone(),
        labels: workload.entry.labels.clone(),
        identity: workload.identity.clone(),
        tunnel,
        plaintext_ports,
        locality: workload.entry.locality.clone(),
        weight: workload.entry.weight.max(1),
        health: workload.health,
    }
}
