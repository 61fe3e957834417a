//! The gRPC face: one stream a proxy.

use std::pin::Pin;
use std::sync::Arc;

use mesh_core::vocab::identity::TrustDomain;
use mesh_proto::generated as wire;
use mesh_proto::generated::tap_server::Tap;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use super::hub::Hub;
use crate::identity::attest::caller;
use crate::identity::members::Members;

/// Serves proxies.
pub struct TapService {
    /// The trust domain.
    pub domain: TrustDomain,
    /// Who has joined.
    pub members: Arc<Members>,
    /// Who asks.
    pub hub: Arc<Hub>,
    /// Ends all streams.
    pub stop: CancellationToken,
    /// Owns all streams.
    pub streams: TaskTracker,
}

type Requests = Pin<Box<dyn Stream<Item = Result<wire::TapRequest, Status>> + Send>>;

#[tonic::async_trait]
impl Tap for TapService {
    type StreamStream = Requests;

    async fn stream(
        &self,
        request: Request<Streaming<wire::TapReport>>,
    ) -> Result<Response<Requests>, Status> {
        let caller = caller(&request, &self.domain, &self.members)?;
        let node = caller.node.name.clone();
        let (presence, requests) = self.hub.enter(&node);
        let (hub, members, stop) = (Arc::clone(&self.hub), Arc::clone(&self.members), self.stop.clone());
        let mut reports = request.into_inner();
        self.streams.spawn(async move {
            // Dropped with the task: the sender of requests goes with it, and so does the stream.
            let _presence = presence;
            let mut changes = members.subscribe();
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    report = reports.message() => match report {
                        Ok(Some(report)) => hub.report(&node, report),
                        Ok(None) => return,
                        Err(status) => {
                            tracing::debug!(node, %status, "stream of taps ended");
                            return;
                        }
                    },
                    // A revoked node is out at once.
                    _ = changes.changed() => {
                        if members.standing(&node, &caller.key).is_none() {
                            return;
                        }
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(requests))))
    }
}
