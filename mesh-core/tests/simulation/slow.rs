//! One of ten endpoints is ten times as slow as the others, under `LEAST_REQUEST`; later it is not.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use mesh_core::balancing::balancer::LoadBalancer;
use mesh_core::balancing::policy::Algorithm;
use mesh_core::vocab::outcome::Outcome;
use mesh_core::vocab::random::Random;

use crate::caller::{Caller, Service};

const ANSWER: Outcome = Outcome::Response { status: 200, grpc_status: None, rate_limited: false };
const REQUESTS: usize = 20_000;

struct Load {
    caller: Caller,
    service: Service,
    random: Random,
    now: Duration,
    /// When each connection's answer comes, of whom, and how long it took.
    under_way: BinaryHeap<Reverse<(Duration, usize, Duration)>>,
}

impl Load {
    fn send(&mut self, slow: bool) {
        let chosen = self.caller.choose(&[], self.now, &mut self.random);
        assert!(chosen.is_some());
        let index = chosen.unwrap_or_default();
        self.caller.send(index, self.now);
        let time = Duration::from_micros(4_000 + self.random.below(2_000));
        let took = if slow && index == 3 { time * 10 } else { time };
        self.under_way.push(Reverse((self.now + took, index, took)));
    }

    /// So many requests over so many connections: the share of the one in parts of a hundred thousand, and the 99th percentile.
    fn run(&mut self, slow: bool) -> (usize, Duration) {
        let (mut times, mut its) = (Vec::new(), 0);
        while times.len() < REQUESTS {
            let Some(Reverse((at, index, took))) = self.under_way.pop() else { break };
            self.now = at;
            self.caller.end(&self.service, index, ANSWER, took, at);
            times.push(took);
            its += usize::from(index == 3);
            self.send(slow);
        }
        times.sort_unstable();
        (its * 100_000 / REQUESTS, times[REQUESTS * 99 / 100])
    }
}

pub(crate) fn run(seed: u64) {
    for connections in [1, 4, 32, 200] {
        let mut random = Random::seeded(seed);
        let mut service = Service::random(&mut random);
        service.algorithm = Algorithm::Simple(LoadBalancer::LeastRequest);
        (service.by_zone, service.weights) = (false, vec![1; crate::world::ENDPOINTS]);
        let caller = Caller::new(&service, 0, 0);
        let mut load = Load { caller, service, random, now: Duration::ZERO, under_way: BinaryHeap::new() };
        for _ in 0..connections {
            load.send(false);
        }
        let (even, healthy) = load.run(false);
        assert!((9_000..11_000).contains(&even), "{connections}: {even}");
        let (share, p99) = load.run(true);
        assert!(share < 1_000, "{connections}: {share}");
        assert!(p99 * 2 <= healthy * 3, "{connections}: {p99:?} in place of {healthy:?}");
        // It is found out that it is not slow any more.
        let mut again = 0;
        for _ in 0..20 {
            again = load.run(false).0;
            if again > 9_000 {
                break;
            }
        }
        assert!((9_000..11_000).contains(&again), "{connections}: {again}");
    }
}
