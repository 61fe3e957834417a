//! What has no effect where it is: selectors of pods that Istio runs for Kubernetes' Gateways (IST0166), Sidecars for
//! workloads without a proxy beside them (IST0167).

use std::collections::BTreeSet;
use std::sync::Arc;

use super::facts::{Facts, Workload};
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
    let kinds = [Kind::AuthorizationPolicy, Kind::RequestAuthentication, Kind::Telemetry];
    for resource in kinds.into_iter().flat_map(|kind| facts.of(kind)) {
        selector(facts, resource, findings);
    }
    let ambient = ambient_namespaces(facts);
    for resource in facts.of(Kind::Sidecar) {
        let reason = if ambient.contains(&*resource.meta.key.namespace) {
            "namespace"
        } else if selects_ambient(facts, resource) {
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

fn selector(facts: &Facts<'_>, resource: &Arc<Resource>, findings: &mut Findings) {
    let (selector, targets) = match &resource.spec {
        Spec::AuthorizationPolicy(policy) => (&policy.selector, &policy.targets),
        Spec::RequestAuthentication(policy) => (&policy.selector, &policy.targets),
        Spec::Telemetry(telemetry) => (&telemetry.selector, &telemetry.targets),
        _ => return,
    };
    let Some(labels) = selector.as_ref().filter(|_| targets.is_empty()) else { return };
    let mut all = facts.workloads_in(&resource.meta.key.namespace);
    let gateway = all.find_map(|workload| {
        let name = workload.labels.value(GATEWAY_NAME)?;
        labels.selects(&workload.labels).then_some(name)
    });
    if let Some(gateway) = gateway {
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

fn selects_ambient(facts: &Facts<'_>, resource: &Resource) -> bool {
    let Spec::Sidecar(sidecar) = &resource.spec else { return false };
    let Some(labels) = sidecar.selector.as_ref().filter(|labels| !labels.is_empty()) else { return false };
    let mut all = facts.workloads_in(&resource.meta.key.namespace);
    all.any(|workload| is_ambient(workload) && labels.selects(&workload.labels))
}
