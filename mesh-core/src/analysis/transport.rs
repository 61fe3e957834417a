//! Callers that STRICT mutual TLS cuts off (MSH0106): a DestinationRule that switches TLS off or to another kind
//! towards a workload that demands it, and callers without an identity.

use std::collections::HashMap;
use std::sync::Arc;

use super::chain::Calls;
use super::facts::{Facts, Workload};
use super::findings::Findings;
use crate::policy::mtls::MtlsMode;
use crate::resource::destination_rule::{TlsMode, TlsSettings};
use crate::resource::diagnostic::Severity;
use crate::resource::{Resource, Spec};
use crate::state::hosts;
use crate::vocab::name::Text;
use crate::vocab::origin::Kind;

pub(super) fn check(facts: &Facts<'_>, calls: &Calls, findings: &mut Findings) {
    if facts.of(Kind::PeerAuthentication).is_empty() {
        return;
    }
    for resource in facts.of(Kind::DestinationRule) {
        let Spec::DestinationRule(rule) = &resource.spec else { continue };
        let policy = rule.policy.as_ref();
        let mut blocks: Vec<(String, &Option<TlsSettings>)> = Vec::new();
        blocks.extend(policy.map(|policy| ("spec.trafficPolicy.tls".to_owned(), &policy.blocks.tls)));
        for (index, (_, entry)) in policy.iter().flat_map(|policy| policy.ports.iter().enumerate()) {
            blocks.push((format!("spec.trafficPolicy.portLevelSettings[{index}].tls"), &entry.tls));
        }
        for (index, subset) in rule.subsets.iter().enumerate() {
            if let Some(policy) = &subset.policy {
                blocks.push((format!("spec.subsets[{index}].trafficPolicy.tls"), &policy.blocks.tls));
            }
        }
        for (field, tls) in blocks {
            let Some(tls) = tls.as_ref().filter(|tls| tls.mode != TlsMode::IstioMutual) else { continue };
            cut_off(facts, resource, &rule.host, tls.mode, field, findings);
        }
    }
    callers_without_identity(facts, calls, findings);
}

fn cut_off(
    facts: &Facts<'_>,
    resource: &Arc<Resource>,
    written: &Text,
    mode: TlsMode,
    field: String,
    findings: &mut Findings,
) {
    let host = hosts::resolve(written, &resource.meta.key.namespace);
    let strict = facts.held(&host).into_iter().find_map(|known| {
        let members = facts.members(known);
        members.iter().find_map(|workload| Some((workload.name.clone(), strict_by(facts, workload)?)))
    });
    if let Some((workload, policy)) = strict {
        let message = format!(
            "tls mode {} towards {host}, whose workload {workload} demands mutual TLS (STRICT by {}): its calls are refused (503 UC); use ISTIO_MUTUAL or leave tls out, or make the workload PERMISSIVE",
            mode.name(),
            policy.meta.key
        );
        findings.add("MSH0106", Severity::Warning, resource, field, message);
    }
}

fn callers_without_identity(facts: &Facts<'_>, calls: &Calls, findings: &mut Findings) {
    // Asked once a host, however many call it.
    let mut plain: HashMap<Text, Option<Text>> = HashMap::new();
    let mut strict: HashMap<Text, Option<&Arc<Resource>>> = HashMap::new();
    for (from, to) in calls {
        let caller = plain.entry(from.clone()).or_insert_with(|| {
            facts.held(from).into_iter().find_map(|known| {
                let members = facts.members(known);
                members.into_iter().find(|workload| !workload.has_identity).map(|w| w.name.clone())
            })
        });
        let Some(caller) = caller else { continue };
        let strict = strict.entry(to.clone()).or_insert_with(|| {
            facts.held(to).into_iter().find_map(|known| {
                facts.members(known).into_iter().find_map(|workload| strict_by(facts, workload))
            })
        });
        if let Some(policy) = strict {
            let message = format!(
                "{caller} of {from} calls {to} and has no service account, so it speaks plaintext and is cut off by STRICT; give it a serviceAccount, or make {to} PERMISSIVE"
            );
            findings.add("MSH0106", Severity::Warning, policy, "spec.mtls.mode", message);
        }
    }
}

/// The PeerAuthentication that makes a workload STRICT: its own, else the namespace's, else the mesh's; the oldest.
fn strict_by<'a>(facts: &Facts<'a>, workload: &Workload<'_>) -> Option<&'a Arc<Resource>> {
    let namespace = &workload.namespace;
    for (namespace, by_selector) in [(namespace, true), (namespace, false), (&facts.root_namespace, false)] {
        let policies = facts.of_in(Kind::PeerAuthentication, namespace);
        let found = policies.iter().copied().find_map(|resource| {
            let Spec::PeerAuthentication(policy) = &resource.spec else { return None };
            let selector = policy.selector.as_ref().filter(|selector| !selector.is_empty());
            let applies = selector.is_none_or(|selector| selector.selects(&workload.labels));
            (applies && selector.is_some() == by_selector).then_some((resource, policy.mode))
        });
        if let Some((resource, Some(mode))) = found {
            return (mode == MtlsMode::Strict).then_some(resource);
        }
    }
    None
}
