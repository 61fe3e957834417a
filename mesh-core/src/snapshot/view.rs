//! What a caller sees of the mesh.

use std::time::Duration;

use crate::matching::scope::{EgressListener, listener};
use crate::routing::rule::Backend;
use crate::snapshot::service::Service;
use crate::vocab::name::Text;

/// What the callers of one view see: those of a namespace that one Sidecar holds for. Its key is the `scope` of the
/// sections that differ for them from what everybody else finds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct View {
    /// Name; empty for callers that are not known.
    pub key: Text,
    /// Namespace of the callers; empty where it is not known.
    pub namespace: Text,
    /// The Sidecar that holds.
    pub origin: Option<Text>,
    /// What it imports, port by port; `None` for all that is exported to the namespace.
    pub egress: Option<Vec<EgressListener>>,
    /// What becomes of traffic for hosts that the view does not know.
    pub outbound: Outbound,
    /// Time to connect to such a host; `None` for the usual one.
    pub connect_timeout: Option<Duration>,
}

/// What becomes of traffic for unknown hosts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Outbound {
    /// It goes where it was sent (ALLOW_ANY), or to this backend where there is one (`egressProxy`).
    Allow(Option<Backend>),
    /// It is refused (REGISTRY_ONLY).
    Refuse,
}

impl Default for Outbound {
    fn default() -> Outbound {
        Outbound::Allow(None)
    }
}

impl View {
    /// Whether its callers may address a service on a port. A rule may lead them to any service that is exported
    /// to them, addressed or not.
    pub fn sees(&self, service: &Service, port: u16) -> bool {
        service.is_exported_to(&self.namespace)
            && self.imports(port, |listener| listener.imports(&service.namespace, &service.host))
    }

    /// Whether its callers see the rules of a VirtualService of a namespace for a host that no service has.
    pub fn sees_rules(&self, namespace: &str, host: &str, port: u16) -> bool {
        self.imports(port, |listener| listener.imports_rules(namespace, host))
    }

    fn imports(&self, port: u16, test: impl Fn(&EgressListener) -> bool) -> bool {
        self.egress.as_ref().is_none_or(|listeners| listener(listeners, port).is_some_and(test))
    }
}
