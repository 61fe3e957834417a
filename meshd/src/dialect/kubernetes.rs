//! Kubernetes' own kinds: Service. (ServiceAccount and Namespace have nothing that means something here.)

use std::collections::HashSet;
use std::net::IpAddr;

use mesh_core::resource::service::{Port, Service, TargetPort};
use mesh_core::vocab::name::{Text, check_label};
use mesh_core::vocab::protocol::Protocol;

use super::field::{Field, Message, Note};
use super::node::Value;
use super::scalar;

pub(crate) static SPEC: Message = Message {
    name: "spec of a Service",
    fields: &[
        "clusterIP",
        "clusterIPs",
        "internalTrafficPolicy",
        "ports",
        "publishNotReadyAddresses",
        "selector",
        "sessionAffinity",
        "type",
    ],
    later: &["externalName", "trafficDistribution"],
    skipped: &[
        "allocateLoadBalancerNodePorts",
        "externalIPs",
        "externalTrafficPolicy",
        "healthCheckNodePort",
        "ipFamilies",
        "ipFamilyPolicy",
        "loadBalancerClass",
        "loadBalancerIP",
        "loadBalancerSourceRanges",
        "sessionAffinityConfig",
    ],
};

static PORT: Message = Message {
    name: "a port",
    fields: &["appProtocol", "name", "port", "protocol", "targetPort"],
    later: &[],
    skipped: &["nodePort"],
};

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] = &[
    Note::Holds(&SPEC, "ports[]", &PORT),
    Note::Later(&SPEC, "type", "ExternalName"),
    Note::Later(&SPEC, "sessionAffinity", "ClientIP"),
    Note::Later(&SPEC, "internalTrafficPolicy", "Local"),
    Note::Later(&SPEC, "publishNotReadyAddresses", "true"),
    Note::Later(&SPEC, "clusterIP", "None"),
    Note::Later(&PORT, "protocol", "SCTP"),
];

/// Reads the spec of a Service.
pub(crate) fn service(field: &Field<'_>) -> Option<Service> {
    let spec = field.object(&SPEC)?;
    if let Some(field) = spec.get("type")
        && field.choice(&["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]) == Some("ExternalName")
    {
        field.later("type ExternalName");
    }
    if let Some(field) = spec.get("sessionAffinity")
        && field.choice(&["None", "ClientIP"]) == Some("ClientIP")
    {
        field.later("sessionAffinity: ClientIP");
    }
    if let Some(field) = spec.get("internalTrafficPolicy")
        && field.choice(&["Cluster", "Local"]) == Some("Local")
    {
        field.later("internalTrafficPolicy: Local");
    }
    if let Some(field) = spec.get("publishNotReadyAddresses")
        && field.boolean() == Some(true)
    {
        field.later("publishNotReadyAddresses: true");
    }
    let mut addresses: Vec<IpAddr> = Vec::new();
    let single = spec.get("clusterIP").into_iter();
    for field in single.chain(spec.items("clusterIPs")) {
        match field.text() {
            Some("") | None => {}
            Some("None") => field.later("clusterIP: None (a headless Service)"),
            Some(_) => addresses.extend(scalar::ip(&field)),
        }
    }
    let mut seen = HashSet::new();
    addresses.retain(|address| seen.insert(*address));
    let external = spec.get("type").is_some_and(|field| field.value() == &Value::Text("ExternalName".into()));
    let ports = match spec.get("ports") {
        Some(field) => ports(&field),
        None if external => Vec::new(),
        None => {
            spec.missing("ports", "the field ports is missing");
            Vec::new()
        }
    };
    // An empty selector selects nothing (Kubernetes: the endpoints are somebody else's).
    let selector =
        spec.get("selector").map(|field| scalar::labels(&field)).filter(|selector| !selector.is_empty());
    Some(Service { ports, selector, addresses, ..Service::default() })
}

fn ports(field: &Field<'_>) -> Vec<Port> {
    let items = field.items();
    if items.is_empty() {
        field.fault("a Service needs at least one port");
    }
    let alone = items.len() == 1;
    let mut names: HashSet<&str> = HashSet::new();
    let mut numbers: HashSet<(u16, &str)> = HashSet::new();
    let mut ports = Vec::new();
    for item in &items {
        let Some(object) = item.object(&PORT) else { continue };
        let name = match object.get("name") {
            Some(field) => {
                let name = field.text().unwrap_or("");
                if !name.is_empty() && check_label(&name.to_ascii_lowercase()).is_err() {
                    field.fault(format!(
                        "{name:?} is no port name: wanted at most 63 letters, digits and '-'"
                    ));
                }
                name
            }
            None => "",
        };
        if name.is_empty() && !alone {
            item.fault("the field name is missing; it may only be left out where there is one port");
        } else if !name.is_empty() && !names.insert(name) {
            item.fault(format!("the port name {name:?} is there twice"));
        }
        let number = object.require("port").and_then(|field| field.port());
        let transport = match object.get("protocol") {
            Some(field) => {
                let word = field.choice(&["TCP", "UDP", "SCTP"]);
                if word == Some("SCTP") {
                    field.later("protocol SCTP");
                }
                word.unwrap_or("TCP")
            }
            None => "TCP",
        };
        let target = object.get("targetPort").map_or(Some(TargetPort::Same), |field| target(&field));
        let app_protocol = object.text("appProtocol");
        let (Some(number), Some(target)) = (number, target) else { continue };
        if !numbers.insert((number, transport)) {
            item.fault(format!("port {number}/{transport} is there twice"));
        }
        let protocol = Protocol::select(app_protocol, name, number);
        // The mesh carries no datagrams; Istio leaves such ports out as well.
        if transport == "TCP" && protocol != Protocol::Udp {
            ports.push(Port { name: Text::from(name), number, protocol, target });
        }
    }
    ports
}

fn target(field: &Field<'_>) -> Option<TargetPort> {
    match field.value() {
        Value::Text(name) => match check_label(name) {
            Ok(()) => Some(TargetPort::Name((&**name).into())),
            Err(error) => {
                field.fault(format!("found {name:?}, wanted a port number or the name of a port: {error}"));
                None
            }
        },
        Value::Number(_) => field.port().map(TargetPort::Number),
        found => {
            field.fault(format!("found {found}, wanted a port number or the name of a port"));
            None
        }
    }
}
