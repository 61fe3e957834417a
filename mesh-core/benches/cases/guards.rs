//! What one request costs that a destination with limits, watched endpoints and retries adds: the same steps without and with.

use std::hint::black_box;
use std::time::Duration;

use mesh_core::balancing::balancer::{LoadBalancer, LoadView, for_attempt};
use mesh_core::balancing::choice::{Choice, Member};
use mesh_core::balancing::pace::Pace;
use mesh_core::balancing::policy::Algorithm;
use mesh_core::resilience::ejection::Probation;
use mesh_core::resilience::outlier::{OutlierDetection, Signal, Streaks};
use mesh_core::resilience::pool::{ConnectionPool, Limited};
use mesh_core::resilience::retry::{RetryPolicy, Tried};
use mesh_core::vocab::outcome::Outcome;
use mesh_core::vocab::random::Random;

use super::Run;

/// What is kept of an endpoint.
#[derive(Clone, Default)]
struct Host {
    active: u32,
    ejected: bool,
    slowness: u32,
    probation: Probation,
    streaks: u64,
    pace: u64,
}

struct Plain<'a>(&'a [Host]);

impl LoadView for Plain<'_> {
    fn active(&self, index: usize) -> u32 {
        self.0[index].active
    }
    fn usable(&self, _: usize) -> bool {
        true
    }
}

struct Guarded<'a>(&'a [Host], &'a [usize], bool);

impl LoadView for Guarded<'_> {
    fn active(&self, index: usize) -> u32 {
        self.0[index].active
    }
    fn usable(&self, index: usize) -> bool {
        let host = &self.0[index];
        let waits = self.2 && host.probation.lasts();
        !host.ejected && !self.1.contains(&index) && !waits
    }
    fn slowness(&self, index: usize) -> u32 {
        self.0[index].slowness
    }
}

fn choice(size: usize) -> Choice {
    let members = (0..size).map(|index| Member { index, weight: 1, key: index as u64 });
    Choice::new(&Algorithm::Simple(LoadBalancer::LeastRequest), members.collect())
}

fn hosts(size: usize) -> Vec<Host> {
    let host = |index: usize| Host { active: index as u32 % 7, slowness: 1, ..Host::default() };
    (0..size).map(host).collect()
}

const ANSWER: Outcome = Outcome::Response { status: 200, grpc_status: None, rate_limited: false };

/// Chosen, and answered.
pub(crate) fn off(size: usize) -> Run {
    let (choice, hosts, mut random) = (choice(size), hosts(size), Random::seeded(1));
    Box::new(move || {
        black_box(choice.pick(&Plain(&hosts), None, || 0, &mut random));
        black_box(black_box(ANSWER).status());
    })
}

/// The same with everything that may be declared.
pub(crate) fn on(size: usize) -> Run {
    let (choice, mut hosts, mut random) = (choice(size), hosts(size), Random::seeded(1));
    let pool = ConnectionPool {
        max_connections: Some(1_000),
        max_pending_requests: Some(1_000),
        max_requests: Some(1_000),
        ..ConnectionPool::default()
    };
    let (limits, settings, retry) = (pool.limits(None), OutlierDetection::default(), RetryPolicy::default());
    let mut now = Duration::ZERO;
    Box::new(move || {
        now += Duration::from_micros(500);
        let pick = |tried: &[usize], patient, random: &mut Random| {
            choice.pick(&Guarded(&hosts, tried, patient), None, || 0, random)
        };
        let index = for_attempt(&[], |tried, patient| pick(tried, patient, &mut random)).unwrap_or(0);
        black_box(limits.may_connect(black_box(3), black_box(1)));
        for what in [Limited::Connections, Limited::Requests] {
            black_box(limits.one_more(what, black_box(3)));
        }
        let (outcome, host) = (black_box(ANSWER), &mut hosts[index]);
        host.probation = host.probation.chosen(now);
        let signal = settings.signal(outcome);
        if signal != Signal::Well || host.streaks != 0 {
            host.streaks = Streaks::from_bits(host.streaks).after(signal, &settings).0.to_bits();
        }
        let took = black_box(Duration::from_micros(900));
        host.pace = Pace::from_bits(host.pace).after(took, host.slowness > 1, now).to_bits();
        let tried = Tried { tries: 1, repeatable: true, nested: false, given_up: false };
        black_box(retry.verdict(outcome, black_box(tried)));
    })
}
