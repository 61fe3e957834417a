//! One stream a proxy: the socket around [`Publisher`], which decides what is said on it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::snapshot::Snapshot;
use mesh_core::sync::message::DeltaMessage;
use mesh_core::sync::publisher::Publisher;
use mesh_core::vocab::health::HostStanding;
use mesh_core::vocab::identity::TrustDomain;
use mesh_proto::convert::message::ClientMessage;
use mesh_proto::generated as wire;
use mesh_proto::generated::discovery_server::Discovery;
use tokio::sync::mpsc;
use tokio::sync::watch::Receiver;
use tokio::time::Instant;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use super::fanout::Fanout;
use super::roster::{Presence, Roster};
use crate::controller::{Controller, Published};
use crate::identity::attest::{Caller, caller};
use crate::identity::members::Members;
use crate::telemetry::{self, OpenStream};

/// An honest proxy says hello at once.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves proxies.
pub struct DiscoveryService {
    /// The trust domain.
    pub domain: TrustDomain,
    /// Who has joined.
    pub members: Arc<Members>,
    /// What is in force.
    pub controller: Controller,
    /// Who is connected.
    pub roster: Arc<Roster>,
    /// What is in force, cut and encoded.
    pub fanout: Arc<Fanout>,
    /// Ends all streams.
    pub stop: CancellationToken,
    /// Owns all streams.
    pub streams: TaskTracker,
}

type Messages = Pin<Box<dyn Stream<Item = Result<wire::ServerMessage, Status>> + Send>>;

#[tonic::async_trait]
impl Discovery for DiscoveryService {
    type StreamStream = Messages;

    async fn stream(
        &self,
        request: Request<Streaming<wire::ClientMessage>>,
    ) -> Result<Response<Messages>, Status> {
        let caller = caller(&request, &self.domain, &self.members)?;
        let (sender, receiver) = mpsc::channel(4);
        let session = Session {
            members: Arc::clone(&self.members),
            controller: self.controller.clone(),
            roster: Arc::clone(&self.roster),
            fanout: Arc::clone(&self.fanout),
            caller,
            sender: sender.clone(),
            publisher: Publisher::new(),
            sent_at: None,
            given: Vec::new(),
        };
        let stop = self.stop.clone();
        let messages = request.into_inner();
        let open = OpenStream::of("discovery");
        self.streams.spawn(async move {
            let _open = open;
            let ended = tokio::select! {
                () = stop.cancelled() => Err(Status::unavailable("meshd is going down")),
                ended = session.run(messages) => ended,
            };
            if let Err(status) = ended {
                // A slow proxy with a full stream learns it from the end of the stream.
                let _full = sender.try_send(Err(status));
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

struct Session {
    members: Arc<Members>,
    controller: Controller,
    roster: Arc<Roster>,
    fanout: Arc<Fanout>,
    caller: Caller,
    sender: mpsc::Sender<Result<wire::ServerMessage, Status>>,
    publisher: Publisher,
    sent_at: Option<Instant>,
    /// Snapshots that the publisher was given and the proxy may yet acknowledge.
    given: Vec<Arc<Snapshot>>,
}

impl Session {
    async fn run(mut self, mut messages: Streaming<wire::ClientMessage>) -> Result<(), Status> {
        let node = self.caller.node.name.clone();
        let mut published = self.controller.subscribe();
        let mut changes = self.members.subscribe();
        let first = tokio::time::timeout(HELLO_TIMEOUT, messages.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no hello"))??;
        let Some(first) = first else { return Ok(()) };
        self.hello(first, &mut published).await?;
        let presence = self.roster.enter(&node, self.publisher.state());
        tracing::info!(node, remote = %self.caller.remote, "proxy connected");
        let ended = loop {
            tokio::select! {
                message = messages.message() => match message {
                    Ok(Some(message)) => self.answer(message, &mut published, &presence).await?,
                    Ok(None) => break Ok(()),
                    Err(status) => {
                        tracing::debug!(node, %status, "discovery stream broke");
                        break Ok(());
                    }
                },
                changed = published.changed() => {
                    if changed.is_err() {
                        break Err(Status::unavailable("meshd is going down"));
                    }
                    // What is sent into a link that is cut arrives when it is mended, before the node has announced its
                    // workloads anew: without them it would not know its own callers.
                    if is_away(&published.borrow(), &node) {
                        break Err(Status::aborted("nothing is known of this node any more; announce its workloads anew"));
                    }
                    let snapshot = self.newest(&mut published);
                    let delta = self.publisher.on_snapshot(snapshot);
                    self.send(delta).await?;
                }
                // A revoked node is out at once.
                _ = changes.changed() => {
                    if self.members.standing(&node, &self.caller.key).is_none() {
                        break Err(Status::permission_denied("the node was revoked"));
                    }
                }
            }
            if presence.is_replaced() {
                break Err(Status::aborted("a later stream of this node took over"));
            }
            presence.update(self.publisher.state());
        };
        tracing::info!(node, "proxy disconnected");
        ended
    }

    async fn hello(
        &mut self,
        message: wire::ClientMessage,
        published: &mut Receiver<Arc<Published>>,
    ) -> Result<(), Status> {
        let node = &self.caller.node.name;
        let ClientMessage::Hello(hello) = decode(message)? else {
            return Err(Status::failed_precondition("the first message must be a hello"));
        };
        if *hello.node.name != **node {
            return Err(Status::permission_denied(format!(
                "the certificate is node {node}'s, the hello says {}",
                hello.node.name
            )));
        }
        let snapshot = self.newest(published);
        let delta = self.publisher.on_hello(hello, snapshot);
        self.send(delta).await
    }

    async fn answer(
        &mut self,
        message: wire::ClientMessage,
        published: &mut Receiver<Arc<Published>>,
        presence: &Presence,
    ) -> Result<(), Status> {
        let delta = match decode(message)? {
            ClientMessage::Ack(ack) => {
                self.answered("ack");
                for fault in &ack.listener_faults {
                    tracing::warn!(node = self.caller.node.name, address = %fault.address, reason = %fault.reason, "a socket of the proxy is not open");
                }
                let version = ack.version;
                let delta = self.publisher.on_ack(ack);
                // What it runs, what it is sent, and what is newer.
                let sent = self.publisher.state().sent;
                self.given.retain(|snapshot| snapshot.version == version || Some(snapshot.version) >= sent);
                if let Some(running) = self.given.iter().find(|snapshot| snapshot.version == version) {
                    presence.runs(Arc::clone(running));
                }
                delta
            }
            ClientMessage::Nack(nack) => {
                self.answered("nack");
                telemetry::refused(&nack);
                tracing::warn!(node = self.caller.node.name, reason = nack.text(), "proxy refused a version");
                self.publisher.on_nack(&nack)
            }
            hello @ ClientMessage::Hello(_) => return self.hello(hello.encode(), published).await,
        };
        presence.update(self.publisher.state());
        self.send(delta).await
    }

    fn newest(&mut self, published: &mut Receiver<Arc<Published>>) -> Arc<Snapshot> {
        let newest = published.borrow_and_update().clone();
        let snapshot = self.fanout.snapshot(&self.caller.node.name, &newest);
        self.given.push(Arc::clone(&snapshot));
        // What a slow proxy was never sent is not worth remembering.
        if self.given.len() > 16 {
            self.given.remove(2);
        }
        snapshot
    }

    fn answered(&mut self, result: &'static str) {
        if let Some(sent_at) = self.sent_at.take() {
            telemetry::answered(result, sent_at.elapsed().as_secs_f64());
        }
    }

    async fn send(&mut self, delta: Option<DeltaMessage>) -> Result<(), Status> {
        let Some(delta) = delta else { return Ok(()) };
        self.sent_at = Some(Instant::now());
        for message in self.fanout.messages(&delta) {
            if self.sender.send(Ok(message)).await.is_err() {
                return Err(Status::cancelled("the proxy has gone"));
            }
        }
        Ok(())
    }
}

/// Whether the lease of a node is over.
fn is_away(published: &Published, node: &str) -> bool {
    published.state.registration(node).is_some_and(|registration| registration.standing == HostStanding::Away)
}

fn decode(message: wire::ClientMessage) -> Result<ClientMessage, Status> {
    ClientMessage::decode(message).map_err(|error| Status::invalid_argument(error.to_string()))
}
