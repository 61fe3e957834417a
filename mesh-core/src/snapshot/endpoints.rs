//! Endpoint slices, cut by a stable hash.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::vocab::health::Health;
use crate::vocab::identity::SpiffeId;
use crate::vocab::label::Labels;
use crate::vocab::locality::Locality;
use crate::vocab::name::{Text, WorkloadKey};

/// About so many endpoints make a slice.
pub const SLICE_SIZE: usize = 100;

/// Where an endpoint is. Nearly all are IP addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndpointAddress {
    /// An IP address.
    Ip(IpAddr),
    /// A name that is resolved.
    Name(Text),
    /// A socket of the caller's host: a path, or `@NAME`.
    Unix(Text),
}

impl EndpointAddress {
    /// The IP address, if it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            EndpointAddress::Ip(address) => Some(*address),
            EndpointAddress::Name(_) | EndpointAddress::Unix(_) => None,
        }
    }
}

impl fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EndpointAddress::Ip(address) => address.fmt(f),
            EndpointAddress::Name(name) => f.write_str(name),
            EndpointAddress::Unix(path) => write!(f, "unix://{path}"),
        }
    }
}

/// A workload as an endpoint of a host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The workload; for an endpoint written into a ServiceEntry its host and index.
    pub workload: WorkloadKey,
    /// Its address.
    pub address: EndpointAddress,
    /// The joined host it runs on.
    pub node: Option<Text>,
    /// Port of the service and port of the workload, by the former.
    pub ports: Vec<(u16, u16)>,
    /// Labels.
    pub labels: Labels,
    /// Who answers there; `None` where it is not known.
    pub identity: Option<SpiffeId>,
    /// Where the mesh hop to it ends; `None` where no proxy stands before it.
    pub tunnel: Option<SocketAddr>,
    /// Whether its PeerAuthentication refuses mutual TLS on these ports of the workload.
    pub plaintext_ports: Vec<u16>,
    /// Region, zone, subzone.
    pub locality: Locality,
    /// Network that it is in.
    pub network: Option<Text>,
    /// Relative share, at least 1.
    pub weight: u32,
    /// Whether it may get traffic.
    pub health: Health,
}

/// Some of the endpoints of a host: those whose workload's hash falls into this slice.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EndpointSlice {
    /// Host of the service.
    pub host: Text,
    /// The view whose callers find this service and not another of that host; `None` for all others.
    pub scope: Option<Text>,
    /// Index.
    pub slice: u32,
    /// Endpoints, by workload.
    pub endpoints: Vec<Endpoint>,
}

/// How many slices so many endpoints are cut into: a power of two, so that growth splits slices and moves nothing else.
pub fn slice_count(endpoints: usize) -> u32 {
    let slices = endpoints.div_ceil(SLICE_SIZE).next_power_of_two();
    u32::try_from(slices).unwrap_or(1 << 31)
}

/// The slice of a workload: FNV-1a of its key, stable over versions and machines.
pub fn slice_of(workload: &WorkloadKey, slices: u32) -> u32 {
    let bytes = workload.namespace.bytes().chain([b'/']).chain(workload.name.bytes());
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    ((hash ^ (hash >> 32)) & u64::from(slices - 1)) as u32
}
