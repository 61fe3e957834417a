//! One request of an application, top to bottom: read, decide, delay or abort, attempt, reply, record.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::uri::{Authority, PathAndQuery};
use http::{HeaderValue, Request, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use mesh_core::decide::facts::OutboundRequest;
use mesh_core::decide::plan::{Action, AnswerChanges, Forward, Plan};
use mesh_core::decide::refusal::Refusal;
use mesh_core::decide::request;
use mesh_core::decide::witness::Silent;
use mesh_core::framing::refusal::Refusal as Bytes;
use mesh_core::message::request::{Head, Sender};
use mesh_core::message::target::with_path;
use mesh_core::resilience::timeout::request_timeout;
use mesh_core::routing::header::HeaderOperations;
use mesh_core::vocab::label::Labels;
use mesh_core::vocab::outcome::Outcome;
use mesh_core::vocab::protocol::{Protocol, UpstreamProtocol};
use tokio::time::Instant;

use super::again::is_told;
use super::attempt::{Trial, Tried, client};
use super::canonical;
use super::connection::{Outbound, caller};
use super::deadline::Deadline;
use super::headers::{FORWARDED_PROTO, GRPC_TIMEOUT, ORIGINAL_HOST, ORIGINAL_PATH, REQUEST_ID, USUAL_PROTO};
use super::mirror::{self, Original};
use super::record::{Record, named};
use super::reply::{self, Reply};
use super::send::Message;
use super::variables::{Told, change_request};
use super::{limits, outside, upgrade};
use crate::live::chain::Sign;
use crate::live::destination::LiveDestination;
use crate::live::local::LocalWorkload;
use crate::live::root::Root;
use crate::live::view::Held;
use crate::telemetry::labels::ServiceLabels;
use crate::telemetry::metrics::Reporter;
use crate::telemetry::trace;
use crate::upstream::body::Upload;

/// One request of an application of this host. What can be decided at once is decided before there is a future: all that
/// it holds is moved about and kept for every request under way.
pub fn outbound(connection: Rc<Outbound>, request: Request<Incoming>) -> impl Future<Output = Reply> {
    let begun = begin(&connection, request);
    async move {
        match begun {
            Begun::Answered(reply) => *reply,
            Begun::Refused(refused) => {
                let Refused { head, record, refusal, upgrade } = *refused;
                Box::pin(outside::refused(&connection, head, record, &refusal, upgrade)).await
            }
            Begun::Planned(planned) => carry_out(&connection, planned).await,
        }
    }
}

/// What the first look at a request led to.
enum Begun {
    Answered(Box<Reply>),
    Refused(Box<Refused>),
    Planned(Box<Planned>),
}

struct Refused {
    head: Box<Head>,
    record: Box<Record>,
    refusal: Refusal,
    upgrade: Option<OnUpgrade>,
}

struct Planned {
    root: Held,
    plan: Plan,
    head: Box<Head>,
    record: Box<Record>,
    upgrade: Option<OnUpgrade>,
}

/// Reads and decides.
fn begin(connection: &Outbound, mut request: Request<Incoming>) -> Begun {
    let root = connection.thread.view.root();
    let mut record = Record::begin(&connection.thread, &root, connection.shown(), Reporter::Source, false);
    if let Some(refusal) = request.extensions().get::<Bytes>() {
        return Begun::Answered(Box::new(reply::refuse_bytes(record, *refusal)));
    }
    let upgrade = upgrade::asked(&mut request);
    let (mut head, body) = match canonical::read(request, root.tables.normalization(), Sender::Anybody) {
        Ok(read) => read,
        Err(fault) => return Begun::Answered(Box::new(reply::bad_request(record, fault))),
    };
    let own_id = add_context(connection, &mut head);
    let local = connection.local(&root);
    if let Some(local) = local {
        record.source = local.party.number;
        record.tell_for(local);
    }
    record.trace(&mut head, own_id);
    record.request(&head);
    if let Some(scarce) = connection.thread.pressure.refuses_streams() {
        return Begun::Answered(Box::new(reply::overloaded(record, scarce)));
    }
    record.uploads(Upload::of(body, &connection.thread.bodies));
    if let (Version::HTTP_2, false, Some(upload)) = (head.version, head.grpc, &record.upload) {
        // Streams of gRPC may be silent for as long as both ends like.
        let thread = &connection.thread;
        upload.limit_silence(thread.limits.patience.body, &thread.metrics().proxy.slow_streams);
    }
    match decide(connection, &root, local, &head) {
        Ok(plan) => {
            note_plan(&root, &plan, &mut record);
            let counted = limits::leave(connection, &root, local.map(Arc::as_ref), &plan, &head, &mut record);
            if let Err(refused) = counted {
                let mut reply = reply::too_much(record, *refused);
                reply::mark(&mut reply, &plan.answer_fields);
                return Begun::Answered(Box::new(reply));
            }
            Begun::Planned(Box::new(Planned { root, plan, head, record, upgrade }))
        }
        Err(refusal) => Begun::Refused(Box::new(Refused { head, record, refusal, upgrade })),
    }
}

/// Does what was decided.
async fn carry_out(connection: &Outbound, planned: Box<Planned>) -> Reply {
    let Planned { root, plan, head, mut record, upgrade } = *planned;
    if let Some(delay) = plan.fault.delay {
        record.flags.push("DI");
        Box::pin(tokio::time::sleep(delay)).await;
    }
    if let Some(abort) = plan.fault.abort {
        tell(&mut record, &plan, &head);
        return reply::abort(record, abort);
    }
    let local = connection.local(&root);
    let mut reply = match &plan.action {
        Action::Forward(forward) => 'sent: {
            let mut destination = Cow::Borrowed(&root.destinations[forward.destination]);
            if outside::is_aimed(connection, &root, forward, &head) {
                match Box::pin(outside::aimed(connection, &root, &plan, forward, &head)).await {
                    Ok(aimed) => destination = Cow::Owned(aimed),
                    Err(failure) => break 'sent reply::failed(record, failure),
                }
            }
            match upgrade {
                None => send_on(&root, &destination, local, &plan, forward, head, record).await,
                Some(client) => {
                    let send_on =
                        upgrade::send_on(&root, &destination, local, &plan, forward, head, client, record);
                    Box::pin(send_on).await
                }
            }
        }
        Action::Redirect { status, location } => {
            tell(&mut record, &plan, &head);
            reply::redirect(record, *status, location)
        }
        Action::Respond { status, body } => {
            tell(&mut record, &plan, &head);
            reply::respond(record, *status, body)
        }
        Action::Refuse { refusal, .. } => {
            tell(&mut record, &plan, &head);
            Box::pin(outside::refused(connection, head, record, refusal, upgrade)).await
        }
        Action::Preflight { fields } => reply::preflight(record, fields),
    };
    reply::mark(&mut reply, &plan.answer_fields);
    reply
}

/// What a client sent was no request: it was answered as such where it is still there, and here it is told.
pub fn unread(connection: &Outbound, error: &hyper::Error) {
    if !error.is_parse() && !error.is_incomplete_message() {
        return;
    }
    let root = connection.thread.view.root();
    let mut record = Record::begin(&connection.thread, &root, connection.shown(), Reporter::Source, false);
    if let Some(local) = connection.local(&root) {
        record.source = local.party.number;
        record.tell_for(local);
    }
    if error.is_parse() {
        let (code, details) = match error.is_parse_too_large() {
            true => (431, "http1.headers_too_large"),
            false => (400, "http1.codec_error"),
        };
        record.flags.push("DPE");
        record.details = Cow::Borrowed(details);
        record.reply(code, 0, None);
        record.complete();
    }
}

fn decide(
    connection: &Outbound,
    root: &Root,
    local: Option<&Arc<LocalWorkload>>,
    head: &Head,
) -> Result<Plan, Refusal> {
    let port = outside::port(connection, head);
    let owner = connection.service(root);
    let nowhere = Labels::default();
    let namespace;
    let caller = match local {
        Some(local) => local.caller(),
        None => {
            namespace = root.namespace();
            caller(None, &namespace, &nowhere)
        }
    };
    let facts = OutboundRequest {
        request: head.seen(),
        port,
        owner,
        listener: connection.listener(local),
        caller: Some(caller),
        source: Some(connection.source(local)),
    };
    connection.thread.random(|random| request::outbound(&root.tables, &facts, random, &mut Silent))
}

/// What the decision says about an exchange, for metrics and the log.
fn note_plan(root: &Root, plan: &Plan, record: &mut Record) {
    record.changes = plan.own_answer_changes();
    record.chosen = Some(plan.chosen());
    match &plan.action {
        Action::Forward(forward) => {
            let destination = &root.destinations[forward.destination];
            record.cluster = named(&destination.destination.cluster);
            record.service = destination.service.number;
            let key = &destination.destination.policy.key;
            if let Some(traced) = record.traced() {
                traced.name(&key.host, key.port);
            }
        }
        Action::Redirect { .. }
        | Action::Respond { .. }
        | Action::Preflight { .. }
        | Action::Refuse { .. } => {
            if let Some(service) = &plan.service {
                let labels = ServiceLabels::of(&service.host, &service.namespace);
                record.service = record.thread().observers.series.service_number(labels);
            }
        }
    }
}

/// The attempts at the destination, and what comes back.
async fn send_on(
    root: &Held,
    destination: &LiveDestination,
    local: Option<&Arc<LocalWorkload>>,
    plan: &Plan,
    forward: &Forward,
    head: Box<Head>,
    mut record: Box<Record>,
) -> Reply {
    let (timeout, mut deadline) = deadline(plan, forward, &head, &record);
    let rule = plan.rule();
    let thread = Rc::clone(record.thread());
    let trial = Trial {
        thread: &thread,
        root,
        destination,
        caller: local,
        retry: &rule.retry,
        http2: speaks_http2(destination.destination.policy.protocol, head.version),
        direct_http2: speaks_http2_directly(destination.destination.policy.upstream, head.version),
        client: client(destination, record.client()),
        grpc: head.grpc,
        hash: forward.affinity.hash,
        nested: is_told(thread.view.roots(), &head.headers, Sign::Retried),
    };
    let message = copied(&trial, root, plan, forward, head, timeout, &mut record);
    let tried = trial.run(message, record.upload.as_ref(), &mut deadline).await;
    let Tried { endpoint, permit, result, attempts, beside, earlier, exhausted, refused, injected } = tried;
    record.permit = permit;
    (record.attempts, record.beside, record.earlier) = (attempts, beside, earlier);
    if let Some(flag) = injected {
        record.flags.push(flag);
    }
    if let Some(index) = endpoint {
        let endpoint = &destination.endpoints[index];
        record.upstream = endpoint.shown();
        record.destination = endpoint.party.number;
        record.mesh_hop = endpoint.is_behind_proxy();
        record.ear = trial.ear(index);
    }
    match result {
        None => reply::no_healthy(record),
        // Where the rule has none, Envoy counts the client's own limit as the duration of the stream, not as a slow upstream.
        Some(Err(failure)) if failure.outcome == Outcome::RequestTimeout && forward.timeout.is_none() => {
            reply::out_of_time(record)
        }
        Some(Err(failure)) => reply::failed(record, failure),
        Some(Ok(answer)) => {
            if exhausted || refused {
                record.flags.push(if exhausted { "URX" } else { "UO" });
            }
            if let Some(upload) = &record.upload {
                upload.answered();
            }
            let changes = plan.response_changes(forward);
            let mut reply = reply::pass_on(answer, record, &changes, deadline);
            reply::keep(&mut reply, &forward.affinity);
            reply
        }
    }
}

/// The request's time, and when it is over. Where the rule has a time, that or the client's shorter one runs from the end
/// of the request; the client's alone runs from the beginning, and neither while a fault holds the request up.
fn deadline(
    plan: &Plan,
    forward: &Forward,
    head: &Head,
    record: &Record,
) -> (Option<Duration>, Option<Deadline>) {
    let grpc_timeout = if head.grpc { head.headers.get(&GRPC_TIMEOUT) } else { None };
    let timeout = request_timeout(forward.timeout, grpc_timeout.and_then(|value| value.to_str().ok()));
    let Some(time) = timeout else { return (None, None) };
    let since = if plan.fault.delay.is_some() { Instant::now() } else { record.started() };
    let upload = if forward.timeout.is_some() { record.upload.as_ref() } else { None };
    (timeout, Some(Deadline::new(time, since, upload)))
}

/// The message of a request, of which copies are on their way where the plan has some.
fn copied(
    trial: &Trial<'_>,
    root: &Held,
    plan: &Plan,
    forward: &Forward,
    head: Box<Head>,
    timeout: Option<Duration>,
    record: &mut Record,
) -> Box<Message> {
    let version = head.version;
    let message = message(plan, forward, head, record);
    if !forward.mirrors.is_empty() {
        let Trial { thread, caller, .. } = *trial;
        let client = record.client();
        let trace = record.traced().and_then(|traced| traced.of_copy());
        let upload = record.upload.as_ref();
        let message = &*message;
        let original = Original { thread, root, caller, client, message, trace, version, upload, timeout };
        mirror::send(forward, original);
    }
    message
}

/// What the application at the other end speaks: what its port declares, else what the client speaks.
pub(super) fn speaks_http2(protocol: Protocol, client: Version) -> bool {
    protocol.is_http2() || (protocol == Protocol::Auto && client == Version::HTTP_2)
}

/// The same where no proxy stands before the endpoint: a rule may say otherwise then. Behind a proxy the application is
/// spoken to as its port declares, as between proxies it is HTTP/2 in any case.
pub(super) fn speaks_http2_directly(upstream: UpstreamProtocol, client: Version) -> bool {
    match upstream {
        UpstreamProtocol::Http2 => true,
        UpstreamProtocol::AsClient => client == Version::HTTP_2,
        UpstreamProtocol::Http1 | UpstreamProtocol::Opaque => false,
    }
}

/// The message upstream: rewritten as the rule says, its backend's header changes before the rule's.
pub(super) fn message(plan: &Plan, forward: &Forward, head: Box<Head>, record: &mut Record) -> Box<Message> {
    let (changes, of_answer) = (plan.request_changes(forward), plan.response_changes(forward));
    let varies = |changes: &[&HeaderOperations]| changes.iter().any(|change| change.has_variables());
    let told = (varies(&changes) || varies(&of_answer)).then(|| Told::before(&head, plan));
    let Head { method, mut authority, mut target, mut headers, .. } = *head;
    if !changes.iter().all(|change| change.is_empty()) {
        change_request(&mut headers, changes, told.as_ref(), record);
    }
    if let Some(rewritten) = forward.path.as_deref().and_then(|path| rewritten(path, target.query())) {
        if let Ok(original) = HeaderValue::from_str(target.as_str()) {
            headers.insert(&ORIGINAL_PATH, original);
        }
        target = rewritten;
    }
    if let Some(rewritten) = forward.authority.as_deref().and_then(|text| Authority::try_from(text).ok()) {
        if let Ok(original) = HeaderValue::from_str(authority.as_str()) {
            headers.insert(&ORIGINAL_HOST, original);
        }
        authority = rewritten;
    }
    record.pass_on_trace(&mut headers);
    if let Some(told) = told.filter(|_| varies(&of_answer)) {
        record.told = Some(told.after(&authority, &target, &headers));
    }
    Box::new(Message { method, authority, target, headers })
}

/// A rewritten path with the query that came. What no path may hold, which a rule can put in, is percent-encoded.
fn rewritten(path: &str, query: Option<&str>) -> Option<PathAndQuery> {
    let path = if path.starts_with('/') { Cow::Borrowed(path) } else { Cow::Owned(format!("/{path}")) };
    with_path(&path, query).or_else(|| {
        let mut encoded = String::with_capacity(path.len() + 8);
        for byte in path.bytes() {
            match byte {
                b'!'..=b'~' if !matches!(byte, b'"' | b'<' | b'>' | b'`' | b'{' | b'}') => {
                    encoded.push(char::from(byte));
                }
                _ => encoded.push_str(&format!("%{byte:02X}")),
            }
        }
        with_path(&encoded, query)
    })
}

/// Keeps what the changes of an answer of our own need to know of the request.
fn tell(record: &mut Record, plan: &Plan, head: &Head) {
    let varies = |changes: &AnswerChanges| changes.list().iter().any(|change| change.has_variables());
    if record.changes.as_ref().is_some_and(varies) {
        record.told = Some(Told::answered(head, plan));
    }
}

/// What every request carries: an id, and the scheme of its client. Whether it got the id here.
fn add_context(connection: &Outbound, head: &mut Head) -> bool {
    // Room for these and the fields of the hop at once: the map grows by hashing everything anew.
    head.headers.reserve(6);
    let mut own_id = false;
    head.headers.entry(&REQUEST_ID).or_insert_with(|| {
        own_id = true;
        let mut id = connection.thread.random(trace::request_id);
        // No secret, but unlike every other: in the table of HTTP/2 it would only drive out what comes again.
        id.set_sensitive(true);
        id
    });
    head.headers.entry(&FORWARDED_PROTO).or_insert_with(|| HeaderValue::from_static(USUAL_PROTO));
    own_id
}
