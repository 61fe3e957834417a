//! The metrics of one proxy. Each proxy owns its own, so that several fit into one process.
//!
//! Series are looked up in a cache of the data thread; only a miss takes the lock here. How many there are is bounded,
//! and what is idle for long is forgotten.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use foldhash::fast::RandomState;
use mesh_core::telemetry::exposition::{Form, Page};
use metrics::{Key, Label, Level, Metadata, Recorder as _};

use super::export::counters::Exports;
use super::labels::{Numbered, Party, ServiceLabels};
use super::shed::Supplies;

mod cache;
mod changes;
mod interner;
mod keys;
pub mod names;
mod proxy;
mod registry;
mod series;
mod subjects;
mod taps;
#[cfg(test)]
mod tests;
mod worker;

pub use cache::{SeriesCache, interval};
use changes::Changed;
use interner::Interner;
pub use keys::{MessageKey, Reporter, RequestKey, StreamKey};
pub use proxy::ProxyCounters;
use registry::Registry;
use series::Between;
pub use series::{MessageSeries, RequestSeries, StreamSeries};
pub use taps::TapMetrics;
pub use worker::{Work, WorkerGauges};

/// TLS handshakes that came to nothing, by side and reason.
const HANDSHAKES_FAILED: &str = "mesh_proxy_handshake_failures_total";
/// A kind of failed handshake is told of in the log so often; the others are only counted.
const TOLD_AGAIN: Duration = Duration::from_secs(60);
/// Captured connections closed for what they began with, by reason.
const ENTRANCES_REFUSED: &str = "mesh_proxy_entrances_refused_total";
/// Requests refused and connections closed for what was sent, by side and reason.
const BYTES_REFUSED: &str = "mesh_proxy_bytes_refused_total";
const METADATA: Metadata<'static> = Metadata::new("mesh", Level::INFO, Some("mesh"));

/// Label sets of a metric, where nothing else is said: each is a line or, of a histogram, 22.
pub const MOST_SERIES: usize = 5_000;
/// What nothing has happened to for so long is forgotten, where nothing else is said.
pub const SERIES_IDLE: Duration = Duration::from_secs(3600);
/// Looks at what is idle, until it is forgotten.
const LOOKS: u32 = 8;
/// It is not looked oftener.
const FINEST: Duration = Duration::from_millis(50);

/// How many series there may be, and how long they stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Label sets of a metric.
    pub series: usize,
    /// What nothing has happened to for so long is forgotten; `None` for never.
    pub idle: Option<Duration>,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { series: MOST_SERIES, idle: Some(SERIES_IDLE) }
    }
}

/// Where a TLS handshake took place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// On the mesh port.
    Inbound,
    /// On a connection straight to a workload's port.
    Direct,
    /// Towards another proxy.
    Outbound,
    /// Towards a server that no proxy stands before.
    Origination,
}

impl Side {
    const ALL: [Side; 4] = [Side::Inbound, Side::Direct, Side::Outbound, Side::Origination];

    /// The label's value.
    pub fn name(self) -> &'static str {
        match self {
            Side::Inbound => "inbound",
            Side::Direct => "direct",
            Side::Outbound => "outbound",
            Side::Origination => "origination",
        }
    }
}

struct State {
    parties: Interner<Party>,
    services: Interner<ServiceLabels>,
}

/// All metrics of one proxy.
pub struct Metrics {
    bounds: Bounds,
    recorder: Registry,
    state: Mutex<State>,
    /// Kinds of failed handshakes, and when the log last told of one.
    told: Mutex<HashMap<(Side, &'static str), Instant, RandomState>>,
    /// Counters of the proxy itself.
    pub proxy: ProxyCounters,
    /// What is not taken, and what there is.
    pub supplies: Supplies,
    /// What goes to collectors.
    pub exports: Exports,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new(Bounds::default())
    }
}

impl Metrics {
    /// Nothing recorded.
    pub fn new(bounds: Bounds) -> Metrics {
        let recorder = Registry::new(bounds.series);
        let build = Key::from_parts(
            "istio_build",
            vec![Label::new("component", "proxy"), Label::new("tag", env!("CARGO_PKG_VERSION"))],
        );
        let build = recorder.register_gauge(&build, &METADATA);
        build.set(1.0);
        let state = State {
            parties: Interner::new(Party::unknown(), Party::other()),
            services: Interner::new(ServiceLabels::outside("unknown"), ServiceLabels::other()),
        };
        Metrics {
            proxy: ProxyCounters::new(&recorder, build),
            supplies: Supplies::new(&recorder, &METADATA),
            exports: Exports::new(&recorder, &METADATA),
            bounds,
            recorder,
            state: Mutex::new(state),
            told: Mutex::default(),
        }
    }

    /// The number of a party; that of `other` where there are too many.
    pub fn party(&self, party: Party) -> Numbered<Party> {
        self.state().parties.number(party)
    }

    /// The party of which nothing is known.
    pub fn unknown_party(&self) -> Numbered<Party> {
        self.state().parties.unknown()
    }

    /// The number of a service; that of `other` where there are too many.
    pub fn service(&self, service: ServiceLabels) -> Numbered<ServiceLabels> {
        self.state().services.number(service)
    }

    /// The party of a number; the unknown one where there is none.
    pub fn party_of(&self, number: u32) -> Arc<Party> {
        self.state().parties.value(number)
    }

    /// The service of a number; the unknown one where there is none.
    pub fn service_of(&self, number: u32) -> Arc<ServiceLabels> {
        self.state().services.value(number)
    }

    /// A snapshot came in force: how long its tables took, and everything until sockets had followed.
    pub fn snapshot_applied(&self, built: Duration, all: Duration) {
        self.proxy.snapshot_build.set(built.as_secs_f64());
        self.proxy.snapshot_apply.set(all.as_secs_f64());
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.proxy.snapshot_time.set(since.as_millis() as f64 / 1000.0);
    }

    /// A TLS handshake was completed.
    pub fn handshake_done(&self, side: Side) {
        self.proxy.handshakes[side as usize].increment(1);
    }

    /// How many label sets a metric may have.
    pub fn most_series(&self) -> usize {
        self.bounds.series
    }

    /// Everything in Prometheus' text format.
    pub fn render(&self) -> String {
        self.page(Form::Text).finish()
    }

    /// Everything, to be added to.
    pub fn page(&self, form: Form) -> Page {
        let mut page = Page::new(form, self.recorder.room());
        self.recorder.write(&mut page);
        let (parties, services) = {
            let state = self.state();
            (state.parties.overflowed, state.services.overflowed)
        };
        page.family(&names::LABELS_OVERFLOW);
        page.count("kind=\"party\"", parties, None);
        page.count("kind=\"service\"", services, None);
        page
    }

    /// Forgets what is idle; runs until it is dropped.
    pub async fn keep(self: Arc<Metrics>) {
        let Some(period) = self.period() else { return };
        loop {
            tokio::time::sleep(period).await;
            self.forget();
        }
    }

    /// How often it is looked for what is idle; `None` for never.
    fn period(&self) -> Option<Duration> {
        self.bounds.idle.map(|idle| (idle / LOOKS).max(FINEST))
    }

    fn forget(&self) {
        self.recorder.forget(LOOKS);
        let mut state = self.state();
        state.parties.forget(LOOKS);
        state.services.forget(LOOKS);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn between(&self, source: u32, destination: u32, service: u32) -> Between {
        let mut state = self.state();
        Between {
            source: state.parties.value(source),
            destination: state.parties.value(destination),
            service: state.services.value(service),
        }
    }

    fn request_series(&self, key: &RequestKey, changed: Option<&Changed<'_>>) -> RequestSeries {
        let between = self.between(key.source, key.destination, key.service);
        RequestSeries::find(&self.recorder, key, between, changed)
    }

    fn stream_series(&self, key: &StreamKey, changed: Option<&Changed<'_>>) -> StreamSeries {
        let between = self.between(key.source, key.destination, key.service);
        StreamSeries::find(&self.recorder, key, between, changed)
    }

    fn message_series(&self, key: &MessageKey, changed: Option<&Changed<'_>>) -> MessageSeries {
        let between = self.between(key.source, key.destination, key.service);
        MessageSeries::find(&self.recorder, key, between, changed)
    }
}
