//! A message to one endpoint: on an idle connection, a new one, or a stream of a shared one; and the head of its answer.

use std::borrow::Borrow;
use std::io::ErrorKind;

use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version, header};
use http_body::Body as _;
use mesh_core::framing::response::Asked;
use mesh_core::message::fault::Unusable;
use mesh_core::message::response;
use mesh_core::resilience::retry::is_idempotent;
use mesh_core::vocab::outcome::Outcome;

use super::again::failed_there;
use super::body::{Held, UpstreamBody};
use super::canonical::absolute;
use super::headers::REQUEST_ID;
use super::reply::Failure;
use crate::net::limits;
use crate::upstream::body::{RequestBody, Upload};
use crate::upstream::failure::{self, ConnectError};
use crate::upstream::http2::{self, MOST_TURNS};
use crate::upstream::pool::Stream;
use crate::upstream::thread::DataThread;
use crate::upstream::way::Target;

/// What is sent upstream, ready but for what depends on the endpoint.
#[derive(Debug, Clone)]
pub struct Message {
    /// Method.
    pub method: Method,
    /// Host and port.
    pub authority: Authority,
    /// Path and query.
    pub target: PathAndQuery,
    /// Fields.
    pub headers: HeaderMap,
}

/// An answer in its canonical form, and what holds its connection.
#[derive(Debug)]
pub struct Answer {
    /// The head, and the body that is still to come.
    pub response: Response<UpstreamBody>,
    /// The connection.
    pub held: Held,
    /// Size of the head on the wire, nearly.
    pub bytes: u64,
}

impl Answer {
    /// Brings an answer into its form. One that has none is no answer, and its connection is not used again.
    pub(super) fn of(response: Response<UpstreamBody>, held: Held) -> Result<Answer, Failure> {
        let (mut parts, body) = response.into_parts();
        // Rare, so it is kept where it takes no room otherwise.
        if let Some(told) = failed_there(&parts) {
            parts.extensions.insert(told);
        }
        match response::canonical(&mut parts, false, &limits::sizes_with_room()) {
            Ok(found) => {
                let bytes = found.bytes as u64 + 15;
                Ok(Answer { response: Response::from_parts(parts, body), held, bytes })
            }
            Err(error) => Err(unusable(error)),
        }
    }
}

/// Sends to an application in the clear: the first of the addresses that does not refuse.
pub(super) async fn plain(
    thread: &DataThread,
    message: Box<Message>,
    upload: Option<&Upload>,
    target: Target<'_>,
    http2: bool,
) -> Result<Answer, Failure> {
    if http2 {
        return Box::pin(plain_http2(thread, message, upload, target)).await;
    }
    // Boxed, like every dial: requests that find a connection should not carry its size.
    let mut lease = match thread.pool.idle_http1(target) {
        Some(idle) => idle,
        None => Box::pin(thread.pool.new_http1(target)).await.map_err(connect_failed)?,
    };
    let again =
        (lease.rested && upload.is_none() && is_idempotent(message.method.as_str())).then(|| message.clone());
    let asked = if message.method == Method::HEAD { Asked::Head } else { Asked::Plain };
    let mut request = message.into_http1(body(upload));
    loop {
        let sender = lease.sender().expect("a lease has its connection until it is given back");
        let mut error = match sender.send(request, asked).await {
            Ok(response) => {
                return Answer::of(response.map(UpstreamBody::Http1), Held::Http1(lease));
            }
            Err(error) => error,
        };
        match error.take_message() {
            // An idle connection was closed in the meantime and nothing was sent: that is no attempt.
            Some(unsent) if lease.reused => request = unsent,
            // The same, but it had been written; one that may come twice is simply sent again.
            None if lease.reused && is_closed(error.error()) => match again.clone() {
                Some(again) => request = again.into_http1(RequestBody::Empty),
                None => return Err(broken(error.error())),
            },
            Some(_) | None => return Err(broken(error.error())),
        }
        lease = Box::pin(thread.pool.new_http1(target)).await.map_err(connect_failed)?;
    }
}

/// Whether the server closed the connection in place of an answer.
fn is_closed(error: &hyper::Error) -> bool {
    let reset = |error: &(dyn std::error::Error + 'static)| {
        let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        matches!(kind, Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe))
    };
    error.is_incomplete_message() || std::error::Error::source(error).is_some_and(reset)
}

/// The same in HTTP/2. Servers end connections with streams still under way towards them, and say which they have not
/// taken (GOAWAY): such a request is sent on another connection, as if it had found this one closed.
async fn plain_http2(
    thread: &DataThread,
    message: Box<Message>,
    upload: Option<&Upload>,
    target: Target<'_>,
) -> Result<Answer, Failure> {
    let mut turns = 0;
    loop {
        turns += 1;
        let stream = || thread.pool.http2(target);
        let failure = match send_shared(message.clone(), upload, stream).await {
            Err(Sent::Untaken(failure)) if turns < MOST_TURNS => failure,
            sent => return sent.map_err(Sent::failure),
        };
        if !upload.is_none_or(Upload::can_repeat) {
            return Err(failure);
        }
    }
}

/// Why a request got no answer on a shared connection.
pub(super) enum Sent {
    /// The peer says that it has not taken it.
    Untaken(Failure),
    /// Anything else.
    Failed(Failure),
}

impl Sent {
    pub(super) fn failure(self) -> Failure {
        match self {
            Sent::Untaken(failure) | Sent::Failed(failure) => failure,
        }
    }
}

/// Sends on a stream of a shared connection. One that was closing and took nothing is no attempt: another is used.
pub(super) async fn send_shared<F>(
    mut message: Box<Message>,
    upload: Option<&Upload>,
    stream: impl Fn() -> F,
) -> Result<Answer, Sent>
where
    F: Future<Output = Result<Stream, ConnectError>>,
{
    let mut turns = 0;
    let (mut stream, sender) = loop {
        turns += 1;
        let stream = stream().await.map_err(|error| Sent::Failed(connect_failed(error)))?;
        match stream.connection().ready().await {
            Ok(sender) => break (stream, sender),
            Err(_) if turns < MOST_TURNS && !stream.is_fresh() => {}
            Err(error) => return Err(unsent(&stream, &error)),
        }
    };
    if stream.is_first() {
        // Its value counts for one request alone, but its name for all.
        if let Some(id) = message.headers.get_mut(&REQUEST_ID) {
            id.set_sensitive(false);
        }
    }
    let begun = http2::begin(sender, message.into_http2(body(upload)));
    let (response, sending) = begun.map_err(|error| unsent(&stream, &error))?;
    let response = response.await.map_err(|error| unsent(&stream, &error))?;
    stream.hold(sending);
    let answer = Answer::of(response.map(UpstreamBody::Http2), Held::Http2(stream));
    answer.map_err(Sent::Failed)
}

/// What an error on a shared connection makes of the request.
fn unsent(stream: &Stream, error: &h2::Error) -> Sent {
    let failure = fail(stream.connection().outcome(error), String::new());
    let untaken = error.is_go_away() && error.is_remote() && !stream.is_fresh();
    if untaken { Sent::Untaken(failure) } else { Sent::Failed(failure) }
}

fn body(upload: Option<&Upload>) -> RequestBody {
    upload.map_or(RequestBody::Empty, Upload::attempt)
}

impl Message {
    fn into_http2(self, body: RequestBody) -> Request<RequestBody> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = absolute(self.authority, self.target);
        *request.headers_mut() = self.headers;
        request
    }

    pub(super) fn into_http1(mut self, body: RequestBody) -> Request<RequestBody> {
        let host = HeaderValue::from_str(self.authority.as_str());
        if let Ok(host) = host {
            self.headers.insert(header::HOST, host);
        }
        // Said outright: the codec would take a GET without a length for one without content.
        if !body.is_end_stream() && !self.headers.contains_key(header::CONTENT_LENGTH) {
            self.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        let mut request = Request::new(body);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.target.into();
        *request.headers_mut() = self.headers;
        request
    }
}

pub(super) fn fail(outcome: Outcome, transport: String) -> Failure {
    Failure { outcome, transport, retried: false, exhausted: false, refused: false }
}

pub(super) fn connect_failed(error: impl Borrow<ConnectError>) -> Failure {
    let error = error.borrow();
    let told = match error {
        ConnectError::Overflow(_) => String::new(),
        error => error.to_string(),
    };
    fail(error.outcome(), told)
}

/// The time of the request is over.
pub(super) fn late() -> Failure {
    fail(Outcome::RequestTimeout, String::new())
}

/// An answer that cannot be passed on.
pub(super) fn unusable(error: Unusable) -> Failure {
    tracing::debug!(%error, "an upstream's answer cannot be passed on");
    fail(Outcome::ProtocolError, String::new())
}

fn broken(error: &hyper::Error) -> Failure {
    fail(failure::outcome(error), failure::tls_fault(error).unwrap_or_default())
}
