//! One request of another proxy, for a workload of this host: read, admit, deliver, reply, record.

use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use http::{HeaderValue, Request, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use mesh_core::decide::inbound::{Admission, Inbound, admit};
use mesh_core::decide::witness::Silent;
use mesh_core::message::internal::strip_mesh;
use mesh_core::message::request::{Head, Sender};

use super::again::{FailedThere, request_id};
use super::attempt::{Answer, Message, connect_failed, late, plain};
use super::canonical;
use super::connection::MeshPeer;
use super::deadline::Deadline;
use super::headers::{
    CLIENT_CERT, EXPECTED_TIMEOUT, FORWARDED_PROTO, MESH_FAILED, MESH_FROM, MESH_PROTO, MESH_PROXY,
    MESH_RETRY, MESH_TO,
};
use super::record::{Cluster, Record};
use super::reply::{self, Failure, Reply};
use super::upgrade;
use crate::live::chain::Sign;
use crate::live::endpoint::Permit;
use crate::live::root::Root;
use crate::net::proxy_header::ProxyHeader;
use crate::runtime::clock;
use crate::telemetry::metrics::Reporter;
use crate::upstream::body::Upload;
use crate::upstream::failure::ConnectError;
use crate::upstream::way::{Target, Way};

/// An application on the same host answers a dial at once or not at all.
const PATIENCE: Duration = Duration::from_secs(2);
/// So much longer than the caller's proxy gives a request it is waited for: the word that the time is over is that proxy's.
const GRACE: Duration = Duration::from_millis(500);

/// One request of another proxy.
pub async fn inbound(peer: &MeshPeer, request: Request<Incoming>) -> Reply {
    serve(peer, request, None).await
}

/// The same for a request that asks for a WebSocket and came as a CONNECT stream.
pub async fn inbound_upgrade(peer: &MeshPeer, mut request: Request<Incoming>) -> Reply {
    let to = request.uri().authority().and_then(|to| HeaderValue::from_str(to.as_str()).ok());
    let upgrade = upgrade::unpack(&mut request);
    if let (Some(to), Some(_)) = (to, &upgrade) {
        request.headers_mut().insert(&MESH_TO, to);
    }
    serve(peer, request, upgrade).await
}

async fn serve(peer: &MeshPeer, request: Request<Incoming>, upgrade: Option<OnUpgrade>) -> Reply {
    let root = peer.thread.view.root();
    let mut record = Record::begin(&peer.thread, &root, peer.shown(), Reporter::Destination, true);
    let (mut head, body) = match canonical::read(request, root.tables.normalization(), Sender::Proxy) {
        Ok(read) => read,
        Err(fault) => return reply::bad_request(record, fault),
    };
    record.request(&head);
    record.source = peer.party(head.headers.get(&MESH_FROM));
    let http2 = head.headers.get(&MESH_PROTO).is_some_and(|proto| proto == "h2");
    // Kept until the application has answered: it may end its connection without having taken the request.
    let upload = if http2 { Upload::of } else { Upload::once };
    record.upload = upload(body, &peer.thread.bodies);
    let Some(to) = head.headers.get(&MESH_TO).and_then(address) else {
        return reply::plain(record, StatusCode::MISDIRECTED_REQUEST, "NR", "workload_not_found", "");
    };
    let proxy = head.headers.get(&MESH_PROXY).and_then(proxy);
    let chain = &peer.thread.view.roots().chain;
    if head.headers.contains_key(&MESH_RETRY) {
        chain.note(request_id(&head.headers), Sign::Retried);
    }
    strip_mesh(&mut head.headers, head.mesh);
    let (targets, mut record) = match enter(peer, &root, to, &mut head, record) {
        Ok(entered) => entered,
        Err(refused) => return *refused,
    };
    head.headers.append(&CLIENT_CERT, peer.client_cert.clone());
    record.upstream = targets.first().copied();
    let time = head.headers.get(&EXPECTED_TIMEOUT).and_then(time);
    // Something may be told of it while it is under way.
    let id = if chain.knows_any() { request_id(&head.headers) } else { 0 };
    let message = Message {
        method: head.method,
        authority: head.authority,
        target: head.target,
        headers: head.headers,
    };
    let port = root.tables.workload_at(to).and_then(|hosted| root.local(hosted)?.port(to.port()));
    if let Some(port) = port {
        match Box::pin(port.request(!http2 || upgrade.is_some())).await {
            Ok(permit) => record.permit = Some(permit),
            Err(overflow) => return reply::failed(record, connect_failed(ConnectError::from(overflow))),
        }
    }
    let settings = port.and_then(|port| port.settings.clone());
    let way = (proxy.is_some() || settings.is_some())
        .then(|| Rc::new(Way { unix: None, proxy, tls: None, settings }));
    let patience = port.and_then(|port| port.connect_timeout).unwrap_or(PATIENCE);
    let target = Target { addresses: &targets, patience, way: way.as_ref(), place: None };
    if let Some(client) = upgrade {
        return Box::pin(upgrade::deliver(record, message, target, client)).await;
    }
    let target = Target { place: record.permit.as_ref().and_then(Permit::place), ..target };
    let sent = match time {
        None => plain(&peer.thread, message, record.upload.as_ref(), target, http2).await,
        Some(time) => {
            let deadline = Deadline::new(time + GRACE, record.started(), record.upload.as_ref());
            let sending = plain(&peer.thread, message, record.upload.as_ref(), target, http2);
            Box::pin(within(deadline, sending)).await
        }
    };
    if let (true, Some(upload)) = (http2, &record.upload) {
        upload.settle();
    }
    let (mut reply, told) = match sent {
        Ok(answer) => {
            let failed = answer.response.status().is_server_error();
            let given_up = failed && id != 0 && chain.knows(id, Sign::GivenUp);
            (reply::pass_on(answer, record, &[], None), given_up.then_some(FailedThere::GivenUp))
        }
        Err(failure) => {
            let untaken = failure.outcome.never_arrived();
            (reply::failed(record, failure), untaken.then_some(FailedThere::Untaken))
        }
    };
    if let Some(told) = told {
        reply.headers_mut().insert(&MESH_FAILED, told.value());
    }
    reply
}

/// The time that the caller's proxy gives the request. Longer than that nobody waits, even where its end is not heard of.
fn time(field: &HeaderValue) -> Option<Duration> {
    let milliseconds: u64 = field.to_str().ok()?.parse().ok()?;
    (milliseconds > 0).then(|| Duration::from_millis(milliseconds))
}

async fn within(
    mut deadline: Deadline,
    sending: impl Future<Output = Result<Answer, Failure>>,
) -> Result<Answer, Failure> {
    tokio::select! {
        sent = sending => sent,
        () = poll_fn(|cx| deadline.poll(cx)) => Err(late()),
    }
}

/// How the application wants to be connected to, of which the caller's proxy knows.
fn proxy(field: &HeaderValue) -> Option<ProxyHeader> {
    ProxyHeader::from_field(field.to_str().ok()?)
}

/// Judges a request: where it is delivered, or the answer in its place. What is known only here is gone before
/// anything is waited for.
fn enter(
    peer: &MeshPeer,
    root: &Root,
    to: SocketAddr,
    head: &mut Head,
    mut record: Box<Record>,
) -> Result<(Vec<SocketAddr>, Box<Record>), Box<Reply>> {
    let seen = head.seen();
    let facts = Inbound {
        to,
        peer: Some(&peer.id),
        source: Some(peer.facts.peer.ip()),
        sni: None,
        request: Some(&seen),
        now: clock::seconds(),
    };
    let admission = match admit(&root.tables, &facts, &mut Silent) {
        Ok(admission) => admission,
        Err(refusal) => {
            name_parties(root, to, &mut record);
            return Err(Box::new(reply::refuse(record, &refusal)));
        }
    };
    name_parties(root, to, &mut record);
    if admission.judgement.ask.is_some() {
        // Nobody is asked here yet, and unasked nothing that a CUSTOM policy is about may pass.
        return Err(Box::new(reply::plain(record, StatusCode::FORBIDDEN, "UAEX", "ext_authz_error", "")));
    }
    if !is_shown(peer, &admission) {
        let status = StatusCode::MISDIRECTED_REQUEST;
        return Err(Box::new(reply::plain(record, status, "NR", "identity_not_of_workload", "")));
    }
    if let Some(rewritten) = &admission.judgement.token.headers {
        head.headers = rewritten.clone();
    }
    if !head.headers.contains_key(&FORWARDED_PROTO) {
        head.headers.insert(&FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    Ok((targets(root, &admission, to), record))
}

fn address(value: &HeaderValue) -> Option<SocketAddr> {
    value.to_str().ok()?.parse().ok()
}

/// The identity that we showed in the handshake must be that of the workload: the caller expected nobody else.
pub fn is_shown(peer: &MeshPeer, admission: &Admission) -> bool {
    admission.workload.section.identity.as_ref() == Some(&peer.own)
}

/// Where the application listens: the workload's own address, else loopback if no other workload of this host has the
/// port. Loopback only for ports that a service reaches: what else listens there is none of the mesh's business.
pub fn targets(root: &Root, admission: &Admission, to: SocketAddr) -> Vec<SocketAddr> {
    let known = admission.workload.port(admission.port).is_some();
    let others = root
        .locals
        .iter()
        .filter(|local| local.hosted.section.key != admission.workload.section.key)
        .any(|local| local.hosted.port(admission.port).is_some());
    let mut targets = vec![to];
    if known && !others {
        targets.push(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), admission.port));
    }
    targets
}

fn name_parties(root: &Root, to: SocketAddr, record: &mut Record) {
    record.cluster = Cluster::Inbound(to.port());
    if let Some(local) = root.tables.workload_at(to).and_then(|hosted| root.local(hosted)) {
        record.destination = local.party.number;
        record.service = local.service(to.port()).number;
    }
}
