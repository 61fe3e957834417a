//! hyper on one accepted connection, with the limits and times that it lacks by itself.

use std::cell::Cell;
use std::convert::Infallible;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh_core::framing::frames::Allowance;
use tokio::io::{AsyncRead, AsyncWrite};

use super::body::ReplyBody;
use crate::net::activity::Activity;
use crate::net::corked::Corked;
use crate::net::guard::frames::Framed;
use crate::net::guard::requests::Requests;
use crate::net::limits::{self, Limits};
use crate::upstream::connect::{HYPER_FIELDS, LISTS, LocalExec, STREAM_WINDOW, STREAMS};
use crate::upstream::thread::DataThread;

/// What of an answer may wait on a stream of another proxy.
const SEND_BUFFER: usize = 128 * 1024;

/// A request with this field is carried out by a panic, in tests.
#[cfg(test)]
pub(crate) const PANIC: &str = "x-test-panic";

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
pub struct Broken {
    /// What hyper says.
    pub error: hyper::Error,
    /// Whether no exchange was under way, whose record would tell of it.
    pub between: bool,
}

/// Serves HTTP/1 until the client or the drain ends it. Once `retire` has resolved, the next answer is the last. A request
/// that stands in for one whose bytes were refused has the [`Refusal`](mesh_core::framing::refusal::Refusal) among its
/// extensions.
pub async fn http1<T, S, F>(
    io: T,
    thread: &DataThread,
    retire: impl Future<Output = ()>,
    serve: S,
) -> Result<(), Broken>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<ReplyBody>>,
{
    let (drain, Limits { patience, sizes, buffer, .. }) = (&thread.drain, thread.limits);
    let mut builder = http1::Builder::new();
    // The guard has judged a head before it is read here: there must be room for what it lets pass.
    let head = sizes.list as usize + sizes.target as usize + 8 * 1024;
    builder.header_read_timeout(None).max_buf_size(buffer.max(head));
    if sizes.fields as usize > HYPER_FIELDS {
        builder.max_headers(sizes.fields as usize);
    }
    let activity = Arc::new(Activity::default());
    let _served = thread.served.enter(&activity).await;
    let retired = &Cell::new(false);
    let answer = |mut request: Request<Incoming>| {
        if let Some(refusal) = activity.refused_head() {
            request.extensions_mut().insert(refusal);
        }
        let connect = request.method() == Method::CONNECT;
        #[cfg(test)]
        let panics = request.headers().contains_key(PANIC);
        let reply = serve(request);
        let under_way = activity.begin();
        let activity = &activity;
        reply.map(move |mut reply| {
            #[cfg(test)]
            assert!(!panics, "a test wants this");
            let status = reply.status();
            let goes_on = status == StatusCode::SWITCHING_PROTOCOLS || connect && status.is_success();
            if goes_on {
                activity.becomes_tunnel();
            }
            reply.body_mut().hold(under_way);
            // What goes on as a byte stream says something else of its connection.
            if (drain.has_begun() || retired.get()) && !goes_on {
                let close = http::HeaderValue::from_static("close");
                reply.headers_mut().insert(http::header::CONNECTION, close);
            }
            Ok::<_, Infallible>(reply)
        })
    };
    let io = Requests::new(io, Arc::clone(&activity), patience.head);
    let connection = builder.serve_connection(TokioIo::new(io), service_fn(answer)).with_upgrades();
    let mut connection = pin!(connection);
    let retires = async {
        retire.await;
        retired.set(true);
        std::future::pending::<()>().await;
    };
    let ended = tokio::select! {
        ended = thread.standings.watch(connection.as_mut()) => {
            // Cut off in the middle of what is no longer allowed.
            Some(ended.unwrap_or(Ok(())))
        }
        () = drain.begun() => None,
        () = activity.idle(patience.idle, patience.body) => Some(Ok(())),
        () = retires => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            // A request that is already on its way is still answered; an idle connection is closed after a moment.
            let moment = tokio::time::sleep(Duration::from_millis(500));
            let ended = tokio::select! {
                ended = thread.standings.watch(connection.as_mut()) => ended,
                () = moment => {
                    connection.as_mut().graceful_shutdown();
                    thread.standings.watch(connection.as_mut()).await
                }
            };
            ended.unwrap_or(Ok(()))
        }
    };
    if let Some(refusal) = activity.refusal() {
        thread.metrics().refused("downstream", refusal);
    }
    ended.map_err(|error| Broken { error, between: !activity.is_busy() })
}

/// Serves HTTP/2 until the client, the drain or `retire` ends it; requests that have begun are answered.
pub async fn http2<T, S, F>(
    io: T,
    thread: &DataThread,
    side: Side,
    retire: impl Future<Output = ()>,
    serve: S,
) -> Result<(), hyper::Error>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
    S: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<ReplyBody>> + 'static,
{
    let (drain, given) = (&thread.drain, &thread.limits);
    let (patience, most) = (given.patience, given.http2);
    let (streams, stream_window, window, buffer, allowance) = match side {
        Side::Application => (most.streams, most.stream_window, most.window, given.buffer, given.allowance()),
        Side::Mesh => (STREAMS, STREAM_WINDOW, STREAM_WINDOW * STREAMS, SEND_BUFFER, Allowance::MESH),
    };
    let mut builder = http2::Builder::new(LocalExec(Rc::clone(&thread.standings)));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams)
        .initial_stream_window_size(stream_window)
        .initial_connection_window_size(window)
        .max_header_list_size(limits::sizes_with_room().list * LISTS)
        .max_frame_size(most.frame)
        .max_send_buf_size(buffer)
        .max_local_error_reset_streams(most.local_resets)
        .max_pending_accept_reset_streams(most.pending_resets)
        .keep_alive_interval(patience.ping_every)
        .keep_alive_timeout(patience.ping_within);
    let activity = Arc::new(Activity::default());
    let _served = thread.served.enter(&activity).await;
    let answer = |request: Request<Incoming>| {
        #[cfg(test)]
        let panics = request.headers().contains_key(PANIC);
        let reply = serve(request);
        let under_way = activity.begin();
        reply.map(move |mut reply| {
            #[cfg(test)]
            assert!(!panics, "a test wants this");
            reply.body_mut().hold(under_way);
            Ok::<_, Infallible>(reply)
        })
    };
    let io = Framed::of_client(io, allowance, patience.head);
    let io = if side == Side::Application { io.judging_trailers() } else { io };
    let cause = io.cause();
    let mut connection = pin!(builder.serve_connection(TokioIo::new(Corked::new(io)), service_fn(answer)));
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = drain.begun() => None,
        () = retire => None,
        () = activity.idle(patience.idle_http2, Duration::MAX) => activity.is_cut().then_some(Ok(())),
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Some(refusal) = cause.get() {
        thread.metrics().refused(if side == Side::Mesh { "mesh" } else { "downstream" }, refusal);
    }
    ended
}
