//! Service.

use std::collections::HashSet;
use std::net::IpAddr;

use mesh_core::resource::reach::{Export, ExportTo};
use mesh_core::resource::service::{Port, Service, ServiceForm, TargetPort, TrafficDistribution};
use mesh_core::vocab::name::{Text, check_label};
use mesh_core::vocab::protocol::Protocol;

use crate::dialect::field::{Field, Message, Note, Object};
use crate::dialect::node::{Value, quoted};
use crate::dialect::scalar;

pub(crate) static SPEC: Message = Message {
    name: "spec of a Service",
    fields: &[
        "clusterIP",
        "clusterIPs",
        "externalName",
        "internalTrafficPolicy",
        "ports",
        "publishNotReadyAddresses",
        "selector",
        "sessionAffinity",
        "trafficDistribution",
        "type",
    ],
    later: &[],
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
pub(crate) static NOTES: &[Note] =
    &[Note::Holds(&SPEC, "ports[]", &PORT), Note::Later(&PORT, "protocol", "SCTP")];

/// Reads the spec of a Service. `exported` is its annotation `networking.istio.io/exportTo`.
pub(crate) fn service(field: &Field<'_>, exported: Option<&Field<'_>>) -> Option<Service> {
    let spec = field.object(&SPEC)?;
    let kind = spec
        .get("type")
        .and_then(|field| field.choice(&["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]));
    let says = |key: &'static str, words: &[&'static str], wanted: &str| {
        spec.get(key).and_then(|field| field.choice(words)) == Some(wanted)
    };
    let client_affinity = says("sessionAffinity", &["None", "ClientIP"], "ClientIP");
    let node_local = says("internalTrafficPolicy", &["Cluster", "Local"], "Local");
    let publish_not_ready =
        spec.get("publishNotReadyAddresses").is_some_and(|field| field.boolean() == Some(true));
    let (addresses, headless) = addresses(&spec);
    let form = match kind {
        Some("ExternalName") => ServiceForm::ExternalName(external_name(&spec)?),
        _ if headless => ServiceForm::Headless,
        _ => ServiceForm::Cluster,
    };
    let Ports { carried, datagrams, transports } = match spec.get("ports") {
        Some(field) => ports(&field, form == ServiceForm::Cluster),
        None => {
            if form == ServiceForm::Cluster {
                spec.missing("ports", "the field ports is missing");
            }
            Ports::default()
        }
    };
    let distribution = spec.get("trafficDistribution").and_then(|field| {
        match field.choice(&["PreferClose", "PreferSameZone", "PreferSameNode"])? {
            "PreferSameNode" => Some(TrafficDistribution::SameNode),
            _ => Some(TrafficDistribution::SameZone),
        }
    });
    // An empty selector selects nothing (Kubernetes: the endpoints are somebody else's).
    let selector = spec
        .get("selector")
        .map(|field| scalar::kubernetes_labels(&field))
        .filter(|selector| !selector.is_empty());
    Some(Service {
        ports: carried,
        datagram_ports: datagrams,
        transports: transports.into(),
        selector,
        addresses,
        form,
        export_to: exported.map(exports).unwrap_or_default(),
        distribution,
        publish_not_ready,
        client_affinity,
        node_local,
    })
}

/// The declared addresses, and whether it says that there is none.
fn addresses(spec: &Object<'_>) -> (Vec<IpAddr>, bool) {
    let mut addresses: Vec<IpAddr> = Vec::new();
    let mut headless = false;
    let single = spec.get("clusterIP").into_iter();
    for field in single.chain(spec.items("clusterIPs")) {
        match field.text() {
            Some("") | None => {}
            Some("None") => headless = true,
            Some(_) => addresses.extend(scalar::ip(&field)),
        }
    }
    let mut seen = HashSet::new();
    addresses.retain(|address| seen.insert(*address));
    (addresses, headless)
}

fn external_name(spec: &Object<'_>) -> Option<Text> {
    let field = spec.require("externalName")?;
    let text = field.some_text()?;
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if !name.split('.').all(scalar::is_label) || name.len() > 253 {
        field.fault(format!("{} is no host: wanted a DNS name", quoted(text)));
        return None;
    }
    Some(name.into())
}

/// Reads the annotation `networking.istio.io/exportTo`, whose entries commas separate.
fn exports(field: &Field<'_>) -> ExportTo {
    let Some(text) = field.text() else { return ExportTo::default() };
    let entry = |text: &str| match text {
        "*" => Export::All,
        "." => Export::Own,
        "~" => Export::Nobody,
        namespace => {
            if check_label(namespace).is_err() {
                field.warn(format!("{} is no name of a namespace: no caller is in it", quoted(namespace)));
            }
            Export::Namespace(namespace.into())
        }
    };
    ExportTo { entries: text.split(',').map(str::trim).filter(|text| !text.is_empty()).map(entry).collect() }
}

/// The ports of a Service.
#[derive(Default)]
struct Ports {
    carried: Vec<Port>,
    datagrams: Vec<u16>,
    transports: Vec<(u16, Text)>,
}

fn ports(field: &Field<'_>, needed: bool) -> Ports {
    let items = field.items();
    if needed && field.is_empty_list() {
        field.fault("a Service needs at least one port");
    }
    let alone = items.len() == 1;
    let mut names: HashSet<&str> = HashSet::new();
    let mut numbers: HashSet<(u16, &str)> = HashSet::new();
    let mut ports = Ports::default();
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
        let written = match object.get("protocol").as_ref().map(|field| field.value()) {
            Some(Value::Text(text)) if !text.is_empty() => Text::from(&**text),
            _ => Text::from("TCP"),
        };
        let target = object.get("targetPort").map_or(Some(TargetPort::Same), |field| target(&field));
        let app_protocol = object.text("appProtocol");
        let (Some(number), Some(target)) = (number, target) else { continue };
        if !numbers.insert((number, transport)) {
            item.fault(format!("port {number}/{transport} is there twice"));
        }
        ports.transports.push((number, written));
        let protocol = spoken(app_protocol, name, number);
        // The mesh carries no datagrams; Istio leaves such ports out as well.
        if transport == "TCP" && protocol != Protocol::Udp {
            ports.carried.push(Port { name: Text::from(name), number, protocol, target });
        } else if transport == "UDP" {
            ports.datagrams.push(number);
        }
    }
    ports
}

/// What a port speaks. An `appProtocol` stands in for the name, even one that says nothing.
fn spoken(app_protocol: Option<&str>, name: &str, number: u16) -> Protocol {
    match app_protocol {
        Some(known) if known.starts_with("kubernetes.io/") => Protocol::select(Some(known), "", number),
        Some(other) => Protocol::select(None, other, number),
        None => Protocol::select(None, name, number),
    }
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
