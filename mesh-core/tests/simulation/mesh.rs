//! Fifty services with five hundred endpoints, called through six proxies while parts of it fail.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use mesh_core::resilience::retry::{Tried, Verdict};
use mesh_core::vocab::outcome::Outcome;
use mesh_core::vocab::random::Random;

use crate::caller::{Caller, Service};
use crate::world::{ENDPOINTS, SERVICES, State, TROUBLE, World, ZONES};

/// Proxies, in the zones in turn.
const PROXIES: usize = 6;
/// After the trouble it takes so long until all is forgiven.
const END: Duration = Duration::from_secs(90 + 700);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrives,
    Tries(usize),
    Ends { request: usize, index: usize, outcome: usize, took: Duration },
    Sweeps(usize),
    Checks,
}

struct Request {
    caller: usize,
    began: Duration,
    tries: u32,
    tried: Vec<usize>,
    is_retrying: bool,
}

/// Why a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    NobodyLeft,
    Tries,
    Budget,
}

#[derive(Default)]
struct Counts {
    requests: u64,
    overflows: u64,
    retries: u64,
    failed: [u64; 3],
}

struct Mesh {
    now: Duration,
    random: Random,
    world: World,
    services: Vec<Service>,
    callers: Vec<Caller>,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    number: u64,
    requests: Vec<Request>,
    outcomes: Vec<Outcome>,
    counts: Counts,
}

/// Plays it, and checks all along what always holds.
pub(crate) fn run(seed: u64) -> String {
    let mut random = Random::seeded(seed);
    let world = World::new(&mut random);
    let services: Vec<Service> = (0..SERVICES).map(|_| Service::random(&mut random)).collect();
    let callers = (0..PROXIES * SERVICES)
        .map(|caller| {
            let (proxy, service) = (caller / SERVICES, caller % SERVICES);
            Caller::new(&services[service], proxy % ZONES, service * ENDPOINTS)
        })
        .collect();
    let mut mesh = Mesh {
        now: Duration::ZERO,
        random,
        world,
        services,
        callers,
        events: BinaryHeap::new(),
        number: 0,
        requests: Vec::new(),
        outcomes: Vec::new(),
        counts: Counts::default(),
    };
    mesh.at(Duration::ZERO, Event::Arrives);
    mesh.at(Duration::from_secs(1), Event::Checks);
    for caller in 0..mesh.callers.len() {
        let interval = mesh.service(caller).outliers.interval;
        mesh.at(interval, Event::Sweeps(caller));
    }
    while let Some(Reverse((at, _, event))) = mesh.events.pop() {
        mesh.now = at;
        mesh.happens(event);
    }
    mesh.rests();
    let Counts { requests, overflows, retries, failed } = mesh.counts;
    let ejections: u64 = mesh.callers.iter().map(|caller| caller.ejections).sum();
    let [nobody, tries, budget] = failed;
    assert!(requests > 10_000 && retries > 100 && ejections > 50);
    // Whatever happens, it stays small.
    assert!((nobody + tries + budget) * 50 < requests, "{failed:?} of {requests}");
    format!(
        "{requests} requests, {retries} retries, {ejections} ejections; failed: {nobody} with nobody left, {tries} after \
         all tries, {budget} without budget; {overflows} too many"
    )
}

impl Mesh {
    fn at(&mut self, time: Duration, event: Event) {
        self.number += 1;
        self.events.push(Reverse((time, self.number, event)));
    }

    fn service(&self, caller: usize) -> &Service {
        &self.services[caller % SERVICES]
    }

    fn happens(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Arrives => {
                self.arrives();
                // Many while there is trouble, some later.
                let pause = if now < TROUBLE { 5_000 } else { 100_000 };
                let next = now + Duration::from_micros(self.random.below(pause));
                if next < END {
                    self.at(next, Event::Arrives);
                }
            }
            Event::Tries(request) => self.tries(request),
            Event::Ends { request, index, outcome, took } => {
                self.ends(request, index, self.outcomes[outcome], took)
            }
            Event::Sweeps(caller) => {
                let service = &self.services[caller % SERVICES];
                if self.callers[caller].sweep(service, now) {
                    self.callers[caller].lay(service);
                }
                let next = now + service.outliers.interval;
                if next < END {
                    self.at(next, Event::Sweeps(caller));
                }
            }
            Event::Checks => {
                self.checks();
                if now < END {
                    self.at(now + Duration::from_secs(1), Event::Checks);
                }
            }
        }
    }

    /// What does not take connections is taken out by its own checks, for everybody.
    fn checks(&mut self) {
        for (number, caller) in self.callers.iter_mut().enumerate() {
            let mut changed = false;
            for (index, host) in caller.hosts.iter_mut().enumerate() {
                let is_out = self.world.state(caller.first + index, self.now) == State::Crashed;
                changed |= host.is_out != is_out;
                host.is_out = is_out;
            }
            if changed {
                caller.lay(&self.services[number % SERVICES]);
            }
        }
    }

    fn arrives(&mut self) {
        self.counts.requests += 1;
        let caller = self.random.below(self.callers.len() as u64) as usize;
        let service = &self.services[caller % SERVICES];
        if !self.callers[caller].enter(service) {
            self.counts.overflows += 1;
            return;
        }
        let request = Request { caller, began: self.now, tries: 0, tried: Vec::new(), is_retrying: false };
        self.requests.push(request);
        self.tries(self.requests.len() - 1);
    }

    fn tries(&mut self, number: usize) {
        let request = &mut self.requests[number];
        let caller = &mut self.callers[request.caller];
        let Some(index) = caller.choose(&request.tried, self.now, &mut self.random) else {
            return self.fails(number, Why::NobodyLeft);
        };
        request.tries += 1;
        caller.send(index, self.now);
        let endpoint = caller.first + index;
        let (outcome, took) = self.world.attempt(caller.zone, endpoint, self.now, &mut self.random);
        self.outcomes.push(outcome);
        let outcome = self.outcomes.len() - 1;
        self.at(self.now + took, Event::Ends { request: number, index, outcome, took });
    }

    fn ends(&mut self, number: usize, index: usize, outcome: Outcome, took: Duration) {
        let now = self.now;
        let request = &mut self.requests[number];
        let service = &self.services[request.caller % SERVICES];
        let caller = &mut self.callers[request.caller];
        if caller.end(service, index, outcome, took, now) {
            caller.lay(service);
        }
        if std::mem::take(&mut request.is_retrying) {
            caller.retries -= 1;
        }
        let tried = Tried { tries: request.tries, repeatable: true, nested: false, given_up: false };
        match service.retry.verdict(outcome, tried) {
            Verdict::Final => caller.requests -= 1,
            Verdict::Exhausted => {
                request.tried.push(index);
                self.fails(number, Why::Tries);
            }
            Verdict::Again { charged } => {
                request.tried.push(index);
                if !caller.retry(service, charged, now) {
                    return self.fails(number, Why::Budget);
                }
                request.is_retrying = true;
                self.counts.retries += 1;
                let wait = service.retry.wait(request.tries, &mut self.random);
                self.at(now + wait, Event::Tries(number));
            }
        }
    }

    /// A request has failed: it did so for a reason.
    fn fails(&mut self, number: usize, why: Why) {
        self.counts.failed[why as usize] += 1;
        let request = &self.requests[number];
        let caller = &mut self.callers[request.caller];
        caller.requests -= 1;
        let caller = &self.callers[request.caller];
        let attempts = self.service(request.caller).retry.attempts;
        assert!(why != Why::Tries || request.tries == attempts + 1);
        if why == Why::Budget || (why == Why::Tries && (attempts as usize) < ENDPOINTS) {
            return;
        }
        // Retries would have allowed to ask everybody: so there was nobody who worked all the time and was known to.
        for index in 0..ENDPOINTS {
            let works = self.world.works(caller.zone, caller.first + index, request.began, self.now);
            let was_there = works && caller.hosts[index].is_usable();
            assert!(!was_there, "{why:?}: {index} works, and {:?} were tried", request.tried);
        }
    }

    /// All is over: nothing is left of it.
    fn rests(&mut self) {
        let (now, services) = (self.now, &self.services);
        for (number, caller) in self.callers.iter_mut().enumerate() {
            let service = &services[number % SERVICES];
            assert_eq!((caller.requests, caller.retries), (0, 0), "places were not given back");
            for (index, host) in caller.hosts.iter().enumerate() {
                assert_eq!(host.in_flight, 0, "a request is still under way");
                assert!(host.is_usable(), "{index} is not back (ejected: {})", caller.is_ejected(index));
            }
            // The shares are those that were declared.
            if service.by_zone || !number.is_multiple_of(7) {
                continue;
            }
            const PICKS: usize = 2_000;
            let seen = caller.shares(PICKS, now, &mut self.random);
            let total: u32 = service.weights.iter().sum();
            for (seen, weight) in seen.iter().zip(&service.weights) {
                let expected = f64::from(*weight) / f64::from(total);
                let deviation = (expected * (1.0 - expected) * PICKS as f64).sqrt();
                let off = (*seen as f64 - expected * PICKS as f64).abs();
                assert!(off <= 5.0 * deviation + 1.0, "{seen} of {PICKS} at weight {weight} of {total}");
            }
        }
    }
}
