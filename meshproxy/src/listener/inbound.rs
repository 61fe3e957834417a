//! The mesh hop's end: TLS with a proven peer, then HTTP/2 with requests and tunnels.

use std::rc::Rc;
use std::time::Duration;

use futures_util::future::Either;
use http::{Method, Request};
use hyper::body::Incoming;
use rustls::pki_types::UnixTime;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::accept::Worker;
use super::handshake::{self, Proven};
use super::tunnel;
use crate::http::connection::MeshPeer;
use crate::http::deliver;
use crate::http::server;
use crate::http::upgrade;
use crate::identity::client_cert;
use crate::identity::peer::Leaf;
use crate::net::downstream::Facts;
use crate::net::patient::Patient;
use crate::telemetry::metrics::Side;
use crate::telemetry::shed::Shed;
use crate::upstream::failure;

/// A connection takes no new requests after so long, so that the keys that made it do not live on for ever.
const MOST_AGE: Duration = Duration::from_secs(3600);
/// What a peer has under way, which a new trust bundle does not know any more, may take so long.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Serves one connection of another proxy.
pub(super) async fn serve(worker: &Worker, stream: TcpStream, facts: Facts) {
    let thread = &worker.thread;
    let material = thread.svids.load();
    let Some(config) = material.server() else {
        tracing::debug!(peer = %facts.peer, "no certificate to show yet");
        return;
    };
    let metrics = thread.metrics();
    let accepted = handshake::accept(stream, config, &material, Side::Inbound, facts, metrics).await;
    let Some(proven) = accepted else { return };
    let own = handshake::shown(&material, proven.server_name());
    let Proven { stream, leaf, chain } = proven;
    let Some(own) = own else { return };
    let Some(client_cert) = chain.first().and_then(|leaf_der| client_cert::element(&own, leaf_der, &leaf.id))
    else {
        return;
    };
    let Some(trust) = material.trust().cloned() else { return };
    drop(material);
    let Some(_counted) = thread.identities.enter(leaf.id.text(), thread.limits.of_identity) else {
        thread.metrics().supplies.shed(Shed::Identity, 1);
        tracing::debug!(peer = %facts.peer, id = %leaf.id, "too many connections of one identity");
        return;
    };
    let age = age(&leaf).min(thread.age_of_peers().unwrap_or(MOST_AGE));
    let distrusted = Notify::new();
    let retire = async {
        tokio::select! {
            () = tokio::time::sleep(age) => {}
            () = thread.svids.distrust(&trust, &chain) => {
                tracing::info!(peer = %facts.peer, "a peer is not of the trust bundle any more");
                distrusted.notify_one();
            }
        }
        thread.metrics().proxy.retired_peers.increment(1);
    };
    let peer = Rc::new(MeshPeer::new(Rc::clone(thread), facts, leaf.id, own, client_cert));
    let answer = |request: Request<Incoming>| {
        let peer = Rc::clone(&peer);
        if request.method() == Method::CONNECT && !upgrade::is_carried(&request) {
            return Either::Left(Box::pin(async move { tunnel::accept(&peer, request).await }));
        }
        Either::Right(deliver::inbound(peer, request))
    };
    let stream = Patient::new(stream);
    let cut = async {
        distrusted.notified().await;
        // Of a host that was thrown out nothing more is heard.
        if !thread.svids.revokes(&chain) {
            tokio::time::sleep(LAST_WORDS).await;
        }
    };
    let ended = tokio::select! {
        ended = server::http2(stream, thread, server::Side::Mesh, retire, answer) => ended,
        () = cut => return,
    };
    if let Err(error) = ended {
        if failure::is_malformed(&error) {
            thread.metrics().proxy.malformed_mesh.increment(1);
        }
        tracing::debug!(peer = %facts.peer, %error, "a mesh connection ended");
    }
}

/// How long a connection of this peer takes new requests: never longer than its certificate is valid.
pub(super) fn age(leaf: &Leaf) -> Duration {
    let now = i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX);
    let left = u64::try_from(leaf.not_after.saturating_sub(now)).unwrap_or(0);
    MOST_AGE.min(Duration::from_secs(left.max(1)))
}
