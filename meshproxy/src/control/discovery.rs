//! The stream of snapshots: says what is held, puts each delta in force, answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mesh_core::sync::message::ListenerFault;
use mesh_core::sync::subscriber::Subscriber;
use mesh_proto::convert::message::{Assembly, ClientMessage, LARGEST_MESSAGE};
use mesh_proto::generated as wire;
use mesh_proto::generated::discovery_client::DiscoveryClient;
use tokio::sync::mpsc;
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
}

impl Discovery {
    /// A client that holds what `subscriber` holds.
    pub fn new(subscriber: Subscriber, apply: Arc<Apply>, roots: Arc<Roots>) -> Discovery {
        Discovery { subscriber, apply, roots }
    }

    /// Takes in deltas for as long as the channel lasts. `progress` is set when one has come in force.
    pub async fn run(&mut self, channel: Channel, progress: &AtomicBool) -> Status {
        match self.stream(channel, progress).await {
            Ok(()) => Status::unavailable("meshd closed the discovery stream"),
            Err(status) => status,
        }
    }

    async fn stream(&mut self, channel: Channel, progress: &AtomicBool) -> Result<(), Status> {
        let (outbound, receiver) = mpsc::channel(8);
        self.say_hello(&outbound).await?;
        let mut client = DiscoveryClient::new(channel).max_decoding_message_size(LARGEST_MESSAGE);
        let mut inbound = client.stream(ReceiverStream::new(receiver)).await?.into_inner();
        let mut assembly = Assembly::default();
        let mut sockets = self.roots.subscribe_sockets();
        let mut reported: Option<Vec<ListenerFault>> = None;
        loop {
            tokio::select! {
                message = inbound.message() => {
                    let Some(message) = message? else { return Ok(()) };
                    let whole = assembly
                        .push(message)
                        .map_err(|error| Status::internal(format!("meshd's stream makes no sense: {error}")))?;
                    let answer = match whole {
                        None => continue,
                        Some(Ok(delta)) => {
                            let candidate = self.subscriber.on_delta(&delta);
                            let version = candidate.snapshot.version;
                            let began = tokio::time::Instant::now();
                            match self.apply.apply(candidate.snapshot).await {
                                Ok(faults) => {
                                    progress.store(true, Ordering::Relaxed);
                                    tracing::info!(%version, changed = delta.delta.upserts.len(),
                                        removed = delta.delta.removals.len(), faults = faults.len(),
                                        took_us = began.elapsed().as_micros() as u64, "snapshot in force");
                                    reported = Some(faults.clone());
                                    self.subscriber.accept(delta.nonce, faults).map(ClientMessage::Ack)
                                }
                                Err(rejections) => {
                                    let reasons: Vec<_> = rejections
                                        .into_iter()
                                        .map(|rejection| (Some(rejection.key), rejection.reason))
                                        .collect();
                                    tracing::error!(%version, ?reasons, "snapshot refused; the last good one stays");
                                    self.subscriber.reject(delta.nonce, reasons).map(ClientMessage::Nack)
                                }
                            }
                        }
                        Some(Err(nack)) => {
                            tracing::error!(reasons = nack.text(), "delta cannot be read; the last good one stays");
                            Some(ClientMessage::Nack(nack))
                        }
                    };
                    if let Some(answer) = answer {
                        send(&outbound, &answer).await?;
                    }
                }
                Ok(()) = sockets.changed() => {
                    let now = faults(&sockets.borrow_and_update());
                    // A second hello is answered by an empty delta, whose ack carries the new faults.
                    if reported.as_ref().is_some_and(|reported| *reported != now) {
                        reported = None;
                        assembly = Assembly::default();
                        self.say_hello(&outbound).await?;
                    }
                }
            }
        }
    }

    async fn say_hello(&mut self, outbound: &mpsc::Sender<wire::ClientMessage>) -> Result<(), Status> {
        let hello = self.subscriber.hello();
        send(outbound, &ClientMessage::Hello(hello)).await
    }
}

async fn send(outbound: &mpsc::Sender<wire::ClientMessage>, message: &ClientMessage) -> Result<(), Status> {
    outbound.send(message.encode()).await.map_err(|_| Status::unavailable("the discovery stream was closed"))
}
