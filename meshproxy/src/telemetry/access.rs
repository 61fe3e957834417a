//! One record an exchange, in Istio's format. A data thread formats into its own buffer; a thread of its own writes
//! what the buffers held. Where the reader is too slow whole buffers are dropped and counted: traffic never waits
//! for its log.

use std::cell::RefCell;
use std::io::Write;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::entry::Entry;
use super::line::{self, Clock};
use super::metrics::Metrics;

/// A buffer is handed over when it holds so much, or after [`LONGEST_WAIT`].
const BUFFER: usize = 128 * 1024;
const LONGEST_WAIT: Duration = Duration::from_millis(50);
/// How often buffers are looked for while they come.
const LOOK: Duration = Duration::from_millis(10);
/// Buffers that wait to be written.
const QUEUE: usize = 64;

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

/// Writes what comes. Under load it looks once in a while instead of being woken for each buffer: waking is dear for
/// the data thread that does it.
fn write_all(receiver: &Receiver<Vec<u8>>, spare: &Spare, mut out: impl Write) {
    while let Ok(first) = receiver.recv() {
        let mut next = Some(first);
        while let Some(buffer) = next.take() {
            for buffer in std::iter::once(buffer).chain(receiver.try_iter()) {
                if let Err(error) = out.write_all(&buffer).and_then(|()| out.flush()) {
                    // A closed pipe will not open again, and traffic goes on without its log.
                    tracing::warn!(%error, "the access log cannot be written any more");
                    return;
                }
                keep(spare, buffer);
            }
            std::thread::sleep(LOOK);
            next = receiver.try_recv().ok();
        }
    }
}

fn keep(spare: &Spare, mut buffer: Vec<u8>) {
    buffer.clear();
    let mut spare = spare.lock().unwrap_or_else(PoisonError::into_inner);
    if spare.len() < MOST_SPARE {
        spare.push(buffer);
    }
}

/// A data thread's access log.
#[derive(Debug)]
pub struct AccessLog {
    sink: AccessSink,
    metrics: Arc<Metrics>,
    buffer: RefCell<Vec<u8>>,
    filled: Notify,
    clock: Clock,
}

impl AccessLog {
    /// A log that writes into a sink.
    pub fn new(sink: AccessSink, metrics: Arc<Metrics>) -> AccessLog {
        AccessLog {
            sink,
            metrics,
            buffer: RefCell::default(),
            filled: Notify::new(),
            clock: Clock::default(),
        }
    }

    /// Whether records are wanted at all.
    pub fn is_on(&self) -> bool {
        self.sink.format != Format::Off
    }

    /// Writes one record of something that ends now.
    pub fn write(&self, entry: &Entry<'_>) {
        if !self.is_on() {
            return;
        }
        let mut buffer = self.buffer.borrow_mut();
        if buffer.is_empty() {
            self.filled.notify_one();
        }
        match self.sink.format {
            Format::Off => return,
            Format::Text => line::text(entry, &self.clock, &mut buffer),
            Format::Json => line::json(entry, &self.clock, &mut buffer),
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

    fn hand_over(&self, buffer: &mut Vec<u8>) {
        if buffer.is_empty() {
            return;
        }
        let spare = self.sink.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let full = std::mem::replace(buffer, spare.unwrap_or_default());
        if let Err(error) = self.sink.sender.try_send(full) {
            let (std::sync::mpsc::TrySendError::Full(lost)
            | std::sync::mpsc::TrySendError::Disconnected(lost)) = error;
            let lines = lost.iter().filter(|byte| **byte == b'\n').count();
            self.metrics.proxy.log_dropped.increment(lines as u64);
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use tokio::time::Instant;

    use super::*;
    use crate::telemetry::entry::{Remarked, sample};
    use crate::telemetry::flags::Flags;
    use crate::telemetry::line::addresses;

    fn line(format: Format, remarked: Option<&Remarked>) -> String {
        let (sender, receiver) = sync_channel(1);
        let log = AccessLog::new(
            AccessSink { format, sender, spare: Spare::default() },
            Arc::new(Metrics::default()),
        );
        let agent = HeaderValue::from_static("curl \"x\"");
        let (local, remote) = ("127.0.0.1:15080".parse().unwrap(), "127.0.0.1:4444".parse().unwrap());
        log.write(&Entry {
            duration: Duration::from_millis(12),
            method: "GET",
            path: "/a?b",
            protocol: "HTTP/1.1",
            code: 403,
            flags: Flags::of("UH"),
            details: "via_upstream",
            sent: 19,
            service_time: Some(Duration::from_millis(3)),
            user_agent: Some(&agent),
            authority: "reviews:9080",
            upstream_host: Some("10.0.0.2:9080".parse().unwrap()),
            cluster: "outbound|9080||reviews",
            addresses: &addresses(local, remote),
            remarked,
            version: 7,
            ..sample(Instant::now(), local, remote)
        });
        log.flush();
        String::from_utf8(receiver.recv().unwrap()).unwrap()
    }

    #[test]
    fn json_has_istio_s_keys_in_order() {
        let line = line(Format::Json, None);
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
    fn what_policies_write_down_is_told_where_there_is_something() {
        let (audited, rehearsed) =
            (Some("ns[a]-policy[b]-rule[0]".to_owned()), Some("denied [none]".to_owned()));
        let line = line(Format::Json, Some(&Remarked { audited, rehearsed }));
        let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert!(parsed.as_object().unwrap().keys().is_sorted());
        assert_eq!(parsed["authorization_audited"], "ns[a]-policy[b]-rule[0]");
        assert_eq!(parsed["authorization_dry_run"], "denied [none]");
    }

    #[test]
    fn text_has_istio_s_order() {
        let line = line(Format::Text, None);
        let rest = line.split_once("] ").unwrap().1;
        assert_eq!(
            rest,
            "\"GET /a?b HTTP/1.1\" 403 UH via_upstream - \"-\" 0 19 12 3 \"-\" \"curl _x_\" \"-\" \"reviews:9080\" \
             \"10.0.0.2:9080\" outbound|9080||reviews - 127.0.0.1:15080 127.0.0.1:4444 - -\n"
        );
    }
}
