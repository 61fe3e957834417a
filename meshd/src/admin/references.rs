//! Who refers to whom: what a resource names or selects, by field.

use std::sync::Arc;

use mesh_core::matching::text::TextMatch;
use mesh_core::resource::destination_rule::{DestinationRule, TrafficPolicy};
use mesh_core::resource::gateway::Gateway;
use mesh_core::resource::mesh_config::{MeshConfig, ProviderKind};
use mesh_core::resource::rate_limit::RateLimit;
use mesh_core::resource::reach::{GatewayRef, TargetRef};
use mesh_core::resource::security::AuthorizationPolicy;
use mesh_core::resource::virtual_service::{HttpAction, RouteDestination, VirtualService};
use mesh_core::resource::{Resource, Spec};
use mesh_core::state::{MeshState, hosts};
use mesh_core::vocab::identity::SpiffeId;
use mesh_core::vocab::label::Labels;
use mesh_core::vocab::name::Text;
use mesh_core::vocab::origin::{Kind, ResourceKey};

/// Something that a resource names or selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    /// The field that does so.
    pub(super) field: String,
    /// What it does: `routes to`.
    pub(super) verb: &'static str,
    /// What is meant; `None` if nothing in the mesh is.
    pub(super) target: Option<ResourceKey>,
    /// More about it: the host as it was written, a subset, a weight.
    pub(super) note: String,
}

/// Everything that a resource names or selects, in the order of its fields.
pub(super) fn of(resource: &Arc<Resource>, state: &MeshState) -> Vec<Reference> {
    let mut found = References { state, resource, found: Vec::new() };
    match &resource.spec {
        Spec::VirtualService(rules) => found.virtual_service(rules),
        Spec::DestinationRule(rule) => found.destination_rule(rule),
        Spec::Service(_) => {
            let key = &resource.meta.key;
            found.members(&hosts::service_host(&key.name, &key.namespace), "spec.selector");
        }
        Spec::ServiceEntry(entry) => {
            for host in &entry.hosts {
                found.members(host, "spec.workloadSelector");
            }
        }
        Spec::WorkloadEntry(entry) => found.account("spec.serviceAccount", entry.service_account.as_ref()),
        Spec::WorkloadGroup(group) => {
            found.account("spec.template.serviceAccount", group.template.service_account.as_ref());
        }
        Spec::Gateway(gateway) => found.gateway(gateway),
        Spec::PeerAuthentication(policy) => {
            let everywhere = policy.selector.is_none();
            found.workloads("spec.selector", "applies to", policy.selector.as_ref(), everywhere);
        }
        Spec::AuthorizationPolicy(policy) => {
            found.policy(policy.selector.as_ref(), &policy.targets);
            found.callers(policy);
        }
        Spec::RequestAuthentication(policy) => found.policy(policy.selector.as_ref(), &policy.targets),
        Spec::Telemetry(telemetry) => found.policy(telemetry.selector.as_ref(), &telemetry.targets),
        Spec::RateLimit(limit) => found.rate_limit(limit),
        Spec::Sidecar(sidecar) => {
            found.workloads("spec.workloadSelector", "applies to", sidecar.selector.as_ref(), true);
        }
        Spec::ProxyConfig(config) => {
            found.workloads("spec.selector", "applies to", config.selector.as_ref(), true);
        }
        Spec::MeshConfig(config) => found.mesh_config(config),
        Spec::Endpoints(endpoints) => {
            let key = found.key(Kind::Service, &endpoints.service);
            found.declared("metadata.name".to_owned(), "gives endpoints to", key, String::new());
        }
        Spec::Namespace | Spec::ServiceAccount | Spec::Secret(_) | Spec::ConfigMap(_) => {}
    }
    found.found
}

struct References<'a> {
    state: &'a MeshState,
    resource: &'a Arc<Resource>,
    found: Vec<Reference>,
}

impl References<'_> {
    fn namespace(&self) -> &Text {
        &self.resource.meta.key.namespace
    }

    fn key(&self, kind: Kind, name: &str) -> ResourceKey {
        ResourceKey { kind, namespace: self.namespace().clone(), name: name.into() }
    }

    fn add(&mut self, field: String, verb: &'static str, target: Option<ResourceKey>, note: String) {
        self.found.push(Reference { field, verb, target, note });
    }

    /// A resource that is named outright.
    fn declared(&mut self, field: String, verb: &'static str, key: ResourceKey, note: String) {
        let note = if note.is_empty() { key.to_string() } else { note };
        let target = self.state.declared(&key).map(|_| key);
        self.add(field, verb, target, note);
    }

    fn account(&mut self, field: &str, account: Option<&Text>) {
        if let Some(account) = account {
            let key = self.key(Kind::ServiceAccount, account);
            self.declared(field.to_owned(), "runs as", key, String::new());
        }
    }

    /// The services that a host or a wildcard of this resource means.
    fn services(&mut self, field: &str, verb: &'static str, written: &Text) {
        let host = hosts::resolve(written, self.namespace());
        let meant: Vec<ResourceKey> = if hosts::is_wildcard(&host) {
            let covered = self.state.services().filter(|service| hosts::covers(&host, &service.host));
            covered.map(|service| service.source().meta.key.clone()).collect()
        } else {
            self.state.service(&host).map(|service| service.source().meta.key.clone()).into_iter().collect()
        };
        if meant.is_empty() {
            self.add(field.to_owned(), verb, None, format!("the host {written}"));
        }
        for key in meant {
            self.add(field.to_owned(), verb, Some(key), format!("by the host {written}"));
        }
    }

    fn members(&mut self, host: &Text, field: &str) {
        let Some(service) = self.state.service(host) else { return };
        for member in self.state.members(service) {
            let workload = &member.workload;
            let ports: Vec<String> =
                member.ports.iter().map(|(port, target)| format!("{port} at {target}")).collect();
            let key = ResourceKey {
                kind: Kind::WorkloadEntry,
                namespace: workload.key.namespace.clone(),
                name: workload.key.name.clone(),
            };
            let reference = Reference {
                field: if workload.is_inline() { "spec.endpoints" } else { field }.to_owned(),
                verb: "is served by",
                target: Some(key),
                note: format!("{}, port {}", workload.health.name(), ports.join(", ")),
            };
            if !self.found.contains(&reference) {
                self.found.push(reference);
            }
        }
    }

    fn destination(&mut self, field: &str, verb: &'static str, to: &RouteDestination, weight: bool) {
        let host = hosts::resolve(&to.host, self.namespace());
        let service = self.state.service(&host).cloned();
        let mut note = vec![format!("host {}", to.host)];
        note.extend(to.subset.as_ref().map(|subset| format!("subset {subset}")));
        note.extend(to.port.map(|port| format!("port {port}")));
        note.extend(to.weight.filter(|_| weight).map(|weight| format!("weight {weight}")));
        let target = service.as_ref().map(|service| service.source().meta.key.clone());
        self.add(format!("{field}.host"), verb, target, note.join(", "));
        let (Some(subset), Some(service)) = (&to.subset, service) else { return };
        let rules = self.state.destination_rules().flat_map(|(_, table)| table.most_specific(&service.host));
        let defines = |resource: &&Arc<Resource>| match &resource.spec {
            Spec::DestinationRule(rule) => rule.subsets.iter().any(|one| one.name == *subset),
            _ => false,
        };
        let target = rules.into_iter().find(defines).map(|rule| rule.meta.key.clone());
        self.add(format!("{field}.subset"), "uses a subset of", target, format!("subset {subset}"));
    }

    fn virtual_service(&mut self, rules: &VirtualService) {
        for (index, host) in rules.hosts.iter().enumerate() {
            self.services(&format!("spec.hosts[{index}]"), "is for", host);
        }
        for (index, gateway) in rules.gateways.iter().enumerate() {
            if let GatewayRef::Named { namespace, name } = gateway {
                let key =
                    ResourceKey { kind: Kind::Gateway, namespace: namespace.clone(), name: name.clone() };
                let field = format!("spec.gateways[{index}]");
                self.declared(field, "is served at", key, String::new());
            }
        }
        for (index, rule) in rules.http.iter().enumerate() {
            let field = format!("spec.http[{index}]");
            match &rule.action {
                HttpAction::Route { destinations, .. } => self.routes(&field, destinations),
                HttpAction::Delegate { namespace, name, .. } => {
                    let key = ResourceKey {
                        kind: Kind::VirtualService,
                        namespace: namespace.clone(),
                        name: name.clone(),
                    };
                    self.declared(format!("{field}.delegate"), "delegates to", key, String::new());
                }
                HttpAction::Redirect(_) | HttpAction::DirectResponse(_) => {}
            }
            for (at, mirror) in rule.mirrors.iter().enumerate() {
                let field = format!("{field}.mirrors[{at}].destination");
                self.destination(&field, "mirrors to", &mirror.destination, false);
            }
        }
        for (index, rule) in rules.tls.iter().enumerate() {
            self.routes(&format!("spec.tls[{index}]"), &rule.destinations);
        }
        for (index, rule) in rules.tcp.iter().enumerate() {
            self.routes(&format!("spec.tcp[{index}]"), &rule.destinations);
        }
    }

    fn routes(&mut self, rule: &str, destinations: &[RouteDestination]) {
        for (index, destination) in destinations.iter().enumerate() {
            self.destination(&format!("{rule}.route[{index}].destination"), "routes to", destination, true);
        }
    }

    fn destination_rule(&mut self, rule: &DestinationRule) {
        self.services("spec.host", "is for", &rule.host);
        let policies = rule
            .policy
            .iter()
            .map(|policy| ("spec.trafficPolicy".to_owned(), policy))
            .chain(rule.subsets.iter().enumerate().filter_map(|(index, subset)| {
                Some((format!("spec.subsets[{index}].trafficPolicy"), subset.policy.as_ref()?))
            }))
            .collect::<Vec<_>>();
        for (field, policy) in policies {
            self.credentials(&field, policy);
        }
        if let Some(selector) = &rule.workload_selector {
            self.workloads("spec.workloadSelector", "applies to callers", Some(selector), false);
        }
    }

    fn credentials(&mut self, field: &str, policy: &TrafficPolicy) {
        let ports = policy.ports.iter().enumerate();
        let blocks = [(field.to_owned(), &policy.blocks)]
            .into_iter()
            .chain(ports.map(|(index, (_, blocks))| (format!("{field}.portLevelSettings[{index}]"), blocks)));
        for (field, blocks) in blocks {
            let credential = blocks.tls.as_ref().and_then(|tls| tls.credential.as_ref());
            if let Some(name) = credential {
                let key = self.key(Kind::Secret, name);
                self.declared(format!("{field}.tls.credentialName"), "presents", key, String::new());
            }
        }
    }

    fn gateway(&mut self, gateway: &Gateway) {
        // A gateway's selector looks into every namespace.
        for workload in self.state.workloads() {
            if gateway.selector.selects(&workload.entry.labels) {
                let key = ResourceKey {
                    kind: Kind::WorkloadEntry,
                    namespace: workload.key.namespace.clone(),
                    name: workload.key.name.clone(),
                };
                self.add("spec.selector".to_owned(), "runs on", Some(key), String::new());
            }
        }
        for (index, server) in gateway.servers.iter().enumerate() {
            let Some(tls) = &server.tls else { continue };
            for name in tls.credentials.iter().chain(&tls.ca_credential) {
                let (namespace, name) = match name.rsplit_once('/') {
                    Some((place, name)) => (place.rsplit('/').next().unwrap_or(place).into(), name),
                    None => (self.namespace().clone(), &**name),
                };
                let key = ResourceKey { kind: Kind::Secret, namespace, name: name.into() };
                let field = format!("spec.servers[{index}].tls.credentialName");
                self.declared(field, "presents", key, String::new());
            }
        }
    }

    /// A policy with selector or targets; in the root namespace it reaches into all others.
    fn policy(&mut self, selector: Option<&Labels>, targets: &[TargetRef]) {
        for (index, target) in targets.iter().enumerate() {
            let field = format!("spec.targetRefs[{index}]");
            match Kind::from_word(&target.kind) {
                Some(kind @ (Kind::Service | Kind::ServiceEntry | Kind::Gateway)) => {
                    let key = self.key(kind, &target.name);
                    self.declared(field, "applies to", key, String::new());
                }
                _ => self.add(field, "applies to", None, format!("{} {}", target.kind, target.name)),
            }
        }
        if targets.is_empty() {
            self.workloads("spec.selector", "applies to", selector, true);
        }
    }

    fn rate_limit(&mut self, limit: &RateLimit) {
        for (index, target) in limit.targets.iter().enumerate() {
            let key = self.key(target.kind.kind(), &target.name);
            let note = match &target.section {
                Some(section) => format!("{key}, {section}"),
                None => String::new(),
            };
            self.declared(format!("spec.targetRefs[{index}]"), "limits requests of", key, note);
        }
        if limit.targets.is_empty() {
            self.workloads("spec.selector", "limits requests of", limit.selector.as_ref(), true);
        }
    }

    /// `everywhere`: in the root namespace it selects from the whole mesh.
    fn workloads(&mut self, field: &str, verb: &'static str, selector: Option<&Labels>, everywhere: bool) {
        let selector = selector.filter(|selector| !selector.is_empty());
        let namespace = self.namespace().clone();
        let everywhere = everywhere && namespace == self.state.settings().root_namespace;
        let before = self.found.len();
        let state = self.state;
        let reached: Vec<_> =
            if everywhere { state.workloads().collect() } else { state.workloads_in(&namespace).collect() };
        for workload in reached {
            if selector.is_none_or(|selector| selector.selects(&workload.entry.labels)) {
                let key = ResourceKey {
                    kind: Kind::WorkloadEntry,
                    namespace: workload.key.namespace.clone(),
                    name: workload.key.name.clone(),
                };
                self.add(field.to_owned(), verb, Some(key), String::new());
            }
        }
        if let (Some(selector), true) = (selector, self.found.len() == before) {
            let pairs: Vec<String> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
            self.add(field.to_owned(), verb, None, format!("workloads with {}", pairs.join(", ")));
        }
    }

    fn callers(&mut self, policy: &AuthorizationPolicy) {
        for (rule_index, rule) in policy.rules.iter().enumerate() {
            for (index, source) in rule.from.iter().enumerate() {
                let field = |name: &str| format!("spec.rules[{rule_index}].from[{index}].source.{name}");
                let named =
                    [(&source.principals.any, "principals"), (&source.principals.none, "notPrincipals")];
                for (principals, name) in named {
                    for principal in principals {
                        let TextMatch::Exact(text) = principal else { continue };
                        let Ok(id) = SpiffeId::parse(&format!("spiffe://{text}")) else { continue };
                        let Some((namespace, account)) = id.account() else { continue };
                        let key = ResourceKey {
                            kind: Kind::ServiceAccount,
                            namespace: namespace.into(),
                            name: account.into(),
                        };
                        self.declared(field(name), "names the caller", key, String::new());
                    }
                }
            }
        }
    }

    fn mesh_config(&mut self, config: &MeshConfig) {
        for (index, provider) in config.providers.iter().enumerate() {
            if let ProviderKind::ExtAuthz(asked) = &provider.kind {
                self.services(&format!("extensionProviders[{index}]"), "asks", &asked.service);
            }
        }
    }
}
