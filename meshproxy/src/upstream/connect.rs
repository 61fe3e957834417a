//! Dial and TLS, within the time to connect.

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
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::age::Age;
use super::body::RequestBody;
use super::failure::ConnectError;
use super::http2::Http2;
use super::way::Way;
use crate::net::guard::answers::{Answers, Question};
use crate::net::limits::{self, Limits};
use crate::net::patient::Patient;
use crate::net::socket::Socket;
use crate::telemetry::metrics::Metrics;

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

/// Runs the tasks of hyper on the data thread that made the connection.
#[derive(Debug, Clone, Copy)]
pub struct LocalExec;

impl<F> hyper::rt::Executor<F> for LocalExec
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
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
    let stream = tokio::time::timeout(patience, TcpStream::connect(address))
        .await
        .map_err(|_elapsed| ConnectError::Timeout)?
        .map_err(|error| ConnectError::refused(&error))?;
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
pub async fn opened(address: SocketAddr, way: &Way, patience: Duration) -> Result<Opened, ConnectError> {
    let opening = async {
        let mut stream = match &way.unix {
            Some(path) => Socket::unix(path).await.map_err(|error| ConnectError::refused(&error))?,
            None => Socket::Tcp(tcp(address, patience).await?),
        };
        if let Some(header) = &way.proxy {
            stream.write_all(&header.encode()).await.map_err(|error| ConnectError::refused(&error))?;
        }
        let Some(tls) = &way.tls else { return Ok(Opened::Plain(stream)) };
        let connector = TlsConnector::from(Arc::clone(&tls.config));
        let secured = connector.connect(tls.name.clone(), stream).await;
        secured.map(|stream| Opened::Secured(Box::new(stream))).map_err(|e| ConnectError::Tls(e.to_string()))
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
        None => speak_http1(tcp(address, patience).await?, address, metrics).await,
        Some(way) => match Box::pin(opened(address, way, patience)).await? {
            Opened::Plain(stream) => speak_http1(stream, address, metrics).await,
            Opened::Secured(stream) => speak_http1(stream, address, metrics).await,
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
    Ok(Http1 { sender, question })
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
        return Http2::start(tcp(address, patience).await?, limits::here().allowance(), metrics, most_age)
            .await;
    };
    match Box::pin(opened(address, way, patience)).await? {
        Opened::Plain(stream) => Http2::start(stream, limits::here().allowance(), metrics, most_age).await,
        Opened::Secured(stream) => {
            // A server that names no protocol at all may still speak it; one that names another does not.
            let agreed = stream.get_ref().1.alpn_protocol();
            if agreed.is_some_and(|agreed| agreed != b"h2") {
                return Err(ConnectError::Handshake("the server speaks no HTTP/2".to_owned()));
            }
            Http2::start(*stream, limits::here().allowance(), metrics, most_age).await
        }
    }
}

/// The mesh hop: HTTP/2 over TLS, both sides proven.
pub async fn mesh(
    hop: SocketAddr,
    tls: &MeshTls,
    patience: Duration,
    metrics: &Arc<Metrics>,
    most_age: Option<Age>,
) -> Result<Http2, ConnectError> {
    let connecting = async {
        let stream = TcpStream::connect(hop).await.map_err(|error| ConnectError::refused(&error))?;
        drop(stream.set_nodelay(true));
        let connector = TlsConnector::from(Arc::clone(&tls.config));
        connector
            .connect(tls.name.clone(), stream)
            .await
            .map_err(|error| ConnectError::Tls(error.to_string()))
    };
    let stream =
        tokio::time::timeout(patience, connecting).await.map_err(|_elapsed| ConnectError::Timeout)??;
    Http2::start(stream, Allowance::MESH, metrics, most_age).await
}

fn handshake(error: impl std::fmt::Display) -> ConnectError {
    ConnectError::Handshake(error.to_string())
}
