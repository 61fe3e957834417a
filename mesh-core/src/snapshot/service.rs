//! A service: names, ports and address.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::vocab::name::Text;
use crate::vocab::origin::Origin;
use crate::vocab::protocol::Protocol;
use crate::vocab::resolution::Resolution;

/// A declared name with ports.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Service {
    /// Fully qualified host name, lower case.
    pub host: Text,
    /// The view whose callers find this one and not another of that host; `None` for all others.
    pub scope: Option<Text>,
    /// Namespaces whose callers see it, sorted; `None` for all.
    pub exported_to: Option<Vec<Text>>,
    /// Namespace it was declared in.
    pub namespace: Text,
    /// The Service or ServiceEntry.
    pub origin: Origin,
    /// Other names that mean it for every caller, lower case (`reviews.default`, `reviews.default.svc`, `reviews.default.mesh`).
    pub names: Vec<Text>,
    /// The bare name, which means it for callers of its own namespace; `None` for a ServiceEntry.
    pub short_name: Option<Text>,
    /// Bare names of Services that are another name for it (ExternalName), by the namespace whose callers mean it.
    pub aliases: Vec<(Text, Text)>,
    /// The host outside the mesh that it is another name for, where it is nothing else (ExternalName).
    pub stands_for: Option<Text>,
    /// Ports, by number.
    pub ports: Vec<Port>,
    /// Addresses that were declared for it (clusterIP, ServiceEntry `addresses`).
    pub addresses: Vec<IpAddr>,
    /// Networks that were declared for it.
    pub networks: Vec<IpNet>,
    /// The address that the mesh gives it where it has none of its own (240.240.0.0/16).
    pub auto_address: Option<IpAddr>,
    /// How its endpoints are found.
    pub resolution: Resolution,
    /// Whether its endpoints are addressed one by one (`clusterIP: None`).
    pub headless: bool,
    /// Offset of its address in each host's loopback net, assigned once and for all; `None` for wildcard hosts.
    pub offset: Option<u32>,
    /// Outside the mesh (ServiceEntry `MESH_EXTERNAL`).
    pub external: bool,
}

impl Service {
    /// Whether callers of a namespace may see it; an unknown one has an empty name.
    pub fn is_exported_to(&self, namespace: &str) -> bool {
        self.exported_to.as_ref().is_none_or(|list| list.iter().any(|to| **to == *namespace))
    }
}

/// One port of a service.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Port {
    /// Number.
    pub number: u16,
    /// Name; may be empty.
    pub name: Text,
    /// What it speaks.
    pub protocol: Protocol,
}
