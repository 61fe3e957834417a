//! HBONE out: a byte stream as a CONNECT stream of the mesh hop. And the way through a proxy that a rule names.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use mesh_core::message::internal::MESH_HOP;
use mesh_core::vocab::outcome::Outcome;
use mesh_core::vocab::tunnel::Tunnel as Beyond;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use super::failure::{self, ConnectError};
use super::http2::{Duplex, MOST_TURNS, SendError};
use super::pool::Stream;
use super::posted::post;
use crate::net::rewind::Rewind;

/// Why no tunnel came about.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The hop has no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection or stream broke.
    #[error("the tunnel broke: {0}")]
    Broken(#[source] h2::Error),
    /// The other proxy said no: 401 for policy, 503 for an application that does not answer.
    #[error("the tunnel was refused with {0}")]
    Refused(StatusCode),
}

impl TunnelError {
    /// The classification.
    pub fn outcome(&self) -> Outcome {
        match self {
            TunnelError::Connect(error) => error.outcome(),
            TunnelError::Broken(error) => failure::http2_outcome(error),
            TunnelError::Refused(_) => Outcome::Reset { before_request: true },
        }
    }
}

/// The head of a proxy's answer may be so long.
const LONGEST_HEAD: usize = 16 * 1024;

/// Both directions of a byte stream.
pub trait Carrier: AsyncRead + AsyncWrite + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + 'static> Carrier for T {}

/// Asks the proxy at the other end of a stream for a way to a host and port, in HTTP/1.1.
pub async fn through(io: Box<dyn Carrier>, to: &Beyond) -> Result<Box<dyn Carrier>, TunnelError> {
    let ipv6 = to.host.contains(':');
    let authority =
        if ipv6 { format!("[{}]:{}", to.host, to.port) } else { format!("{}:{}", to.host, to.port) };
    Ok(match to.post {
        true => Box::new(post(io, &authority).await?),
        false => Box::new(connect(io, &authority).await?),
    })
}

/// By CONNECT. What the proxy sends after its consent comes first.
async fn connect(mut io: Box<dyn Carrier>, authority: &str) -> Result<Rewind<Box<dyn Carrier>>, TunnelError> {
    let broken = |error: std::io::Error| TunnelError::Connect(ConnectError::Handshake(error.to_string()));
    let head = format!("CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n\r\n");
    io.write_all(head.as_bytes()).await.map_err(broken)?;
    let mut answer = BytesMut::with_capacity(1024);
    let end = loop {
        if let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end + 4;
        }
        if answer.len() > LONGEST_HEAD || io.read_buf(&mut answer).await.map_err(broken)? == 0 {
            return Err(ConnectError::Handshake("the proxy on the way does not answer".to_owned()).into());
        }
    };
    let after = answer.split_off(end).freeze();
    let status = answer.strip_prefix(b"HTTP/1.").and_then(|line| line.get(2..5));
    match status.and_then(|code| StatusCode::from_bytes(code).ok()) {
        Some(status) if status.is_success() => Ok(Rewind::new(after, io)),
        Some(status) => Err(TunnelError::Refused(status)),
        None => Err(ConnectError::Handshake("the proxy on the way speaks no HTTP/1.1".to_owned()).into()),
    }
}

/// The stream as bytes, and what keeps it counted at the connection.
#[derive(Debug)]
pub struct Tunnel {
    /// The bytes.
    pub io: Duplex,
    _stream: Stream,
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// A CONNECT stream of the mesh hop. A connection that was closing took nothing: another is used.
pub async fn stream<F>(
    mut request: Request<()>,
    hop: impl Fn() -> F,
) -> Result<(Response<()>, Duplex, Stream), TunnelError>
where
    F: Future<Output = Result<Stream, ConnectError>>,
{
    let mut turns = 0;
    loop {
        turns += 1;
        let stream = hop().await?;
        match stream.connection().connect(request).await {
            Ok((response, duplex)) => return Ok((response, duplex, stream)),
            Err(SendError::Closing(unsent, _)) if turns < MOST_TURNS && !stream.is_fresh() => {
                request = *unsent;
            }
            Err(SendError::Closing(_, error) | SendError::Broken(error)) => {
                return Err(TunnelError::Broken(error));
            }
        }
    }
}

/// Opens a tunnel to a workload's own address and port, on a stream of the mesh hop to it. `said` is what the other side is
/// told.
pub async fn open<F>(hop: impl Fn() -> F, to: SocketAddr, said: HeaderValue) -> Result<Tunnel, TunnelError>
where
    F: Future<Output = Result<Stream, ConnectError>>,
{
    let authority = to.to_string();
    let uri = Uri::builder().authority(authority.as_str()).build().expect("an address is an authority");
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = uri;
    request.headers_mut().insert(&MESH_HOP, said);
    let (response, io, stream) = stream(request, hop).await?;
    if response.status() != StatusCode::OK {
        return Err(TunnelError::Refused(response.status()));
    }
    Ok(Tunnel { io, _stream: stream })
}
