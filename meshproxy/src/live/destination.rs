//! A destination as the request path uses it: its policy, its endpoints with what is learned of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use mesh_core::balancing::balancer::{LoadView, for_attempt};
use mesh_core::balancing::utilization::Utilization;
use mesh_core::resilience::pool::{ConnectionSettings, Limited};
use mesh_core::tables::destinations::Destination;
use mesh_core::vocab::random::Random;
use tokio::sync::Notify;

use super::breaker::{Breaker, Counts};
use super::ejection::{self, Watched};
use super::endpoint::LiveEndpoint;
use super::layout::{Callers, Layouts, step};
use super::load::Ear;
use super::pace;
use super::retries::Retries;
use crate::identity::origination::Originated;
use crate::telemetry::labels::{Numbered, ServiceLabels};
use crate::telemetry::metrics::Metrics;

/// What is learned of a destination; outlives the tables that name it.
#[derive(Debug, Default)]
pub struct DestinationState {
    turn: AtomicU64,
    health: AtomicU64,
    /// Hears of every change of it.
    changed: OnceLock<Arc<Notify>>,
    /// How much of what is limited is taken.
    pub(super) counts: Counts,
    /// Its retries.
    pub retries: Retries,
    /// When it was last looked who is slow.
    pub(super) looked: AtomicU64,
    /// Held by whoever ejects one of its endpoints: whether they are watched at all.
    pub(super) ejecting: Mutex<bool>,
}

impl DestinationState {
    /// Changes whenever another endpoint is left alone, or gets traffic again.
    pub fn health(&self) -> u64 {
        self.health.load(Ordering::Acquire)
    }

    pub(super) fn health_changed(&self) {
        // Release: whoever sees the number sees who is left alone.
        self.health.fetch_add(1, Ordering::Release);
        if let Some(changed) = self.changed.get() {
            changed.notify_one();
        }
    }
}

/// A destination of the tables with its state. The endpoints have the same indices as in the tables.
#[derive(Debug)]
pub struct LiveDestination {
    /// Policy and cluster name.
    pub destination: Arc<Destination>,
    /// What is learned of it.
    pub state: Arc<DestinationState>,
    /// Its endpoints.
    pub endpoints: Vec<LiveEndpoint>,
    /// The service, for metrics.
    pub service: Numbered<ServiceLabels>,
    /// TLS that connections to its endpoints begin with, where they are not the mesh's.
    pub tls: Option<Arc<Originated>>,
    /// How connections to its endpoints are kept, where its policy says anything of it.
    pub settings: Option<Arc<ConnectionSettings>>,
    /// Its limits, if there are any.
    pub breaker: Option<Arc<Breaker>>,
    pub(super) watched: Option<Box<Watched>>,
    /// Whether it is looked how fast endpoints answer.
    pub(super) is_paced: bool,
    layouts: Layouts,
    /// The state's `health` when endpoints were laid out.
    laid: AtomicU64,
}

/// What a destination of the tables is joined with.
pub(super) struct Joined<'a> {
    pub(super) state: Arc<DestinationState>,
    pub(super) endpoints: Vec<LiveEndpoint>,
    pub(super) service: Numbered<ServiceLabels>,
    pub(super) tls: Option<Arc<Originated>>,
    /// The one before, of which is taken what has not changed.
    pub(super) before: Option<&'a LiveDestination>,
    /// Where the callers of this host are.
    pub(super) callers: &'a Callers,
    /// Hears that other endpoints are usable.
    pub(super) changed: &'a Arc<Notify>,
}

impl LiveDestination {
    /// Joins a destination with what is known of it. How its endpoints are chosen is taken from the one before, if the
    /// same endpoints may get traffic: a large table of hashes is made when something has changed only.
    pub(super) fn new(destination: &Arc<Destination>, joined: Joined<'_>) -> LiveDestination {
        let Joined { state, endpoints, service, tls, before, callers, changed } = joined;
        state.changed.get_or_init(|| Arc::clone(changed));
        ejection::watch(&state, &endpoints, destination.policy.outlier_detection.is_some());
        let laid = AtomicU64::new(state.health());
        let layouts = Layouts::new(destination, &endpoints, callers, before.map(|before| &before.layouts));
        let destination = Arc::clone(destination);
        let settings = destination.policy.pool.connection().map(Arc::new);
        LiveDestination {
            is_paced: pace::is_paced(&destination, endpoints.len()),
            destination,
            state,
            endpoints,
            service,
            tls,
            settings,
            breaker: None,
            watched: None,
            layouts,
            laid,
        }
    }

    /// With what its policy demands of traffic: limits, and that its endpoints are watched.
    pub(super) fn guarded(mut self, metrics: &Metrics) -> LiveDestination {
        let (policy, cluster) = (&self.destination.policy, &self.destination.cluster);
        let overflows = |what: Limited| metrics.overflows(cluster, what.name());
        self.breaker = Breaker::of(&policy.pool, &self.state, overflows);
        self.watched = policy.outlier_detection.as_ref().map(|_| Box::new(Watched::new(metrics, cluster)));
        self
    }

    /// The destination with one of its endpoints, for a connection that is meant for no other.
    pub(super) fn only(&self, endpoint: &LiveEndpoint) -> LiveDestination {
        let destination = Arc::new(self.destination.only(&endpoint.endpoint));
        let endpoints = vec![endpoint.clone()];
        LiveDestination {
            layouts: Layouts::new(&destination, &endpoints, &Callers::default(), None),
            destination,
            state: Arc::clone(&self.state),
            endpoints,
            service: self.service.clone(),
            tls: self.tls.clone(),
            settings: self.settings.clone(),
            breaker: self.breaker.clone(),
            watched: None,
            is_paced: false,
            laid: AtomicU64::new(self.state.health()),
        }
    }

    /// How soon endpoints are to be laid out anew though nothing happens: weights that they report come into force, or
    /// they warm up.
    pub(super) fn period(&self) -> Option<Duration> {
        let policy = &self.destination.policy;
        let reported = policy.load_balancer.utilization().map(Utilization::period);
        reported.or_else(|| step(policy.warmup.as_ref()?, &self.endpoints))
    }

    /// Lays the endpoints out anew, as they are now.
    pub(super) fn lay_anew(&self) {
        self.laid.store(self.state.health(), Ordering::Relaxed);
        self.layouts.anew(&self.destination, &self.endpoints);
    }

    /// Whether other endpoints are usable than when they were laid out.
    pub(super) fn is_stale(&self) -> bool {
        self.layouts.shifts() && self.laid.load(Ordering::Relaxed) != self.state.health()
    }

    /// Who hears the reports of an endpoint, where the destination goes by them.
    pub fn ear(&self, endpoint: &LiveEndpoint) -> Option<Ear> {
        Ear::of(&self.destination, endpoint)
    }

    /// The share of an endpoint by what all have reported, where the destination goes by that.
    pub fn reported_share(&self, index: usize) -> Option<u32> {
        self.destination.policy.load_balancer.utilization()?;
        self.layouts.weight(index)
    }

    /// The weight of an endpoint among its neighbours at this moment, where it is not the declared one for long: it warms
    /// up, or reports its load.
    pub fn weight(&self, index: usize) -> Option<u32> {
        self.layouts.weight(index)
    }

    /// The priority of an endpoint for callers of this host that are not known, or all of them where they are alike.
    pub fn priority(&self, index: usize) -> Option<u32> {
        self.layouts.priority(index)
    }

    /// The shares of priorities in percent, once for all callers that find the same order.
    pub fn loads(&self) -> Vec<Vec<u64>> {
        self.layouts.loads()
    }

    /// Chooses an endpoint for a caller at a place, one that was not tried, by a hash where the destination goes by one;
    /// one that was tried if there is no other. `None` if none may get traffic.
    pub fn pick(&self, place: u32, tried: &[usize], hash: Option<u64>, random: &mut Random) -> Option<usize> {
        // Relaxed: the cursor only spreads load.
        let turn = || self.state.turn.fetch_add(1, Ordering::Relaxed);
        let pick = |tried: &[usize], patient, random: &mut Random| {
            let view = Untried { endpoints: &self.endpoints, tried, patient };
            self.layouts.pick(place, &view, hash, turn, random)
        };
        for_attempt(tried, |tried, patient| pick(tried, patient, random))
    }
}

/// The endpoints as the balancer sees them, those that were tried left out.
struct Untried<'a> {
    endpoints: &'a [LiveEndpoint],
    tried: &'a [usize],
    patient: bool,
}

impl LoadView for Untried<'_> {
    fn active(&self, index: usize) -> u32 {
        self.endpoints[index].state.in_flight()
    }

    fn usable(&self, index: usize) -> bool {
        let endpoint = &self.endpoints[index];
        endpoint.is_usable()
            && !self.tried.contains(&index)
            && !(self.patient && endpoint.state.conduct.is_tried())
    }

    fn reachable(&self, index: usize) -> bool {
        self.endpoints[index].may_get_traffic() && !self.tried.contains(&index)
    }

    fn slowness(&self, index: usize) -> u32 {
        self.endpoints[index].state.slowness()
    }
}
