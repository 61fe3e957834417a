//! A service: names, ports and address.

use std::net::IpAddr;

use crate::vocab::name::Text;
use crate::vocab::origin::Origin;
use crate::vocab::protocol::Protocol;

/// A declared name with ports.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Service {
    /// Fully qualified host name, lower case.
    pub host: Text,
    /// Namespace it was declared in.
    pub namespace: Text,
    /// The Service or ServiceEntry.
    pub origin: Origin,
    /// Other names that mean it for every caller, lower case (`reviews.default`, `reviews.default.svc`, `reviews.default.mesh`).
    pub names: Vec<Text>,
    /// The bare name, which means it for callers of its own namespace; `None` for a ServiceEntry.
    pub short_name: Option<Text>,
    /// Ports, by number.
    pub ports: Vec<Port>,
    /// Addresses that were declared for it (clusterIP, ServiceEntry `addresses`).
    pub addresses: Vec<IpAddr>,
    /// Offset of its address in each host's loopback net, assigned once and for all; `None` for wildcard hosts.
    pub offset: Option<u32>,
    /// Outside the mesh (ServiceEntry `MESH_EXTERNAL`).
    pub external: bool,
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
