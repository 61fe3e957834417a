//! The series that one exchange, byte stream or gRPC call is counted into, found once and then kept at hand.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use mesh_core::telemetry::exposition::{Example, Family};
use mesh_core::telemetry::metrics::Metric;

use super::changes::Changed;
use super::keys::{MessageKey, Reporter, RequestKey, StreamKey};
use super::names;
use super::registry::{Counted, Handle, Pairs, Registry, other, text};
use crate::telemetry::entry::Entry;
use crate::telemetry::histogram::Histogram;
use crate::telemetry::labels::{Party, ServiceLabels, parties};

/// Who talks to whom: known as long as it is counted.
#[derive(Debug)]
pub(super) struct Between {
    pub(super) source: Arc<Party>,
    pub(super) destination: Arc<Party>,
    pub(super) service: Arc<ServiceLabels>,
}

impl Between {
    fn pairs(&self, reporter: Reporter, mutual_tls: bool) -> Pairs<'_> {
        let is_proven = match reporter {
            // The caller's proxy knows whom it speaks to where it has proven itself.
            Reporter::Source => &*self.destination.principal != "unknown",
            Reporter::Destination => mutual_tls,
        };
        let mut pairs = vec![("reporter", reporter.name())];
        pairs.extend(parties(&self.source, &self.destination, &self.service, is_proven));
        pairs
    }
}

/// Handles of one series of requests; those of metrics that are disabled are missing.
#[derive(Debug)]
pub struct RequestSeries {
    requests: Option<Arc<Counted>>,
    duration: Option<Arc<Histogram>>,
    request_bytes: Option<Arc<Histogram>>,
    response_bytes: Option<Arc<Histogram>>,
    swallowed: Vec<Arc<AtomicU64>>,
    _between: Between,
}

impl RequestSeries {
    pub(super) fn find(
        registry: &Registry,
        key: &RequestKey,
        between: Between,
        changed: Option<&Changed<'_>>,
    ) -> RequestSeries {
        let mut pairs = between.pairs(key.reporter, key.mutual_tls);
        let (code, flags) = (key.code.to_string(), key.flags.to_string());
        let status = key.grpc_status.map(|status| status.to_string()).unwrap_or_default();
        pairs.extend([
            ("request_protocol", if key.grpc { "grpc" } else { "http" }),
            ("response_code", &code),
            ("grpc_response_status", &status),
            ("response_flags", &flags),
            ("connection_security_policy", security(key.reporter, key.mutual_tls)),
        ]);
        let mut finder = Finder::new(registry, pairs, changed);
        let requests = finder.find(Metric::RequestCount, &names::REQUESTS, Arc::default);
        let duration = finder.find(Metric::RequestDuration, &names::DURATION, Arc::default);
        let request_bytes = finder.find(Metric::RequestSize, &names::REQUEST_BYTES, Arc::default);
        let response_bytes = finder.find(Metric::ResponseSize, &names::RESPONSE_BYTES, Arc::default);
        let swallowed = finder.swallowed;
        RequestSeries { requests, duration, request_bytes, response_bytes, swallowed, _between: between }
    }

    /// An exchange has ended.
    pub fn record(&self, entry: &Entry<'_>) {
        let micros = u64::try_from(entry.duration.as_micros()).unwrap_or(u64::MAX);
        if let Some(requests) = &self.requests {
            requests.increment();
        }
        if let Some(duration) = &self.duration {
            duration.record_thousandths(micros);
        }
        if let Some(bytes) = &self.request_bytes {
            bytes.record(entry.request_bytes);
        }
        if let Some(bytes) = &self.response_bytes {
            bytes.record(entry.response_bytes);
        }
        self.swallowed.iter().for_each(|swallowed| one_more(swallowed));
        if let Some(trace_id) = entry.trace_id {
            self.exemplify(trace_id, entry.version, micros);
        }
    }

    #[cold]
    fn exemplify(&self, trace_id: [u8; 16], version: u64, micros: u64) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        if let Some(requests) = &self.requests {
            requests.exemplify(&Example { trace_id, version, thousandths: 1000, millis });
        }
        if let Some(duration) = &self.duration {
            duration.exemplify(&Example { trace_id, version, thousandths: micros, millis });
        }
    }

    pub(super) fn is_swallowed(&self) -> bool {
        !self.swallowed.is_empty()
    }
}

/// Handles of one series of byte streams; those of metrics that are disabled are missing.
#[derive(Debug)]
pub struct StreamSeries {
    opened: Option<Arc<AtomicU64>>,
    closed: Option<Arc<AtomicU64>>,
    sent: Option<Arc<AtomicU64>>,
    received: Option<Arc<AtomicU64>>,
    swallowed: Vec<Arc<AtomicU64>>,
    _between: Between,
}

impl StreamSeries {
    pub(super) fn find(
        registry: &Registry,
        key: &StreamKey,
        between: Between,
        changed: Option<&Changed<'_>>,
    ) -> StreamSeries {
        let mut pairs = between.pairs(key.reporter, key.mutual_tls);
        let flags = key.flags.to_string();
        pairs.extend([
            ("request_protocol", "tcp"),
            ("response_flags", &flags),
            ("connection_security_policy", security(key.reporter, key.mutual_tls)),
        ]);
        let mut finder = Finder::new(registry, pairs, changed);
        let opened = finder.find(Metric::TcpOpenedConnections, &names::STREAMS_OPENED, Arc::default);
        let closed = finder.find(Metric::TcpClosedConnections, &names::STREAMS_CLOSED, Arc::default);
        let sent = finder.find(Metric::TcpSentBytes, &names::STREAM_SENT, Arc::default);
        let received = finder.find(Metric::TcpReceivedBytes, &names::STREAM_RECEIVED, Arc::default);
        let swallowed = finder.swallowed;
        StreamSeries { opened, closed, sent, received, swallowed, _between: between }
    }

    /// A stream has begun.
    pub fn opened(&self) {
        self.opened.iter().chain(&self.swallowed).for_each(|counter| one_more(counter));
    }

    /// A stream has ended.
    pub fn closed(&self) {
        self.closed.iter().for_each(|counter| one_more(counter));
    }

    /// Bytes went from the client, and to it.
    pub fn carried(&self, received: u64, sent: u64) {
        for (counter, bytes) in [(&self.received, received), (&self.sent, sent)] {
            counter.iter().for_each(|counter| {
                counter.fetch_add(bytes, Ordering::Relaxed);
            });
        }
    }

    pub(super) fn is_swallowed(&self) -> bool {
        !self.swallowed.is_empty()
    }
}

/// Handles of one series of gRPC messages; those of metrics that are disabled are missing.
#[derive(Debug)]
pub struct MessageSeries {
    requests: Option<Arc<AtomicU64>>,
    responses: Option<Arc<AtomicU64>>,
    swallowed: Vec<Arc<AtomicU64>>,
    _between: Between,
}

impl MessageSeries {
    pub(super) fn find(
        registry: &Registry,
        key: &MessageKey,
        between: Between,
        changed: Option<&Changed<'_>>,
    ) -> MessageSeries {
        let pairs = between.pairs(key.reporter, key.mutual_tls);
        let mut finder = Finder::new(registry, pairs, changed);
        let requests = finder.find(Metric::GrpcRequestMessages, &names::REQUEST_MESSAGES, Arc::default);
        let responses = finder.find(Metric::GrpcResponseMessages, &names::RESPONSE_MESSAGES, Arc::default);
        let swallowed = finder.swallowed;
        MessageSeries { requests, responses, swallowed, _between: between }
    }

    /// So many came and went.
    pub fn count(&self, requests: u64, responses: u64) {
        for (counter, messages) in [(&self.requests, requests), (&self.responses, responses)] {
            counter.iter().for_each(|counter| {
                counter.fetch_add(messages, Ordering::Relaxed);
            });
        }
        self.swallowed.iter().for_each(|swallowed| one_more(swallowed));
    }

    pub(super) fn is_swallowed(&self) -> bool {
        !self.swallowed.is_empty()
    }
}

/// Finds the series of several metrics that have the same labels, but for what is declared otherwise.
struct Finder<'a> {
    registry: &'a Registry,
    pairs: Pairs<'a>,
    /// Made once for all of them.
    text: Arc<str>,
    changed: Option<&'a Changed<'a>>,
    swallowed: Vec<Arc<AtomicU64>>,
}

impl<'a> Finder<'a> {
    fn new(registry: &'a Registry, pairs: Pairs<'a>, changed: Option<&'a Changed<'a>>) -> Finder<'a> {
        Finder { registry, text: text(&pairs), pairs, changed, swallowed: Vec::new() }
    }

    /// `None` if the metric is disabled.
    fn find<T: Handle + Clone>(
        &mut self,
        metric: Metric,
        family: &'static Family,
        new: fn() -> T,
    ) -> Option<T> {
        let pairs = match self.changed {
            Some(changed) => changed.pairs(metric, &self.pairs)?,
            None => Cow::Borrowed(&self.pairs),
        };
        let text = match &pairs {
            Cow::Borrowed(_) => Arc::clone(&self.text),
            Cow::Owned(pairs) => text(pairs),
        };
        let found = self.registry.find_text(family, text, || other(&pairs), new);
        self.swallowed.extend(found.swallowed);
        Some(found.handle)
    }
}

fn one_more(counter: &AtomicU64) {
    // Relaxed: as with histograms.
    counter.fetch_add(1, Ordering::Relaxed);
}

fn security(reporter: Reporter, mutual_tls: bool) -> &'static str {
    match (reporter, mutual_tls) {
        (Reporter::Source, _) => "unknown",
        (Reporter::Destination, true) => "mutual_tls",
        (Reporter::Destination, false) => "none",
    }
}
