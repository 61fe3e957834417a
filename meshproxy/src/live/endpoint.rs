//! What is learned about an endpoint, and the endpoint as the request path uses it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use mesh_core::tables::destinations::{Dial, Endpoint, Transport};
use mesh_core::vocab::health::Health;
use mesh_core::vocab::name::Text;

use super::breaker::{Line, Place};
use super::ejection::Conduct;
use super::load::{self, ReportedLoad};
use super::pace::Pacing;
use super::registry::Registry;
use crate::telemetry::labels::{Numbered, Party};
use crate::telemetry::metrics::Metrics;

/// Stands where a socket of this host has no address.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// What is learned of an endpoint; outlives the tables that name it.
#[derive(Debug, Default)]
pub struct EndpointState {
    in_flight: AtomicU32,
    gone: AtomicBool,
    /// Since when its checks let it have traffic; 0 while they do not.
    since: AtomicU64,
    /// What it reports of its load, where that is asked for.
    pub(super) load: ReportedLoad,
    /// What its attempts have shown, where that is watched.
    pub conduct: Conduct,
    /// How fast it answers, where that is looked at.
    pub(super) pacing: Pacing,
    /// Who waits for a connection, where these are limited.
    pub(super) line: Line,
}

impl EndpointState {
    /// Requests and streams that are under way.
    pub fn in_flight(&self) -> u32 {
        // Relaxed: a load figure that guides the choice; no other memory depends on it.
        self.in_flight.load(Ordering::Relaxed)
    }

    /// How many times as long as its neighbours it takes, if it stands out; else 1.
    pub fn slowness(&self) -> u32 {
        self.pacing.slowness()
    }

    /// Counts one more until the permit is dropped.
    pub fn enter(self: &Arc<EndpointState>) -> Permit {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.conduct.chosen();
        Permit { endpoint: Arc::clone(self), place: None }
    }

    /// Whether newer tables do not name it any more.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    pub(super) fn set_gone(&self, gone: bool) {
        self.gone.store(gone, Ordering::Relaxed);
        if gone {
            self.since.store(0, Ordering::Relaxed);
        }
    }
}

impl EndpointState {
    /// Notes whether its checks let it have traffic. One that comes, or comes back, is new.
    fn note_health(&self, may_get_traffic: bool) {
        match (self.since.load(Ordering::Relaxed), may_get_traffic) {
            (0, true) => {
                self.conduct.renew();
                self.since.store(load::stamp(), Ordering::Relaxed);
            }
            (_, true) | (0, false) => {}
            (_, false) => self.since.store(0, Ordering::Relaxed),
        }
    }

    /// For how long its checks have let it have traffic; `None` while they do not.
    pub fn age(&self) -> Option<Duration> {
        match self.since.load(Ordering::Relaxed) {
            0 => None,
            stamp => Some(load::since(stamp)),
        }
    }
}

/// One request or stream at an endpoint.
#[derive(Debug)]
pub struct Permit {
    endpoint: Arc<EndpointState>,
    place: Option<Box<Place>>,
}

impl Permit {
    /// Takes a place among what is limited along.
    pub fn take(&mut self, place: Option<Box<Place>>) {
        self.place = place;
    }

    /// The place.
    pub fn place(&self) -> Option<&Place> {
        self.place.as_deref()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An endpoint of the tables with its state and everything that can be made ready beforehand.
#[derive(Debug, Clone)]
pub struct LiveEndpoint {
    /// Address, transport, identity, weight, health.
    pub endpoint: Arc<Endpoint>,
    /// What is learned of it.
    pub state: Arc<EndpointState>,
    /// Address and port: none in particular for a socket of this host. `None` for a name, which is not dialled.
    pub address: Option<SocketAddr>,
    /// Address and port as text.
    pub to: Text,
    /// Number of the identity that must answer; 0 where there is none.
    pub peer: u32,
    /// The called party, for metrics.
    pub party: Numbered<Party>,
}

impl LiveEndpoint {
    /// Whether it is reached over mutual TLS, by way of the proxy of its host.
    pub fn is_behind_proxy(&self) -> bool {
        matches!(self.endpoint.transport, Transport::Mesh { .. })
    }

    pub(super) fn new(
        endpoint: &Arc<Endpoint>,
        state: Arc<EndpointState>,
        registry: &mut Registry,
        metrics: &Metrics,
    ) -> LiveEndpoint {
        let peer = match &endpoint.transport {
            Transport::Mesh { peer, .. } => registry.identity(peer),
            Transport::Plaintext | Transport::Tls | Transport::Unreachable => 0,
        };
        // Who it is it proves by mutual TLS only.
        let identity = endpoint.identity.as_ref().filter(|_| peer > 0);
        let workload = &endpoint.workload;
        let party = Party::workload(&workload.name, &workload.namespace, identity, &endpoint.labels);
        let live = LiveEndpoint {
            address: match &endpoint.address {
                Dial::Ip(address) => Some(*address),
                Dial::Unix(_) => Some(NOWHERE),
                Dial::Name(..) => None,
            },
            to: endpoint.address.ip().map_or_else(|| "".into(), |address| address.to_string().into()),
            peer,
            party: metrics.party(party),
            endpoint: Arc::clone(endpoint),
            state,
        };
        live.state.note_health(live.may_get_traffic());
        live
    }

    /// Its address for people; none for a socket of this host.
    pub fn shown(&self) -> Option<SocketAddr> {
        self.address.filter(|address| *address != NOWHERE)
    }

    /// Where connections to it go: to its address, or to the mesh hop before it.
    pub fn reached(&self) -> Option<SocketAddr> {
        match &self.endpoint.transport {
            Transport::Mesh { hop, .. } => Some(*hop),
            Transport::Plaintext | Transport::Tls | Transport::Unreachable => self.address,
        }
    }

    /// Whether it may get traffic as the tables have it.
    pub fn may_get_traffic(&self) -> bool {
        self.endpoint.health == Health::Healthy
            && self.endpoint.transport != Transport::Unreachable
            && self.address.is_some()
    }

    /// Whether it may get traffic now.
    pub fn is_usable(&self) -> bool {
        self.may_get_traffic() && !self.state.is_gone() && !self.state.conduct.is_ejected()
    }
}
