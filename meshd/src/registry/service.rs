//! The gRPC face: one stream a node, on which it announces, reports and stays alive.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::vocab::identity::TrustDomain;
use mesh_proto::generated::announcement::News;
use mesh_proto::generated::registry_server::Registry;
use mesh_proto::generated::{
    Announced, Announcement, LimitReports, LimitShares, RegisteredWorkload, Registration,
};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use super::limits::Ledger;
use super::record;
use super::registrar::{Callers, Registrar};
use crate::identity::attest::{Caller, caller};
use crate::identity::members::Members;
use crate::telemetry::OpenStream;

/// Takes in what nodes announce.
pub struct RegistryService {
    /// The trust domain.
    pub domain: TrustDomain,
    /// Who has joined.
    pub members: Arc<Members>,
    /// Takes it further.
    pub registrar: Arc<dyn Registrar>,
    /// Those who call the workloads.
    pub callers: Arc<dyn Callers>,
    /// How long a registration lives without a word.
    pub lease: Duration,
    /// Who may use how much of the rate limits that proxies share.
    pub shares: Ledger,
    /// Ends all streams.
    pub stop: CancellationToken,
    /// Owns all streams.
    pub streams: TaskTracker,
}

/// How long the answer to a farewell waits for callers.
const FAREWELL: Duration = Duration::from_secs(10);

type Waiting = Pin<Box<dyn Future<Output = ()> + Send>>;
type Answers = Pin<Box<dyn Stream<Item = Result<Announced, Status>> + Send>>;

#[tonic::async_trait]
impl Registry for RegistryService {
    type AnnounceStream = Answers;

    async fn share_limits(&self, request: Request<LimitReports>) -> Result<Response<LimitShares>, Status> {
        let caller = caller(&request, &self.domain, &self.members)?;
        self.shares.share(&caller.node.name, &request.into_inner()).map(Response::new)
    }

    async fn announce(&self, request: Request<Streaming<Announcement>>) -> Result<Response<Answers>, Status> {
        let caller = caller(&request, &self.domain, &self.members)?;
        let (answers, receiver) = mpsc::channel(4);
        let session = Session {
            members: Arc::clone(&self.members),
            registrar: Arc::clone(&self.registrar),
            callers: Arc::clone(&self.callers),
            lease: self.lease,
            caller,
            answers,
        };
        let stop = self.stop.clone();
        let messages = request.into_inner();
        let open = OpenStream::of("registry");
        self.streams.spawn(async move {
            let _open = open;
            tokio::select! {
                () = stop.cancelled() => {}
                () = session.run(messages) => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

struct Session {
    members: Arc<Members>,
    registrar: Arc<dyn Registrar>,
    callers: Arc<dyn Callers>,
    lease: Duration,
    caller: Caller,
    answers: mpsc::Sender<Result<Announced, Status>>,
}

impl Session {
    async fn run(self, mut messages: Streaming<Announcement>) {
        let name = self.caller.node.name.clone();
        let mut changes = self.members.subscribe();
        // The number of the farewell, and what its answer waits for.
        let mut departing: Option<(u64, Waiting)> = None;
        loop {
            let message = tokio::select! {
                message = messages.message() => message,
                sequence = departed(&mut departing) => {
                    departing = None;
                    if self.answers.send(Ok(self.answer(sequence))).await.is_err() {
                        return;
                    }
                    continue;
                }
                // A revoked node is out at once.
                _ = changes.changed() => {
                    if self.members.standing(&name, &self.caller.key).is_some() {
                        continue;
                    }
                    let _gone = self.answers.send(Err(Status::permission_denied("the node was revoked"))).await;
                    return;
                }
            };
            let message = match message {
                Ok(Some(message)) => message,
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(node = name, %error, "announcement stream ended");
                    return;
                }
            };
            let mut answer = self.answer(message.sequence);
            // A link that was cut for longer than a lease may carry the same stream again.
            if matches!(message.news, None | Some(News::Health(_))) && !self.registrar.renew(&name).await {
                let over =
                    Status::aborted("nothing is known of this node any more; announce its workloads anew");
                let _gone = self.answers.send(Err(over)).await;
                return;
            }
            match message.news {
                None => {}
                Some(News::Health(report)) => {
                    self.registrar.fare(&name, record::told(&report), false).await;
                    self.registrar.report(&name, record::reports(report)).await;
                }
                Some(News::Departure(_)) => {
                    if let Some(version) = self.registrar.depart(&name).await {
                        let (callers, name) = (Arc::clone(&self.callers), name.clone());
                        let waiting = Box::pin(async move { callers.run(version, &name, FAREWELL).await });
                        departing = Some((message.sequence, waiting));
                        continue;
                    }
                }
                Some(News::Registration(registration)) => {
                    if let Err(status) = self.register(registration, &mut answer).await {
                        let _gone = self.answers.send(Err(status)).await;
                        return;
                    }
                }
            }
            if self.answers.send(Ok(answer)).await.is_err() {
                return;
            }
        }
    }

    fn answer(&self, sequence: u64) -> Announced {
        let lease_seconds = u32::try_from(self.lease.as_secs()).unwrap_or(u32::MAX);
        Announced { sequence, lease_seconds, ..Announced::default() }
    }

    async fn register(&self, registration: Registration, answer: &mut Announced) -> Result<(), Status> {
        let told = registration.health.as_ref().map(record::told).unwrap_or_default();
        let announcement = record::announcement(registration).map_err(Status::invalid_argument)?;
        let name = &self.caller.node.name;
        let (members, owned, address) = (Arc::clone(&self.members), name.clone(), announcement.address);
        let remote = self.caller.remote.ip();
        let is_free = tokio::task::spawn_blocking(move || members.relocate(&owned, address, remote))
            .await
            .map_err(|_| Status::unavailable("meshd is going down"))?
            .map_err(|error| {
                tracing::error!(%error, "the store failed");
                Status::unavailable("the control plane cannot write its store; its log says why")
            })?;
        if !is_free {
            return Err(Status::already_exists(format!(
                "address {address} belongs to another node; choose this host's with --address, or revoke the other"
            )));
        }
        let announced = self
            .registrar
            .announce(name, announcement)
            .await
            .ok_or_else(|| Status::unavailable("meshd is going down"))?;
        // Of workloads that are known by now.
        self.registrar.fare(name, told, true).await;
        answer.problems = announced.problems;
        answer.workloads = announced
            .workloads
            .into_iter()
            .map(|(key, identity)| RegisteredWorkload {
                namespace: key.namespace.to_string(),
                name: key.name.to_string(),
                identity: identity.unwrap_or_default(),
            })
            .collect();
        Ok(())
    }
}

/// Resolves with the number of the farewell when nobody has to be waited for any more; never if there is none.
async fn departed(departing: &mut Option<(u64, Waiting)>) -> u64 {
    match departing {
        Some((sequence, waiting)) => {
            waiting.await;
            *sequence
        }
        None => std::future::pending().await,
    }
}
