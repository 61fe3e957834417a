//! One record an exchange, in Istio's format. A data thread formats into its own buffer; a thread of its own writes
//! what the buffers held. Where the reader is too slow whole buffers are dropped and counted: traffic never waits
//! for its log.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::io::Write;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use time::OffsetDateTime;
use tokio::sync::Notify;

use super::flags::Flags;
use super::metrics::Metrics;

/// A buffer is handed over when it holds so much, or after [`LONGEST_WAIT`].
const BUFFER: usize = 128 * 1024;
const LONGEST_WAIT: Duration = Duration::from_millis(50);
/// Buffers that wait to be written.
const QUEUE: usize = 64;

/// A line rarely needs more.
const USUAL_LINE: usize = 1024;
/// Written buffers that are kept to be filled again.
const MOST_SPARE: usize = 4;

/// How records look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// None is written.
    Off,
    /// Istio's text format.
    Text,
    /// Istio's JSON format.
    Json,
}

/// What is told of an exchange or byte stream. Empty texts and `None` are unknown.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// How long it took.
    pub duration: Duration,
    /// Method; empty for a byte stream.
    pub method: &'a str,
    /// Path and query as sent.
    pub path: &'a str,
    /// `HTTP/1.1`; empty for a byte stream.
    pub protocol: &'a str,
    /// Status; 0 where no answer was given.
    pub code: u16,
    /// Response flags.
    pub flags: Flags,
    /// `via_upstream`, `route_not_found`, ...
    pub details: &'a str,
    /// Why the connection was ended, where it was.
    pub termination: &'a str,
    /// Why TLS or the connection upstream failed.
    pub transport_failure: &'a str,
    /// Body bytes from the client.
    pub received: u64,
    /// Body bytes to the client.
    pub sent: u64,
    /// From the request's end to the answer's head.
    pub service_time: Option<Duration>,
    /// Header field of that name.
    pub forwarded_for: Option<&'a HeaderValue>,
    /// Header field of that name.
    pub user_agent: Option<&'a HeaderValue>,
    /// Header field of that name.
    pub request_id: Option<&'a HeaderValue>,
    /// Authority as sent.
    pub authority: &'a str,
    /// The endpoint.
    pub upstream_host: Option<SocketAddr>,
    /// `outbound|PORT|SUBSET|HOST`, `inbound|PORT||`.
    pub cluster: &'a str,
    /// Where it was accepted.
    pub local: SocketAddr,
    /// Who connected.
    pub remote: SocketAddr,
    /// Both as [`addresses`] gives them, made once for a connection.
    pub addresses: &'a str,
    /// Name of the route.
    pub route: &'a str,
    /// Version of the snapshot that decided.
    pub version: u64,
}

/// Where data threads hand their buffers to.
#[derive(Debug, Clone)]
pub struct AccessSink {
    format: Format,
    sender: SyncSender<Vec<u8>>,
    spare: Spare,
}

/// Written buffers: to use them again is cheaper than new memory from another thread.
type Spare = Arc<Mutex<Vec<Vec<u8>>>>;

/// The thread that writes what the buffers held.
#[derive(Debug)]
pub struct AccessWriter(std::thread::JoinHandle<()>);

impl AccessSink {
    /// A sink that a thread of its own empties into `out` until the last data thread has let go of it.
    pub fn start(
        format: Format,
        out: impl Write + Send + 'static,
    ) -> std::io::Result<(AccessSink, AccessWriter)> {
        let (sender, receiver) = sync_channel(QUEUE);
        let spare = Spare::default();
        let emptied = Arc::clone(&spare);
        let write = move || write_all(&receiver, &emptied, out);
        let thread = std::thread::Builder::new().name("access-log".to_owned()).spawn(write)?;
        Ok((AccessSink { format, sender, spare }, AccessWriter(thread)))
    }

    /// A sink that takes nothing.
    pub fn off() -> AccessSink {
        AccessSink { format: Format::Off, sender: sync_channel(0).0, spare: Spare::default() }
    }
}

impl AccessWriter {
    /// Waits until everything is written, but not for a reader that does not read. All sinks must be gone.
    pub fn finish(self, limit: Duration) {
        let until = std::time::Instant::now() + limit;
        while !self.0.is_finished() && std::time::Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn write_all(receiver: &Receiver<Vec<u8>>, spare: &Spare, mut out: impl Write) {
    while let Ok(mut buffer) = receiver.recv() {
        let written = out.write_all(&buffer).and_then(|()| out.flush());
        if let Err(error) = written {
            // A closed pipe will not open again, and traffic goes on without its log.
            tracing::warn!(%error, "the access log cannot be written any more");
            return;
        }
        buffer.clear();
        let mut spare = spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < MOST_SPARE {
            spare.push(buffer);
        }
    }
}

/// A data thread's access log.
#[derive(Debug)]
pub struct AccessLog {
    sink: AccessSink,
    metrics: Arc<Metrics>,
    buffer: RefCell<String>,
    filled: Notify,
    second: Cell<i64>,
    stamp: RefCell<String>,
}

impl AccessLog {
    /// A log that writes into a sink.
    pub fn new(sink: AccessSink, metrics: Arc<Metrics>) -> AccessLog {
        AccessLog {
            sink,
            metrics,
            buffer: RefCell::default(),
            filled: Notify::new(),
            second: Cell::new(i64::MIN),
            stamp: RefCell::default(),
        }
    }

    /// Whether records are wanted at all.
    pub fn is_on(&self) -> bool {
        self.sink.format != Format::Off
    }

    /// Writes one record of something that ends now.
    pub fn write(&self, entry: &Entry<'_>) {
        let mut buffer = self.buffer.borrow_mut();
        if buffer.is_empty() {
            self.filled.notify_one();
        }
        match self.sink.format {
            Format::Off => return,
            Format::Text => self.text(entry, &mut buffer),
            Format::Json => self.json(entry, &mut buffer),
        }
        if buffer.len() >= BUFFER {
            self.hand_over(&mut buffer);
        }
    }

    /// Hands over what waits for more.
    pub fn flush(&self) {
        self.hand_over(&mut self.buffer.borrow_mut());
    }

    /// Hands buffers over that do not fill; runs as long as its data thread.
    pub async fn keep_flushing(self: Rc<AccessLog>) {
        loop {
            self.filled.notified().await;
            tokio::time::sleep(LONGEST_WAIT).await;
            self.flush();
        }
    }

    fn hand_over(&self, buffer: &mut String) {
        if buffer.is_empty() {
            return;
        }
        let spare = self.sink.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // An empty buffer is valid text.
        let empty = spare.and_then(|spare| String::from_utf8(spare).ok()).unwrap_or_default();
        let full = std::mem::replace(buffer, empty);
        if let Err(error) = self.sink.sender.try_send(full.into_bytes()) {
            let (std::sync::mpsc::TrySendError::Full(lost)
            | std::sync::mpsc::TrySendError::Disconnected(lost)) = error;
            let lines = lost.iter().filter(|byte| **byte == b'\n').count();
            self.metrics.proxy.log_dropped.increment(lines as u64);
        }
    }

    fn json(&self, entry: &Entry<'_>, out: &mut String) {
        out.reserve(USUAL_LINE);
        out.push_str("{\"authority\":");
        quoted(entry.authority.as_bytes(), out);
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
        out.push_str(",\"requested_server_name\":null,\"response_code\":");
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
        self.start_time(entry.duration, out);
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

    fn text(&self, entry: &Entry<'_>, out: &mut String) {
        fn or_dash(text: &str) -> &str {
            if text.is_empty() { "-" } else { text }
        }
        fn field(value: Option<&HeaderValue>) -> String {
            let text = value.map_or("-".into(), |value| String::from_utf8_lossy(value.as_bytes()));
            text.replace(['"', '\n'], "_")
        }
        out.push('[');
        self.start_time(entry.duration, out);
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
            " \"{}\" \"{}\" \"{}\" \"{}\" \"{}\" {} - {} {} - {}",
            field(entry.forwarded_for),
            field(entry.user_agent),
            field(entry.request_id),
            or_dash(entry.authority).replace(['"', '\n'], "_"),
            host,
            or_dash(entry.cluster),
            entry.local,
            entry.remote,
            or_dash(entry.route),
        );
    }

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

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.flush();
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn line(format: Format) -> String {
        let (sender, receiver) = sync_channel(1);
        let log =
            AccessLog::new(AccessSink { format, sender, spare: Spare::default() }, Arc::new(Metrics::new()));
        let agent = HeaderValue::from_static("curl \"x\"");
        log.write(&Entry {
            duration: Duration::from_millis(12),
            method: "GET",
            path: "/a?b",
            protocol: "HTTP/1.1",
            code: 403,
            flags: Flags::of("UH"),
            details: "via_upstream",
            termination: "",
            transport_failure: "",
            received: 0,
            sent: 19,
            service_time: Some(Duration::from_millis(3)),
            forwarded_for: None,
            user_agent: Some(&agent),
            request_id: None,
            authority: "reviews:9080",
            upstream_host: Some("10.0.0.2:9080".parse().unwrap()),
            cluster: "outbound|9080||reviews",
            local: "127.0.0.1:15080".parse().unwrap(),
            remote: "127.0.0.1:4444".parse().unwrap(),
            addresses: &addresses("127.0.0.1:15080".parse().unwrap(), "127.0.0.1:4444".parse().unwrap()),
            route: "",
            version: 7,
        });
        log.flush();
        String::from_utf8(receiver.recv().unwrap()).unwrap()
    }

    #[test]
    fn json_has_istio_s_keys_in_order() {
        let line = line(Format::Json);
        let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
        let keys: Vec<&String> = parsed.as_object().unwrap().keys().collect();
        assert!(keys.is_sorted(), "{keys:?}");
        assert_eq!(keys.len(), 25);
        assert_eq!(parsed["response_code"], 403);
        assert_eq!(parsed["snapshot_version"], 7);
        assert_eq!(parsed["user_agent"], "curl \"x\"");
        assert_eq!(parsed["upstream_service_time"], "3");
        assert_eq!(parsed["request_id"], serde_json::Value::Null);
        let start = parsed["start_time"].as_str().unwrap();
        assert!(start.starts_with("20") && start.ends_with('Z') && start.len() == 24, "{start}");
    }

    #[test]
    fn text_has_istio_s_order() {
        let line = line(Format::Text);
        let rest = line.split_once("] ").unwrap().1;
        assert_eq!(
            rest,
            "\"GET /a?b HTTP/1.1\" 403 UH via_upstream - \"-\" 0 19 12 3 \"-\" \"curl _x_\" \"-\" \"reviews:9080\" \
             \"10.0.0.2:9080\" outbound|9080||reviews - 127.0.0.1:15080 127.0.0.1:4444 - -\n"
        );
    }
}
