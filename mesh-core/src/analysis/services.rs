//! Services: port names that say no protocol (IST0118, IST0150), workloads whose Services contradict each other
//! (IST0116, IST0137), and pods that run as the proxy's user (IST0144).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::facts::{Facts, Workload};
use super::findings::Findings;
use crate::resource::diagnostic::Severity;
use crate::resource::kubernetes::PodTemplate;
use crate::resource::service::{Port, Service, ServiceForm, TargetPort};
use crate::resource::{Resource, Spec};
use crate::vocab::label::Labels;
use crate::vocab::origin::Kind;
use crate::vocab::protocol::Protocol;

/// Namespaces of Kubernetes' own, whose Services nobody can rename.
const SYSTEM: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];

/// Label of what Istio itself makes for Gateways of Kubernetes.
const MANAGED: &str = "gateway.istio.io/managed";

/// Label or annotation of pods: whether they get a proxy.
const INJECT: &str = "sidecar.istio.io/inject";

/// The user of Istio's proxy, whose traffic is not captured.
const PROXY_USER: u32 = 1337;

pub(super) fn check(facts: &Facts<'_>, findings: &mut Findings) {
    for resource in facts.of(Kind::Service) {
        let Spec::Service(service) = &resource.spec else { continue };
        let labels = &resource.meta.labels;
        let is_istios = is_control_plane(labels) || labels.value(MANAGED).is_some();
        if !is_istios && !SYSTEM.contains(&&*resource.meta.key.namespace) {
            port_names(resource, service, findings);
        }
    }
    for workload in &facts.workloads {
        let Some(pod) = workload.pod else { continue };
        let name = format!("{}/{}/{}", pod.kind.to_lowercase(), pod.namespace, pod.name);
        if pod.users.contains(&PROXY_USER) && !is_control_plane(&pod.own_labels) {
            let message = format!(
                "runs as user {PROXY_USER}, which is the proxy's: its traffic passes the proxy by; choose another runAsUser"
            );
            findings.about("IST0144", Severity::Warning, &name, String::new(), message);
        }
        if &*pod.kind == "Deployment" && is_in_mesh(facts, pod) {
            services_agree(facts, workload, &name, findings);
        }
    }
}

/// Istio's own parts.
fn is_control_plane(labels: &Labels) -> bool {
    labels.value("istio").is_some() || labels.value("release") == Some("istio")
}

/// Whether nobody has asked that there be no proxy.
fn is_in_mesh(facts: &Facts<'_>, pod: &PodTemplate) -> bool {
    if pod.own_labels.value(MANAGED) == Some("istio.io-mesh-controller") {
        return false;
    }
    let annotation = pod.annotations.get(INJECT).map(|value| &**value);
    if let Some(wanted) = pod.labels.value(INJECT).or(annotation) {
        return wanted == "true";
    }
    let namespace = facts.find(Kind::Namespace, &"".into(), &pod.namespace);
    namespace.is_none_or(|namespace| namespace.meta.labels.value("istio-injection") != Some("disabled"))
}

fn port_names(resource: &Arc<Resource>, service: &Service, findings: &mut Findings) {
    let external = matches!(service.form, ServiceForm::ExternalName(_));
    for (index, port) in service.ports.iter().enumerate() {
        let field = format!("spec.ports[{index}].name");
        let is_open = port.protocol == Protocol::Auto;
        if external && (is_open || &*port.name == "tcp") {
            let message = format!(
                "the port name {:?} of a Service of type ExternalName: unmatched traffic of such a port may be kept from other hosts; name it by its protocol, http or tls for instance",
                &*port.name
            );
            findings.add("IST0150", Severity::Warning, resource, field, message);
        } else if is_open {
            let message = format!(
                "the port name {:?} (port {}, targetPort {}) begins with no protocol: what it speaks is found out from the first bytes; name it http, tcp, grpc... or NAME-SUFFIX, or set appProtocol",
                &*port.name,
                port.number,
                target(port)
            );
            findings.add("IST0118", Severity::Info, resource, field, message);
        }
    }
}

fn target(port: &Port) -> String {
    match &port.target {
        TargetPort::Same => port.number.to_string(),
        TargetPort::Number(number) => number.to_string(),
        TargetPort::Name(name) => name.to_string(),
    }
}

/// Several Services for the same pods: one protocol a port, one port a targetPort.
fn services_agree(facts: &Facts<'_>, workload: &Workload<'_>, name: &str, findings: &mut Findings) {
    let services = facts.services_of(workload);
    let mut protocols: BTreeMap<u16, BTreeMap<&str, BTreeSet<&str>>> = BTreeMap::new();
    let mut targets: BTreeMap<String, BTreeMap<u16, &str>> = BTreeMap::new();
    for resource in &services {
        let Spec::Service(service) = &resource.spec else { continue };
        let service_name = &*resource.meta.key.name;
        for (number, transport) in &*service.transports {
            protocols.entry(*number).or_default().entry(transport).or_default().insert(service_name);
        }
        for port in &service.ports {
            targets.entry(target(port)).or_default().insert(port.number, service_name);
        }
    }
    for (port, used) in protocols.iter().filter(|(_, used)| used.len() > 1) {
        let names: BTreeSet<&str> = used.values().flatten().copied().collect();
        let message = format!(
            "the Services {} use port {port} with different protocols for the same workload; use one protocol, or another port",
            joined(names)
        );
        findings.about("IST0116", Severity::Warning, name, String::new(), message);
    }
    for (target, used) in targets.iter().filter(|(_, used)| used.len() > 1) {
        let ports: Vec<String> = used.keys().map(ToString::to_string).collect();
        let message = format!(
            "the Services {} lead to targetPort {target} of the same workload from different ports ({}); use one port",
            joined(used.values().copied().collect()),
            ports.join(", ")
        );
        findings.about("IST0137", Severity::Warning, name, String::new(), message);
    }
}

fn joined(names: BTreeSet<&str>) -> String {
    names.into_iter().collect::<Vec<_>>().join(", ")
}
