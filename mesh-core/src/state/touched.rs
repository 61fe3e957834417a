//! What a change touches, worked out from what it turned into what.

use std::collections::BTreeSet;

use super::change::{Edit, Step, Turn, rule_hosts};
use super::hosts;
use super::index::{KnownService, KnownWorkload};
use crate::resource::Spec;
use crate::resource::virtual_service::{HttpAction, RouteDestination, VirtualService};
use crate::vocab::label::Labels;
use crate::vocab::name::{Text, WorkloadKey};
use crate::vocab::origin::{Kind, ResourceKey};

/// What must be compiled again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Touched {
    /// The trust bundle.
    pub trust: bool,
    /// Hosts with all their sections.
    pub hosts: BTreeSet<Text>,
    /// Hosts of which only the endpoints may differ.
    pub endpoints: BTreeSet<Text>,
    /// Workloads.
    pub workloads: BTreeSet<WorkloadKey>,
    /// Authorization policies.
    pub policies: BTreeSet<ResourceKey>,
}

impl Touched {
    /// Whether every section stays as it is.
    pub fn is_empty(&self) -> bool {
        *self == Touched::default()
    }

    /// What two changes, one after the other, touch.
    pub fn merge(&mut self, later: Touched) {
        self.trust |= later.trust;
        self.hosts.extend(later.hosts);
        self.endpoints.extend(later.endpoints);
        self.workloads.extend(later.workloads);
        self.policies.extend(later.policies);
    }
}

impl Step {
    /// Touches a host, or a wildcard and each service that it holds.
    pub(super) fn touch_pattern(&mut self, pattern: &Text) {
        if hosts::is_wildcard(pattern) {
            let held = self.next.index.services.keys().filter(|host| hosts::covers(pattern, host));
            self.touched.hosts.extend(held.cloned());
        }
        self.touched.hosts.insert(pattern.clone());
    }

    pub(super) fn touch_services(&mut self, turns: &[Turn<KnownService>]) {
        let mut changed = BTreeSet::new();
        for (before, after) in turns {
            for service in before.iter().chain(after) {
                changed.insert(service.host.clone());
                let reached = self.next.workloads_in(&service.namespace);
                let reached = reached.filter(|workload| service.reaches(workload).is_some());
                self.touched.workloads.extend(reached.map(|workload| workload.key.clone()));
            }
        }
        if changed.is_empty() {
            return;
        }
        // A wildcard has rules of its own only while it holds no service.
        let wildcards = self.next.index.virtual_services.wildcards();
        let holding = wildcards.filter(|pattern| changed.iter().any(|host| hosts::covers(pattern, host)));
        self.touched.hosts.extend(holding.cloned());
        // A destination without a port takes the service's only one.
        let mut dependent = BTreeSet::new();
        for resource in self.next.resources(Kind::VirtualService) {
            let Spec::VirtualService(rules) = &resource.spec else { continue };
            let namespace = &resource.meta.key.namespace;
            let depends = destinations(rules).any(|destination| {
                destination.port.is_none() && changed.contains(&hosts::resolve(&destination.host, namespace))
            });
            if depends {
                dependent.extend(rule_hosts(resource));
            }
        }
        dependent.iter().for_each(|host| self.touch_pattern(host));
        self.touched.hosts.extend(changed);
    }

    pub(super) fn touch_workloads(&mut self, turns: &[Turn<KnownWorkload>]) {
        for workload in turns.iter().flat_map(|(before, after)| before.iter().chain(after)) {
            let services = self.next.services_of(workload);
            self.touched.endpoints.extend(services.iter().map(|service| service.host.clone()));
            self.touched.workloads.insert(workload.key.clone());
        }
    }

    pub(super) fn touch_policies(&mut self, edits: &[Edit]) {
        for edit in edits {
            for resource in edit.sides() {
                match &resource.spec {
                    Spec::PeerAuthentication(policy) => {
                        let keys = self.governed(&edit.key.namespace, &policy.selector);
                        for key in &keys {
                            let services =
                                self.next.workload(key).map(|workload| self.next.services_of(workload));
                            let hosts = services.into_iter().flatten().map(|service| service.host.clone());
                            self.touched.endpoints.extend(hosts);
                        }
                        self.touched.workloads.extend(keys);
                    }
                    Spec::AuthorizationPolicy(policy) => {
                        self.touched.policies.insert(edit.key.clone());
                        let keys = self.governed(&edit.key.namespace, &policy.selector);
                        self.touched.workloads.extend(keys);
                    }
                    Spec::Namespace
                    | Spec::ServiceAccount
                    | Spec::Service(_)
                    | Spec::WorkloadEntry(_)
                    | Spec::ServiceEntry(_)
                    | Spec::VirtualService(_)
                    | Spec::DestinationRule(_)
                    | Spec::WorkloadGroup(_)
                    | Spec::Gateway(_)
                    | Spec::Sidecar(_)
                    | Spec::ProxyConfig(_)
                    | Spec::RequestAuthentication(_)
                    | Spec::Telemetry(_)
                    | Spec::MeshConfig(_)
                    | Spec::Secret(_)
                    | Spec::ConfigMap(_)
                    | Spec::Endpoints(_) => {}
                }
            }
        }
    }

    /// The workloads that a policy of a namespace may concern; those of all namespaces for the root namespace.
    fn governed(&self, namespace: &Text, selector: &Option<Labels>) -> Vec<WorkloadKey> {
        let everywhere = *namespace == self.next.settings.root_namespace;
        self.next
            .workloads()
            .filter(|workload| everywhere || workload.key.namespace == *namespace)
            .filter(|workload| selector.as_ref().is_none_or(|s| s.selects(&workload.entry.labels)))
            .map(|workload| workload.key.clone())
            .collect()
    }
}

/// Every destination that a VirtualService names.
fn destinations(rules: &VirtualService) -> impl Iterator<Item = &RouteDestination> {
    let http = rules.http.iter().flat_map(|route| match &route.action {
        HttpAction::Route { destinations, .. } => destinations.as_slice(),
        HttpAction::Redirect(_) | HttpAction::DirectResponse(_) | HttpAction::Delegate { .. } => &[],
    });
    http.chain(rules.tcp.iter().flat_map(|route| &route.destinations))
}
