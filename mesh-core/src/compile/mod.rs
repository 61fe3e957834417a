//! Mesh state to sections.
//!
//! [`compile`] makes every section from nothing; [`recompile`] makes those that a change touched and shares the
//! rest with the previous result. Both yield the same. Precedence, defaults and merging are settled here: behind
//! the snapshot rules are ordered and the first match wins.

use std::collections::BTreeMap;

use crate::snapshot::section::{Section, SectionKey};
use crate::snapshot::{Entry, Sections};
use crate::state::{MeshState, Touched};
use crate::vocab::name::{DestinationKey, ServicePort, Text, WorkloadKey};
use crate::vocab::origin::Kind;

mod destinations;
mod endpoints;
#[cfg(test)]
mod properties;
mod routes;
mod security;
mod services;
mod visibility;

/// Every section of the mesh, arranged so that a node's snapshot is a choice of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Compiled {
    /// What every node gets: trust, services, routes, destinations, endpoints.
    shared: Sections,
    /// Authorization policies.
    policies: Sections,
    /// Workloads, by the node that they belong to.
    nodes: BTreeMap<Text, BTreeMap<WorkloadKey, Entry>>,
    /// The node of each of these workloads.
    owners: BTreeMap<WorkloadKey, Text>,
}

/// Compiles the whole mesh.
pub fn compile(state: &MeshState) -> Compiled {
    let mut compiled = Compiled::default();
    compiled.refresh(state, &everything(state));
    compiled
}

/// Compiles what a change touched. `touched` covers all changes since `previous` was compiled.
pub fn recompile(previous: &Compiled, state: &MeshState, touched: &Touched) -> Compiled {
    let mut compiled = previous.clone();
    compiled.refresh(state, touched);
    compiled
}

fn everything(state: &MeshState) -> Touched {
    Touched {
        trust: true,
        hosts: state
            .services()
            .map(|service| &service.host)
            .chain(state.virtual_services().hosts())
            .cloned()
            .collect(),
        endpoints: Default::default(),
        workloads: state.workloads().map(|workload| workload.key.clone()).collect(),
        policies: state.resources(Kind::AuthorizationPolicy).map(|policy| policy.meta.key.clone()).collect(),
    }
}

impl Compiled {
    fn refresh(&mut self, state: &MeshState, touched: &Touched) {
        if touched.trust {
            replace(&mut self.shared, [SectionKey::Trust].into(), vec![security::trust(state)]);
        }
        for host in &touched.hosts {
            let held = keys_of(&self.shared, host);
            let mut sections = rules(state, host);
            sections.extend(endpoints::slices(state, host));
            replace(&mut self.shared, held, sections);
        }
        for host in touched.endpoints.difference(&touched.hosts) {
            let held = slices_of(&self.shared, host);
            replace(&mut self.shared, held, endpoints::slices(state, host));
        }
        for key in &touched.policies {
            let held = SectionKey::Authorization(key.namespace.clone(), key.name.clone());
            replace(&mut self.policies, vec![held], security::policy(state, key).into_iter().collect());
        }
        for key in &touched.workloads {
            self.refresh_workload(state, key);
        }
    }

    fn refresh_workload(&mut self, state: &MeshState, key: &WorkloadKey) {
        let previous = self.owners.remove(key).and_then(|node| {
            let workloads = self.nodes.get_mut(&node)?;
            let entry = workloads.remove(key);
            if workloads.is_empty() {
                self.nodes.remove(&node);
            }
            entry
        });
        let Some((node, section)) = security::workload(state, key) else { return };
        let entry = kept_or_new(previous, section);
        self.owners.insert(key.clone(), node.clone());
        self.nodes.entry(node).or_default().insert(key.clone(), entry);
    }
}

/// All sections of a host but its endpoints.
fn rules(state: &MeshState, host: &Text) -> Vec<Section> {
    let Some(service) = state.service(host) else {
        return routes::without_service(state, host).map(Section::Routes).into_iter().collect();
    };
    let mut sections = vec![Section::Service(services::service(state, service))];
    sections.extend(routes::of_service(state, service).into_iter().map(Section::Routes));
    sections.extend(destinations::of_service(state, service).into_iter().map(Section::Destination));
    sections
}

/// Puts sections in the place of those held, keeping entries whose content stays.
fn replace(sections: &mut Sections, held: Vec<SectionKey>, fresh: Vec<Section>) {
    let mut previous: BTreeMap<SectionKey, Entry> =
        held.into_iter().filter_map(|key| sections.remove_entry(&key)).collect();
    for section in fresh {
        let key = section.key();
        let entry = kept_or_new(previous.remove(&key), section);
        sections.insert(key, entry);
    }
}

/// Comparing is cheaper than digesting, and what is kept is shared with the previous version.
fn kept_or_new(previous: Option<Entry>, section: Section) -> Entry {
    match previous {
        Some(entry) if *entry.section == section => entry,
        _ => Entry::new(section),
    }
}

/// The keys of all sections of a host.
fn keys_of(sections: &Sections, host: &Text) -> Vec<SectionKey> {
    let service = SectionKey::Service(host.clone());
    let routes = |port| SectionKey::Routes(ServicePort { host: host.clone(), port });
    let destinations =
        SectionKey::Destination(DestinationKey { host: host.clone(), port: 0, subset: None, scope: None });
    let mut keys: Vec<_> = sections.get_key_value(&service).map(|(key, _)| key.clone()).into_iter().collect();
    keys.extend(sections.range(routes(0)..=routes(u16::MAX)).map(|(key, _)| key.clone()));
    let held = sections.range(destinations..).map(|(key, _)| key);
    keys.extend(
        held.take_while(|key| matches!(key, SectionKey::Destination(key) if key.host == *host)).cloned(),
    );
    keys.extend(slices_of(sections, host));
    keys
}

fn slices_of(sections: &Sections, host: &Text) -> Vec<SectionKey> {
    let slice = |slice| SectionKey::Endpoints { host: host.clone(), slice };
    sections.range(slice(0)..=slice(u32::MAX)).map(|(key, _)| key.clone()).collect()
}
