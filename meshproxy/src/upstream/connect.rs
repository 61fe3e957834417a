//! Dial and TLS, within the time to connect.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1};
use hyper_util::rt::TokioIo;
use mesh_core::framing::frames::Allowance;
use mesh_core::framing::response::Asked;
use mesh_core::resilience::pool::ConnectionSettings;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::age::Age;
use super::body::RequestBody;
use super::failure::ConnectError;
use super::http2::Http2;
use super::way::Way;
use crate::dial;
use crate::identity::fault;
use crate::identity::svid::Svids;
use crate::live::standing::Standings;
use crate::net::guard::answers::{Answers, Question};
use crate::net::limits::{self, Limits};
use crate::net::patient::Patient;
use crate::net::socket::Socket;
use crate::netns::Netns;
use crate::telemetry::metrics::{Metrics, Side};

/// Streams of one connection; when they run out another one is opened. Both ends of the mesh hop use it.
pub const STREAMS: u32 = 100;
/// Window of a stream between proxies; the connection's is that of all its streams, so that readers that stall never
/// block the rest.
pub const STREAM_WINDOW: u32 = 256 * 1024;
/// A list of fields that is too large is refused where that is told and counted, up to so many times its limit; what is
/// larger yet the library refuses without a word, and keeps nothing of it.
pub const LISTS: u32 = 2;
/// Fields that hyper has room for by itself: more take their room from the heap, anew for each message.
pub const HYPER_FIELDS: usize = 100;

/// Sends requests on an HTTP/1 connection.
#[derive(Debug)]
pub struct Http1 {
    sender: http1::SendRequest<RequestBody>,
    question: Arc<Question>,
    /// From where it goes out.
    pub local: Option<SocketAddr>,
}

impl Http1 {
    /// Sends a request when the connection has nothing else to do; one that was not sent comes back.
    pub fn send(
        &mut self,
        request: Request<RequestBody>,
        asked: Asked,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>> {
        self.question.ask(asked);
        self.sender.try_send_request(request)
    }

    /// Whether it can take a request at once.
    pub fn is_ready(&self) -> bool {
        self.sender.is_ready() && self.question.refusal().is_none()
    }

    /// Whether it takes no more requests.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed() || self.question.refusal().is_some()
    }

    /// Resolves when it can take a request.
    pub async fn ready(&mut self) -> Result<(), hyper::Error> {
        self.sender.ready().await
    }
}

/// Runs the tasks of hyper on the data thread that made the connection, each as long as what it has let in stands.
#[derive(Debug, Clone)]
pub struct LocalExec(pub Rc<Standings>);

impl<F> hyper::rt::Executor<F> for LocalExec
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, task: F) {
        tokio::task::spawn_local(self.0.watch(Box::pin(task)));
    }
}

/// What the mesh hop to one peer needs.
#[derive(Debug, Clone)]
pub struct MeshTls {
    /// Whom we are and whom we expect.
    pub config: Arc<rustls::ClientConfig>,
    /// Asks for the peer's identity.
    pub name: ServerName<'static>,
}

/// A TCP connection.
pub async fn tcp(address: SocketAddr, patience: Duration) -> Result<TcpStream, ConnectError> {
    let stream = tokio::time::timeout(patience, dial::tcp(address))
        .await
        .map_err(|_elapsed| ConnectError::Timeout)?
        .map_err(|error| ConnectError::refused(&error))?;
    // Fails only on a socket that is already dead, which the first use will tell.
    drop(stream.set_nodelay(true));
    Ok(stream)
}

/// Has the system probe an idle connection, where a rule says so.
fn keep_alive(stream: &TcpStream, settings: &ConnectionSettings) {
    let Some(wanted) = settings.tcp_keepalive else { return };
    let mut keepalive = TcpKeepalive::new();
    if let Some(time) = wanted.time {
        keepalive = keepalive.with_time(time);
    }
    if let Some(interval) = wanted.interval {
        keepalive = keepalive.with_interval(interval);
    }
    if let Some(probes) = wanted.probes {
        keepalive = keepalive.with_retries(probes);
    }
    if let Err(error) = SockRef::from(stream).set_tcp_keepalive(&keepalive) {
        tracing::debug!(%error, "the keep-alive of a connection cannot be set");
    }
}

/// A TCP connection in another network namespace.
async fn within(netns: &Netns, address: SocketAddr) -> Result<TcpStream, ConnectError> {
    let stream = netns.tcp(address).await.map_err(|error| ConnectError::refused(&error))?;
    // Fails only on a socket that is already dead, which the first use will tell.
    drop(stream.set_nodelay(true));
    Ok(stream)
}

/// A connection that begins as a way says.
#[derive(Debug)]
pub enum Opened {
    /// In the clear from here on.
    Plain(Socket),
    /// In TLS.
    Secured(Box<TlsStream<Socket>>),
}

/// A connection, with what it begins with.
pub async fn opened(
    address: SocketAddr,
    way: &Way,
    patience: Duration,
    metrics: &Metrics,
) -> Result<Opened, ConnectError> {
    let opening = async {
        let mut stream = match &way.unix {
            Some(path) => Socket::unix(path).await.map_err(|error| ConnectError::refused(&error))?,
            None => Socket::Tcp(match &way.netns {
                Some(netns) => within(netns, address).await?,
                None => tcp(address, patience).await?,
            }),
        };
        if let (Socket::Tcp(stream), Some(settings)) = (&stream, &way.settings) {
            keep_alive(stream, settings);
        }
        if let Some(header) = &way.proxy {
            stream.write_all(&header.encode()).await.map_err(|error| ConnectError::refused(&error))?;
        }
        let Some(tls) = &way.tls else { return Ok(Opened::Plain(stream)) };
        let connector = TlsConnector::from(Arc::clone(&tls.config));
        let secured = connector.connect(tls.name.clone(), stream).await;
        secured
            .map(|stream| Opened::Secured(Box::new(stream)))
            .map_err(|error| failed(&error, Side::Origination, address, metrics))
    };
    tokio::time::timeout(patience, opening).await.map_err(|_elapsed| ConnectError::Timeout)?
}

/// An HTTP/1 connection.
pub async fn http1(
    address: SocketAddr,
    way: Option<&Rc<Way>>,
    patience: Duration,
    metrics: &Arc<Metrics>,
) -> Result<Http1, ConnectError> {
    match way {
        None => {
            let stream = tcp(address, patience).await?;
            let local = stream.local_addr().ok();
            Ok(Http1 { local, ..speak_http1(stream, address, metrics).await? })
        }
        Some(way) => match Box::pin(opened(address, way, patience, metrics)).await? {
            Opened::Plain(stream) => {
                let local = stream.local();
                Ok(Http1 { local, ..speak_http1(stream, address, metrics).await? })
            }
            Opened::Secured(stream) => {
                let local = stream.get_ref().0.local();
                Ok(Http1 { local, ..speak_http1(stream, address, metrics).await? })
            }
        },
    }
}

async fn speak_http1<T>(stream: T, address: SocketAddr, metrics: &Arc<Metrics>) -> Result<Http1, ConnectError>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    let Limits { buffer, sizes, .. } = limits::here();
    // The buffer of hyper holds a whole head; what is read ahead for a client that takes it slowly goes into it too.
    builder.max_buf_size(buffer.max(sizes.list as usize + 8 * 1024));
    if sizes.fields as usize > HYPER_FIELDS {
        builder.max_headers(sizes.fields as usize);
    }
    let question = Arc::new(Question::default());
    let stream = Answers::new(Patient::new(stream), Arc::clone(&question));
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(handshake)?;
    let (asked, metrics) = (Arc::clone(&question), Arc::clone(metrics));
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%address, %error, "an upstream connection ended");
        }
        if let Some(refusal) = asked.refusal() {
            metrics.refused("upstream", refusal);
        }
    });
    Ok(Http1 { sender, question, local: None })
}

/// An HTTP/2 connection.
pub async fn http2(
    address: SocketAddr,
    way: Option<&Rc<Way>>,
    patience: Duration,
    metrics: &Arc<Metrics>,
    most_age: Option<Age>,
) -> Result<Http2, ConnectError> {
    let Some(way) = way else {
        let stream = tcp(address, patience).await?;
        let local = stream.local_addr().ok();
        let mut started = Http2::start(stream, limits::here().allowance(), metrics, most_age, None).await?;
        started.local = local;
        return Ok(started);
    };
    let pings = way.settings.as_ref().and_then(|settings| settings.http2_keepalive);
    match Box::pin(opened(address, way, patience, metrics)).await? {
        Opened::Plain(stream) => {
            Http2::start(stream, limits::here().allowance(), metrics, most_age, pings).await
        }
        Opened::Secured(stream) => {
            // A server that names no protocol at all may still speak it; one that names another does not.
            let agreed = stream.get_ref().1.alpn_protocol();
            if agreed.is_some_and(|agreed| agreed != b"h2") {
                return Err(ConnectError::Handshake("the server speaks no HTTP/2".to_owned()));
            }
            Http2::start(*stream, limits::here().allowance(), metrics, most_age, pings).await
        }
    }
}

/// The mesh hop: HTTP/2 over TLS, both sides proven. It is cut off when the peer's certificate is worth nothing any more.
pub async fn mesh(
    hop: SocketAddr,
    (tls, svids): (&MeshTls, &Arc<Svids>),
    patience: Duration,
    metrics: &Arc<Metrics>,
    most_age: Option<Age>,
    settings: Option<&ConnectionSettings>,
) -> Result<Http2, ConnectError> {
    let connecting = async {
        let stream = dial::tcp(hop).await.map_err(|error| ConnectError::refused(&error))?;
        drop(stream.set_nodelay(true));
        if let Some(settings) = settings {
            keep_alive(&stream, settings);
        }
        let connector = TlsConnector::from(Arc::clone(&tls.config));
        connector
            .connect(tls.name.clone(), stream)
            .await
            .map_err(|error| failed(&error, Side::Outbound, hop, metrics))
    };
    let trust = svids.load().trust().cloned();
    let stream =
        tokio::time::timeout(patience, connecting).await.map_err(|_elapsed| ConnectError::Timeout)??;
    let chain = stream.get_ref().1.peer_certificates().map(<[_]>::to_vec).unwrap_or_default();
    if svids.revokes(&chain) {
        return Err(ConnectError::Tls("the peer's host was thrown out".to_owned()));
    }
    metrics.handshake_done(Side::Outbound);
    let (mut cut, until) = oneshot::channel();
    let pings = settings.and_then(|settings| settings.http2_keepalive);
    let local = stream.get_ref().0.local_addr().ok();
    let mut http2 =
        Http2::start_until(stream, Allowance::MESH, metrics, most_age, pings, Some(until)).await?;
    http2.local = local;
    if let Some(trust) = trust {
        let svids = Arc::clone(svids);
        tokio::task::spawn_local(async move {
            let distrusted = tokio::select! {
                () = svids.distrust(&trust, &chain) => true,
                () = cut.closed() => false,
            };
            if distrusted {
                tracing::info!(%hop, "the peer of a connection is not of the trust bundle any more");
                // The connection may have ended meanwhile.
                let _ended = cut.send(());
            }
        });
    }
    Ok(http2)
}

/// A peer that is not who was expected, or does not take us for whom we are: counted, and told of now and then.
fn failed(error: &io::Error, side: Side, address: SocketAddr, metrics: &Metrics) -> ConnectError {
    let reason = fault::reason(error);
    if metrics.handshake_failed(side, reason) {
        tracing::warn!(%address, side = side.name(), reason, %error, "a TLS handshake failed; the metric counts further ones");
    }
    ConnectError::Tls(error.to_string())
}

fn handshake(error: impl std::fmt::Display) -> ConnectError {
    ConnectError::Handshake(error.to_string())
}
