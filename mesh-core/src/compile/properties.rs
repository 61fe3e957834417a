//! What must hold for every mesh: order does not matter, recompiling is compiling, one endpoint is one slice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::{Compiled, compile, recompile};
use crate::policy::authorization::PolicyAction;
use crate::policy::mtls::MtlsMode;
use crate::resource::destination_rule::{TrafficBlocks, TrafficPolicy};
use crate::resource::security::AuthorizationPolicy;
use crate::resource::service::Location;
use crate::resource::{Resource, Spec};
use crate::snapshot::endpoints::SLICE_SIZE;
use crate::snapshot::section::SectionKey;
use crate::snapshot::{Snapshot, Version};
use crate::state::sample::{
    declare, destination_rule, empty, http_route, labels, node, peer_authentication, service, service_entry,
    virtual_service, workload,
};
use crate::state::{Change, MeshState, Registration, Touched};
use crate::vocab::health::Health;
use crate::vocab::name::{Text, WorkloadKey};
use crate::vocab::origin::Kind;

const NAMESPACES: &[&str] = &["default", "prod", "istio-system"];
const LABELS: &[&str] = &["app=a", "app=b", "app=a,version=v1", "version=v2", ""];
const ADDRESSES: &[&str] = &["10.0.0.1", "10.0.0.2", "10.0.0.3"];
const PORTS: &[&str] = &["http:80", "tcp:81:8081", "auto:82:named", "grpc:83"];
const HOSTS: &[&str] = &[
    "a",
    "b",
    "a.prod.svc.cluster.local",
    "ext.example",
    "*.example",
    "*.svc.cluster.local",
    "*",
    "nowhere.org",
];

fn id(names: &'static [&'static str]) -> impl Strategy<Value = String> {
    (select(NAMESPACES), select(names), 0..3_u64)
        .prop_map(|(namespace, name, created)| format!("{namespace}/{name}@{created}"))
}

fn some_ports() -> impl Strategy<Value = Vec<&'static str>> {
    subsequence(PORTS, 1..=3)
}

fn a_service() -> impl Strategy<Value = Arc<Resource>> {
    (id(&["a", "b"]), some_ports(), select(LABELS))
        .prop_map(|(id, ports, selector)| service(&id, &ports, selector))
}

/// Some of these names are those of endpoints of `a_service_entry`.
fn an_entry() -> impl Strategy<Value = Arc<Resource>> {
    let names = &["w1", "w2", "se-0", "se-1"];
    (id(names), select(ADDRESSES), select(LABELS), 1..3_u32).prop_map(|(id, address, labels, weight)| {
        let mut entry = workload(address, labels);
        entry.weight = weight;
        entry.ports.insert("named".into(), 9000);
        declare(&id, Spec::WorkloadEntry(entry))
    })
}

fn a_service_entry() -> impl Strategy<Value = Arc<Resource>> {
    let endpoints = vec((select(ADDRESSES), select(LABELS)), 0..3);
    let hosts = select(&["ext.example", "a.prod.svc.cluster.local"][..]);
    (id(&["se", "sf"]), hosts, some_ports(), endpoints, any::<bool>(), proptest::option::of(select(LABELS)))
        .prop_map(|(id, host, ports, endpoints, internal, selector)| {
            let endpoints = endpoints.into_iter().map(|(address, labels)| workload(address, labels));
            let mut entry = service_entry(host, &ports, endpoints.collect());
            if internal {
                entry.location = Location::Internal;
            }
            entry.workload_selector = selector.map(labels);
            declare(&id, Spec::ServiceEntry(entry))
        })
}

fn a_virtual_service() -> impl Strategy<Value = Arc<Resource>> {
    let destination =
        select(&["a", "b/v1*10", "ext.example*90", "a.prod.svc.cluster.local:80", "a:82*1"][..]);
    let prefix = proptest::option::of(select(&["/x", "/y"][..]));
    let port = proptest::option::of(select(&[80_u16, 82, 9][..]));
    let route = (prefix, port, vec(destination, 1..3))
        .prop_map(|(prefix, port, destinations)| http_route(prefix, port, &destinations));
    (id(&["v", "w"]), subsequence(HOSTS, 1..3), vec(route, 0..3))
        .prop_map(|(id, hosts, routes)| virtual_service(&id, &hosts, routes))
}

fn a_destination_rule() -> impl Strategy<Value = Arc<Resource>> {
    let policy = proptest::option::of(any::<bool>().prop_map(|_| {
        let blocks = TrafficBlocks { load_balancer: Some(Default::default()), tls: None };
        TrafficPolicy { blocks, ports: Vec::new() }
    }));
    (id(&["d", "e"]), select(HOSTS), subsequence(&["v1", "v2"][..], 0..=2), policy)
        .prop_map(|(id, host, subsets, policy)| destination_rule(&id, host, &subsets, policy))
}

fn a_policy() -> impl Strategy<Value = Arc<Resource>> {
    let selector = proptest::option::of(select(LABELS));
    let mode = proptest::option::of(select(&[MtlsMode::Disable, MtlsMode::Strict][..]));
    (id(&["p", "q"]), selector, mode, any::<bool>()).prop_map(|(id, selector, mode, peer)| {
        if peer {
            return peer_authentication(&id, selector, mode, &[(80, Some(MtlsMode::Disable))]);
        }
        let action = mode.map_or(PolicyAction::Allow, |_| PolicyAction::Deny);
        let policy = AuthorizationPolicy { selector: selector.map(labels), action, rules: Vec::new() };
        declare(&id, Spec::AuthorizationPolicy(policy))
    })
}

fn a_resource() -> impl Strategy<Value = Arc<Resource>> {
    prop_oneof![
        3 => a_service(),
        3 => an_entry(),
        2 => a_service_entry(),
        2 => a_virtual_service(),
        2 => a_destination_rule(),
        2 => a_policy(),
    ]
}

fn a_registration() -> impl Strategy<Value = Registration> {
    let health = select(&[Health::Healthy, Health::Unhealthy, Health::Unknown][..]);
    (
        select(&["h1", "h2", "h3"][..]),
        select(ADDRESSES),
        vec(an_entry(), 0..3),
        vec(a_service(), 0..2),
        vec((an_entry(), health), 0..3),
        proptest::bool::weighted(0.2),
    )
        .prop_map(|(name, address, workloads, services, health, drained)| {
            let mut registration = node(name, address, workloads);
            registration.services = services;
            registration.drained = drained;
            for (resource, health) in health {
                let key = &resource.meta.key;
                let key = WorkloadKey { namespace: key.namespace.clone(), name: key.name.clone() };
                registration.health.insert(key, (health, health.name().into()));
            }
            registration
        })
}

fn a_change() -> impl Strategy<Value = Change> {
    (
        vec(a_resource(), 0..5),
        vec(a_resource(), 0..4),
        vec((a_registration(), proptest::bool::weighted(0.7)), 0..2),
        vec((select(&["ext.example", "a.prod.svc.cluster.local"][..]), 0..9_u32), 0..2),
        proptest::option::weighted(0.1, vec(any::<u8>(), 3)),
    )
        .prop_map(|(upserts, removals, registrations, offsets, root)| Change {
            upserts,
            removals: removals.iter().map(|resource| resource.meta.key.clone()).collect(),
            registrations: registrations
                .into_iter()
                .map(|(registration, stays)| (registration.node.clone(), stays.then_some(registration)))
                .collect(),
            offsets: offsets.into_iter().map(|(host, offset)| (Text::from(host), offset)).collect(),
            roots: root.map(|root| vec![root]),
        })
}

/// The same mesh, built in one go.
fn rebuilt(state: &MeshState) -> MeshState {
    let change = Change {
        upserts: Kind::ALL.into_iter().flat_map(|kind| state.resources(kind)).cloned().collect(),
        removals: Vec::new(),
        registrations: state
            .registrations()
            .map(|registration| (registration.node.clone(), Some((**registration).clone())))
            .collect(),
        offsets: state.offsets().iter().map(|(host, offset)| (host.clone(), *offset)).collect(),
        roots: Some(state.roots().to_vec()),
    };
    empty().apply(change).0
}

fn whole(compiled: &Compiled) -> Snapshot {
    compiled.whole(Version::default())
}

/// The keys under which two snapshots differ.
fn difference(before: &Snapshot, after: &Snapshot) -> BTreeSet<SectionKey> {
    let keys = before.sections.keys().chain(after.sections.keys());
    keys.filter(|key| before.sections.get(*key) != after.sections.get(*key)).cloned().collect()
}

proptest! {
    #[test]
    fn recompiling_is_compiling(changes in vec(a_change(), 1..8)) {
        let mut state = empty();
        let mut compiled = compile(&state);
        let mut skipped = (compiled.clone(), Touched::default());
        for change in changes {
            let (next, touched) = state.apply(change);
            let recompiled = recompile(&compiled, &next, &touched);
            let fresh = compile(&next);
            prop_assert_eq!(difference(&whole(&recompiled), &whole(&fresh)), BTreeSet::new());
            prop_assert_eq!(&recompiled, &fresh);
            prop_assert_eq!(&compile(&rebuilt(&next)), &fresh);
            for (key, entry) in &whole(&recompiled).sections {
                if let Some(before) = whole(&compiled).sections.get(key).filter(|before| *before == entry) {
                    prop_assert!(Arc::ptr_eq(&before.section, &entry.section), "{} is not shared", key);
                }
                prop_assert_eq!(&entry.section.key(), key);
            }
            skipped.1.merge(touched);
            state = next;
            compiled = recompiled;
        }
        prop_assert_eq!(recompile(&skipped.0, &state, &skipped.1), compiled);
    }

    #[test]
    fn order_of_input_never_changes_output(
        resources in vec(a_resource(), 0..12),
        registrations in vec(a_registration(), 0..3),
        seed in any::<u64>(),
    ) {
        let resources: BTreeMap<_, _> = resources.into_iter().map(|r| (r.meta.key.clone(), r)).collect();
        let registrations: BTreeMap<_, _> = registrations.into_iter().map(|r| (r.node.clone(), r)).collect();
        let mut changes: Vec<Change> = resources
            .into_values()
            .map(|resource| Change { upserts: vec![resource], ..Change::default() })
            .chain(registrations.into_iter().map(|(node, registration)| Change {
                registrations: vec![(node, Some(registration))],
                ..Change::default()
            }))
            .collect();
        let build = |changes: &[Change]| {
            let state = changes.iter().fold(empty(), |state, change| state.apply(change.clone()).0);
            compile(&state)
        };
        let straight = build(&changes);
        let mut random = crate::vocab::random::Random::seeded(seed);
        for index in (1..changes.len()).rev() {
            let other = usize::try_from(random.below(index as u64 + 1)).unwrap();
            changes.swap(index, other);
        }
        prop_assert_eq!(build(&changes), straight);
    }

    #[test]
    fn one_endpoint_change_changes_one_slice(
        resources in vec(a_resource(), 0..8),
        count in 1..(3 * SLICE_SIZE),
        chosen in any::<proptest::sample::Index>(),
        kind in 0..3,
    ) {
        // A namespace of its own, and policies that select by no label that changes here.
        let mut upserts = resources;
        upserts.push(service("big/many", &["http:80", "grpc:81"], "app=many"));
        let (before, _) = empty().apply(Change { upserts, ..Change::default() });
        let entries = (0..count).map(|index| {
            let labels = "app=many,color=red";
            declare(&format!("big/w{index}"), Spec::WorkloadEntry(workload("10.9.0.1", labels)))
        });
        let registration = node("big", "10.9.0.1", entries.collect());
        let register = |registration: Registration| Change {
            registrations: vec![("big".into(), Some(registration))],
            ..Change::default()
        };
        let (before, _) = before.apply(register(registration.clone()));
        let mut changed = registration;
        let chosen = chosen.index(count);
        let key = WorkloadKey { namespace: "big".into(), name: format!("w{chosen}").into() };
        let edit = Arc::make_mut(&mut changed.workloads[chosen]);
        let mut expected = 1;
        match &mut edit.spec {
            Spec::WorkloadEntry(entry) if kind == 0 => entry.weight = 7,
            // The workload's own section has its labels too.
            Spec::WorkloadEntry(entry) if kind == 1 => {
                entry.labels.set("color", "blue");
                expected = 2;
            }
            _ => {
                changed.health.insert(key.clone(), (Health::Unhealthy, "refused".into()));
            }
        }
        let first = compile(&before);
        let (after, touched) = before.apply(register(changed));
        let second = recompile(&first, &after, &touched);
        let mut differing = difference(&whole(&first), &whole(&second));
        prop_assert_eq!(differing.len(), expected);
        if expected == 2 {
            prop_assert!(differing.remove(&SectionKey::Workload(key)));
        }
        let host = Text::from("many.big.svc.cluster.local");
        let slice = differing.pop_first();
        let is_slice = matches!(&slice, Some(SectionKey::Endpoints { host: at, .. }) if *at == host);
        prop_assert!(is_slice, "{:?}", slice);
        prop_assert!(touched.hosts.is_empty() && touched.policies.is_empty() && !touched.trust);
    }
}
