//! Rate limits where they hold: before workloads, and on rules.

use crate::resource::rate_limit::{RateLimit as Declared, TargetKind};
use crate::resource::{Resource, Spec};
use crate::routing::limit::RateLimit;
use crate::state::index::KnownWorkload;
use crate::state::{MeshState, hosts};
use crate::vocab::name::Text;
use crate::vocab::origin::{Kind, ResourceKey};

/// The rate limits of what reaches a workload, those of its namespace first.
pub(super) fn of_workload(state: &MeshState, workload: &KnownWorkload) -> Vec<RateLimit> {
    let root = &*state.settings().root_namespace;
    let namespace = &*workload.key.namespace;
    let labels = &workload.entry.labels;
    let mut limits = Vec::new();
    for (resource, declared) in declared(state, namespace) {
        if declared.targets.is_empty() && selects(declared, labels) {
            limits.push(held(resource, declared, "selector".into(), Vec::new()));
        }
        for target in declared.targets.iter().filter(|target| target.kind == TargetKind::Service) {
            let host = hosts::service_host(&target.name, namespace);
            let services = state.services_of(workload);
            let Some(service) = services.iter().find(|service| service.host == host) else { continue };
            let named = |number: u16| {
                let port = service.port(number);
                target.section.as_ref().is_none_or(|name| port.is_some_and(|port| port.name == *name))
            };
            let reached = service.reaches(workload).unwrap_or_default();
            let mut ports: Vec<u16> =
                reached.into_iter().filter(|(number, _)| named(*number)).map(|(_, port)| port).collect();
            if ports.is_empty() {
                continue;
            }
            ports.sort_unstable();
            ports.dedup();
            let target = attached("service", namespace, &target.name, target.section.as_ref());
            limits.push(held(resource, declared, target, ports));
        }
    }
    if namespace != root {
        for (resource, declared) in declared(state, root) {
            if declared.targets.is_empty() && selects(declared, labels) {
                limits.push(held(resource, declared, "selector".into(), Vec::new()));
            }
        }
    }
    limits
}

/// The rate limits of a rule: those of the VirtualService whose hosts it is for, and of the one that it stands in.
pub(super) fn of_rule(
    state: &MeshState,
    bound: &ResourceKey,
    written: &ResourceKey,
    name: Option<&Text>,
) -> Vec<RateLimit> {
    let holders = [Some(bound), (bound != written).then_some(written)];
    let mut limits = Vec::new();
    for holder in holders.into_iter().flatten() {
        for (resource, declared) in declared(state, &holder.namespace) {
            let here = declared.targets.iter().filter(|target| {
                target.kind == TargetKind::VirtualService
                    && target.name == holder.name
                    && target.section.as_ref().is_none_or(|section| Some(section) == name)
            });
            limits.extend(here.map(|target| {
                let target =
                    attached("virtualservice", &holder.namespace, &target.name, target.section.as_ref());
                held(resource, declared, target, Vec::new())
            }));
        }
    }
    limits
}

fn declared<'s>(
    state: &'s MeshState,
    namespace: &'s str,
) -> impl Iterator<Item = (&'s Resource, &'s Declared)> {
    state.resources_in(Kind::RateLimit, namespace).filter_map(|resource| match &resource.spec {
        Spec::RateLimit(declared) => Some((&**resource, declared)),
        _ => None,
    })
}

fn selects(declared: &Declared, labels: &crate::vocab::label::Labels) -> bool {
    declared.selector.as_ref().is_none_or(|selector| selector.selects(labels))
}

fn attached(kind: &str, namespace: &str, name: &str, section: Option<&Text>) -> Text {
    match section {
        Some(section) => format!("{kind}/{namespace}/{name}/{section}").into(),
        None => format!("{kind}/{namespace}/{name}").into(),
    }
}

fn held(resource: &Resource, declared: &Declared, target: Text, ports: Vec<u16>) -> RateLimit {
    RateLimit { origin: resource.meta.key.to_string().into(), target, ports, terms: declared.terms.clone() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::resilience::ratelimit::Rate;
    use crate::resource::rate_limit::LimitTarget;
    use crate::routing::limit::{Counts, Limit, Tell, Terms};
    use crate::state::sample::{declare, entry, labels, mesh, service};
    use crate::vocab::name::WorkloadKey;

    fn terms() -> Terms {
        let rate = Rate::new(1, Duration::from_secs(1), 1).unwrap();
        let limit = Limit { name: "all".into(), rate, key: vec![], counts: Counts::default() };
        Terms { shared: false, limits: vec![limit], status: 429, tell: Tell::Refused, dry_run: false }
    }

    fn limit(
        id: &str,
        selector: Option<&str>,
        targets: &[(TargetKind, &str, Option<&str>)],
    ) -> Arc<Resource> {
        let targets = targets.iter().map(|(kind, name, section)| LimitTarget {
            kind: *kind,
            name: (*name).into(),
            section: section.map(Text::from),
        });
        let selector = selector.map(labels);
        declare(id, Spec::RateLimit(Declared { selector, targets: targets.collect(), terms: terms() }))
    }

    #[test]
    fn a_workload_has_those_of_its_services_and_those_that_select_it() {
        use TargetKind::{Service, VirtualService};
        let state = mesh(vec![
            service("default/a", &["http:80:8080", "http-b:81:8081"], "app=a"),
            service("default/b", &["http:80"], "app=b"),
            entry("default/w", "10.0.0.1", "app=a"),
            limit("default/whole", None, &[(Service, "a", None)]),
            limit("default/port", None, &[(Service, "a", Some("http-b")), (Service, "a", Some("http-c"))]),
            limit("default/other", None, &[(Service, "b", None), (VirtualService, "a", None)]),
            limit("default/mine", Some("app=a"), &[]),
            limit("default/theirs", Some("app=b"), &[]),
            limit("istio-system/mesh", None, &[]),
            limit("prod/all", None, &[]),
        ]);
        let key = WorkloadKey { namespace: "default".into(), name: "w".into() };
        let found = of_workload(&state, state.workload(&key).unwrap());
        let found = found.iter().map(|held| format!("{} {} {:?}", held.origin, held.target, held.ports));
        let expected = [
            "ratelimit/default/mine selector []",
            "ratelimit/default/port service/default/a/http-b [8081]",
            "ratelimit/default/whole service/default/a [8080, 8081]",
            "ratelimit/istio-system/mesh selector []",
        ];
        assert_eq!(found.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_rule_has_those_of_its_virtual_service_and_of_its_name() {
        use TargetKind::{Service, VirtualService};
        let state = mesh(vec![
            limit("default/all", None, &[(VirtualService, "a", None)]),
            limit("default/canary", None, &[(VirtualService, "a", Some("canary"))]),
            limit("default/leaf", None, &[(VirtualService, "leaf", None)]),
            limit("default/service", None, &[(Service, "a", None)]),
            limit("prod/a", None, &[(VirtualService, "a", None)]),
        ]);
        let key = |name: &str| ResourceKey {
            kind: Kind::VirtualService,
            namespace: "default".into(),
            name: name.into(),
        };
        let found = |bound: &str, written: &str, name: Option<&str>| -> Vec<String> {
            let name = name.map(Text::from);
            let found = of_rule(&state, &key(bound), &key(written), name.as_ref());
            found.iter().map(|held| held.target.replace("virtualservice/default/", "")).collect()
        };
        assert_eq!(found("a", "a", None), ["a"]);
        assert_eq!(found("a", "a", Some("canary")), ["a", "a/canary"]);
        assert_eq!(found("a", "leaf", None), ["a", "leaf"]);
        assert_eq!(found("b", "b", Some("canary")), Vec::<String>::new());
    }
}
