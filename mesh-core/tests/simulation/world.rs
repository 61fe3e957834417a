//! What really happens: which endpoint works when, and for whom.

use std::time::Duration;

use mesh_core::vocab::outcome::Outcome;
use mesh_core::vocab::random::Random;

/// Zones of the world.
pub(crate) const ZONES: usize = 3;
/// Services.
pub(crate) const SERVICES: usize = 50;
/// Endpoints of each.
pub(crate) const ENDPOINTS: usize = 10;
/// Faults begin and end within this.
pub(crate) const TROUBLE: Duration = Duration::from_secs(90);
/// Time for one try.
pub(crate) const PATIENCE: Duration = Duration::from_millis(500);

/// What an endpoint does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Up,
    /// Nobody listens.
    Crashed,
    /// Connections are taken and nothing is answered.
    Hangs,
    /// It takes ten times as long.
    Slow,
    /// It answers half of all with 503.
    Errs,
}

#[derive(Debug, Clone, Copy)]
struct Fault {
    from: Duration,
    to: Duration,
    state: State,
}

/// All faults there will be.
pub(crate) struct World {
    endpoints: Vec<Vec<Fault>>,
    /// Between which zones nothing passes: from, to, zone of the caller, zone of the endpoint.
    cuts: Vec<(Duration, Duration, usize, usize)>,
}

fn within(random: &mut Random, from: Duration, to: Duration) -> Duration {
    let micros = random.below(u64::try_from((to - from).as_micros()).unwrap_or(0));
    from + Duration::from_micros(micros)
}

impl World {
    pub(crate) fn new(random: &mut Random) -> World {
        let mut world = World { endpoints: vec![Vec::new(); SERVICES * ENDPOINTS], cuts: Vec::new() };
        let states = [State::Crashed, State::Hangs, State::Slow, State::Errs];
        for _ in 0..120 {
            let endpoint = random.below(world.endpoints.len() as u64) as usize;
            let state = states[random.below(4) as usize];
            let from = within(random, Duration::from_secs(5), TROUBLE);
            let to = within(random, from, TROUBLE);
            if random.below(4) > 0 {
                world.endpoints[endpoint].push(Fault { from, to, state });
                continue;
            }
            // It comes and goes.
            for turn in 0..10 {
                let from = from + Duration::from_millis(turn * 1_300);
                world.endpoints[endpoint].push(Fault { from, to: from + Duration::from_millis(700), state });
            }
        }
        // Half of the time one zone is lost.
        if random.below(2) == 0 {
            let (zone, from) = (random.below(ZONES as u64) as usize, Duration::from_secs(40));
            let to = from + Duration::from_secs(15);
            for (endpoint, faults) in world.endpoints.iter_mut().enumerate() {
                if zone_of(endpoint) == zone {
                    faults.push(Fault { from, to, state: State::Crashed });
                }
            }
        }
        for _ in 0..2 {
            let from = within(random, Duration::from_secs(5), TROUBLE - Duration::from_secs(10));
            let (one, other) = (random.below(3) as usize, random.below(3) as usize);
            world.cuts.push((from, from + Duration::from_secs(8), one, other));
        }
        world
    }

    pub(crate) fn state(&self, endpoint: usize, now: Duration) -> State {
        let faults = self.endpoints[endpoint].iter();
        let mut now = faults.filter(|fault| fault.from <= now && now < fault.to);
        now.next_back().map_or(State::Up, |fault| fault.state)
    }

    pub(crate) fn is_cut(&self, zone: usize, endpoint: usize, now: Duration) -> bool {
        let mut cuts = self.cuts.iter();
        cuts.any(|cut| cut.0 <= now && now < cut.1 && cut.2 == zone && cut.3 == zone_of(endpoint))
    }

    /// Whether an endpoint works for callers of a zone from a moment to another one, and does so in good time.
    pub(crate) fn works(&self, zone: usize, endpoint: usize, from: Duration, to: Duration) -> bool {
        let disjoint = |begin: Duration, end: Duration| end <= from || to < begin;
        self.endpoints[endpoint].iter().all(|fault| disjoint(fault.from, fault.to))
            && self
                .cuts
                .iter()
                .all(|cut| cut.2 != zone || cut.3 != zone_of(endpoint) || disjoint(cut.0, cut.1))
    }

    /// How an attempt that begins now ends, and when.
    pub(crate) fn attempt(
        &self,
        zone: usize,
        endpoint: usize,
        now: Duration,
        random: &mut Random,
    ) -> (Outcome, Duration) {
        let answer = |status| Outcome::Response { status, grpc_status: None, rate_limited: false };
        if self.is_cut(zone, endpoint, now) {
            return (Outcome::AttemptTimeout, PATIENCE);
        }
        let time = Duration::from_micros(3_000 + random.below(4_000));
        let (outcome, took) = match self.state(endpoint, now) {
            State::Crashed => return (Outcome::ConnectFailure, Duration::from_millis(1)),
            State::Hangs => return (Outcome::AttemptTimeout, PATIENCE),
            State::Slow => (answer(200), time * 10),
            State::Errs if random.below(2) == 0 => (answer(503), Duration::from_millis(1)),
            State::Up | State::Errs => (answer(200), time),
        };
        // It may not live to see the end.
        match self.state(endpoint, now + took) {
            State::Crashed => (Outcome::Reset { before_request: false }, took),
            _ => (outcome, took),
        }
    }
}

pub(crate) fn zone_of(endpoint: usize) -> usize {
    endpoint % ZONES
}
