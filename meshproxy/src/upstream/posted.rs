//! A byte stream as the two bodies of a POST to a proxy on the way: what goes there is the request's, what comes back
//! the answer's.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http::{Method, Request, header};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use super::failure::ConnectError;
use super::tunnel::{Carrier, TunnelError};

/// So much of what goes there may wait to be sent.
const BUFFER: usize = 64 * 1024;
/// So much of it is sent at once.
const PIECE: usize = 16 * 1024;

/// The stream.
#[derive(Debug)]
pub struct Posted {
    upload: DuplexStream,
    answer: Incoming,
    unread: Bytes,
    /// The connection lives as long.
    _sender: SendRequest<Upload>,
}

/// Asks the proxy at the other end of a stream.
pub async fn post(io: Box<dyn Carrier>, authority: &str) -> Result<Posted, TunnelError> {
    let broken = |error: hyper::Error| TunnelError::Connect(ConnectError::Handshake(error.to_string()));
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(broken)?;
    tokio::task::spawn_local(connection);
    let (upload, sent) = tokio::io::duplex(BUFFER);
    let mut request = Request::new(Upload(sent));
    *request.method_mut() = Method::POST;
    let host = authority.parse().map_err(|_| ConnectError::NoAddress)?;
    request.headers_mut().insert(header::HOST, host);
    let response = sender.send_request(request).await.map_err(broken)?;
    if !response.status().is_success() {
        return Err(TunnelError::Refused(response.status()));
    }
    Ok(Posted { upload, answer: response.into_body(), unread: Bytes::new(), _sender: sender })
}

/// What goes there, until the sender has ended it.
#[derive(Debug)]
struct Upload(DuplexStream);

impl Body for Upload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let mut piece = vec![0; PIECE];
        let mut buf = ReadBuf::new(&mut piece);
        ready!(Pin::new(&mut self.0).poll_read(cx, &mut buf))?;
        let length = buf.filled().len();
        piece.truncate(length);
        Poll::Ready((length > 0).then(|| Ok(Frame::data(piece.into()))))
    }
}

impl AsyncRead for Posted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(Pin::new(&mut self.answer).poll_frame(cx)) {
                Some(Ok(frame)) => self.unread = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, error)));
                }
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.unread.len().min(buf.remaining());
        buf.put_slice(&self.unread[..length]);
        self.unread.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Posted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.upload).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.upload).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.upload).poll_shutdown(cx)
    }
}
