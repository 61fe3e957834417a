//! Rate limits as they stand: buckets that all data threads take from without a lock, and the shares of limits that
//! proxies keep to together. The arithmetic is in `mesh-core` (`resilience::ratelimit`).
//!
//! A limit whose requests are counted apart has a table of buckets of fixed size, made with the first request. A bucket
//! that is full again is as good as none, so its place is taken by the next that needs one; where a whole set is in use,
//! the fullest makes room, and that is counted. Threads that race for a place may let one request more pass, never lose
//! the count of a bucket that stays.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use foldhash::fast::RandomState;
use mesh_core::resilience::ratelimit::{Rate, Standing, WHOLE};
use mesh_core::resilience::shares::Report;
use mesh_core::routing::limit::{Counted, Limit, RateLimit, Tell, fields};
use mesh_core::vocab::name::{Text, WorkloadKey};
use metrics::{Counter, Gauge};

use super::load::stamp;
use super::registry::Registry;
use super::root::{Root, Roots};
use crate::telemetry::metrics::Metrics;

/// Buckets of a set, of which any may hold a key of the set.
const WAYS: usize = 8;
/// Sets of a limit: 10,240 buckets, 160 KiB.
const SETS: usize = 1280;
/// How often it is told how many buckets are in use.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Clients do not know by what buckets are told apart.
static SEED: LazyLock<u64> = LazyLock::new(rand::random);

/// What hashes of buckets begin with.
pub fn seed() -> u64 {
    *SEED
}

/// Names the state of a limit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LimitKey {
    origin: Text,
    target: Text,
    name: Text,
    /// The workload before which it stands; `None` on a rule.
    workload: Option<WorkloadKey>,
}

/// What is known of a limit; outlives the tables that name it.
#[derive(Debug, Default)]
pub struct LimitState {
    /// Where all requests have one bucket: when it is full again.
    common: AtomicU64,
    apart: OnceLock<Box<[Set]>>,
    /// Requests that it counted, for the share that is asked for.
    wanted: AtomicU64,
    /// What was told of them, and when.
    reported: AtomicU64,
    reported_at: AtomicU64,
    /// Until when the share is good, in milliseconds, and behind that the share in parts per million.
    lease: AtomicU64,
    holders: AtomicU32,
}

type Set = [Bucket; WAYS];

#[derive(Debug, Default)]
struct Bucket {
    key: AtomicU64,
    full_at: AtomicU64,
}

/// A limit at its place.
#[derive(Debug)]
pub struct LiveLimit {
    key: LimitKey,
    rate: Rate,
    state: Arc<LimitState>,
    shared: bool,
    refused: Counter,
    evicted: Counter,
    in_use: Gauge,
    share: Option<Gauge>,
}

/// The limits of one rate limit.
type Held = Vec<LiveLimit>;

/// The rate limits of a workload, as its section lists them.
#[derive(Debug, Default)]
pub struct WorkloadLimits(Vec<Held>);

/// The rate limits of rules, by resource and target.
#[derive(Debug, Default)]
pub struct RuleLimits(HashMap<Text, Vec<(Text, Held)>, RandomState>);

/// A request that is too much.
#[derive(Debug)]
pub struct TooMuch {
    /// Status of the answer.
    pub status: u16,
    /// What the answer tells.
    pub fields: Fields,
}

/// Fields of an answer.
pub type Fields = Vec<(http::HeaderName, http::HeaderValue)>;

/// Takes a token for a request of every limit that counts it. `each` lists them, and lists the same when it is asked again:
/// what was taken is given back when one refuses. Returns what the answer shall tell, if anything.
pub fn take<'l, 's, I>(
    each: impl Fn() -> I,
    live: impl Fn(&Counted<'l>) -> Option<&'s LiveLimit>,
) -> Result<Option<Box<Fields>>, Box<TooMuch>>
where
    I: Iterator<Item = Counted<'l>>,
{
    let now = stamp();
    let mut tightest: Option<(&'l Limit, Standing)> = None;
    for (index, counted) in each().enumerate() {
        let Some(limit) = live(&counted) else { continue };
        let standing = limit.take(counted.bucket, now);
        let terms = &counted.by.terms;
        if standing.admitted {
            let is_tighter = tightest.is_none_or(|(_, other)| standing.remaining < other.remaining);
            if terms.tell == Tell::All && is_tighter {
                tightest = Some((counted.limit, standing));
            }
            continue;
        }
        limit.refused.increment(1);
        if terms.dry_run {
            continue;
        }
        for before in each().take(index) {
            // Those in dry run may have had nothing to give.
            if let (Some(limit), false) = (live(&before), before.by.terms.dry_run) {
                limit.give_back(before.bucket, now);
            }
        }
        let told = if terms.tell == Tell::None { Vec::new() } else { fields(counted.limit, &standing) };
        return Err(Box::new(TooMuch { status: terms.status, fields: told }));
    }
    Ok(tightest.map(|(limit, standing)| Box::new(fields(limit, &standing))))
}

impl LiveLimit {
    fn of(
        by: &RateLimit,
        limit: &Limit,
        workload: Option<&WorkloadKey>,
        registry: &mut Registry,
        metrics: &Metrics,
    ) -> LiveLimit {
        let key = LimitKey {
            origin: by.origin.clone(),
            target: by.target.clone(),
            name: limit.name.clone(),
            workload: workload.cloned(),
        };
        let shared = by.terms.shared;
        let labels = limit_labels(&key);
        let effect = if by.terms.dry_run { "dry_run" } else { "refused" };
        LiveLimit {
            state: registry.limit(&key),
            rate: limit.rate,
            shared,
            refused: metrics.rate_limited(&labels, effect),
            evicted: metrics.rate_limit_evictions(&labels),
            in_use: metrics.rate_limit_buckets(&labels),
            share: shared.then(|| metrics.rate_limit_share(&labels)),
            key,
        }
    }

    /// The part of the limit that this proxy may use now.
    fn share(&self, now: u64) -> u32 {
        if !self.shared {
            return WHOLE;
        }
        self.state.share(now)
    }

    fn take(&self, bucket: u64, now: u64) -> Standing {
        if self.shared {
            // Relaxed: a figure that only grows.
            self.state.wanted.fetch_add(1, Ordering::Relaxed);
        }
        let share = self.share(now);
        let place = self.state.place(bucket, now, &self.evicted);
        // Relaxed throughout: the number is all that there is to see.
        let mut full_at = place.load(Ordering::Relaxed);
        loop {
            let (next, standing) = self.rate.take(share, full_at, now);
            if !standing.admitted {
                return standing;
            }
            match place.compare_exchange_weak(full_at, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return standing,
                Err(other) => full_at = other,
            }
        }
    }

    fn give_back(&self, bucket: u64, now: u64) {
        let share = self.share(now);
        let place = self.state.place(bucket, now, &self.evicted);
        let back = |full_at| Some(self.rate.give_back(share, full_at));
        let _always = place.fetch_update(Ordering::Relaxed, Ordering::Relaxed, back);
    }
}

impl LimitState {
    /// Where the moment stands at which a bucket is full again.
    fn place(&self, bucket: u64, now: u64, evicted: &Counter) -> &AtomicU64 {
        if bucket == 0 {
            return &self.common;
        }
        let sets = self.apart.get_or_init(|| (0..SETS).map(|_| Set::default()).collect());
        let set = &sets[(bucket % SETS as u64) as usize];
        // Whoever loses a place to another thread looks again: the other may have had the same key.
        for _ in 0..WAYS {
            if let Some(found) = set.iter().find(|one| one.key.load(Ordering::Relaxed) == bucket) {
                return &found.full_at;
            }
            let fullness = |one: &&Bucket| one.full_at.load(Ordering::Relaxed);
            let free = set.iter().find(|one| fullness(one) <= now);
            let Some(place) = free.or_else(|| set.iter().min_by_key(fullness)) else { break };
            let (key, full_at) = (place.key.load(Ordering::Relaxed), fullness(&place));
            if place.key.compare_exchange(key, bucket, Ordering::Relaxed, Ordering::Relaxed).is_err() {
                continue;
            }
            if full_at > now {
                evicted.increment(1);
                // What the one before owed is not this one's.
                let _lost =
                    place.full_at.compare_exchange(full_at, now, Ordering::Relaxed, Ordering::Relaxed);
            }
            return &place.full_at;
        }
        &set[0].full_at
    }

    /// The share that is held, else an even one among as many as were last known.
    fn share(&self, now: u64) -> u32 {
        match self.held(now) {
            0 => WHOLE / self.holders.load(Ordering::Relaxed).max(1),
            held => held,
        }
    }

    /// The share that is leased; 0 for none.
    fn held(&self, now: u64) -> u32 {
        let lease = self.lease.load(Ordering::Relaxed);
        let (until, share) = (lease >> 20, lease & 0xf_ffff);
        if until > now / 1_000_000 { u32::try_from(share).unwrap_or(WHOLE).min(WHOLE) } else { 0 }
    }

    fn in_use(&self, now: u64) -> usize {
        let is_used = |full_at: &AtomicU64| full_at.load(Ordering::Relaxed) > now;
        let apart = self.apart.get().into_iter().flatten().flatten();
        usize::from(is_used(&self.common)) + apart.filter(|one| is_used(&one.full_at)).count()
    }
}

impl WorkloadLimits {
    /// Those of a workload.
    pub(super) fn of(
        limits: &[RateLimit],
        workload: &WorkloadKey,
        registry: &mut Registry,
        metrics: &Metrics,
    ) -> WorkloadLimits {
        let held = limits.iter().map(|by| hold(by, Some(workload), registry, metrics));
        WorkloadLimits(held.collect())
    }

    /// Names the states again, for another root.
    pub(super) fn keep(&self, registry: &mut Registry) {
        for limit in self.0.iter().flatten() {
            registry.limit(&limit.key);
        }
    }

    /// The live side of a limit.
    pub fn find(&self, counted: &Counted<'_>) -> Option<&LiveLimit> {
        self.0.get(counted.place)?.get(counted.index)
    }
}

impl RuleLimits {
    /// Those of all rules.
    pub(super) fn of(limits: &[RateLimit], registry: &mut Registry, metrics: &Metrics) -> RuleLimits {
        let mut all = RuleLimits::default();
        for by in limits {
            let held = hold(by, None, registry, metrics);
            all.0.entry(by.origin.clone()).or_default().push((by.target.clone(), held));
        }
        all
    }

    /// The live side of a limit.
    pub fn find(&self, counted: &Counted<'_>) -> Option<&LiveLimit> {
        let targets = self.0.get(&counted.by.origin)?;
        let (_, held) = targets.iter().find(|(target, _)| *target == counted.by.target)?;
        held.get(counted.index)
    }
}

fn hold(by: &RateLimit, workload: Option<&WorkloadKey>, registry: &mut Registry, metrics: &Metrics) -> Held {
    by.terms.limits.iter().map(|limit| LiveLimit::of(by, limit, workload, registry, metrics)).collect()
}

/// What tells the series of a limit from others.
fn limit_labels(key: &LimitKey) -> [(&'static str, String); 4] {
    let policy = key.origin.strip_prefix("ratelimit/").unwrap_or(&key.origin);
    [
        ("policy", policy.to_owned()),
        ("limit", key.name.to_string()),
        ("target", key.target.to_string()),
        ("workload", key.workload.as_ref().map(ToString::to_string).unwrap_or_default()),
    ]
}

impl Root {
    /// Every limit.
    fn limits(&self) -> impl Iterator<Item = &LiveLimit> {
        let of_workloads = self.locals.iter().flat_map(|local| local.limits.0.iter().flatten());
        of_workloads.chain(self.rule_limits.0.values().flatten().flat_map(|(_, held)| held))
    }
}

/// A limit that this proxy shares with others, as one of those that count against it.
#[derive(Debug, Clone)]
pub struct SharedLimit {
    /// The limit, by a name that all proxies have for it.
    pub limit: String,
    /// The workload that counts; empty on rules.
    pub workload: String,
    rate: Rate,
    state: Arc<LimitState>,
    told: Option<Gauge>,
}

impl SharedLimit {
    /// Whether it was ever reported.
    pub fn is_reported(&self) -> bool {
        self.state.reported_at.load(Ordering::Relaxed) != 0
    }

    /// What could have been used since the last report, and what is held.
    pub fn report(&self) -> Report {
        let (state, now) = (&self.state, stamp());
        let wanted = state.wanted.load(Ordering::Relaxed);
        let before = state.reported.swap(wanted, Ordering::Relaxed);
        let since = state.reported_at.swap(now, Ordering::Relaxed);
        let time = Duration::from_nanos(now.saturating_sub(since));
        let demand = if since == 0 { 0 } else { self.rate.demand(wanted.saturating_sub(before), time) };
        self.tell(now);
        Report { demand, held: state.held(now) }
    }

    /// Takes a share that was asked for at `asked` (a stamp) and is good for some time from then.
    pub fn grant(&self, share: u32, holders: u32, asked: u64, lease: Duration) {
        let until = Duration::from_nanos(asked).saturating_add(lease).as_millis();
        let until = u64::try_from(until).unwrap_or(0).min(u64::MAX >> 20);
        self.state.holders.store(holders, Ordering::Relaxed);
        self.state.lease.store((until << 20) | u64::from(share.min(WHOLE)), Ordering::Relaxed);
        self.tell(asked);
    }

    fn tell(&self, now: u64) {
        if let Some(told) = &self.told {
            told.set(f64::from(self.state.share(now)) / f64::from(WHOLE));
        }
    }
}

/// The limits that this proxy shares with others.
pub fn shared(roots: &Roots) -> Vec<SharedLimit> {
    let root = roots.load();
    let shared = root.limits().filter(|limit| limit.shared);
    let shared = shared.map(|live| {
        let LimitKey { origin, target, name, workload } = &live.key;
        SharedLimit {
            limit: format!("{origin}|{target}|{name}"),
            workload: workload.as_ref().map(ToString::to_string).unwrap_or_default(),
            rate: live.rate,
            state: Arc::clone(&live.state),
            told: live.share.clone(),
        }
    });
    shared.collect()
}

/// The moment, as grants count it.
pub fn moment() -> u64 {
    stamp()
}

/// Tells how many buckets are in use, for as long as the proxy lives.
pub async fn keep(roots: Arc<Roots>) {
    let mut changed = roots.subscribe();
    loop {
        changed.borrow_and_update();
        let root = roots.load();
        for limit in root.limits() {
            limit.in_use.set(limit.state.in_use(stamp()) as f64);
        }
        let any = root.limits().next().is_some();
        drop(root);
        let again = async {
            match any {
                true => tokio::time::sleep(TELL_EVERY).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            () = again => {}
            changed = changed.changed() => if changed.is_err() { return },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(state: &LimitState, bucket: u64, now: u64) -> &AtomicU64 {
        state.place(bucket, now, &Counter::noop())
    }

    #[test]
    fn a_bucket_is_found_again_and_makes_room_when_it_is_full() {
        let state = LimitState::default();
        let key = |way: u64| 5 + way * SETS as u64;
        for way in 1..=WAYS as u64 {
            place(&state, key(way), 100).store(200 + way, Ordering::Relaxed);
        }
        assert_eq!(state.in_use(100), WAYS);
        for way in 1..=WAYS as u64 {
            assert_eq!(place(&state, key(way), 100).load(Ordering::Relaxed), 200 + way);
        }
        // The one that is full first makes room, and what it owed is forgotten.
        assert_eq!(place(&state, key(9), 150).load(Ordering::Relaxed), 150);
        assert_eq!(place(&state, key(2), 150).load(Ordering::Relaxed), 202);
        place(&state, key(9), 150).store(300, Ordering::Relaxed);
        // One that is full again is as good as new.
        assert_eq!(place(&state, key(10), 203).load(Ordering::Relaxed), 202);
        assert_eq!(state.in_use(203), WAYS - 2);
    }

    #[test]
    fn a_share_is_good_for_its_time_and_then_an_even_one_is() {
        let limit = SharedLimit {
            limit: "a".into(),
            workload: String::new(),
            rate: Rate::new(10, Duration::from_secs(1), 10).unwrap(),
            state: Arc::default(),
            told: None,
        };
        let second = 1_000_000_000;
        assert_eq!(limit.state.share(second), WHOLE);
        limit.grant(700_000, 2, second, Duration::from_secs(3));
        assert_eq!((limit.state.share(3 * second), limit.state.held(3 * second)), (700_000, 700_000));
        assert_eq!((limit.state.share(4 * second), limit.state.held(4 * second)), (500_000, 0));
    }

    #[test]
    fn threads_together_take_what_there_is() {
        let metrics = Metrics::default();
        let limit = Limit {
            name: "a".into(),
            rate: Rate::new(1, Duration::from_secs(3600), 500).unwrap(),
            key: Vec::new(),
            counts: mesh_core::routing::limit::Counts::default(),
        };
        let terms = mesh_core::routing::limit::Terms {
            shared: false,
            limits: vec![limit],
            status: 429,
            tell: Tell::Refused,
            dry_run: false,
        };
        let by = RateLimit { origin: "a".into(), target: "b".into(), ports: Vec::new(), terms };
        let mut registry = Registry::default();
        let live = LiveLimit::of(&by, &by.terms.limits[0], None, &mut registry, &metrics);
        for bucket in [0, 77] {
            let now = stamp();
            let passed: usize = std::thread::scope(|scope| {
                let run = || (0..300).filter(|_| live.take(bucket, now).admitted).count();
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            // The first look at a bucket may be several.
            assert!((500..=503).contains(&passed), "{passed}");
        }
    }
}
