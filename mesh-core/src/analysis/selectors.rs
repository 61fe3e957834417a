//! Resources of which each workload follows one: Sidecars (IST0110, IST0111) and Telemetries (IST0159, IST0160), and
//! their selectors that select nothing (IST0101).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::facts::{Facts, Workload, grouped};
use super::findings::{Findings, listed, pairs};
use super::ineffective;
use crate::resource::diagnostic::Severity;
use crate::resource::{Resource, Spec};
use crate::vocab::label::Labels;
use crate::vocab::origin::{Kind, ResourceKey};

/// Most pairs of resources and selected workloads that are looked at, and how many workloads of each resource still
/// are after that.
const MOST_PAIRINGS: usize = 1_000_000;
const FEW: usize = 20;

struct Rule {
    kind: Kind,
    plural: &'static str,
    same_workload: &'static str,
    without_selector: &'static str,
    field: &'static str,
}

const RULES: [Rule; 2] = [
    Rule {
        kind: Kind::Sidecar,
        plural: "Sidecars",
        same_workload: "IST0110",
        without_selector: "IST0111",
        field: "spec.workloadSelector",
    },
    Rule {
        kind: Kind::Telemetry,
        plural: "Telemetries",
        same_workload: "IST0159",
        without_selector: "IST0160",
        field: "spec.selector",
    },
];

pub(super) fn check(facts: &Facts<'_>, findings: &mut Findings) {
    for rule in &RULES {
        without_selector(facts, rule, findings);
        same_workload(facts, rule, findings);
    }
}

/// The selector of a resource; `Err` where it is attached to objects instead.
fn selector(resource: &Resource) -> Result<Option<&Labels>, ()> {
    match &resource.spec {
        Spec::Sidecar(sidecar) => Ok(sidecar.selector.as_ref()),
        Spec::Telemetry(telemetry) if telemetry.targets.is_empty() => Ok(telemetry.selector.as_ref()),
        _ => Err(()),
    }
}

fn without_selector(facts: &Facts<'_>, rule: &Rule, findings: &mut Findings) {
    // Where a Sidecar has no effect at all, that is what is said.
    let ambient =
        if rule.kind == Kind::Sidecar { ineffective::ambient_namespaces(facts) } else { BTreeSet::new() };
    let all = facts.of(rule.kind).iter().filter(|resource| {
        selector(resource) == Ok(None) && !ambient.contains(&*resource.meta.key.namespace)
    });
    let by_namespace = grouped(all.map(|resource| (&resource.meta.key.namespace, *resource)));
    for (namespace, list) in by_namespace.iter().filter(|(_, list)| list.len() > 1) {
        let message = format!(
            "the {} {} in namespace {namespace} have no selector; only the oldest counts, which is {}: keep one, or give the others selectors",
            rule.plural,
            names(list),
            list[0].meta.key.name
        );
        for resource in list {
            findings.add(rule.without_selector, Severity::Error, resource, "metadata.name", message.clone());
        }
    }
}

fn same_workload(facts: &Facts<'_>, rule: &Rule, findings: &mut Findings) {
    let mut by_workload: HashMap<usize, (&Workload<'_>, Vec<&Arc<Resource>>)> = HashMap::new();
    let mut pairings = 0;
    for resource in facts.of(rule.kind).iter().copied() {
        let Ok(Some(labels)) = selector(resource) else { continue };
        if labels.is_empty() {
            continue;
        }
        let namespace = &resource.meta.key.namespace;
        if !facts.selects_any(namespace, labels, false) {
            let message = format!(
                "no workload of namespace {namespace} has the labels {}: correct the selector, or remove the resource",
                pairs(labels)
            );
            findings.add("IST0101", Severity::Error, resource, rule.field, message);
        }
        let most = if pairings < MOST_PAIRINGS { usize::MAX } else { FEW };
        for workload in facts.selection(namespace, labels, false).take(most) {
            if rule.kind == Kind::Sidecar && ineffective::is_ambient(workload) {
                continue;
            }
            pairings += 1;
            let entry = by_workload.entry(std::ptr::from_ref(workload).addr());
            entry.or_insert_with(|| (workload, Vec::new())).1.push(resource);
        }
    }
    let mut reported: BTreeSet<&ResourceKey> = BTreeSet::new();
    let mut shared: Vec<_> = by_workload.into_values().filter(|(_, list)| list.len() > 1).collect();
    shared.sort_by_key(|(workload, _)| (&workload.namespace, &workload.name));
    for (workload, list) in &shared {
        let mut message = None;
        for resource in list {
            if reported.insert(&resource.meta.key) {
                let message = message.get_or_insert_with(|| {
                    format!(
                        "the {} {} in namespace {} select the same workload {}; only the oldest counts, which is {}: make the selectors exclude each other",
                        rule.plural,
                        names(list),
                        workload.namespace,
                        workload.name,
                        list[0].meta.key.name
                    )
                });
                findings.add(rule.same_workload, Severity::Error, resource, rule.field, message.clone());
            }
        }
    }
}

fn names(list: &[&Arc<Resource>]) -> String {
    listed(list.iter().map(|resource| resource.meta.key.name.to_string()))
}
