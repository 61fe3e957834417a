//! Services that share a host: ServiceEntries of several namespaces, or one beside a Kubernetes Service.
//!
//! They are never merged. A view finds one of them; which one most views find is settled here too.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::MeshState;
use super::index::KnownService;
use super::view::View;
use crate::vocab::name::Text;
use crate::vocab::origin::Kind;

impl KnownService {
    /// The services of a host, one for each namespace that declares it: a Kubernetes Service first, then by age.
    pub(super) fn candidates(state: &MeshState, host: &Text) -> Vec<Arc<KnownService>> {
        let claims = state.index.claims.get(host).into_iter().flatten();
        let namespaces: BTreeSet<&Text> = claims.map(|key| &key.namespace).collect();
        let mut found: Vec<KnownService> = namespaces
            .into_iter()
            .filter_map(|namespace| KnownService::of(state, host, Some(namespace)))
            .collect();
        found.sort_by(|a, b| a.rank().cmp(&b.rank()));
        found.into_iter().map(Arc::new).collect()
    }
}

impl MeshState {
    /// The service that most views find: the first that is exported to everybody, else the first.
    pub(super) fn primary(&self, candidates: &[Arc<KnownService>]) -> Option<Arc<KnownService>> {
        let open = candidates.iter().find(|service| self.is_exported(service.source(), ""));
        open.or(candidates.first()).cloned()
    }

    /// The services of a host.
    pub fn candidates(&self, host: &str) -> &[Arc<KnownService>] {
        match self.index.shared_hosts.get(host) {
            Some(candidates) => candidates,
            None => self.index.services.get(host).map_or(&[], std::slice::from_ref),
        }
    }

    /// The service that a view finds for a host: a Kubernetes Service, else one of its own namespace, else the first
    /// that it may see. `None` where it sees none.
    pub fn service_for(&self, view: &View, host: &str) -> Option<&Arc<KnownService>> {
        let seen = |service: &&Arc<KnownService>| {
            self.is_exported(service.source(), &view.namespace)
                && view.imports(&service.namespace, &service.host, None)
        };
        let candidates = || self.candidates(host).iter().filter(seen);
        let first = candidates().next()?;
        if first.source().meta.key.kind == Kind::Service {
            return Some(first);
        }
        Some(candidates().find(|service| service.namespace == view.namespace).unwrap_or(first))
    }

    /// The service that rules lead the callers of a view to for a host: one that it finds, else the first that is
    /// exported to it, since a VirtualService brings what it names into a Sidecar's scope.
    pub fn reached_by(&self, view: &View, host: &str) -> Option<&Arc<KnownService>> {
        self.service_for(view, host).or_else(|| {
            let exported = |service: &&Arc<KnownService>| self.is_exported(service.source(), &view.namespace);
            let candidates = || self.candidates(host).iter().filter(exported);
            candidates().find(|service| service.namespace == view.namespace).or_else(|| candidates().next())
        })
    }
}
