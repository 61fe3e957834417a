//! All kinds of traffic that were reported, within a bound.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesh_core::telemetry::sketch::Sketch;
use mesh_core::telemetry::worse::Stretch;
use mesh_core::vocab::name::Text;
use tokio::time::Instant;

use super::window::{COARSE, Moment, News, Numbers, Series, TEN, Total};

/// What does not fit is counted under a service of this name.
pub const OTHER: &str = "other";
/// Series are looked through for what is over so often.
const SWEEP: Moment = TEN;

/// One side of a call. Empty where it is not known.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Party {
    /// Name of the workload.
    pub workload: Text,
    /// Its namespace.
    pub namespace: Text,
    /// SPIFFE ID.
    pub identity: Text,
    /// Label `version`.
    pub version: Text,
}

/// What tells one kind of traffic from another.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Key {
    /// The node that reports.
    pub node: Text,
    /// Whether the called side speaks.
    pub destination_reports: bool,
    /// Who calls.
    pub source: Party,
    /// Who is called.
    pub destination: Party,
    /// Host of the service.
    pub service: Text,
    /// `outbound|PORT|SUBSET|HOST`, `inbound|PORT||`.
    pub cluster: Text,
    /// The resource of the rule that decided; empty for none.
    pub resource: Text,
    /// Index of the rule in it.
    pub rule: Option<u32>,
    /// Whether both ends know each other by certificates.
    pub mutual_tls: bool,
}

impl Key {
    /// Part of the cluster's name: port, subset or host.
    fn part(&self, index: usize) -> &str {
        self.cluster.split('|').nth(index).unwrap_or("")
    }

    /// The subset: of the cluster at the source; at the destination the version of the workload.
    pub fn subset(&self) -> &str {
        if self.destination_reports { &self.destination.version } else { self.part(2) }
    }
}

/// What was reported of one kind.
pub type Shared = Arc<Mutex<Series>>;

/// All that was reported.
#[derive(Debug)]
pub struct Ledger {
    began: Instant,
    most: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    series: HashMap<Key, Shared>,
    swept: Moment,
    /// The newest report of each node: incarnation and number.
    newest: HashMap<Text, (u64, u64)>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What became of what was taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Kinds of traffic that are told apart.
    pub series: usize,
    /// Kinds that were counted together because there are too many.
    pub swallowed: usize,
}

impl Ledger {
    /// An empty one that tells so many kinds of traffic apart.
    pub fn new(most: usize) -> Ledger {
        Ledger { began: Instant::now(), most, held: Mutex::default() }
    }

    /// The time since it began.
    pub fn now(&self) -> Moment {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether a report is new: one that was sent again because its answer was lost counts once.
    pub fn is_new(&self, node: &Text, incarnation: u64, sequence: u64) -> bool {
        let mut held = locked(&self.held);
        let newest = held.newest.entry(Text::clone(node)).or_default();
        if newest.0 == incarnation && sequence <= newest.1 {
            return false;
        }
        *newest = (incarnation, sequence);
        true
    }

    /// Takes in what was counted so long ago.
    pub fn take(&self, age: Duration, news: impl Iterator<Item = (Key, News)>) -> Taken {
        let now = self.now();
        let at = now.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        let mut swallowed = 0;
        for (key, news) in news {
            let series = {
                let mut held = locked(&self.held);
                held.sweep(now);
                let (series, fits) = held.series(key, self.most);
                swallowed += usize::from(!fits);
                series
            };
            locked(&series).add(at, now, &news);
        }
        Taken { series: locked(&self.held).series.len(), swallowed }
    }

    /// Every kind of traffic, with what was reported of it.
    pub fn all(&self) -> Vec<(Key, Shared)> {
        let held = locked(&self.held);
        held.series.iter().map(|(key, series)| (key.clone(), Arc::clone(series))).collect()
    }
}

impl Held {
    fn series(&mut self, key: Key, most: usize) -> (Shared, bool) {
        if let Some(series) = self.series.get(&key) {
            return (Arc::clone(series), true);
        }
        let fits = self.series.len() < most;
        let key = if fits { key } else { other(&key) };
        (Arc::clone(self.series.entry(key).or_default()), fits)
    }

    fn sweep(&mut self, now: Moment) {
        if now < self.swept + SWEEP {
            return;
        }
        self.swept = now;
        self.series.retain(|_, series| locked(series).forget(now));
        let nodes: HashSet<&Text> = self.series.keys().map(|key| &key.node).collect();
        self.newest.retain(|node, _| nodes.contains(node));
    }
}

/// The one that a kind of traffic is counted under where there are too many.
fn other(key: &Key) -> Key {
    Key { service: OTHER.into(), destination_reports: key.destination_reports, ..Key::default() }
}

/// What happened in the time of that length before `now`, of several kinds together.
pub fn total(series: &[Shared], now: Moment, length: Moment) -> Total {
    let mut total = Total::default();
    for one in series {
        total.merge(&locked(one).total(now, length));
    }
    total
}

/// The hour before `now`, the oldest first: minutes, and the steps of ten seconds that they are made of. The running step
/// is left out.
pub fn history(series: &[Shared], now: Moment) -> (Vec<Stretch>, Vec<Stretch>) {
    let end = now / TEN * TEN;
    let count = end.min(COARSE) / TEN;
    let first = end - count * TEN;
    let mut steps = Vec::new();
    let mut minutes = Vec::new();
    // Minutes are counted from the end.
    let mut minute = (Numbers::default(), Sketch::default());
    for index in 0..count {
        let (mut numbers, mut durations) = (Numbers::default(), Sketch::default());
        for one in series {
            locked(one).coarse(first + index * TEN, &mut numbers, &mut durations);
        }
        minute.0.merge(&numbers);
        minute.1.merge(&durations);
        steps.push(stretch(&numbers, &durations));
        if (count - index - 1).is_multiple_of(6) {
            minutes.push(stretch(&minute.0, &minute.1));
            minute = (Numbers::default(), Sketch::default());
        }
    }
    (minutes, steps)
}

fn stretch(numbers: &Numbers, durations: &Sketch) -> Stretch {
    Stretch {
        requests: numbers.requests,
        successes: numbers.successes,
        p99: durations.quantile(990).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(node: &str, service: &str) -> Key {
        Key { node: node.into(), service: service.into(), ..Key::default() }
    }

    fn news(requests: u64) -> News {
        let mut durations = Sketch::default();
        (0..requests).for_each(|_| durations.record(1000));
        let numbers = Numbers { requests, successes: requests, ..Numbers::default() };
        News { numbers, durations, ..News::default() }
    }

    fn requests(ledger: &Ledger, service: &str, length: Moment) -> u64 {
        let wanted = ledger.all().into_iter().filter(|(key, _)| &*key.service == service);
        let series: Vec<Shared> = wanted.map(|(_, series)| series).collect();
        total(&series, ledger.now(), length).numbers.requests
    }

    #[tokio::test(start_paused = true)]
    async fn a_minute_of_reports_of_two_nodes() {
        let ledger = Ledger::new(100);
        for _ in 0..90 {
            for node in ["h1", "h2"] {
                ledger.take(Duration::ZERO, [(key(node, "a"), news(3))].into_iter());
            }
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        // The second that has just begun is one of the sixty.
        assert_eq!(requests(&ledger, "a", 60_000), 59 * 6);
        let all: Vec<Shared> = ledger.all().into_iter().map(|(_, series)| series).collect();
        let (minutes, steps) = history(&all, ledger.now());
        assert_eq!((minutes.len(), steps.len()), (2, 9));
        assert_eq!(minutes.iter().map(|minute| minute.requests).sum::<u64>(), 540);
        assert_eq!((minutes[1].requests, steps[8].requests), (360, 60));
        tokio::time::advance(Duration::from_secs(4000)).await;
        ledger.take(Duration::ZERO, [(key("h1", "b"), news(1))].into_iter());
        assert_eq!(ledger.all().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn kinds_are_bounded_and_late_reports_belong_where_they_were_made() {
        let ledger = Ledger::new(2);
        let some = ["a", "b", "c", "d"].map(|service| (key("h1", service), news(1)));
        assert_eq!(ledger.take(Duration::ZERO, some.into_iter()), Taken { series: 3, swallowed: 2 });
        assert_eq!(requests(&ledger, OTHER, 60_000), 2);
        tokio::time::advance(Duration::from_secs(30)).await;
        ledger.take(Duration::from_secs(5), [(key("h1", "a"), news(7))].into_iter());
        assert_eq!(requests(&ledger, "a", 4_000), 0);
        assert_eq!(requests(&ledger, "a", 10_000), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn a_report_counts_once() {
        let ledger = Ledger::new(2);
        let node = Text::from("h1");
        for (incarnation, sequence, expected) in
            [(7, 1, true), (7, 1, false), (7, 2, true), (7, 1, false), (8, 1, true)]
        {
            assert_eq!(ledger.is_new(&node, incarnation, sequence), expected, "{incarnation} {sequence}");
        }
    }

    #[test]
    fn subsets() {
        let at_source = Key { cluster: "outbound|80|v1|a".into(), ..Key::default() };
        assert_eq!((at_source.subset(), at_source.part(3)), ("v1", "a"));
        let version = Party { version: "v2".into(), ..Party::default() };
        let there = Key { destination_reports: true, destination: version, ..at_source };
        assert_eq!(there.subset(), "v2");
    }
}
