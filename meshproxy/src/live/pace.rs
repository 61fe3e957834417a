//! Endpoints that answer much more slowly than their neighbours, as attempts show. One atomic of its endpoint is written for an
//! answer; ten times a second at most one of the answers looks who is slow. What is known outlives the tables.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use mesh_core::balancing::balancer::LoadBalancer;
use mesh_core::balancing::pace::{FEWEST, LOOK, Pace, slowness, usual};
use mesh_core::balancing::policy::Algorithm;
use mesh_core::tables::destinations::Destination;
use mesh_core::vocab::outcome::Outcome;

use super::destination::LiveDestination;
use super::load;

/// How fast an endpoint answers.
#[derive(Debug, Default)]
pub struct Pacing {
    pace: AtomicU64,
    /// What follows from it; 0 for nothing.
    slowness: AtomicU32,
}

impl Pacing {
    /// How many times as long as usual it takes, if it stands out; else 1.
    pub(super) fn slowness(&self) -> u32 {
        // Relaxed, as all here: figures that guide the choice.
        self.slowness.load(Ordering::Relaxed).max(1)
    }

    fn note(&self, took: Duration, now: Duration) {
        // An answer lost to another thread is no loss.
        let pace = Pace::from_bits(self.pace.load(Ordering::Relaxed));
        self.pace.store(pace.after(took, self.slowness() > 1, now).to_bits(), Ordering::Relaxed);
    }

    fn micros(&self, now: Duration) -> Option<u32> {
        Pace::from_bits(self.pace.load(Ordering::Relaxed)).micros(now)
    }
}

/// Whether the endpoints of a destination are compared: where the least busy one is chosen, and there are enough.
pub(super) fn is_paced(destination: &Destination, endpoints: usize) -> bool {
    destination.policy.load_balancer == Algorithm::Simple(LoadBalancer::LeastRequest) && endpoints >= FEWEST
}

impl LiveDestination {
    /// The beginning of an attempt, where it matters how long it takes.
    pub fn begin(&self) -> Option<u64> {
        self.is_paced.then(load::stamp)
    }

    /// Notes how long an attempt that began then took to be answered.
    pub fn note_pace(&self, index: usize, outcome: Outcome, begun: u64) {
        let counts = matches!(outcome, Outcome::Response { .. } | Outcome::AttemptTimeout);
        let Some(endpoint) = self.endpoints.get(index).filter(|_| counts) else { return };
        let now = load::now();
        endpoint.state.pacing.note(now.saturating_sub(Duration::from_nanos(begun)), now);
        let looked = self.state.looked.load(Ordering::Relaxed);
        if load::since(looked) >= LOOK {
            let stamp = load::stamp();
            let mine =
                self.state.looked.compare_exchange(looked, stamp, Ordering::Relaxed, Ordering::Relaxed);
            if mine.is_ok() {
                self.look(now);
            }
        }
    }

    fn look(&self, now: Duration) {
        let pacings = || self.endpoints.iter().map(|endpoint| &endpoint.state.pacing);
        let mut known: Vec<u32> = pacings().filter_map(|pacing| pacing.micros(now)).collect();
        let usual = usual(&mut known);
        for pacing in pacings() {
            let slow = usual.zip(pacing.micros(now)).map_or(1, |(usual, own)| slowness(own, usual));
            if pacing.slowness() != slow {
                pacing.slowness.store(slow, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_is_nobody_until_it_is_looked() {
        let (pacing, now) = (Pacing::default(), Duration::from_secs(1));
        assert_eq!((pacing.slowness(), pacing.micros(now)), (1, None));
        for _ in 0..4 {
            pacing.note(Duration::from_millis(50), now);
        }
        assert_eq!((pacing.slowness(), pacing.micros(now)), (1, Some(50_000)));
        pacing.slowness.store(10, Ordering::Relaxed);
        pacing.note(Duration::from_millis(10), now);
        assert_eq!((pacing.slowness(), pacing.micros(now)), (10, Some(30_000)));
    }
}
