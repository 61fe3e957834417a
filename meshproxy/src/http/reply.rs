//! Answers: those of an upstream on their way back, and our own. Status, flag, details and body of our own are Envoy's
//! for the same case; a gRPC client gets them as trailers-only.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode, Version};
use mesh_core::decide::affinity::Affinity;
use mesh_core::decide::refusal::Refusal;
use mesh_core::framing;
use mesh_core::message::fault::Fault;
use mesh_core::resilience::fault::AbortStatus;
use mesh_core::routing::cors::Fields;
use mesh_core::routing::header::HeaderOperations;
use mesh_core::vocab::outcome::Outcome;

use super::body::{ReplyBody, grpc_status};
use super::deadline::Deadline;
use super::headers::{GRPC_MESSAGE, GRPC_STATUS, OVERLOADED, RATE_LIMITED, SERVICE_TIME, number};
use super::record::Record;
use super::send::Answer;
use super::variables::change_answer;
use crate::live::limits::TooMuch;
use crate::runtime::pressure::Scarce;
use crate::telemetry::flags::Flags;
use crate::upstream::body::Upload;

/// The gRPC status of what may be tried again later.
const UNAVAILABLE: u16 = 14;

/// What goes back to the client.
pub type Reply = Response<ReplyBody>;

/// Why there is no answer of an upstream.
#[derive(Debug)]
pub struct Failure {
    /// The classification.
    pub outcome: Outcome,
    /// Why the connection failed, for the log.
    pub transport: String,
    /// Whether there was more than one try.
    pub retried: bool,
    /// Whether a retry would have been made if one had been left.
    pub exhausted: bool,
    /// Whether one would have been made if the destination bore more of them.
    pub refused: bool,
}

/// The answer of an upstream goes back.
pub fn pass_on(
    answer: Answer,
    mut record: Box<Record>,
    changes: &[&HeaderOperations],
    deadline: Option<Deadline>,
) -> Reply {
    let Answer { response, held, bytes } = answer;
    let (mut parts, incoming) = response.into_parts();
    let time = record.answered();
    // Another proxy says it anew.
    if !record.told_on {
        parts.headers.insert(&SERVICE_TIME, number(time.as_millis()));
    }
    change_answer(&mut parts.headers, parts.status, changes, &mut record);
    parts.headers.insert(header::SERVER, server(&record));
    tell_standing(&mut parts.headers, &mut record);
    parts.version = Version::HTTP_11;
    let status = if record.grpc { grpc_status(&parts.headers) } else { None };
    if record.details.is_empty() {
        record.details = Cow::Borrowed("via_upstream");
    }
    record.reply_fields(&parts.headers);
    record.reply(parts.status.as_u16(), bytes, status);
    Response::from_parts(parts, ReplyBody::upstream(incoming, held, record, deadline))
}

/// A request that was refused before anything was decided. The connection is not used further.
pub fn bad_request(mut record: Box<Record>, fault: Fault) -> Reply {
    let from = if record.is_outbound() { "downstream" } else { "mesh" };
    record.thread().metrics().malformed(from, fault);
    record.flags.push(fault.flag());
    record.details = Cow::Borrowed(fault.details());
    let mut reply = local(record, fault.status(), Cow::Borrowed(fault.body()), None);
    reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    reply
}

/// There is too little of something to begin anything new (Envoy's overload manager).
pub fn overloaded(mut record: Box<Record>, scarce: Scarce) -> Reply {
    record.thread().metrics().supplies.shed_stream(scarce == Scarce::Memory);
    record.flags.push("OM");
    record.details = Cow::Borrowed("overload");
    let body = Cow::Borrowed("envoy overloaded");
    let mut reply = local(record, StatusCode::SERVICE_UNAVAILABLE, body, None);
    reply.headers_mut().insert(&OVERLOADED, HeaderValue::from_static("true"));
    reply
}

/// Bytes of a request were refused. Nothing more is read of its connection.
pub fn refuse_bytes(mut record: Box<Record>, refusal: framing::refusal::Refusal) -> Reply {
    record.flags.push(refusal.flag());
    record.details = Cow::Borrowed(refusal.details());
    let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::BAD_REQUEST);
    let mut reply = local(record, status, Cow::Borrowed(refusal.body()), None);
    reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    reply
}

/// A decision went against the request.
pub fn refuse(mut record: Box<Record>, refusal: &Refusal) -> Reply {
    record.flags.push(refusal.flag());
    record.details = Cow::Owned(refusal.details());
    let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    local(record, status, Cow::Borrowed(refusal.body()), None)
}

/// A rate limit was exceeded (Envoy's local rate limit).
pub fn too_much(mut record: Box<Record>, refused: TooMuch) -> Reply {
    record.flags.push("RL");
    record.details = Cow::Borrowed("local_rate_limited");
    let status = StatusCode::from_u16(refused.status).unwrap_or(StatusCode::TOO_MANY_REQUESTS);
    record.standing_fields = Some(Box::new(refused.fields));
    let mut reply = local(record, status, Cow::Borrowed("local_rate_limited"), Some(UNAVAILABLE));
    reply.headers_mut().insert(&RATE_LIMITED, HeaderValue::from_static("true"));
    reply
}

/// Puts on an answer what it tells of rate limits.
fn tell_standing(headers: &mut HeaderMap, record: &mut Record) {
    for (name, value) in record.standing_fields.take().map(|fields| *fields).into_iter().flatten() {
        headers.insert(name, value);
    }
}

/// A policy turned against a request before it was answered.
pub fn cut_off(mut record: Box<Record>, refusal: &Refusal) -> Reply {
    record.standing = None;
    record.thread().metrics().proxy.requests_cut_off.increment(1);
    refuse(record, refusal)
}

/// The trailers of an answer that a policy has turned against.
pub fn denied(refusal: &Refusal, flags: Flags) -> HeaderMap {
    let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::FORBIDDEN);
    let mut trailers = HeaderMap::with_capacity(2);
    trailers.insert(&GRPC_STATUS, HeaderValue::from(grpc_of(status, flags)));
    if let Ok(message) = HeaderValue::from_bytes(&percent_encoded(refusal.body().as_bytes())) {
        trailers.insert(&GRPC_MESSAGE, message);
    }
    trailers
}

/// A fault aborts the request.
pub fn abort(mut record: Box<Record>, abort: AbortStatus) -> Reply {
    record.flags.push("FI");
    record.details = Cow::Borrowed("fault_filter_abort");
    const BODY: &str = "fault filter abort";
    match abort {
        AbortStatus::Http(code) => {
            let status = StatusCode::from_u16(code).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
            local(record, status, Cow::Borrowed(BODY), None)
        }
        AbortStatus::Grpc(status) => local(record, grpc_to_http(status), Cow::Borrowed(BODY), Some(status)),
    }
}

/// A rule sends the client elsewhere.
pub fn redirect(mut record: Box<Record>, status: u16, location: &str) -> Reply {
    record.details = Cow::Borrowed("direct_response");
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::MOVED_PERMANENTLY);
    let mut headers = HeaderMap::with_capacity(4);
    if let Ok(location) = HeaderValue::from_str(location) {
        headers.insert(header::LOCATION, location);
    }
    local_with(record, status, headers, Bytes::new(), None)
}

/// A rule answers by itself.
pub fn respond(mut record: Box<Record>, status: u16, body: &Arc<[u8]>) -> Reply {
    record.details = Cow::Borrowed("direct_response");
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let body = if body.is_empty() { Bytes::new() } else { Bytes::from_owner(Arc::clone(body)) };
    local_with(record, status, HeaderMap::with_capacity(4), body, None)
}

/// A preflight is answered here.
pub fn preflight(mut record: Box<Record>, fields: &Fields) -> Reply {
    record.details = Cow::Borrowed("cors_response");
    record.changes = None;
    let mut reply = local(record, StatusCode::OK, Cow::Borrowed(""), None);
    mark(&mut reply, fields);
    reply
}

/// Puts fields on an answer, in place of those that it has.
pub fn mark(reply: &mut Reply, fields: &Fields) {
    for (name, value) in fields {
        reply.headers_mut().insert(name, value.clone());
    }
}

/// Gives the client of an upstream's answer the cookie that leads it to the same endpoint again.
pub fn keep(reply: &mut Reply, affinity: &Affinity) {
    if let Some(cookie) = affinity.cookie.as_deref().and_then(|text| HeaderValue::from_str(text).ok()) {
        reply.headers_mut().append(header::SET_COOKIE, cookie);
    }
}

/// No endpoint may get traffic.
pub fn no_healthy(mut record: Box<Record>) -> Reply {
    record.flags.push("UH");
    record.details = Cow::Borrowed("no_healthy_upstream");
    local(record, StatusCode::SERVICE_UNAVAILABLE, Cow::Borrowed("no healthy upstream"), None)
}

/// Every attempt failed.
pub fn failed(mut record: Box<Record>, mut failure: Failure) -> Reply {
    if record.upload.as_ref().is_some_and(Upload::is_broken) {
        return broken_off(record);
    }
    if failure.exhausted {
        record.flags.push("URX");
    }
    let outcome = failure.outcome;
    record.flags.push(outcome.flag());
    if failure.refused {
        record.flags.push("UO");
    }
    let status = StatusCode::from_u16(outcome.status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    if matches!(outcome, Outcome::RequestTimeout | Outcome::AttemptTimeout) {
        record.details = Cow::Borrowed(match outcome {
            Outcome::AttemptTimeout => "upstream_per_try_timeout",
            _ => "response_timeout",
        });
        return local(record, status, Cow::Borrowed("upstream request timeout"), None);
    }
    if outcome == Outcome::ConnectTimeout {
        // The reason says it all.
        failure.transport.clear();
    }
    let reason = outcome.reason();
    let bar = if failure.transport.is_empty() { "" } else { "|" };
    let details = format!("upstream_reset_before_response_started{{{reason}{bar}{}}}", failure.transport)
        .replace(' ', "_");
    record.details = Cow::Owned(details);
    record.transport_failure = failure.transport;
    let retried = if failure.retried { "retried and the latest reset reason" } else { "reset reason" };
    let body = format!("upstream connect error or disconnect/reset before headers. {retried}: {reason}");
    let mut reply = local(record, status, Cow::Owned(body), None);
    if outcome == Outcome::Overflow {
        reply.headers_mut().insert(&OVERLOADED, HeaderValue::from_static("true"));
    }
    reply
}

/// The client did not end its request, or its body is none: no endpoint is to blame for what became of it.
fn broken_off(record: Box<Record>) -> Reply {
    let upload = record.upload.as_ref();
    if let Some(refusal) = upload.and_then(Upload::refused) {
        return refuse_bytes(record, refusal);
    }
    if upload.is_some_and(Upload::is_malformed) {
        return bad_request(record, Fault::Body);
    }
    // Nobody hears this any more, and the record says that the client has gone.
    drop(record);
    let mut reply = assemble(StatusCode::BAD_REQUEST, HeaderMap::new(), ReplyBody::silent());
    reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    reply
}

/// The time that a gRPC client gave is over: it hears what it would say itself.
pub fn out_of_time(mut record: Box<Record>) -> Reply {
    record.details = Cow::Borrowed("max_duration_timeout");
    const DEADLINE_EXCEEDED: u16 = 4;
    let body = Cow::Borrowed("downstream duration timeout");
    local(record, StatusCode::GATEWAY_TIMEOUT, body, Some(DEADLINE_EXCEEDED))
}

/// Some other answer of our own.
pub fn plain(
    mut record: Box<Record>,
    status: StatusCode,
    flag: &str,
    details: &'static str,
    body: &'static str,
) -> Reply {
    record.flags.push(flag);
    record.details = Cow::Borrowed(details);
    local(record, status, Cow::Borrowed(body), None)
}

fn local(record: Box<Record>, status: StatusCode, body: Cow<'static, str>, grpc: Option<u16>) -> Reply {
    let body = match body {
        Cow::Borrowed(text) => Bytes::from_static(text.as_bytes()),
        Cow::Owned(text) => Bytes::from(text),
    };
    local_with(record, status, HeaderMap::with_capacity(4), body, grpc)
}

/// An answer of our own that has some fields already. The rule's changes come before what every such answer gets, as
/// Envoy does: what says what its body is cannot be taken away, but replaced where there is one.
fn local_with(
    mut record: Box<Record>,
    status: StatusCode,
    mut headers: HeaderMap,
    body: Bytes,
    grpc: Option<u16>,
) -> Reply {
    if let Some(changes) = record.changes.take() {
        change_answer(&mut headers, status, &changes.list(), &mut record);
    }
    headers.insert(header::SERVER, server(&record));
    tell_standing(&mut headers, &mut record);
    if record.grpc {
        let set = grpc_status(&headers);
        let grpc = set.unwrap_or_else(|| grpc.unwrap_or_else(|| grpc_of(status, record.flags)));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(&GRPC_STATUS, HeaderValue::from(grpc));
        if let (false, Ok(message)) = (body.is_empty(), HeaderValue::from_bytes(&percent_encoded(&body))) {
            headers.insert(&GRPC_MESSAGE, message);
        }
        record.reply(200, 60, Some(grpc));
        return assemble(StatusCode::OK, headers, ReplyBody::own(Bytes::new(), record));
    }
    if body.is_empty() {
        headers.remove(header::CONTENT_TYPE);
    } else {
        headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("text/plain"));
    }
    record.reply(status.as_u16(), 60, None);
    assemble(status, headers, ReplyBody::own(body, record))
}

fn assemble(status: StatusCode, headers: HeaderMap, body: ReplyBody) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    *reply.headers_mut() = headers;
    reply
}

fn server(record: &Record) -> HeaderValue {
    HeaderValue::from_static(if record.is_outbound() { "envoy" } else { "istio-envoy" })
}

/// gRPC status of an answer of our own (Envoy, `Utility::httpToGrpcStatus`).
fn grpc_of(status: StatusCode, flags: Flags) -> u16 {
    if flags.contains("UT") {
        return 14;
    }
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// What a client that is not gRPC gets for an abort with a gRPC status (Envoy, `Utility::grpcToHttpStatus`).
fn grpc_to_http(status: u16) -> StatusCode {
    match status {
        0 => StatusCode::OK,
        1 => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        3 | 9 | 11 => StatusCode::BAD_REQUEST,
        4 => StatusCode::GATEWAY_TIMEOUT,
        5 => StatusCode::NOT_FOUND,
        6 | 10 => StatusCode::CONFLICT,
        7 => StatusCode::FORBIDDEN,
        8 => StatusCode::TOO_MANY_REQUESTS,
        12 => StatusCode::NOT_IMPLEMENTED,
        14 => StatusCode::SERVICE_UNAVAILABLE,
        16 => StatusCode::UNAUTHORIZED,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// `grpc-message` is percent-encoded outside of printable ASCII (gRPC over HTTP/2).
fn percent_encoded(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for &byte in text {
        if (0x20..0x7f).contains(&byte) && byte != b'%' {
            out.push(byte);
        } else {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_statuses_of_our_own_answers() {
        let check = |code: u16, flag: &str, expected: u16| {
            assert_eq!(grpc_of(StatusCode::from_u16(code).unwrap(), Flags::of(flag)), expected, "{code}");
        };
        check(403, "-", 7);
        check(404, "NR", 12);
        check(503, "UH", 14);
        check(504, "UT", 14);
        check(500, "FI", 2);
    }

    #[test]
    fn messages_are_percent_encoded() {
        assert_eq!(percent_encoded("100% \u{e9}\n".as_bytes()), b"100%25 %C3%A9%0A");
    }
}
