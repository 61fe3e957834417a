//! A unit of compiled configuration, by kind and key.

use std::fmt;

use super::destination::Destination;
use super::endpoints::EndpointSlice;
use super::routes::Routes;
use super::security::TrustBundle;
use super::service::Service;
use super::workload::Workload;
use crate::policy::authorization::AuthorizationPolicy;
use crate::vocab::name::{DestinationKey, ServicePort, Text, WorkloadKey};

/// Names a section.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SectionKey {
    /// The trust domain and its roots.
    Trust,
    /// A service: its names, ports and address.
    Service(Text),
    /// The rules of a host and port.
    Routes(ServicePort),
    /// The policy of a service port or subset.
    Destination(DestinationKey),
    /// One slice of the endpoints of a host.
    Endpoints {
        /// The service's host.
        host: Text,
        /// Index of the slice.
        slice: u32,
    },
    /// An authorization policy: namespace and name.
    Authorization(Text, Text),
    /// A workload that the node hosts.
    Workload(WorkloadKey),
}

impl fmt::Display for SectionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SectionKey::Trust => f.write_str("trust"),
            SectionKey::Service(host) => write!(f, "service/{host}"),
            SectionKey::Routes(port) => write!(f, "routes/{port}"),
            SectionKey::Destination(key) => write!(f, "destination/{key}"),
            SectionKey::Endpoints { host, slice } => write!(f, "endpoints/{host}/{slice}"),
            SectionKey::Authorization(namespace, name) => write!(f, "authorization/{namespace}/{name}"),
            SectionKey::Workload(key) => write!(f, "workload/{key}"),
        }
    }
}

/// The content of a section.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Section {
    /// See [`SectionKey::Trust`].
    Trust(TrustBundle),
    /// See [`SectionKey::Service`].
    Service(Service),
    /// See [`SectionKey::Routes`].
    Routes(Routes),
    /// See [`SectionKey::Destination`].
    Destination(Destination),
    /// See [`SectionKey::Endpoints`].
    Endpoints(EndpointSlice),
    /// See [`SectionKey::Authorization`].
    Authorization(AuthorizationPolicy),
    /// See [`SectionKey::Workload`].
    Workload(Workload),
}

impl Section {
    /// The key that the content belongs to.
    pub fn key(&self) -> SectionKey {
        match self {
            Section::Trust(_) => SectionKey::Trust,
            Section::Service(service) => SectionKey::Service(service.host.clone()),
            Section::Routes(routes) => SectionKey::Routes(routes.at.clone()),
            Section::Destination(destination) => SectionKey::Destination(destination.key.clone()),
            Section::Endpoints(slice) => {
                SectionKey::Endpoints { host: slice.host.clone(), slice: slice.slice }
            }
            Section::Authorization(policy) => {
                SectionKey::Authorization(policy.namespace.clone(), policy.name.clone())
            }
            Section::Workload(workload) => SectionKey::Workload(workload.key.clone()),
        }
    }
}
