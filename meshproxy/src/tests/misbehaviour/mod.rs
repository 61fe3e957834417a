//! Peers that do not keep to the protocol, row by row: what they send, and what everybody else then sees. Statuses,
//! flags and details are those of Envoy 1.40 for the same bytes, but where a row says otherwise.

mod clients;
mod early;
mod http1;
mod http2;
mod streams;
mod upstream;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mesh_core::resilience::retry::RetryPolicy;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use self::upstream::{Speaks, Step, Upstream};
use super::harness::{Mesh, Plan, default_rule};
use crate::telemetry::access::{AccessSink, Format};

/// A request that is not answered may take so long.
const TIMEOUT: Duration = Duration::from_millis(400);
/// Whatever a test waits for comes sooner.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is seen of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    /// Status that the client reads and the log tells.
    code: u16,
    flags: &'static str,
    details: &'static str,
    /// Whether the answer arrives whole.
    whole: bool,
    /// Whether the connection serves another request.
    again: bool,
}

const fn seen(code: u16, flags: &'static str, details: &'static str, whole: bool) -> Seen {
    Seen { code, flags, details, whole, again: false }
}

/// Nothing is wrong.
const GOOD: Seen = Seen { again: true, ..ONCE };
/// Nothing is wrong, but the connection is not used again.
const ONCE: Seen = seen(200, "-", "via_upstream", true);
/// What came is no answer.
const NO_ANSWER: Seen = seen(502, "UPE", "upstream_reset_before_response_started{protocol_error}", true);
/// Nothing came.
const GONE: Seen = seen(503, "UC", "upstream_reset_before_response_started{connection_termination}", true);
/// The answer ends before its end.
const CUT: Seen = seen(200, "UPE", "upstream_reset_after_response_started{protocol_error}", false);
/// No answer in time.
const LATE: Seen = seen(504, "UT", "response_timeout", true);
/// The rest of an answer does not come in time.
const LATE_CUT: Seen = seen(200, "UT", "response_timeout", false);

/// How one upstream misbehaves, and what is seen of it.
#[derive(Debug, Clone)]
struct Row {
    name: &'static str,
    steps: Vec<Step>,
    seen: Seen,
}

fn row(name: &'static str, steps: impl Into<Vec<Step>>, seen: Seen) -> Row {
    Row { name, steps: steps.into(), seen }
}

/// The access log of a host.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn sink(&self) -> AccessSink {
        AccessSink::start(Format::Json, self.clone()).unwrap()
    }

    /// Status, flags and details of the line that holds this; what was there before if none comes.
    async fn told(&self, what: &str) -> (u16, String, String) {
        let find = async {
            loop {
                let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
                if let Some(line) = text.lines().find(|line| line.contains(what)) {
                    let line: serde_json::Value = serde_json::from_str(line).unwrap();
                    let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
                    let code = line["response_code"].as_u64().unwrap() as u16;
                    return (code, text("response_flags"), text("response_code_details"));
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PATIENCE, find).await.unwrap_or((0, "no line".into(), String::new()))
    }

    fn clear(&self) {
        self.0.lock().unwrap().clear();
    }
}

/// An answer as it came, byte by byte.
#[derive(Debug)]
struct Raw {
    code: u16,
    whole: bool,
    text: String,
}

impl Raw {
    fn read(bytes: &[u8]) -> Raw {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let code = text.get(9..12).and_then(|code| code.parse().ok()).unwrap_or(0);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let head = head.to_ascii_lowercase();
        let length: Option<usize> =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let whole = match length {
            Some(length) => body.len() == length,
            None if head.contains("transfer-encoding: chunked") => body.ends_with("0\r\n\r\n"),
            None => matches!(code, 204 | 304),
        };
        Raw { code, whole, text }
    }
}

/// Sends these bytes and reads until the proxy closes.
async fn exchange(to: SocketAddr, bytes: &[u8]) -> Raw {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    read(&mut stream).await
}

async fn read(stream: &mut TcpStream) -> Raw {
    let mut answer = Vec::new();
    // A reset ends it as well.
    drop(tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await);
    Raw::read(&answer)
}

/// Asks for a path through the HTTP proxy of `a`.
async fn ask(mesh: &Mesh, path: &str) -> Raw {
    ask_at(mesh.a.explicit, path).await
}

async fn ask_at(proxy: SocketAddr, path: &str) -> Raw {
    let head = format!("GET http://reviews:9080{path} HTTP/1.1\r\nhost: reviews:9080\r\n");
    exchange(proxy, format!("{head}connection: close\r\n\r\n").as_bytes()).await
}

/// A mesh, with the access logs of its hosts.
struct Scene {
    mesh: Mesh,
    logs: [Log; 2],
    version: u64,
}

impl Scene {
    async fn start(change: impl FnOnce(&mut Plan), retry: RetryPolicy) -> Scene {
        let logs = [Log::default(), Log::default()];
        let mut rule = default_rule();
        rule.retry = retry;
        let sinks = [logs[0].sink(), logs[1].sink()];
        let mut plan = Plan { rules: Some(vec![rule]), logs: sinks, ..Plan::new(&[]) };
        change(&mut plan);
        Scene { mesh: Mesh::start(plan).await, logs, version: 1 }
    }

    async fn point_at(&mut self, upstream: SocketAddr) {
        self.allow(upstream, PATIENCE / 2).await;
    }

    /// The same, with so much time for each request.
    async fn allow(&mut self, upstream: SocketAddr, time: Duration) {
        self.version += 1;
        let change = |plan: &mut Plan| {
            plan.applications = vec![upstream];
            plan.rules.iter_mut().flatten().for_each(|rule| rule.timeout = Some(time));
        };
        self.mesh.change(self.version, change).await;
    }

    /// Plays a row; what is not as it should be comes back. `told` is what the log of each host must say.
    async fn play(&mut self, row: &Row, speaks: Speaks, told: [Option<Seen>; 2]) -> Vec<String> {
        let mut wrong = Vec::new();
        // In HTTP/1 what else is under way to the same application has connections of its own.
        let beside = speaks == Speaks::Http1 && row.seen.flags != "UT";
        let upstream = Upstream::start(row.steps.clone(), speaks, beside).await;
        let time = if row.seen.flags == "UT" { TIMEOUT } else { PATIENCE / 2 };
        self.allow(upstream.address, time).await;
        self.logs.iter().for_each(Log::clear);
        let mut check = |what: &str, holds: bool, found: String| {
            if !holds {
                wrong.push(format!("{} ({speaks:?}): {what}: {found}", row.name));
            }
        };
        let beside = if beside { Some(upstream.hold(&self.mesh).await) } else { None };
        let path = format!("/{}", row.name);
        let answer = ask(&self.mesh, &path).await;
        let expected = (row.seen.code, row.seen.whole);
        check("answer", (answer.code, answer.whole) == expected, format!("{answer:?}"));
        if !row.seen.again {
            drop(tokio::time::timeout(PATIENCE, upstream.played()).await);
        }
        let after = self.after(&upstream, row.seen.again).await;
        check("the next request", after.code == 200 && after.text.contains("good"), format!("{after:?}"));
        let again = upstream.served_again();
        check("connection", again == row.seen.again, format!("used again: {again}"));
        check("memory", upstream.flooded() < 16 << 20, format!("{} bytes", upstream.flooded()));
        if let Some(beside) = beside {
            let answer = upstream.release(beside).await;
            check("a request beside it", answer.code == 200 && answer.whole, format!("{answer:?}"));
        }
        for (log, expected) in self.logs.iter().zip(told) {
            let Some(expected) = expected else { continue };
            let (code, flags, details) = log.told(&format!("\"{path}\"")).await;
            let holds = (code, &*flags, &*details) == (expected.code, expected.flags, expected.details);
            check("log", holds, format!("{code} {flags} {details}"));
        }
        wrong
    }

    /// The next request; a connection that may be used again is back a moment after its answer.
    async fn after(&self, upstream: &Upstream, again: bool) -> Raw {
        let mut answer = ask(&self.mesh, "/after").await;
        for _ in 0..20 {
            if !again || upstream.served_again() || answer.code != 200 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
            answer = ask(&self.mesh, "/after").await;
        }
        answer
    }
}
