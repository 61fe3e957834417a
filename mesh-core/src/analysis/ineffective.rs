//! What has no effect where it is: selectors of pods that Istio runs for Kubernetes' Gateways (IST0166), Sidecars for
//! workloads without a proxy beside them (IST0167).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::facts::{Facts, Workload, grouped};
use super::findings::Findings;
use crate::resource::diagnostic::Severity;
use crate::resource::{Resource, Spec};
use crate::vocab::label::Labels;
use crate::vocab::origin::Kind;

/// The label that pods of Kubernetes' Gateways have, with the Gateway's name.
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// Label of namespaces, and its value, in which no proxies stand beside workloads.
const MODE: (&str, &str) = ("istio.io/dataplane-mode", "ambient");
/// Annotation of pods, and its value, whose traffic is redirected otherwise.
const REDIRECTION: (&str, &str) = ("ambient.istio.io/redirection", "enabled");

pub(super) fn check(facts: &Facts<'_>, findings: &mut Findings) {
    let gateways = of_gateways(facts);
    let kinds = [Kind::AuthorizationPolicy, Kind::RequestAuthentication, Kind::Telemetry];
    for resource in kinds.into_iter().flat_map(|kind| facts.of(kind)) {
        selector(&gateways, resource, findings);
    }
    let ambient = ambient_namespaces(facts);
    let redirected: Vec<&Workload<'_>> = facts.workloads.iter().filter(|w| is_ambient(w)).collect();
    for resource in facts.of(Kind::Sidecar) {
        let reason = if ambient.contains(&*resource.meta.key.namespace) {
            "namespace"
        } else if selects_ambient(&redirected, resource) {
            "selected workload"
        } else {
            continue;
        };
        let message = format!(
            "the {reason} is in ambient mode, where no proxy of its own reads a Sidecar; remove it, or take the workloads out of ambient mode"
        );
        findings.add("IST0167", Severity::Warning, resource, "spec", message);
    }
}

type OfGateways<'f, 'a> = BTreeMap<&'f str, Vec<(&'f str, &'f Workload<'a>)>>;

/// The workloads of Kubernetes' Gateways with the Gateway's name, by namespace.
fn of_gateways<'f, 'a>(facts: &'f Facts<'a>) -> OfGateways<'f, 'a> {
    let named = facts.workloads.iter().filter_map(|workload| {
        let name = workload.labels.value(GATEWAY_NAME)?;
        Some((&*workload.namespace, (name, workload)))
    });
    grouped(named)
}

fn selector(gateways: &OfGateways<'_, '_>, resource: &Arc<Resource>, findings: &mut Findings) {
    let (selector, targets) = match &resource.spec {
        Spec::AuthorizationPolicy(policy) => (&policy.selector, &policy.targets),
        Spec::RequestAuthentication(policy) => (&policy.selector, &policy.targets),
        Spec::Telemetry(telemetry) => (&telemetry.selector, &telemetry.targets),
        _ => return,
    };
    let Some(labels) = selector.as_ref().filter(|_| targets.is_empty()) else { return };
    let mut own = gateways.get(&*resource.meta.key.namespace).into_iter().flatten();
    if let Some((gateway, _)) = own.find(|(_, workload)| labels.selects(&workload.labels)) {
        let message = format!(
            "the selector selects workloads of Kubernetes' Gateway {gateway}, where selectors have no effect; name the Gateway in targetRefs"
        );
        findings.add("IST0166", Severity::Warning, resource, "spec.selector", message);
    }
}

/// Namespaces in ambient mode: labelled so, and not for injection.
pub(super) fn ambient_namespaces<'a>(facts: &Facts<'a>) -> BTreeSet<&'a str> {
    let is_ambient = |labels: &Labels| {
        labels.value(MODE.0) == Some(MODE.1)
            && labels.value("istio-injection") != Some("enabled")
            && labels.value("istio.io/rev").is_none_or(str::is_empty)
    };
    let namespaces = facts.of(Kind::Namespace).iter().copied();
    namespaces.filter(|namespace| is_ambient(&namespace.meta.labels)).map(|n| &*n.meta.key.name).collect()
}

/// Whether a workload's traffic is redirected without a proxy beside it.
pub(super) fn is_ambient(workload: &Workload<'_>) -> bool {
    let annotation = workload.pod.and_then(|pod| pod.annotations.get(REDIRECTION.0));
    annotation.is_some_and(|value| &**value == REDIRECTION.1)
}

fn selects_ambient(redirected: &[&Workload<'_>], resource: &Resource) -> bool {
    let Spec::Sidecar(sidecar) = &resource.spec else { return false };
    let Some(labels) = sidecar.selector.as_ref().filter(|labels| !labels.is_empty()) else { return false };
    let own = |workload: &&&Workload<'_>| workload.namespace == resource.meta.key.namespace;
    redirected.iter().filter(own).any(|workload| labels.selects(&workload.labels))
}
