//! Service and ServiceEntry.

use std::net::IpAddr;

use super::reach::ExportTo;
use super::workload::WorkloadEntry;
use crate::vocab::label::Labels;
use crate::vocab::name::Text;
use crate::vocab::protocol::Protocol;
pub use crate::vocab::resolution::Resolution;
use ipnet::IpNet;

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

/// What stands behind a Service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ServiceForm {
    /// An address for all its endpoints.
    #[default]
    Cluster,
    /// `clusterIP: None`: its endpoints are addressed one by one.
    Headless,
    /// `type: ExternalName`: another name for that host.
    ExternalName(Text),
}

/// Which endpoints come first (`trafficDistribution`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TrafficDistribution {
    /// `PreferClose` or `PreferSameZone`.
    SameZone,
    /// `PreferSameNode`.
    SameNode,
}

/// A Kubernetes Service: the WorkloadEntries of its namespace that the selector selects.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Service {
    /// Ports. UDP ports are left out.
    pub ports: Vec<Port>,
    /// Numbers of its UDP ports, which the mesh does not carry.
    pub datagram_ports: Vec<u16>,
    /// Number and `protocol` of every port as written, whether or not the mesh carries it; analysis compares them.
    pub transports: Box<[(u16, Text)]>,
    /// `None` selects nothing.
    pub selector: Option<Labels>,
    /// Declared clusterIPs.
    pub addresses: Vec<IpAddr>,
    /// What stands behind it.
    pub form: ServiceForm,
    /// Annotation `networking.istio.io/exportTo`.
    pub export_to: ExportTo,
    /// `trafficDistribution`.
    pub distribution: Option<TrafficDistribution>,
    /// `publishNotReadyAddresses`: endpoints get traffic whatever their health.
    pub publish_not_ready: bool,
    /// `sessionAffinity: ClientIP`: a client keeps its endpoint.
    pub client_affinity: bool,
    /// `internalTrafficPolicy: Local`: callers reach the endpoints of their own host only.
    pub node_local: bool,
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

/// Names and endpoints that are not a Kubernetes Service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceEntry {
    /// Hosts, lower case.
    pub hosts: Vec<Text>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// Addresses that are networks.
    pub networks: Vec<IpNet>,
    /// Ports.
    pub ports: Vec<Port>,
    /// Inside or outside.
    pub location: Location,
    /// How endpoints are found.
    pub resolution: Resolution,
    /// Endpoints written into it.
    pub endpoints: Vec<WorkloadEntry>,
    /// Or the WorkloadEntries of its namespace that this selects.
    pub workload_selector: Option<Labels>,
    /// Further names that a server's certificate may have.
    pub subject_alt_names: Vec<Text>,
    /// Who sees it.
    pub export_to: ExportTo,
    /// Whether it wants no address of the mesh (label `networking.istio.io/enable-autoallocate-ip: "false"`).
    pub without_auto_address: bool,
}
