//! Whom a CUSTOM policy asks.

use std::fmt;
use std::time::Duration;

use crate::vocab::name::Text;

/// The provider of a CUSTOM policy: what the policy names, and what the mesh knows by that name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Provider {
    /// Name among the mesh's extension providers.
    pub name: Text,
    /// The service that is asked; `None` if the mesh knows no authorization service by that name, so that every
    /// request that the policy is about is refused.
    pub authorizer: Option<Authorizer>,
}

/// An authorization service (`envoyExtAuthzHttp`, `envoyExtAuthzGrpc`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Authorizer {
    /// Over gRPC instead of HTTP. Only such a one can judge a byte stream.
    pub grpc: bool,
    /// Host of the service, `[NAMESPACE/]HOST`.
    pub service: Text,
    /// Port.
    pub port: u16,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Whether requests pass when it cannot be asked.
    pub fail_open: bool,
    /// Status of a request that is refused because it cannot be asked.
    pub status_on_error: u16,
}

impl fmt::Display for Authorizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let over = if self.grpc { "gRPC" } else { "HTTP" };
        write!(f, "{}:{} over {over}", self.service, self.port)
    }
}
