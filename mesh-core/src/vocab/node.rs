//! A host of the mesh.

use std::net::IpAddr;

use super::name::{NameError, Text, check_subdomain};

/// What a proxy is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Role {
    /// Carries the traffic of the workloads on its host.
    #[default]
    Host,
}

/// A host that has joined, or wants to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Node {
    /// Unique name of the host.
    pub name: Text,
    /// Where peers reach it.
    pub address: IpAddr,
    /// What its proxy is there for.
    pub role: Role,
}

/// Checks the name of a node: an RFC 1123 subdomain, as it becomes a segment of its SPIFFE ID.
pub fn check_node_name(name: &str) -> Result<(), NameError> {
    check_subdomain(name)
}
