//! Which VirtualServices bind a host in a view or on a gateway, and whom an edit of one concerns.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::view::{View, virtual_service};
use super::{MeshState, hosts};
use crate::resource::Resource;
use crate::resource::reach::GatewayRef;
use crate::resource::virtual_service::{HttpAction, RouteDestination, VirtualService};
use crate::vocab::name::Text;
use crate::vocab::origin::{Kind, ResourceKey};

impl MeshState {
    /// The VirtualServices that may bind a host for the callers of a view on a port, by precedence: those of the
    /// most specific pattern that holds the host and that the view sees a rule for. They are not merged: the first
    /// that has a rule for the port binds it.
    pub fn bound<'s>(&'s self, view: &View, host: &'s str, port: u16) -> Vec<&'s Arc<Resource>> {
        for list in self.index.virtual_services.by_specificity(host) {
            let seen: Vec<_> = list.iter().filter(|resource| self.sees_rules(view, resource, port)).collect();
            if !seen.is_empty() {
                return seen;
            }
        }
        Vec::new()
    }

    /// Whether a wildcard is the most specific pattern with a VirtualService that a view sees for a host.
    pub fn captures(&self, view: &View, wildcard: &str, host: &str, port: u16) -> bool {
        let bound = self.bound(view, host, port);
        let names = |resource: &Resource| {
            let namespace = &resource.meta.key.namespace;
            virtual_service(resource).is_some_and(|rules| {
                rules.hosts.iter().any(|host| *hosts::resolve(host, namespace) == *wildcard)
            })
        };
        // The list of one pattern: each of them names it.
        !bound.is_empty() && bound.iter().all(|resource| names(resource))
    }

    /// Those that a view sees for exactly this host or wildcard.
    pub fn bound_exactly<'s>(&'s self, view: &View, host: &str, port: u16) -> Vec<&'s Arc<Resource>> {
        let list = self.index.virtual_services.of(host).iter();
        list.filter(|resource| self.sees_rules(view, resource, port)).collect()
    }

    fn sees_rules(&self, view: &View, resource: &Resource, port: u16) -> bool {
        self.is_exported(resource, &view.namespace)
            && virtual_service(resource).is_some_and(|rules| view.imports_rules(resource, rules, port))
    }

    /// The VirtualServices that name a Gateway, by precedence.
    pub fn bound_to_gateway(&self, namespace: &str, name: &str) -> &[Arc<Resource>] {
        let key = (Text::from(namespace), Text::from(name));
        self.index.gateway_rules.get(&key).map_or(&[], Vec::as_slice)
    }

    /// The VirtualService that a delegating rule of another leads to, if its callers' namespace may see it.
    pub fn delegate<'s>(
        &'s self,
        root: &Resource,
        namespace: &Text,
        name: &Text,
    ) -> Option<&'s Arc<Resource>> {
        let key =
            ResourceKey { kind: Kind::VirtualService, namespace: namespace.clone(), name: name.clone() };
        let delegate = self.resource(&key)?;
        let root_namespace = &root.meta.key.namespace;
        (is_delegate(virtual_service(delegate)?) && self.is_exported(delegate, root_namespace))
            .then_some(delegate)
    }
}

/// Whether a VirtualService can only be delegated to: it has no host.
pub(super) fn is_delegate(rules: &VirtualService) -> bool {
    rules.hosts.is_empty()
}

/// Whether rules hold for the mesh's own callers.
pub fn is_for_mesh(rules: &VirtualService) -> bool {
    rules.gateways.is_empty() || rules.gateways.contains(&GatewayRef::Mesh)
}

/// The Gateways that rules are bound to.
pub(super) fn named_gateways(rules: &VirtualService) -> impl Iterator<Item = (Text, Text)> + '_ {
    rules.gateways.iter().filter_map(|gateway| match gateway {
        GatewayRef::Named { namespace, name } => Some((namespace.clone(), name.clone())),
        GatewayRef::Mesh => None,
    })
}

/// The VirtualServices that rules delegate to.
pub(super) fn delegates(rules: &VirtualService) -> impl Iterator<Item = ResourceKey> + '_ {
    rules.http.iter().filter_map(|route| match &route.action {
        HttpAction::Delegate { namespace, name, .. } => {
            Some(ResourceKey { kind: Kind::VirtualService, namespace: namespace.clone(), name: name.clone() })
        }
        HttpAction::Route { .. } | HttpAction::Redirect(_) | HttpAction::DirectResponse(_) => None,
    })
}

/// The hosts of destinations without a port: what such a destination means depends on the service's ports.
pub(super) fn portless_destinations(resource: &Resource) -> BTreeSet<Text> {
    destination_hosts(resource, |destination| destination.port.is_none())
}

/// The hosts of the destinations that `counts` lets through.
pub(super) fn destination_hosts(
    resource: &Resource,
    counts: impl Fn(&RouteDestination) -> bool,
) -> BTreeSet<Text> {
    let Some(rules) = virtual_service(resource) else { return BTreeSet::new() };
    let namespace = &resource.meta.key.namespace;
    let http = rules.http.iter().flat_map(|route| {
        let destinations = match &route.action {
            HttpAction::Route { destinations, .. } => destinations.as_slice(),
            HttpAction::Redirect(_) | HttpAction::DirectResponse(_) | HttpAction::Delegate { .. } => &[],
        };
        destinations.iter().chain(route.mirrors.iter().map(|mirror| &mirror.destination))
    });
    let streams = rules.tcp.iter().flat_map(|route| &route.destinations);
    let tls = rules.tls.iter().flat_map(|route| &route.destinations);
    http.chain(streams)
        .chain(tls)
        .filter(|destination| counts(destination))
        .map(|destination| hosts::resolve(&destination.host, namespace))
        .collect()
}
