//! Endpoints that fail are left alone for a while (`outlierDetection`). Attempts note in atomics how they ended; the one that
//! was one too many ejects its endpoint, and a task of the host lets it back. What is known outlives the tables, and holds
//! for every caller of this host. Where no rule watches, an endpoint that cannot be reached is left to one request at a time,
//! after 1, 2, 4 and 8 s, as long as there are others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesh_core::resilience::ejection::{History, Probation, Swept, may_eject, probe_patience};
use mesh_core::resilience::outlier::{Cause, OutlierDetection, Reached, Signal, Streaks};
use mesh_core::tables::destinations::Transport;
use mesh_core::vocab::name::{DestinationKey, WorkloadKey};
use mesh_core::vocab::outcome::Outcome;
use metrics::{Counter, Gauge};
use tokio::sync::watch;
use tokio::time::Instant;

use super::destination::{DestinationState, LiveDestination};
use super::endpoint::LiveEndpoint;
use super::load;
use super::root::Roots;
use crate::telemetry::metrics::Metrics;

/// How soon others hear of what was ejected.
const TELL: Duration = Duration::from_millis(500);

/// What attempts have shown of an endpoint; outlives the tables that name it.
#[derive(Debug, Default)]
pub struct Conduct {
    /// Bad signals in a row.
    streaks: AtomicU64,
    ejected: AtomicBool,
    /// Whether it is back and nothing is known of it since.
    probation: AtomicU64,
    /// How often in a row it was not reached, where no rule watches.
    unreached: AtomicU32,
    /// When that was noted last.
    noted: AtomicU64,
    history: Mutex<History>,
}

impl Conduct {
    /// Whether it is left alone.
    pub fn is_ejected(&self) -> bool {
        // Relaxed: whoever sees it late sends it one more request.
        self.ejected.load(Ordering::Relaxed)
    }

    /// Whether it has come back and a request is finding out whether it works: others had better go elsewhere.
    pub fn is_tried(&self) -> bool {
        let probation = self.probation();
        probation.lasts() && probation.holds_others_back(load::now(), self.patience())
    }

    /// Notes, where no rule watches it, whether it could be reached. One that could not is tried by one request at a time
    /// until one gets through, and others go elsewhere.
    fn reach(&self, outcome: Outcome) {
        if matches!(outcome, Outcome::ConnectFailure | Outcome::ConnectTimeout) {
            // Those that were under way together count once.
            let noted = load::since(self.noted.load(Ordering::Relaxed));
            if self.unreached.load(Ordering::Relaxed) == 0 || noted >= self.patience() {
                self.noted.store(load::stamp(), Ordering::Relaxed);
                self.unreached.fetch_add(1, Ordering::Relaxed);
            }
            self.set_probation(Probation::begun().chosen(load::now()));
        } else if outcome != Outcome::Overflow && self.probation().lasts() {
            self.renew();
        }
    }

    /// How long others go elsewhere while one request tries it.
    fn patience(&self) -> Duration {
        probe_patience(self.unreached.load(Ordering::Relaxed))
    }

    /// It is reached again, or is another by that name: no rule watches, or nothing was noted.
    pub(super) fn renew(&self) {
        if self.unreached.swap(0, Ordering::Relaxed) > 0 {
            self.set_probation(Probation::default());
        }
    }

    /// A request is sent to it.
    pub(super) fn chosen(&self) {
        let probation = self.probation();
        if probation.lasts() {
            self.set_probation(probation.chosen(load::now()));
        }
    }

    fn probation(&self) -> Probation {
        // Relaxed, as below: it only guides the choice.
        Probation::from_bits(self.probation.load(Ordering::Relaxed))
    }

    fn set_probation(&self, probation: Probation) {
        self.probation.store(probation.to_bits(), Ordering::Relaxed);
    }

    /// Notes a signal. Returns what has become too much by it.
    fn hear(&self, signal: Signal, settings: &OutlierDetection) -> Reached {
        let probation = self.probation();
        if probation.lasts() {
            self.set_probation(probation.after(signal));
        }
        // Nearly always: nothing was wrong before and nothing is now.
        if signal == Signal::Nothing || (signal == Signal::Well && self.streaks.load(Ordering::Relaxed) == 0)
        {
            return Reached::default();
        }
        let mut reached = Reached::default();
        // Relaxed: the counts stand for themselves.
        let after = |bits| {
            let (streaks, now) = Streaks::from_bits(bits).after(signal, settings);
            reached = now;
            Some(streaks.to_bits())
        };
        let _always = self.streaks.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after);
        reached
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets everything: nobody looks any more.
    fn clear(&self) {
        self.streaks.store(0, Ordering::Relaxed);
        self.ejected.store(false, Ordering::Relaxed);
        self.set_probation(Probation::default());
        *self.history() = History::default();
    }
}

/// Handles of the metrics of a destination whose endpoints are watched.
#[derive(Debug)]
pub struct Watched {
    ejections: [Counter; 3],
    refused: Counter,
    ejected: Gauge,
}

impl Watched {
    /// Those of a cluster.
    pub fn new(metrics: &Metrics, cluster: &str) -> Watched {
        Watched {
            ejections: Cause::ALL.map(|cause| metrics.ejections(cluster, cause.name())),
            refused: metrics.ejections_refused(cluster),
            ejected: metrics.ejected(cluster),
        }
    }
}

impl LiveDestination {
    fn watched(&self) -> Option<(&OutlierDetection, &Watched)> {
        self.destination.policy.outlier_detection.as_ref().zip(self.watched.as_deref())
    }

    /// Notes how an attempt at an endpoint ended.
    pub fn note(&self, index: usize, outcome: Outcome) {
        let Some(endpoint) = self.endpoints.get(index) else { return };
        let Some((settings, watched)) = self.watched() else { return endpoint.state.conduct.reach(outcome) };
        let reached = endpoint.state.conduct.hear(settings.signal(outcome), settings);
        for cause in reached.causes() {
            self.eject(index, cause, settings, watched);
        }
    }

    /// Notes that its proxy could not hand a request to the application of an endpoint: as good as not reached, where no rule
    /// watches.
    pub fn note_untaken(&self, index: usize) {
        if self.watched().is_none()
            && let Some(endpoint) = self.endpoints.get(index)
            && matches!(endpoint.endpoint.transport, Transport::Mesh { .. })
        {
            endpoint.state.conduct.reach(Outcome::ConnectFailure);
        }
    }

    /// Notes that a byte stream was connected: as good as an answer.
    pub fn note_connected(&self, index: usize) {
        self.note(index, Outcome::Response { status: 200, grpc_status: None, rate_limited: false });
    }

    fn eject(&self, index: usize, cause: Cause, settings: &OutlierDetection, watched: &Watched) {
        let endpoint = &self.endpoints[index];
        let conduct = &endpoint.state.conduct;
        // One at a time, so that two never exceed the share together. Held for moments, and only when something is wrong.
        let watching = self.state.ejecting.lock().unwrap_or_else(PoisonError::into_inner);
        if !*watching || conduct.is_ejected() {
            return;
        }
        let (cluster, workload) = (&self.destination.cluster, &endpoint.endpoint.workload);
        let ejected = self.ejected();
        if !may_eject(settings, ejected, self.endpoints.len()) {
            watched.refused.increment(1);
            let (cause, endpoints) = (cause.name(), self.endpoints.len());
            tracing::debug!(%cluster, %workload, cause, ejected, endpoints, "not ejected: too many would be");
            return;
        }
        let time = conduct.history().eject(load::now(), settings);
        conduct.set_probation(Probation::default());
        conduct.ejected.store(true, Ordering::Relaxed);
        self.state.health_changed();
        watched.ejections[cause as usize].increment(1);
        watched.ejected.set((ejected + 1) as f64);
        let (address, cause, seconds) = (&endpoint.endpoint.address, cause.name(), time.as_secs_f64());
        tracing::warn!(%cluster, %workload, %address, cause, seconds, "an endpoint that fails is left alone");
    }

    /// How many endpoints are left alone.
    fn ejected(&self) -> usize {
        self.endpoints.iter().filter(|endpoint| endpoint.state.conduct.is_ejected()).count()
    }

    /// Lets those back whose time is over, and forgives the others.
    fn sweep(&self) {
        let Some((settings, watched)) = self.watched() else { return };
        let now = load::now();
        let mut changed = false;
        for endpoint in &self.endpoints {
            let conduct = &endpoint.state.conduct;
            if conduct.history().sweep(now, settings) == Swept::Returned {
                conduct.streaks.store(0, Ordering::Relaxed);
                conduct.set_probation(Probation::begun());
                conduct.ejected.store(false, Ordering::Relaxed);
                changed = true;
                let (cluster, workload) = (&self.destination.cluster, &endpoint.endpoint.workload);
                let address = &endpoint.endpoint.address;
                tracing::info!(%cluster, %workload, %address, "an endpoint that was left alone gets traffic again");
            }
        }
        if changed {
            self.state.health_changed();
        }
        watched.ejected.set(self.ejected() as f64);
    }
}

/// Endpoints are watched from now on or not: if not, what was known of them is void, and no request that still goes by older
/// tables ejects one.
pub(super) fn watch(state: &DestinationState, endpoints: &[LiveEndpoint], watched: bool) {
    let mut watching = state.ejecting.lock().unwrap_or_else(PoisonError::into_inner);
    *watching = watched;
    if !watched {
        let conducts = endpoints.iter().map(|endpoint| &endpoint.state.conduct);
        conducts.filter(|conduct| conduct.is_ejected()).for_each(Conduct::clear);
    }
}

/// The workloads that callers of this host leave alone.
pub type Ejected = BTreeSet<WorkloadKey>;

/// Lets endpoints back, for each destination as often as its rule says, and tells who is left alone; until dropped.
pub async fn keep(roots: Arc<Roots>, tell: watch::Sender<Ejected>) {
    let mut changed = roots.subscribe();
    let mut due: BTreeMap<DestinationKey, Instant> = BTreeMap::new();
    loop {
        changed.borrow_and_update();
        let watched: Vec<Arc<LiveDestination>> = {
            let root = roots.load();
            root.destinations.iter().filter(|live| live.watched().is_some()).cloned().collect()
        };
        due.retain(|key, _| watched.iter().any(|live| live.destination.policy.key == *key));
        loop {
            let now = Instant::now();
            for live in &watched {
                let policy = &live.destination.policy;
                let interval = policy.outlier_detection.as_ref().map_or(TELL, |settings| settings.interval);
                let at = due.entry(policy.key.clone()).or_insert(now + interval);
                if *at <= now {
                    live.sweep();
                    *at = now + interval;
                }
                *at = (*at).min(now + interval);
            }
            let ejected = ejected(&watched);
            tell.send_if_modified(|told| {
                let differs = *told != ejected;
                *told = ejected;
                differs
            });
            let next = due.values().min().map(|next| (*next).min(now + TELL));
            tokio::select! {
                result = changed.changed() => match result {
                    Ok(()) => break,
                    Err(_) => return,
                },
                () = load::until(next) => {}
            }
        }
    }
}

fn ejected(watched: &[Arc<LiveDestination>]) -> Ejected {
    let endpoints = watched.iter().flat_map(|live| &live.endpoints);
    let left_alone = endpoints.filter(|endpoint| endpoint.state.conduct.is_ejected());
    left_alone.map(|endpoint| endpoint.endpoint.workload.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_cannot_be_reached_is_left_to_one_request_at_a_time() {
        let conduct = Conduct::default();
        let well = Outcome::Response { status: 500, grpc_status: None, rate_limited: false };
        conduct.reach(well);
        assert!(!conduct.is_tried());
        for outcome in [Outcome::ConnectFailure, Outcome::ConnectTimeout] {
            conduct.reach(outcome);
            assert!(conduct.is_tried(), "{outcome:?}");
            // Nothing is under way there any more: whoever comes next tries it.
            conduct.set_probation(Probation::begun());
            assert!(!conduct.is_tried());
            conduct.chosen();
            assert!(conduct.is_tried());
            conduct.reach(Outcome::Overflow);
            assert!(conduct.is_tried());
            conduct.reach(well);
            assert!(!conduct.is_tried());
        }
    }

    #[test]
    fn one_request_tries_an_endpoint_that_is_back() {
        let settings = OutlierDetection { consecutive_5xx: 2, ..OutlierDetection::default() };
        let conduct = Conduct::default();
        let failed = Signal::Failed { gateway: false };
        assert!(conduct.hear(failed, &settings).is_nothing());
        assert!(conduct.hear(Signal::Well, &settings).is_nothing());
        assert!(conduct.hear(failed, &settings).is_nothing());
        assert!(!conduct.hear(failed, &settings).is_nothing());
        conduct.chosen();
        assert!(!conduct.is_tried());
        conduct.set_probation(Probation::begun());
        assert!(!conduct.is_tried());
        conduct.chosen();
        assert!(conduct.is_tried());
        // It failed: the next one tries it.
        conduct.hear(failed, &settings);
        assert!(!conduct.is_tried());
        conduct.chosen();
        conduct.hear(Signal::Well, &settings);
        conduct.chosen();
        assert!(!conduct.is_tried());
        conduct.clear();
        assert_eq!(conduct.streaks.load(Ordering::Relaxed), 0);
    }
}
