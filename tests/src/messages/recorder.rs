//! An application on raw sockets: notes what it hears, and answers with the bytes that it was told to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::frames::{self, Frame};

/// What it says unless it is told otherwise.
pub(super) const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
/// What it says to who asks for `/after`, always.
const AFTER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nafter";

/// No case has more content in one piece.
const MOST: usize = 1 << 20;

/// A whole message that came.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard {
    /// Its head, and its trailers behind it.
    pub(super) head: Vec<u8>,
    /// Its content.
    pub(super) body: Vec<u8>,
}

/// What it answers.
#[derive(Clone, Debug, Default)]
pub(super) struct Script {
    /// These bytes; in HTTP/2 with the number of the stream in the place of the highest number.
    pub(super) bytes: Vec<u8>,
    /// And then it ends the connection.
    pub(super) ends: bool,
}

#[derive(Default)]
struct Shared {
    script: Mutex<Script>,
    heard: Mutex<Vec<Heard>>,
}

/// The application.
pub(super) struct Recorder {
    shared: Arc<Shared>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recorder {
    /// Begins to listen for HTTP/1, or for HTTP/2 with prior knowledge.
    pub(super) fn start(port: u16, http2: bool) -> anyhow::Result<Recorder> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
        let shared = Arc::<Shared>::default();
        let own = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&own);
                std::thread::spawn(move || {
                    drop(stream.set_nodelay(true));
                    drop(stream.set_read_timeout(Some(Duration::from_secs(60))));
                    match http2 {
                        true => drop(serve_frames(stream, &shared)),
                        false => drop(serve(stream, &shared)),
                    }
                });
            }
        });
        Ok(Recorder { shared })
    }

    /// From now on it answers so.
    pub(super) fn answer(&self, script: Script) {
        *locked(&self.shared.script) = script;
    }

    /// What it has heard since it was asked last.
    pub(super) fn take(&self) -> Vec<Heard> {
        std::mem::take(&mut *locked(&self.shared.heard))
    }
}

fn serve(stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    while let Some(heard) = message(&mut reader)? {
        let after = heard.head.starts_with(b"GET /after ");
        let is_head = heard.head.starts_with(b"HEAD ");
        locked(&shared.heard).push(heard);
        let script = if after { Script::default() } else { locked(&shared.script).clone() };
        match (after, script.bytes.is_empty()) {
            (true, _) => writer.write_all(AFTER)?,
            (false, true) if is_head => writer.write_all(&OK[..OK.len() - 2])?,
            (false, true) => writer.write_all(OK)?,
            (false, false) => writer.write_all(&script.bytes)?,
        }
        if script.ends {
            break;
        }
    }
    Ok(())
}

/// One message, whatever it may be.
fn message(reader: &mut impl BufRead) -> std::io::Result<Option<Heard>> {
    let mut heard = Heard::default();
    loop {
        let begin = heard.head.len();
        if reader.read_until(b'\n', &mut heard.head)? == 0 {
            return Ok(None);
        }
        if matches!(&heard.head[begin..], b"\r\n" | b"\n") && begin > 0 {
            break;
        }
    }
    let head = String::from_utf8_lossy(&heard.head).to_ascii_lowercase();
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name).map(str::trim));
    if field("transfer-encoding:").is_some() {
        loop {
            let mut line = Vec::new();
            if reader.read_until(b'\n', &mut line)? == 0 {
                return Ok(None);
            }
            let text = String::from_utf8_lossy(&line).into_owned();
            let Ok(size) = usize::from_str_radix(text.split(';').next().unwrap_or("").trim(), 16) else {
                break;
            };
            if size == 0 {
                // Trailers, and the empty line.
                loop {
                    let mut line = Vec::new();
                    if reader.read_until(b'\n', &mut line)? == 0 {
                        return Ok(None);
                    }
                    if line == b"\r\n" {
                        return Ok(Some(heard));
                    }
                    heard.head.extend(line);
                }
            }
            let begin = heard.body.len();
            if size > MOST {
                return Ok(None);
            }
            heard.body.resize(begin + size, 0);
            reader.read_exact(&mut heard.body[begin..])?;
            reader.read_until(b'\n', &mut line)?;
        }
    } else if let Some(length) = field("content-length:").and_then(|length| length.parse().ok()) {
        if length > MOST {
            return Ok(None);
        }
        heard.body.resize(length, 0);
        reader.read_exact(&mut heard.body)?;
    }
    Ok(Some(heard))
}

/// Over HTTP/2 fields are not read: that a request was whole is all that is noted.
fn serve_frames(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface)?;
    stream.write_all(&frames::frame(4, 0, 0, &[]))?;
    while let Some(Frame { kind, flags, stream: number, .. }) = frames::read(&mut stream)? {
        if kind == 4 && flags & 1 == 0 {
            stream.write_all(&frames::frame(4, 1, 0, &[]))?;
        }
        if kind <= 1 && flags & frames::END_STREAM != 0 {
            locked(&shared.heard).push(Heard::default());
            let script = locked(&shared.script).clone();
            let bytes = match script.bytes.is_empty() {
                true => {
                    let fields = [(&b":status"[..], &b"200"[..]), (b"content-length", b"2")];
                    [
                        frames::frame(1, frames::END_HEADERS, number, &frames::block(&fields)),
                        frames::frame(0, frames::END_STREAM, number, b"ok"),
                    ]
                    .concat()
                }
                false => frames::renumbered(&script.bytes, number),
            };
            stream.write_all(&bytes)?;
            if script.ends {
                break;
            }
        }
    }
    Ok(())
}
