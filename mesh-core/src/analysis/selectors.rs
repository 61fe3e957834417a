//! Resources of which each workload follows one: Sidecars (IST0110, IST0111) and Telemetries (IST0159, IST0160), and
//! their selectors that select nothing (IST0101).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::facts::{Facts, grouped};
use super::findings::{Findings, pairs};
use super::ineffective;
use crate::resource::diagnostic::Severity;
use crate::resource::{Resource, Spec};
use crate::vocab::label::Labels;
use crate::vocab::name::Text;
use crate::vocab::origin::Kind;

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
        for resource in list {
            let message = format!(
                "the {} {} in namespace {namespace} have no selector; only the oldest counts, which is {}: keep one, or give the others selectors",
                rule.plural,
                names(list),
                list[0].meta.key.name
            );
            findings.add(rule.without_selector, Severity::Error, resource, "metadata.name", message);
        }
    }
}

fn same_workload(facts: &Facts<'_>, rule: &Rule, findings: &mut Findings) {
    let mut by_workload: BTreeMap<(Text, Text), Vec<&Arc<Resource>>> = BTreeMap::new();
    for resource in facts.of(rule.kind).iter().copied() {
        let Ok(Some(labels)) = selector(resource) else { continue };
        if labels.is_empty() {
            continue;
        }
        let namespace = &resource.meta.key.namespace;
        let selected = facts.selected(namespace, labels, false);
        if selected.is_empty() {
            let message = format!(
                "no workload of namespace {namespace} has the labels {}: correct the selector, or remove the resource",
                pairs(labels)
            );
            findings.add("IST0101", Severity::Error, resource, rule.field, message);
        }
        for workload in selected {
            if rule.kind == Kind::Sidecar && ineffective::is_ambient(workload) {
                continue;
            }
            by_workload
                .entry((workload.namespace.clone(), workload.name.clone()))
                .or_default()
                .push(resource);
        }
    }
    let mut reported: BTreeSet<String> = BTreeSet::new();
    for ((namespace, workload), list) in by_workload.iter().filter(|(_, list)| list.len() > 1) {
        for resource in list {
            if reported.insert(resource.meta.key.to_string()) {
                let message = format!(
                    "the {} {} in namespace {namespace} select the same workload {workload}; only the oldest counts, which is {}: make the selectors exclude each other",
                    rule.plural,
                    names(list),
                    list[0].meta.key.name
                );
                findings.add(rule.same_workload, Severity::Error, resource, rule.field, message);
            }
        }
    }
}

fn names(list: &[&Arc<Resource>]) -> String {
    let names: Vec<&str> = list.iter().map(|resource| &*resource.meta.key.name).collect();
    names.join(", ")
}
