//! AuthorizationPolicies: for nobody (IST0127), of namespaces that do not exist (IST0101), and rules that no request
//! can meet (MSH0105).

use std::sync::Arc;

use super::facts::Facts;
use super::findings::{Findings, pairs};
use crate::matching::text::TextMatch;
use crate::policy::authorization::{AuthorizationRule, PolicyAction, Values};
use crate::resource::diagnostic::Severity;
use crate::resource::security::AuthorizationPolicy;
use crate::resource::{Resource, Spec};
use crate::vocab::origin::Kind;

pub(super) fn check(facts: &Facts<'_>, findings: &mut Findings) {
    for resource in facts.of(Kind::AuthorizationPolicy) {
        let Spec::AuthorizationPolicy(policy) = &resource.spec else { continue };
        if policy.targets.is_empty() {
            for_somebody(facts, resource, policy, findings);
        }
        namespaces_exist(facts, resource, policy, findings);
        can_be_met(facts, resource, policy, findings);
    }
    for resource in facts.of(Kind::PeerAuthentication).iter().chain(facts.of(Kind::RequestAuthentication)) {
        let (selector, mesh_wide) = match &resource.spec {
            Spec::PeerAuthentication(policy) => (&policy.selector, false),
            Spec::RequestAuthentication(policy) if policy.targets.is_empty() => (&policy.selector, true),
            _ => continue,
        };
        let Some(labels) = selector.as_ref().filter(|labels| !labels.is_empty()) else { continue };
        if !facts.selects_any(&resource.meta.key.namespace, labels, mesh_wide) {
            nobody(facts, resource, labels, mesh_wide, findings);
        }
    }
}

fn for_somebody(
    facts: &Facts<'_>,
    resource: &Arc<Resource>,
    policy: &AuthorizationPolicy,
    findings: &mut Findings,
) {
    let namespace = &resource.meta.key.namespace;
    let Some(labels) = &policy.selector else {
        let is_mesh_wide = *namespace == facts.root_namespace;
        if !is_mesh_wide && facts.workloads_in(namespace).next().is_none() {
            let message = format!("namespace {namespace} has no workload: the policy protects nothing");
            findings.add("IST0127", Severity::Warning, resource, "metadata.namespace", message);
        }
        return;
    };
    if !facts.selects_any(namespace, labels, true) {
        nobody(facts, resource, labels, true, findings);
    }
}

fn nobody(
    facts: &Facts<'_>,
    resource: &Arc<Resource>,
    labels: &crate::vocab::label::Labels,
    mesh_wide: bool,
    findings: &mut Findings,
) {
    let namespace = &resource.meta.key.namespace;
    let everywhere = mesh_wide && *namespace == facts.root_namespace;
    let place = if everywhere { "the mesh".to_owned() } else { format!("namespace {namespace}") };
    let message = format!(
        "no workload of {place} has the labels {}: the policy protects nothing; correct the selector or label the workload",
        pairs(labels)
    );
    findings.add("IST0127", Severity::Warning, resource, "spec.selector", message);
}

fn namespaces_exist(
    facts: &Facts<'_>,
    resource: &Arc<Resource>,
    policy: &AuthorizationPolicy,
    findings: &mut Findings,
) {
    for (rule_index, rule) in policy.rules.iter().enumerate() {
        for (from_index, source) in rule.from.iter().enumerate() {
            let lists = [("namespaces", &source.namespaces.any), ("notNamespaces", &source.namespaces.none)];
            for (name, list) in lists {
                for (index, test) in list.iter().enumerate() {
                    let exists = facts.namespaces.iter().any(|namespace| test.matches(namespace.as_bytes()));
                    if exists {
                        continue;
                    }
                    let hint = match test {
                        TextMatch::Exact(text) => findings.hint(text, facts.namespaces.iter().copied()),
                        _ => String::new(),
                    };
                    let message = format!("no namespace is called {test}{hint}");
                    let field = format!("spec.rules[{rule_index}].from[{from_index}].source.{name}[{index}]");
                    findings.add("IST0101", Severity::Error, resource, field, message);
                }
            }
        }
    }
}

/// Rules that contradict themselves, and ALLOW policies where everything is denied before they are asked.
fn can_be_met(
    facts: &Facts<'_>,
    resource: &Arc<Resource>,
    policy: &AuthorizationPolicy,
    findings: &mut Findings,
) {
    for (index, rule) in policy.rules.iter().enumerate() {
        if let Some(reason) = contradiction(rule) {
            let message = format!("no request can meet this rule: {reason}; remove one of the two");
            let field = format!("spec.rules[{index}]");
            findings.add("MSH0105", Severity::Warning, resource, field, message);
        }
    }
    if policy.action != PolicyAction::Allow || policy.dry_run {
        return;
    }
    let own = facts.of_in(Kind::AuthorizationPolicy, &resource.meta.key.namespace);
    let of_mesh = facts.of_in(Kind::AuthorizationPolicy, &facts.root_namespace);
    let shadow = own.iter().chain(of_mesh).find(|other| match &other.spec {
        Spec::AuthorizationPolicy(deny) => denies_everything(deny) && is_wider(policy, deny),
        _ => false,
    });
    if let Some(shadow) = shadow {
        let message = format!(
            "{} denies every request to the same workloads before this policy is asked: it allows nothing; narrow the denial",
            shadow.meta.key
        );
        findings.add("MSH0105", Severity::Warning, resource, "spec", message);
    }
}

fn denies_everything(policy: &AuthorizationPolicy) -> bool {
    policy.action == PolicyAction::Deny
        && !policy.dry_run
        && policy.targets.is_empty()
        && policy.rules.iter().any(|rule| *rule == AuthorizationRule::default())
}

/// Whether every workload of `policy` is one of `other`, which is in its namespace or the mesh's.
fn is_wider(policy: &AuthorizationPolicy, other: &AuthorizationPolicy) -> bool {
    other
        .selector
        .as_ref()
        .is_none_or(|wider| policy.selector.as_ref().is_some_and(|narrower| wider.selects(narrower)))
}

/// Two demands of a rule that exclude each other.
fn contradiction(rule: &AuthorizationRule) -> Option<String> {
    let sources = rule.from.iter().map(|source| {
        excluded("principals", &source.principals).or_else(|| excluded("namespaces", &source.namespaces))
    });
    let operations = rule.to.iter().map(|operation| {
        excluded("methods", &operation.methods).or_else(|| excluded("hosts", &operation.hosts)).or_else(
            || {
                let gone = |port: &u16| operation.ports.none.contains(port);
                let all = !operation.ports.any.is_empty() && operation.ports.any.iter().all(gone);
                all.then(|| "notPorts excludes every one of ports".to_owned())
            },
        )
    });
    all_or_nothing(sources).or_else(|| all_or_nothing(operations))
}

/// One alternative that can be met is enough.
fn all_or_nothing(reasons: impl Iterator<Item = Option<String>>) -> Option<String> {
    let mut first = None;
    for reason in reasons {
        let reason = reason?;
        first.get_or_insert(reason);
    }
    first
}

fn excluded(name: &str, values: &Values<TextMatch>) -> Option<String> {
    let gone = |wanted: &TextMatch| match wanted {
        TextMatch::Exact(text) => values.none.iter().any(|test| test.matches(text.as_bytes())),
        other => values.none.contains(other) || values.none.contains(&TextMatch::NotEmpty),
    };
    let all = !values.any.is_empty() && values.any.iter().all(gone);
    all.then(|| format!("its negation excludes every one of {name}"))
}
