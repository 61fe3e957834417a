//! One record of the access log as a line, in Istio's text and JSON formats.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use time::OffsetDateTime;

use super::access::Entry;

/// A line rarely needs more.
const USUAL_LINE: usize = 1024;

/// A line of JSON, keys sorted.
pub(super) fn json(entry: &Entry<'_>, clock: &Clock, out: &mut String) {
    out.reserve(USUAL_LINE);
    out.push_str("{\"authority\":");
    quoted(entry.authority.as_bytes(), out);
    if let Some(remarked) = entry.remarked {
        for (key, said) in [("audited", &remarked.audited), ("dry_run", &remarked.rehearsed)] {
            let Some(said) = said else { continue };
            let _ = write!(out, ",\"authorization_{key}\":");
            quoted(said.as_bytes(), out);
        }
    }
    out.push_str(",\"bytes_received\":");
    number(entry.received, out);
    out.push_str(",\"bytes_sent\":");
    number(entry.sent, out);
    out.push_str(",\"connection_termination_details\":");
    quoted(entry.termination.as_bytes(), out);
    out.push_str(entry.addresses);
    number(millis(entry.duration), out);
    out.push_str(",\"method\":");
    quoted(entry.method.as_bytes(), out);
    out.push_str(",\"path\":");
    quoted(entry.path.as_bytes(), out);
    out.push_str(",\"protocol\":");
    quoted(entry.protocol.as_bytes(), out);
    out.push_str(",\"request_id\":");
    header(entry.request_id, out);
    out.push_str(",\"requested_server_name\":");
    quoted(entry.server_name.as_bytes(), out);
    out.push_str(",\"response_code\":");
    number(u64::from(entry.code), out);
    out.push_str(",\"response_code_details\":");
    quoted(entry.details.as_bytes(), out);
    if entry.flags.is_empty() {
        out.push_str(",\"response_flags\":\"-\",\"route_name\":");
    } else {
        let _ = write!(out, ",\"response_flags\":\"{}\",\"route_name\":", entry.flags);
    }
    quoted(entry.route.as_bytes(), out);
    out.push_str(",\"snapshot_version\":");
    number(entry.version, out);
    out.push_str(",\"start_time\":\"");
    clock.start_time(entry.duration, out);
    out.push_str("\",\"upstream_cluster\":");
    quoted(entry.cluster.as_bytes(), out);
    match entry.upstream_host {
        Some(host) => {
            out.push_str(",\"upstream_host\":\"");
            address(host, out);
            out.push_str("\",\"upstream_local_address\":null");
        }
        None => out.push_str(",\"upstream_host\":null,\"upstream_local_address\":null"),
    }
    match entry.service_time {
        Some(time) => {
            out.push_str(",\"upstream_service_time\":\"");
            number(millis(time), out);
            out.push('"');
        }
        None => out.push_str(",\"upstream_service_time\":null"),
    }
    out.push_str(",\"upstream_transport_failure_reason\":");
    quoted(entry.transport_failure.as_bytes(), out);
    out.push_str(",\"user_agent\":");
    header(entry.user_agent, out);
    out.push_str(",\"x_forwarded_for\":");
    header(entry.forwarded_for, out);
    out.push_str("}\n");
}

/// A line of text.
pub(super) fn text(entry: &Entry<'_>, clock: &Clock, out: &mut String) {
    fn or_dash(text: &str) -> &str {
        if text.is_empty() { "-" } else { text }
    }
    fn field(value: Option<&HeaderValue>) -> String {
        let text = value.map_or("-".into(), |value| String::from_utf8_lossy(value.as_bytes()));
        text.replace(['"', '\n'], "_")
    }
    out.push('[');
    clock.start_time(entry.duration, out);
    let details = or_dash(entry.details).replace(' ', "_");
    let _ = write!(
        out,
        "] \"{} {} {}\" {} {} {} {} \"{}\" {} {} {} ",
        or_dash(entry.method),
        or_dash(entry.path).replace(['"', '\n'], "_"),
        or_dash(entry.protocol),
        entry.code,
        entry.flags,
        details,
        or_dash(entry.termination).replace(' ', "_"),
        or_dash(entry.transport_failure),
        entry.received,
        entry.sent,
        entry.duration.as_millis(),
    );
    match entry.service_time {
        Some(time) => {
            let _ = write!(out, "{}", time.as_millis());
        }
        None => out.push('-'),
    }
    let host = entry.upstream_host.map_or_else(|| "-".to_owned(), |host| host.to_string());
    let _ = writeln!(
        out,
        " \"{}\" \"{}\" \"{}\" \"{}\" \"{}\" {} - {} {} {} {}",
        field(entry.forwarded_for),
        field(entry.user_agent),
        field(entry.request_id),
        or_dash(entry.authority).replace(['"', '\n'], "_"),
        host,
        or_dash(entry.cluster),
        entry.local,
        entry.remote,
        or_dash(entry.server_name),
        or_dash(entry.route),
    );
}

/// Writes times; what is the same for a second is made once a second.
#[derive(Debug)]
pub(super) struct Clock {
    second: Cell<i64>,
    stamp: RefCell<String>,
}

impl Default for Clock {
    fn default() -> Clock {
        Clock { second: Cell::new(i64::MIN), stamp: RefCell::default() }
    }
}

impl Clock {
    /// `2026-01-02T03:04:05.678Z`; the part up to the second is made once a second.
    fn start_time(&self, duration: Duration, out: &mut String) {
        let start = SystemTime::now() - duration;
        let since = start.duration_since(UNIX_EPOCH).unwrap_or_default();
        let second = i64::try_from(since.as_secs()).unwrap_or(0);
        let mut stamp = self.stamp.borrow_mut();
        if self.second.replace(second) != second {
            stamp.clear();
            let at = OffsetDateTime::from_unix_timestamp(second).unwrap_or(OffsetDateTime::UNIX_EPOCH);
            let _ = write!(
                stamp,
                "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
                at.year(),
                u8::from(at.month()),
                at.day(),
                at.hour(),
                at.minute(),
                at.second()
            );
        }
        out.push_str(&stamp);
        let millis = since.subsec_millis();
        out.push('.');
        for digit in [millis / 100, millis / 10 % 10, millis % 10] {
            out.push(char::from(b'0' + digit as u8));
        }
        out.push('Z');
    }
}

/// When something began that has lasted so long, as in the log.
pub fn start_time(elapsed: Duration) -> String {
    let mut out = String::new();
    Clock::default().start_time(elapsed, &mut out);
    out
}

fn header(value: Option<&HeaderValue>, out: &mut String) {
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
fn number(value: u64, out: &mut String) {
    let digit = |value: u64| char::from(b'0' + (value % 10) as u8);
    if value >= 1000 {
        number(value / 1000, out);
        out.push(digit(value / 100));
        out.push(digit(value / 10));
    } else {
        if value >= 100 {
            out.push(digit(value / 100));
        }
        if value >= 10 {
            out.push(digit(value / 10));
        }
    }
    out.push(digit(value));
}

fn address(address: SocketAddr, out: &mut String) {
    let SocketAddr::V4(v4) = address else {
        let _ = write!(out, "{address}");
        return;
    };
    for (index, octet) in v4.ip().octets().into_iter().enumerate() {
        if index > 0 {
            out.push('.');
        }
        number(u64::from(octet), out);
    }
    out.push(':');
    number(u64::from(v4.port()), out);
}

/// A JSON string; `null` for nothing. Bytes that are not UTF-8 are replaced.
fn quoted(bytes: &[u8], out: &mut String) {
    if bytes.is_empty() {
        return out.push_str("null");
    }
    out.push('"');
    // Without an early exit it is done several bytes at a time.
    let odd = |b: u8| !(0x20..0x7f).contains(&b) | (b == b'"') | (b == b'\\');
    let plain = !bytes.iter().fold(false, |any, b| any | odd(*b));
    if let (true, Ok(text)) = (plain, std::str::from_utf8(bytes)) {
        out.push_str(text);
    } else {
        for c in String::from_utf8_lossy(bytes).chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                c if u32::from(c) < 0x20 => {
                    let _ = write!(out, "\\u{:04x}", u32::from(c));
                }
                c => out.push(c),
            }
        }
    }
    out.push('"');
}
