//! What a change touches, worked out from what it turned into what.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::binding::destination_hosts;
use super::change::{Edit, Step, Turn, rule_hosts};
use super::index::{KnownService, KnownWorkload};
use super::{MeshState, hosts};
use crate::resource::rate_limit::{RateLimit, TargetKind};
use crate::resource::telemetry::Telemetry;
use crate::resource::{Resource, Spec};
use crate::vocab::label::Labels;
use crate::vocab::name::{Text, WorkloadKey};
use crate::vocab::origin::{Kind, ResourceKey};

/// What must be compiled again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Touched {
    /// The trust bundle.
    pub trust: bool,
    /// What is told of traffic of which no workload is known.
    pub telemetry: bool,
    /// Hosts with all their sections.
    pub hosts: BTreeSet<Text>,
    /// Hosts of which only the endpoints may differ.
    pub endpoints: BTreeSet<Text>,
    /// Workloads.
    pub workloads: BTreeSet<WorkloadKey>,
    /// Authorization policies.
    pub policies: BTreeSet<ResourceKey>,
    /// Views of callers, with all that differs in them.
    pub views: BTreeSet<Text>,
    /// Gateways.
    pub gateways: BTreeSet<ResourceKey>,
    /// Secrets and ConfigMaps, in which credentials may be.
    pub credentials: BTreeSet<ResourceKey>,
}

impl Touched {
    /// Whether every section stays as it is.
    pub fn is_empty(&self) -> bool {
        *self == Touched::default()
    }

    /// All that a mesh consists of.
    pub fn everything(state: &MeshState) -> Touched {
        let services = state.services().map(|service| &service.host);
        Touched {
            trust: true,
            telemetry: true,
            hosts: services.chain(state.virtual_services().hosts()).cloned().collect(),
            endpoints: BTreeSet::new(),
            workloads: state.workloads().map(|workload| workload.key.clone()).collect(),
            policies: [Kind::AuthorizationPolicy, Kind::RequestAuthentication]
                .into_iter()
                .flat_map(|kind| state.resources(kind))
                .map(|policy| policy.meta.key.clone())
                .collect(),
            views: state.views().map(|view| view.key.clone()).collect(),
            gateways: state.resources(Kind::Gateway).map(|gateway| gateway.meta.key.clone()).collect(),
            credentials: [Kind::Secret, Kind::ConfigMap]
                .into_iter()
                .flat_map(|kind| state.resources(kind))
                .map(|holder| holder.meta.key.clone())
                .collect(),
        }
    }

    /// What two changes, one after the other, touch.
    pub fn merge(&mut self, later: Touched) {
        self.trust |= later.trust;
        self.telemetry |= later.telemetry;
        self.hosts.extend(later.hosts);
        self.endpoints.extend(later.endpoints);
        self.workloads.extend(later.workloads);
        self.policies.extend(later.policies);
        self.views.extend(later.views);
        self.gateways.extend(later.gateways);
        self.credentials.extend(later.credentials);
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
        // A service carries the names of its aliases, and an alias leads to what has its host.
        for (before, after) in turns {
            let sides = before.iter().chain(after);
            self.touched.hosts.extend(sides.flat_map(|service| self.next.aliased_to(service)));
        }
        let aliases = changed.iter().flat_map(|host| self.next.leading_through(host));
        self.touched.hosts.extend(aliases);
        self.touch_renamed(turns);
        // A wildcard has rules of its own only while it holds no service.
        let wildcards = self.next.index.virtual_services.wildcards();
        let holding = wildcards.filter(|pattern| changed.iter().any(|host| hosts::covers(pattern, host)));
        self.touched.hosts.extend(holding.cloned());
        // A destination without a port takes the service's only one.
        let portless = changed.iter().filter_map(|host| self.next.index.portless.get(host));
        let dependent: BTreeSet<ResourceKey> = portless.flatten().cloned().collect();
        dependent.iter().for_each(|key| self.touch_rules_of(key));
        self.touched.hosts.extend(changed);
    }

    /// Rules that lead to another name of a service lead elsewhere when one of these names changes.
    fn touch_renamed(&mut self, turns: &[Turn<KnownService>]) {
        let sides = || turns.iter().flat_map(|(before, after)| before.iter().chain(after));
        let mut names: BTreeSet<Text> =
            sides().filter(|service| service.alias.is_some()).map(|service| service.host.clone()).collect();
        if names.is_empty() {
            return;
        }
        names.extend(self.next.index.aliases.values().flatten().cloned());
        let rules = self.next.resources(Kind::VirtualService);
        let leading = rules.filter(|resource| !destination_hosts(resource, |_| true).is_disjoint(&names));
        let leading: Vec<ResourceKey> = leading.map(|resource| resource.meta.key.clone()).collect();
        leading.iter().for_each(|key| self.touch_rules_of(key));
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
                        self.touch_governed(&edit.key.namespace, &policy.selector);
                    }
                    Spec::RequestAuthentication(policy) => {
                        self.touched.policies.insert(edit.key.clone());
                        self.touch_governed(&edit.key.namespace, &policy.selector);
                    }
                    Spec::RateLimit(limit) => self.touch_limited(&edit.key.namespace, limit),
                    // What a workload listens on, and how many connections its application takes.
                    Spec::Sidecar(sidecar) => {
                        let keys = self.governed(&edit.key.namespace, &sidecar.selector);
                        self.touched.workloads.extend(keys);
                    }
                    Spec::Telemetry(telemetry) => self.touch_told(&edit.key.namespace, telemetry),
                    Spec::DestinationRule(_) => self.touch_called(resource),
                    Spec::Namespace
                    | Spec::ServiceAccount
                    | Spec::Service(_)
                    | Spec::WorkloadEntry(_)
                    | Spec::ServiceEntry(_)
                    | Spec::VirtualService(_)
                    | Spec::WorkloadGroup(_)
                    | Spec::Gateway(_)
                    | Spec::ProxyConfig(_)
                    | Spec::MeshConfig(_) => {}
                    Spec::Secret(_) | Spec::ConfigMap(_) => {
                        self.touched.credentials.insert(edit.key.clone());
                    }
                    // Addresses that are written down are those of a Service.
                    Spec::Endpoints(endpoints) => {
                        let host = hosts::service_host(&endpoints.service, &edit.key.namespace);
                        self.touched.endpoints.insert(host);
                    }
                }
            }
        }
    }

    /// Touches the workloads that a Telemetry is for. One that selects is for its own namespace, the root namespace's too.
    fn touch_told(&mut self, namespace: &Text, telemetry: &Telemetry) {
        let keys = match telemetry.selector.as_ref().filter(|selector| !selector.is_empty()) {
            Some(selector) => {
                let selected = |workload: &&Arc<KnownWorkload>| selector.selects(&workload.entry.labels);
                let workloads = self.next.workloads_in(namespace).filter(selected);
                workloads.map(|workload| workload.key.clone()).collect()
            }
            None => {
                self.touched.telemetry |= *namespace == self.next.settings().root_namespace;
                self.governed(namespace, &None)
            }
        };
        self.touched.workloads.extend(keys);
    }

    /// Touches what a rate limit is attached to.
    fn touch_limited(&mut self, namespace: &Text, limit: &RateLimit) {
        if limit.targets.is_empty() {
            let keys = self.governed(namespace, &limit.selector);
            self.touched.workloads.extend(keys);
        }
        for target in &limit.targets {
            match target.kind {
                TargetKind::Service => {
                    let host = hosts::service_host(&target.name, namespace);
                    let services = self.next.candidates(&host).to_vec();
                    for service in services {
                        let reached = self.next.workloads_in(&service.namespace);
                        let reached = reached.filter(|workload| service.reaches(workload).is_some());
                        self.touched.workloads.extend(reached.map(|workload| workload.key.clone()));
                    }
                }
                TargetKind::VirtualService => {
                    let (kind, namespace, name) =
                        (Kind::VirtualService, namespace.clone(), target.name.clone());
                    self.touch_rules_of(&ResourceKey { kind, namespace, name });
                }
            }
        }
    }

    /// Touches the workloads and gateways that a policy of a namespace may concern.
    fn touch_governed(&mut self, namespace: &Text, selector: &Option<Labels>) {
        let keys = self.governed(namespace, selector);
        self.touched.workloads.extend(keys);
        let everywhere = *namespace == self.next.settings().root_namespace;
        let gateways = self.next.index.gateways.iter().filter(|(_, known)| {
            (everywhere || known.namespace == *namespace)
                && selector.as_ref().is_none_or(|selector| selector.selects(&known.labels))
        });
        self.touched.gateways.extend(gateways.map(|(key, _)| key.clone()));
    }

    /// Touches the workloads of the services that a DestinationRule is for.
    fn touch_called(&mut self, resource: &Resource) {
        let patterns = rule_hosts(resource);
        let held = |service: &&Arc<KnownService>| {
            patterns.iter().any(|pattern| hosts::covers(pattern, &service.host))
        };
        let services: Vec<Arc<KnownService>> = match patterns.as_slice() {
            [one] if !hosts::is_wildcard(one) => self.next.candidates(one).to_vec(),
            _ => {
                let held = self.next.services().filter(held);
                held.flat_map(|service| self.next.candidates(&service.host)).cloned().collect()
            }
        };
        for service in services {
            let reached = self.next.workloads_in(&service.namespace);
            let reached = reached.filter(|workload| service.reaches(workload).is_some());
            self.touched.workloads.extend(reached.map(|workload| workload.key.clone()));
        }
    }

    /// The workloads that a policy of a namespace may concern; those of all namespaces for the root namespace.
    fn governed(&self, namespace: &Text, selector: &Option<Labels>) -> Vec<WorkloadKey> {
        let everywhere = *namespace == self.next.settings().root_namespace;
        self.next
            .workloads()
            .filter(|workload| everywhere || workload.key.namespace == *namespace)
            .filter(|workload| selector.as_ref().is_none_or(|s| s.selects(&workload.entry.labels)))
            .map(|workload| workload.key.clone())
            .collect()
    }
}
