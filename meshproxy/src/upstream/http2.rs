//! A shared HTTP/2 connection upstream, on h2 itself: requests are sent and answers read by the exchange's own task,
//! without the channel and the task a request that a general client needs. Bodies of requests have a task each.

use std::cell::Cell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use h2::{Ping, PingPong, Reason, RecvStream, SendStream};
use http::{Request, Response};
use http_body::{Body as _, Frame};
use mesh_core::framing::frames::Allowance;
use mesh_core::vocab::outcome::Outcome;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::age::Age;
use super::body::RequestBody;
use super::connect::{LISTS, STREAM_WINDOW, STREAMS};
use super::failure::{self, ConnectError};
use crate::net::corked::Corked;
use crate::net::guard::frames::{Cause, Framed};
use crate::net::limits;
use crate::telemetry::metrics::Metrics;

/// So many connections that close just then are put up with for one attempt: all that a peer which is ending may have.
pub const MOST_TURNS: u32 = 32;
/// Bytes of one stream that may wait to be sent.
const SEND_BUFFER: usize = 128 * 1024;

/// Sends requests on one connection. Clones share it; it ends when the last one is gone and its streams are over.
#[derive(Debug, Clone)]
pub struct Http2 {
    sender: SendRequest<Bytes>,
    closed: Rc<Cell<bool>>,
    refused: Cause,
    /// From where it goes out, where that is known.
    pub local: Option<SocketAddr>,
}

/// Why a request has no answer.
#[derive(Debug)]
pub enum SendError<B> {
    /// The connection takes no more requests; nothing was sent.
    Closing(Box<Request<B>>, h2::Error),
    /// The connection or the stream broke.
    Broken(h2::Error),
}

/// The task that sends a request's body. It ends with its exchange: one that waits for room would not see that nobody
/// wants the answer any more.
#[derive(Debug)]
pub struct Sending(Option<Upload>);

#[derive(Debug)]
struct Upload {
    task: AbortHandle,
    whole: Rc<Cell<bool>>,
}

impl Sending {
    /// The answer is whole; what is left of the body goes on by itself.
    pub fn let_go(mut self) {
        self.0 = None;
    }

    /// Whether the request has not been sent whole.
    pub fn goes_on(&self) -> bool {
        self.0.as_ref().is_some_and(|upload| !upload.whole.get())
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if let Some(upload) = self.0.take() {
            upload.task.abort();
        }
    }
}

impl Http2 {
    /// Begins HTTP/2 on a stream and starts the task that carries it. At the age of `most_age` it takes no more requests;
    /// `pings` says how often it is tried and how soon it must answer, where that is not as usual.
    pub async fn start<T>(
        io: T,
        allowance: Allowance,
        metrics: &Arc<Metrics>,
        most_age: Option<Age>,
        pings: Option<(Duration, Duration)>,
    ) -> Result<Http2, ConnectError>
    where
        T: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        Http2::start_until(io, allowance, metrics, most_age, pings, None).await
    }

    /// The same, cut off when `until` says so.
    pub async fn start_until<T>(
        io: T,
        allowance: Allowance,
        metrics: &Arc<Metrics>,
        most_age: Option<Age>,
        pings: Option<(Duration, Duration)>,
        until: Option<oneshot::Receiver<()>>,
    ) -> Result<Http2, ConnectError>
    where
        T: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let limits = limits::here();
        let times = pings.unwrap_or((limits.patience.ping_every, limits.patience.ping_within));
        let mut builder = Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(STREAM_WINDOW * STREAMS)
            .max_frame_size(16 * 1024)
            .max_header_list_size(limits::sizes_with_room().list * LISTS)
            .max_send_buffer_size(SEND_BUFFER)
            .max_concurrent_reset_streams(100);
        let io = Framed::of_server(io, allowance, limits.patience.head);
        let cause = io.cause();
        let started = builder.handshake::<_, Bytes>(Corked::new(io)).await;
        let (sender, connection) = started.map_err(|error| ConnectError::Handshake(error.to_string()))?;
        let closed = Rc::new(Cell::new(false));
        let (gone, metrics, refused) = (Rc::clone(&closed), Arc::clone(metrics), Rc::clone(&cause));
        tokio::task::spawn_local(async move {
            carry(connection, gone, most_age, times, until).await;
            if let Some(refusal) = cause.get() {
                metrics.refused("upstream", refusal);
            }
        });
        Ok(Http2 { sender, closed, refused, local: None })
    }

    /// Whether it takes no more requests.
    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// How many streams the peer allows at a time.
    pub fn most_streams(&self) -> usize {
        self.sender.current_max_send_streams()
    }

    /// What an error on this connection means: the library does not keep why bytes of the server were refused.
    pub fn outcome(&self, error: &h2::Error) -> Outcome {
        match self.refused.get() {
            Some(_) if error.is_io() => Outcome::ProtocolError,
            Some(_) | None => failure::http2_outcome(error),
        }
    }

    /// What the next request is sent with; an error if the connection takes no more.
    pub async fn ready(&self) -> Result<SendRequest<Bytes>, h2::Error> {
        let mut sender = self.sender.clone();
        match poll_fn(|cx| sender.poll_ready(cx)).await {
            Ok(()) => Ok(sender),
            Err(error) => {
                self.closed.set(true);
                Err(error)
            }
        }
    }

    /// Sends a CONNECT request; its stream carries bytes both ways once the answer agrees.
    pub async fn connect(&self, request: Request<()>) -> Result<(Response<()>, Duplex), SendError<()>> {
        let mut sender = match self.ready().await {
            Ok(sender) => sender,
            Err(error) => return Err(SendError::Closing(Box::new(request), error)),
        };
        let (response, send) = sender.send_request(request, false).map_err(SendError::Broken)?;
        let (head, receive) = response.await.map_err(SendError::Broken)?.into_parts();
        let duplex = Duplex { send, receive, unread: Bytes::new() };
        Ok((Response::from_parts(head, ()), duplex))
    }
}

/// Sends a request; its answer is waited for apart. Nothing here waits, so that what is sent is in no future.
pub fn begin(
    mut sender: SendRequest<Bytes>,
    request: Request<RequestBody>,
) -> Result<(ResponseFuture, Sending), h2::Error> {
    let (head, body) = request.into_parts();
    let ended = body.is_end_stream();
    let (response, upload) = sender.send_request(Request::from_parts(head, ()), ended)?;
    if ended {
        return Ok((response, Sending(None)));
    }
    let whole = Rc::new(Cell::new(false));
    let task = tokio::task::spawn_local(pump(upload, body, Rc::clone(&whole))).abort_handle();
    Ok((response, Sending(Some(Upload { task, whole }))))
}

/// Carries a connection to its end, and ends it when it does not answer pings.
async fn carry<T>(
    mut connection: Connection<T, Bytes>,
    closed: Rc<Cell<bool>>,
    most_age: Option<Age>,
    times: (Duration, Duration),
    until: Option<oneshot::Receiver<()>>,
) where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let cut = async {
        // Whoever would say so may be gone.
        let Some(Ok(())) = (match until {
            Some(until) => Some(until.await),
            None => None,
        }) else {
            return std::future::pending().await;
        };
    };
    let pings = connection.ping_pong();
    let retires = async {
        if let Some(Age { most, retired }) = most_age {
            tokio::time::sleep(most).await;
            if !closed.replace(true) {
                retired.increment(1);
            }
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = connection => if let Err(error) = ended {
            tracing::debug!(%error, "an upstream connection ended");
        },
        () = silence(pings, times) => tracing::debug!("an upstream connection does not answer pings"),
        () = retires => {}
        () = cut => {}
    }
    closed.set(true);
}

/// Resolves when a ping was not answered in time.
async fn silence(pings: Option<PingPong>, (every, within): (Duration, Duration)) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        tokio::time::sleep(every).await;
        match tokio::time::timeout(within, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

/// Sends a request's body as the peer's windows allow, until its end or the stream's, and notes that it is `whole`.
async fn pump(mut stream: SendStream<Bytes>, mut body: RequestBody, whole: Rc<Cell<bool>>) {
    loop {
        let next = poll_fn(|cx| match stream.poll_reset(cx) {
            Poll::Ready(_) => Poll::Ready(Next::Over),
            Poll::Pending => Pin::new(&mut body).poll_frame(cx).map(|frame| match frame {
                Some(Ok(frame)) => Next::Frame(frame),
                Some(Err(_)) => Next::Broken,
                None => Next::End,
            }),
        });
        let sent = match next.await {
            Next::Over => return,
            Next::Broken => return stream.send_reset(Reason::CANCEL),
            Next::End => {
                whole.set(true);
                return drop(stream.send_data(Bytes::new(), true));
            }
            Next::Frame(frame) => match frame.into_data() {
                Ok(data) => send(&mut stream, data).await,
                Err(frame) => {
                    whole.set(true);
                    let trailers = frame.into_trailers().unwrap_or_default();
                    return drop(stream.send_trailers(trailers));
                }
            },
        };
        if !sent {
            return;
        }
    }
}

enum Next {
    Frame(Frame<Bytes>),
    End,
    Broken,
    Over,
}

/// Sends one piece; `false` if the stream is over.
async fn send(stream: &mut SendStream<Bytes>, mut data: Bytes) -> bool {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let Some(Ok(room)) = poll_fn(|cx| stream.poll_capacity(cx)).await else { return false };
        let piece = data.split_to(room.min(data.len()));
        if stream.send_data(piece, false).is_err() {
            return false;
        }
    }
    true
}

/// One frame of an answer: data, then trailers if there are any.
pub fn poll_frame(
    stream: &mut RecvStream,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
    match ready!(stream.poll_data(cx)) {
        Some(Ok(data)) => {
            // Fails only on a stream that is over, which the next poll tells.
            drop(stream.flow_control().release_capacity(data.len()));
            Poll::Ready(Some(Ok(Frame::data(data))))
        }
        Some(Err(error)) => Poll::Ready(Some(Err(error))),
        None => Poll::Ready(ready!(stream.poll_trailers(cx)).transpose().map(|t| t.map(Frame::trailers))),
    }
}

/// A CONNECT stream as bytes.
#[derive(Debug)]
pub struct Duplex {
    send: SendStream<Bytes>,
    receive: RecvStream,
    unread: Bytes,
}

impl Duplex {
    /// What the answer's body is, where the answer did not agree.
    pub fn into_answer(self) -> RecvStream {
        self.receive
    }
}

impl AsyncRead for Duplex {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(self.receive.poll_data(cx)) {
                Some(Ok(data)) => self.unread = data,
                Some(Err(error)) => return Poll::Ready(ended(&error)),
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.unread.len().min(buf.remaining());
        buf.put_slice(&self.unread.split_to(length));
        // Only what was taken makes room for more.
        drop(self.receive.flow_control().release_capacity(length));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Duplex {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.send.reserve_capacity(buf.len());
        match ready!(self.send.poll_capacity(cx)) {
            Some(Ok(room)) => {
                let length = room.min(buf.len());
                let sent = self.send.send_data(Bytes::copy_from_slice(&buf[..length]), false);
                Poll::Ready(sent.map(|()| length).map_err(|error| broken(&error)))
            }
            Some(Err(error)) => Poll::Ready(Err(broken(&error))),
            None => Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let ended = self.send.send_data(Bytes::new(), true);
        Poll::Ready(ended.map_err(|error| broken(&error)))
    }
}

/// A peer that is done with the stream has ended it; anything else is a failure.
fn ended(error: &h2::Error) -> std::io::Result<()> {
    match error.reason() {
        Some(Reason::NO_ERROR | Reason::CANCEL) => Ok(()),
        _ => Err(broken(error)),
    }
}

fn broken(error: &h2::Error) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::ConnectionReset, error.to_string())
}
