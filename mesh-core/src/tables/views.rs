//! Views with what their unknown traffic gets.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::Tables;
use super::routes::{HostRoutes, Named, Resolved, RouteTable};
use crate::matching::request::Caller;
use crate::resilience::timeout::CONNECT_TIMEOUT;
use crate::routing::rule::{Backend, HttpRule, TcpRule};
use crate::snapshot::routes::Routes;
use crate::snapshot::service::Service;
use crate::snapshot::view::{BoundListener, Outbound, View};
use crate::vocab::name::{ServicePort, Text};
use crate::vocab::origin::Origin;

/// What the callers of one view see.
#[derive(Debug)]
pub struct ViewTable {
    /// The section.
    pub section: View,
    /// Rules of traffic for unknown hosts where a proxy takes it (`egressProxy`).
    pub(crate) egress: Option<Arc<RouteTable>>,
}

impl ViewTable {
    /// Arranges a view. `resolve` finds what a backend names.
    pub(crate) fn new(section: &View, resolve: impl Fn(Named<'_>) -> Resolved) -> ViewTable {
        let proxy = match &section.outbound {
            Outbound::Allow(Some(backend)) => Some(backend),
            Outbound::Allow(None) | Outbound::Refuse => None,
        };
        let egress = proxy.map(|backend| {
            let routes = Arc::new(egress_routes(section, backend));
            Arc::new(RouteTable::new(routes, &resolve))
        });
        ViewTable { section: section.clone(), egress }
    }
}

/// All that is unknown goes to one backend: Istio's route `allow_any`.
fn egress_routes(view: &View, backend: &Backend) -> Routes {
    let origin = Origin { resource: view.origin.clone().unwrap_or_else(|| "mesh".into()), rule: None };
    let retry = Default::default();
    let mut http = HttpRule::default_route(&origin, backend.host.clone(), backend.port, retry);
    http.name = Some("allow_any".into());
    http.action = crate::routing::rule::RuleAction::Route {
        backends: vec![backend.clone()],
        rewrite: Default::default(),
    };
    Routes {
        at: ServicePort { host: Text::from("*"), port: 0 },
        scope: Some(view.key.clone()),
        origin: view.origin.clone(),
        http: vec![http],
        tcp: vec![TcpRule {
            origin,
            matches: Vec::new(),
            numbers: Vec::new(),
            backends: vec![backend.clone()],
        }],
        tls: Vec::new(),
        fallback: None,
    }
}

impl Tables {
    /// Whether some workload of this host may address a service on one of its ports, or has rules for it. On a host
    /// without workloads: whether callers may that are not known.
    pub fn is_seen_here(&self, index: usize) -> bool {
        let sees = |view: &ViewTable| {
            let key = Some(&*view.section.key);
            let service = &self.services[self.service_in_view(index, key)].service;
            let mut ports = service.ports.iter().map(|port| port.number);
            ports.any(|port| view.section.sees(service, port) || self.has_rules_in(index, port, key))
        };
        if self.workloads.is_empty() {
            return self.views.get("").is_none_or(sees);
        }
        let mut views = self.workloads.values().map(|workload| workload.section.view.as_deref());
        views.any(|key| self.views.get(key.unwrap_or("")).is_none_or(sees))
    }

    /// The sockets that Sidecars ask for on this host, with the view that each is of. On a host without workloads: those
    /// of callers that are not known.
    pub fn bound(&self) -> impl Iterator<Item = (&ViewTable, &BoundListener)> {
        let keys: BTreeSet<&str> = match self.workloads.is_empty() {
            true => [""].into(),
            false => {
                let views = self.workloads.values().map(|workload| workload.section.view.as_deref());
                views.map(Option::unwrap_or_default).collect()
            }
        };
        let views = keys.into_iter().filter_map(|key| self.views.get(key));
        views.flat_map(|view| view.section.bound.iter().map(move |bound| (view, bound)))
    }

    /// The service that byte streams to such a socket are for: of those that are imported there the first by host, on the
    /// socket's port, or on its only port where the socket has none.
    pub fn behind(&self, view: &ViewTable, bound: &BoundListener) -> Option<ServicePort> {
        let reached = |service: &Service| {
            let port = match (bound.port, service.ports.as_slice()) {
                (Some(wanted), ports) => ports.iter().find(|port| port.number == wanted)?,
                (None, [only]) => only,
                (None, _) => return None,
            };
            let is_seen = view.section.sees_at(Some(bound.listener), service, port.number);
            is_seen.then(|| ServicePort { host: service.host.clone(), port: port.number })
        };
        let key = Some(&*view.section.key);
        let services = (0..self.services.len()).map(|index| self.service_in_view(index, key));
        services.filter_map(|index| reached(&self.services[index].service)).min()
    }

    /// Whether a view has rules of its own for the host of a service, which it may not show.
    pub(crate) fn has_rules_in(&self, index: usize, port: u16, view: Option<&str>) -> bool {
        self.services[index].own_routes(port, view).is_some()
    }

    /// Whether a caller sees rules that are not its view's own, of a host that no service has: what its Sidecar does
    /// not import it misses.
    pub(crate) fn sees_rules(&self, caller: Option<&Caller<'_>>, rules: &HostRoutes) -> bool {
        let origin = rules.routes.section.origin.as_deref();
        let namespace = origin.and_then(|origin| origin.split('/').nth(1)).unwrap_or("");
        self.view(caller).is_none_or(|view| view.section.sees_rules(namespace, &rules.host, rules.port))
    }

    /// What takes the traffic of a caller for hosts that its view does not know, where it names a proxy for that.
    pub fn egress_proxy(&self, caller: Option<&Caller<'_>>) -> Option<&Arc<RouteTable>> {
        self.view(caller)?.egress.as_ref()
    }

    /// How long to try to connect to a host that a caller's view does not know.
    pub fn patience(&self, caller: Option<&Caller<'_>>) -> Duration {
        self.view(caller).and_then(|view| view.section.connect_timeout).unwrap_or(CONNECT_TIMEOUT)
    }

    /// The view of a caller; that of callers that are not known where it names none. `None` where there is no such
    /// section: then everything is seen.
    pub fn view(&self, caller: Option<&Caller<'_>>) -> Option<&ViewTable> {
        self.views.get(caller.and_then(|caller| caller.view).unwrap_or(""))
    }
}
