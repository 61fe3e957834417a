//! The cells of one data thread.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use foldhash::fast::RandomState;
use mesh_core::vocab::name::Text;
use mesh_core::vocab::origin::Origin;
use metrics::Counter;
use tokio::sync::{mpsc, watch};

use super::{Batch, Counts, Key, Portion, Reports, Told};
use crate::telemetry::entry::Entry;

/// A cell without news is kept for so many rounds: traffic that pauses finds its cell again.
const KEPT_ROUNDS: u8 = 60;
/// So many connections a thread follows; those beyond are not counted as open.
const MOST_LINKS: usize = 65_536;

/// What a data thread counts, until it hands it over.
#[derive(Debug)]
pub struct Cells {
    state: RandomState,
    most: usize,
    swallowed: Counter,
    inner: RefCell<Inner>,
    thread: usize,
    round: watch::Receiver<u64>,
    batches: mpsc::Sender<Batch>,
}

#[derive(Debug, Default)]
struct Inner {
    cells: HashMap<Key, Cell, RandomState>,
    /// Connections by the address of their text, which nobody else gets while it is held here, and the cell of the last
    /// request on each.
    links: HashMap<usize, (Weak<str>, Key), RandomState>,
    /// The one that was seen last.
    last: Option<(usize, Key)>,
}

impl Inner {
    /// A request came on a connection.
    fn follow(&mut self, connection: &Rc<str>, key: Key) {
        let link = (connection.as_ptr().addr(), key);
        if self.last == Some(link) {
            return;
        }
        self.last = Some(link);
        if let Some((_, held)) = self.links.get_mut(&link.0) {
            *held = key;
        } else if self.links.len() < MOST_LINKS {
            self.links.insert(link.0, (Rc::downgrade(connection), key));
        }
    }
}

#[derive(Debug)]
struct Cell {
    cluster: Text,
    rule: Option<Origin>,
    counts: Counts,
    /// Connections whose last request was one of these.
    connections: u32,
    streams: u32,
    told_open: bool,
    rounds: u8,
}

/// The cell of a byte stream that is open.
#[derive(Debug, Clone, Copy)]
pub struct Stream(Key);

impl Cells {
    /// The cells of the next data thread. `swallowed` counts what did not fit.
    pub fn new(reports: &Reports, swallowed: Counter) -> Cells {
        Cells {
            state: reports.state.clone(),
            most: reports.most,
            swallowed,
            inner: RefCell::default(),
            // Relaxed: it only has to be another number.
            thread: reports.next.fetch_add(1, Ordering::Relaxed),
            round: reports.round.clone(),
            batches: reports.batches.clone(),
        }
    }

    /// An exchange has ended.
    pub fn exchange(&self, entry: &Entry<'_>) {
        // Of those that ran beside each other one counts.
        let attempts = u64::from(entry.attempts.saturating_sub(entry.beside).max(1));
        let duration = u64::try_from(entry.duration.as_micros()).unwrap_or(u64::MAX);
        let told = told(entry);
        let inner = &mut *self.inner.borrow_mut();
        let (key, cell) = self.cell(&mut inner.cells, &told);
        cell.counts.request(duration, entry.is_success(), attempts, attempts - 1);
        if let Some(connection) = entry.connection {
            inner.follow(connection, key);
        }
    }

    /// A byte stream begins.
    pub fn opened(&self, told: &Told<'_>) -> Stream {
        let inner = &mut *self.inner.borrow_mut();
        let (key, cell) = self.cell(&mut inner.cells, told);
        cell.counts.streams += 1;
        cell.streams += 1;
        Stream(key)
    }

    /// Bytes went to and fro.
    pub fn carried(&self, stream: Stream, received: u64, sent: u64) {
        if let Some(cell) = self.inner.borrow_mut().cells.get_mut(&stream.0) {
            cell.counts.received += received;
            cell.counts.sent += sent;
        }
    }

    /// It has ended.
    pub fn closed(&self, stream: Stream, failed: bool) {
        if let Some(cell) = self.inner.borrow_mut().cells.get_mut(&stream.0) {
            cell.streams = cell.streams.saturating_sub(1);
            cell.counts.streams_failed += u64::from(failed);
        }
    }

    fn cell<'c>(
        &self,
        cells: &'c mut HashMap<Key, Cell, RandomState>,
        told: &Told<'_>,
    ) -> (Key, &'c mut Cell) {
        let mut key = Key::new(&self.state, told);
        let mut texts = Some((told.cluster, told.rule));
        if cells.len() >= self.most && !cells.contains_key(&key) {
            self.swallowed.increment(1);
            (key, texts) = (Key::other(told.reporter), None);
        }
        let cell = cells.entry(key).or_insert_with(|| {
            let (cluster, rule) = texts.unwrap_or(("", None));
            Cell {
                cluster: cluster.into(),
                rule: rule.cloned(),
                counts: Counts::default(),
                connections: 0,
                streams: 0,
                told_open: false,
                rounds: 0,
            }
        });
        (key, cell)
    }

    /// Takes what was counted since the last time.
    fn take(&self) -> Vec<Portion> {
        let inner = &mut *self.inner.borrow_mut();
        let mut portions = Vec::new();
        // What comes next may have the address of what has gone.
        inner.last = None;
        inner.links.retain(|_, (connection, _)| connection.strong_count() > 0);
        inner.cells.values_mut().for_each(|cell| cell.connections = 0);
        for (_, key) in inner.links.values() {
            if let Some(cell) = inner.cells.get_mut(key) {
                cell.connections += 1;
            }
        }
        inner.cells.retain(|key, cell| {
            let is_open = cell.streams > 0 || cell.connections > 0;
            let has_news = !cell.counts.is_empty();
            cell.rounds = if has_news || is_open { 0 } else { cell.rounds + 1 };
            // That nothing is open any more is told once.
            if has_news || is_open || cell.told_open {
                portions.push(Portion {
                    key: *key,
                    cluster: Arc::clone(&cell.cluster),
                    rule: cell.rule.clone(),
                    counts: std::mem::take(&mut cell.counts),
                    connections: cell.connections,
                    streams: cell.streams,
                });
            }
            cell.told_open = is_open;
            cell.rounds < KEPT_ROUNDS
        });
        portions
    }

    /// Hands over whenever it is asked, until nobody asks any more.
    pub async fn keep_handing_over(self: Rc<Cells>) {
        let mut round = self.round.clone();
        while round.changed().await.is_ok() {
            let number = *round.borrow_and_update();
            // Who is behind asks again, and what is here waits meanwhile.
            let Ok(place) = self.batches.try_reserve() else { continue };
            place.send(Batch { thread: self.thread, round: number, cells: self.take() });
        }
    }
}

fn told<'a>(entry: &Entry<'a>) -> Told<'a> {
    Told {
        reporter: entry.reporter,
        source: entry.source,
        destination: entry.destination,
        service: entry.service,
        mutual_tls: entry.mutual_tls || entry.mesh_hop,
        cluster: entry.cluster,
        rule: entry.origin,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::telemetry::entry::sample;

    fn cells(most: usize) -> Cells {
        let reports = Reports {
            state: RandomState::default(),
            most,
            round: watch::channel(0).1,
            batches: mpsc::channel(1).0,
            next: Arc::new(AtomicUsize::new(0)),
        };
        Cells::new(&reports, Counter::noop())
    }

    fn entry<'a>() -> Entry<'a> {
        let here = ([127, 0, 0, 1], 80).into();
        Entry { code: 200, details: "via_upstream", ..sample(Instant::now(), here, here) }
    }

    #[test]
    fn attempts_and_requests_are_told_apart() {
        let cells = cells(10);
        let duration = Duration::from_micros(100);
        cells.exchange(&Entry { attempts: 3, duration, ..entry() });
        cells.exchange(&Entry { attempts: 2, beside: 1, duration, ..entry() });
        cells.exchange(&Entry { code: 503, details: "no_healthy_upstream", ..entry() });
        let [told] = &cells.take()[..] else { panic!("one cell") };
        let counts = &told.counts;
        assert_eq!((counts.requests, counts.successes), (3, 2));
        assert_eq!((counts.attempts, counts.retries), (5, 2));
        assert_eq!((counts.shortest, counts.longest, counts.durations.count()), (0, 100, 3));
        assert!(cells.take().is_empty());
    }

    #[test]
    fn what_is_alike_in_its_numbers_is_told_apart_by_its_texts() {
        let cells = cells(10);
        let rules = [0, 1].map(|rule| Origin { resource: "virtualservice/a/b".into(), rule: Some(rule) });
        for (cluster, rule) in [("a", 0), ("b", 0), ("b", 1), ("b", 1)] {
            cells.exchange(&Entry { cluster, origin: Some(&rules[rule]), ..entry() });
        }
        let mut told: Vec<_> = cells.take().iter().map(|cell| cell.counts.requests).collect();
        told.sort_unstable();
        assert_eq!(told, [1, 1, 2]);
    }

    #[test]
    fn what_does_not_fit_is_counted_together() {
        let cells = cells(2);
        for service in 0..5 {
            cells.exchange(&Entry { service, ..entry() });
        }
        let told = cells.take();
        let other = told.iter().find(|cell| cell.key.service == super::super::OTHER).unwrap();
        assert_eq!((told.len(), other.counts.requests), (3, 3));
    }

    #[test]
    fn open_connections_are_those_that_still_are() {
        let cells = cells(10);
        let (one, other): (Rc<str>, Rc<str>) = ("one".into(), "other".into());
        for (connection, service) in [(&one, 1), (&other, 2), (&one, 2), (&other, 2)] {
            cells.exchange(&Entry { connection: Some(connection), service, ..entry() });
        }
        // Each counts where its last request went.
        let mut open: Vec<_> = cells.take().iter().map(|cell| (cell.key.service, cell.connections)).collect();
        open.sort_unstable();
        assert_eq!(open, [(1, 0), (2, 2)]);
        drop(other);
        assert_eq!(cells.take()[0].connections, 1);
        drop(one);
        assert_eq!(cells.take()[0].connections, 0);
        assert!(cells.take().is_empty());
    }

    #[test]
    fn streams_are_open_until_they_end() {
        let cells = cells(10);
        let entry = entry();
        let stream = cells.opened(&told(&entry));
        cells.carried(stream, 3, 5);
        let first = cells.take();
        assert_eq!((first[0].streams, first[0].counts.streams, first[0].counts.sent), (1, 1, 5));
        cells.closed(stream, true);
        let last = cells.take();
        assert_eq!((last[0].streams, last[0].counts.streams_failed), (0, 1));
        assert!(cells.take().is_empty());
    }
}
