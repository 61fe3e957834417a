//! For which views a host must be looked at apart from what most callers find.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::view::View;
use super::{MeshState, hosts};
use crate::vocab::name::Text;

impl MeshState {
    /// The namespaces whose callers may find other rules or another service for a host than callers that are not
    /// known: it is named where something is exported to, or has DestinationRules or a service of its own.
    pub fn namespaces_apart(&self, host: &str) -> BTreeSet<Text> {
        let mut namespaces = BTreeSet::new();
        for resource in self.index.virtual_services.by_specificity(host).flatten() {
            namespaces.extend(self.exported_to(resource).into_iter().flatten());
        }
        for resource in self.index.all_rules.by_specificity(host).flatten() {
            namespaces.insert(resource.meta.key.namespace.clone());
            namespaces.extend(self.exported_to(resource).into_iter().flatten());
        }
        if hosts::is_wildcard(host) {
            // Whether its rules stand for a host of their own depends on the services and rules that a caller sees.
            for held in self.services().filter(|service| hosts::covers(host, &service.host)) {
                let services = self.candidates(&held.host).iter().map(|service| service.source());
                let rules = self.index.virtual_services.by_specificity(&held.host).flatten();
                namespaces
                    .extend(services.chain(rules).filter_map(|found| self.exported_to(found)).flatten());
            }
        }
        let candidates = self.candidates(host);
        let open = |service| self.exported_to(service).is_none();
        if candidates.len() > 1 || candidates.iter().any(|service| !open(service.source())) {
            for service in candidates {
                namespaces.insert(service.namespace.clone());
                namespaces.extend(self.exported_to(service.source()).into_iter().flatten());
            }
        }
        namespaces
    }

    /// Whether a view may find something else for a host than most do.
    pub fn is_apart(&self, view: &View, host: &str, namespaces: &BTreeSet<Text>) -> bool {
        if namespaces.contains(&view.namespace) || !view.rules.is_empty() {
            return true;
        }
        // A Sidecar may leave out a VirtualService, or import one of several services.
        view.egress.is_some()
            && (self.candidates(host).len() > 1
                || self.index.virtual_services.by_specificity(host).next().is_some())
    }

    /// Whether a view may find other DestinationRules for a host than most do.
    pub fn is_shaped_apart(&self, view: &View, host: &str) -> bool {
        let mut rules = self.index.all_rules.by_specificity(host).flatten();
        rules.any(|rule| rule.meta.key.namespace == view.namespace || self.exported_to(rule).is_some())
    }

    /// The views of known callers that may find something else for a host than most do.
    pub fn views_apart(&self, host: &str) -> Vec<&Arc<View>> {
        if self.index.views.is_empty() {
            return Vec::new();
        }
        let namespaces = self.namespaces_apart(host);
        self.views().filter(|view| self.is_apart(view, host, &namespaces)).collect()
    }

    /// Every host that has a service or rules.
    pub fn all_hosts(&self) -> impl Iterator<Item = &Text> {
        let rules = self.index.virtual_services.hosts();
        self.index.services.keys().chain(rules.filter(|host| !self.index.services.contains_key(*host)))
    }
}
