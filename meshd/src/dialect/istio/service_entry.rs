//! ServiceEntry.

use mesh_core::resource::service::{Location, Port, ServiceEntry, TargetPort};
use mesh_core::resource::workload::WorkloadEntry;
use mesh_core::vocab::label::Labels;
use mesh_core::vocab::name::Text;
use mesh_core::vocab::protocol::Protocol;

use super::workload;
use crate::dialect::field::{Field, Message, Note, Object, nearest};
use crate::dialect::node::quoted;
use crate::dialect::scalar;

pub(crate) static SPEC: Message = Message {
    name: "spec of a ServiceEntry",
    fields: &[
        "addresses",
        "endpoints",
        "exportTo",
        "hosts",
        "location",
        "ports",
        "resolution",
        "workloadSelector",
    ],
    later: &["subjectAltNames"],
    skipped: &[],
};

static PORT: Message = Message {
    name: "a port",
    fields: &["name", "number", "protocol", "targetPort"],
    later: &[],
    skipped: &[],
};

static SELECTOR: Message =
    Message { name: "a workloadSelector", fields: &["labels"], later: &[], skipped: &[] };

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] = &[
    Note::Holds(&SPEC, "ports[]", &PORT),
    Note::Holds(&SPEC, "workloadSelector", &SELECTOR),
    Note::Holds(&SPEC, "endpoints[]", &workload::ENTRY),
    Note::Later(&SPEC, "exportTo", "other than [\"*\"]"),
    Note::Later(&SPEC, "addresses", "networks"),
];

const PROTOCOLS: [&str; 8] = ["HTTP", "HTTPS", "GRPC", "GRPC-WEB", "HTTP2", "MONGO", "TCP", "TLS"];
const MOST_HOSTS: usize = 256;
const MOST_PORTS: usize = 256;
const MOST_ADDRESSES: usize = 256;
const MOST_ENDPOINTS: usize = 4096;

/// Reads the spec of a ServiceEntry.
pub(crate) fn entry(field: &Field<'_>) -> Option<ServiceEntry> {
    let spec = field.object(&SPEC)?;
    if let Some(field) = spec.get("exportTo") {
        scalar::export_to(&field);
    }
    let is_static = is_static(&spec);
    let hosts = hosts(&spec, is_static);
    let location = match spec.get("location") {
        Some(field) => match field.choice(&["MESH_EXTERNAL", "MESH_INTERNAL"])? {
            "MESH_INTERNAL" => Location::Internal,
            _ => Location::External,
        },
        None => Location::External,
    };
    let ports = ports(&spec);
    let bytes_only = ports.iter().any(|port| port.protocol == Protocol::Tcp);
    if hosts.len() > 1 && bytes_only && is_static {
        let at = spec.get("ports").unwrap_or_else(|| field.clone());
        at.fault("several hosts cannot share a plain TCP port: their traffic could not be told apart");
    }
    if spec.has("endpoints") && spec.has("workloadSelector") {
        field.fault("only one of endpoints and workloadSelector can be set");
    }
    let endpoints = endpoints(&spec, &ports);
    let workload_selector = spec.get("workloadSelector").and_then(|field| {
        let selector = field.object(&SELECTOR)?;
        Some(selector.get("labels").map(|field| scalar::selector(&field)).unwrap_or_default())
    });
    Some(ServiceEntry {
        hosts,
        addresses: addresses(&spec),
        ports,
        location,
        endpoints,
        workload_selector,
        ..ServiceEntry::default()
    })
}

fn is_static(spec: &Object<'_>) -> bool {
    let Some(field) = spec.get("resolution") else {
        if !spec.has("resolution") && !spec.is_misspelt("resolution") {
            spec.field().later("resolution NONE (the default)");
        }
        return false;
    };
    match field.choice(&["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"]) {
        Some("STATIC") => true,
        Some(other) => {
            field.later(format!("resolution {other}"));
            false
        }
        None => false,
    }
}

fn hosts(spec: &Object<'_>, is_static: bool) -> Vec<Text> {
    let Some(field) = spec.require("hosts") else { return Vec::new() };
    let items = field.items();
    if items.is_empty() || items.len() > MOST_HOSTS {
        field.fault(format!("found {} hosts, wanted 1 to {MOST_HOSTS}", items.len()));
        return Vec::new();
    }
    let mut hosts: Vec<Text> = Vec::new();
    for item in &items {
        let Some(host) = scalar::host(item) else { continue };
        if &*host == "*" {
            item.fault("a ServiceEntry cannot have the host '*'");
        } else if host.starts_with('*') && is_static {
            item.fault("a host with a wildcard needs resolution NONE or DYNAMIC_DNS");
        } else if hosts.contains(&host) {
            item.fault(format!("the host {host} is there twice"));
        } else {
            hosts.push(host);
        }
    }
    hosts
}

fn addresses(spec: &Object<'_>) -> Vec<std::net::IpAddr> {
    let Some(field) = spec.get("addresses") else { return Vec::new() };
    let items = field.items();
    if items.len() > MOST_ADDRESSES {
        field.fault(format!("found {} addresses, at most {MOST_ADDRESSES} are allowed", items.len()));
    }
    let mut addresses = Vec::new();
    for item in items {
        let Some(text) = item.some_text() else { continue };
        if text.contains('/') && text.parse::<ipnet::IpNet>().is_ok() {
            item.later("an address that is a network");
        } else {
            addresses.extend(scalar::ip(&item));
        }
    }
    addresses
}

fn ports(spec: &Object<'_>) -> Vec<Port> {
    let Some(field) = spec.get("ports") else { return Vec::new() };
    let items = field.items();
    if items.len() > MOST_PORTS {
        field.fault(format!("found {} ports, at most {MOST_PORTS} are allowed", items.len()));
        return Vec::new();
    }
    let mut seen: Vec<(&str, u16)> = Vec::new();
    let mut ports = Vec::new();
    for item in &items {
        let Some(object) = item.object(&PORT) else { continue };
        let name = object.require("name").and_then(|field| field.some_text());
        let number = object.require("number").and_then(|field| field.port());
        let target = match object.get("targetPort") {
            Some(field) => field.port().map(TargetPort::Number),
            None => Some(TargetPort::Same),
        };
        let protocol = object.get("protocol").map_or(Protocol::Auto, |field| protocol(&field));
        let (Some(name), Some(number), Some(target)) = (name, number, target) else { continue };
        if seen.iter().any(|(other, _)| *other == name) {
            item.fault(format!("the port name {} is there twice", quoted(name)));
        }
        if seen.iter().any(|(_, other)| *other == number) {
            item.fault(format!("the port number {number} is there twice"));
        }
        seen.push((name, number));
        if protocol != Protocol::Udp {
            ports.push(Port { name: name.into(), number, protocol, target });
        }
    }
    ports
}

fn protocol(field: &Field<'_>) -> Protocol {
    let Some(text) = field.text().filter(|text| !text.is_empty()) else { return Protocol::Auto };
    Protocol::from_name(text).unwrap_or_else(|| {
        let hint = nearest(text, &PROTOCOLS).map(|name| format!(" did you mean {name}?")).unwrap_or_default();
        field.warn(format!(
            "unknown protocol {}, so it is found out from the first bytes;{hint} known: {}",
            quoted(text),
            PROTOCOLS.join(", ")
        ));
        Protocol::Auto
    })
}

fn endpoints(spec: &Object<'_>, ports: &[Port]) -> Vec<WorkloadEntry> {
    let Some(field) = spec.get("endpoints") else { return Vec::new() };
    let items = field.items();
    if items.len() > MOST_ENDPOINTS {
        field.fault(format!("found {} endpoints, at most {MOST_ENDPOINTS} are allowed", items.len()));
        return Vec::new();
    }
    let names: Vec<&str> = ports.iter().map(|port| &*port.name).collect();
    let mut endpoints = Vec::new();
    for item in &items {
        let Some(endpoint) = workload::entry(item, &Labels::default(), None) else { continue };
        for name in endpoint.ports.keys().filter(|name| !names.contains(&&***name)) {
            item.fault(format!(
                "the endpoint has a port {}, which is no port of the ServiceEntry: {}",
                quoted(name),
                names.join(", ")
            ));
        }
        endpoints.push(endpoint);
    }
    endpoints
}
