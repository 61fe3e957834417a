//! Service and ServiceEntry.

use std::net::IpAddr;

use super::workload::WorkloadEntry;
use crate::vocab::label::Labels;
use crate::vocab::name::Text;
use crate::vocab::protocol::Protocol;

/// Which port of a workload a service port leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetPort {
    /// `WorkloadEntry.ports` by the service port's name, else the same number.
    Same,
    /// This number.
    Number(u16),
    /// `WorkloadEntry.ports` by this name, else the same number.
    Name(Text),
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Name; empty if there is one port without a name.
    pub name: Text,
    /// Number.
    pub number: u16,
    /// What it speaks.
    pub protocol: Protocol,
    /// Where it leads.
    pub target: TargetPort,
}

/// A Kubernetes Service: the WorkloadEntries of its namespace that the selector selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Ports. UDP ports are left out.
    pub ports: Vec<Port>,
    /// `None` selects nothing.
    pub selector: Option<Labels>,
    /// Declared clusterIPs.
    pub addresses: Vec<IpAddr>,
}

/// Whether a ServiceEntry's hosts are part of the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Location {
    /// Outside: never mutual TLS. The default.
    #[default]
    External,
    /// Inside.
    Internal,
}

/// Names and endpoints that are not a Kubernetes Service. Resolution is STATIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceEntry {
    /// Hosts, lower case.
    pub hosts: Vec<Text>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// Ports.
    pub ports: Vec<Port>,
    /// Inside or outside.
    pub location: Location,
    /// Endpoints written into it.
    pub endpoints: Vec<WorkloadEntry>,
    /// Or the WorkloadEntries of its namespace that this selects.
    pub workload_selector: Option<Labels>,
}
