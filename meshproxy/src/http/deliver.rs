//! One request of another proxy, for a workload of this host: read, admit, deliver, reply, record.

use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::header::Entry;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use mesh_core::decide::inbound::{Admission, Inbound, admit, admit_known};
use mesh_core::decide::refusal::{Denial, Reason};
use mesh_core::decide::witness::Silent;
use mesh_core::message::internal::strip_mesh;
use mesh_core::message::request::{Head, Sender};
use mesh_core::policy::judge::Remarks;
use mesh_core::tables::workloads::HostedWorkload;

use super::again::{FailedThere, request_id};
use super::canonical;
use super::connection::{Heard, MeshPeer};
use super::deadline::Deadline;
use super::headers::{
    ATTEMPT_COUNT, CLIENT_CERT, EXPECTED_TIMEOUT, FORWARDED_PROTO, MESH_FAILED, MESH_HOP, MESH_PROXY,
    MESH_RETRY, USUAL_PROTO, number,
};
use super::limits;
use super::record::{Cluster, Record};
use super::reply::{self, Reply};
use super::send::{Message, connect_failed, late, plain};
use super::upgrade;
use crate::live::chain::Sign;
use crate::live::endpoint::Permit;
use crate::live::port::Port;
use crate::live::root::Root;
use crate::net::proxy_header::ProxyHeader;
use crate::runtime::clock;
use crate::telemetry::entry::Remarked;
use crate::telemetry::metrics::Reporter;
use crate::upstream::body::Upload;
use crate::upstream::failure::ConnectError;
use crate::upstream::way::{Target, Way};

/// An application on the same host answers a dial at once or not at all.
const PATIENCE: Duration = Duration::from_secs(2);
/// So much longer than the caller's proxy gives a request it is waited for: the word that the time is over is that proxy's.
const GRACE: Duration = Duration::from_millis(500);

/// One request of another proxy. It is judged before there is a future: the task of its stream is moved about, and what
/// is in it with it.
pub fn inbound(peer: Rc<MeshPeer>, request: Request<Incoming>) -> impl Future<Output = Reply> {
    let begun = begin(&peer, request);
    async move {
        match begun {
            Ok(delivery) => deliver(&peer, delivery).await,
            Err(refused) => *refused,
        }
    }
}

/// What is delivered, and where.
struct Delivery {
    record: Box<Record>,
    message: Box<Message>,
    targets: Targets,
    way: Option<Rc<Way>>,
    port: Option<Arc<Port>>,
    time: Option<Duration>,
    http2: bool,
    upgrade: Option<OnUpgrade>,
}

/// Reads and judges. A request that asks for a WebSocket comes as a CONNECT stream.
fn begin(peer: &MeshPeer, mut request: Request<Incoming>) -> Result<Delivery, Box<Reply>> {
    let root = peer.thread.view.root();
    let mut record = Record::begin(&peer.thread, &root, peer.shown(), Reporter::Destination, true);
    record.told_on = true;
    let upgrade = if request.method() == Method::CONNECT { upgrade::unpack(&mut request) } else { None };
    let (mut head, body) = match canonical::read(request, root.tables.normalization(), Sender::Proxy) {
        Ok(read) => read,
        Err(fault) => return Err(Box::new(reply::bad_request(record, fault))),
    };
    record.request(&head);
    if let Some(scarce) = peer.thread.pressure.refuses_streams() {
        return Err(Box::new(reply::overloaded(record, scarce)));
    }
    let heard = head.headers.get(&MESH_HOP).and_then(|said| peer.hear(said));
    record.source = heard.as_ref().map_or_else(|| peer.party(None), |heard| heard.party);
    let http2 = heard.as_ref().is_some_and(|heard| heard.http2);
    // Kept until the application has answered: it may end its connection without having taken the request.
    let upload = if http2 { Upload::of } else { Upload::once };
    record.uploads(upload(body, &peer.thread.bodies));
    let Some(heard) = heard else {
        let status = StatusCode::MISDIRECTED_REQUEST;
        return Err(Box::new(reply::plain(record, status, "NR", "workload_not_found", "")));
    };
    // The one field that is there nearly always has been read.
    let proxy = if head.mesh > 1 { head.headers.get(&MESH_PROXY).and_then(proxy_header) } else { None };
    if head.mesh > 1 && head.headers.contains_key(&MESH_RETRY) {
        peer.thread.view.roots().chain.note(request_id(&head.headers), Sign::Retried);
    }
    strip_mesh(&mut head.headers, head.mesh);
    // What is judged is what the application receives.
    add_client_cert(&mut head.headers, &peer.client_cert);
    // What the caller's proxy leaves out.
    head.headers.entry(&FORWARDED_PROTO).or_insert_with(|| HeaderValue::from_static(USUAL_PROTO));
    head.headers.entry(&ATTEMPT_COUNT).or_insert_with(|| number(1));
    let Entered { targets, way, port, mut record } = enter(peer, &root, (&heard, proxy), &mut head, record)?;
    record.upstream = targets.first().copied();
    let time = head.headers.get(&EXPECTED_TIMEOUT).and_then(time);
    let Head { method, authority, target, mut headers, .. } = *head;
    record.pass_on_trace(&mut headers);
    let message = Box::new(Message { method, authority, target, headers });
    Ok(Delivery { record, message, targets, way, port, time, http2, upgrade })
}

async fn deliver(peer: &MeshPeer, delivery: Delivery) -> Reply {
    let Delivery { mut record, message, targets, way, port, time, http2, upgrade } = delivery;
    if let Some(port) = &port {
        match Box::pin(port.request(!http2 || upgrade.is_some())).await {
            Ok(permit) => record.permit = Some(permit),
            Err(overflow) => return reply::failed(record, connect_failed(ConnectError::from(overflow))),
        }
    }
    let patience = port.as_ref().and_then(|port| port.connect_timeout).unwrap_or(PATIENCE);
    let target = Target { addresses: &targets, patience, way: way.as_ref(), place: None };
    if let Some(client) = upgrade {
        return Box::pin(upgrade::deliver(record, message, target, client)).await;
    }
    // Something may be told of it while it is under way.
    let chain = &peer.thread.view.roots().chain;
    let id = if chain.knows_any() { request_id(&message.headers) } else { 0 };
    let target = Target { place: record.permit.as_ref().and_then(Permit::place), ..target };
    let sent = {
        // Pinned here: each way of waiting would keep a place for it.
        let mut sending = pin!(plain(&peer.thread, message, record.upload.as_ref(), target, http2));
        let mut deadline = time.map(|time| {
            let upload = record.upload.as_ref();
            Box::new(Deadline::new(time + GRACE, record.started(), upload))
        });
        let in_time = poll_fn(|cx| match (sending.as_mut().poll(cx), &mut deadline) {
            (Poll::Pending, Some(deadline)) => deadline.poll(cx).map(|()| Err(late())),
            (sent, _) => sent,
        });
        match &record.standing {
            Some(standing) => standing.unless_refused(in_time).await,
            None => Ok(in_time.await),
        }
    };
    let sent = match sent {
        Ok(sent) => sent,
        Err(refusal) => return reply::cut_off(record, &refusal),
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

/// Adds what is told of the caller's certificate to what proxies before it have told (Istio's APPEND_FORWARD).
pub(super) fn add_client_cert(headers: &mut HeaderMap, element: &HeaderValue) {
    match headers.entry(&CLIENT_CERT) {
        Entry::Vacant(none) => {
            none.insert(element.clone());
        }
        Entry::Occupied(mut before) => {
            let all: Vec<&[u8]> = before.iter().chain([element]).map(HeaderValue::as_bytes).collect();
            let joined = HeaderValue::from_bytes(&all.join(&b","[..]));
            before.insert(joined.unwrap_or_else(|_| element.clone()));
        }
    }
}

/// The PROXY header that the application wants, of which the caller's proxy knows.
fn proxy_header(field: &HeaderValue) -> Option<ProxyHeader> {
    ProxyHeader::from_field(field.to_str().ok()?)
}

/// Where a request is delivered, how connections there begin and are limited, and its record.
pub(super) struct Entered {
    pub(super) targets: Targets,
    pub(super) way: Option<Rc<Way>>,
    pub(super) port: Option<Arc<Port>>,
    pub(super) record: Box<Record>,
}

/// Judges a request: where it is delivered, or the answer in its place. What is known only here is gone before
/// anything is waited for.
fn enter(
    peer: &MeshPeer,
    root: &Root,
    (heard, proxy): (&Heard, Option<ProxyHeader>),
    head: &mut Head,
    mut record: Box<Record>,
) -> Result<Entered, Box<Reply>> {
    let to = heard.to;
    let hosted = root.tables.workload_shown(to, &peer.own);
    if let Some(local) = hosted.and_then(|hosted| root.local(hosted)) {
        record.tell_for(local);
    }
    record.trace(head, false);
    let seen = head.seen();
    let facts = Inbound {
        to,
        peer: Some(&peer.id),
        shown: Some(&peer.own),
        source: Some(peer.facts.peer.ip()),
        sni: heard.server_name.as_deref(),
        request: Some(&seen),
        now: clock::seconds(),
    };
    let admitted = match hosted {
        Some(hosted) => admit_known(hosted, &facts, &mut Silent),
        None => admit(&root.tables, &facts, &mut Silent),
    };
    let admission = match admitted {
        Ok(admission) => admission,
        Err(refusal) => {
            name_party(root, hosted, to, &mut record);
            if let Reason::Denied(Denial { remarks: Some(remarks), .. }) = &refusal.reason {
                record.remarked = remarked_of(root, hosted, remarks);
            }
            return Err(Box::new(reply::refuse(record, &refusal)));
        }
    };
    name_party(root, hosted, to, &mut record);
    if let Some(remarks) = &admission.judgement.remarks {
        record.remarked = remarked_of(root, hosted, remarks);
    }
    if admission.judgement.ask.is_some() {
        // Nobody is asked here yet, and unasked nothing that a CUSTOM policy is about may pass.
        return Err(Box::new(reply::plain(record, StatusCode::FORBIDDEN, "UAEX", "ext_authz_error", "")));
    }
    if let Err(refused) = limits::enter(root, &admission, &facts, &mut record) {
        return Err(Box::new(reply::too_much(record, *refused)));
    }
    let targets = targets(root, &admission, to);
    let local = root.local(&admission.workload);
    let port = local.and_then(|local| local.port(admission.port)).cloned();
    let way = Way::into(local, proxy, port.as_ref().and_then(|port| port.settings.clone()));
    let Admission { workload, judgement, .. } = admission;
    record.standing =
        Some(peer.thread.standings.enter(workload, &facts, heard.server_name.as_ref(), Some(head)));
    if let Some(rewritten) = judgement.token.headers {
        head.headers = rewritten;
    }
    Ok(Entered { targets, way, port, record })
}

/// Counts what policies have written down, and puts it into words for the log.
pub fn remarked(root: &Root, to: SocketAddr, remarks: &Remarks) -> Option<Box<Remarked>> {
    remarked_of(root, root.tables.workload_at(to), remarks)
}

/// The same for a workload that is already known.
pub fn remarked_of(
    root: &Root,
    hosted: Option<&Arc<HostedWorkload>>,
    remarks: &Remarks,
) -> Option<Box<Remarked>> {
    let hosted = hosted?;
    Some(root.local(hosted)?.remarkers.note(hosted, remarks))
}

/// Where the application listens: the workload's own address, else loopback if no other workload of this host has the
/// port. Loopback only for ports that a service reaches: what else listens there is none of the mesh's business. Those
/// in other network namespaces have a loopback of their own.
pub fn targets(root: &Root, admission: &Admission, to: SocketAddr) -> Targets {
    let section = &admission.workload.section;
    let known = admission.workload.port(admission.port).is_some();
    let others = root
        .locals
        .iter()
        .filter(|local| local.hosted.section.key != section.key)
        .filter(|local| local.hosted.section.recognition.netns == section.recognition.netns)
        .any(|local| local.hosted.port(admission.port).is_some());
    let loopback = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), admission.port);
    Targets { addresses: [to, loopback], count: if known && !others { 2 } else { 1 } }
}

/// One or two addresses of an application, the first of which that does not refuse is taken.
#[derive(Debug, Clone, Copy)]
pub struct Targets {
    addresses: [SocketAddr; 2],
    count: usize,
}

impl Targets {
    /// One address.
    pub fn only(address: SocketAddr) -> Targets {
        Targets { addresses: [address; 2], count: 1 }
    }
}

impl Deref for Targets {
    type Target = [SocketAddr];

    fn deref(&self) -> &[SocketAddr] {
        &self.addresses[..self.count]
    }
}

pub(super) fn name_parties(root: &Root, to: SocketAddr, record: &mut Record) {
    name_party(root, root.tables.workload_at(to), to, record);
}

/// The same for a workload that is already known.
fn name_party(root: &Root, hosted: Option<&Arc<HostedWorkload>>, to: SocketAddr, record: &mut Record) {
    record.cluster = Cluster::Inbound(to.port());
    if let Some(local) = hosted.and_then(|hosted| root.local(hosted)) {
        record.tell_for(local);
        record.destination = local.party.number;
        record.service = local.service(to.port()).number;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proxies_before_have_told_of_stays_before() {
        for (before, expected) in [
            (&[][..], "By=c;URI=d"),
            (&["By=a;URI=b"], "By=a;URI=b,By=c;URI=d"),
            (&["By=a", "By=b"], "By=a,By=b,By=c;URI=d"),
        ] {
            let mut headers = HeaderMap::new();
            for element in before {
                headers.append(&CLIENT_CERT, HeaderValue::from_static(element));
            }
            add_client_cert(&mut headers, &HeaderValue::from_static("By=c;URI=d"));
            let all: Vec<&HeaderValue> = headers.get_all(&CLIENT_CERT).iter().collect();
            assert_eq!(all, [expected]);
        }
    }
}
