//! The flight recorder: what is remembered of the last exchanges of a data thread. Its memory is fixed, and so is what
//! remembering costs: texts are copied, cut to a bound. A reference to them would keep the buffers of connections alive
//! long after these are gone ([0064](../../../docs/decisions/0064-what-is-remembered-of-a-request.md)).

use std::borrow::Cow;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use http::HeaderValue;
use mesh_core::telemetry::tap::Told;
use mesh_core::vocab::origin::Origin;
use tokio::time::Instant;

use super::entry::Entry;
use super::flags::Flags;
use super::metrics::Reporter;

/// A text that is remembered: those of the request's head first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The method.
    Method,
    /// `x-request-id`.
    RequestId,
    /// The authority.
    Authority,
    /// Path and query.
    Path,
    /// Response code details.
    Details,
    /// `outbound|PORT|SUBSET|HOST`.
    Cluster,
    /// Why a connection failed or was ended.
    Failure,
    /// `traceparent`.
    Trace,
}

/// How much is remembered of each part, in their order.
const LONGEST: [usize; 8] = [24, 64, 128, 384, 112, 128, 64, 56];
const TEXT: usize = 960;
const _: () = {
    let (mut sum, mut at) = (0, 0);
    while at < LONGEST.len() {
        sum += LONGEST[at];
        at += 1;
    }
    assert!(sum == TEXT);
};

/// So many places wait for requests that begin.
const MOST_SPARE: usize = 64;

/// One exchange or byte stream, remembered.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// Which side speaks.
    pub reporter: Reporter,
    /// Who else does.
    pub told: Told,
    /// `HTTP/1.1`; empty for a byte stream.
    pub protocol: &'static str,
    /// Whether the caller's connection is mutual TLS.
    pub mutual_tls: bool,
    /// Number of the calling party.
    pub source: u32,
    /// Number of the called party.
    pub destination: u32,
    /// Number of the service.
    pub service: u32,
    /// When it began.
    pub started: Instant,
    /// How long it took.
    pub duration: Duration,
    /// Status; 0 where no answer was given.
    pub code: u16,
    /// `grpc-status` of a gRPC request.
    pub grpc_status: Option<u16>,
    /// Response flags.
    pub flags: Flags,
    /// Attempts upstream.
    pub attempts: u32,
    /// Where the rule was declared that decided.
    pub origin: Option<Origin>,
    /// Body bytes from the client.
    pub received: u64,
    /// Body bytes to the client.
    pub sent: u64,
    /// The endpoint.
    pub endpoint: Option<SocketAddr>,
    /// Who connected.
    pub remote: SocketAddr,
    /// Version of the snapshot that decided.
    pub version: u64,
    texts: [u8; TEXT],
    ends: [u16; LONGEST.len()],
}

impl Exchange {
    /// Nothing yet.
    fn blank(started: Instant) -> Exchange {
        Exchange {
            reporter: Reporter::Source,
            told: Told::Nowhere,
            protocol: "",
            mutual_tls: false,
            source: 0,
            destination: 0,
            service: 0,
            started,
            duration: Duration::ZERO,
            code: 0,
            grpc_status: None,
            flags: Flags::NONE,
            attempts: 0,
            origin: None,
            received: 0,
            sent: 0,
            endpoint: None,
            remote: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
            version: 0,
            texts: [0; TEXT],
            ends: [0; LONGEST.len()],
        }
    }

    /// What is known of one that has ended.
    pub fn of(entry: &Entry<'_>) -> Box<Exchange> {
        let mut exchange = Box::new(Exchange::blank(entry.started));
        exchange.begin(entry.method, entry.request_id, entry.authority, entry.path);
        exchange.finish(entry);
        exchange
    }

    /// A request has begun.
    fn begin(&mut self, method: &str, id: Option<&HeaderValue>, authority: &str, path: &str) {
        let at = self.put(Part::Method, 0, method.as_bytes());
        let at = self.put(Part::RequestId, at, field(id));
        let at = self.put(Part::Authority, at, authority.as_bytes());
        self.put(Part::Path, at, path.as_bytes());
    }

    /// Writes a part behind the one before; says where it ends.
    fn put(&mut self, part: Part, at: usize, bytes: &[u8]) -> usize {
        let index = part as usize;
        let mut end = at;
        // Many are empty.
        if !bytes.is_empty() {
            let length = bytes.len().min(LONGEST[index]);
            if let Some(room) = self.texts.get_mut(at..at + length) {
                room.copy_from_slice(&bytes[..length]);
                end = at + length;
            }
        }
        self.ends[index] = end as u16;
        end
    }

    /// It has ended.
    fn finish(&mut self, entry: &Entry<'_>) {
        self.reporter = entry.reporter;
        self.told = entry.told;
        self.protocol = match entry.protocol {
            "HTTP/2" => "HTTP/2",
            "" => "",
            _ => "HTTP/1.1",
        };
        self.mutual_tls = entry.mutual_tls;
        self.source = entry.source;
        self.destination = entry.destination;
        self.service = entry.service;
        self.started = entry.started;
        self.duration = entry.duration;
        self.code = entry.code;
        self.grpc_status = if entry.grpc { entry.grpc_status } else { None };
        self.flags = entry.flags;
        self.attempts = entry.attempts;
        self.received = entry.received;
        self.sent = entry.sent;
        self.endpoint = entry.upstream_host;
        self.remote = entry.remote;
        self.version = entry.version;
        match (&mut self.origin, entry.origin) {
            // Nearly always the same few rules.
            (Some(held), Some(new)) if held.rule == new.rule && same(&held.resource, &new.resource) => {}
            (held, new) => *held = new.cloned(),
        }
        let failure = if entry.termination.is_empty() { entry.transport_failure } else { entry.termination };
        let at = usize::from(self.ends[Part::Path as usize]);
        let at = self.put(Part::Details, at, entry.details.as_bytes());
        let at = self.put(Part::Cluster, at, entry.cluster.as_bytes());
        let at = self.put(Part::Failure, at, failure.as_bytes());
        self.put(Part::Trace, at, field(entry.trace));
    }

    /// A text of it, perhaps cut.
    pub fn text(&self, part: Part) -> Cow<'_, str> {
        let index = part as usize;
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        let bytes = self.texts.get(usize::from(start)..usize::from(self.ends[index])).unwrap_or(&[]);
        String::from_utf8_lossy(bytes)
    }

    /// Whether a text fills all the room that it has: it may have been longer.
    pub fn is_cut(&self, part: Part) -> bool {
        let index = part as usize;
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        usize::from(self.ends[index] - start) == LONGEST[index]
    }
}

#[cold]
fn blank() -> Box<Exchange> {
    Box::new(Exchange::blank(Instant::now()))
}

fn field(value: Option<&HeaderValue>) -> &[u8] {
    value.map_or(b"", HeaderValue::as_bytes)
}

/// Whether two texts are one in memory.
fn same(one: &std::sync::Arc<str>, other: &std::sync::Arc<str>) -> bool {
    std::sync::Arc::ptr_eq(one, other)
}

/// A place goes to a request that begins and comes back when it has ended: what is moved is the box.
type Places = Vec<Box<Exchange>>;

/// The last exchanges, in a fixed number of places.
#[derive(Debug)]
pub struct Ring {
    places: Places,
    /// Places of exchanges that were forgotten, for those that begin.
    spare: Places,
    most: usize,
    next: usize,
}

impl Ring {
    /// So many places; they take memory when they are used first.
    pub fn new(most: usize) -> Ring {
        Ring { places: Places::new(), spare: Places::new(), most, next: 0 }
    }

    /// A place for a request that begins, with what its head says.
    pub fn begin(
        &mut self,
        method: &str,
        id: Option<&HeaderValue>,
        authority: &str,
        path: &str,
    ) -> Box<Exchange> {
        let mut place = self.spare.pop().unwrap_or_else(blank);
        place.begin(method, id, authority, path);
        place
    }

    /// Remembers one that has ended; the oldest is forgotten. Where no place was taken when it began, one is now.
    pub fn push(&mut self, begun: Option<Box<Exchange>>, entry: &Entry<'_>) {
        let mut place =
            begun.unwrap_or_else(|| self.begin(entry.method, entry.request_id, entry.authority, entry.path));
        place.finish(entry);
        let Some(oldest) = self.places.get_mut(self.next) else { return self.grow(place) };
        let oldest = std::mem::replace(oldest, place);
        if self.spare.len() < MOST_SPARE {
            self.spare.push(oldest);
        }
        self.next += 1;
        if self.next == self.most {
            self.next = 0;
        }
    }

    /// Not all places have been used yet.
    #[cold]
    fn grow(&mut self, place: Box<Exchange>) {
        if self.places.len() < self.most {
            self.places.push(place);
        }
        self.next = if self.places.len() < self.most { self.places.len() } else { 0 };
    }

    /// All that is remembered, in the order in which it ended.
    pub fn iter(&self) -> impl Iterator<Item = &Exchange> {
        let (newer, older) = self.places.split_at(self.next.min(self.places.len()));
        older.iter().chain(newer).map(|place| &**place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::entry::sample;

    fn entry(path: &str) -> Entry<'_> {
        let at = "127.0.0.1:1".parse().unwrap();
        Entry { path, method: "GET", authority: "reviews:9080", ..sample(Instant::now(), at, at) }
    }

    #[test]
    fn the_last_ones_are_remembered_in_order() {
        for (most, pushed, expected) in [
            (0, 2, &[][..]),
            (3, 0, &[]),
            (3, 2, &["/0", "/1"]),
            (3, 3, &["/0", "/1", "/2"]),
            (3, 4, &["/1", "/2", "/3"]),
            (3, 7, &["/4", "/5", "/6"]),
            (1, 3, &["/2"]),
        ] {
            let mut ring = Ring::new(most);
            for number in 0..pushed {
                ring.push(None, &entry(&format!("/{number}")));
            }
            let paths: Vec<String> = ring.iter().map(|one| one.text(Part::Path).into_owned()).collect();
            assert_eq!(paths, expected, "{most} {pushed}");
        }
    }

    #[test]
    fn places_are_used_again() {
        let mut ring = Ring::new(2);
        for number in 0..5 {
            let id = HeaderValue::from_str(&format!("id-{number}")).unwrap();
            let begun = ring.begin("PUT", Some(&id), "a", "/begun");
            // What its end tells of the head may be less.
            ring.push(Some(begun), &Entry { details: "via_upstream", method: "", ..entry("") });
        }
        let ids: Vec<String> = ring.iter().map(|one| one.text(Part::RequestId).into_owned()).collect();
        assert_eq!(ids, ["id-3", "id-4"]);
        let last = ring.iter().last().unwrap();
        assert_eq!((&*last.text(Part::Path), &*last.text(Part::Details)), ("/begun", "via_upstream"));
        assert_eq!(ring.spare.len(), 1);
    }

    #[test]
    fn texts_are_cut_to_their_bounds_and_leave_each_other_alone() {
        let (long, id) = ("é".repeat(1000), HeaderValue::from_str(&"i".repeat(500)).unwrap());
        let mut ring = Ring::new(1);
        ring.push(None, &Entry { request_id: Some(&id), details: &long, authority: &long, ..entry(&long) });
        let kept = ring.iter().next().unwrap();
        assert_eq!(kept.text(Part::Method), "GET");
        assert_eq!(kept.text(Part::RequestId), "i".repeat(64));
        assert_eq!(kept.text(Part::Authority), "é".repeat(64));
        assert_eq!(kept.text(Part::Path), "é".repeat(192));
        assert!(kept.is_cut(Part::Path) && !kept.is_cut(Part::Method));
        ring.push(None, &entry("/short"));
        let kept = ring.iter().next().unwrap();
        assert_eq!(kept.text(Part::Path), "/short");
        assert_eq!(kept.text(Part::RequestId), "");
        assert_eq!(kept.text(Part::Authority), "reviews:9080");
    }
}
