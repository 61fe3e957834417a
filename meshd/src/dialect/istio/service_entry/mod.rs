//! ServiceEntry.

mod resolution;

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;
use mesh_core::resource::Metadata;
use mesh_core::resource::service::{Location, Port, Resolution, ServiceEntry, TargetPort};
use mesh_core::resource::workload::{Address, WorkloadEntry};
use mesh_core::vocab::name::Text;
use mesh_core::vocab::protocol::Protocol;

use super::port;
use super::selector::{BY_LABELS, by_labels};
use super::workload::{self, Addressing};
use crate::dialect::export::export_to;
use crate::dialect::field::{Field, Message, Note, Object};
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
        "subjectAltNames",
        "workloadSelector",
    ],
    later: &[],
    skipped: &[],
};

static PORT: Message = Message {
    name: "a port",
    fields: &["name", "number", "protocol", "targetPort"],
    later: &[],
    skipped: &[],
};

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] = &[
    Note::Holds(&SPEC, "ports[]", &PORT),
    Note::Holds(&SPEC, "workloadSelector", &BY_LABELS),
    Note::Holds(&SPEC, "endpoints[]", &workload::ENTRY),
];

const MOST_HOSTS: usize = 256;
const MOST_PORTS: usize = 256;
const MOST_ADDRESSES: usize = 256;
const LONGEST_ADDRESS: usize = 64;
const MOST_ENDPOINTS: usize = 4096;
/// The label by which a ServiceEntry wants no address of the mesh.
const AUTO_ADDRESS: &str = "networking.istio.io/enable-autoallocate-ip";

/// The label by which the traffic of a ServiceEntry goes through a waypoint.
const WAYPOINT: &str = "istio.io/use-waypoint";

/// Reads the spec of a ServiceEntry.
pub(crate) fn entry(field: &Field<'_>, meta: &Metadata) -> Option<ServiceEntry> {
    let spec = field.object(&SPEC)?;
    let export = spec.get("exportTo").map(|field| export_to(&field, &meta.key.namespace, true));
    let resolution = resolution::read(&spec);
    let hosts = hosts(&spec, resolution);
    let location = match spec.get("location") {
        Some(field) => match field.choice(&["MESH_EXTERNAL", "MESH_INTERNAL"])? {
            "MESH_INTERNAL" => Location::Internal,
            _ => Location::External,
        },
        None => Location::External,
    };
    let ports = ports(&spec);
    let (addresses, networks) = addresses(&spec);
    if spec.has("endpoints") && spec.has("workloadSelector") {
        field.fault("only one of endpoints and workloadSelector can be set");
    }
    let endpoints = endpoints(&spec, &ports, resolution);
    let workload_selector = spec.get("workloadSelector").and_then(|field| by_labels(&field));
    let without_auto_address =
        meta.labels.value(AUTO_ADDRESS).is_some_and(|value| value.eq_ignore_ascii_case("false"));
    // What fits a resolution is not known without one.
    let resolution = resolution?;
    resolution::check(&spec, resolution, &hosts, &ports);
    if resolution == Resolution::DynamicDns
        && location == Location::Internal
        && let Some(waypoint) = meta.labels.value(WAYPOINT)
        && !(waypoint.is_empty() || waypoint.eq_ignore_ascii_case("none"))
        && let Some(field) = spec.get("location")
    {
        field.fault(format!(
            "MESH_INTERNAL with resolution DYNAMIC_DNS does not go through a waypoint, which the label {WAYPOINT} asks for"
        ));
    }
    let auto_address = resolution != Resolution::None && !without_auto_address;
    if spec.get("addresses").is_none_or(|field| field.is_blank()) && !auto_address {
        warn_of_no_address(&ports);
    }
    let read: Vec<Port> = ports.into_iter().map(|(_, port)| port).collect();
    Some(ServiceEntry {
        hosts: hosts.into_iter().map(|(_, host)| host).collect(),
        addresses,
        networks,
        ports: read.into_iter().filter(|port| port.protocol != Protocol::Udp).collect(),
        location,
        resolution,
        endpoints,
        workload_selector,
        subject_alt_names: spec
            .items("subjectAltNames")
            .iter()
            .filter_map(|item| item.text().map(Text::from))
            .collect(),
        export_to: export.unwrap_or_default(),
        without_auto_address,
    })
}

/// The hosts with their places.
fn hosts<'a>(spec: &Object<'a>, resolution: Option<Resolution>) -> Vec<(Field<'a>, Text)> {
    let Some(field) = spec.require("hosts") else { return Vec::new() };
    let items = field.items();
    if items.is_empty() || items.len() > MOST_HOSTS {
        field.fault(format!("found {} hosts, wanted 1 to {MOST_HOSTS}", items.len()));
        return Vec::new();
    }
    let mut hosts: Vec<(Field<'a>, Text)> = Vec::new();
    for item in items {
        let Some(host) = scalar::host(&item) else { continue };
        if &*host == "*" {
            item.fault("a ServiceEntry cannot have the host '*'");
            continue;
        }
        let is_partial = host.starts_with('*') && !host.starts_with("*.");
        if is_partial && resolution != Some(Resolution::DynamicDns) {
            item.warn(format!(
                "{} is a partial wildcard, which TLS cannot match: write *.NAME",
                quoted(&host)
            ));
        }
        if hosts.iter().any(|(_, other)| *other == host) {
            item.warn(format!("the host {host} is there twice"));
            continue;
        }
        hosts.push((item, host));
    }
    hosts
}

fn addresses(spec: &Object<'_>) -> (Vec<IpAddr>, Vec<IpNet>) {
    let (mut addresses, mut networks) = (Vec::new(), Vec::new());
    let Some(field) = spec.get("addresses") else { return (addresses, networks) };
    let items = field.items();
    if items.len() > MOST_ADDRESSES {
        field.fault(format!("found {} addresses, at most {MOST_ADDRESSES} are allowed", items.len()));
    }
    for item in items {
        let Some(text) = item.some_text() else { continue };
        match scalar::parse_network(text) {
            _ if text.len() > LONGEST_ADDRESS => {
                item.fault(format!("found {} characters, at most {LONGEST_ADDRESS} are allowed", text.len()));
            }
            Some(network) => {
                networks.push(network.trunc());
            }
            None if text.contains('/') => {
                item.fault(format!("{} is no network such as 10.0.0.0/8", quoted(text)));
            }
            None => addresses.extend(scalar::ip(&item)),
        }
    }
    (addresses, networks)
}

/// The ports with their places, also those that the mesh does not carry.
fn ports<'a>(spec: &Object<'a>) -> Vec<(Field<'a>, Port)> {
    let Some(field) = spec.get("ports") else { return Vec::new() };
    let items = field.items();
    if items.len() > MOST_PORTS {
        field.fault(format!("found {} ports, at most {MOST_PORTS} are allowed", items.len()));
        return Vec::new();
    }
    let mut names: HashSet<Text> = HashSet::new();
    let mut numbers: HashSet<u16> = HashSet::new();
    let mut ports = Vec::new();
    for item in items {
        let Some(object) = item.object(&PORT) else { continue };
        let name = object.require("name").and_then(|field| port::name(&field));
        let number = object.require("number").and_then(|field| field.port());
        let target = match object.get("targetPort") {
            Some(field) => field.port().map(TargetPort::Number),
            None => Some(TargetPort::Same),
        };
        let protocol = object.get("protocol").map_or(Some(Protocol::Auto), |field| port::protocol(&field));
        if let Some(name) = name.as_ref().filter(|name| !names.insert((*name).clone())) {
            item.fault(format!("the port name {} is there twice", quoted(name)));
        }
        if let Some(number) = number.filter(|number| !numbers.insert(*number)) {
            item.fault(format!("the port number {number} is there twice"));
        }
        let (Some(name), Some(number), Some(target), Some(protocol)) = (name, number, target, protocol)
        else {
            continue;
        };
        ports.push((item, Port { name, number, protocol, target }));
    }
    ports
}

fn endpoints(
    spec: &Object<'_>,
    ports: &[(Field<'_>, Port)],
    resolution: Option<Resolution>,
) -> Vec<WorkloadEntry> {
    let Some(field) = spec.get("endpoints") else { return Vec::new() };
    let items = field.items();
    if items.len() > MOST_ENDPOINTS {
        field.fault(format!("found {} endpoints, at most {MOST_ENDPOINTS} are allowed", items.len()));
        return Vec::new();
    }
    let addressing = match resolution {
        Some(Resolution::DynamicDns) if items.is_empty() => return Vec::new(),
        Some(Resolution::None | Resolution::DynamicDns) => {
            let word = resolution.map_or("", Resolution::name);
            field.fault(format!("resolution {word} takes no endpoints: it goes by what callers ask for"));
            return Vec::new();
        }
        Some(Resolution::Static) => Addressing::Static,
        Some(Resolution::Dns | Resolution::DnsRoundRobin) => Addressing::Resolved,
        None => Addressing::Any,
    };
    if resolution == Some(Resolution::DnsRoundRobin) && items.len() > 1 {
        field.fault(format!("found {} endpoints, with DNS_ROUND_ROBIN there can be one", items.len()));
    }
    // A port that could not be read is not held against the endpoints.
    let all_read = spec.get("ports").is_none_or(|field| field.elements().len() == ports.len());
    let names: Vec<&str> = ports.iter().map(|(_, port)| &*port.name).collect();
    let mut endpoints = Vec::new();
    for item in &items {
        let Some(endpoint) = workload::endpoint(item, addressing) else { continue };
        for name in endpoint.ports.keys().filter(|name| all_read && !names.contains(&&***name)) {
            item.fault(format!(
                "the endpoint has a port {}, which is no port of the ServiceEntry: {}",
                quoted(name),
                names.join(", ")
            ));
        }
        if matches!(endpoint.address, Address::Unix(_)) && all_read && names.len() != 1 {
            item.fault(format!(
                "a Unix socket stands for one port, so the ServiceEntry must have exactly one, found {}",
                names.len()
            ));
        }
        endpoints.push(endpoint);
    }
    endpoints
}

fn warn_of_no_address(ports: &[(Field<'_>, Port)]) {
    for (field, port) in ports {
        if matches!(port.protocol, Protocol::Auto | Protocol::Tcp) {
            field.warn(format!(
                "without addresses the port {} takes the traffic of every address",
                port.number
            ));
        }
    }
}
