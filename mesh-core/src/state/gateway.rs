//! Who answers for a Gateway, and which Gateways share its listeners.

use std::sync::Arc;

use super::MeshState;
use super::view::View;
use crate::resource::gateway::Gateway;
use crate::resource::{Resource, Spec};
use crate::vocab::label::Labels;
use crate::vocab::name::{Text, WorkloadKey};
use crate::vocab::origin::{Kind, ResourceKey};

/// A Gateway as the mesh knows it. Where no workload is selected it is taken as if one with just the labels of the
/// selector stood in the Gateway's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownGateway {
    /// The first of its workloads.
    pub workload: Option<WorkloadKey>,
    /// Namespace of the workload.
    pub namespace: Text,
    /// Labels of the workload.
    pub labels: Labels,
    /// What it sees: the key of a view.
    pub view: Text,
}

impl KnownGateway {
    pub(super) fn of(state: &MeshState, resource: &Resource) -> Option<KnownGateway> {
        let declared = gateway(resource)?;
        let chosen = state.workloads().find(|workload| declared.selector.selects(&workload.entry.labels));
        let (workload, namespace, labels) = match chosen {
            Some(known) => (Some(known.key.clone()), known.key.namespace.clone(), known.entry.labels.clone()),
            None => (None, resource.meta.key.namespace.clone(), declared.selector.clone()),
        };
        let view = state.gateway_view(&namespace).key;
        Some(KnownGateway { workload, namespace, labels, view })
    }
}

impl MeshState {
    /// Who answers for a Gateway.
    pub fn gateway(&self, key: &ResourceKey) -> Option<&Arc<KnownGateway>> {
        self.index.gateways.get(key)
    }

    /// The Gateways whose servers a gateway has: all that select its workload, by precedence.
    pub fn gateways_on(&self, known: &KnownGateway) -> Vec<&Arc<Resource>> {
        let selects = |resource: &&Arc<Resource>| {
            gateway(resource).is_some_and(|declared| declared.selector.selects(&known.labels))
        };
        let mut found: Vec<_> = self.resources(Kind::Gateway).filter(selects).collect();
        found.sort_by(|a, b| a.meta.precedence().cmp(&b.meta.precedence()));
        found
    }

    /// The Gateways that have the servers of one.
    pub(super) fn gateways_with(&self, declared: &Gateway) -> impl Iterator<Item = &ResourceKey> {
        let with = |known: &KnownGateway| declared.selector.selects(&known.labels);
        self.index.gateways.iter().filter(move |(_, known)| with(known)).map(|(key, _)| key)
    }

    /// What callers see, by key: of workloads that joined nodes have, and of gateways.
    pub fn views(&self) -> impl Iterator<Item = &Arc<View>> {
        self.index.views.values().map(|(view, _)| view)
    }

    /// A view that some caller has.
    pub fn known_view(&self, key: &str) -> Option<&Arc<View>> {
        self.index.views.get(key).map(|(view, _)| view)
    }

    /// The key of the view of a workload that a joined node has.
    pub fn view_of_workload(&self, key: &WorkloadKey) -> Option<&Text> {
        self.index.callers.get(key)
    }
}

/// The content, if it is a Gateway.
pub(super) fn gateway(resource: &Resource) -> Option<&Gateway> {
    match &resource.spec {
        Spec::Gateway(gateway) => Some(gateway),
        _ => None,
    }
}
