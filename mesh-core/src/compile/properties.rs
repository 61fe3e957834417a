//! What must hold for every mesh: order does not matter, recompiling is compiling, one endpoint is one slice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use super::{Compiled, compile, recompile};
use crate::resource::Spec;
use crate::snapshot::endpoints::SLICE_SIZE;
use crate::snapshot::section::SectionKey;
use crate::snapshot::{Snapshot, Version};
use crate::state::arbitrary::{a_change, a_registration, a_resource};
use crate::state::sample::{declare, empty, node, service, workload};
use crate::state::{Change, MeshState, Registration, Touched};
use crate::vocab::health::Health;
use crate::vocab::name::{Text, WorkloadKey};
use crate::vocab::origin::Kind;

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
        revoked: Some(state.revoked().to_vec()),
        keys: Vec::new(),
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
        // A namespace of its own, and policies that select by no label that changes here. A Gateway that selects
        // everything would have the labels of its workload.
        let mut upserts = resources;
        upserts.retain(|resource| resource.meta.key.kind != Kind::Gateway);
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
