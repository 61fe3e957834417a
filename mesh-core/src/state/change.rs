//! A change applied: the new state, and what the compile step must redo.
//!
//! Each stage works from what the stages before it changed: resources and registrations, then known services and
//! workloads, then what depends on them. A stage may name too much, never too little: the compile step keeps a
//! section whose content comes out the same.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::announcement::announce;
use super::hosts;
use super::index::{KnownService, KnownWorkload, inline_key, service_entry};
use super::refresh::drop_member;
use super::touched::Touched;
use super::{MeshState, Registration};
use crate::resource::{Resource, Spec};
use crate::vocab::identity::Mark;
use crate::vocab::name::{Text, WorkloadKey};
use crate::vocab::origin::{Kind, ResourceKey};

/// What is to change, all at once.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// Resources of the operator that are new or changed. One that is also removed stays.
    pub upserts: Vec<Arc<Resource>>,
    /// Resources of the operator that are gone.
    pub removals: Vec<ResourceKey>,
    /// Nodes that joined, changed or left, by name. The last one of a name counts.
    pub registrations: Vec<(Text, Option<Registration>)>,
    /// Offsets assigned to hosts.
    pub offsets: Vec<(Text, u32)>,
    /// The roots of trust, if they change.
    pub roots: Option<Vec<Vec<u8>>>,
    /// The marks of certificates that are worth nothing any more, if they change.
    pub revoked: Option<Vec<Mark>>,
    /// Key sets that were fetched, or are not to be had any more, by the URI they come from.
    pub keys: Vec<(Text, Option<Text>)>,
}

impl MeshState {
    /// The state after a change, and what it touches. `self` stays as it is.
    pub fn apply(&self, change: Change) -> (MeshState, Touched) {
        let mut step = Step {
            next: self.clone(),
            touched: Touched::default(),
            hosts: BTreeSet::new(),
            workloads: BTreeSet::new(),
        };
        let edits = step.store_resources(change.upserts, change.removals);
        let everything = step.refresh_mesh(&edits);
        let joined = step.store_registrations(change.registrations);
        step.store_rest(change.offsets, change.roots);
        step.store_revoked(change.revoked);
        step.store_keys(change.keys);
        step.note_edits(&edits);
        step.note_registrations(&joined);
        let workloads = step.refresh_workloads();
        let services = step.refresh_services();
        step.refresh_rules(&edits);
        step.refresh_views(&edits, &workloads, everything);
        step.refresh_gateways(&edits, &workloads, everything);
        step.touch_services(&services);
        step.touch_workloads(&workloads);
        step.touch_policies(&edits);
        if everything {
            step.touched.merge(Touched::everything(&step.next));
        }
        (step.next, step.touched)
    }
}

/// A resource before and after; never both absent, never equal.
pub(super) struct Edit {
    pub(super) key: ResourceKey,
    pub(super) before: Option<Arc<Resource>>,
    pub(super) after: Option<Arc<Resource>>,
}

impl Edit {
    pub(super) fn sides(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.before.iter().chain(&self.after)
    }
}

/// Something known before and after.
pub(super) type Turn<T> = (Option<Arc<T>>, Option<Arc<T>>);

/// A change on its way.
pub(super) struct Step {
    pub(super) next: MeshState,
    pub(super) touched: Touched,
    /// Hosts whose service must be worked out again.
    pub(super) hosts: BTreeSet<Text>,
    /// Workloads that must be worked out again.
    pub(super) workloads: BTreeSet<WorkloadKey>,
}

impl Step {
    fn store_resources(&mut self, upserts: Vec<Arc<Resource>>, removals: Vec<ResourceKey>) -> Vec<Edit> {
        let mut wanted: BTreeMap<ResourceKey, Option<Arc<Resource>>> =
            removals.into_iter().map(|key| (key, None)).collect();
        wanted.extend(upserts.into_iter().map(|resource| (resource.meta.key.clone(), Some(resource))));
        let mut edits = Vec::new();
        for (key, after) in wanted {
            let before = self.next.resources.get(&key).cloned();
            if before == after {
                continue;
            }
            let resources = Arc::make_mut(&mut self.next.resources);
            match &after {
                Some(resource) => resources.insert(key.clone(), resource.clone()),
                None => resources.remove(&key),
            };
            edits.push(Edit { key, before, after });
        }
        edits
    }

    fn store_registrations(
        &mut self,
        registrations: Vec<(Text, Option<Registration>)>,
    ) -> Vec<(Text, Turn<Registration>)> {
        let wanted: BTreeMap<Text, Option<Registration>> = registrations.into_iter().collect();
        let mut turns = Vec::new();
        for (node, after) in wanted {
            let before = self.next.registrations.get(&node).cloned();
            if before.as_deref() == after.as_ref() {
                continue;
            }
            let after = after.map(Arc::new);
            let stored = Arc::make_mut(&mut self.next.registrations);
            match &after {
                Some(registration) => stored.insert(node.clone(), registration.clone()),
                None => stored.remove(&node),
            };
            turns.push((node, (before, after)));
        }
        turns
    }

    /// Keeps key sets; the policies that wait for one are compiled anew.
    fn store_keys(&mut self, keys: Vec<(Text, Option<Text>)>) {
        for (uri, set) in keys {
            if self.next.keys.get(&uri) == set.as_ref() {
                continue;
            }
            for resource in self.next.resources(Kind::RequestAuthentication) {
                let Spec::RequestAuthentication(policy) = &resource.spec else { continue };
                if policy.rules.iter().any(|rule| rule.keys_from().as_ref() == Some(&uri)) {
                    self.touched.policies.insert(resource.meta.key.clone());
                }
            }
            let held = Arc::make_mut(&mut self.next.keys);
            match set {
                Some(set) => held.insert(uri, set),
                None => held.remove(&uri),
            };
        }
    }

    fn store_rest(&mut self, offsets: Vec<(Text, u32)>, roots: Option<Vec<Vec<u8>>>) {
        for (host, offset) in offsets {
            if self.next.offsets.get(&host) != Some(&offset) {
                Arc::make_mut(&mut self.next.offsets).insert(host.clone(), offset);
                self.touched.hosts.insert(host);
            }
        }
        if let Some(roots) = roots.filter(|roots| *roots != *self.next.roots) {
            self.next.roots = Arc::new(roots);
            self.touched.trust = true;
        }
    }

    fn store_revoked(&mut self, revoked: Option<Vec<Mark>>) {
        let Some(mut revoked) = revoked else { return };
        revoked.sort_unstable();
        revoked.dedup();
        if revoked != *self.next.revoked {
            self.next.revoked = Arc::new(revoked);
            self.touched.trust = true;
        }
    }

    /// Which hosts and workloads edited resources stand for.
    fn note_edits(&mut self, edits: &[Edit]) {
        for edit in edits {
            match edit.key.kind {
                Kind::Service => self.claim(&edit.key),
                Kind::WorkloadEntry => {
                    self.workloads.insert(WorkloadKey {
                        namespace: edit.key.namespace.clone(),
                        name: edit.key.name.clone(),
                    });
                }
                Kind::ServiceEntry => self.note_service_entry(edit),
                Kind::Namespace
                | Kind::ServiceAccount
                | Kind::VirtualService
                | Kind::DestinationRule
                | Kind::PeerAuthentication
                | Kind::AuthorizationPolicy
                | Kind::WorkloadGroup
                | Kind::Gateway
                | Kind::Sidecar
                | Kind::ProxyConfig
                | Kind::RequestAuthentication
                | Kind::Telemetry
                | Kind::MeshConfig
                | Kind::Secret
                | Kind::ConfigMap
                | Kind::Endpoints
                | Kind::EndpointSlice
                | Kind::RateLimit => {}
            }
        }
    }

    fn note_service_entry(&mut self, edit: &Edit) {
        let claims = Arc::make_mut(&mut self.next.index.claims);
        for (side, stays) in [(&edit.before, false), (&edit.after, true)] {
            let Some(resource) = side else { continue };
            let Some(entry) = service_entry(resource) else { continue };
            for host in &entry.hosts {
                let claimants = claims.entry(host.clone()).or_default();
                if stays {
                    claimants.insert(edit.key.clone());
                } else {
                    claimants.remove(&edit.key);
                }
                self.hosts.insert(host.clone());
            }
            let keys = (0..entry.endpoints.len()).map(|index| inline_key(resource, index));
            self.workloads.extend(keys);
        }
    }

    /// Records whether a Service of that key is declared at all.
    fn claim(&mut self, key: &ResourceKey) {
        let host = hosts::service_host(&key.name, &key.namespace);
        let exists = self.next.declared(key).is_some();
        let claimants = Arc::make_mut(&mut self.next.index.claims).entry(host.clone()).or_default();
        if exists {
            claimants.insert(key.clone());
        } else {
            claimants.remove(key);
        }
        self.hosts.insert(host);
    }

    /// Which workloads and announced services a changed registration stands for.
    fn note_registrations(&mut self, turns: &[(Text, Turn<Registration>)]) {
        for (node, (before, after)) in turns {
            let (before, after) = (before.as_deref(), after.as_deref());
            self.note_host(node, before, after);
            let announced = Arc::make_mut(&mut self.next.index.announced);
            for key in announce(announced, node, before.map(|r| &r.workloads), after.map(|r| &r.workloads)) {
                self.workloads.insert(WorkloadKey { namespace: key.namespace, name: key.name });
            }
            let services = Arc::make_mut(&mut self.next.announced_services);
            for key in announce(services, node, before.map(|r| &r.services), after.map(|r| &r.services)) {
                self.claim(&key);
            }
            let health = |side: Option<&Registration>, key: &WorkloadKey| {
                side.and_then(|r| r.health.get(key).cloned())
            };
            let reported = [before, after].into_iter().flatten().flat_map(|side| side.health.keys());
            let changed = reported.filter(|key| health(before, key) != health(after, key)).cloned();
            self.workloads.extend(changed);
        }
    }

    /// A node that comes, goes, moves or is drained may change every workload it owns, or would own.
    fn note_host(&mut self, node: &Text, before: Option<&Registration>, after: Option<&Registration>) {
        let facts = |side: Option<&Registration>| side.map(|r| (r.address, r.inbound, r.standing));
        if facts(before) == facts(after) {
            return;
        }
        let addresses: Vec<IpAddr> = [before, after].into_iter().flatten().map(|r| r.address).collect();
        let table = Arc::make_mut(&mut self.next.index.addresses);
        if let Some(gone) = before {
            let nodes = table.entry(gone.address).or_default();
            nodes.remove(node);
            if nodes.is_empty() {
                table.remove(&gone.address);
            }
        }
        if let Some(here) = after {
            table.entry(here.address).or_default().insert(node.clone());
        }
        let concerned = self.next.index.workloads.values().filter(|workload| {
            workload.node.as_ref() == Some(node)
                || workload.entry.address.ip().is_some_and(|ip| addresses.contains(&ip))
        });
        self.workloads.extend(concerned.map(|workload| workload.key.clone()));
    }

    fn refresh_workloads(&mut self) -> Vec<Turn<KnownWorkload>> {
        let mut turns = Vec::new();
        for key in std::mem::take(&mut self.workloads) {
            let after = KnownWorkload::of(&self.next, &key).map(Arc::new);
            let before = self.next.index.workloads.get(&key).cloned();
            if before == after {
                continue;
            }
            let workloads = Arc::make_mut(&mut self.next.index.workloads);
            match &after {
                Some(workload) => workloads.insert(key, workload.clone()),
                None => workloads.remove(&key),
            };
            turns.push((before, after));
        }
        turns
    }

    fn refresh_services(&mut self) -> Vec<Turn<KnownService>> {
        let mut turns = Vec::new();
        for host in std::mem::take(&mut self.hosts) {
            let after = KnownService::candidates(&self.next, &host);
            let before = self.next.candidates(&host).to_vec();
            let primary = self.next.primary(&after);
            if before == after && self.next.index.services.get(&host) == primary.as_ref() {
                continue;
            }
            let aliases = Arc::make_mut(&mut self.next.index.aliases);
            let namespaces = Arc::make_mut(&mut self.next.index.namespaces);
            for service in &before {
                if let Some(hosts) = namespaces.get_mut(&service.namespace) {
                    hosts.remove(&host);
                }
                if let Some(target) = &service.alias {
                    drop_member(aliases, target, &host);
                }
            }
            for service in &after {
                namespaces.entry(service.namespace.clone()).or_default().insert(host.clone());
                if let Some(target) = &service.alias {
                    aliases.entry(target.clone()).or_default().insert(host.clone());
                }
            }
            let services = Arc::make_mut(&mut self.next.index.services);
            match primary {
                Some(service) => services.insert(host.clone(), service),
                None => services.remove(&host),
            };
            if before.len() > 1 || after.len() > 1 {
                let shared = Arc::make_mut(&mut self.next.index.shared_hosts);
                match after.len() > 1 {
                    true => shared.insert(host, after.clone()),
                    false => shared.remove(&host),
                };
            }
            turns.extend(before.into_iter().map(|service| (Some(service), None)));
            turns.extend(after.into_iter().map(|service| (None, Some(service))));
        }
        turns
    }
}

/// The resolved hosts that a VirtualService or DestinationRule is for.
pub(super) fn rule_hosts(resource: &Resource) -> Vec<Text> {
    let namespace = &resource.meta.key.namespace;
    match &resource.spec {
        Spec::VirtualService(rules) => {
            rules.hosts.iter().map(|host| hosts::resolve(host, namespace)).collect()
        }
        Spec::DestinationRule(rule) => vec![hosts::resolve(&rule.host, namespace)],
        _ => Vec::new(),
    }
}
