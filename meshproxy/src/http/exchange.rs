//! One request of an application, top to bottom: read, decide, delay or abort, attempt, reply, record.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use http::uri::Authority;
use http::{HeaderValue, Request, Version};
use hyper::body::Incoming;
use mesh_core::decide::facts::OutboundRequest;
use mesh_core::decide::plan::{Action, Forward, Plan};
use mesh_core::decide::refusal::{Reason, Refusal};
use mesh_core::decide::request;
use mesh_core::decide::witness::Silent;
use mesh_core::matching::authority::Authority as Strict;
use mesh_core::resilience::timeout::{CONNECT_TIMEOUT, request_timeout};
use mesh_core::routing::rule::RuleAction;
use mesh_core::vocab::label::Labels;
use mesh_core::vocab::outcome::Outcome;
use mesh_core::vocab::protocol::Protocol;

use super::attempt::{Message, Trial, Tried, plain};
use super::canonical::{self, Head, with_path};
use super::connection::{Entrance, Outbound, caller, namespace};
use super::headers::{
    FORWARDED_PROTO, GRPC_TIMEOUT, ORIGINAL_HOST, ORIGINAL_PATH, REQUEST_ID, strip_internal,
};
use super::record::{Cluster, Record, named};
use super::reply::{self, Reply};
use super::upgrade;
use crate::live::local::LocalWorkload;
use crate::live::root::Root;
use crate::live::view::Held;
use crate::telemetry::labels::ServiceLabels;
use crate::telemetry::metrics::Reporter;
use crate::telemetry::trace;
use crate::upstream::body::Upload;
use crate::upstream::resolve;

/// One request of an application of this host.
pub async fn outbound(connection: &Outbound, mut request: Request<Incoming>) -> Reply {
    let root = connection.thread.view.root();
    let mut record = Record::begin(&connection.thread, &root, connection.shown(), Reporter::Source, false);
    let upgrade = upgrade::asked(&mut request);
    let (mut head, body) = match canonical::read(request) {
        Ok(read) => read,
        Err(bad) => return reply::bad_request(record, bad),
    };
    strip_internal(&mut head.headers, &head.found);
    add_context(connection, &mut head);
    record.request(&head);
    record.upload = Upload::of(body);
    let local = connection.local(&root);
    record.source = local.map_or(0, |local| local.party.number);
    let plan = match decide(connection, &root, local, &head) {
        Ok(plan) => plan,
        Err(refusal) => return Box::pin(refused(connection, head, record, &refusal)).await,
    };
    note_plan(&root, &plan, &mut record);
    if let Some(delay) = plan.fault.delay {
        record.flags.push("DI");
        tokio::time::sleep(delay).await;
    }
    if let Some(abort) = plan.fault.abort {
        return reply::abort(record, abort);
    }
    match &plan.action {
        Action::Forward(forward) => match upgrade {
            None => send_on(&root, local, &plan, forward, head, record).await,
            Some(client) => {
                Box::pin(upgrade::send_on(&root, local, &plan, forward, head, client, record)).await
            }
        },
        Action::Redirect { status, location } => reply::redirect(record, &plan, *status, location),
        Action::Respond { status, body } => reply::respond(record, &plan, *status, body.clone()),
        Action::Preflight { fields } => reply::preflight(record, fields),
    }
}

fn decide(
    connection: &Outbound,
    root: &Root,
    local: Option<&Arc<LocalWorkload>>,
    head: &Head,
) -> Result<Plan, Refusal> {
    let port = match &connection.entrance {
        Entrance::Service(service) => service.port,
        Entrance::Explicit => head.authority.port_u16().unwrap_or(80),
    };
    let owner = connection.service(root);
    let nowhere = Labels::default();
    let namespace = if local.is_none() { namespace(root) } else { "".into() };
    let caller = caller(local, &namespace, &nowhere);
    let facts = OutboundRequest { request: head.seen(), port, owner, caller: Some(caller) };
    connection.thread.random(|random| request::outbound(&root.tables, &facts, random, &mut Silent))
}

/// What the decision says about an exchange, for metrics and the log.
fn note_plan(root: &Root, plan: &Plan, record: &mut Record) {
    if record.thread().log.is_on() {
        record.route = plan.route_name().map(Cow::Owned);
    }
    match &plan.action {
        Action::Forward(forward) => {
            let destination = &root.destinations[forward.destination];
            record.cluster = named(&destination.destination.cluster);
            record.service = destination.service.number;
        }
        Action::Redirect { .. } | Action::Respond { .. } | Action::Preflight { .. } => {
            if let Some(service) = &plan.service {
                let labels = ServiceLabels::of(&service.host, &service.namespace);
                record.service = record.thread().metrics().service(labels).number;
            }
        }
    }
}

/// The attempts at the destination, and what comes back.
async fn send_on(
    root: &Held,
    local: Option<&Arc<LocalWorkload>>,
    plan: &Plan,
    forward: &Forward,
    head: Head,
    mut record: Box<Record>,
) -> Reply {
    let destination = &root.destinations[forward.destination];
    let grpc_timeout = if head.grpc { head.headers.get(&GRPC_TIMEOUT) } else { None };
    let timeout = request_timeout(forward.timeout, grpc_timeout.and_then(|value| value.to_str().ok()));
    let rule = plan.rule();
    let thread = Rc::clone(record.thread());
    let trial = Trial {
        thread: &thread,
        root,
        destination,
        caller: local,
        retry: &rule.retry,
        http2: speaks_http2(destination.destination.policy.protocol, head.version),
        timeout,
        deadline: timeout.map(|timeout| record.started() + timeout),
    };
    let message = message(plan, forward, head);
    let Tried { endpoint, permit, result, exhausted } = trial.run(message, record.upload.as_ref()).await;
    record.permit = permit;
    if let Some(endpoint) = endpoint.map(|index| &destination.endpoints[index]) {
        record.upstream = endpoint.address;
        record.destination = endpoint.party.number;
    }
    match result {
        None => reply::no_healthy(record),
        // Envoy counts the client's own limit as the duration of the stream, not as a slow upstream.
        Some(Err(failure)) if failure.outcome == Outcome::RequestTimeout && timeout != forward.timeout => {
            reply::out_of_time(record)
        }
        Some(Err(failure)) => reply::failed(record, failure),
        Some(Ok(answer)) => {
            if exhausted {
                record.flags.push("URX");
            }
            let deadline = trial.deadline;
            match &rule.action {
                RuleAction::Route { backends, .. } => {
                    let changes = [&backends[forward.backend].response_headers, &rule.response_headers];
                    reply::pass_on(answer.response, answer.held, record, &changes, deadline)
                }
                RuleAction::Redirect(_) | RuleAction::DirectResponse(_) => {
                    reply::pass_on(answer.response, answer.held, record, &[], deadline)
                }
            }
        }
    }
}

/// What the application at the other end speaks: what its port declares, else what the client speaks.
fn speaks_http2(protocol: Protocol, client: Version) -> bool {
    protocol.is_http2() || (protocol == Protocol::Auto && client == Version::HTTP_2)
}

/// The message upstream: rewritten as the rule says, its backend's header changes before the rule's.
pub(super) fn message(plan: &Plan, forward: &Forward, head: Head) -> Message {
    let Head { method, mut authority, mut target, mut headers, .. } = head;
    let rule = plan.rule();
    if let RuleAction::Route { backends, .. } = &rule.action {
        backends[forward.backend].request_headers.apply_to_request(&mut headers, &|_| None);
    }
    rule.request_headers.apply_to_request(&mut headers, &|_| None);
    if let Some(rewritten) = forward.path.as_deref().and_then(|path| with_path(path, target.query())) {
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
    Message { method, authority, target, headers }
}

/// What every request carries: an id, and the scheme of its client.
fn add_context(connection: &Outbound, head: &mut Head) {
    // Room for these and the fields of the hop at once: the map grows by hashing everything anew.
    head.headers.reserve(10);
    if !head.headers.contains_key(&REQUEST_ID) {
        let mut id = connection.thread.random(trace::request_id);
        // No secret, but unlike every other: in the table of HTTP/2 it would only drive out what comes again.
        id.set_sensitive(true);
        head.headers.insert(&REQUEST_ID, id);
    }
    if !head.headers.contains_key(&FORWARDED_PROTO) {
        head.headers.insert(&FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
}

/// A refusal, unless the host is nobody's and the client used the HTTP proxy: then it goes where it asked to go.
async fn refused(connection: &Outbound, head: Head, mut record: Box<Record>, refusal: &Refusal) -> Reply {
    let unknown = matches!(refusal.reason, Reason::UnknownHost);
    if unknown && matches!(connection.entrance, Entrance::Explicit) {
        return pass_through(connection, head, record).await;
    }
    if let Some(service) = &refusal.service {
        let labels = ServiceLabels::of(&service.host, &service.namespace);
        record.service = record.thread().metrics().service(labels).number;
    }
    if let Reason::NoDestination { cluster } = &refusal.reason {
        record.cluster = Cluster::Named(cluster.as_str().into());
    }
    reply::refuse(record, refusal)
}

async fn pass_through(connection: &Outbound, head: Head, mut record: Box<Record>) -> Reply {
    let thread = &connection.thread;
    record.route = Some(Cow::Borrowed("allow_any"));
    record.cluster = Cluster::Passthrough;
    record.service = thread.metrics().service(ServiceLabels::outside("PassthroughCluster")).number;
    let host = Strict::parse(head.authority.as_str()).map_or("", |authority| authority.host).to_owned();
    let port = head.authority.port_u16().unwrap_or(80);
    let addresses = match resolve::outside(thread.view.roots(), &host, port).await {
        Ok(addresses) => addresses,
        Err(error) => {
            if matches!(error, crate::upstream::failure::ConnectError::Loop) {
                thread.metrics().proxy.loops_refused.increment(1);
            }
            let failure = reply::Failure {
                outcome: error.outcome(),
                transport: error.to_string(),
                retried: false,
                exhausted: false,
            };
            return reply::failed(record, failure);
        }
    };
    record.upstream = addresses.first().copied();
    let http2 = head.version == Version::HTTP_2;
    let Head { method, authority, target, headers, .. } = head;
    let message = Message { method, authority, target, headers };
    let sent = plain(thread, message, record.upload.as_ref(), &addresses, http2, CONNECT_TIMEOUT);
    match sent.await {
        Ok(answer) => reply::pass_on(answer.response, answer.held, record, &[], None),
        Err(failure) => reply::failed(record, failure),
    }
}
