//! DestinationRules: for hosts that do not exist (IST0174), subsets without workloads (IST0173) and weights that go
//! there (MSH0102), TLS that verifies nobody (IST0128, IST0129).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::destinations;
use super::facts::Facts;
use super::findings::{Findings, pairs};
use crate::resource::destination_rule::{DestinationRule, TlsMode, TlsSettings};
use crate::resource::diagnostic::Severity;
use crate::resource::virtual_service::HttpAction;
use crate::resource::{Resource, Spec};
use crate::state::hosts;
use crate::vocab::label::Labels;
use crate::vocab::name::Text;
use crate::vocab::origin::Kind;

/// Labels that a place gives to workloads; no file says them.
const TOPOLOGY: [&str; 5] = [
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.istio.io/subzone",
    "topology.istio.io/network",
    "kubernetes.io/hostname",
];

pub(super) fn check(facts: &Facts<'_>, findings: &mut Findings) {
    let mut empty: BTreeSet<(Text, Text)> = BTreeSet::new();
    for resource in facts.of(Kind::DestinationRule) {
        let Spec::DestinationRule(rule) = &resource.spec else { continue };
        host_exists(facts, resource, rule, &mut empty, findings);
        servers_are_verified(resource, rule, findings);
    }
    weights_to_nobody(facts, &empty, findings);
}

fn host_exists(
    facts: &Facts<'_>,
    resource: &Arc<Resource>,
    rule: &DestinationRule,
    empty: &mut BTreeSet<(Text, Text)>,
    findings: &mut Findings,
) {
    let namespace = &resource.meta.key.namespace;
    let host = hosts::resolve(&rule.host, namespace);
    let held = facts.held(&host);
    let known = facts.destination(&rule.host, namespace, &rule.export_to);
    if known.is_none() && held.is_empty() {
        let hint = findings.hint(&rule.host, facts.host_names(namespace).into_iter());
        let message = format!(
            "no service has the host {:?}{hint}; the rule has no effect until one is declared",
            &*rule.host
        );
        findings.add("IST0174", Severity::Warning, resource, "spec.host", message);
        return;
    }
    let Some(known) = known else { return };
    let listed = facts.lists_members(known);
    let members = if rule.subsets.is_empty() { Vec::new() } else { facts.members(known) };
    for (index, subset) in rule.subsets.iter().enumerate() {
        let wanted = without_topology(&subset.labels);
        let selected = if listed {
            members.iter().any(|workload| wanted.selects(&workload.labels))
        } else {
            // Where endpoints are not listed (a name that is resolved), any workload with the labels will do.
            facts.workloads.iter().any(|workload| wanted.selects(&workload.labels))
        };
        if !selected {
            empty.insert((host.clone(), subset.name.clone()));
            let message = format!(
                "no workload of {} has the labels {} of the subset {}: requests to it get 503 (UH); label the workloads, or remove the subset",
                known.host,
                pairs(&subset.labels),
                subset.name
            );
            findings.add("IST0173", Severity::Error, resource, format!("spec.subsets[{index}]"), message);
        }
    }
}

fn without_topology(labels: &Labels) -> Labels {
    let mut kept = Labels::default();
    // An empty value is no place.
    let is_place = |key: &Text, value: &Text| TOPOLOGY.contains(&&**key) && !value.is_empty();
    for (key, value) in labels.iter().filter(|(key, value)| !is_place(key, value)) {
        kept.set(key.clone(), value.clone());
    }
    kept
}

/// Shares of traffic that are lost because nothing runs where they go.
fn weights_to_nobody(facts: &Facts<'_>, empty: &BTreeSet<(Text, Text)>, findings: &mut Findings) {
    if empty.is_empty() {
        return;
    }
    for resource in facts.of(Kind::VirtualService) {
        let Spec::VirtualService(rules) = &resource.spec else { continue };
        let shares = shares(rules);
        for (field, destination) in destinations::all(rules) {
            let host = hosts::resolve(&destination.host, &resource.meta.key.namespace);
            let Some(subset) = &destination.subset else { continue };
            let share = shares.get(&field).copied().unwrap_or(100);
            if share > 0 && empty.contains(&(host, subset.clone())) {
                let message = format!(
                    "{share} % of these requests go to the subset {subset} of {}, which has no workload, and fail; set its weight to 0 until it has",
                    destination.host
                );
                findings.add("MSH0102", Severity::Warning, resource, field, message);
            }
        }
    }
}

/// The share of each destination in percent, by its field.
fn shares(rules: &crate::resource::virtual_service::VirtualService) -> BTreeMap<String, u32> {
    let mut shares = BTreeMap::new();
    for (index, route) in rules.http.iter().enumerate() {
        let HttpAction::Route { destinations, .. } = &route.action else { continue };
        if destinations.len() < 2 {
            continue;
        }
        let total: u64 = destinations.iter().map(|to| u64::from(to.weight.unwrap_or(0))).sum();
        for (at, destination) in destinations.iter().enumerate() {
            let share = u64::from(destination.weight.unwrap_or(0)) * 100 / total.max(1);
            let field = format!("spec.http[{index}].route[{at}].destination");
            shares.insert(field, u32::try_from(share).unwrap_or(100));
        }
    }
    shares
}

fn servers_are_verified(resource: &Arc<Resource>, rule: &DestinationRule, findings: &mut Findings) {
    let Some(policy) = &rule.policy else { return };
    let unverified = |tls: &Option<TlsSettings>| {
        tls.as_ref().is_some_and(|tls| {
            let by_secret = tls.credential.is_some() && rule.workload_selector.is_some();
            matches!(tls.mode, TlsMode::Simple | TlsMode::Mutual)
                && tls.ca_certificates.is_none()
                && !by_secret
        })
    };
    let mode = |tls: &Option<TlsSettings>| tls.as_ref().map_or("", |tls| tls.mode.name());
    if unverified(&policy.blocks.tls) {
        let message = format!(
            "tls mode {} without caCertificates: the certificate of {} is not verified against a CA of yours; name it in caCertificates",
            mode(&policy.blocks.tls),
            rule.host
        );
        findings.add("IST0128", Severity::Warning, resource, "spec.trafficPolicy.tls", message);
    }
    for (index, (port, blocks)) in policy.ports.iter().enumerate().filter(|(_, (_, b))| unverified(&b.tls)) {
        let message = format!(
            "tls mode {} without caCertificates: the certificate of {} at port {port} is not verified against a CA of yours; name it in caCertificates",
            mode(&blocks.tls),
            rule.host
        );
        let field = format!("spec.trafficPolicy.portLevelSettings[{index}].tls");
        findings.add("IST0129", Severity::Warning, resource, field, message);
    }
}
