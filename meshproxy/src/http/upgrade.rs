//! WebSocket: a request that asks to go on as a byte stream, when the application agrees with 101.
//!
//! Routed, judged and counted like any request. Between proxies it travels as a CONNECT stream that carries the head of
//! the request in its fields. Client bytes are held until the application has agreed; without 101 nothing is passed.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use mesh_core::decide::plan::{Forward, Plan};
use mesh_core::framing::response::Asked;
use mesh_core::message::hop::asks_websocket;
use mesh_core::message::request::Head;
use mesh_core::message::response;
use mesh_core::routing::header::HeaderOperations;
use mesh_core::tables::destinations::Transport;
use mesh_core::vocab::outcome::Outcome;
use tokio::io::{AsyncRead, AsyncWrite};

use super::again::{Next, is_told};
use super::attempt::{Trial, client, own};
use super::body::{Held, ReplyBody, UpstreamBody};
use super::canonical::absolute;
use super::exchange::message;
use super::headers::{
    ATTEMPT_COUNT, MESH_AUTHORITY, MESH_PATH, MESH_STATUS, MESH_UPGRADE, SERVICE_TIME, number,
};
use super::race::before;
use super::record::Record;
use super::reply::{self, Failure, Reply};
use super::send::{Answer, Message, connect_failed, unusable};
use super::variables::change_answer;
use crate::identity::origination::Inside;
use crate::live::chain::Sign;
use crate::live::destination::LiveDestination;
use crate::live::endpoint::{LiveEndpoint, Permit};
use crate::live::local::LocalWorkload;
use crate::live::root::Root;
use crate::net::copy::{Carried, copy};
use crate::net::hop::Spoken;
use crate::net::limits;
use crate::upstream::body::RequestBody;
use crate::upstream::failure::{self, ConnectError};
use crate::upstream::http2::Duplex;
use crate::upstream::pool::{Hop, Lease, Stream, Who};
use crate::upstream::tunnel::{self, TunnelError};
use crate::upstream::way::{Target, Way};

/// A stream on which nothing moves is closed after so long.
const IDLE: std::time::Duration = std::time::Duration::from_secs(3600);
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// Takes the client's end out of a request that asks for a WebSocket; every other request stays what it is.
pub fn asked(request: &mut Request<Incoming>) -> Option<OnUpgrade> {
    let asks = asks_websocket(request.method(), request.version(), request.headers());
    asks.then(|| hyper::upgrade::on(request))
}

/// Whether a CONNECT stream of another proxy carries such a request.
pub fn is_carried(request: &Request<Incoming>) -> bool {
    request.headers().contains_key(&MESH_UPGRADE)
}

/// Makes the request of such a stream what the client sent. `None` if it carries no head.
pub fn unpack(request: &mut Request<Incoming>) -> Option<OnUpgrade> {
    let upgrade = hyper::upgrade::on(&mut *request);
    let headers = request.headers_mut();
    headers.remove(&MESH_UPGRADE);
    let authority = Authority::try_from(headers.remove(&MESH_AUTHORITY)?.as_bytes()).ok()?;
    let target = PathAndQuery::try_from(headers.remove(&MESH_PATH)?.as_bytes()).ok()?;
    *request.method_mut() = Method::GET;
    *request.uri_mut() = absolute(authority, target);
    Some(upgrade)
}

/// What came of the request upstream: the head of the answer, and the connection that it came on.
enum Answered {
    Http1(Response<Incoming>, Lease),
    Http2(Response<()>, Duplex, Stream),
}

impl Answered {
    fn outcome(&self) -> Outcome {
        let status = match self {
            Answered::Http1(response, _) => response.status(),
            Answered::Http2(response, ..) => response.status(),
        };
        Outcome::Response { status: status.as_u16(), grpc_status: None, rate_limited: false }
    }

    fn headers(&self) -> &HeaderMap {
        match self {
            Answered::Http1(response, _) => response.headers(),
            Answered::Http2(response, ..) => response.headers(),
        }
    }
}

/// Sends the request on to one endpoint of the destination and joins both ends if it agrees. One that cannot be reached
/// or refuses the stream is passed over as the rule's retries say; a timeout of the rule has no meaning for a request that
/// never ends.
#[allow(clippy::too_many_arguments, reason = "everything that an exchange has, once")]
pub async fn send_on(
    root: &Root,
    destination: &LiveDestination,
    local: Option<&Arc<LocalWorkload>>,
    plan: &Plan,
    forward: &Forward,
    head: Box<Head>,
    upgrade: OnUpgrade,
    mut record: Box<Record>,
) -> Reply {
    let thread = Rc::clone(record.thread());
    let trial = Trial {
        thread: &thread,
        root,
        destination,
        caller: local,
        retry: &plan.rule().retry,
        http2: false,
        direct_http2: false,
        client: client(destination, record.client()),
        grpc: false,
        hash: forward.affinity.hash,
        nested: is_told(thread.view.roots(), &head.headers, Sign::Retried),
    };
    let message = message(plan, forward, head, &mut record);
    let (mut tried, mut retrying) = (Vec::new(), None);
    destination.state.retries.note_request();
    let sent = loop {
        let Some(index) = trial.choose(&tried) else { return reply::no_healthy(record) };
        let endpoint = &destination.endpoints[index];
        tried.push(index);
        let tries = u32::try_from(tried.len()).unwrap_or(u32::MAX);
        let mut permit = endpoint.state.enter();
        record.upstream = endpoint.shown();
        record.destination = endpoint.party.number;
        record.mesh_hop = endpoint.is_behind_proxy();
        record.attempts = tries;
        let injected = trial.injected();
        if let Some(injected) = &injected {
            record.flags.push(injected.kind.flag());
        }
        let met = match injected {
            Some(injected) => Box::pin(before(injected)).await,
            None => Ok(()),
        };
        let sent = match met {
            Ok(()) => once(&trial, endpoint, &mut permit, message.clone(), tries).await,
            Err(failure) => Err(failure),
        };
        record.permit = Some(permit);
        destination.note(index, sent.as_ref().map_or_else(|failure| failure.outcome, Answered::outcome));
        let failure = match sent {
            Ok(answered) => {
                trial.hear(index, answered.headers());
                break Ok(answered);
            }
            Err(failure) => failure,
        };
        drop(retrying.take());
        match trial.next((index, failure.outcome), None, (tries, true)) {
            Next::Retry(place) if trial.wait(tries, None).await => retrying = Some(place),
            last => {
                let (exhausted, refused) = (last.is_exhausted(), last.is_refused());
                break Err(Failure { retried: tries > 1, exhausted, refused, ..failure });
            }
        }
        thread.metrics().proxy.retries.increment(1);
    };
    match sent {
        Ok(answered) => {
            let mut reply = join(answered, upgrade, record, &plan.response_changes(forward));
            reply::keep(&mut reply, &forward.affinity);
            reply
        }
        Err(failure) => reply::failed(record, failure),
    }
}

/// The same to the one endpoint of a destination that no rule is for.
pub(super) async fn send_once(
    trial: &Trial<'_>,
    message: Box<Message>,
    upgrade: OnUpgrade,
    mut record: Box<Record>,
) -> Reply {
    let Some(index) = trial.choose(&[]) else { return reply::no_healthy(record) };
    let endpoint = &trial.destination.endpoints[index];
    let mut permit = endpoint.state.enter();
    record.upstream = endpoint.shown();
    record.destination = endpoint.party.number;
    record.mesh_hop = endpoint.is_behind_proxy();
    let sent = once(trial, endpoint, &mut permit, message, 1).await;
    record.permit = Some(permit);
    match sent {
        Ok(answered) => join(answered, upgrade, record, &[]),
        Err(failure) => reply::failed(record, failure),
    }
}

/// One try at one endpoint.
async fn once(
    trial: &Trial<'_>,
    endpoint: &LiveEndpoint,
    permit: &mut Permit,
    mut message: Box<Message>,
    tries: u32,
) -> Result<Answered, Failure> {
    let Trial { thread, root, destination, caller: local, .. } = *trial;
    if let Some(breaker) = &destination.breaker {
        let place = breaker.request(&endpoint.state, true).await;
        permit.take(Some(place.map_err(|overflow| connect_failed(ConnectError::from(overflow)))?));
    }
    let place = permit.place();
    message.headers.insert(&ATTEMPT_COUNT, number(u128::from(tries)));
    let patience = destination.destination.policy.connect_timeout;
    match &endpoint.endpoint.transport {
        Transport::Plaintext | Transport::Tls => {
            let host = message.authority.host();
            let way = Way::to(destination, endpoint, Inside::Http1, host, trial.proxy(endpoint))
                .map_err(connect_failed)?;
            let addresses = endpoint.address.as_slice();
            plain(thread, message, Target { addresses, patience, way: way.as_ref(), place }).await
        }
        Transport::Mesh { hop, peer } => {
            let own = own(root, local)?;
            let peer = Who { number: endpoint.peer, id: peer };
            trial.prepare_hop(&mut message.headers, endpoint, Spoken::Tcp);
            let settings = destination.settings.as_ref();
            let hop = Hop { address: *hop, own, peer, patience, settings, place };
            let stream = || thread.pool.mesh(&hop);
            hop_stream(stream, message, endpoint.to.as_bytes()).await
        }
        Transport::Unreachable => Err(connect_failed(ConnectError::NoIdentity)),
    }
}

/// Sends the request to an application of this host and joins both ends if it agrees.
pub async fn deliver(
    record: Box<Record>,
    message: Box<Message>,
    target: Target<'_>,
    client: OnUpgrade,
) -> Reply {
    let thread = Rc::clone(record.thread());
    let sending = plain(&thread, message, target);
    let sent = match &record.standing {
        Some(standing) => standing.unless_refused(sending).await,
        None => Ok(sending.await),
    };
    match sent {
        Ok(Ok(answered)) => join(answered, client, record, &[]),
        Ok(Err(failure)) => reply::failed(record, failure),
        Err(refusal) => reply::cut_off(record, &refusal),
    }
}

async fn plain(
    thread: &crate::upstream::thread::DataThread,
    mut message: Box<Message>,
    target: Target<'_>,
) -> Result<Answered, Failure> {
    message.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    message.headers.insert(header::UPGRADE, WEBSOCKET);
    // A connection of its own: it will never serve anything else.
    let mut lease = thread.pool.new_http1(target).await.map_err(connect_failed)?;
    let sender = lease.sender().expect("a lease has its connection until it is given back");
    let response = sender.send(message.into_http1(RequestBody::Empty), Asked::Upgrade).await;
    let response = response.map_err(|error| broken(failure::outcome(error.error())))?;
    Ok(Answered::Http1(response, lease))
}

async fn hop_stream<F>(stream: impl Fn() -> F, message: Box<Message>, to: &[u8]) -> Result<Answered, Failure>
where
    F: Future<Output = Result<Stream, ConnectError>>,
{
    let Message { authority, target, mut headers, .. } = *message;
    let field = |text: &str| HeaderValue::from_str(text);
    if let (Ok(authority), Ok(path)) = (field(authority.as_str()), field(target.as_str())) {
        headers.insert(&MESH_AUTHORITY, authority);
        headers.insert(&MESH_PATH, path);
    }
    headers.insert(&MESH_UPGRADE, WEBSOCKET);
    let uri = http::Uri::builder().authority(to).build().unwrap_or_default();
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    let connected = tunnel::stream(request, stream).await;
    let (response, duplex, stream) = connected.map_err(|error| match error {
        TunnelError::Connect(error) => connect_failed(error),
        error => broken(error.outcome()),
    })?;
    Ok(Answered::Http2(response, duplex, stream))
}

fn broken(outcome: Outcome) -> Failure {
    Failure { outcome, transport: String::new(), retried: false, exhausted: false, refused: false }
}

/// The application has answered: with 101 the ends are joined, any other answer goes back as it is.
fn join(answered: Answered, client: OnUpgrade, record: Box<Record>, changes: &[&HeaderOperations]) -> Reply {
    match answered {
        Answered::Http1(mut response, lease) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            let server = hyper::upgrade::on(&mut response);
            let server = async move { server.await.ok().map(TokioIo::new) };
            joined(response.into_parts().0, server, lease, client, record, changes)
        }
        Answered::Http2(response, duplex, stream)
            if response.status() == StatusCode::OK && response.headers().contains_key(&MESH_UPGRADE) =>
        {
            joined(response.into_parts().0, async { Some(duplex) }, stream, client, record, changes)
        }
        Answered::Http1(response, lease) => {
            refused(response.map(UpstreamBody::Http1), Held::Http1(lease), record, changes)
        }
        Answered::Http2(mut response, duplex, stream) => {
            let said = response.headers_mut().remove(&MESH_STATUS);
            if let Some(status) = said.and_then(|status| StatusCode::from_bytes(status.as_bytes()).ok()) {
                *response.status_mut() = status;
            }
            let response = response.map(|()| UpstreamBody::Http2(duplex.into_answer()));
            refused(response, Held::Http2(stream), record, changes)
        }
    }
}

fn refused(
    response: Response<UpstreamBody>,
    held: Held,
    record: Box<Record>,
    changes: &[&HeaderOperations],
) -> Reply {
    let between_proxies = !record.is_outbound();
    let mut reply = match Answer::of(response, held) {
        Ok(answer) => reply::pass_on(answer, record, changes, None),
        Err(failure) => reply::failed(record, failure),
    };
    if between_proxies && reply.status().is_success() {
        // On a CONNECT stream a success would open a tunnel and have no content.
        let status = reply.status().as_u16();
        reply.headers_mut().insert(&MESH_STATUS, number(u128::from(status)));
        *reply.status_mut() = StatusCode::BAD_GATEWAY;
    }
    reply
}

/// Answers the client and joins both ends; `kept` lives as long.
fn joined<S, K>(
    mut head: http::response::Parts,
    server: impl Future<Output = Option<S>> + 'static,
    kept: K,
    client: OnUpgrade,
    mut record: Box<Record>,
    changes: &[&HeaderOperations],
) -> Reply
where
    S: AsyncRead + AsyncWrite + 'static,
    K: 'static,
{
    if let Err(error) = response::canonical(&mut head, true, &limits::sizes_with_room()) {
        return reply::failed(record, unusable(error));
    }
    let mut reply = Response::new(ReplyBody::silent());
    *reply.status_mut() = if record.is_outbound() { StatusCode::SWITCHING_PROTOCOLS } else { StatusCode::OK };
    *reply.headers_mut() = agreed_headers(head.headers, &mut record, changes);
    record.details = Cow::Borrowed("via_upstream");
    record.reply(101, 0, None);
    let open = record.thread().drain.hold();
    tokio::task::spawn_local(async move {
        // The client's end is there once our answer has been sent.
        let (Ok(client), Some(server)) = tokio::join!(client, server) else { return };
        let carried = Carried::default();
        let refused = {
            let copying = copy(TokioIo::new(client), server, &carried, Some(IDLE));
            let refused = async {
                match &record.standing {
                    Some(standing) => standing.refused().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ended = copying => None,
                refusal = refused => Some(refusal),
            }
        };
        record.data(usize::try_from(carried.sent.get()).unwrap_or(usize::MAX));
        match refused {
            Some(refusal) => record.cut_off(&refusal),
            None => record.complete(),
        }
        drop((kept, open));
    });
    reply
}

fn agreed_headers(mut headers: HeaderMap, record: &mut Record, changes: &[&HeaderOperations]) -> HeaderMap {
    change_answer(&mut headers, StatusCode::SWITCHING_PROTOCOLS, changes, record);
    let time = record.answered();
    headers.insert(&SERVICE_TIME, number(time.as_millis()));
    if record.is_outbound() {
        headers.insert(header::SERVER, HeaderValue::from_static("envoy"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, WEBSOCKET);
    } else {
        headers.insert(&MESH_UPGRADE, WEBSOCKET);
    }
    headers
}
