//! The gRPC face: join, renew, issue.

use std::sync::Arc;
use std::time::Duration;

use mesh_core::vocab::identity::{Account, SpiffeId};
use mesh_proto::generated::identity_server::Identity;
use mesh_proto::generated::{IssueRequest, JoinRequest, NodeCertificate, RenewRequest, Svid};
use mesh_proto::token::JoinToken;
use tonic::{Request, Response, Status};

use super::attest::{Caller, Connection, caller};
use super::authority::{Authority, AuthorityError, Issued};
use super::csr::{CsrError, RequestedKey, requested_key};
use super::members::{JoinError, Members, mark};
use super::token::{Attempt, allows};
use crate::clock;
use crate::store::{NodeRecord, StoreError};
use crate::telemetry;

/// Answers hosts that want certificates.
pub struct IdentityService {
    /// Signs.
    pub authority: Arc<Authority>,
    /// Knows who has joined.
    pub members: Arc<Members>,
    /// Lifetime of what is signed.
    pub ttl: Duration,
}

#[tonic::async_trait]
impl Identity for IdentityService {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<NodeCertificate>, Status> {
        counted("node", self.joined(request).await)
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<NodeCertificate>, Status> {
        counted("node", self.renewed(request).await)
    }

    async fn issue(&self, request: Request<IssueRequest>) -> Result<Response<Svid>, Status> {
        counted("workload", self.issued_to(request).await)
    }
}

/// A certificate was asked for.
fn counted<T>(of: &'static str, result: Result<T, Status>) -> Result<T, Status> {
    telemetry::certificate(of, result.is_ok());
    result
}

impl IdentityService {
    async fn joined(&self, request: Request<JoinRequest>) -> Result<Response<NodeCertificate>, Status> {
        let remote = request.extensions().get::<Connection>().map(|connection| connection.remote.ip());
        let request = request.into_inner();
        let address = request.address.parse().ok();
        let token: JoinToken =
            request.token.parse().map_err(|_| Status::unauthenticated("that is not a join token"))?;
        let key = requested_key(&request.csr).map_err(bad_request)?;
        let domain = self.authority.domain();
        let id = SpiffeId::node(domain, &request.node)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let (members, name) = (Arc::clone(&self.members), request.node.clone());
        let fingerprint = key.fingerprint;
        let joined = blocking(move || {
            let joined = members.join(&Attempt {
                token: &token,
                node: &request.node,
                key: fingerprint,
                now: clock::now_seconds(),
            });
            if let (Ok(node), Some(address), Some(remote)) = (&joined, address, remote) {
                // One that is another node's is refused when the node registers; it may join all the same.
                members.relocate(&node.name, address, remote)?;
            }
            joined
        })
        .await?;
        let node = match joined {
            Ok(node) => {
                tracing::info!(node = name, "node joined");
                node
            }
            Err(JoinError::Refused(refusal)) => {
                tracing::warn!(node = name, %refusal, "join refused");
                return Err(Status::permission_denied(refusal.public()));
            }
            Err(JoinError::Store(error)) => return Err(not_stored(&error)),
        };
        let issued = self.issued(&id, &key, &node)?;
        self.certified(&name, fingerprint, issued.not_after).await?;
        Ok(Response::new(self.node_certificate(&issued)))
    }

    async fn renewed(&self, request: Request<RenewRequest>) -> Result<Response<NodeCertificate>, Status> {
        let caller = self.caller(&request)?;
        let key = requested_key(&request.get_ref().csr).map_err(bad_request)?;
        let domain = self.authority.domain();
        let id =
            SpiffeId::node(domain, &caller.node.name).map_err(|error| Status::internal(error.to_string()))?;
        let issued = self.issued(&id, &key, &caller.node)?;
        self.certified(&caller.node.name, key.fingerprint, issued.not_after).await?;
        Ok(Response::new(self.node_certificate(&issued)))
    }

    async fn issued_to(&self, request: Request<IssueRequest>) -> Result<Response<Svid>, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        let account = format!("{}/{}", request.namespace, request.service_account);
        let account = Account::parse(&account)
            .map_err(|_| Status::invalid_argument(format!("{account:?} is no account")))?;
        if !allows(&caller.node.accounts, &account.namespace, &account.name) {
            tracing::warn!(node = caller.node.name, %account, "identity outside the node's token refused");
            return Err(Status::permission_denied(format!(
                "node {} may not be {account}; allow it with `meshd node allow {} {account}`",
                caller.node.name, caller.node.name
            )));
        }
        let key = requested_key(&request.csr).map_err(bad_request)?;
        let id = SpiffeId::workload(self.authority.domain(), &account.namespace, &account.name)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let issued = self.issued(&id, &key, &caller.node)?;
        tracing::debug!(node = caller.node.name, %id, "issued");
        Ok(Response::new(self.svid(&issued)))
    }
}

impl IdentityService {
    fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        caller(request, self.authority.domain(), &self.members)
    }

    fn issued(&self, id: &SpiffeId, key: &RequestedKey, node: &NodeRecord) -> Result<Issued, Status> {
        self.authority.issue(id, key, self.ttl, mark(node)).map_err(|error| not_signed(&error))
    }

    async fn certified(&self, node: &str, key: [u8; 32], expires: i64) -> Result<(), Status> {
        let (members, node) = (Arc::clone(&self.members), node.to_owned());
        blocking(move || members.certified(&node, key, expires)).await?.map_err(|error| not_stored(&error))
    }

    fn node_certificate(&self, issued: &Issued) -> NodeCertificate {
        NodeCertificate {
            svid: Some(self.svid(issued)),
            trust_domain: self.authority.domain().as_str().to_owned(),
        }
    }

    fn svid(&self, issued: &Issued) -> Svid {
        Svid {
            spiffe_id: issued.id.as_str().to_owned(),
            chain: issued.chain.iter().map(|der| der.to_vec()).collect(),
            bundle: self.authority.bundle().iter().map(|der| der.to_vec()).collect(),
            not_before: issued.not_before,
            not_after: issued.not_after,
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Status::unavailable("meshd is going down"))
}

#[expect(clippy::needless_pass_by_value, reason = "fits map_err")]
fn bad_request(error: CsrError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn not_stored(error: &StoreError) -> Status {
    tracing::error!(%error, "the store failed");
    Status::unavailable("the control plane cannot write its store; its log says why")
}

fn not_signed(error: &AuthorityError) -> Status {
    tracing::error!(%error, "signing failed");
    Status::unavailable("the control plane cannot sign; its log says why")
}
