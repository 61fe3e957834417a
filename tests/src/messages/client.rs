//! A client on raw sockets, over HTTP/1 and HTTP/2: sends what it is given and tells what came of it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::frames;

/// So long an answer is waited for.
const PATIENCE: Duration = Duration::from_millis(2500);
/// And so long for more behind the last one.
const MORE: Duration = Duration::from_millis(60);

/// What came of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    /// The statuses of answers, those that are not final left out; in HTTP/2 of the stream that was opened last.
    pub(super) statuses: Vec<u16>,
    /// Whether the last of them is whole.
    pub(super) whole: bool,
    /// Whether the proxy ended the connection, in HTTP/2 with an error.
    pub(super) ended: bool,
    /// Whether the stream was reset, and by what.
    pub(super) reset: Option<u32>,
    /// All that was read.
    pub(super) bytes: Vec<u8>,
}

impl Outcome {
    /// The last status.
    pub(super) fn last(&self) -> Option<u16> {
        self.statuses.last().copied()
    }
}

/// Sends bytes, says that no more come if that is so, and reads until as many answers as are expected have come.
pub(super) fn http1(to: SocketAddr, bytes: &[u8], expected: usize, ends: bool) -> std::io::Result<Outcome> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // Who refuses what it has read so far reads no more.
    drop(stream.write_all(bytes));
    if ends {
        drop(stream.shutdown(std::net::Shutdown::Write));
    }
    let heads = heads(bytes);
    let (end, mut outcome) = (Instant::now() + PATIENCE, Outcome::default());
    let mut buffer = [0; 16 * 1024];
    loop {
        (outcome.statuses, outcome.whole) = answers(&outcome.bytes, &heads, outcome.ended);
        let enough = outcome.whole && outcome.statuses.len() >= expected.max(1);
        let wait = if enough { MORE } else { end.saturating_duration_since(Instant::now()) };
        if outcome.ended || wait.is_zero() {
            return Ok(outcome);
        }
        stream.set_read_timeout(Some(wait.max(Duration::from_millis(1))))?;
        match stream.read(&mut buffer) {
            Ok(length @ 1..) => outcome.bytes.extend(&buffer[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                if enough {
                    return Ok(outcome);
                }
            }
            Ok(0) | Err(_) => outcome.ended = true,
        }
    }
}

/// Which of the requests ask for an answer without content.
fn heads(bytes: &[u8]) -> Vec<bool> {
    if bytes.starts_with(b"HEAD ") { vec![true] } else { Vec::new() }
}

/// The statuses of final answers, and whether the last is whole.
fn answers(mut bytes: &[u8], heads: &[bool], ended: bool) -> (Vec<u16>, bool) {
    let mut statuses = Vec::new();
    while !bytes.is_empty() {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            return (statuses, false);
        };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        bytes = &bytes[end + 4..];
        let Some(status) = head.get(9..12).and_then(|status| status.parse().ok()) else {
            return (statuses, false);
        };
        if (100..200).contains(&status) && status != 101 {
            continue;
        }
        statuses.push(status);
        let bare = heads.get(statuses.len() - 1) == Some(&true) || matches!(status, 204 | 304);
        if status == 101 {
            return (statuses, true);
        }
        if bare {
            continue;
        }
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name).map(str::trim));
        let length = if field("transfer-encoding:").is_some() {
            chunks(bytes)
        } else if let Some(length) = field("content-length:") {
            length.parse().ok()
        } else if ended {
            Some(bytes.len())
        } else {
            None
        };
        match length.and_then(|length: usize| bytes.split_at_checked(length)) {
            Some((_, rest)) => bytes = rest,
            None => return (statuses, false),
        }
    }
    (statuses.clone(), !statuses.is_empty())
}

/// How long a body in chunks is, if it is whole.
fn chunks(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let line = bytes[at..].windows(2).position(|window| window == b"\r\n")?;
        let text = std::str::from_utf8(&bytes[at..at + line]).ok()?;
        let size = usize::from_str_radix(text.split(';').next()?, 16).ok()?;
        at += line + 2;
        if size == 0 {
            let rest = &bytes[at..];
            let end = if rest.starts_with(b"\r\n") {
                2
            } else {
                rest.windows(4).position(|window| window == b"\r\n\r\n")? + 4
            };
            return Some(at + end);
        }
        at += size + 2;
        bytes.get(..at)?;
    }
}

/// Sends the preface and frames, and reads until the stream that was opened last is over.
pub(super) fn http2(to: SocketAddr, sent: &[u8]) -> std::io::Result<Outcome> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut bytes = Vec::new();
    if !sent.starts_with(b"PRI") && !sent.starts_with(b"GET") {
        bytes.extend(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        // No table: statuses stand as they are.
        bytes.extend(frames::frame(4, 0, 0, &[0, 1, 0, 0, 0, 0]));
        bytes.extend(frames::frame(4, 1, 0, &[]));
    }
    let last = last_stream(sent);
    bytes.extend(sent);
    drop(stream.write_all(&bytes));
    let (end, mut outcome) = (Instant::now() + PATIENCE, Outcome::default());
    let mut lasting = false;
    loop {
        let wait = if lasting { MORE } else { end.saturating_duration_since(Instant::now()) };
        if wait.is_zero() {
            return Ok(outcome);
        }
        stream.set_read_timeout(Some(wait.max(Duration::from_millis(1))))?;
        let frame = match frames::read(&mut stream) {
            Ok(Some(frame)) => frame,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(outcome),
            Ok(None) | Err(_) => {
                outcome.ended |= !lasting;
                return Ok(outcome);
            }
        };
        outcome.bytes.extend(&frame.payload);
        let ends = frame.kind <= 1 && frame.flags & frames::END_STREAM != 0;
        match frame.kind {
            1 if frame.stream == last => {
                if let Some(status @ 200..) = frames::status(&frame.payload) {
                    outcome.statuses.push(status);
                }
            }
            3 if frame.stream == last => {
                let code: [u8; 4] = frame.payload.try_into().unwrap_or_default();
                outcome.reset = Some(u32::from_be_bytes(code));
                lasting = true;
            }
            7 => outcome.ended |= frame.payload.get(4..8).is_some_and(|code| code != [0; 4]),
            _ => {}
        }
        if ends && frame.stream == last {
            outcome.whole = true;
            lasting = true;
        }
    }
}

/// The stream that the last HEADERS frame opens.
fn last_stream(mut sent: &[u8]) -> u32 {
    let mut last = 1;
    if sent.starts_with(b"PRI") {
        sent = sent.get(24..).unwrap_or_default();
    }
    while let Ok(Some(frame)) = frames::read(&mut sent) {
        if frame.kind == 1 && frame.stream > last {
            last = frame.stream;
        }
    }
    last
}
