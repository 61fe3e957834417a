//! Retries of a destination, counted by all data threads together: what they may be and how many are under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use mesh_core::resilience::budget::{RetryRate, most_at_once};

use super::destination::{DestinationState, LiveDestination};
use super::load;

/// The account of a destination; outlives the tables that name it.
#[derive(Debug, Default)]
pub struct Retries {
    requests: AtomicU64,
    spent: AtomicU64,
    under_way: AtomicU32,
}

/// Why a retry was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// As many are under way as the rule allows.
    AtOnce,
    /// What requests and time have earned is spent.
    Budget,
}

impl Refused {
    /// The word in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Refused::AtOnce => "retries",
            Refused::Budget => "retry_budget",
        }
    }
}

/// A retry that is under way.
#[derive(Debug)]
pub struct RetryPlace(Arc<DestinationState>);

impl Drop for RetryPlace {
    fn drop(&mut self) {
        self.0.retries.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Retries {
    /// A request has come that may be tried more than once.
    pub fn note_request(&self) {
        // Relaxed: a figure that only grows.
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Pays for one retry.
    fn pay(&self, rate: &RetryRate) -> bool {
        let earned = rate.earned(self.requests.load(Ordering::Relaxed), load::now());
        let spend = |spent| rate.spend(spent, earned);
        self.spent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_ok()
    }
}

impl LiveDestination {
    /// How many retries are under way, and how many are earned and not spent; `None` where nothing was to be retried yet.
    pub fn retry_account(&self) -> Option<(u32, u64)> {
        let retries = &self.state.retries;
        let requests = retries.requests.load(Ordering::Relaxed);
        let rate = RetryRate::default();
        let left = rate.left(retries.spent.load(Ordering::Relaxed), rate.earned(requests, load::now()));
        (requests > 0).then(|| (retries.under_way.load(Ordering::Relaxed), left))
    }

    /// Whether there may be one more retry. `charged` is whether the budget pays for it, which a rule's own budget stands
    /// in the place of.
    pub fn retry(&self, charged: bool) -> Result<RetryPlace, Refused> {
        let policy = &self.destination.policy;
        let budget = policy.retry_budget.as_ref();
        let under_way = match budget {
            Some(_) => self.endpoints.iter().map(|one| u64::from(one.state.in_flight())).sum(),
            None => 0,
        };
        let retries = &self.state.retries;
        let most = most_at_once(budget, &policy.pool, under_way).unwrap_or(u64::MAX);
        let one_more = |taken: u32| (u64::from(taken) < most).then_some(taken + 1);
        let taken = retries.under_way.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        taken.map_err(|_| Refused::AtOnce)?;
        let place = RetryPlace(Arc::clone(&self.state));
        if charged && budget.is_none() && !retries.pay(&RetryRate::default()) {
            return Err(Refused::Budget);
        }
        Ok(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_together_spend_no_more_than_was_earned() {
        let retries = Arc::new(Retries::default());
        let rate = RetryRate { per_second: 0, saved: 5, ..RetryRate::default() };
        let run = || {
            let retries = Arc::clone(&retries);
            move || {
                let one = |_| {
                    retries.note_request();
                    retries.pay(&rate)
                };
                (0..1000).map(one).filter(|paid| *paid).count()
            }
        };
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(run())).collect();
        let paid: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert!((700..=805).contains(&paid), "{paid}");
    }
}
