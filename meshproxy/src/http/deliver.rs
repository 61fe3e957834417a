//! One request of another proxy, for a workload of this host: read, admit, deliver, reply, record.

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

use super::attempt::{Message, plain};
use super::canonical;
use super::connection::MeshPeer;
use super::headers::{CLIENT_CERT, FORWARDED_PROTO, MESH_FROM, MESH_PROTO, MESH_PROXY, MESH_TO};
use super::record::{Cluster, Record};
use super::reply::{self, Reply};
use super::upgrade;
use crate::live::root::Root;
use crate::net::proxy_header::ProxyHeader;
use crate::runtime::clock;
use crate::telemetry::metrics::Reporter;
use crate::upstream::body::Upload;
use crate::upstream::way::{Target, Way};

/// An application on the same host answers a dial at once or not at all.
const PATIENCE: Duration = Duration::from_secs(2);

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
    if let Some(scarce) = peer.thread.pressure.refuses_streams() {
        return reply::overloaded(record, scarce);
    }
    record.source = peer.party(head.headers.get(&MESH_FROM));
    let http2 = head.headers.get(&MESH_PROTO).is_some_and(|proto| proto == "h2");
    // Kept until the application has answered: it may end its connection without having taken the request.
    let upload = if http2 { Upload::of } else { Upload::once };
    record.upload = upload(body, &peer.thread.bodies);
    let Some(to) = head.headers.get(&MESH_TO).and_then(address) else {
        return reply::plain(record, StatusCode::MISDIRECTED_REQUEST, "NR", "workload_not_found", "");
    };
    let way = head.headers.get(&MESH_PROXY).and_then(way);
    strip_mesh(&mut head.headers, head.mesh);
    let (targets, mut record) = match enter(peer, &root, to, &mut head, record) {
        Ok(entered) => entered,
        Err(refused) => return *refused,
    };
    head.headers.append(&CLIENT_CERT, peer.client_cert.clone());
    record.upstream = targets.first().copied();
    let message = Message {
        method: head.method,
        authority: head.authority,
        target: head.target,
        headers: head.headers,
    };
    let target = Target { addresses: &targets, patience: PATIENCE, way: way.as_ref() };
    if let Some(client) = upgrade {
        return Box::pin(upgrade::deliver(record, message, target, client)).await;
    }
    let sent = plain(&peer.thread, message, record.upload.as_ref(), target, http2).await;
    if let (true, Some(upload)) = (http2, &record.upload) {
        upload.settle();
    }
    match sent {
        Ok(answer) => reply::pass_on(answer, record, &[], None),
        Err(failure) => reply::failed(record, failure),
    }
}

/// How the application wants to be connected to, of which the caller's proxy knows.
fn way(field: &HeaderValue) -> Option<Rc<Way>> {
    let proxy = ProxyHeader::from_field(field.to_str().ok()?)?;
    Some(Rc::new(Way { unix: None, proxy: Some(proxy), tls: None }))
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
