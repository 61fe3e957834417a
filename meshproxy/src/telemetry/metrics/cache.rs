//! A data thread's own way to its series: what was used of late is found without a lock.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::Hash;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use mesh_core::telemetry::metrics as declared;
use mesh_core::vocab::name::Text;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::changes::{Shape, Shapes, Subject};
use super::keys::{MessageKey, RequestKey, StreamKey};
use super::series::{MessageSeries, RequestSeries, StreamSeries};
use super::{LOOKS, Metrics};
use crate::telemetry::attributes::Known;
use crate::telemetry::entry::Entry;
use crate::telemetry::labels::{Party, ServiceLabels};
use crate::telemetry::messages::Messages;

/// So many series of a kind a data thread keeps at hand.
const MOST_CACHED: usize = 8192;
/// Messages are not flushed oftener.
const FINEST: Duration = Duration::from_millis(100);

type Map<K, V> = HashMap<K, V, RandomState>;

/// Series at hand.
#[derive(Debug)]
struct Cache<K, S>(RefCell<Map<K, Cached<S>>>);

#[derive(Debug)]
struct Cached<S> {
    series: Rc<S>,
    /// Looks since it was last used.
    unused: Cell<u32>,
}

impl<K, S> Default for Cache<K, S> {
    fn default() -> Cache<K, S> {
        Cache(RefCell::default())
    }
}

impl<K: Eq + Hash, S> Cache<K, S> {
    /// Uses the series of a key, which is found if it is not at hand.
    fn with<R>(&self, key: K, find: impl FnOnce(&K) -> S, use_it: impl FnOnce(&Rc<S>) -> R) -> R {
        let mut cache = self.0.borrow_mut();
        if let Some(cached) = cache.get(&key) {
            cached.unused.set(0);
            return use_it(&cached.series);
        }
        if cache.len() >= MOST_CACHED {
            cache.clear();
        }
        let series = Rc::new(find(&key));
        let result = use_it(&series);
        cache.insert(key, Cached { series, unused: Cell::new(0) });
        result
    }

    /// Lets go what was not used at so many looks, and what might have a series of its own now.
    fn forget(&self, most_unused: u32, is_swallowed: impl Fn(&S) -> bool) {
        self.0.borrow_mut().retain(|_, cached| {
            cached.unused.set(cached.unused.get().saturating_add(1));
            cached.unused.get() <= most_unused && !is_swallowed(&cached.series)
        });
    }
}

/// A key with the changes of tags that hold, and what their expressions say.
type ChangedKey<K> = (K, u32, Box<[Text]>);

/// A data thread's way to the metrics.
#[derive(Debug)]
pub struct SeriesCache {
    metrics: Arc<Metrics>,
    requests: Cache<RequestKey, RequestSeries>,
    streams: Cache<StreamKey, StreamSeries>,
    messages: Cache<MessageKey, MessageSeries>,
    shapes: RefCell<Shapes>,
    changed_requests: Cache<ChangedKey<RequestKey>, RequestSeries>,
    changed_streams: Cache<ChangedKey<StreamKey>, StreamSeries>,
    changed_messages: Cache<ChangedKey<MessageKey>, MessageSeries>,
    parties: RefCell<Map<u32, Arc<Party>>>,
    services: RefCell<Map<u32, Arc<ServiceLabels>>>,
    numbers: RefCell<Map<ServiceLabels, u32>>,
    /// Calls of gRPC that go on.
    calls: RefCell<Vec<Weak<Messages>>>,
    called: Notify,
}

impl SeriesCache {
    /// An empty cache.
    pub fn new(metrics: Arc<Metrics>) -> SeriesCache {
        SeriesCache {
            metrics,
            requests: Cache::default(),
            streams: Cache::default(),
            messages: Cache::default(),
            shapes: RefCell::default(),
            changed_requests: Cache::default(),
            changed_streams: Cache::default(),
            changed_messages: Cache::default(),
            parties: RefCell::default(),
            services: RefCell::default(),
            numbers: RefCell::default(),
            calls: RefCell::default(),
            called: Notify::new(),
        }
    }

    /// The party of a number.
    pub fn party(&self, number: u32) -> Arc<Party> {
        let mut cache = self.parties.borrow_mut();
        Arc::clone(cache.entry(number).or_insert_with(|| self.metrics.party_of(number)))
    }

    /// The service of a number.
    pub fn service(&self, number: u32) -> Arc<ServiceLabels> {
        let mut cache = self.services.borrow_mut();
        Arc::clone(cache.entry(number).or_insert_with(|| self.metrics.service_of(number)))
    }

    /// The number of a service that has no place in the tables.
    pub fn service_number(&self, labels: ServiceLabels) -> u32 {
        let mut numbers = self.numbers.borrow_mut();
        if let Some(number) = numbers.get(&labels) {
            return *number;
        }
        if numbers.len() >= MOST_CACHED {
            numbers.clear();
        }
        let number = self.metrics.service(labels.clone()).number;
        numbers.insert(labels, number);
        number
    }

    /// The metrics behind it.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// An exchange has ended.
    pub fn exchange(&self, entry: &Entry<'_>, declared: &declared::Metrics) {
        if !declared.enabled {
            return;
        }
        let key = entry.key();
        if declared.changes.is_empty() {
            let find = |key: &RequestKey| self.metrics.request_series(key, None);
            return self.requests.with(key, find, |series| series.record(entry));
        }
        let (shape, values) = self.shape(Subject::Requests, entry, declared);
        let changed = (key, shape.number, values);
        let find = |(key, _, values): &ChangedKey<RequestKey>| {
            self.metrics.request_series(key, Some(&shape.changed(Subject::Requests, values)))
        };
        self.changed_requests.with(changed, find, |series| series.record(entry));
    }

    /// The series of a byte stream; `None` where nothing is counted.
    pub fn stream(&self, entry: &Entry<'_>, declared: &declared::Metrics) -> Option<Rc<StreamSeries>> {
        if !declared.enabled {
            return None;
        }
        let key = entry.stream_key();
        if declared.changes.is_empty() {
            let find = |key: &StreamKey| self.metrics.stream_series(key, None);
            return Some(self.streams.with(key, find, Rc::clone));
        }
        let (shape, values) = self.shape(Subject::Streams, entry, declared);
        let changed = (key, shape.number, values);
        let find = |(key, _, values): &ChangedKey<StreamKey>| {
            self.metrics.stream_series(key, Some(&shape.changed(Subject::Streams, values)))
        };
        Some(self.changed_streams.with(changed, find, Rc::clone))
    }

    /// A call of gRPC begins, whose messages are counted.
    pub fn call(&self) -> Rc<Messages> {
        let messages = Rc::new(Messages::new());
        let mut calls = self.calls.borrow_mut();
        if calls.is_empty() {
            self.called.notify_one();
        }
        // Most calls are over long before they are looked at: their places are used again.
        if calls.len() == calls.capacity() {
            calls.retain(|call| call.strong_count() > 0);
        }
        calls.push(Rc::downgrade(&messages));
        messages
    }

    /// The series of the messages of an exchange; `None` where nothing is counted.
    pub fn messages(&self, entry: &Entry<'_>, declared: &declared::Metrics) -> Option<Rc<MessageSeries>> {
        if !declared.enabled {
            return None;
        }
        let key = entry.message_key();
        if declared.changes.is_empty() {
            let find = |key: &MessageKey| self.metrics.message_series(key, None);
            return Some(self.messages.with(key, find, Rc::clone));
        }
        let (shape, values) = self.shape(Subject::Messages, entry, declared);
        let changed = (key, shape.number, values);
        let find = |(key, _, values): &ChangedKey<MessageKey>| {
            self.metrics.message_series(key, Some(&shape.changed(Subject::Messages, values)))
        };
        Some(self.changed_messages.with(changed, find, Rc::clone))
    }

    fn shape(
        &self,
        subject: Subject,
        entry: &Entry<'_>,
        declared: &declared::Metrics,
    ) -> (Rc<Shape>, Box<[Text]>) {
        let shape = self.shapes.borrow_mut().of(declared);
        let values = shape.values(subject, &Known { entry, series: self });
        (shape, values)
    }

    /// Flushes the messages of calls that go on, and lets go what was not used for long; runs as long as its data thread.
    pub async fn keep(self: Rc<SeriesCache>) {
        let period = self.metrics.period();
        let mut looked = Instant::now();
        loop {
            let finest = self.calls.borrow().iter().filter_map(|call| Some(call.upgrade()?.every())).min();
            match (finest, period) {
                (Some(finest), _) => tokio::time::sleep(finest.clamp(FINEST, Duration::from_secs(1))).await,
                (None, Some(period)) => {
                    // Whichever comes first.
                    drop(tokio::time::timeout(period, self.called.notified()).await);
                }
                (None, None) => self.called.notified().await,
            }
            let now = Instant::now();
            self.calls.borrow_mut().retain(|call| match call.upgrade() {
                Some(call) => {
                    call.flush_if_due(now);
                    true
                }
                None => false,
            });
            if period.is_some_and(|period| now.duration_since(looked) >= period) {
                looked = now;
                self.forget();
            }
        }
    }

    /// Lets go what was not used for long.
    pub(super) fn forget(&self) {
        self.requests.forget(LOOKS, RequestSeries::is_swallowed);
        self.streams.forget(LOOKS, StreamSeries::is_swallowed);
        self.messages.forget(LOOKS, MessageSeries::is_swallowed);
        self.changed_requests.forget(LOOKS, RequestSeries::is_swallowed);
        self.changed_streams.forget(LOOKS, StreamSeries::is_swallowed);
        self.changed_messages.forget(LOOKS, MessageSeries::is_swallowed);
        self.shapes.borrow_mut().clear();
        self.parties.borrow_mut().clear();
        self.services.borrow_mut().clear();
        self.numbers.borrow_mut().clear();
    }
}

/// How often something is reported that goes on; where nothing is to be reported in between, in a very long time.
pub fn interval(declared: Duration) -> Duration {
    const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);
    if declared.is_zero() { NEVER } else { declared.max(FINEST) }
}
