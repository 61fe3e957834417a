//! One record an exchange, in Istio's format. A data thread formats into its own buffer; a thread of its own writes
//! what the buffers held. Where the reader is too slow whole buffers are dropped and counted: traffic never waits
//! for its log.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::io::Write;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use time::OffsetDateTime;
use tokio::sync::Notify;

use super::flags::Flags;
use super::metrics::Metrics;

/// A buffer is handed over when it holds so much, or after [`LONGEST_WAIT`].
const BUFFER: usize = 32 * 1024;
const LONGEST_WAIT: Duration = Duration::from_millis(50);
/// Buffers that wait to be written.
const QUEUE: usize = 128;

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
}

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
        let write = move || write_all(&receiver, out);
        let thread = std::thread::Builder::new().name("access-log".to_owned()).spawn(write)?;
        Ok((AccessSink { format, sender }, AccessWriter(thread)))
    }

    /// A sink that takes nothing.
    pub fn off() -> AccessSink {
        AccessSink { format: Format::Off, sender: sync_channel(0).0 }
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

fn write_all(receiver: &Receiver<Vec<u8>>, mut out: impl Write) {
    while let Ok(buffer) = receiver.recv() {
        let written = out.write_all(&buffer).and_then(|()| out.flush());
        if let Err(error) = written {
            // A closed pipe will not open again, and traffic goes on without its log.
            tracing::warn!(%error, "the access log cannot be written any more");
            return;
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
        let full = std::mem::replace(buffer, String::with_capacity(buffer.capacity().min(BUFFER * 2)));
        if let Err(error) = self.sink.sender.try_send(full.into_bytes()) {
            let (std::sync::mpsc::TrySendError::Full(lost)
            | std::sync::mpsc::TrySendError::Disconnected(lost)) = error;
            let lines = lost.iter().filter(|byte| **byte == b'\n').count();
            self.metrics.proxy.log_dropped.increment(lines as u64);
        }
    }

    fn json(&self, entry: &Entry<'_>, out: &mut String) {
        out.push_str("{\"authority\":");
        quoted(entry.authority.as_bytes(), out);
        let _ = write!(
            out,
            ",\"bytes_received\":{},\"bytes_sent\":{},\"connection_termination_details\":",
            entry.received, entry.sent
        );
        quoted(entry.termination.as_bytes(), out);
        let _ = write!(
            out,
            ",\"downstream_local_address\":\"{}\",\"downstream_remote_address\":\"{}\",\"duration\":{},\"method\":",
            entry.local,
            entry.remote,
            entry.duration.as_millis()
        );
        quoted(entry.method.as_bytes(), out);
        out.push_str(",\"path\":");
        quoted(entry.path.as_bytes(), out);
        out.push_str(",\"protocol\":");
        quoted(entry.protocol.as_bytes(), out);
        out.push_str(",\"request_id\":");
        header(entry.request_id, out);
        let _ = write!(
            out,
            ",\"requested_server_name\":null,\"response_code\":{},\"response_code_details\":",
            entry.code
        );
        quoted(entry.details.as_bytes(), out);
        let _ = write!(out, ",\"response_flags\":\"{}\",\"route_name\":", entry.flags);
        quoted(entry.route.as_bytes(), out);
        let _ = write!(out, ",\"snapshot_version\":{},\"start_time\":\"", entry.version);
        self.start_time(entry.duration, out);
        out.push_str("\",\"upstream_cluster\":");
        quoted(entry.cluster.as_bytes(), out);
        match entry.upstream_host {
            Some(host) => {
                let _ = write!(out, ",\"upstream_host\":\"{host}\"");
            }
            None => out.push_str(",\"upstream_host\":null"),
        }
        out.push_str(",\"upstream_local_address\":null");
        match entry.service_time {
            Some(time) => {
                let _ = write!(out, ",\"upstream_service_time\":\"{}\"", time.as_millis());
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
        let _ = write!(out, "{stamp}.{:03}Z", since.subsec_millis());
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

/// A JSON string; `null` for nothing. Bytes that are not UTF-8 are replaced.
fn quoted(bytes: &[u8], out: &mut String) {
    if bytes.is_empty() {
        return out.push_str("null");
    }
    out.push('"');
    let plain = bytes.iter().all(|b| (0x20..0x7f).contains(b) && *b != b'"' && *b != b'\\');
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
        let log = AccessLog::new(AccessSink { format, sender }, Arc::new(Metrics::new()));
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
