//! What nodes announce, by key and node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::index::merged_ports;
use crate::resource::{Resource, Spec};
use crate::vocab::name::Text;
use crate::vocab::origin::ResourceKey;

/// Takes a node's announcements in, and names the keys for which they differ.
pub(super) fn announce(
    table: &mut BTreeMap<ResourceKey, BTreeMap<Text, Arc<Resource>>>,
    node: &Text,
    before: Option<&Vec<Arc<Resource>>>,
    after: Option<&Vec<Arc<Resource>>>,
) -> BTreeSet<ResourceKey> {
    let by_key = |list: Option<&Vec<Arc<Resource>>>| -> BTreeMap<ResourceKey, Arc<Resource>> {
        let resources = list.into_iter().flatten();
        resources.map(|resource| (resource.meta.key.clone(), resource.clone())).collect()
    };
    let (before, after) = (by_key(before), by_key(after));
    let keys: BTreeSet<_> = before.keys().chain(after.keys()).cloned().collect();
    let mut changed = BTreeSet::new();
    for key in keys {
        if before.get(&key) == after.get(&key) {
            continue;
        }
        match after.get(&key) {
            Some(resource) => {
                table.entry(key.clone()).or_default().insert(node.clone(), resource.clone());
            }
            None => {
                if let Some(nodes) = table.get_mut(&key) {
                    nodes.remove(node);
                    if nodes.is_empty() {
                        table.remove(&key);
                    }
                }
            }
        }
        changed.insert(key);
    }
    changed
}

/// The one Service that announcements of several nodes amount to: the first node's, with the ports of all.
pub(super) fn merged_announcements(nodes: &BTreeMap<Text, Arc<Resource>>) -> Option<Arc<Resource>> {
    let first = nodes.values().next()?;
    let alike =
        nodes.values().all(|other| other.spec == first.spec && other.meta.created == first.meta.created);
    if alike {
        return Some(first.clone());
    }
    let mut merged = Resource::clone(first);
    merged.meta.created = nodes.values().map(|resource| resource.meta.created).min()?;
    if let Spec::Service(service) = &mut merged.spec {
        let lists = nodes.values().filter_map(|resource| match &resource.spec {
            Spec::Service(service) => Some(service.ports.as_slice()),
            _ => None,
        });
        service.ports = merged_ports(lists);
    }
    Some(Arc::new(merged))
}
