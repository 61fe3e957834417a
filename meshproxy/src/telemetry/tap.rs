//! Taps: who wants to see which exchanges as they end. The control half of the proxy puts them here, data threads take the
//! new list when it changes, and ask nobody meanwhile.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use mesh_core::resilience::ratelimit::{Rate, WHOLE};
use mesh_core::telemetry::alarm::Tally;
use mesh_core::telemetry::tap::{Filter, Seen, Subject};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::entry::Entry;
use super::flight::{Exchange, Part};
use super::labels::{Party, ServiceLabels};
use super::metrics::{Metrics, Reporter, SeriesCache, TapMetrics};

/// So many taps at once: they are told apart by the bits of one word.
pub const MOST_TAPS: usize = 32;
/// Exchanges that wait to be told.
const QUEUE: usize = 4096;
/// Questions that wait for a data thread, and how long one is waited for.
const QUESTIONS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(5);

/// One who wants to see exchanges as they end.
#[derive(Debug)]
pub struct Tap {
    /// Names it on the stream to meshd.
    pub id: u64,
    filter: Filter,
    rate: Rate,
    full_at: AtomicU64,
    headers: bool,
    over_limit: AtomicU64,
    lost: AtomicU64,
}

impl Tap {
    /// One that wants at most so many a second, with the fields of requests and answers or without.
    pub fn new(id: u64, filter: Filter, most_per_second: u32, headers: bool) -> Tap {
        let most = most_per_second.clamp(1, 100_000);
        let second = Duration::from_secs(1);
        let rate = Rate::new(most, second, most).expect("it lies within what is told apart");
        let (over_limit, lost, full_at) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        Tap { id, filter, rate, full_at, headers, over_limit, lost }
    }

    /// How many matched and were not shown: beyond the limit, and because nobody took them.
    pub fn missed(&self) -> (u64, u64) {
        // Relaxed: they are counters.
        (self.over_limit.load(Ordering::Relaxed), self.lost.load(Ordering::Relaxed))
    }

    /// Whether one more may be shown now.
    fn admits(&self, now: u64) -> bool {
        let mut admitted = false;
        let step = |full_at| {
            let (next, standing) = self.rate.take(WHOLE, full_at, now);
            admitted = standing.admitted;
            Some(next)
        };
        // Relaxed: the bucket is this one number.
        let _always = self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
        if !admitted {
            self.over_limit.fetch_add(1, Ordering::Relaxed);
        }
        admitted
    }

    /// Whether one would be shown, so that it is worth keeping more of it.
    fn would_admit(&self, now: u64) -> bool {
        self.rate.take(WHOLE, self.full_at.load(Ordering::Relaxed), now).1.admitted
    }
}

/// All taps at a time.
#[derive(Debug, Default)]
pub struct List(Vec<Arc<Tap>>);

impl List {
    /// Whether nobody wants to see anything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether somebody looks at fields of requests, or wants to see them.
    pub fn wants_fields(&self) -> bool {
        self.0.iter().any(|tap| tap.headers || tap.filter.has_fields())
    }

    /// What the fields of a request that begins mean to the taps.
    pub fn look(list: &Arc<List>, hub: &Hub, headers: &HeaderMap) -> Option<Box<Tapped>> {
        let (mut holds, mut shows, now) = (0, false, hub.now());
        for (index, tap) in list.0.iter().enumerate() {
            if tap.filter.holds_for(headers) {
                holds |= 1 << index;
                shows |= tap.headers && tap.would_admit(now);
            }
        }
        (holds != 0).then(|| {
            let request = shows.then(|| headers.clone());
            Box::new(Tapped { list: Arc::clone(list), holds, request, answer: None })
        })
    }

    /// Shows an exchange to those who want to see it.
    pub fn show(&self, hub: &Hub, entry: &Entry<'_>, series: &SeriesCache) {
        let parties = Parties::of(entry.source, entry.destination, entry.service, series);
        let seen = parties.seen(entry);
        let tapped = entry.tapped.filter(|tapped| std::ptr::eq(&*tapped.list, self));
        for (index, tap) in self.0.iter().enumerate() {
            let holds = match tapped {
                Some(tapped) => tapped.holds & (1 << index) != 0,
                None => !tap.filter.has_fields(),
            };
            if !holds || !tap.filter.matches(&seen) {
                continue;
            }
            if !tap.admits(hub.now()) {
                hub.counted.over_limit.increment(1);
                continue;
            }
            let fields = tapped.filter(|_| tap.headers).and_then(|tapped| {
                let request = tapped.request.clone()?;
                Some(Box::new(Fields { request, answer: tapped.answer.clone() }))
            });
            let shown = Shown { tap: tap.id, exchange: Exchange::of(entry), fields };
            if hub.events.try_send(shown).is_err() {
                tap.lost.fetch_add(1, Ordering::Relaxed);
                hub.counted.lost.increment(1);
            }
        }
    }
}

/// What was seen of a request's fields when it began.
#[derive(Debug)]
pub struct Tapped {
    list: Arc<List>,
    /// For which taps they are right.
    holds: u32,
    request: Option<HeaderMap>,
    answer: Option<HeaderMap>,
}

impl Tapped {
    /// The answer goes out with these fields.
    pub fn answered(&mut self, headers: &HeaderMap) {
        if self.request.is_some() {
            self.answer = Some(headers.clone());
        }
    }
}

/// Fields to be shown.
#[derive(Debug)]
pub struct Fields {
    /// Those of the request.
    pub request: HeaderMap,
    /// Those of the answer, where an upstream gave it.
    pub answer: Option<HeaderMap>,
}

/// An exchange that somebody wants to see.
#[derive(Debug)]
pub struct Shown {
    /// Who.
    pub tap: u64,
    /// What is known of it.
    pub exchange: Box<Exchange>,
    /// Its fields.
    pub fields: Option<Box<Fields>>,
}

/// Who an exchange is between.
#[derive(Debug)]
pub struct Parties {
    /// The caller.
    pub source: Arc<Party>,
    /// The called.
    pub destination: Arc<Party>,
    /// The service.
    pub service: Arc<ServiceLabels>,
}

impl Parties {
    fn of(source: u32, destination: u32, service: u32, series: &SeriesCache) -> Parties {
        Parties {
            source: series.party(source),
            destination: series.party(destination),
            service: series.service(service),
        }
    }

    fn seen<'a>(&'a self, entry: &'a Entry<'a>) -> Seen<'a> {
        Seen {
            told: entry.told,
            method: entry.method,
            path: entry.path,
            status: entry.code,
            ..self.seen_by(entry.reporter)
        }
    }

    fn seen_by(&self, reporter: Reporter) -> Seen<'_> {
        Seen {
            is_source: reporter == Reporter::Source,
            source: subject(&self.source),
            destination: subject(&self.destination),
            host: &self.service.host,
            service: &self.service.name,
            service_namespace: &self.service.namespace,
            ..Seen::default()
        }
    }
}

fn subject(party: &Party) -> Subject<'_> {
    Subject {
        workload: &party.workload,
        namespace: &party.namespace,
        principal: &party.principal,
        app: &party.app,
        service: &party.canonical_service,
    }
}

/// Whether a filter holds for what is remembered of an exchange. Fields are not remembered.
pub fn recalls(filter: &Filter, exchange: &Exchange, series: &SeriesCache) -> bool {
    let parties = Parties::of(exchange.source, exchange.destination, exchange.service, series);
    let (method, path) = (exchange.text(Part::Method), exchange.text(Part::Path));
    let seen = Seen {
        told: exchange.told,
        method: &method,
        path: &path,
        status: exchange.code,
        ..parties.seen_by(exchange.reporter)
    };
    !filter.has_fields() && filter.matches(&seen)
}

/// What a data thread is asked.
#[derive(Debug)]
pub enum Question {
    /// What it remembers that a filter holds for and that has ended since then.
    Past {
        /// Which.
        filter: Option<Arc<Filter>>,
        /// Since when.
        since: Option<Instant>,
        /// Where it is told.
        answer: oneshot::Sender<Vec<Exchange>>,
    },
    /// How requests have fared since it was asked last, by service and reporter.
    Tallies(oneshot::Sender<HashMap<Watched, Tally>>),
}

/// Whose success is watched: the service, and who reports.
pub type Watched = (u32, Reporter);

/// Where data threads and the control half meet.
#[derive(Debug)]
pub struct Hub {
    /// The name of this host.
    pub node: String,
    /// Names behind the numbers.
    pub metrics: Arc<Metrics>,
    /// What is counted of taps.
    pub counted: TapMetrics,
    /// Where exchanges are saved.
    pub folder: PathBuf,
    /// How many exchanges each data thread remembers.
    pub keeps: usize,
    list: watch::Sender<Arc<List>>,
    threads: Mutex<Vec<mpsc::Sender<Question>>>,
    events: mpsc::Sender<Shown>,
    /// What data threads show, for the one who tells it.
    pub shown: tokio::sync::Mutex<mpsc::Receiver<Shown>>,
    began: Instant,
}

impl Hub {
    /// Nobody wants to see anything yet.
    pub fn new(node: &str, metrics: &Arc<Metrics>, folder: PathBuf, keeps: usize) -> Arc<Hub> {
        let (events, shown) = mpsc::channel(QUEUE);
        Arc::new(Hub {
            node: node.to_owned(),
            metrics: Arc::clone(metrics),
            counted: metrics.taps(),
            folder,
            keeps,
            list: watch::Sender::default(),
            threads: Mutex::default(),
            events,
            shown: tokio::sync::Mutex::new(shown),
            began: Instant::now(),
        })
    }

    /// Nanoseconds of the clock of all buckets.
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// A data thread begins: the taps as they change, and what it is asked.
    pub(super) fn enter(&self) -> (watch::Receiver<Arc<List>>, mpsc::Receiver<Question>) {
        let (asking, questions) = mpsc::channel(QUESTIONS);
        self.threads().push(asking);
        (self.list.subscribe(), questions)
    }

    fn threads(&self) -> MutexGuard<'_, Vec<mpsc::Sender<Question>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a tap; `false` where there are too many.
    pub fn add(&self, tap: &Arc<Tap>) -> bool {
        let mut added = false;
        self.change(|taps| {
            taps.retain(|one| one.id != tap.id);
            added = taps.len() < MOST_TAPS;
            if added {
                taps.push(Arc::clone(tap));
            }
        });
        added
    }

    /// Takes a tap away.
    pub fn end(&self, id: u64) -> Option<Arc<Tap>> {
        let mut ended = None;
        self.change(|taps| {
            ended = taps.iter().find(|tap| tap.id == id).cloned();
            taps.retain(|tap| tap.id != id);
        });
        ended
    }

    /// Takes all taps away.
    pub fn clear(&self) {
        self.change(Vec::clear);
    }

    /// The taps of now.
    pub fn taps(&self) -> Vec<Arc<Tap>> {
        self.list.borrow().0.clone()
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Arc<Tap>>)) {
        self.list.send_modify(|list| {
            let mut taps = list.0.clone();
            change(&mut taps);
            self.counted.taps.set(taps.len() as f64);
            *list = Arc::new(List(taps));
        });
    }

    /// What all data threads remember that a filter holds for and that has ended since then, by when it began.
    pub async fn past(&self, filter: Option<Arc<Filter>>, since: Option<Instant>) -> Vec<Exchange> {
        let asked =
            self.ask(|answer| Question::Past { filter: filter.clone(), since, answer }).await.into_iter();
        let mut all: Vec<Exchange> = asked.flatten().collect();
        all.sort_by_key(|one| one.started);
        all
    }

    /// How requests have fared since this was asked last.
    pub async fn tallies(&self) -> HashMap<Watched, Tally> {
        let mut sum = HashMap::<Watched, Tally>::new();
        for (watched, tally) in self.ask(Question::Tallies).await.into_iter().flatten() {
            sum.entry(watched).or_default().add(tally);
        }
        sum
    }

    /// Asks every data thread; those that have ended are forgotten, those that do not answer in time left out.
    async fn ask<T>(&self, question: impl Fn(oneshot::Sender<T>) -> Question) -> Vec<T> {
        let threads = {
            let mut threads = self.threads();
            threads.retain(|thread| !thread.is_closed());
            threads.clone()
        };
        let mut waiting = Vec::new();
        for thread in threads {
            let (answer, answered) = oneshot::channel();
            if thread.try_send(question(answer)).is_ok() {
                waiting.push(answered);
            }
        }
        let until = Instant::now() + PATIENCE;
        let mut answers = Vec::new();
        for answered in waiting {
            if let Ok(Ok(answer)) = tokio::time::timeout_at(until, answered).await {
                answers.push(answer);
            }
        }
        answers
    }
}
