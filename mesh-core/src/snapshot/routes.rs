//! Ordered rules for a host and port.

use crate::routing::rule::{HttpRule, TcpRule};
use crate::vocab::name::{ServicePort, Text};

/// The rules that hold for one host on one port; the first match wins.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Routes {
    /// Host (may be a wildcard, for a VirtualService whose host no service has) and port.
    pub at: ServicePort,
    /// The VirtualService, `None` for the default route to the service.
    pub origin: Option<Text>,
    /// Rules for requests.
    pub http: Vec<HttpRule>,
    /// Rules for byte streams.
    pub tcp: Vec<TcpRule>,
}

impl Routes {
    /// Whether any rule asks who calls.
    pub fn depends_on_caller(&self) -> bool {
        let http = self.http.iter().flat_map(|rule| &rule.matches);
        let tcp = self.tcp.iter().flat_map(|rule| &rule.matches);
        http.into_iter().any(|m| !m.concerns(None)) || tcp.into_iter().any(|m| !m.concerns(None))
    }
}
