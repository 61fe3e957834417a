//! Traces: what goes on with a request, and the spans that come of it.
//!
//! Without a collector contexts pass through untouched: the application connects them. With one, each request gets a span
//! of this proxy's in the context that came, or a new one. What is decided is `mesh_core::telemetry::context`; here it is
//! carried out. Spans are made when exchanges end, of those that are sampled and of those that tail sampling wants; they
//! wait in a buffer of the data thread and leave it in parcels.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use http::{HeaderMap, HeaderName, HeaderValue};
use mesh_core::telemetry::Side;
use mesh_core::telemetry::context::{Context, Heard, TRACESTATE, mark};
use mesh_core::telemetry::tracing::{Collector, TagValue};
use mesh_core::vocab::name::Text;
use mesh_core::vocab::random::Random;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::sync::Notify;

use super::entry::Entry;
use super::export::counters::Lost;
use super::export::parcel::{Parcel, Place, Records, Signal};
use super::export::{Exporter, LONGEST_WAIT, PARCEL};
use super::metrics::{Reporter, SeriesCache};
use formats::Formats;
use span::Speaker;

pub mod formats;
mod span;

/// The operation that a request is for, told by the caller's proxy.
pub static OPERATION: HeaderName = HeaderName::from_static("x-envoy-decorator-operation");
/// Collectors and resources that a data thread keeps at hand.
const MOST_KEPT: usize = 64;

/// Which requests that were not sampled are told of all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tail {
    /// Those that failed.
    pub errors: bool,
    /// Those that took so long.
    pub slow: Option<Duration>,
    /// So many of them may wait at a time on one data thread.
    pub buffer: usize,
}

impl Default for Tail {
    fn default() -> Tail {
        Tail { errors: false, slow: None, buffer: Tail::BUFFER }
    }
}

impl Tail {
    /// So many wait where nothing else is said.
    pub const BUFFER: usize = 512;

    fn is_on(self) -> bool {
        self.errors || self.slow.is_some()
    }

    /// Whether an exchange is told of, as it has ended.
    fn wants(self, entry: &Entry<'_>) -> bool {
        self.slow.is_some_and(|slow| entry.duration >= slow) || (self.errors && span::is_failure(entry))
    }
}

/// What a proxy traces with.
#[derive(Debug, Clone, Default)]
pub struct TraceSettings {
    /// Name of this host.
    pub node: Text,
    /// What is told of beyond what is sampled.
    pub tail: Tail,
}

/// An attempt that was not the last.
#[derive(Debug, Clone, Copy)]
pub struct Earlier {
    /// When it ended.
    pub ended: tokio::time::Instant,
    /// Which endpoint it was at.
    pub endpoint: Option<std::net::SocketAddr>,
    /// What came of it.
    pub outcome: mesh_core::vocab::outcome::Outcome,
}

/// The trace of one exchange.
#[derive(Debug)]
pub struct Traced {
    /// Its context.
    pub context: Context,
    passes_on: bool,
    kept: Option<Box<Kept>>,
}

/// What a span is made of that nobody else keeps.
#[derive(Debug, Default)]
struct Kept {
    state: Option<HeaderValue>,
    operation: Option<Box<str>>,
    /// Values of header fields that tags are about, by the tag's index.
    fields: Vec<(usize, HeaderValue)>,
}

impl Traced {
    /// Whether a span may come of it.
    pub fn may_be_told(&self) -> bool {
        self.kept.is_some()
    }

    /// What the span is called.
    pub fn operation(&self) -> Option<&str> {
        self.kept.as_ref()?.operation.as_deref()
    }

    /// Names the operation that the request is for: `HOST:PORT/*`.
    pub fn name(&mut self, host: &str, port: u16) {
        if let Some(kept) = &mut self.kept {
            kept.operation = Some(format!("{host}:{port}/*").into());
        }
    }

    /// Takes the operation that the caller's proxy has named.
    pub fn hear_operation(&mut self, told: &HeaderValue) {
        if let Some(kept) = &mut self.kept {
            kept.operation = told.to_str().ok().map(Into::into);
        }
    }

    /// Writes the context, and what is asked for, into a request that goes on.
    pub fn write(&self, headers: &mut HeaderMap, with_operation: bool) {
        if !self.passes_on {
            return;
        }
        self.context.write(headers);
        if !(with_operation && self.context.sampled) {
            return;
        }
        if let Some(name) = self.operation().and_then(|name| HeaderValue::from_str(name).ok()) {
            headers.insert(&OPERATION, name);
        }
    }

    /// The context of a copy, where contexts are passed on.
    pub fn of_copy(&self) -> Option<Context> {
        self.passes_on.then(|| self.context.of_copy())
    }
}

/// What one data thread traces with.
#[derive(Debug)]
pub struct Tracer {
    exporter: Exporter,
    settings: TraceSettings,
    places: RefCell<Vec<(Collector, Arc<Place>)>>,
    resources: RefCell<HashMap<u32, Arc<Resource>, RandomState>>,
    waiting: RefCell<Vec<Waiting>>,
    tail: Cell<usize>,
    filled: Notify,
    formats: Formats,
}

/// Spans that wait for more of the same workload and collector.
#[derive(Debug)]
struct Waiting {
    place: Arc<Place>,
    resource: Arc<Resource>,
    spans: Vec<Span>,
}

impl Tracer {
    /// One that hands its spans over to the exporter.
    pub fn new(exporter: Exporter, settings: TraceSettings) -> Tracer {
        Tracer {
            formats: Formats::on(settings.node.clone()),
            exporter,
            settings,
            places: RefCell::default(),
            resources: RefCell::default(),
            waiting: RefCell::default(),
            tail: Cell::new(0),
            filled: Notify::new(),
        }
    }

    /// Whether requests are traced at all.
    pub fn is_on(&self, side: &Side) -> bool {
        side.tracing.collector.is_some() || self.exporter.started(Signal::Traces).is_some()
    }

    /// A request begins.
    pub fn begin(&self, side: &Side, headers: &HeaderMap, random: &mut Random) -> Traced {
        let tracing = &side.tracing;
        let heard = Heard::read(headers);
        let context = Context::begin(&heard, tracing, random);
        let may_be_told = tracing.report && (context.sampled || self.settings.tail.is_on());
        let kept = may_be_told.then(|| {
            let field = |(index, tag): (usize, &(Text, TagValue))| match &tag.1 {
                TagValue::Header(name, _) => Some((index, headers.get(&**name)?.clone())),
                TagValue::Literal(_) | TagValue::Environment(..) | TagValue::Format(_) => None,
            };
            Box::new(Kept {
                state: heard.forms.w3c.then(|| headers.get(&TRACESTATE).cloned()).flatten(),
                operation: None,
                fields: tracing.tags.iter().enumerate().filter_map(field).collect(),
            })
        });
        Traced { context, passes_on: tracing.propagate, kept }
    }

    /// Whether a span is made of what has ended.
    pub fn tells(&self, traced: &Traced, entry: &Entry<'_>) -> bool {
        traced.kept.is_some() && (traced.context.sampled || self.settings.tail.wants(entry))
    }

    /// An exchange has ended: a span, if one is to be told.
    pub fn end(&self, entry: &Entry<'_>, side: &Side, series: &SeriesCache) {
        let (Some(_), Some(traced)) = (entry.trace_id, entry.traced) else { return };
        let Some(kept) = &traced.kept else { return };
        if !traced.context.sampled {
            if self.tail.get() >= self.settings.tail.buffer {
                return series.metrics().exports.dropped(Signal::Traces, Lost::Tail, 1);
            }
            self.tail.set(self.tail.get() + 1);
        }
        let Some(place) = self.place(side) else { return };
        let own = match entry.reporter {
            Reporter::Source => entry.source,
            Reporter::Destination => entry.destination,
        };
        let speaker =
            Speaker { node: &self.settings.node, party: &series.party(own), tracing: &side.tracing };
        let service = series.service(entry.service);
        let render = |format: &Text| self.formats.render(format, entry, series);
        let span = span::make(entry, traced, kept, (&speaker, &render), &service);
        let resource = self.resource(own, &speaker);
        self.keep(place, resource, span);
    }

    /// The collector of a side.
    fn place(&self, side: &Side) -> Option<Arc<Place>> {
        let Some(collector) = &side.tracing.collector else {
            return self.exporter.started(Signal::Traces).cloned();
        };
        let mut places = self.places.borrow_mut();
        if let Some((_, place)) = places.iter().find(|(known, _)| known == collector) {
            return Some(Arc::clone(place));
        }
        if places.len() >= MOST_KEPT {
            places.clear();
        }
        let place = Arc::new(Place::from(collector));
        places.push((collector.clone(), Arc::clone(&place)));
        Some(place)
    }

    fn resource(&self, party: u32, speaker: &Speaker<'_>) -> Arc<Resource> {
        let mut resources = self.resources.borrow_mut();
        if resources.len() >= MOST_KEPT && !resources.contains_key(&party) {
            resources.clear();
        }
        let made = || Arc::new(span::resource(party, speaker, self.exporter.settings()));
        Arc::clone(resources.entry(party).or_insert_with(made))
    }

    fn keep(&self, place: Arc<Place>, resource: Arc<Resource>, span: Span) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.is_empty() {
            self.filled.notify_one();
        }
        let is_same = |one: &Waiting| Arc::ptr_eq(&one.resource, &resource) && one.place == place;
        match waiting.iter().position(is_same) {
            Some(index) => {
                waiting[index].spans.push(span);
                if waiting[index].spans.len() >= PARCEL {
                    self.hand_over(waiting.swap_remove(index));
                }
            }
            None => waiting.push(Waiting { place, resource, spans: vec![span] }),
        }
    }

    /// Hands over what waits for more.
    pub fn flush(&self) {
        self.tail.set(0);
        for waiting in self.waiting.borrow_mut().drain(..) {
            self.hand_over(waiting);
        }
    }

    fn hand_over(&self, waiting: Waiting) {
        let Waiting { place, resource, spans } = waiting;
        self.exporter.hand_over(Parcel { place, resource, records: Records::Spans(spans) });
    }

    /// Hands spans over that do not fill a parcel; runs as long as its data thread.
    pub async fn keep_flushing(self: Rc<Tracer>) {
        loop {
            self.filled.notified().await;
            tokio::time::sleep(LONGEST_WAIT).await;
            self.flush();
        }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        self.flush();
    }
}

/// The id of a sampled request that this proxy has given it: it says so, for whoever only passes ids on.
pub fn marked(id: &HeaderValue) -> Option<HeaderValue> {
    let mut bytes = id.as_bytes().to_vec();
    let mut id = mark(&mut bytes).then(|| HeaderValue::from_bytes(&bytes).ok())??;
    id.set_sensitive(true);
    Some(id)
}

/// A random UUID (version 4) as a header value.
pub fn request_id(random: &mut Random) -> HeaderValue {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut bytes = [0u8; 16];
    bytes[..8].copy_from_slice(&random.bits().to_be_bytes());
    bytes[8..].copy_from_slice(&random.bits().to_be_bytes());
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            at += 1;
        }
        text[at] = HEX[usize::from(byte >> 4)];
        text[at + 1] = HEX[usize::from(byte & 15)];
        at += 2;
    }
    HeaderValue::from_bytes(&text).expect("hex digits and hyphens")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_uuids() {
        let id = request_id(&mut Random::seeded(1));
        let id = id.to_str().unwrap();
        let hyphens: Vec<usize> = id.match_indices('-').map(|(at, _)| at).collect();
        assert_eq!((id.len(), hyphens), (36, vec![8, 13, 18, 23]));
        assert_eq!(&id[14..15], "4");
    }
}
