//! One proxy's view of one service: what it has learned, and how it decides.

use std::time::Duration;

use mesh_core::balancing::balancer::{LoadBalancer, LoadView, for_attempt};
use mesh_core::balancing::layers::{Candidate, Condition, Layers, Localities, Manner};
use mesh_core::balancing::locality::Preference;
use mesh_core::balancing::pace::{LOOK, Pace, slowness, usual};
use mesh_core::balancing::policy::Algorithm;
use mesh_core::balancing::priority::{Place, arrange};
use mesh_core::resilience::budget::{RetryRate, most_at_once};
use mesh_core::resilience::ejection::{History, Probation, Swept, may_eject, probe_patience};
use mesh_core::resilience::outlier::{OutlierDetection, Signal, Streaks};
use mesh_core::resilience::pool::{ConnectionPool, Limited, PoolLimits};
use mesh_core::resilience::retry::{RetryCondition, RetryPolicy};
use mesh_core::vocab::label::Labels;
use mesh_core::vocab::locality::Locality;
use mesh_core::vocab::outcome::Outcome;
use mesh_core::vocab::random::Random;

use crate::world::{ENDPOINTS, PATIENCE, zone_of};

/// What is declared for a service.
pub(crate) struct Service {
    pub(crate) algorithm: Algorithm,
    pub(crate) by_zone: bool,
    pub(crate) weights: Vec<u32>,
    pub(crate) outliers: OutlierDetection,
    pub(crate) limits: PoolLimits,
    pub(crate) retry: RetryPolicy,
}

impl Service {
    pub(crate) fn random(random: &mut Random) -> Service {
        let mut one_of = |all: &[u32]| all[random.below(all.len() as u64) as usize];
        let balancers = [LoadBalancer::LeastRequest, LoadBalancer::RoundRobin, LoadBalancer::Random];
        let algorithm = Algorithm::Simple(balancers[one_of(&[0, 0, 1, 2]) as usize]);
        let weighted = one_of(&[0, 0, 1]) == 1;
        Service {
            algorithm,
            by_zone: one_of(&[0, 1]) == 1,
            weights: (0..ENDPOINTS).map(|_| if weighted { one_of(&[1, 2, 3]) } else { 1 }).collect(),
            outliers: OutlierDetection {
                consecutive_5xx: one_of(&[1, 3, 5]),
                consecutive_gateway: one_of(&[0, 2]),
                split_local_origin: one_of(&[0, 1]) == 1,
                consecutive_local_origin: one_of(&[1, 3]),
                interval: Duration::from_secs(u64::from(one_of(&[1, 5, 10]))),
                base_ejection_time: Duration::from_secs(u64::from(one_of(&[3, 10, 30]))),
                max_ejection_percent: one_of(&[10, 34, 50, 100]),
                min_health_percent: one_of(&[0, 0, 50]),
                ..OutlierDetection::default()
            },
            limits: ConnectionPool {
                max_requests: Some(one_of(&[1, 1_000])),
                max_retries: Some(one_of(&[3, 1_000])),
                ..ConnectionPool::default()
            }
            .limits(None),
            retry: RetryPolicy {
                attempts: one_of(&[2, 2, ENDPOINTS as u32]),
                on: vec![RetryCondition::FiveXx],
                per_try_timeout: Some(PATIENCE),
                ..RetryPolicy::default()
            },
        }
    }
}

/// What is known of an endpoint.
#[derive(Default, Clone)]
pub(crate) struct Host {
    streaks: Streaks,
    history: History,
    ejected: Option<Duration>,
    probation: Probation,
    pub(crate) in_flight: u32,
    pace: Pace,
    slowness: u32,
    pub(crate) is_out: bool,
}

impl Host {
    pub(crate) fn is_usable(&self) -> bool {
        !self.is_out && self.ejected.is_none()
    }
}

/// A proxy's view of a service.
pub(crate) struct Caller {
    pub(crate) zone: usize,
    /// Number of the service's first endpoint.
    pub(crate) first: usize,
    pub(crate) hosts: Vec<Host>,
    layers: Layers,
    turn: u64,
    looked: Duration,
    pub(crate) requests: u32,
    pub(crate) retries: u32,
    /// For the budget: requests, and parts of retries that were spent.
    asked: u64,
    spent: u64,
    pub(crate) charged: u64,
    pub(crate) ejections: u64,
}

struct View<'a> {
    hosts: &'a [Host],
    tried: &'a [usize],
    patient: bool,
    now: Duration,
}

impl LoadView for View<'_> {
    fn active(&self, index: usize) -> u32 {
        self.hosts[index].in_flight
    }
    fn usable(&self, index: usize) -> bool {
        let host = &self.hosts[index];
        let waits = self.patient && host.probation.holds_others_back(self.now, probe_patience(0));
        host.is_usable() && !self.tried.contains(&index) && !waits
    }
    fn reachable(&self, index: usize) -> bool {
        !self.hosts[index].is_out && !self.tried.contains(&index)
    }
    fn slowness(&self, index: usize) -> u32 {
        self.hosts[index].slowness
    }
}

impl Caller {
    pub(crate) fn new(service: &Service, zone: usize, first: usize) -> Caller {
        let mut caller = Caller {
            zone,
            first,
            hosts: vec![Host::default(); ENDPOINTS],
            layers: Layers::default(),
            turn: 0,
            looked: Duration::ZERO,
            requests: 0,
            retries: 0,
            asked: 0,
            spent: 0,
            charged: 0,
            ejections: 0,
        };
        caller.lay(service);
        caller
    }

    /// Lays endpoints out as they are known now.
    pub(crate) fn lay(&mut self, service: &Service) {
        let localities: Vec<Locality> = (0..ENDPOINTS)
            .map(|index| Locality::parse(&format!("r/z{}", zone_of(self.first + index))))
            .collect();
        let (own, labels) = (Locality::parse(&format!("r/z{}", self.zone)), Labels::default());
        let place = |locality| Place { locality, labels: &labels, network: None, node: None };
        let preference = if service.by_zone {
            Preference::Order { labels: Vec::new(), regions: Some(Vec::new()) }
        } else {
            Preference::None
        };
        let endpoints: Vec<(Place<'_>, u32)> =
            localities.iter().map(place).zip(service.weights.iter().copied()).collect();
        let standings = arrange(&preference, &place(&own), &endpoints);
        let candidate = |(index, host): (usize, &Host)| Candidate {
            index,
            key: index as u64,
            standing: standings[index],
            weight: standings[index].weight,
            locality: 0,
            condition: match (host.is_out, host.ejected) {
                (true, _) => Condition::Out,
                (false, Some(_)) => Condition::Ejected,
                (false, None) => Condition::Usable,
            },
        };
        let candidates: Vec<Candidate> = self.hosts.iter().enumerate().map(candidate).collect();
        let manner = Manner {
            algorithm: &service.algorithm,
            localities: Localities::Together,
            panic_percent: service.outliers.min_health_percent,
        };
        self.layers = Layers::new(manner, &candidates, Some(&self.layers));
    }

    pub(crate) fn choose(&mut self, tried: &[usize], now: Duration, random: &mut Random) -> Option<usize> {
        let (hosts, layers, first) = (&self.hosts, &self.layers, self.turn);
        let turn = std::cell::Cell::new(first);
        let chosen = for_attempt(tried, |tried, patient| {
            let view = View { hosts, tried, patient, now };
            let next = || turn.replace(turn.get() + 1);
            layers.pick(&view, None, next, random)
        });
        self.turn = turn.get();
        if let Some(index) = chosen {
            let untried = |index: usize| hosts[index].is_usable() && !tried.contains(&index);
            assert!(!tried.contains(&index) || !(0..ENDPOINTS).any(untried), "{index} again, of {tried:?}");
        } else {
            assert!(hosts.iter().all(|host| !host.is_usable()), "nobody is chosen, but there is one");
        }
        chosen
    }

    /// A request goes to an endpoint.
    pub(crate) fn send(&mut self, index: usize, now: Duration) {
        let host = &mut self.hosts[index];
        host.in_flight += 1;
        host.probation = host.probation.chosen(now);
    }

    /// It has ended. Whether other endpoints are usable now.
    pub(crate) fn end(
        &mut self,
        service: &Service,
        index: usize,
        outcome: Outcome,
        took: Duration,
        now: Duration,
    ) -> bool {
        let settings = &service.outliers;
        let ejected = self.hosts.iter().filter(|host| host.ejected.is_some()).count();
        let host = &mut self.hosts[index];
        host.in_flight -= 1;
        if matches!(outcome, Outcome::Response { .. } | Outcome::AttemptTimeout) {
            host.pace = host.pace.after(took, host.slowness > 1, now);
        }
        let signal = settings.signal(outcome);
        host.probation = host.probation.after(signal);
        let (streaks, reached) = host.streaks.after(signal, settings);
        host.streaks = streaks;
        let ejects = signal != Signal::Nothing
            && !reached.is_nothing()
            && host.ejected.is_none()
            && may_eject(settings, ejected, ENDPOINTS);
        if ejects {
            host.history.eject(now, settings);
            host.ejected = Some(now);
            host.probation = Probation::default();
            self.ejections += 1;
        }
        let ejected = self.hosts.iter().filter(|host| host.ejected.is_some()).count();
        assert!(ejected * 100 <= settings.max_ejection_percent as usize * ENDPOINTS, "{ejected} are ejected");
        if now.saturating_sub(self.looked) >= LOOK {
            self.looked = now;
            let mut known: Vec<u32> = self.hosts.iter().filter_map(|host| host.pace.micros(now)).collect();
            let usual = usual(&mut known);
            for host in &mut self.hosts {
                host.slowness =
                    usual.zip(host.pace.micros(now)).map_or(1, |(usual, own)| slowness(own, usual));
            }
        }
        ejects
    }

    /// Lets endpoints back. Whether other endpoints are usable now.
    pub(crate) fn sweep(&mut self, service: &Service, now: Duration) -> bool {
        let settings = &service.outliers;
        let longest = Duration::from_secs(300).max(settings.base_ejection_time) + settings.interval;
        let mut changed = false;
        for host in &mut self.hosts {
            if host.history.sweep(now, settings) == Swept::Returned {
                assert!(host.ejected.is_some());
                (host.ejected, host.streaks, host.probation) = (None, Streaks::default(), Probation::begun());
                changed = true;
            }
            assert!(host.ejected.is_none_or(|since| now - since < longest), "it does not come back");
        }
        changed
    }

    /// A place for a request.
    pub(crate) fn enter(&mut self, service: &Service) -> bool {
        self.asked += 1;
        let Some(next) = service.limits.one_more(Limited::Requests, self.requests) else { return false };
        assert!(next <= service.limits.most(Limited::Requests));
        self.requests = next;
        true
    }

    /// Whether there may be one more retry.
    pub(crate) fn retry(&mut self, service: &Service, charged: bool, now: Duration) -> bool {
        let most = most_at_once(None, &service.limits, 0).unwrap_or(u64::MAX);
        if u64::from(self.retries) >= most {
            return false;
        }
        let rate = RetryRate::default();
        if charged {
            let Some(spent) = rate.spend(self.spent, rate.earned(self.asked, now)) else { return false };
            self.spent = spent;
            self.charged += 1;
        }
        let earned = 20.0 + now.as_secs_f64() * 10.0 + self.asked as f64 * 0.2;
        assert!(self.charged as f64 <= earned, "{} retries of {} requests", self.charged, self.asked);
        self.retries += 1;
        true
    }

    /// Picks of a caller at rest, of each endpoint.
    pub(crate) fn shares(&mut self, count: usize, now: Duration, random: &mut Random) -> Vec<usize> {
        let mut seen = vec![0; ENDPOINTS];
        for _ in 0..count {
            if let Some(index) = self.choose(&[], now, random) {
                seen[index] += 1;
            }
        }
        seen
    }

    pub(crate) fn is_ejected(&self, index: usize) -> bool {
        self.hosts[index].ejected.is_some()
    }
}
