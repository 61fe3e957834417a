//! A workload of this host as the request path uses it.

use std::net::IpAddr;
use std::sync::Arc;

use mesh_core::matching::request::Caller;
use mesh_core::snapshot::workload::WorkloadPort;
use mesh_core::tables::workloads::HostedWorkload;
use mesh_core::vocab::identity::SpiffeId;
use mesh_core::vocab::label::Labels;
use mesh_core::vocab::name::{Text, WorkloadKey};

use super::layout::CallerPlace;
use super::limits::WorkloadLimits;
use super::port::Port;
use super::registry::Registry;
use super::remarks::Remarkers;
use crate::netns::Netns;
use crate::telemetry::labels::{Numbered, Party, ServiceLabels};
use crate::telemetry::metrics::Metrics;

/// A workload with everything that can be made ready beforehand.
#[derive(Debug)]
pub struct LocalWorkload {
    /// Address, identity, ports, policies.
    pub hosted: Arc<HostedWorkload>,
    /// The network namespace that it lives in; `None` for our own.
    pub netns: Option<Arc<Netns>>,
    /// Number of its identity; 0 where it has none.
    pub identity: u32,
    /// Number of the place that it calls from.
    pub place: u32,
    /// What it says of itself to other proxies.
    pub from: Text,
    /// The party, for metrics.
    pub party: Numbered<Party>,
    /// The services that reach its ports, by port, and what else counts as its service.
    pub services: Vec<(u16, Numbered<ServiceLabels>)>,
    /// The ports whose traffic is limited, or kept in some way.
    pub ports: Vec<Arc<Port>>,
    /// For a port that no service reaches.
    pub fallback: Numbered<ServiceLabels>,
    /// Counters of what its policies write down.
    pub remarkers: Remarkers,
    /// Its rate limits.
    pub limits: WorkloadLimits,
}

impl LocalWorkload {
    pub(super) fn new(
        hosted: &Arc<HostedWorkload>,
        before: Option<&LocalWorkload>,
        registry: &mut Registry,
        metrics: &Metrics,
    ) -> LocalWorkload {
        let section = &hosted.section;
        let identity = section.identity.as_ref();
        let party = Party::own(&section.key.name, &section.key.namespace, identity, &section.labels);
        let service = |host: &Text| {
            // The second label of a mesh host is its namespace.
            let namespace = match host.split('.').nth(1) {
                Some(namespace) if host.contains(".svc.") => Text::from(namespace),
                _ => section.key.namespace.clone(),
            };
            metrics.service(ServiceLabels::of(host, &namespace))
        };
        let ports = section.ports.iter().map(|port| (port.number, service(&port.service)));
        let limited =
            |port: &WorkloadPort| Port::of(port, before.and_then(|before| before.port(port.number)), metrics);
        let own = ServiceLabels {
            host: party.canonical_service.clone(),
            name: "InboundPassthroughCluster".into(),
            namespace: party.namespace.clone(),
        };
        LocalWorkload {
            identity: identity.map_or(0, |id| registry.identity(id)),
            place: registry.place(&CallerPlace::of(hosted)),
            netns: section.recognition.netns.as_ref().map(Netns::named),
            from: from_value(&section.key, &section.labels),
            services: ports.collect(),
            ports: section.ports.iter().filter_map(limited).collect(),
            fallback: metrics.service(own),
            party: metrics.party(party),
            remarkers: Remarkers::of(hosted, metrics),
            limits: WorkloadLimits::of(&section.limits, &section.key, registry, metrics),
            hosted: Arc::clone(hosted),
        }
    }

    /// Its identity.
    pub fn id(&self) -> Option<&SpiffeId> {
        self.hosted.section.identity.as_ref()
    }

    /// Whether every process of the host is of it, where it is the only one.
    pub fn is_everybody(&self) -> bool {
        self.hosted.section.recognition.is_silent()
    }

    /// It as the sender of a request.
    pub fn caller(&self) -> Caller<'_> {
        let section = &self.hosted.section;
        Caller { namespace: &section.key.namespace, labels: &section.labels, view: section.view.as_deref() }
    }

    /// What is said of traffic to a port, if anything is.
    pub fn port(&self, number: u16) -> Option<&Arc<Port>> {
        self.ports.iter().find(|port| port.number == number)
    }

    /// The service that reaches a port, for metrics.
    pub fn service(&self, port: u16) -> &Numbered<ServiceLabels> {
        self.services
            .iter()
            .find(|(number, _)| *number == port)
            .map_or(&self.fallback, |(_, service)| service)
    }
}

/// The address of a caller by which it is known everywhere: behind a loopback address is a workload of this host.
pub fn source(peer: IpAddr, local: Option<&Arc<LocalWorkload>>) -> IpAddr {
    local.filter(|_| peer.is_loopback()).map_or(peer, |local| local.hosted.section.address)
}

/// `NS/WORKLOAD;app=..;version=..`.
fn from_value(key: &WorkloadKey, labels: &Labels) -> Text {
    let mut text = key.to_string();
    for name in ["app", "version"] {
        if let Some(value) = labels.value(name) {
            text.push_str(&format!(";{name}={value}"));
        }
    }
    text.into()
}

/// Reads what a workload says of itself: namespace, workload, app and version.
pub fn read_from(text: &str) -> Option<(&str, &str, Option<&str>, Option<&str>)> {
    let text = Some(text).filter(|text| text.len() <= 512)?;
    let mut parts = text.split(';');
    let (namespace, workload) = parts.next()?.split_once('/')?;
    let (mut app, mut version) = (None, None);
    for part in parts {
        match part.split_once('=') {
            Some(("app", value)) => app = Some(value),
            Some(("version", value)) => version = Some(value),
            Some(_) | None => {}
        }
    }
    Some((namespace, workload, app, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_workload_says_of_itself_is_read_back() {
        let key = WorkloadKey { namespace: "default".into(), name: "reviews-v1".into() };
        let labels: Labels = [("app", "reviews"), ("version", "v1")].into_iter().collect();
        let value = from_value(&key, &labels);
        assert_eq!(read_from(&value), Some(("default", "reviews-v1", Some("reviews"), Some("v1"))));
        assert_eq!(read_from("x"), None);
    }
}
