//! Rules of a VirtualService for one port of one kind of client: what can be known before a request comes is settled
//! here. Matches for other ports and gateways are gone behind the snapshot, short names resolved, defaults filled in.

use crate::matching::request::RequestMatch;
use crate::resilience::fault::FaultPolicy;
use crate::resilience::retry::RetryPolicy;
use crate::resource::reach::GatewayRef;
use crate::resource::virtual_service::{
    HttpAction, HttpMatch, HttpRoute, Mirror as DeclaredMirror, RouteDestination, TcpMatch, TcpRoute,
    TlsMatch, TlsRoute,
};
use crate::routing::header::HeaderOperations;
use crate::routing::mirror::Mirror;
use crate::routing::rule::{Backend, HttpRule, RuleAction, StreamMatch, TcpRule};
use crate::state::{MeshState, hosts};
use crate::vocab::label::Labels;
use crate::vocab::name::Text;
use crate::vocab::origin::{Origin, ResourceKey};
use crate::vocab::ratio::Ratio;

/// The weight of a destination that stands alone.
const ALONE: u32 = 100;

/// For whom and where rules are made.
pub(super) struct Site<'s> {
    pub(super) state: &'s MeshState,
    /// Where clients come in: `mesh`, or a gateway.
    pub(super) gateway: &'s GatewayRef,
    /// The port that they address.
    pub(super) port: u16,
    /// The ports of a service that they may see.
    pub(super) ports_of: &'s dyn Fn(&str) -> Option<Vec<u16>>,
}

impl Site<'_> {
    /// One rule for requests; `None` if nothing of it is for this site. `resource` is the VirtualService that the
    /// rule stands in, whose namespace completes short names.
    pub(super) fn http_rule(
        &self,
        resource: &ResourceKey,
        index: usize,
        route: &HttpRoute,
    ) -> Option<HttpRule> {
        let (numbers, matches) = numbered(&route.matches, |entry| self.concerns(entry), request_match);
        if matches.is_empty() && !route.matches.is_empty() {
            return None;
        }
        let action = match &route.action {
            HttpAction::Route { destinations, rewrite } => RuleAction::Route {
                backends: self.backends(destinations, &resource.namespace),
                rewrite: rewrite.clone(),
            },
            HttpAction::Redirect(redirect) => RuleAction::Redirect(redirect.clone()),
            HttpAction::DirectResponse(response) => RuleAction::DirectResponse(response.clone()),
            HttpAction::Delegate { .. } => return None,
        };
        let mirrors = match &action {
            RuleAction::Route { .. } => self.mirrors(&route.mirrors, &resource.namespace),
            RuleAction::Redirect(_) | RuleAction::DirectResponse(_) => Vec::new(),
        };
        Some(HttpRule {
            origin: Origin::rule(resource, index),
            name: route.name.clone(),
            matches,
            numbers,
            action,
            timeout: route.timeout.filter(|timeout| !timeout.is_zero()),
            retry: RetryPolicy {
                hedge: route.hedge,
                ..route.retry.clone().unwrap_or_else(|| self.default_retry())
            },
            fault: fault(route.fault),
            mirrors,
            cors: route.cors.clone(),
            request_headers: HeaderOperations::from(&route.request_headers),
            response_headers: HeaderOperations::from(&route.response_headers),
            limits: Vec::new(),
        })
    }

    /// One rule for byte streams; `None` if nothing of it is for this site.
    pub(super) fn tcp_rule(&self, resource: &ResourceKey, index: usize, route: &TcpRoute) -> Option<TcpRule> {
        let here = |entry: &TcpMatch| self.is_here(entry.port, &entry.gateways);
        let (numbers, matches) = numbered(&route.matches, here, |entry| StreamMatch {
            sni_hosts: Vec::new(),
            destination_subnets: entry.destination_subnets.clone(),
            caller_labels: entry.caller_labels.clone(),
            caller_namespace: entry.caller_namespace.clone(),
        });
        if matches.is_empty() && !route.matches.is_empty() {
            return None;
        }
        Some(TcpRule {
            origin: Origin::rule(resource, index),
            matches,
            numbers,
            backends: self.backends(&route.destinations, &resource.namespace),
        })
    }

    /// One rule for TLS that is passed on; `None` if nothing of it is for this site.
    pub(super) fn tls_rule(&self, resource: &ResourceKey, index: usize, route: &TlsRoute) -> Option<TcpRule> {
        let here = |entry: &TlsMatch| self.is_here(entry.port, &entry.gateways);
        let (numbers, matches) = numbered(&route.matches, here, |entry| StreamMatch {
            sni_hosts: entry.sni_hosts.clone(),
            destination_subnets: entry.destination_subnets.clone(),
            caller_labels: entry.caller_labels.clone(),
            caller_namespace: entry.caller_namespace.clone(),
        });
        (!matches.is_empty()).then(|| TcpRule {
            origin: Origin::rule(resource, index),
            matches,
            numbers,
            backends: self.backends(&route.destinations, &resource.namespace),
        })
    }

    /// What the mesh does where a rule says nothing of retries.
    pub(super) fn default_retry(&self) -> RetryPolicy {
        self.state.mesh().default_retry.clone().unwrap_or_default()
    }

    /// Gateways of a match stand in place of the VirtualService's, by which it got here.
    fn is_here(&self, port: Option<u16>, gateways: &[GatewayRef]) -> bool {
        port.is_none_or(|wanted| wanted == self.port)
            && (gateways.is_empty() || gateways.contains(self.gateway))
    }

    fn concerns(&self, entry: &HttpMatch) -> bool {
        self.is_here(entry.port, &entry.gateways)
    }

    /// One destination gets everything whatever its weight; of several, those without weight get nothing.
    fn backends(&self, destinations: &[RouteDestination], namespace: &str) -> Vec<Backend> {
        let weighted = destinations.iter().filter_map(|destination| {
            let weight = destination.weight.filter(|weight| *weight > 0)?;
            Some(self.backend(destination, weight, namespace))
        });
        let mut backends: Vec<_> = weighted.collect();
        if backends.is_empty() {
            // A rule whose weights are all 0 is refused before; a lone destination needs none.
            backends.extend(destinations.first().map(|alone| self.backend(alone, ALONE, namespace)));
        }
        if let [alone] = backends.as_mut_slice() {
            alone.weight = ALONE;
        }
        backends
    }

    fn backend(&self, destination: &RouteDestination, weight: u32, namespace: &str) -> Backend {
        let (host, port) = self.target(destination, namespace);
        Backend {
            host,
            port,
            subset: destination.subset.clone(),
            weight,
            request_headers: HeaderOperations::from(&destination.request_headers),
            response_headers: HeaderOperations::from(&destination.response_headers),
            authority: destination.authority.clone(),
        }
    }

    fn mirrors(&self, declared: &[DeclaredMirror], namespace: &str) -> Vec<Mirror> {
        let copied = declared.iter().filter(|mirror| mirror.share > Ratio::ZERO);
        copied
            .map(|mirror| {
                let (host, port) = self.target(&mirror.destination, namespace);
                Mirror { host, port, subset: mirror.destination.subset.clone(), share: mirror.share }
            })
            .collect()
    }

    /// Host, and port: the one that is written, else the service's only one, else the one that was addressed.
    fn target(&self, destination: &RouteDestination, namespace: &str) -> (Text, u16) {
        let host = hosts::resolve(&destination.host, namespace);
        let only = || match (self.ports_of)(&host)?.as_slice() {
            [only] => Some(*only),
            _ => None,
        };
        let port = destination.port.or_else(only).unwrap_or(self.port);
        // Another name of a service leads to the service, by a port of the name.
        (self.state.concrete_host(&host).unwrap_or(host), port)
    }
}

/// The matches that are for a site with the numbers that they have in the resource; no numbers where none is left out.
fn numbered<M, T>(matches: &[M], is_here: impl Fn(&M) -> bool, make: impl Fn(&M) -> T) -> (Vec<u32>, Vec<T>) {
    let here = (0..).zip(matches).filter(|(_, entry)| is_here(entry));
    let (numbers, made): (Vec<u32>, Vec<T>) = here.map(|(number, entry)| (number, make(entry))).unzip();
    if made.len() == matches.len() { (Vec::new(), made) } else { (numbers, made) }
}

/// A fault without a share of requests is none.
fn fault(declared: Option<FaultPolicy>) -> FaultPolicy {
    let FaultPolicy { delay, abort } = declared.unwrap_or_default();
    FaultPolicy {
        delay: delay.filter(|(share, _)| *share > Ratio::ZERO),
        abort: abort.filter(|(share, _)| *share > Ratio::ZERO),
    }
}

/// A match whose gateways are written asks nothing of the caller.
fn request_match(entry: &HttpMatch) -> RequestMatch {
    let mut request = entry.request.clone();
    if !entry.gateways.is_empty() {
        request.caller_labels = Labels::default();
        request.caller_namespace = None;
    }
    request
}
