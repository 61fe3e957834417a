//! All series of a proxy, by metric and labels: bounded in number, and forgotten when nothing has happened for long and
//! nobody holds them any more.
//!
//! A series is changed through its handle, without looking here. It is removed only while nobody but this registry
//! holds it, and handles are given out under the same lock: nothing is counted into a series that was removed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mesh_core::telemetry::exposition::{self, Example, Family, Kind, Page};
use metrics::{Counter, Gauge, Key, KeyName, Metadata, Recorder, SharedString, Unit};

use super::names;
use crate::telemetry::example;
use crate::telemetry::histogram::Histogram;

/// A counter with an example.
#[derive(Debug, Default)]
pub(super) struct Counted {
    value: AtomicU64,
    example: example::Kept,
}

impl Counted {
    /// One more.
    pub(super) fn increment(&self) {
        // Relaxed: as with histograms.
        self.value.fetch_add(1, Ordering::Relaxed);
    }

    /// Keeps an exchange as the example of what is counted.
    pub(super) fn exemplify(&self, example: &Example) {
        self.example.keep(example);
    }
}

/// The handle of a series.
pub(super) trait Handle: Sized {
    /// It as the registry keeps it.
    fn kept(self) -> Value;
    /// It again, if it is of this kind.
    fn of(value: &Value) -> Option<Self>;
}

/// The figure of a series.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// A counter, or a gauge as the bits of its number.
    Plain(Arc<AtomicU64>),
    /// A counter with an example.
    Counted(Arc<Counted>),
    /// A histogram.
    Histogram(Arc<Histogram>),
}

macro_rules! handle {
    ($type:ty, $variant:ident) => {
        impl Handle for Arc<$type> {
            fn kept(self) -> Value {
                Value::$variant(self)
            }

            fn of(value: &Value) -> Option<Self> {
                match value {
                    Value::$variant(handle) => Some(Arc::clone(handle)),
                    _ => None,
                }
            }
        }
    };
}

handle!(AtomicU64, Plain);
handle!(Counted, Counted);
handle!(Histogram, Histogram);

impl Value {
    /// Changes whenever something happens.
    fn now(&self) -> u64 {
        match self {
            Value::Plain(value) => value.load(Ordering::Relaxed),
            Value::Counted(counted) => counted.value.load(Ordering::Relaxed),
            Value::Histogram(histogram) => histogram.count(),
        }
    }

    fn is_held(&self) -> bool {
        let holders = match self {
            Value::Plain(value) => Arc::strong_count(value),
            Value::Counted(counted) => Arc::strong_count(counted),
            Value::Histogram(histogram) => Arc::strong_count(histogram),
        };
        holders > 1
    }

    fn write(&self, labels: &str, kind: Kind, page: &mut Page) {
        match (self, kind) {
            (Value::Histogram(histogram), _) => histogram.write(labels, page),
            (Value::Counted(counted), _) => {
                page.count(labels, counted.value.load(Ordering::Relaxed), counted.example.read());
            }
            (Value::Plain(value), Kind::Gauge) => {
                page.gauge(labels, f64::from_bits(value.load(Ordering::Relaxed)));
            }
            (Value::Plain(value), _) => page.count(labels, value.load(Ordering::Relaxed), None),
        }
    }
}

#[derive(Debug)]
struct Series {
    value: Value,
    /// The figure when it was last looked at, and how often it was the same since.
    last: u64,
    idle: u32,
}

#[derive(Debug)]
struct Members {
    family: &'static Family,
    series: BTreeMap<Arc<str>, Series>,
    /// Of these, those that stand for others.
    others: usize,
}

type Families = BTreeMap<&'static str, Members>;

/// Names and values of labels, in order.
pub(super) type Pairs<'a> = Vec<(&'a str, &'a str)>;

/// What was found.
pub(super) struct Found<T> {
    /// The series, or the one for all that there is no room for.
    pub(super) handle: T,
    /// Counts what goes into the series for others; `None` where it is a series of its own.
    pub(super) swallowed: Option<Arc<AtomicU64>>,
}

/// A metric with the handles of its series.
type Copied = (&'static Family, Vec<(Arc<str>, Value)>);

/// All series.
#[derive(Debug)]
pub(super) struct Registry {
    /// So many label sets a metric may have, the ones for all others aside.
    most: usize,
    families: Mutex<Families>,
}

impl Registry {
    pub(super) fn new(most: usize) -> Registry {
        Registry { most, families: Mutex::default() }
    }

    /// The series of these labels, made if there is none.
    pub(super) fn find<T: Handle + Clone>(
        &self,
        family: &'static Family,
        pairs: &Pairs<'_>,
        new: fn() -> T,
    ) -> Found<T> {
        self.find_text(family, text(pairs), || other(pairs), new)
    }

    /// The same with labels as text; `other` makes that of the series for others.
    pub(super) fn find_text<T: Handle + Clone>(
        &self,
        family: &'static Family,
        labels: Arc<str>,
        other: impl FnOnce() -> Arc<str>,
        new: fn() -> T,
    ) -> Found<T> {
        let mut families = self.families();
        if let Some(handle) = member(&mut families, family, &labels) {
            return Found { handle, swallowed: None };
        }
        let members = members(&mut families, family);
        if members.series.len().saturating_sub(members.others) < self.most {
            return Found { handle: add(members, labels, new()), swallowed: None };
        }
        let other = other();
        let handle = member(&mut families, family, &other).unwrap_or_else(|| {
            let members = self::members(&mut families, family);
            members.others += 1;
            add(members, other, new())
        });
        let labels = text(&vec![("metric", family.name)]);
        let swallowed = member(&mut families, &names::SERIES_OVERFLOW, &labels).unwrap_or_else(|| {
            add(self::members(&mut families, &names::SERIES_OVERFLOW), labels, Arc::default())
        });
        Found { handle, swallowed: Some(swallowed) }
    }

    /// A series of a metric of the proxy itself.
    pub(super) fn plain(&self, family: &'static Family, pairs: &Pairs<'_>) -> Arc<AtomicU64> {
        let found = self.find(family, pairs, Arc::<AtomicU64>::default);
        if let Some(swallowed) = found.swallowed {
            swallowed.fetch_add(1, Ordering::Relaxed);
        }
        found.handle
    }

    /// Looks at all series; forgets those in which nothing has happened at so many looks, and that nobody holds.
    pub(super) fn forget(&self, most_idle: u32) {
        for members in self.families().values_mut() {
            members.series.retain(|labels, series| {
                let now = series.value.now();
                series.idle = if now == series.last { series.idle.saturating_add(1) } else { 0 };
                series.last = now;
                let stays = series.idle <= most_idle || series.value.is_held();
                if !stays && is_other(labels) {
                    members.others = members.others.saturating_sub(1);
                }
                stays
            });
        }
    }

    /// Writes everything. The lock is held only while handles are copied.
    pub(super) fn write(&self, page: &mut Page) {
        let copied: Vec<Copied> = {
            let families = self.families();
            let of = |members: &Members| {
                let series = members.series.iter();
                (
                    members.family,
                    series.map(|(labels, one)| (Arc::clone(labels), one.value.clone())).collect(),
                )
            };
            families.values().filter(|members| !members.series.is_empty()).map(of).collect()
        };
        for (family, series) in &copied {
            page.family(family);
            series.iter().for_each(|(labels, value)| value.write(labels, family.kind, page));
        }
        page.family(&names::SERIES);
        for (family, series) in &copied {
            page.gauge(&text(&vec![("metric", family.name)]), series.len() as f64);
        }
    }

    /// About how many bytes all of it takes as text.
    pub(super) fn room(&self) -> usize {
        let of = |members: &Members| {
            let lines = if members.family.kind == Kind::Histogram { 22 } else { 1 };
            let each = members.series.first_key_value().map_or(0, |(labels, _)| labels.len() + 64);
            members.series.len() * lines * each
        };
        self.families().values().map(of).sum::<usize>() + 4096
    }

    fn families(&self) -> MutexGuard<'_, Families> {
        self.families.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn members<'a>(families: &'a mut Families, family: &'static Family) -> &'a mut Members {
    families.entry(family.name).or_insert_with(|| Members { family, series: BTreeMap::new(), others: 0 })
}

fn member<T: Handle>(families: &mut Families, family: &'static Family, labels: &str) -> Option<T> {
    T::of(&members(families, family).series.get(labels)?.value)
}

fn add<T: Handle + Clone>(members: &mut Members, labels: Arc<str>, handle: T) -> T {
    let series = Series { value: handle.clone().kept(), last: 0, idle: 0 };
    members.series.insert(labels, series);
    handle
}

const OTHER: &str = "other";

/// Labels as text between braces.
pub(super) fn text(pairs: &Pairs<'_>) -> Arc<str> {
    let mut out = String::with_capacity(pairs.len() * 40);
    pairs.iter().for_each(|(name, value)| exposition::label(name, value, &mut out));
    out.into()
}

/// The labels of the series for all that there is no room for: only who reports is told.
pub(super) fn other(pairs: &Pairs<'_>) -> Arc<str> {
    let mut out = String::with_capacity(pairs.len() * 32);
    for (name, value) in pairs {
        exposition::label(name, if *name == "reporter" { value } else { OTHER }, &mut out);
    }
    out.into()
}

fn is_other(labels: &str) -> bool {
    let reported =
        labels.strip_prefix("reporter=\"").and_then(|rest| rest.split_once(',')).map(|(_, rest)| rest);
    reported.unwrap_or(labels).split(',').all(|label| label.ends_with("=\"other\""))
}

/// Handles for the rest of the proxy, which knows only names.
impl Recorder for Registry {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.named(key).map_or_else(Counter::noop, Counter::from_arc)
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.named(key).map_or_else(Gauge::noop, Gauge::from_arc)
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> metrics::Histogram {
        metrics::Histogram::noop()
    }
}

impl Registry {
    fn named(&self, key: &Key) -> Option<Arc<AtomicU64>> {
        let family = names::of(key.name());
        debug_assert!(family.is_some(), "{} is not among the names of metrics", key.name());
        let pairs = key.labels().map(|label| (label.key(), label.value())).collect();
        family.map(|family| self.plain(family, &pairs))
    }
}

#[cfg(test)]
mod tests {
    use mesh_core::telemetry::exposition::Form;

    use super::*;

    fn page(registry: &Registry) -> String {
        let mut page = Page::new(Form::Text, 0);
        registry.write(&mut page);
        page.finish()
    }

    fn one(registry: &Registry, source: &str) -> Arc<AtomicU64> {
        registry.plain(&names::STREAM_SENT, &vec![("reporter", "source"), ("source_workload", source)])
    }

    #[test]
    fn what_there_is_no_room_for_is_other() {
        let registry = Registry::new(2);
        for source in ["a", "b", "c", "d", "c", "a"] {
            one(&registry, source).fetch_add(1, Ordering::Relaxed);
        }
        let out = page(&registry);
        assert!(out.contains("{reporter=\"source\",source_workload=\"a\"} 2\n"), "{out}");
        assert!(out.contains("{reporter=\"source\",source_workload=\"other\"} 3\n"), "{out}");
        assert!(out.contains("overflow_total{metric=\"istio_tcp_sent_bytes_total\"} 3\n"), "{out}");
        assert_eq!(out.matches("istio_tcp_sent_bytes_total{").count(), 3, "{out}");
    }

    #[test]
    fn idle_series_are_forgotten_unless_somebody_holds_them() {
        let registry = Registry::new(2);
        let held = one(&registry, "held");
        held.fetch_add(1, Ordering::Relaxed);
        one(&registry, "gone").fetch_add(1, Ordering::Relaxed);
        one(&registry, "too many").fetch_add(1, Ordering::Relaxed);
        (0..3).for_each(|_| registry.forget(1));
        let out = page(&registry);
        assert!(out.contains("source_workload=\"held\"} 1\n"), "{out}");
        assert!(!out.contains("\"gone\"") && !out.contains("\"other\""), "{out}");
        // It comes back and begins anew, and there is room again.
        one(&registry, "gone").fetch_add(1, Ordering::Relaxed);
        assert!(page(&registry).contains("source_workload=\"gone\"} 1\n"));
        one(&registry, "third").fetch_add(1, Ordering::Relaxed);
        assert!(page(&registry).contains("source_workload=\"other\"} 1\n"));
        drop(held);
        (0..3).for_each(|_| registry.forget(1));
        assert!(!page(&registry).contains("istio_tcp_sent_bytes_total{"));
    }
}
