//! A TCP service without a protocol: it sends back what it receives, and speaks first if asked to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::client::dial;
use super::netns::Namespace;

/// The service, until it is dropped.
pub struct Echo {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<anyhow::Result<anyhow::Result<()>>>>,
}

impl Echo {
    /// Starts it on a host; `greeting` is what it says before it is spoken to.
    pub fn start(host: &Namespace, at: SocketAddr, greeting: &'static [u8]) -> anyhow::Result<Self> {
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
                        tokio::spawn(serve(stream, greeting));
                    }
                }
                Ok(())
            })
        });
        is_ready.recv_timeout(Duration::from_secs(5)).context("the echo service does not start")?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

async fn serve(mut stream: TcpStream, greeting: &'static [u8]) -> std::io::Result<()> {
    stream.write_all(greeting).await?;
    let (mut from, mut to) = stream.split();
    tokio::io::copy(&mut from, &mut to).await?;
    to.shutdown().await
}

/// Sends bytes to `HOST:PORT`, ends its own half, and returns all that comes back.
pub fn send(
    from: &Namespace,
    user: Option<u32>,
    to: &'static str,
    bytes: Vec<u8>,
) -> anyhow::Result<Vec<u8>> {
    from.block_on(user, move || async move {
        let exchange = async {
            let mut stream = dial(to).await?;
            let (mut reading, mut writing) = stream.split();
            let sending = async {
                writing.write_all(&bytes).await?;
                writing.shutdown().await
            };
            let mut received = Vec::new();
            let (sent, read) = tokio::join!(sending, reading.read_to_end(&mut received));
            sent.context("sending")?;
            read.context("receiving")?;
            Ok(received)
        };
        tokio::time::timeout(Duration::from_secs(20), exchange)
            .await
            .with_context(|| format!("no end from {to}"))?
    })
}
