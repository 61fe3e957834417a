//! Look-ups of rules, views and gateways, kept up to date edit by edit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::binding::{delegates, is_delegate, is_for_mesh, named_gateways, portless_destinations};
use super::change::{Edit, Step, Turn, rule_hosts};
use super::gateway::gateway;
use super::hosts::{self, HostTable};
use super::index::{KnownGateway, KnownWorkload};
use super::mesh::Mesh;
use super::view::{View, destination_rule, virtual_service};
use crate::resource::Resource;
use crate::vocab::name::{Text, WorkloadKey};
use crate::vocab::origin::{Kind, ResourceKey};

impl Step {
    /// Takes a new or changed MeshConfig in. What holds for the whole mesh concerns everything in it.
    pub(super) fn refresh_mesh(&mut self, edits: &[Edit]) -> bool {
        if !edits.iter().any(|edit| edit.key.kind == Kind::MeshConfig) {
            return false;
        }
        let mesh = Mesh::new(&self.next.base, self.next.oldest_mesh_config());
        if mesh == *self.next.mesh {
            return false;
        }
        self.next.mesh = Arc::new(mesh);
        self.hosts.extend(self.next.index.claims.keys().cloned());
        self.workloads.extend(self.next.index.workloads.keys().cloned());
        true
    }

    /// Takes edited VirtualServices and DestinationRules in, and touches the hosts that they are for.
    pub(super) fn refresh_rules(&mut self, edits: &[Edit]) {
        for edit in edits {
            match edit.key.kind {
                Kind::VirtualService => {
                    // What delegates to it is touched by how things were and by how they are.
                    self.touch_rules_of(&edit.key);
                    if let Some(before) = &edit.before {
                        self.touch_bound(before);
                        self.forget_rules(before);
                    }
                    if let Some(after) = &edit.after {
                        self.learn_rules(after);
                        self.touch_bound(after);
                    }
                    self.touch_rules_of(&edit.key);
                }
                Kind::DestinationRule => self.refresh_destination_rule(edit),
                _ => {}
            }
        }
    }

    fn forget_rules(&mut self, resource: &Arc<Resource>) {
        let Some(rules) = virtual_service(resource) else { return };
        let key = &resource.meta.key;
        let index = &mut self.next.index;
        if is_for_mesh(rules) {
            let table = Arc::make_mut(&mut index.virtual_services);
            rule_hosts(resource).iter().for_each(|host| table.remove(host, key));
        }
        for gateway in named_gateways(rules) {
            forget(Arc::make_mut(&mut index.gateway_rules), &gateway, key);
        }
        for delegate in delegates(rules) {
            drop_member(Arc::make_mut(&mut index.delegating), &delegate, key);
        }
        for host in portless_destinations(resource) {
            drop_member(Arc::make_mut(&mut index.portless), &host, key);
        }
    }

    fn learn_rules(&mut self, resource: &Arc<Resource>) {
        let Some(rules) = virtual_service(resource) else { return };
        let key = &resource.meta.key;
        let index = &mut self.next.index;
        if is_for_mesh(rules) {
            let table = Arc::make_mut(&mut index.virtual_services);
            rule_hosts(resource).into_iter().for_each(|host| table.add(host, resource));
        }
        for gateway in named_gateways(rules) {
            learn(Arc::make_mut(&mut index.gateway_rules), gateway, resource);
        }
        for delegate in delegates(rules) {
            Arc::make_mut(&mut index.delegating).entry(delegate).or_default().insert(key.clone());
        }
        for host in portless_destinations(resource) {
            Arc::make_mut(&mut index.portless).entry(host).or_default().insert(key.clone());
        }
    }

    fn refresh_destination_rule(&mut self, edit: &Edit) {
        let namespace = &edit.key.namespace;
        for (side, stays) in [(&edit.before, false), (&edit.after, true)] {
            let Some(resource) = side else { continue };
            let index = &mut self.next.index;
            let tables = Arc::make_mut(&mut index.destination_rules);
            let all = Arc::make_mut(&mut index.all_rules);
            for host in rule_hosts(resource) {
                let own: &mut HostTable = tables.entry(namespace.clone()).or_default();
                if stays {
                    own.add(host.clone(), resource);
                    all.add(host, resource);
                } else {
                    own.remove(&host, &edit.key);
                    all.remove(&host, &edit.key);
                }
            }
            if destination_rule(resource).is_some_and(|rule| rule.workload_selector.is_some()) {
                let selecting = Arc::make_mut(&mut index.selecting_rules);
                match stays {
                    true => learn(selecting, namespace.clone(), resource),
                    false => forget(selecting, namespace, &edit.key),
                }
            }
            for host in rule_hosts(resource) {
                self.touch_pattern(&host);
            }
        }
    }

    /// Touches what a VirtualService binds, and what delegates to it.
    pub(super) fn touch_rules_of(&mut self, key: &ResourceKey) {
        let roots = self.next.index.delegating.get(key).cloned().unwrap_or_default();
        for key in roots.iter().chain([key]) {
            if let Some(resource) = self.next.resources.get(key).cloned() {
                self.touch_bound(&resource);
            }
        }
    }

    fn touch_bound(&mut self, resource: &Arc<Resource>) {
        let Some(rules) = virtual_service(resource) else { return };
        if is_for_mesh(rules) && !is_delegate(rules) {
            for host in rule_hosts(resource) {
                self.touch_pattern(&host);
                // A wildcard has rules of its own only while it captures no service.
                let wildcards = self.next.index.virtual_services.wildcards();
                let holding: Vec<Text> =
                    wildcards.filter(|pattern| hosts::overlap(pattern, &host)).cloned().collect();
                self.touched.hosts.extend(holding);
            }
        }
        for (namespace, name) in named_gateways(rules) {
            let key = ResourceKey { kind: Kind::Gateway, namespace, name };
            if let Some(declared) = self.next.resources.get(&key).and_then(|resource| gateway(resource)) {
                let having: Vec<_> = self.next.gateways_with(declared).cloned().collect();
                self.touched.gateways.extend(having);
            }
        }
    }

    /// Works out anew what callers see: of workloads that changed, and of namespaces where a Sidecar did.
    pub(super) fn refresh_views(
        &mut self,
        edits: &[Edit],
        workloads: &[Turn<KnownWorkload>],
        everything: bool,
    ) {
        let concerned = self.concerned_callers(edits, workloads, everything);
        for key in concerned {
            let known = self.next.index.workloads.get(&key).filter(|known| known.node.is_some());
            let view = known.map(|known| self.next.view_of(&key.namespace, &known.entry.labels));
            let before = self.next.index.callers.get(&key).cloned();
            if before.as_ref() != view.as_ref().map(|view| &view.key) {
                self.touched.workloads.insert(key.clone());
                let callers = Arc::make_mut(&mut self.next.index.callers);
                match &view {
                    Some(view) => callers.insert(key, view.key.clone()),
                    None => callers.remove(&key),
                };
            }
            self.exchange_view(before.as_ref(), view);
        }
    }

    fn concerned_callers(
        &self,
        edits: &[Edit],
        workloads: &[Turn<KnownWorkload>],
        everything: bool,
    ) -> BTreeSet<WorkloadKey> {
        let sides = workloads.iter().flat_map(|(before, after)| before.iter().chain(after));
        let mut concerned: BTreeSet<WorkloadKey> = sides.map(|workload| workload.key.clone()).collect();
        let selects_callers = |edit: &Edit| {
            let mut sides = edit.sides().filter_map(|resource| destination_rule(resource));
            edit.key.kind == Kind::Sidecar || sides.any(|rule| rule.workload_selector.is_some())
        };
        let namespaces: BTreeSet<&Text> =
            edits.iter().filter(|edit| selects_callers(edit)).map(|edit| &edit.key.namespace).collect();
        if everything || namespaces.contains(&self.next.settings().root_namespace) {
            concerned.extend(self.next.index.workloads.keys().cloned());
        } else {
            for namespace in namespaces {
                concerned.extend(self.next.workloads_in(namespace).map(|workload| workload.key.clone()));
            }
        }
        concerned
    }

    /// Counts one caller out of a view and into another.
    fn exchange_view(&mut self, before: Option<&Text>, after: Option<View>) {
        if before.is_none() && after.is_none() {
            return;
        }
        let known = before.and_then(|key| self.next.index.views.get(key));
        if let (Some((known, _)), Some(after)) = (known, &after)
            && **known == *after
        {
            return;
        }
        let views = Arc::make_mut(&mut self.next.index.views);
        if let Some(view) = after {
            match views.get_mut(&view.key) {
                Some((known, count)) => {
                    *count += 1;
                    if **known != view {
                        self.touched.views.insert(view.key.clone());
                        *known = Arc::new(view);
                    }
                }
                None => {
                    self.touched.views.insert(view.key.clone());
                    views.insert(view.key.clone(), (Arc::new(view), 1));
                }
            }
        }
        if let Some(key) = before
            && let Some((_, count)) = views.get_mut(key)
        {
            *count -= 1;
            if *count == 0 {
                views.remove(key);
                self.touched.views.insert(key.clone());
            }
        }
    }

    /// Works out anew who answers for Gateways: those edited, and those that select a changed workload.
    pub(super) fn refresh_gateways(
        &mut self,
        edits: &[Edit],
        workloads: &[Turn<KnownWorkload>],
        everything: bool,
    ) {
        let mut concerned: BTreeSet<ResourceKey> = BTreeSet::new();
        for edit in edits.iter().filter(|edit| edit.key.kind == Kind::Gateway) {
            concerned.insert(edit.key.clone());
            for declared in edit.sides().filter_map(|resource| gateway(resource)) {
                let having: Vec<_> = self.next.gateways_with(declared).cloned().collect();
                self.touched.gateways.extend(having);
            }
        }
        for resource in self.next.resources(Kind::Gateway) {
            let Some(declared) = gateway(resource) else { continue };
            let mut sides = workloads.iter().flat_map(|(before, after)| before.iter().chain(after));
            if everything || sides.any(|workload| declared.selector.selects(&workload.entry.labels)) {
                concerned.insert(resource.meta.key.clone());
            }
        }
        for key in concerned {
            let resource = self.next.resources.get(&key).cloned();
            let after = resource.and_then(|resource| KnownGateway::of(&self.next, &resource)).map(Arc::new);
            let before = self.next.index.gateways.get(&key).cloned();
            self.touched.gateways.insert(key.clone());
            let view = after.as_ref().map(|known| self.next.gateway_view(&known.namespace));
            self.exchange_view(before.as_ref().map(|known| &known.view), view);
            let gateways = Arc::make_mut(&mut self.next.index.gateways);
            match after {
                Some(known) => gateways.insert(key, known),
                None => gateways.remove(&key),
            };
        }
    }
}

fn learn<K: Ord>(table: &mut BTreeMap<K, Vec<Arc<Resource>>>, key: K, resource: &Arc<Resource>) {
    let list = table.entry(key).or_default();
    if list.iter().any(|other| other.meta.key == resource.meta.key) {
        return;
    }
    let place = list.partition_point(|other| other.meta.precedence() < resource.meta.precedence());
    list.insert(place, resource.clone());
}

fn forget<K: Ord>(table: &mut BTreeMap<K, Vec<Arc<Resource>>>, key: &K, gone: &ResourceKey) {
    if let Some(list) = table.get_mut(key) {
        list.retain(|resource| resource.meta.key != *gone);
        if list.is_empty() {
            table.remove(key);
        }
    }
}

pub(super) fn drop_member<K: Ord, V: Ord>(table: &mut BTreeMap<K, BTreeSet<V>>, key: &K, gone: &V) {
    if let Some(members) = table.get_mut(key) {
        members.remove(gone);
        if members.is_empty() {
            table.remove(key);
        }
    }
}
