//! An upstream that plays a script on one of its connections and behaves on all others.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::{Mesh, Raw};

/// More than any proxy may take of something that has no end.
pub(super) const ENDLESS: usize = 256 << 20;

/// What an upstream does.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// Reads up to the end of a request's head.
    Asked,
    /// Sends bytes.
    Send(Vec<u8>),
    /// Sends the same again and again while somebody reads.
    Flood(Vec<u8>),
    /// Gives everybody time to see what was sent.
    Pause,
    /// Does nothing more, and reads nothing.
    Idle,
    /// Closes.
    Close,
    /// Closes with a reset.
    Reset,
    /// Answers every further request as it should.
    Behave,
}

/// What an upstream speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    Http1,
    Http2,
}

#[derive(Debug, Default)]
struct State {
    connections: AtomicUsize,
    again: AtomicBool,
    /// Whether the script has been played.
    played: AtomicBool,
    flooded: AtomicUsize,
    /// A request that is held until it is let go.
    held: Notify,
    release: Notify,
}

/// One such upstream.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Upstream {
    /// Plays the script on the first connection, or on the one behind it where the first is for [`Upstream::hold`].
    pub(super) async fn start(steps: Vec<Step>, speaks: Speaks, beside: bool) -> Upstream {
        Upstream::scripted(steps, speaks, Some(usize::from(beside))).await
    }

    /// Plays the script on every connection.
    pub(super) async fn always(steps: Vec<Step>, speaks: Speaks) -> Upstream {
        Upstream::scripted(steps, speaks, None).await
    }

    async fn scripted(steps: Vec<Step>, speaks: Speaks, scripted: Option<usize>) -> Upstream {
        let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let index = shared.connections.fetch_add(1, Ordering::Relaxed);
                let is_scripted = scripted.is_none_or(|scripted| index == scripted);
                let steps = if is_scripted { steps.clone() } else { vec![Step::Behave] };
                let mut player = Player {
                    stream,
                    speaks,
                    read: Vec::new(),
                    state: Arc::clone(&shared),
                    is_scripted,
                    is_held: scripted.is_some_and(|scripted| index < scripted),
                };
                connections.spawn(async move {
                    player.play(steps).await;
                    player.played();
                });
            }
        });
        Upstream { address, state, task }
    }

    /// Whether the scripted connection served another request than its own.
    pub(super) fn served_again(&self) -> bool {
        self.state.again.load(Ordering::Relaxed)
    }

    /// Waits until the script was played and everybody can have seen it.
    pub(super) async fn played(&self) {
        while !self.state.played.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    /// Bytes of a flood that were taken.
    pub(super) fn flooded(&self) -> usize {
        self.state.flooded.load(Ordering::Relaxed)
    }

    /// Connections so far.
    pub(super) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// A request that is under way until it is let go.
    pub(super) async fn hold(&self, mesh: &Mesh) -> JoinHandle<Raw> {
        let to = mesh.a.explicit;
        let asking = tokio::spawn(async move { super::ask_at(to, "/beside").await });
        self.state.held.notified().await;
        asking
    }

    /// Lets it go.
    pub(super) async fn release(&self, held: JoinHandle<Raw>) -> Raw {
        self.state.release.notify_one();
        held.await.unwrap()
    }
}

struct Player {
    stream: TcpStream,
    speaks: Speaks,
    read: Vec<u8>,
    state: Arc<State>,
    is_scripted: bool,
    is_held: bool,
}

impl Player {
    async fn play(&mut self, steps: Vec<Step>) -> Option<()> {
        if self.speaks == Speaks::Http2 && !self.is_scripted {
            self.send(&super::http2::SETTINGS).await?;
        }
        for step in steps {
            match step {
                Step::Asked => {
                    self.asked().await?;
                }
                Step::Send(bytes) => self.send(&bytes).await?,
                Step::Flood(bytes) => {
                    let many = bytes.repeat((32 << 10) / bytes.len() + 1);
                    let mut sent = 0;
                    while sent < ENDLESS {
                        self.send(&many).await?;
                        sent += many.len();
                        self.state.flooded.store(sent, Ordering::Relaxed);
                    }
                }
                Step::Pause => tokio::time::sleep(Duration::from_millis(30)).await,
                Step::Idle => std::future::pending().await,
                Step::Close => return None,
                Step::Reset => {
                    self.stream.set_zero_linger().unwrap();
                    return None;
                }
                Step::Behave => {
                    self.played();
                    self.behave().await?;
                }
            }
        }
        Some(())
    }

    fn played(&self) {
        self.state.played.fetch_or(self.is_scripted, Ordering::Relaxed);
    }

    async fn send(&mut self, bytes: &[u8]) -> Option<()> {
        self.stream.write_all(bytes).await.ok()
    }

    async fn behave(&mut self) -> Option<()> {
        loop {
            let stream = self.asked().await?;
            if self.is_scripted {
                self.state.again.store(true, Ordering::Relaxed);
            }
            if std::mem::take(&mut self.is_held) {
                self.state.held.notify_one();
                self.state.release.notified().await;
            }
            let answer = match self.speaks {
                Speaks::Http1 => b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood".to_vec(),
                Speaks::Http2 => super::http2::good(stream),
            };
            self.send(&answer).await?;
        }
    }

    /// Reads up to the end of a request's head. `None` once nobody asks any more.
    async fn asked(&mut self) -> Option<u32> {
        loop {
            if let Some(stream) = self.take_head() {
                return Some(stream);
            }
            if self.stream.read_buf(&mut self.read).await.ok()? == 0 {
                return None;
            }
        }
    }

    fn take_head(&mut self) -> Option<u32> {
        if self.speaks == Speaks::Http1 {
            let end = self.read.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
            self.read.drain(..end);
            return Some(0);
        }
        const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        if self.read.starts_with(b"PRI") {
            if self.read.len() < PREFACE.len() {
                return None;
            }
            self.read.drain(..PREFACE.len());
        }
        while self.read.len() >= 9 {
            let length = usize::from(self.read[1]) << 8 | usize::from(self.read[2]);
            if self.read.len() < 9 + length {
                return None;
            }
            let frame: Vec<u8> = self.read.drain(..9 + length).collect();
            if frame[3] == 1 {
                return Some(u32::from_be_bytes([frame[5], frame[6], frame[7], frame[8]]));
            }
        }
        None
    }
}
