//! A unit of compiled configuration, by kind and key.

use std::fmt;

use super::credential::Credential;
use super::destination::Destination;
use super::endpoints::EndpointSlice;
use super::gateway::Gateway;
use super::routes::Routes;
use super::security::TrustBundle;
use super::service::Service;
use super::view::View;
use super::workload::Workload;
use crate::policy::authorization::AuthorizationPolicy;
use crate::policy::jwt::TokenPolicy;
use crate::policy::mtls::CredentialKey;
use crate::telemetry::Telemetry;
use crate::vocab::name::{DestinationKey, ServicePort, Text, WorkloadKey};

/// Names a section.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SectionKey {
    /// The trust domain and its roots.
    Trust,
    /// A service: its names, ports and address.
    Service {
        /// Host.
        host: Text,
        /// The view that finds another service of that name; `None` for what all others find.
        scope: Option<Text>,
    },
    /// The rules of a host and port.
    Routes {
        /// Host and port.
        at: ServicePort,
        /// The view that finds other rules; `None` for what all others find.
        scope: Option<Text>,
    },
    /// The policy of a service port or subset.
    Destination(DestinationKey),
    /// One slice of the endpoints of a host.
    Endpoints {
        /// The service's host.
        host: Text,
        /// The view that finds another service of that name; `None` for what all others find.
        scope: Option<Text>,
        /// Index of the slice.
        slice: u32,
    },
    /// An authorization policy: namespace and name.
    Authorization(Text, Text),
    /// The tokens that a RequestAuthentication accepts: namespace and name.
    Tokens(Text, Text),
    /// A workload that the node hosts.
    Workload(WorkloadKey),
    /// What the callers of a view see.
    View(Text),
    /// A Gateway: namespace and name.
    Gateway(Text, Text),
    /// One half of a credential.
    Credential(CredentialKey),
    /// What is told of traffic of which no workload is known.
    Telemetry,
}

impl SectionKey {
    /// The view that the section is for; `None` if it is for all that find no other.
    pub fn scope(&self) -> Option<&Text> {
        match self {
            SectionKey::Service { scope, .. }
            | SectionKey::Routes { scope, .. }
            | SectionKey::Endpoints { scope, .. } => scope.as_ref(),
            SectionKey::Destination(key) => key.scope.as_ref(),
            SectionKey::Trust
            | SectionKey::Authorization(..)
            | SectionKey::Tokens(..)
            | SectionKey::Workload(_)
            | SectionKey::View(_)
            | SectionKey::Gateway(..)
            | SectionKey::Credential(_)
            | SectionKey::Telemetry => None,
        }
    }
}

impl fmt::Display for SectionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SectionKey::Trust => f.write_str("trust"),
            SectionKey::Service { host, scope } => write!(f, "service/{host}{}", At(scope)),
            SectionKey::Routes { at, scope } => write!(f, "routes/{at}{}", At(scope)),
            SectionKey::Destination(key) => write!(f, "destination/{key}"),
            SectionKey::Endpoints { host, scope, slice } => {
                write!(f, "endpoints/{host}{}/{slice}", At(scope))
            }
            SectionKey::Authorization(namespace, name) => write!(f, "authorization/{namespace}/{name}"),
            SectionKey::Tokens(namespace, name) => write!(f, "tokens/{namespace}/{name}"),
            SectionKey::Workload(key) => write!(f, "workload/{key}"),
            SectionKey::View(key) => write!(f, "view/{key}"),
            SectionKey::Gateway(namespace, name) => write!(f, "gateway/{namespace}/{name}"),
            SectionKey::Credential(key) => write!(f, "credential/{key}"),
            SectionKey::Telemetry => f.write_str("telemetry"),
        }
    }
}

/// `@SCOPE`, or nothing.
struct At<'a>(&'a Option<Text>);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |scope| write!(f, "@{scope}"))
    }
}

/// The content of a section.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[allow(clippy::large_enum_variant, reason = "each is kept behind an Arc of its own")]
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
    /// See [`SectionKey::Tokens`].
    Tokens(TokenPolicy),
    /// See [`SectionKey::Workload`].
    Workload(Workload),
    /// See [`SectionKey::View`].
    View(View),
    /// See [`SectionKey::Gateway`].
    Gateway(Gateway),
    /// See [`SectionKey::Credential`].
    Credential(Credential),
    /// See [`SectionKey::Telemetry`].
    Telemetry(Telemetry),
}

impl Section {
    /// The key that the content belongs to.
    pub fn key(&self) -> SectionKey {
        match self {
            Section::Trust(_) => SectionKey::Trust,
            Section::Service(service) => {
                SectionKey::Service { host: service.host.clone(), scope: service.scope.clone() }
            }
            Section::Routes(routes) => {
                SectionKey::Routes { at: routes.at.clone(), scope: routes.scope.clone() }
            }
            Section::Destination(destination) => SectionKey::Destination(destination.key.clone()),
            Section::Endpoints(slice) => {
                let (host, scope) = (slice.host.clone(), slice.scope.clone());
                SectionKey::Endpoints { host, scope, slice: slice.slice }
            }
            Section::Authorization(policy) => {
                SectionKey::Authorization(policy.namespace.clone(), policy.name.clone())
            }
            Section::Tokens(policy) => SectionKey::Tokens(policy.namespace.clone(), policy.name.clone()),
            Section::Workload(workload) => SectionKey::Workload(workload.key.clone()),
            Section::View(view) => SectionKey::View(view.key.clone()),
            Section::Gateway(gateway) => SectionKey::Gateway(gateway.namespace.clone(), gateway.name.clone()),
            Section::Credential(credential) => SectionKey::Credential(credential.key.clone()),
            Section::Telemetry(_) => SectionKey::Telemetry,
        }
    }
}
