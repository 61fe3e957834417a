//! hyper on one accepted connection, with the limits and times that it lacks by itself.

use std::cell::Cell;
use std::convert::Infallible;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::activity::Activity;
use super::body::ReplyBody;
use crate::runtime::drain::Drain;
use crate::upstream::connect::{HEADER_LIST, LocalExec, STREAM_WINDOW, STREAMS};

/// Head of HTTP/1: the limits of fields are checked apart. hyper's own limit of 100 fields stays as it is: any other
/// takes their room from the heap, anew for each request.
const HEAD_BUFFER: usize = 64 * 1024;
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_WITHIN: Duration = Duration::from_secs(10);
/// Windows of clients outside the mesh hop.
const CLIENT_STREAM_WINDOW: u32 = 64 * 1024;
const CLIENT_WINDOW: u32 = 1024 * 1024;
/// What of an answer may wait for a client that takes it slowly.
const SEND_BUFFER: usize = 128 * 1024;
const LOCAL_RESETS: usize = 100;
const PENDING_RESETS: usize = 20;

/// Whose HTTP/2 connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// An application's.
    Application,
    /// Another proxy's.
    Mesh,
}

/// Why a connection of HTTP/1 did not end well.
#[derive(Debug)]
pub struct Fault {
    /// What hyper says.
    pub error: hyper::Error,
    /// Whether no exchange was under way, whose record would tell of it.
    pub between: bool,
}

/// Serves HTTP/1 until the client or the drain ends it. Once `retire` has resolved, the next answer is the last.
pub async fn http1<T, S, F>(
    io: T,
    drain: &Drain,
    retire: impl Future<Output = ()>,
    serve: S,
) -> Result<(), Fault>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<ReplyBody>>,
{
    let mut builder = http1::Builder::new();
    builder.header_read_timeout(None).max_buf_size(HEAD_BUFFER);
    let activity = Rc::new(Activity::default());
    let retired = &Cell::new(false);
    let answer = |request: Request<Incoming>| {
        let is_tunnel = request.method() == Method::CONNECT;
        let reply = serve(request);
        let under_way = activity.begin();
        async move {
            let mut reply = reply.await;
            reply.body_mut().hold(under_way);
            // What goes on as a byte stream says something else of its connection.
            let goes_on = is_tunnel || reply.status() == StatusCode::SWITCHING_PROTOCOLS;
            if (drain.has_begun() || retired.get()) && !goes_on {
                let close = http::HeaderValue::from_static("close");
                reply.headers_mut().insert(http::header::CONNECTION, close);
            }
            Ok::<_, Infallible>(reply)
        }
    };
    let connection = builder.serve_connection(TokioIo::new(io), service_fn(answer)).with_upgrades();
    let mut connection = pin!(connection);
    let retires = async {
        retire.await;
        retired.set(true);
        std::future::pending::<()>().await;
    };
    let fault = |error| Fault { error, between: activity.is_quiet() };
    tokio::select! {
        ended = connection.as_mut() => return ended.map_err(fault),
        () = drain.begun() => {}
        () = activity.idle() => return Ok(()),
        () = retires => {}
    }
    // A request that is already on its way is still answered; an idle connection is closed after a moment.
    tokio::select! {
        ended = connection.as_mut() => return ended.map_err(fault),
        () = tokio::time::sleep(Duration::from_millis(500)) => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.as_mut().await.map_err(fault)
}

/// Serves HTTP/2 until the client, the drain or `retire` ends it; requests that have begun are answered.
pub async fn http2<T, S, F>(
    io: T,
    drain: &Drain,
    side: Side,
    retire: impl Future<Output = ()>,
    serve: S,
) -> Result<(), hyper::Error>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
    S: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<ReplyBody>> + 'static,
{
    let (stream_window, window) = match side {
        Side::Application => (CLIENT_STREAM_WINDOW, CLIENT_WINDOW),
        Side::Mesh => (STREAM_WINDOW, STREAM_WINDOW * STREAMS),
    };
    let mut builder = http2::Builder::new(LocalExec);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(stream_window)
        .initial_connection_window_size(window)
        .max_header_list_size(HEADER_LIST)
        .max_frame_size(16 * 1024)
        .max_send_buf_size(SEND_BUFFER)
        .max_local_error_reset_streams(LOCAL_RESETS)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_WITHIN);
    let answer = |request| {
        let reply = serve(request);
        async move { Ok::<_, Infallible>(reply.await) }
    };
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service_fn(answer)));
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = drain.begun() => {}
        () = retire => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}
