//! A name server of few words: it knows the addresses that it is told, each good for one second.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use tokio::net::UdpSocket;

use super::netns::Namespace;

type Known = Arc<Mutex<BTreeMap<String, Vec<Ipv4Addr>>>>;

/// The server, until it is dropped.
pub struct NameServer {
    known: Known,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<anyhow::Result<anyhow::Result<()>>>>,
}

impl NameServer {
    /// Starts it on a host.
    pub fn start(host: &Namespace, at: SocketAddr) -> anyhow::Result<Self> {
        let (stop, known) = (Arc::new(AtomicBool::new(false)), Known::default());
        let (stopping, names) = (stop.clone(), known.clone());
        let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
        let thread = host.spawn(None, move || -> anyhow::Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async move {
                let socket = UdpSocket::bind(at).await?;
                let _ = ready.send(());
                let mut question = [0u8; 1500];
                while !stopping.load(Ordering::Relaxed) {
                    let received = socket.recv_from(&mut question);
                    let received = tokio::time::timeout(Duration::from_millis(50), received).await;
                    if let Ok(Ok((length, from))) = received
                        && let Some(answer) = answer(&question[..length], &names)
                    {
                        drop(socket.send_to(&answer, from).await);
                    }
                }
                Ok(())
            })
        });
        is_ready.recv_timeout(Duration::from_secs(5)).context("the name server does not start")?;
        Ok(Self { known, stop, thread: Some(thread) })
    }

    /// What it says of a name from now on; nothing is a failure.
    pub fn tell(&self, name: &str, addresses: &[Ipv4Addr]) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(name.to_owned(), addresses.to_vec());
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn answer(question: &[u8], known: &Known) -> Option<Vec<u8>> {
    let (mut at, mut labels) = (12, Vec::new());
    loop {
        let length = usize::from(*question.get(at)?);
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(question.get(at + 1..at + 1 + length)?).to_ascii_lowercase());
        at += 1 + length;
    }
    let end = at + 5;
    let is_a = *question.get(at + 2)? == 1;
    let known = known.lock().unwrap_or_else(PoisonError::into_inner);
    let found = known.get(&labels.join("."));
    let mut answer = question.get(..end)?.to_vec();
    let code: u8 = match found {
        None => 3,
        Some(addresses) if addresses.is_empty() => 2,
        Some(_) => 0,
    };
    answer[2..4].copy_from_slice(&[0x81, 0x80 | code]);
    answer[6..12].fill(0);
    for address in found.into_iter().flatten().filter(|_| is_a) {
        answer[7] += 1;
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}
