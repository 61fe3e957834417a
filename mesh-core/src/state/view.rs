//! What a caller sees: the Sidecar that holds for it, and which services, rules and policies it finds.
//!
//! Everything that depends on who looks goes through a [`View`]. Callers of one namespace under one Sidecar share one,
//! unless a DestinationRule selects some of them.

use std::sync::Arc;

use super::{MeshState, hosts};
use crate::matching::scope::{EgressListener, Import, listener};
use crate::resource::destination_rule::DestinationRule;
use crate::resource::reach::ExportTo;
use crate::resource::sidecar::{EgressHost, EgressNamespace, OutboundMode, OutboundPolicy, Sidecar};
use crate::resource::virtual_service::VirtualService;
use crate::resource::{Resource, Spec};
use crate::vocab::label::Labels;
use crate::vocab::name::Text;
use crate::vocab::origin::{Kind, ResourceKey};

/// What one caller sees of the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Name, equal for equal views of one mesh; empty for a caller that is not known.
    pub key: Text,
    /// Namespace of the caller; empty where it is not known.
    pub namespace: Text,
    /// The Sidecar that holds for it.
    pub sidecar: Option<ResourceKey>,
    /// DestinationRules of its namespace that select it, by precedence.
    pub rules: Vec<ResourceKey>,
    /// What the Sidecar imports; `None` for all that is exported to the namespace.
    pub egress: Option<Vec<EgressListener>>,
    /// What becomes of traffic for unknown hosts.
    pub outbound: OutboundPolicy,
}

impl View {
    /// The scope of sections that only this view's callers use; `None` for callers that are not known.
    pub fn scope(&self) -> Option<Text> {
        (!self.key.is_empty()).then(|| self.key.clone())
    }

    /// Whether a service of a namespace is imported on a port, or on any port where none is given.
    pub fn imports(&self, namespace: &str, host: &str, port: Option<u16>) -> bool {
        self.any_listener(port, |listener| listener.imports(namespace, host))
    }

    /// Whether a VirtualService is imported on a port: for any of its hosts.
    pub fn imports_rules(&self, resource: &Resource, rules: &VirtualService, port: u16) -> bool {
        let namespace = &resource.meta.key.namespace;
        self.any_listener(Some(port), |listener| {
            rules.hosts.iter().any(|host| listener.imports_rules(namespace, &hosts::resolve(host, namespace)))
        })
    }

    fn any_listener(&self, port: Option<u16>, test: impl Fn(&EgressListener) -> bool) -> bool {
        match (&self.egress, port) {
            (None, _) => true,
            (Some(listeners), Some(port)) => listener(listeners, port).is_some_and(test),
            (Some(listeners), None) => listeners.iter().any(test),
        }
    }
}

impl MeshState {
    /// The view of a workload as a caller.
    pub fn view_of(&self, namespace: &Text, labels: &Labels) -> View {
        let selected = self.index.selecting_rules.get(namespace).into_iter().flatten();
        let rules = selected.filter(|resource| {
            let selector = destination_rule(resource).and_then(|rule| rule.workload_selector.as_ref());
            selector.is_some_and(|selector| selector.selects(labels))
        });
        self.view(namespace, self.sidecar_of(namespace, labels), rules)
    }

    /// The view of a gateway in a namespace: no Sidecar holds for it.
    pub fn gateway_view(&self, namespace: &Text) -> View {
        self.view(namespace, None, std::iter::empty())
    }

    /// The view of a caller that is not known: all that is exported to everybody. A Sidecar for the whole mesh
    /// decides what becomes of its traffic for unknown hosts.
    pub fn default_view(&self) -> View {
        let root = self.settings().root_namespace.clone();
        let mesh_wide = self.sidecar_without_selector(&root).and_then(|resource| sidecar(resource));
        let mut view = self.view(&"".into(), None, std::iter::empty());
        if let Some(policy) = mesh_wide.and_then(|sidecar| sidecar.outbound.clone()) {
            view.outbound = policy;
        }
        view
    }

    fn view<'s>(
        &self,
        namespace: &Text,
        holding: Option<&Arc<Resource>>,
        rules: impl Iterator<Item = &'s Arc<Resource>>,
    ) -> View {
        let declared = holding.and_then(|resource| sidecar(resource));
        let rules: Vec<ResourceKey> = rules.map(|resource| resource.meta.key.clone()).collect();
        let outbound = declared.and_then(|sidecar| sidecar.outbound.clone());
        let mut key = namespace.to_string();
        if let Some(resource) = holding {
            key = format!("{key};{}", resource.meta.key);
        }
        for rule in &rules {
            key = format!("{key};{}", rule.name);
        }
        View {
            key: if rules.is_empty() && holding.is_none() { namespace.clone() } else { key.into() },
            namespace: namespace.clone(),
            sidecar: holding.map(|resource| resource.meta.key.clone()),
            rules,
            egress: declared.and_then(|sidecar| listeners(sidecar, namespace)),
            outbound: outbound
                .unwrap_or_else(|| OutboundPolicy { mode: self.outbound_mode(), egress_proxy: None }),
        }
    }

    /// The Sidecar of a workload: the oldest of its namespace that selects it, else the oldest there for all,
    /// else the root namespace's.
    pub fn sidecar_of<'s>(&'s self, namespace: &'s str, labels: &Labels) -> Option<&'s Arc<Resource>> {
        let selecting = self.resources_in(Kind::Sidecar, namespace).filter(|resource| {
            let selector = sidecar(resource).and_then(|sidecar| sidecar.selector.as_ref());
            selector.is_some_and(|selector| !selector.is_empty() && selector.selects(labels))
        });
        oldest(selecting)
            .or_else(|| self.sidecar_without_selector(namespace))
            .or_else(|| self.sidecar_without_selector(&self.settings().root_namespace))
    }

    /// The oldest Sidecar of a namespace that is for all its workloads.
    fn sidecar_without_selector<'s>(&'s self, namespace: &'s str) -> Option<&'s Arc<Resource>> {
        oldest(self.resources_in(Kind::Sidecar, namespace).filter(|resource| {
            let selector = sidecar(resource).and_then(|sidecar| sidecar.selector.as_ref());
            selector.is_none_or(Labels::is_empty)
        }))
    }

    /// Whether callers of a namespace see a resource; the mesh's default stands where it does not say.
    pub fn is_exported(&self, resource: &Resource, caller: &str) -> bool {
        let (declared, default) = self.export(resource);
        declared.reaches(&resource.meta.key.namespace, caller, default)
    }

    /// The namespaces that a resource is exported to, sorted; `None` for all.
    pub fn exported_to(&self, resource: &Resource) -> Option<Vec<Text>> {
        use crate::resource::reach::Export;
        let (declared, default) = self.export(resource);
        let entries = if declared.entries.is_empty() { &default.entries } else { &declared.entries };
        if entries.is_empty() || entries.contains(&Export::All) {
            return None;
        }
        let mut names: Vec<Text> = entries
            .iter()
            .filter_map(|entry| match entry {
                Export::Own => Some(resource.meta.key.namespace.clone()),
                Export::Namespace(name) => Some(name.clone()),
                Export::All | Export::Nobody => None,
            })
            .collect();
        names.sort();
        names.dedup();
        Some(names)
    }

    fn export<'s>(&'s self, resource: &'s Resource) -> (&'s ExportTo, &'s ExportTo) {
        static EVERYBODY: ExportTo = ExportTo { entries: Vec::new() };
        let mesh = self.mesh();
        match &resource.spec {
            Spec::Service(service) => (&service.export_to, &mesh.service_export_to),
            Spec::ServiceEntry(entry) => (&entry.export_to, &mesh.service_export_to),
            Spec::VirtualService(rules) => (&rules.export_to, &mesh.virtual_service_export_to),
            Spec::DestinationRule(rule) => (&rule.export_to, &mesh.destination_rule_export_to),
            _ => (&EVERYBODY, &EVERYBODY),
        }
    }
}

/// What a Sidecar imports for callers of a namespace: `.` is theirs, not the Sidecar's.
fn listeners(sidecar: &Sidecar, namespace: &Text) -> Option<Vec<EgressListener>> {
    let import = |host: &EgressHost| {
        let of = match &host.namespace {
            EgressNamespace::All => None,
            EgressNamespace::Own => Some(namespace.clone()),
            EgressNamespace::Named(name) => Some(name.clone()),
            EgressNamespace::Nobody => return None,
        };
        Some(Import { excluded: host.excluded, namespace: of, host: host.host.clone() })
    };
    let egress = sidecar.egress.as_ref().filter(|egress| !egress.is_empty())?;
    let listeners = egress.iter().map(|entry| EgressListener {
        port: entry.port.as_ref().map(|port| port.number),
        imports: entry.hosts.iter().filter_map(import).collect(),
    });
    Some(listeners.collect())
}

fn oldest<'s>(resources: impl Iterator<Item = &'s Arc<Resource>>) -> Option<&'s Arc<Resource>> {
    resources.min_by(|a, b| a.meta.precedence().cmp(&b.meta.precedence()))
}

/// The content, if it is a Sidecar.
pub(super) fn sidecar(resource: &Resource) -> Option<&Sidecar> {
    match &resource.spec {
        Spec::Sidecar(sidecar) => Some(sidecar),
        _ => None,
    }
}

/// The content, if it is a DestinationRule.
pub(super) fn destination_rule(resource: &Resource) -> Option<&DestinationRule> {
    match &resource.spec {
        Spec::DestinationRule(rule) => Some(rule),
        _ => None,
    }
}

/// The content, if it is a VirtualService.
pub(super) fn virtual_service(resource: &Resource) -> Option<&VirtualService> {
    match &resource.spec {
        Spec::VirtualService(rules) => Some(rules),
        _ => None,
    }
}

/// What the mesh says of traffic for unknown hosts.
pub fn allows_any(policy: &OutboundPolicy) -> bool {
    policy.mode == OutboundMode::AllowAny
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::sample::{declare, labels, mesh};

    fn sidecar(id: &str, selector: Option<&str>) -> Arc<Resource> {
        let selector = selector.map(labels);
        declare(id, Spec::Sidecar(Sidecar { selector, ..Sidecar::default() }))
    }

    #[test]
    fn one_sidecar_holds() {
        let resources = || {
            vec![
                sidecar("shop/old@1", None),
                sidecar("shop/young@2", None),
                sidecar("shop/batch@3", Some("tier=batch")),
                sidecar("shop/late@4", Some("tier=batch")),
                sidecar("istio-system/root@9", None),
                sidecar("istio-system/selecting@0", Some("tier=batch")),
            ]
        };
        let state = mesh(resources());
        for (namespace, caller, expected) in [
            ("shop", "tier=batch", "shop/batch"),
            ("shop", "tier=web", "shop/old"),
            ("till", "tier=batch", "istio-system/root"),
            ("istio-system", "tier=batch", "istio-system/selecting"),
        ] {
            let view = state.view_of(&namespace.into(), &labels(caller));
            let found = view.sidecar.as_ref().map(|key| format!("{}/{}", key.namespace, key.name));
            assert_eq!(found.as_deref(), Some(expected), "{namespace} {caller}");
        }
        assert_eq!(state.gateway_view(&"shop".into()).sidecar, None);
        assert_eq!(mesh(vec![]).view_of(&"shop".into(), &labels("")).key, "shop".into());
    }

    #[test]
    fn what_becomes_of_unknown_hosts() {
        let declared = |id: &str, mode: OutboundMode| {
            let outbound = Some(OutboundPolicy { mode, egress_proxy: None });
            declare(id, Spec::Sidecar(Sidecar { outbound, ..Sidecar::default() }))
        };
        let config = crate::resource::mesh_config::MeshConfig {
            outbound: Some(OutboundMode::RegistryOnly),
            ..Default::default()
        };
        let strict = declare("istio-system/mesh", Spec::MeshConfig(Box::new(config)));
        let mode = |resources: Vec<Arc<Resource>>, namespace: &str| {
            mesh(resources).view_of(&namespace.into(), &Labels::default()).outbound.mode
        };
        assert_eq!(mode(vec![], "a"), OutboundMode::AllowAny);
        assert_eq!(mode(vec![strict.clone()], "a"), OutboundMode::RegistryOnly);
        let open = || declared("a/s", OutboundMode::AllowAny);
        assert_eq!(mode(vec![strict.clone(), open()], "a"), OutboundMode::AllowAny);
        assert_eq!(mode(vec![strict.clone(), sidecar("a/s", None)], "a"), OutboundMode::RegistryOnly);
        let root = declared("istio-system/s", OutboundMode::RegistryOnly);
        assert_eq!(mesh(vec![root]).default_view().outbound.mode, OutboundMode::RegistryOnly);
    }
}
