//! Endpoints and EndpointSlice: the addresses of a Service without a selector.

use std::net::IpAddr;

use mesh_core::resource::kubernetes::{StaticAddress, StaticEndpoints, StaticSubset};
use mesh_core::vocab::label::Labels;
use mesh_core::vocab::name::Text;

use crate::dialect::field::{Field, Message, Note, Object};
use crate::dialect::scalar;

pub(crate) static ENDPOINTS: Message = Message {
    name: "Endpoints",
    fields: &["apiVersion", "kind", "metadata", "subsets"],
    later: &[],
    skipped: &["status"],
};

static SUBSET: Message = Message {
    name: "a subset",
    fields: &["addresses", "notReadyAddresses", "ports"],
    later: &[],
    skipped: &[],
};

static ADDRESS: Message = Message {
    name: "an address",
    fields: &["ip", "nodeName"],
    later: &[],
    skipped: &["hostname", "targetRef"],
};

pub(crate) static SLICE: Message = Message {
    name: "an EndpointSlice",
    fields: &["addressType", "apiVersion", "endpoints", "kind", "metadata", "ports"],
    later: &[],
    skipped: &["status"],
};

static ENDPOINT: Message = Message {
    name: "an endpoint",
    fields: &["addresses", "conditions", "nodeName", "zone"],
    later: &[],
    skipped: &["deprecatedTopology", "hints", "hostname", "targetRef"],
};

static CONDITIONS: Message =
    Message { name: "conditions", fields: &["ready"], later: &[], skipped: &["serving", "terminating"] };

static PORT: Message =
    Message { name: "a port", fields: &["name", "port", "protocol"], later: &[], skipped: &["appProtocol"] };

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] = &[
    Note::Holds(&ENDPOINTS, "subsets[]", &SUBSET),
    Note::Holds(&SUBSET, "addresses[]", &ADDRESS),
    Note::Holds(&SUBSET, "notReadyAddresses[]", &ADDRESS),
    Note::Holds(&SUBSET, "ports[]", &PORT),
    Note::Holds(&SLICE, "endpoints[]", &ENDPOINT),
    Note::Holds(&SLICE, "ports[]", &PORT),
    Note::Holds(&ENDPOINT, "conditions", &CONDITIONS),
];

/// The label of an EndpointSlice that names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Reads Endpoints, which are named like their Service.
pub(crate) fn endpoints(object: &Object<'_>, name: &Text) -> StaticEndpoints {
    let subsets = object.items("subsets").iter().filter_map(subset).collect();
    StaticEndpoints { service: name.clone(), subsets }
}

fn subset(field: &Field<'_>) -> Option<StaticSubset> {
    let subset = field.object(&SUBSET)?;
    let list = |key, ready| {
        let items: Vec<Field<'_>> = subset.items(key);
        let read = items.iter().filter_map(|item| {
            let address = item.object(&ADDRESS)?;
            let ip = scalar::ip(&address.require("ip")?)?;
            Some(StaticAddress { ip, ready, zone: None, node: address.text("nodeName").map(Text::from) })
        });
        read.collect::<Vec<_>>()
    };
    let mut addresses = list("addresses", true);
    addresses.extend(list("notReadyAddresses", false));
    Some(StaticSubset { addresses, ports: ports(&subset) })
}

/// Reads an EndpointSlice, which a label joins to its Service.
pub(crate) fn slice(object: &Object<'_>, labels: &Labels) -> StaticEndpoints {
    let service = labels.value(SERVICE_NAME).unwrap_or("");
    if service.is_empty() {
        object.field().warn(format!("belongs to no Service: the label {SERVICE_NAME} is missing"));
    }
    let family = object.require("addressType").and_then(|field| {
        let kind = field.choice(&["IPv4", "IPv6", "FQDN"])?;
        if kind == "FQDN" {
            field.warn("names are passed over; use a ServiceEntry with resolution DNS");
        }
        Some(kind)
    });
    let mut addresses = Vec::new();
    for item in object.items("endpoints") {
        let Some(endpoint) = item.object(&ENDPOINT) else { continue };
        let conditions = endpoint.get("conditions").and_then(|field| field.object(&CONDITIONS));
        let ready = conditions.and_then(|conditions| conditions.get("ready"));
        // Not known counts as ready.
        let ready = ready.and_then(|field| field.boolean()).unwrap_or(true);
        let text = |key| endpoint.text(key).map(Text::from);
        let (zone, node) = (text("zone"), text("nodeName"));
        let ips: Vec<IpAddr> = match family {
            Some("FQDN") | None => Vec::new(),
            Some(family) => {
                endpoint.items("addresses").iter().filter_map(|item| address_of(item, family)).collect()
            }
        };
        let address = |ip| StaticAddress { ip, ready, zone: zone.clone(), node: node.clone() };
        addresses.extend(ips.into_iter().map(address));
    }
    let subset = StaticSubset { addresses, ports: ports(object) };
    StaticEndpoints { service: service.into(), subsets: vec![subset] }
}

/// An address of the family that a slice is of.
fn address_of(field: &Field<'_>, family: &str) -> Option<IpAddr> {
    let address = scalar::ip(field)?;
    let found = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    if found != family {
        field.fault(format!("found an address of {found} in a slice of the addressType {family}"));
        return None;
    }
    Some(address)
}

/// Reads `ports`; the mesh carries no datagrams.
fn ports(object: &Object<'_>) -> Vec<(Text, u16)> {
    let read = |field: &Field<'_>| {
        let port = field.object(&PORT)?;
        let protocol =
            port.get("protocol").map_or(Some("TCP"), |field| field.choice(&["TCP", "UDP", "SCTP"]));
        let number = port.require("port")?.port()?;
        (protocol? == "TCP").then(|| (Text::from(port.text("name").unwrap_or("")), number))
    };
    object.items("ports").iter().filter_map(read).collect()
}
