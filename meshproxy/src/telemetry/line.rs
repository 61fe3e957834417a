//! One record of the access log as a line, in Istio's text and JSON formats.

use std::cell::Cell;
use std::io::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use mesh_core::telemetry::format::{Moment, TimeFormat};
use mesh_core::vocab::origin::Origin;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::entry::Entry;

/// A line rarely needs more.
const USUAL_LINE: usize = 1024;

/// A line of JSON, keys sorted.
pub(super) fn json(entry: &Entry<'_>, clock: &Clock, out: &mut Vec<u8>) {
    out.reserve(USUAL_LINE);
    out.extend_from_slice(b"{\"authority\":");
    quoted(entry.authority.as_bytes(), out);
    if let Some(remarked) = entry.remarked {
        for (key, said) in [("audited", &remarked.audited), ("dry_run", &remarked.rehearsed)] {
            let Some(said) = said else { continue };
            drop(write!(out, ",\"authorization_{key}\":"));
            quoted(said.as_bytes(), out);
        }
    }
    out.extend_from_slice(b",\"bytes_received\":");
    number(entry.received, out);
    out.extend_from_slice(b",\"bytes_sent\":");
    number(entry.sent, out);
    out.extend_from_slice(b",\"connection_termination_details\":");
    joined(entry.termination, out);
    out.extend_from_slice(entry.addresses.as_bytes());
    number(millis(entry.duration), out);
    out.extend_from_slice(b",\"method\":");
    // A token: it has nothing to escape.
    plain(entry.method.as_bytes(), out);
    out.extend_from_slice(b",\"path\":");
    quoted(entry.path.as_bytes(), out);
    out.extend_from_slice(b",\"protocol\":");
    plain(entry.protocol.as_bytes(), out);
    out.extend_from_slice(b",\"request_id\":");
    header(entry.request_id, out);
    out.extend_from_slice(b",\"requested_server_name\":");
    quoted(entry.server_name.as_bytes(), out);
    out.extend_from_slice(b",\"response_code\":");
    number(u64::from(entry.code), out);
    out.extend_from_slice(b",\"response_code_details\":");
    joined(entry.details, out);
    if entry.flags.is_empty() {
        out.extend_from_slice(b",\"response_flags\":\"-\",\"route_name\":");
    } else {
        drop(write!(out, ",\"response_flags\":\"{}\",\"route_name\":", entry.flags));
    }
    quoted(entry.route.as_bytes(), out);
    match entry.origin {
        // Names of resources have nothing to escape.
        Some(origin) => {
            out.extend_from_slice(b",\"rule\":\"");
            rule(origin, out);
            out.extend_from_slice(b"\",\"snapshot_version\":");
        }
        None => out.extend_from_slice(b",\"rule\":null,\"snapshot_version\":"),
    }
    number(entry.version, out);
    out.extend_from_slice(b",\"start_time\":\"");
    clock.start_time(entry.started, entry.duration, out);
    out.extend_from_slice(b"\",\"upstream_cluster\":");
    quoted(entry.cluster.as_bytes(), out);
    for (key, at) in [
        (&b",\"upstream_host\":"[..], entry.upstream_host),
        (&b",\"upstream_local_address\":"[..], entry.upstream_local),
    ] {
        out.extend_from_slice(key);
        match at {
            Some(at) => {
                out.push(b'"');
                address(at, out);
                out.push(b'"');
            }
            None => out.extend_from_slice(b"null"),
        }
    }
    match entry.service_time {
        Some(time) => {
            out.extend_from_slice(b",\"upstream_service_time\":\"");
            number(millis(time), out);
            out.push(b'"');
        }
        None => out.extend_from_slice(b",\"upstream_service_time\":null"),
    }
    out.extend_from_slice(b",\"upstream_transport_failure_reason\":");
    joined(entry.transport_failure, out);
    out.extend_from_slice(b",\"user_agent\":");
    header(entry.user_agent, out);
    out.extend_from_slice(b",\"x_forwarded_for\":");
    header(entry.forwarded_for, out);
    out.extend_from_slice(b"}\n");
}

/// A line of text. Behind what Istio's has stand the version and the rule that decided.
pub(super) fn text(entry: &Entry<'_>, clock: &Clock, out: &mut Vec<u8>) {
    out.reserve(USUAL_LINE);
    out.push(b'[');
    clock.start_time(entry.started, entry.duration, out);
    out.extend_from_slice(b"] \"");
    word(entry.method.as_bytes(), out);
    out.push(b' ');
    word(entry.path.as_bytes(), out);
    out.push(b' ');
    word(entry.protocol.as_bytes(), out);
    out.extend_from_slice(b"\" ");
    number(u64::from(entry.code), out);
    if entry.flags.is_empty() {
        out.extend_from_slice(b" - ");
    } else {
        drop(write!(out, " {} ", entry.flags));
    }
    detail(entry.details, out);
    out.push(b' ');
    detail(entry.termination, out);
    out.extend_from_slice(b" \"");
    detail(entry.transport_failure, out);
    out.extend_from_slice(b"\" ");
    for figure in [entry.received, entry.sent, millis(entry.duration)] {
        number(figure, out);
        out.push(b' ');
    }
    match entry.service_time {
        Some(time) => number(millis(time), out),
        None => out.push(b'-'),
    }
    for field in [entry.forwarded_for, entry.user_agent, entry.request_id] {
        out.extend_from_slice(b" \"");
        word(field.map_or(&b""[..], HeaderValue::as_bytes), out);
        out.push(b'"');
    }
    out.extend_from_slice(b" \"");
    word(entry.authority.as_bytes(), out);
    out.extend_from_slice(b"\" \"");
    maybe_address(entry.upstream_host, out);
    out.extend_from_slice(b"\" ");
    word(entry.cluster.as_bytes(), out);
    out.push(b' ');
    maybe_address(entry.upstream_local, out);
    for at in [entry.local, entry.remote] {
        out.push(b' ');
        address(at, out);
    }
    for text in [entry.server_name, entry.route] {
        out.push(b' ');
        word(text.as_bytes(), out);
    }
    out.push(b' ');
    number(entry.version, out);
    out.push(b' ');
    match entry.origin {
        Some(origin) => rule(origin, out),
        None => out.push(b'-'),
    }
    out.push(b'\n');
}

/// `virtualservice/default/reviews[0]`.
pub(super) fn rule(origin: &Origin, out: &mut Vec<u8>) {
    out.extend_from_slice(origin.resource.as_bytes());
    if let Some(index) = origin.rule {
        out.push(b'[');
        number(u64::from(index), out);
        out.push(b']');
    }
}

/// What a client sends must not end a line or a quoted part of it; `-` for nothing.
fn word(bytes: &[u8], out: &mut Vec<u8>) {
    if bytes.is_empty() {
        return out.push(b'-');
    }
    let odd = |b: u8| (b < 0x20) | (b == b'"') | (b == 0x7f);
    if bytes.iter().fold(false, |any, b| any | odd(*b)) {
        let text = String::from_utf8_lossy(bytes);
        return out.extend(text.bytes().map(|b| if odd(b) { b'_' } else { b }));
    }
    match std::str::from_utf8(bytes) {
        Ok(_) => out.extend_from_slice(bytes),
        Err(_) => out.extend_from_slice(String::from_utf8_lossy(bytes).as_bytes()),
    }
}

/// The same without spaces.
fn detail(text: &str, out: &mut Vec<u8>) {
    let from = out.len();
    word(text.as_bytes(), out);
    if let Some(written) = out.get_mut(from..) {
        written.iter_mut().filter(|byte| **byte == b' ').for_each(|byte| *byte = b'_');
    }
}

fn maybe_address(at: Option<SocketAddr>, out: &mut Vec<u8>) {
    match at {
        Some(at) => address(at, out),
        None => out.push(b'-'),
    }
}

/// Details as a JSON string, without spaces, as Envoy has them.
fn joined(details: &str, out: &mut Vec<u8>) {
    if details.contains(' ') {
        return quoted(details.replace(' ', "_").as_bytes(), out);
    }
    quoted(details.as_bytes(), out);
}

/// Writes times; what is the same for a second is made once a second, and so is the reading of the wall clock: what
/// happens in between is told from the clock that exchanges are measured by.
#[derive(Debug, Default)]
pub struct Clock {
    known: Cell<Option<(Instant, SystemTime)>>,
    second: Cell<Option<u64>>,
    stamp: Cell<[u8; STAMP]>,
}

/// `2026-01-02T03:04:05.`
const STAMP: usize = 20;
/// The wall clock is read again after so long.
const KNOWN: Duration = Duration::from_secs(1);

impl Clock {
    /// `2026-01-02T03:04:05.678Z`, when something began that lasted so long.
    fn start_time(&self, started: Instant, duration: Duration, out: &mut Vec<u8>) {
        self.write(self.wall(started + duration) - duration, out);
    }

    /// What the wall clock said then.
    fn wall(&self, now: Instant) -> SystemTime {
        let age = |(then, _): &(Instant, SystemTime)| now.checked_duration_since(*then);
        let known = self.known.get().filter(|known| age(known).is_some_and(|age| age < KNOWN));
        let (then, wall) = known.unwrap_or_else(|| {
            let read = (now, SystemTime::now());
            self.known.set(Some(read));
            read
        });
        wall + now.saturating_duration_since(then)
    }

    /// When it began.
    pub fn began(&self, entry: &Entry<'_>) -> SystemTime {
        self.ended(entry) - entry.duration
    }

    /// When it ended.
    pub fn ended(&self, entry: &Entry<'_>) -> SystemTime {
        self.wall(entry.started + entry.duration)
    }

    /// When it began, or ended, in some form.
    pub fn formatted(&self, entry: &Entry<'_>, format: &TimeFormat, ended: bool) -> String {
        let at = if ended { self.ended(entry) } else { self.began(entry) };
        let mut out = String::new();
        if format.pieces.is_empty() {
            let mut usual = Vec::with_capacity(STAMP + 4);
            self.write(at, &mut usual);
            return String::from_utf8(usual).unwrap_or(out);
        }
        format.write(&moment(at), &mut out);
        out
    }

    fn write(&self, at: SystemTime, out: &mut Vec<u8>) {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let second = since.as_secs();
        if self.second.replace(Some(second)) != Some(second) {
            self.stamp.set(stamp(second));
        }
        out.extend_from_slice(&self.stamp.get());
        let millis = since.subsec_millis();
        let digits = [millis / 100, millis / 10 % 10, millis % 10].map(|digit| b'0' + digit as u8);
        out.extend_from_slice(&digits);
        out.push(b'Z');
    }
}

fn moment(at: SystemTime) -> Moment {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let second = i64::try_from(since.as_secs()).unwrap_or(0);
    let at = OffsetDateTime::from_unix_timestamp(second).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    Moment {
        year: at.year(),
        month: u8::from(at.month()),
        day: at.day(),
        day_of_year: at.ordinal(),
        weekday: at.weekday().number_days_from_sunday(),
        hour: at.hour(),
        minute: at.minute(),
        second: at.second(),
        nanosecond: since.subsec_nanos(),
        epoch: since.as_secs(),
    }
}

fn stamp(second: u64) -> [u8; STAMP] {
    let second = i64::try_from(second).unwrap_or(0);
    let at = OffsetDateTime::from_unix_timestamp(second).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let mut stamp = [b' '; STAMP];
    // It fits: years that have five digits are far off.
    drop(write!(
        &mut stamp[..],
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second()
    ));
    stamp
}

/// When something began that has lasted so long, as in the log.
pub fn start_time(elapsed: Duration) -> String {
    let mut out = Vec::new();
    Clock::default().write(SystemTime::now() - elapsed, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

fn header(value: Option<&HeaderValue>, out: &mut Vec<u8>) {
    quoted(value.map_or(b"", HeaderValue::as_bytes), out);
}

/// The part of a JSON line between the termination details and the duration.
pub fn addresses(local: SocketAddr, remote: SocketAddr) -> String {
    format!(
        ",\"downstream_local_address\":\"{local}\",\"downstream_remote_address\":\"{remote}\",\"duration\":"
    )
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Digits without the machinery of formatting, which is most of what a line costs otherwise.
pub fn number(mut value: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

fn address(address: SocketAddr, out: &mut Vec<u8>) {
    let SocketAddr::V4(v4) = address else {
        drop(write!(out, "{address}"));
        return;
    };
    for (index, octet) in v4.ip().octets().into_iter().enumerate() {
        if index > 0 {
            out.push(b'.');
        }
        number(u64::from(octet), out);
    }
    out.push(b':');
    number(u64::from(v4.port()), out);
}

/// A JSON string; `null` for nothing. Bytes that are not UTF-8 are replaced.
pub(super) fn quoted(bytes: &[u8], out: &mut Vec<u8>) {
    // Without an early exit it is done several bytes at a time.
    let odd = |b: u8| !(0x20..0x7f).contains(&b) | (b == b'"') | (b == b'\\');
    if bytes.iter().fold(false, |any, b| any | odd(*b)) {
        return escaped(bytes, out);
    }
    plain(bytes, out);
}

/// The same for what holds nothing that would have to be escaped.
fn plain(bytes: &[u8], out: &mut Vec<u8>) {
    if bytes.is_empty() {
        return out.extend_from_slice(b"null");
    }
    out.push(b'"');
    out.extend_from_slice(bytes);
    out.push(b'"');
}

#[cold]
fn escaped(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for c in String::from_utf8_lossy(bytes).chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            c if u32::from(c) < 0x20 => {
                drop(write!(out, "\\u{:04x}", u32::from(c)));
            }
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}
