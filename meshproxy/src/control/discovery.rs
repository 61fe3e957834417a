//! The stream of snapshots: says what is held, puts each delta in force, answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mesh_core::sync::message::{DeltaMessage, ListenerFault};
use mesh_core::sync::subscriber::Subscriber;
use mesh_proto::convert::message::{Assembly, ClientMessage, LARGEST_MESSAGE};
use mesh_proto::generated as wire;
use mesh_proto::generated::discovery_client::DiscoveryClient;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

use super::apply::{Apply, faults};
use crate::live::root::Roots;

/// The client of discovery, living longer than its streams.
pub struct Discovery {
    subscriber: Subscriber,
    apply: Arc<Apply>,
    roots: Arc<Roots>,
    /// The version that was last told of.
    logged: Option<u64>,
}

/// Why a stream ended without fault.
enum Ended {
    /// meshd closed it.
    Closed,
    /// The sockets have changed since the last ack: a new stream begins with an ack that tells of it. A second hello
    /// on the old one would not do, because a delta may be on its way that was made for the first.
    Sockets,
}

impl Discovery {
    /// A client that holds what `subscriber` holds.
    pub fn new(subscriber: Subscriber, apply: Arc<Apply>, roots: Arc<Roots>) -> Discovery {
        Discovery { subscriber, apply, roots, logged: None }
    }

    /// Takes in deltas for as long as the channel lasts. `progress` is set when one has come in force.
    pub async fn run(&mut self, channel: Channel, progress: &AtomicBool) -> Status {
        loop {
            match self.stream(channel.clone(), progress).await {
                Ok(Ended::Sockets) => {}
                Ok(Ended::Closed) => return Status::unavailable("meshd closed the discovery stream"),
                Err(status) => return status,
            }
        }
    }

    async fn stream(&mut self, channel: Channel, progress: &AtomicBool) -> Result<Ended, Status> {
        let (outbound, receiver) = mpsc::channel(8);
        send(&outbound, &ClientMessage::Hello(self.subscriber.hello())).await?;
        let mut client = DiscoveryClient::new(channel).max_decoding_message_size(LARGEST_MESSAGE);
        let mut inbound = client.stream(ReceiverStream::new(receiver)).await?.into_inner();
        let mut assembly = Assembly::default();
        let mut sockets = self.roots.subscribe_sockets();
        let mut certificates = self.roots.originations().subscribe();
        let mut reported: Option<Vec<ListenerFault>> = None;
        loop {
            tokio::select! {
                message = inbound.message() => {
                    let Some(message) = message? else { return Ok(Ended::Closed) };
                    let whole = assembly
                        .push(message)
                        .map_err(|error| Status::internal(format!("meshd's stream makes no sense: {error}")))?;
                    let answer = match whole {
                        None => continue,
                        Some(Ok(delta)) => self.take_in(&delta).await,
                        Some(Err(nack)) => {
                            tracing::error!(reasons = nack.text(), "delta cannot be read; the last good one stays");
                            Some(ClientMessage::Nack(nack))
                        }
                    };
                    if let Some(ClientMessage::Ack(ack)) = &answer {
                        progress.store(true, Ordering::Relaxed);
                        reported = Some(ack.listener_faults.clone());
                    }
                    let counters = &self.roots.metrics().proxy;
                    match &answer {
                        Some(ClientMessage::Ack(_)) => counters.deltas_acked.increment(1),
                        Some(ClientMessage::Nack(_)) => counters.deltas_refused.increment(1),
                        Some(ClientMessage::Hello(_)) | None => {}
                    }
                    if let Some(answer) = answer {
                        send(&outbound, &answer).await?;
                    }
                }
                Ok(()) = either(sockets.changed(), certificates.changed()) => {
                    let now = faults(&self.roots, &sockets.borrow_and_update());
                    if reported.as_ref().is_some_and(|reported| *reported != now) {
                        return Ok(Ended::Sockets);
                    }
                }
            }
        }
    }

    /// Puts a delta in force; the answer to it.
    async fn take_in(&mut self, delta: &DeltaMessage) -> Option<ClientMessage> {
        let candidate = self.subscriber.on_delta(delta);
        let version = candidate.snapshot.version;
        let began = Instant::now();
        match self.apply.apply(candidate.snapshot).await {
            Ok(faults) => {
                let (changed, removed) = (delta.delta.upserts.len(), delta.delta.removals.len());
                let (faulty, took_us) = (faults.len(), began.elapsed().as_micros() as u64);
                // Endpoints come and go; a version is what an operator did.
                if self.logged.replace(version.number) == Some(version.number) {
                    tracing::debug!(%version, changed, removed, faulty, took_us, "snapshot in force");
                } else {
                    tracing::info!(%version, changed, removed, faulty, took_us, "snapshot in force");
                }
                self.subscriber.accept(delta.nonce, faults).map(ClientMessage::Ack)
            }
            Err(rejections) => {
                let reasons: Vec<_> = rejections.into_iter().map(|one| (Some(one.key), one.reason)).collect();
                tracing::error!(%version, ?reasons, "snapshot refused; the last good one stays");
                self.subscriber.reject(delta.nonce, reasons).map(ClientMessage::Nack)
            }
        }
    }
}

async fn either<T>(one: impl Future<Output = T>, other: impl Future<Output = T>) -> T {
    tokio::select! {
        first = one => first,
        first = other => first,
    }
}

async fn send(outbound: &mpsc::Sender<wire::ClientMessage>, message: &ClientMessage) -> Result<(), Status> {
    outbound.send(message.encode()).await.map_err(|_| Status::unavailable("the discovery stream was closed"))
}
