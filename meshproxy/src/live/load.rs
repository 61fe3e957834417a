//! What endpoints report of their load, and the shares that follow from it; the time of what is remembered in atomics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use mesh_core::balancing::utilization::{LoadReport, Reported, Standing, Utilization, shares};
use mesh_core::tables::destinations::Destination;
use tokio::time::Instant;

use super::endpoint::{EndpointState, LiveEndpoint};

/// Times of reports count from here.
static BEGINNING: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);

/// How long this process has measured time.
pub(super) fn now() -> Duration {
    // Never zero, which stands for never.
    BEGINNING.elapsed() + Duration::from_nanos(1)
}

/// The same as a number, for an atomic.
pub(super) fn stamp() -> u64 {
    nanos(now())
}

/// How long ago such a number was taken.
pub(super) fn since(stamp: u64) -> Duration {
    now().saturating_sub(Duration::from_nanos(stamp))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What is remembered of an endpoint's reports.
#[derive(Debug, Default)]
pub struct ReportedLoad {
    weight: AtomicU64,
    last: AtomicU64,
    since: AtomicU64,
}

impl ReportedLoad {
    fn note(&self, weight: f64) {
        let now = stamp();
        // Relaxed: each is of use by itself, and `since` makes the first ones seen.
        self.weight.store(weight.to_bits(), Ordering::Relaxed);
        self.last.store(now, Ordering::Relaxed);
        if self.since.load(Ordering::Relaxed) == 0 {
            self.since.store(now, Ordering::Release);
        }
    }

    /// The weight by the last report if it counts. After too long a silence the endpoint begins anew.
    fn weight(&self, utilization: &Utilization) -> Option<f64> {
        let since = self.since.load(Ordering::Acquire);
        if since == 0 {
            return None;
        }
        let reported = Reported {
            weight: f64::from_bits(self.weight.load(Ordering::Relaxed)),
            since: Duration::from_nanos(since),
            last: Duration::from_nanos(self.last.load(Ordering::Relaxed)),
        };
        match utilization.standing(&reported, now()) {
            Standing::Counts(weight) => Some(weight),
            Standing::NotYet => None,
            Standing::NoMore => {
                self.since.store(0, Ordering::Relaxed);
                None
            }
        }
    }
}

/// Hears the reports of one endpoint, for a destination that goes by them.
#[derive(Debug, Clone)]
pub struct Ear {
    destination: Arc<Destination>,
    endpoint: Arc<EndpointState>,
}

impl Ear {
    pub(super) fn of(destination: &Arc<Destination>, endpoint: &LiveEndpoint) -> Option<Ear> {
        destination.policy.load_balancer.utilization()?;
        Some(Ear { destination: Arc::clone(destination), endpoint: Arc::clone(&endpoint.state) })
    }

    /// Takes a report; `false` if it does not say enough.
    pub fn hear(&self, report: &LoadReport) -> bool {
        let utilization = self.destination.policy.load_balancer.utilization();
        let weight = utilization.and_then(|utilization| utilization.weight(report));
        if let Some(weight) = weight {
            self.endpoint.load.note(weight);
        }
        weight.is_some()
    }
}

/// The shares of endpoints that follow from what they reported.
pub(super) fn weigh(utilization: &Utilization, endpoints: &[LiveEndpoint], indices: &[usize]) -> Vec<u32> {
    let known: Vec<Option<f64>> =
        indices.iter().map(|index| endpoints[*index].state.load.weight(utilization)).collect();
    shares(&known)
}

/// Resolves at that time, if there is one.
pub(super) async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
