//! Where TLS of the mesh ends: who is there, or one more failure that is counted by its reason.

use std::io;
use std::sync::Arc;

use mesh_core::vocab::identity::SpiffeId;
use rustls::pki_types::{CertificateDer, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::identity::fault;
use crate::identity::peer::{self, Leaf};
use crate::identity::svid::Material;
use crate::identity::tls;
use crate::net::downstream::Facts;
use crate::net::limits;
use crate::telemetry::metrics::{Metrics, Side};

/// A peer that has proven itself.
pub(super) struct Proven<S> {
    /// The connection.
    pub(super) stream: TlsStream<S>,
    /// Whom its certificate proves.
    pub(super) leaf: Leaf,
    /// Its chain, leaf first.
    pub(super) chain: Vec<CertificateDer<'static>>,
}

impl<S> Proven<S> {
    /// The server name that it asked for.
    pub(super) fn server_name(&self) -> Option<&str> {
        self.stream.get_ref().1.server_name()
    }
}

/// Ends TLS. `None` where the peer proves nothing: that is counted, and told of now and then.
pub(super) async fn accept<S>(
    stream: S,
    config: &Arc<rustls::ServerConfig>,
    material: &Material,
    side: Side,
    facts: Facts,
    metrics: &Metrics,
) -> Option<Proven<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let acceptor = TlsAcceptor::from(Arc::clone(config));
    let patience = limits::here().patience.handshake;
    let stream = match tokio::time::timeout(patience, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            failed(fault::reason(&error), &error, side, facts, metrics);
            return None;
        }
        Err(_elapsed) => {
            let late = io::Error::from(io::ErrorKind::TimedOut);
            failed(fault::TIMEOUT, &late, side, facts, metrics);
            return None;
        }
    };
    let chain = stream.get_ref().1.peer_certificates().map(<[_]>::to_vec).unwrap_or_default();
    match peer::peer(Some(&chain), material.trust()?, UnixTime::now()) {
        Ok(leaf) => {
            metrics.handshake_done(side);
            Some(Proven { stream, leaf, chain })
        }
        Err(error) => {
            failed(error.name(), &io::Error::other(error), side, facts, metrics);
            None
        }
    }
}

/// The identity that a connection to the mesh port was shown, by the name that it asked for.
pub(super) fn shown(material: &Material, server_name: Option<&str>) -> Option<SpiffeId> {
    let mut workloads = material.svids().map(|svid| svid.id()).filter(|id| id.account().is_some());
    match server_name {
        Some(name) => workloads.find(|id| tls::server_name(id) == name).cloned(),
        None => workloads.next().cloned(),
    }
}

fn failed(reason: &'static str, error: &io::Error, side: Side, facts: Facts, metrics: &Metrics) {
    let (peer, side_name) = (facts.peer, side.name());
    if metrics.handshake_failed(side, reason) {
        tracing::warn!(%peer, side = side_name, reason, %error, "a TLS handshake failed; the metric counts further ones");
    } else {
        tracing::debug!(%peer, side = side_name, reason, %error, "a TLS handshake failed");
    }
}
