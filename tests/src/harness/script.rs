//! A server that plays by a script: the path of a request says which bytes come back, and how it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::netns::Namespace;

/// More than anybody may take of something that has no end.
const ENDLESS: usize = 256 << 20;

/// How an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The connection is closed.
    Close,
    /// The connection is reset.
    Reset,
    /// Nothing more comes.
    Silence,
    /// The last bytes come again and again.
    Repeat,
}

/// One answer: for which path, its bytes, its end.
pub type Line = (&'static str, &'static [u8], End);

/// The server, until it is dropped. What is not in the script is answered with `good`.
pub struct Script {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<anyhow::Result<anyhow::Result<()>>>>,
}

impl Script {
    /// Starts it on a host.
    pub fn start(host: &Namespace, at: SocketAddr, lines: &'static [Line]) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = stop.clone();
        let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
        let thread = host.spawn(None, move || -> anyhow::Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async move {
                let listener = TcpListener::bind(at).await?;
                let _ = ready.send(());
                while !stopping.load(Ordering::Relaxed) {
                    let accepted = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
                    if let Ok(Ok((stream, _))) = accepted {
                        tokio::spawn(serve(stream, lines));
                    }
                }
                Ok(())
            })
        });
        is_ready.recv_timeout(Duration::from_secs(5)).context("the server does not start")?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

async fn serve(mut stream: TcpStream, lines: &[Line]) -> std::io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let path = head.split(' ').nth(1).unwrap_or_default();
        let Some((_, bytes, end)) = lines.iter().find(|(of, ..)| *of == path) else {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood").await?;
            continue;
        };
        stream.write_all(bytes).await?;
        // What was sent shall be seen before the end is.
        tokio::time::sleep(Duration::from_millis(50)).await;
        match end {
            End::Close => return Ok(()),
            End::Reset => return stream.set_zero_linger(),
            End::Silence => return std::future::pending().await,
            End::Repeat => {
                for _ in 0..ENDLESS / bytes.len().max(1) {
                    stream.write_all(bytes).await?;
                }
            }
        }
    }
}
