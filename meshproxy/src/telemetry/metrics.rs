//! Names and labels of every metric, and the handles that traffic writes through.
//!
//! Each proxy owns its recorder, so that several fit into one process. Counters go through `metrics`;
//! histograms are our own atomic buckets, because the exporter keeps every sample until it is scraped.
//! Series are looked up in a cache of the data thread; only a miss takes the lock here.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use mesh_core::framing::refusal::Refusal;
use metrics::{Counter, Gauge, Key, Label, Level, Metadata, Recorder as _};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::export::counters::Exports;
use super::flags::Flags;
use super::histogram::Histogram;
use super::labels::{Numbered, Party, ServiceLabels, parties};
use super::shed::Supplies;

mod cache;
mod interner;
mod subjects;

pub use cache::SeriesCache;
use interner::Interner;

/// So many series are kept; what is beyond is counted in one.
const MOST_SERIES: usize = 65_536;

/// TLS handshakes that came to nothing, by side and reason.
const HANDSHAKES_FAILED: &str = "mesh_proxy_handshake_failures_total";
/// A kind of failed handshake is told of in the log so often; the others are only counted.
const TOLD_AGAIN: Duration = Duration::from_secs(60);
/// Captured connections closed for what they began with, by reason.
const ENTRANCES_REFUSED: &str = "mesh_proxy_entrances_refused_total";
/// Requests refused and connections closed for what was sent, by side and reason.
const BYTES_REFUSED: &str = "mesh_proxy_bytes_refused_total";
const METADATA: Metadata<'static> = Metadata::new("mesh", Level::INFO, Some("mesh"));

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

/// Which side of the hop speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reporter {
    /// The caller's proxy.
    Source,
    /// The proxy of the workload that is called.
    Destination,
}

impl Reporter {
    /// The label's value.
    pub fn name(self) -> &'static str {
        match self {
            Reporter::Source => "source",
            Reporter::Destination => "destination",
        }
    }
}

/// What tells one series of requests from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestKey {
    /// Who speaks.
    pub reporter: Reporter,
    /// Number of the calling party.
    pub source: u32,
    /// Number of the called party.
    pub destination: u32,
    /// Number of the service.
    pub service: u32,
    /// Status; 0 where no answer was given.
    pub code: u16,
    /// `grpc-status` of a gRPC request; `None` for plain HTTP.
    pub grpc_status: Option<u16>,
    /// Whether the request was gRPC.
    pub grpc: bool,
    /// Response flags.
    pub flags: Flags,
    /// Whether the connection was mutual TLS; only the destination says so.
    pub mutual_tls: bool,
}

/// What tells one series of byte streams from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamKey {
    /// Who speaks.
    pub reporter: Reporter,
    /// Number of the calling party.
    pub source: u32,
    /// Number of the called party.
    pub destination: u32,
    /// Number of the service.
    pub service: u32,
    /// Response flags.
    pub flags: Flags,
    /// Whether the connection was mutual TLS; only the destination says so.
    pub mutual_tls: bool,
}

/// Handles of one series of requests.
#[derive(Debug)]
pub struct RequestSeries {
    labels: String,
    /// `istio_requests_total`.
    pub requests: Counter,
    /// `istio_request_duration_milliseconds`.
    pub duration: Histogram,
    /// `istio_request_bytes`.
    pub request_bytes: Histogram,
    /// `istio_response_bytes`.
    pub response_bytes: Histogram,
}

/// Handles of one series of byte streams.
#[derive(Debug)]
pub struct StreamSeries {
    /// `istio_tcp_connections_opened_total`.
    pub opened: Counter,
    /// `istio_tcp_connections_closed_total`.
    pub closed: Counter,
    /// `istio_tcp_sent_bytes_total`: to the client.
    pub sent: Counter,
    /// `istio_tcp_received_bytes_total`: from the client.
    pub received: Counter,
}

/// Counters of the proxy itself.
#[derive(Debug)]
pub struct ProxyCounters {
    /// Connections accepted.
    pub accepted: Counter,
    /// Panics caught in connections.
    pub panics: Counter,
    /// Attempts beyond the first.
    pub retries: Counter,
    /// Attempts beside another one whose answer counted, whose answer did not, and that were not begun.
    pub hedges_won: Counter,
    /// See `hedges_won`.
    pub hedges_lost: Counter,
    /// See `hedges_won`.
    pub hedges_refused: Counter,
    /// Connections that were ended because what came was not the protocol, as only its codec could see: of applications,
    /// of other proxies.
    pub malformed_downstream: Counter,
    /// Streams of HTTP/2 of which nothing came for too long.
    pub slow_streams: Counter,
    /// See `malformed_downstream`.
    pub malformed_mesh: Counter,
    /// Connections that take no new requests because of their age: of applications, of other proxies, upstream.
    pub retired_downstream: Counter,
    /// See `retired_downstream`.
    pub retired_peers: Counter,
    /// See `retired_downstream`.
    pub retired_upstream: Counter,
    /// Copies of requests that were sent.
    pub mirrors: Counter,
    /// Copies that were not sent, or given up: too many at once, or too far behind.
    pub mirrors_dropped: Counter,
    /// Copies that got no answer.
    pub mirrors_failed: Counter,
    /// Bodies that were not kept for another attempt because too much is kept already.
    pub bodies_not_kept: Counter,
    /// Whether the rules of interception stand, and how often they were found removed or changed.
    pub interception: Gauge,
    /// See `interception`.
    pub interception_lost: Counter,
    /// Attempts to dial a listener of our own.
    pub loops_refused: Counter,
    /// Requests that were ended because a newer policy is against them, and byte streams.
    pub requests_cut_off: Counter,
    /// See `requests_cut_off`.
    pub streams_cut_off: Counter,
    /// Ways of beginning TLS whose newest files cannot be used.
    pub certificate_faults: Gauge,
    /// Reports of load that were taken, that do not say enough, that cannot be read.
    pub load_reports: Counter,
    /// See `load_reports`.
    pub load_reports_lacking: Counter,
    /// See `load_reports`.
    pub load_reports_unreadable: Counter,
    /// Names that were resolved, and those that could not be.
    pub names_resolved: Counter,
    /// See `names_resolved`.
    pub names_failed: Counter,
}

#[derive(Default)]
struct State {
    parties: Interner<Party>,
    services: Interner<ServiceLabels>,
    requests: HashMap<RequestKey, Arc<RequestSeries>, RandomState>,
    streams: HashMap<StreamKey, Arc<StreamSeries>, RandomState>,
}

/// All metrics of one proxy.
pub struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
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
        Metrics::new()
    }
}

impl Metrics {
    /// A recorder with nothing recorded.
    pub fn new() -> Metrics {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        let build = Key::from_parts(
            "istio_build",
            vec![Label::new("component", "proxy"), Label::new("tag", env!("CARGO_PKG_VERSION"))],
        );
        recorder.register_gauge(&build, &METADATA).set(1.0);
        let counter = |name: &'static str| recorder.register_counter(&Key::from_name(name), &METADATA);
        let resolutions = |result: &'static str| {
            let labels = vec![Label::new("result", result)];
            recorder
                .register_counter(&Key::from_parts("mesh_proxy_name_resolutions_total", labels), &METADATA)
        };
        let reports = |result: &'static str| {
            let labels = vec![Label::new("result", result)];
            recorder.register_counter(&Key::from_parts("mesh_proxy_load_reports_total", labels), &METADATA)
        };
        let hedges = |result: &'static str| {
            let labels = vec![Label::new("result", result)];
            recorder.register_counter(&Key::from_parts("mesh_proxy_hedges_total", labels), &METADATA)
        };
        let retired = |side: &'static str| {
            let labels = vec![Label::new("side", side)];
            recorder
                .register_counter(&Key::from_parts("mesh_proxy_connections_retired_total", labels), &METADATA)
        };
        let cut_off = |kind: &'static str| {
            let labels = vec![Label::new("kind", kind)];
            recorder.register_counter(
                &Key::from_parts("mesh_proxy_authorization_cut_off_total", labels),
                &METADATA,
            )
        };
        let malformed = |from: &'static str| {
            let labels = vec![Label::new("from", from), Label::new("reason", "codec")];
            recorder.register_counter(&Key::from_parts(BYTES_REFUSED, labels), &METADATA)
        };
        let slow = vec![Label::new("from", "downstream"), Label::new("reason", Refusal::SlowBody.name())];
        let slow = recorder.register_counter(&Key::from_parts(BYTES_REFUSED, slow), &METADATA);
        let proxy = ProxyCounters {
            accepted: counter("mesh_proxy_connections_accepted_total"),
            panics: counter("mesh_proxy_panics_total"),
            retries: counter("mesh_proxy_retries_total"),
            hedges_won: hedges("won"),
            hedges_lost: hedges("lost"),
            hedges_refused: hedges("refused"),
            malformed_downstream: malformed("downstream"),
            slow_streams: slow,
            malformed_mesh: malformed("mesh"),
            retired_downstream: retired("downstream"),
            retired_peers: retired("mesh"),
            retired_upstream: retired("upstream"),
            mirrors: counter("mesh_proxy_mirrors_total"),
            mirrors_dropped: counter("mesh_proxy_mirrors_dropped_total"),
            mirrors_failed: counter("mesh_proxy_mirrors_failed_total"),
            bodies_not_kept: counter("mesh_proxy_bodies_not_kept_total"),
            loops_refused: counter("mesh_proxy_loops_refused_total"),
            interception: recorder.register_gauge(&Key::from_name("mesh_proxy_interception"), &METADATA),
            interception_lost: counter("mesh_proxy_interception_lost_total"),
            requests_cut_off: cut_off("request"),
            streams_cut_off: cut_off("stream"),
            certificate_faults: recorder
                .register_gauge(&Key::from_name("mesh_proxy_certificate_faults"), &METADATA),
            load_reports: reports("ok"),
            load_reports_lacking: reports("lacking"),
            load_reports_unreadable: reports("unreadable"),
            names_resolved: resolutions("ok"),
            names_failed: resolutions("failed"),
        };
        let mut state = State::default();
        state.parties.number(Party::unknown());
        state.services.number(ServiceLabels::outside("unknown"));
        let supplies = Supplies::new(&recorder, &METADATA);
        let exports = Exports::new(&recorder, &METADATA);
        Metrics {
            recorder,
            handle,
            state: Mutex::new(state),
            told: Mutex::default(),
            proxy,
            supplies,
            exports,
        }
    }

    /// The number of a party; that of the unknown one where there are too many.
    pub fn party(&self, party: Party) -> Numbered<Party> {
        self.state().parties.number(party)
    }

    /// The party of which nothing is known.
    pub fn unknown_party(&self) -> Numbered<Party> {
        self.state().parties.first()
    }

    /// The number of a service.
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

    /// Everything in Prometheus' text format.
    pub fn render(&self) -> String {
        let mut out = self.handle.render();
        let mut series: Vec<Arc<RequestSeries>> = self.state().requests.values().cloned().collect();
        series.sort_by(|a, b| a.labels.cmp(&b.labels));
        type Select = fn(&RequestSeries) -> &Histogram;
        let histograms: [(&str, Select); 3] = [
            ("istio_request_duration_milliseconds", |s| &s.duration),
            ("istio_request_bytes", |s| &s.request_bytes),
            ("istio_response_bytes", |s| &s.response_bytes),
        ];
        for (name, select) in histograms.into_iter().filter(|_| !series.is_empty()) {
            let _ = writeln!(out, "# TYPE {name} histogram");
            series.iter().for_each(|one| select(one).render(name, &one.labels, &mut out));
            out.push('\n');
        }
        out
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn request_series(&self, key: RequestKey) -> Arc<RequestSeries> {
        let mut state = self.state();
        let full = state.requests.len() >= MOST_SERIES;
        let key = if full { RequestKey { source: 0, destination: 0, ..key } } else { key };
        if let Some(series) = state.requests.get(&key) {
            return Arc::clone(series);
        }
        let mut pairs = state.pairs(key.source, key.destination, key.service);
        let security = security(key.reporter, key.mutual_tls);
        let grpc = key.grpc_status.map(|status| status.to_string()).unwrap_or_default();
        for (name, value) in [
            ("reporter", key.reporter.name().to_owned()),
            ("request_protocol", if key.grpc { "grpc" } else { "http" }.to_owned()),
            ("response_code", key.code.to_string()),
            ("response_flags", key.flags.to_string()),
            ("grpc_response_status", grpc),
            ("connection_security_policy", security.to_owned()),
        ] {
            pairs.push((name.to_owned(), value));
        }
        let series = Arc::new(RequestSeries {
            labels: text(&pairs),
            requests: self.counter("istio_requests_total", &pairs),
            duration: Histogram::default(),
            request_bytes: Histogram::default(),
            response_bytes: Histogram::default(),
        });
        state.requests.insert(key, Arc::clone(&series));
        series
    }

    fn stream_series(&self, key: StreamKey) -> Arc<StreamSeries> {
        let mut state = self.state();
        let full = state.streams.len() >= MOST_SERIES;
        let key = if full { StreamKey { source: 0, destination: 0, ..key } } else { key };
        if let Some(series) = state.streams.get(&key) {
            return Arc::clone(series);
        }
        let mut pairs = state.pairs(key.source, key.destination, key.service);
        for (name, value) in [
            ("reporter", key.reporter.name().to_owned()),
            ("request_protocol", "tcp".to_owned()),
            ("response_flags", key.flags.to_string()),
            ("connection_security_policy", security(key.reporter, key.mutual_tls).to_owned()),
        ] {
            pairs.push((name.to_owned(), value));
        }
        let series = Arc::new(StreamSeries {
            opened: self.counter("istio_tcp_connections_opened_total", &pairs),
            closed: self.counter("istio_tcp_connections_closed_total", &pairs),
            sent: self.counter("istio_tcp_sent_bytes_total", &pairs),
            received: self.counter("istio_tcp_received_bytes_total", &pairs),
        });
        state.streams.insert(key, Arc::clone(&series));
        series
    }

    fn counter(&self, name: &'static str, pairs: &[(String, String)]) -> Counter {
        let labels: Vec<Label> =
            pairs.iter().map(|(key, value)| Label::new(key.clone(), value.clone())).collect();
        self.recorder.register_counter(&Key::from_parts(name, labels), &METADATA)
    }
}

fn security(reporter: Reporter, mutual_tls: bool) -> &'static str {
    match (reporter, mutual_tls) {
        (Reporter::Source, _) => "unknown",
        (Reporter::Destination, true) => "mutual_tls",
        (Reporter::Destination, false) => "none",
    }
}

impl State {
    fn pairs(&self, source: u32, destination: u32, service: u32) -> Vec<(String, String)> {
        let party = |number: u32| self.parties.value(number);
        parties(&party(source), &party(destination), &self.services.value(service))
    }
}

fn text(pairs: &[(String, String)]) -> String {
    let mut out = String::new();
    for (index, (key, value)) in pairs.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(out, "{comma}{key}=\"{value}\"");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::interner::MOST_PARTIES;
    use super::*;

    fn key(source: u32) -> RequestKey {
        RequestKey {
            reporter: Reporter::Destination,
            source,
            destination: 0,
            service: 0,
            code: 200,
            grpc_status: None,
            grpc: false,
            flags: Flags::NONE,
            mutual_tls: true,
        }
    }

    #[test]
    fn series_have_istio_s_names_and_labels() {
        let metrics = Arc::new(Metrics::new());
        let party = Party { workload: "a\"b".into(), ..Party::unknown() };
        let number = metrics.party(party.clone()).number;
        assert_eq!(metrics.party(party).number, number);
        let cache = SeriesCache::new(Arc::clone(&metrics));
        for _ in 0..2 {
            cache.requests(key(number), |series| {
                series.requests.increment(1);
                series.duration.record(3);
            });
        }
        let out = metrics.render();
        let line = out.lines().find(|line| line.starts_with("istio_requests_total{")).unwrap();
        assert!(line.ends_with(" 2"), "{line}");
        for label in [
            "reporter=\"destination\"",
            "source_workload=\"a\\\"b\"",
            "response_code=\"200\"",
            "response_flags=\"-\"",
            "connection_security_policy=\"mutual_tls\"",
            "source_canonical_revision=\"latest\"",
            "grpc_response_status=\"\"",
        ] {
            assert!(line.contains(label), "{label} in {line}");
        }
        assert!(out.contains("istio_request_duration_milliseconds_count{"), "{out}");
    }

    #[test]
    fn peers_cannot_grow_the_labels_without_bound() {
        let metrics = Metrics::new();
        for index in 0..MOST_PARTIES + 10 {
            metrics.party(Party { workload: index.to_string().into(), ..Party::unknown() });
        }
        let late = metrics.party(Party { workload: "late".into(), ..Party::unknown() });
        assert_eq!(late.number, 0);
    }
}
