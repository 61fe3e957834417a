//! Ordered rules for a host and port.

use crate::routing::rule::{HttpRule, TcpRule};
use crate::vocab::name::{ServicePort, Text};
use crate::vocab::origin::Origin;

/// The rules that hold for one host on one port; the first match wins.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Routes {
    /// Host (may be a wildcard, for a VirtualService whose host no service has) and port.
    pub at: ServicePort,
    /// The view whose callers these rules are for; `None` for all others. Where no service has the host and a
    /// view finds no rules, the list for it is empty: its callers do not know the host.
    pub scope: Option<Text>,
    /// The VirtualService, `None` for the default route to the service.
    pub origin: Option<Text>,
    /// Rules for requests.
    pub http: Vec<HttpRule>,
    /// Rules for byte streams.
    pub tcp: Vec<TcpRule>,
    /// Rules for TLS that is passed on, by server name.
    pub tls: Vec<TcpRule>,
    /// What callers get whom no rule of a list concerns (all its matches name others); set where some rule asks
    /// who calls.
    pub fallback: Option<Box<Fallback>>,
}

/// The default routes of a service port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fallback {
    /// For requests.
    pub http: HttpRule,
    /// For byte streams and TLS.
    pub stream: TcpRule,
}

impl Routes {
    /// What a person calls a rule: `rule 2`, of another resource where it is not this list's, or the default route.
    pub fn title(&self, rule: &Origin) -> String {
        match rule.rule {
            None => "the default route".to_owned(),
            Some(index) if self.origin.as_ref() == Some(&rule.resource) => format!("rule {index}"),
            Some(index) => format!("rule {index} of {}", rule.resource),
        }
    }

    /// Whether any rule asks who calls.
    pub fn depends_on_caller(&self) -> bool {
        let http = self.http.iter().flat_map(|rule| &rule.matches);
        let streams = self.tcp.iter().chain(&self.tls).flat_map(|rule| &rule.matches);
        http.into_iter().any(|m| !m.concerns(None)) || streams.into_iter().any(|m| !m.concerns(None))
    }
}
