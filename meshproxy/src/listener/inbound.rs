//! The mesh hop's end: TLS with a proven peer, then HTTP/2 with requests and tunnels.

use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Request};
use hyper::body::Incoming;
use mesh_core::vocab::identity::SpiffeId;
use rustls::pki_types::{CertificateDer, UnixTime};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::accept::Worker;
use super::tunnel;
use crate::http::connection::MeshPeer;
use crate::http::deliver;
use crate::http::server::{self, Side};
use crate::http::upgrade;
use crate::identity::svid::Material;
use crate::identity::tls::{self, Leaf};
use crate::net::downstream::Facts;
use crate::net::patient::Patient;
use crate::telemetry::shed::Shed;
use crate::upstream::failure;

/// A connection takes no new requests after so long, so that the keys that made it do not live on for ever.
const MOST_AGE: Duration = Duration::from_secs(3600);

/// Serves one connection of another proxy.
pub(super) async fn serve(worker: &Worker, stream: TcpStream, facts: Facts) {
    let thread = &worker.thread;
    let material = thread.svids.load();
    let Some(config) = material.server() else {
        tracing::debug!(peer = %facts.peer, "no certificate to show yet");
        return;
    };
    let acceptor = TlsAcceptor::from(Arc::clone(config));
    let stream = match tokio::time::timeout(thread.limits.patience.handshake, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            thread.metrics().proxy.handshake_failures.increment(1);
            tracing::debug!(peer = %facts.peer, %error, "a handshake failed");
            return;
        }
        Err(_elapsed) => {
            thread.metrics().proxy.handshake_failures.increment(1);
            return;
        }
    };
    let Some((leaf, own, client_cert)) = parties(&stream, &material) else {
        thread.metrics().proxy.handshake_failures.increment(1);
        return;
    };
    drop(material);
    let Some(_counted) = thread.identities.enter(leaf.id.text(), thread.limits.of_identity) else {
        thread.metrics().supplies.shed(Shed::Identity, 1);
        tracing::debug!(peer = %facts.peer, id = %leaf.id, "too many connections of one identity");
        return;
    };
    let age = age(&leaf).min(thread.age_of_peers().unwrap_or(MOST_AGE));
    let retire = async {
        tokio::time::sleep(age).await;
        thread.metrics().proxy.retired_peers.increment(1);
    };
    let peer = Rc::new(MeshPeer::new(Rc::clone(thread), facts, leaf.id, own, client_cert));
    let answer = |request: Request<Incoming>| {
        let peer = Rc::clone(&peer);
        async move {
            if request.method() == Method::CONNECT && upgrade::is_carried(&request) {
                return Box::pin(deliver::inbound_upgrade(&peer, request)).await;
            }
            if request.method() == Method::CONNECT {
                return Box::pin(tunnel::accept(&peer, request)).await;
            }
            // Boxed: the task of the stream is moved about, and what is in it with it.
            Box::pin(deliver::inbound(&peer, request)).await
        }
    };
    let stream = Patient::new(stream);
    let ended = server::http2(stream, thread, Side::Mesh, retire, answer).await;
    if let Err(error) = ended {
        if failure::is_malformed(&error) {
            thread.metrics().proxy.malformed_mesh.increment(1);
        }
        tracing::debug!(peer = %facts.peer, %error, "a mesh connection ended");
    }
}

/// Whom the peer proved to be, whom we showed, and what `x-forwarded-client-cert` says of it.
fn parties(stream: &TlsStream<TcpStream>, material: &Material) -> Option<(Leaf, SpiffeId, HeaderValue)> {
    let (_, session) = stream.get_ref();
    let chain = session.peer_certificates();
    let leaf = tls::peer(chain, material.trust()?, UnixTime::now()).ok()?;
    let mut workloads = material.svids().map(|svid| svid.id()).filter(|id| id.account().is_some());
    let own = match session.server_name() {
        Some(name) => workloads.find(|id| tls::server_name(id) == name)?,
        None => workloads.next()?,
    };
    let client_cert = client_cert(own, chain?.first()?, &leaf.id)?;
    Some((leaf, own.clone(), client_cert))
}

/// `By=..;Hash=..;Subject="";URI=..`, as Envoy writes it for SPIFFE certificates.
fn client_cert(own: &SpiffeId, certificate: &CertificateDer<'_>, peer: &SpiffeId) -> Option<HeaderValue> {
    let mut hash = String::with_capacity(64);
    for byte in Sha256::digest(certificate) {
        let _ = write!(hash, "{byte:02x}");
    }
    HeaderValue::from_str(&format!("By={own};Hash={hash};Subject=\"\";URI={peer}")).ok()
}

/// How long a connection of this peer takes new requests: never longer than its certificate is valid.
fn age(leaf: &Leaf) -> Duration {
    let now = i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX);
    let left = u64::try_from(leaf.not_after.saturating_sub(now)).unwrap_or(0);
    MOST_AGE.min(Duration::from_secs(left.max(1)))
}
