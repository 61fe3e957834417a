//! Mesh state to sections.
//!
//! [`compile`] makes every section from nothing; [`recompile`] makes those that a change touched and shares the
//! rest with the previous result. Both yield the same. Precedence, defaults and merging are settled here: behind
//! the snapshot rules are ordered and the first match wins.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::snapshot::section::{Section, SectionKey};
use crate::snapshot::{Entry, Sections};
use crate::state::view::View;
use crate::state::{MeshState, Touched};
use crate::vocab::name::{Text, WorkloadKey};

mod aliases;
mod credentials;
mod delegates;
mod destinations;
mod endpoints;
mod gateways;
mod limits;
mod listeners;
mod origination;
#[cfg(test)]
mod properties;
mod routes;
mod rules;
mod security;
mod services;
pub mod telemetry;
mod views;
mod visibility;

pub use visibility::for_caller;

/// Every section of the mesh, arranged so that a node's snapshot is a choice of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Compiled {
    /// What holds for all: trust, and what callers see that are not known.
    general: Sections,
    /// What callers need, by host.
    hosts: BTreeMap<Text, Arc<HostSections>>,
    /// What known callers see, by the key of the view.
    views: BTreeMap<Text, Entry>,
    /// Gateways.
    gateways: Sections,
    /// Halves of credentials.
    credentials: Sections,
    /// Authorization policies, and which tokens are accepted.
    policies: Sections,
    /// Workloads, by the node that they belong to.
    nodes: BTreeMap<Text, BTreeMap<WorkloadKey, Entry>>,
    /// The node of each of these workloads.
    owners: BTreeMap<WorkloadKey, Text>,
}

/// The sections of a host: service, routes, destinations, endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct HostSections {
    /// What most callers find.
    common: Sections,
    /// What the callers of a view find in its place.
    apart: BTreeMap<Text, Sections>,
}

/// Compiles the whole mesh.
pub fn compile(state: &MeshState) -> Compiled {
    let mut compiled = Compiled::default();
    compiled.refresh(state, &Touched::everything(state));
    compiled
}

/// Compiles what a change touched. `touched` covers all changes since `previous` was compiled.
pub fn recompile(previous: &Compiled, state: &MeshState, touched: &Touched) -> Compiled {
    let mut compiled = previous.clone();
    compiled.refresh(state, touched);
    compiled
}

impl Compiled {
    fn refresh(&mut self, state: &MeshState, touched: &Touched) {
        let everybody = state.default_view();
        if touched.trust {
            put(&mut self.general, SectionKey::Trust, Some(security::trust(state)));
        }
        if touched.telemetry {
            put(&mut self.general, SectionKey::Telemetry, telemetry::section(state));
        }
        let key = SectionKey::View(everybody.key.clone());
        put(&mut self.general, key, Some(views::view(state, &everybody)));
        for host in &touched.hosts {
            self.refresh_host(state, &everybody, host);
        }
        for host in touched.endpoints.difference(&touched.hosts) {
            self.refresh_endpoints(state, &everybody, host);
        }
        for key in &touched.views {
            self.refresh_view(state, key, touched);
        }
        for key in &touched.gateways {
            let held = SectionKey::Gateway(key.namespace.clone(), key.name.clone());
            put(&mut self.gateways, held, gateways::gateway(state, key));
        }
        for key in touched.credentials.iter().flat_map(credentials::keys_of) {
            let section = credentials::credential(state, &key);
            put(&mut self.credentials, SectionKey::Credential(key), section);
        }
        for key in &touched.policies {
            put(&mut self.policies, security::policy_key(key), security::policy(state, key));
        }
        for key in &touched.workloads {
            self.refresh_workload(state, key);
        }
    }

    /// Compiles a host for everybody, and for the views that may find something else.
    fn refresh_host(&mut self, state: &MeshState, everybody: &View, host: &Text) {
        let previous = self.hosts.remove(host).unwrap_or_default();
        let common = fresh(views::common(state, everybody, host), Some(&previous.common));
        let found: Vec<&Section> = common.values().map(|entry| &*entry.section).collect();
        let mut apart = BTreeMap::new();
        for view in state.views_apart(host) {
            let own = fresh(views::apart(state, view, host, &found), previous.apart.get(&view.key));
            if !own.is_empty() {
                apart.insert(view.key.clone(), own);
            }
        }
        if !common.is_empty() || !apart.is_empty() {
            self.hosts.insert(host.clone(), Arc::new(HostSections { common, apart }));
        }
    }

    /// Compiles the endpoints of a host, where one service has it for everybody.
    fn refresh_endpoints(&mut self, state: &MeshState, everybody: &View, host: &Text) {
        let alone = state.service(host).filter(|service| {
            // Another name has no endpoints.
            service.alias.is_none() && state.candidates(host).len() == 1
        });
        let (Some(service), Some(held)) = (alone, self.hosts.get_mut(host)) else {
            self.refresh_host(state, everybody, host);
            return;
        };
        let held = Arc::make_mut(held);
        let slice = |key: &SectionKey| matches!(key, SectionKey::Endpoints { .. });
        let slices = fresh(endpoints::slices(state, service, None), Some(&held.common));
        held.common.retain(|key, _| !slice(key));
        held.common.extend(slices);
    }

    /// Compiles a view with all that differs in it, but for hosts that were compiled for all views.
    fn refresh_view(&mut self, state: &MeshState, key: &Text, touched: &Touched) {
        let Some(view) = state.known_view(key) else {
            self.views.remove(key);
            let holding = self.hosts.values_mut().filter(|held| held.apart.contains_key(key));
            holding.for_each(|held| {
                Arc::make_mut(held).apart.remove(key);
            });
            self.hosts.retain(|_, held| !held.common.is_empty() || !held.apart.is_empty());
            return;
        };
        let entry = kept_or_new(self.views.remove(key), views::view(state, view));
        self.views.insert(key.clone(), entry);
        for host in state.all_hosts() {
            if touched.hosts.contains(host) {
                continue;
            }
            let held = self.hosts.get(host);
            let previous = held.and_then(|held| held.apart.get(key));
            let namespaces = state.namespaces_apart(host);
            let own = if state.is_apart(view, host, &namespaces) {
                let common = held.into_iter().flat_map(|held| held.common.values());
                let common: Vec<&Section> = common.map(|entry| &*entry.section).collect();
                fresh(views::apart(state, view, host, &common), previous)
            } else {
                Sections::new()
            };
            if previous.unwrap_or(&Sections::new()) == &own {
                continue;
            }
            let held = Arc::make_mut(self.hosts.entry(host.clone()).or_default());
            match own.is_empty() {
                true => held.apart.remove(key),
                false => held.apart.insert(key.clone(), own),
            };
            if held.common.is_empty() && held.apart.is_empty() {
                self.hosts.remove(host);
            }
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

/// Puts a section in the place of the one held, keeping an entry whose content stays.
fn put(sections: &mut Sections, key: SectionKey, section: Option<Section>) {
    let previous = sections.remove(&key);
    if let Some(section) = section {
        sections.insert(key, kept_or_new(previous, section));
    }
}

/// Sections by key, keeping previous entries whose content stays.
fn fresh(sections: Vec<Section>, previous: Option<&Sections>) -> Sections {
    let entry = |section: Section| {
        let key = section.key();
        let held = previous.and_then(|sections| sections.get(&key)).cloned();
        (key, kept_or_new(held, section))
    };
    sections.into_iter().map(entry).collect()
}

/// Comparing is cheaper than digesting, and what is kept is shared with the previous version.
fn kept_or_new(previous: Option<Entry>, section: Section) -> Entry {
    match previous {
        Some(entry) if *entry.section == section => entry,
        _ => Entry::new(section),
    }
}
