//! Where a collector is, and a stream to it: a service of the mesh by its healthy endpoints, as the mesh has them; any other
//! name by the host's resolvers.
//!
//! What stands behind another proxy is reached over mutual TLS, with an identity of this host, through a tunnel (HBONE): to
//! the proxy there it is a byte stream, so that an export is never an exchange that could be traced or logged.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_core::tables::destinations::Transport;
use mesh_core::vocab::identity::SpiffeId;
use mesh_core::vocab::name::DestinationKey;
use mesh_core::vocab::random::Random;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::dial;
use crate::dns::forward::Forwarder;
use crate::identity::origination::{Inside, Originated};
use crate::identity::svid::Svids;
use crate::identity::tls;
use crate::live::destination::LiveDestination;
use crate::live::root::Roots;
use crate::telemetry::export::parcel::Place;

const CONNECT: Duration = Duration::from_secs(5);
/// So many addresses of a name are tried.
const MOST_ADDRESSES: usize = 4;

/// Why there is no way to a collector.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReachError {
    /// The name has no address.
    #[error("cannot resolve {host}: {source}")]
    Resolve {
        /// The name.
        host: String,
        /// Why not.
        source: io::Error,
    },
    /// It is a service of the mesh, and none of its workloads may get traffic.
    #[error("{0} has no healthy workload")]
    NoEndpoint(String),
    /// It is an address that this proxy listens on.
    #[error("{0} is an address of this proxy: name the service in its place")]
    Loop(SocketAddr),
    /// This host has no identity yet to call with.
    #[error("this host has no certificate to call a workload of the mesh with")]
    NoIdentity,
    /// TLS cannot be begun.
    #[error("{0}")]
    Tls(Arc<str>),
    /// Nobody answers.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The proxy before it refuses.
    #[error("the proxy at {0} refuses with {1}")]
    Refused(SocketAddr, StatusCode),
}

/// Both directions of a stream.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A task that ends with its owner.
#[derive(Debug)]
pub(super) struct Owned(JoinHandle<()>);

impl Owned {
    /// Starts one.
    pub(super) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Owned {
        Owned(tokio::spawn(task))
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A stream to a collector, and what carries it.
pub(super) struct Opened {
    pub(super) io: Box<dyn Io>,
    pub(super) carrier: Option<Owned>,
}

/// What is needed to reach collectors.
#[derive(Debug, Clone)]
pub struct Reach {
    /// The root, for services of the mesh.
    pub roots: Arc<Roots>,
    /// Keys and trust.
    pub svids: Arc<Svids>,
    /// The host's resolvers.
    pub forwarder: Forwarder,
}

impl Reach {
    /// Opens a stream to a collector.
    pub(super) async fn open(&self, place: &Place) -> Result<Opened, ReachError> {
        let inside = if place.path().is_some() { Inside::Http1 } else { Inside::Http2 };
        if let Some(declared) = &place.tls {
            let way = self.roots.originations().of(declared);
            let (stream, address) = self.outside(place).await?;
            return secured(&way, stream, address, place.name().1, inside).await;
        }
        match self.destination(place) {
            None => {
                let (stream, _) = self.outside(place).await?;
                Ok(Opened { io: Box::new(stream), carrier: None })
            }
            Some(destination) => self.within(&destination, place, inside).await,
        }
    }

    /// The service of the mesh that a name means, if it is one.
    fn destination(&self, place: &Place) -> Option<Arc<LiveDestination>> {
        let root = self.roots.load();
        let (namespace, name) = place.name();
        let own = root.namespace();
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let service = root.tables.service_named(&name, Some(namespace.unwrap_or(&own)))?;
        let host = root.tables.services.get(service)?.service.host.clone();
        let key = DestinationKey { host, port: place.collector.port, subset: None, scope: None };
        root.destinations.get(root.tables.destination(&key)?).cloned()
    }

    async fn within(
        &self,
        destination: &LiveDestination,
        place: &Place,
        inside: Inside,
    ) -> Result<Opened, ReachError> {
        let mut random = Random::seeded(rand::random());
        let none = || ReachError::NoEndpoint(place.authority());
        let index = destination.pick(0, &[], None, &mut random).ok_or_else(none)?;
        let endpoint = &destination.endpoints[index];
        let address = endpoint.address.ok_or_else(none)?;
        match &endpoint.endpoint.transport {
            Transport::Plaintext => {
                let stream = self.dial(address).await?;
                Ok(Opened { io: Box::new(stream), carrier: None })
            }
            Transport::Tls => {
                let way = destination.tls.as_ref().ok_or_else(none)?;
                let stream = self.dial(address).await?;
                secured(way, stream, address, place.name().1, inside).await
            }
            Transport::Mesh { hop, peer } => self.tunnel(*hop, peer, address).await,
            Transport::Unreachable => Err(none()),
        }
    }

    /// A tunnel to a workload, through the proxy of its host.
    async fn tunnel(&self, hop: SocketAddr, peer: &SpiffeId, to: SocketAddr) -> Result<Opened, ReachError> {
        let material = self.svids.load();
        let own = material.svids().find(|svid| svid.id().account().is_some());
        let (Some(own), Some(trust)) = (own, material.trust()) else { return Err(ReachError::NoIdentity) };
        let failed = |source: io::Error| ReachError::Connect { address: hop, source };
        let name = ServerName::try_from(tls::server_name(peer)).map_err(|_| ReachError::NoIdentity)?;
        let connector = TlsConnector::from(tls::client_config(own, trust, peer));
        let connecting = async {
            let stream = dial::tcp(hop).await?;
            stream.set_nodelay(true)?;
            let stream = connector.connect(name, stream).await?;
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .map_err(io::Error::other)
        };
        let (mut sender, connection) = in_time(connecting).await.map_err(failed)?;
        let carrier = Owned::spawn(async move { drop(connection.await) });
        let request = Request::connect(to.to_string()).body(Empty::<Bytes>::new());
        let request = request.map_err(|error| failed(io::Error::other(error)))?;
        let asking = async { sender.send_request(request).await.map_err(io::Error::other) };
        let answer = in_time(asking).await.map_err(failed)?;
        if answer.status() != StatusCode::OK {
            return Err(ReachError::Refused(hop, answer.status()));
        }
        let upgraded = hyper::upgrade::on(answer).await.map_err(|error| failed(io::Error::other(error)))?;
        Ok(Opened { io: Box::new(TokioIo::new(upgraded)), carrier: Some(carrier) })
    }

    /// A connection to a name or address outside the mesh.
    async fn outside(&self, place: &Place) -> Result<(TcpStream, SocketAddr), ReachError> {
        let (_, host) = place.name();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let missing = |source| ReachError::Resolve { host: bare.to_owned(), source };
        let addresses = match bare.parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) => self.forwarder.resolve(bare).await.map_err(missing)?,
        };
        let mut last = missing(io::Error::new(io::ErrorKind::NotFound, "no address"));
        for address in addresses.into_iter().take(MOST_ADDRESSES) {
            let address = SocketAddr::new(address, place.collector.port);
            match self.dial(address).await {
                Ok(stream) => return Ok((stream, address)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn dial(&self, address: SocketAddr) -> Result<TcpStream, ReachError> {
        if self.roots.sockets().open.contains(&address) {
            return Err(ReachError::Loop(address));
        }
        let stream = in_time(dial::tcp(address)).await;
        let stream = stream.and_then(|stream| stream.set_nodelay(true).map(|()| stream));
        stream.map_err(|source| ReachError::Connect { address, source })
    }
}

async fn secured(
    way: &Originated,
    stream: TcpStream,
    address: SocketAddr,
    host: &str,
    inside: Inside,
) -> Result<Opened, ReachError> {
    let ready = way.ready().map_err(ReachError::Tls)?;
    let name = ready.name(host).map_err(|error| ReachError::Tls(error.to_string().into()))?;
    let connector = TlsConnector::from(Arc::clone(ready.config(inside)));
    let stream = in_time(connector.connect(name, stream)).await;
    let stream = stream.map_err(|source| ReachError::Connect { address, source })?;
    Ok(Opened { io: Box::new(stream), carrier: None })
}

async fn in_time<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(CONNECT, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
