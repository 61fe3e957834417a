//! Endpoint slices of a service.

use std::collections::{BTreeMap, BTreeSet};

use super::security;
use crate::policy::mtls::MtlsMode;
use crate::resource::workload::Address;
use crate::snapshot::endpoints::{Endpoint, EndpointAddress, EndpointSlice, slice_count, slice_of};
use crate::snapshot::section::Section;
use crate::state::MeshState;
use crate::state::index::{KnownService, Member, speaks_mutual_tls};
use crate::vocab::health::Health;
use crate::vocab::name::Text;

/// The slices of a service that hold an endpoint, for a view that finds this service or for all others.
pub(super) fn slices(state: &MeshState, service: &KnownService, scope: Option<&Text>) -> Vec<Section> {
    let members = state.members(service);
    let count = slice_count(members.len());
    let mut slices: BTreeMap<u32, Vec<Endpoint>> = BTreeMap::new();
    for member in &members {
        let slice = slice_of(&member.workload.key, count);
        slices.entry(slice).or_default().extend(endpoint(state, service, member));
    }
    let section = |(slice, endpoints)| {
        let (host, scope) = (service.host.clone(), scope.cloned());
        Section::Endpoints(EndpointSlice { host, scope, slice, endpoints })
    };
    slices.into_iter().map(section).collect()
}

fn endpoint(state: &MeshState, service: &KnownService, member: &Member) -> Option<Endpoint> {
    let workload = &member.workload;
    let address = match &workload.entry.address {
        Address::Ip(address) => EndpointAddress::Ip(*address),
        Address::Host(name) => EndpointAddress::Name(name.clone()),
        Address::Unix(path) => EndpointAddress::Unix(path.clone()),
        Address::Unknown => return None,
    };
    // What is outside of the mesh is never spoken to in its way.
    let tunnel = workload.tunnel.filter(|_| !service.external);
    let plaintext_ports = match tunnel {
        Some(_) => plaintext_ports(state, member),
        None => Vec::new(),
    };
    // One of a host that is drained or gone gets nothing, whatever its service says of those that are not ready.
    let published = service.publish_not_ready && !workload.host.withholds();
    Some(Endpoint {
        workload: workload.key.clone(),
        address,
        node: workload.node.clone(),
        ports: member.ports.clone(),
        labels: workload.entry.labels.clone(),
        identity: workload.identity.clone(),
        tunnel,
        plaintext_ports,
        locality: workload.entry.locality.clone(),
        network: workload.entry.network.clone(),
        weight: workload.entry.weight.max(1),
        health: if published { Health::Healthy } else { workload.health },
    })
}

/// The ports of a workload that are spoken to in the clear where nothing demands otherwise: those that refuse
/// mutual TLS, and all of one that does not promise it.
fn plaintext_ports(state: &MeshState, member: &Member) -> Vec<u16> {
    let workload = &member.workload;
    let policy = security::mtls(state, &workload.key.namespace, &workload.entry.labels);
    let promised = speaks_mutual_tls(&workload.entry);
    let targets: BTreeSet<u16> = member.ports.iter().map(|(_, target)| *target).collect();
    targets.into_iter().filter(|port| !promised || policy.mode(*port) == MtlsMode::Disable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Spec;
    use crate::resource::service::Location;
    use crate::state::sample::{
        declare, entry, joined, mesh, node, peer_authentication, service, service_entry, workload,
    };

    /// Everything about the first endpoint of a host that depends on more than its WorkloadEntry.
    fn first(state: &MeshState, host: &str) -> (bool, Vec<u16>, String) {
        let sections = slices(state, state.service(host).unwrap(), None);
        let Some(Section::Endpoints(slice)) = sections.first() else { return Default::default() };
        let endpoint = &slice.endpoints[0];
        let identity = endpoint.identity.as_ref().map_or("", |identity| identity.as_str());
        (endpoint.tunnel.is_some(), endpoint.plaintext_ports.clone(), identity.to_owned())
    }

    #[test]
    fn only_endpoints_behind_a_proxy_of_the_mesh_are_tunnelled() {
        let entry_of = |location: Location| {
            let mut entry = service_entry("ext", &["http:80"], vec![workload("10.0.0.1", "app=x")]);
            entry.location = location;
            declare("default/se", Spec::ServiceEntry(entry))
        };
        let here = || vec![node("h1", "10.0.0.1", vec![])];
        let elsewhere = || vec![node("h2", "10.0.0.2", vec![])];
        let identity = "spiffe://cluster.local/ns/default/sa/x".to_owned();
        for (location, nodes, tunnelled) in [
            (Location::Internal, here(), true),
            (Location::Internal, elsewhere(), false),
            (Location::External, here(), false),
        ] {
            let state = joined(&mesh(vec![entry_of(location)]), nodes);
            assert_eq!(first(&state, "ext"), (tunnelled, vec![], identity.clone()), "{location:?}");
        }
    }

    #[test]
    fn ports_whose_policy_is_disable_take_no_mutual_tls() {
        let ports = [(8081, Some(MtlsMode::Disable)), (9, Some(MtlsMode::Disable))];
        let resources = vec![
            service("default/a", &["http:80:8080", "tcp:81:8081"], "app=a"),
            entry("default/w", "10.0.0.1", "app=a"),
            peer_authentication("default/p", Some("app=a"), Some(MtlsMode::Strict), &ports),
        ];
        let state = joined(&mesh(resources), vec![node("h1", "10.0.0.1", vec![])]);
        let identity = "spiffe://cluster.local/ns/default/sa/a".to_owned();
        assert_eq!(first(&state, "a.default.svc.cluster.local"), (true, vec![8081], identity));
    }
}
