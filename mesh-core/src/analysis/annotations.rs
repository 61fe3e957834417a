//! Annotations of Istio on the resources of Kubernetes: unknown ones (IST0108), at the wrong place (IST0107), with a
//! value that cannot be (IST0125), out of use (IST0135).

use std::collections::BTreeMap;

use super::facts::Facts;
use super::findings::Findings;
use crate::resource::diagnostic::Severity;
use crate::vocab::label::Labels;
use crate::vocab::name::Text;
use crate::vocab::origin::Kind;

const POD: &str = "Pod";
const SERVICE: &str = "Service";
const NAMESPACE: &str = "Namespace";
/// Kinds that this analysis does not look at: an annotation of theirs is at the wrong place here.
const OTHER: &str = "another kind";
const ANY: &str = "Any";
/// An annotation that became a label.
const INJECT: &str = "sidecar.istio.io/inject";

/// Name, where it belongs, whether it is out of use.
#[rustfmt::skip]
const KNOWN: [(&str, &[&str], bool); 77] = [
    ("alpha.istio.io/canonical-serviceaccounts", &[SERVICE], false),
    ("alpha.istio.io/identity", &[POD], true),
    ("alpha.istio.io/kubernetes-serviceaccounts", &[SERVICE], false),
    ("ambient.istio.io/bypass-inbound-capture", &[POD], false),
    ("ambient.istio.io/dns-capture", &[POD], false),
    ("ambient.istio.io/redirection", &[POD], false),
    ("ambient.istio.io/waypoint-inbound-binding", &[OTHER], false),
    ("galley.istio.io/analyze-suppress", &[ANY], false),
    ("gateway.istio.io/controller-version", &[OTHER], false),
    ("gateway.istio.io/name-override", &[OTHER], false),
    ("gateway.istio.io/service-account", &[OTHER], false),
    ("inject.istio.io/templates", &[POD], false),
    ("install.operator.istio.io/chart-owner", &[ANY], true),
    ("install.operator.istio.io/owner-generation", &[ANY], true),
    ("install.operator.istio.io/version", &[ANY], true),
    ("internal.istio.io/gateway-service", &[OTHER], false),
    ("internal.istio.io/parents", &[OTHER], false),
    ("internal.istio.io/route-semantics", &[OTHER], false),
    ("internal.istio.io/service-upgrade-conflicted-port", &[OTHER], false),
    ("istio.io/autoRegistrationGroup", &[OTHER], false),
    ("istio.io/connectedAt", &[OTHER], false),
    ("istio.io/disconnectedAt", &[OTHER], false),
    ("istio.io/dry-run", &[OTHER], false),
    ("istio.io/rev", &[POD], false),
    ("istio.io/reroute-virtual-interfaces", &[POD], false),
    ("istio.io/workloadController", &[OTHER], false),
    ("kubernetes.io/ingress.class", &[OTHER], false),
    ("networking.istio.io/address-type", &[OTHER], false),
    ("networking.istio.io/exportTo", &[SERVICE], false),
    ("networking.istio.io/service-type", &[OTHER], false),
    ("networking.istio.io/traffic-distribution", &[SERVICE, NAMESPACE], false),
    ("prometheus.istio.io/merge-metrics", &[POD], false),
    ("proxy.istio.io/config", &[POD], false),
    ("proxy.istio.io/overrides", &[POD], false),
    ("readiness.status.sidecar.istio.io/applicationPorts", &[POD], false),
    ("readiness.status.sidecar.istio.io/failureThreshold", &[POD], false),
    ("readiness.status.sidecar.istio.io/initialDelaySeconds", &[POD], false),
    ("readiness.status.sidecar.istio.io/periodSeconds", &[POD], false),
    ("security.istio.io/autoMTLS", &[POD], false),
    ("sidecar.istio.io/agentLogLevel", &[POD], false),
    ("sidecar.istio.io/bootstrapOverride", &[POD], false),
    ("sidecar.istio.io/componentLogLevel", &[POD], false),
    ("sidecar.istio.io/controlPlaneAuthPolicy", &[POD], true),
    ("sidecar.istio.io/discoveryAddress", &[POD], true),
    ("sidecar.istio.io/enableCoreDump", &[POD], false),
    ("sidecar.istio.io/extraStatTags", &[POD], false),
    ("sidecar.istio.io/inject", &[POD], true),
    ("sidecar.istio.io/interceptionMode", &[POD], false),
    ("sidecar.istio.io/logLevel", &[POD], false),
    ("sidecar.istio.io/nativeSidecar", &[POD], false),
    ("sidecar.istio.io/proxyCPU", &[POD], false),
    ("sidecar.istio.io/proxyCPULimit", &[POD], false),
    ("sidecar.istio.io/proxyImage", &[POD], false),
    ("sidecar.istio.io/proxyImageType", &[POD], false),
    ("sidecar.istio.io/proxyMemory", &[POD], false),
    ("sidecar.istio.io/proxyMemoryLimit", &[POD], false),
    ("sidecar.istio.io/rewriteAppHTTPProbers", &[POD], false),
    ("sidecar.istio.io/statsCompression", &[POD], false),
    ("sidecar.istio.io/statsEvictionInterval", &[POD], false),
    ("sidecar.istio.io/statsHistogramBuckets", &[POD], false),
    ("sidecar.istio.io/statsInclusionPrefixes", &[POD], true),
    ("sidecar.istio.io/statsInclusionRegexps", &[POD], false),
    ("sidecar.istio.io/statsInclusionSuffixes", &[POD], false),
    ("sidecar.istio.io/status", &[POD], false),
    ("sidecar.istio.io/userVolume", &[POD], false),
    ("sidecar.istio.io/userVolumeMount", &[POD], false),
    ("status.sidecar.istio.io/port", &[POD], false),
    ("topology.istio.io/controlPlaneClusters", &[NAMESPACE], false),
    ("traffic.istio.io/nodeSelector", &[SERVICE], false),
    ("traffic.sidecar.istio.io/excludeInboundPorts", &[POD], false),
    ("traffic.sidecar.istio.io/excludeInterfaces", &[POD], false),
    ("traffic.sidecar.istio.io/excludeOutboundIPRanges", &[POD], false),
    ("traffic.sidecar.istio.io/excludeOutboundPorts", &[POD], false),
    ("traffic.sidecar.istio.io/includeInboundPorts", &[POD], false),
    ("traffic.sidecar.istio.io/includeOutboundIPRanges", &[POD], false),
    ("traffic.sidecar.istio.io/includeOutboundPorts", &[POD], false),
    ("traffic.sidecar.istio.io/kubevirtInterfaces", &[POD], true),
];

pub(super) fn check(facts: &Facts<'_>, findings: &mut Findings) {
    for (kind, place) in [(Kind::Namespace, NAMESPACE), (Kind::Service, SERVICE)] {
        for resource in facts.of(kind) {
            let name = resource.meta.key.to_string();
            let meta = &resource.meta;
            judge(&name, place, &meta.annotations, &meta.labels, findings);
        }
    }
    for pod in facts.pods {
        let name = format!("{}/{}/{}", pod.kind.to_lowercase(), pod.namespace, pod.name);
        judge(&name, &pod.kind, &pod.own_annotations, &pod.own_labels, findings);
    }
}

fn judge(
    name: &str,
    place: &str,
    annotations: &BTreeMap<Text, Text>,
    labels: &Labels,
    findings: &mut Findings,
) {
    for (annotation, value) in annotations {
        let of_istio = &**annotation == "kubernetes.io/ingress.class"
            || annotation.split('/').next().is_some_and(|prefix| prefix.ends_with("istio.io"));
        if !of_istio {
            continue;
        }
        let field = format!("metadata.annotations[\"{annotation}\"]");
        let known = || KNOWN.iter();
        let Some((_, places, is_deprecated)) = known().find(|(known, ..)| *known == &**annotation) else {
            let hint = findings.hint(annotation, known().map(|(name, ..)| *name));
            let message = format!("the annotation {annotation} is none of Istio's{hint}");
            findings.about("IST0108", Severity::Warning, name, field, message);
            continue;
        };
        // Who has the label as well knows that it takes the annotation's place.
        let has_label = &**annotation == INJECT && labels.value(INJECT).is_some();
        if *is_deprecated && !has_label {
            let message =
                format!("the annotation {annotation} is out of use and may not work in future versions");
            findings.about("IST0135", Severity::Info, name, field.clone(), message);
        }
        if places.contains(&ANY) {
            continue;
        }
        if !places.contains(&place) {
            let message = format!("the annotation {annotation} belongs to {}, not here", places.join(", "));
            findings.about("IST0107", Severity::Warning, name, field, message);
        } else if let Some(problem) = problem(annotation, value) {
            let message = format!("the annotation {annotation} has a value that cannot be: {problem}");
            findings.about("IST0125", Severity::Warning, name, field, message);
        }
    }
}

/// What is wrong with the value of an annotation.
fn problem(annotation: &str, value: &str) -> Option<String> {
    let (prefix, name) = annotation.split_once('/')?;
    let numbers = |value: &str| value.parse::<u32>().is_err().then(|| format!("{value:?} is no number"));
    match (prefix, name) {
        ("sidecar.istio.io", "interceptionMode") => {
            let known = ["REDIRECT", "TPROXY", "NONE"].contains(&value);
            (!known).then(|| format!("found {value:?}, allowed: REDIRECT, TPROXY, NONE"))
        }
        ("sidecar.istio.io", "rewriteAppHTTPProbers" | "enableCoreDump")
        | ("prometheus.istio.io", "merge-metrics") => {
            value.parse::<bool>().is_err().then(|| format!("found {value:?}, allowed: true, false"))
        }
        ("status.sidecar.istio.io", "port") => port(value),
        ("readiness.status.sidecar.istio.io", "applicationPorts") => ports(value),
        ("readiness.status.sidecar.istio.io", _) => numbers(value),
        ("traffic.sidecar.istio.io", "includeInboundPorts" | "includeOutboundPorts") if value == "*" => None,
        (
            "traffic.sidecar.istio.io",
            "excludeInboundPorts" | "excludeOutboundPorts" | "includeInboundPorts" | "includeOutboundPorts",
        ) => ports(value),
        ("traffic.sidecar.istio.io", "includeOutboundIPRanges") if value == "*" => None,
        ("traffic.sidecar.istio.io", "includeOutboundIPRanges" | "excludeOutboundIPRanges") => {
            let ranges = value.split(',').map(str::trim).filter(|range| !range.is_empty());
            let mut wrong = ranges.filter(|range| range.parse::<ipnet::IpNet>().is_err());
            wrong.next().map(|range| format!("{range:?} is no network such as 10.0.0.0/8"))
        }
        _ => None,
    }
}

fn port(value: &str) -> Option<String> {
    value.trim().parse::<u16>().is_err().then(|| format!("{value:?} is no port"))
}

fn ports(value: &str) -> Option<String> {
    value.split(',').filter(|part| !part.trim().is_empty()).find_map(port)
}
