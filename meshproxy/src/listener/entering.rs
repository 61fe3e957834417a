//! Captured connections to applications of this host, with the address that they were opened to: in the clear, as mutual
//! TLS of the mesh that ends here, or as TLS of the application's own.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use hyper::body::Incoming;
use mesh_core::decide::captured;
use mesh_core::decide::entry::{self, Entry, First, Inside, Wait};
use mesh_core::decide::refusal::{Denial, Reason};
use mesh_core::decide::witness::Silent;
use mesh_core::vocab::hello::{self, Offered};
use mesh_core::vocab::identity::SpiffeId;
use mesh_core::vocab::name::Text;
use mesh_core::vocab::protocol::Detected;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::accept::Worker;
use super::handshake::{self, Proven};
use super::inbound::age;
use crate::http::connection::MeshPeer;
use crate::http::deliver::{Targets, remarked, targets};
use crate::http::entering::{self, Entrant, PASSED};
use crate::http::server;
use crate::identity::client_cert;
use crate::live::breaker::Overflow;
use crate::live::root::Root;
use crate::net::downstream::{Facts, look, server_name};
use crate::net::limits;
use crate::net::patient::Patient;
use crate::net::rewind::Rewind;
use crate::tcp::{StreamRecord, turned};
use crate::telemetry::metrics::{Reporter, Side};
use crate::telemetry::shed::Shed;
use crate::upstream::failure;
use crate::upstream::resolve;

/// An application on the same host answers a dial at once or not at all.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was found out before anything is decided.
struct Arrival {
    first: First,
    head: Bytes,
    offered: Offered,
    server_name: Option<Text>,
}

/// Serves a captured connection; `facts.local` is the address that it was opened to.
pub(super) async fn serve(worker: &Worker, mut stream: TcpStream, facts: Facts) {
    let thread = &worker.thread;
    let root = thread.view.root();
    if resolve::is_own(thread.view.roots(), &root, facts.local) {
        thread.metrics().proxy.loops_refused.increment(1);
        return;
    }
    let entered = captured::entered(&root.tables, facts.local);
    let (mode, protocol) = captured::manner(&entered, facts.local.port());
    let own = captured::shown(&entered);
    drop(entered);
    drop(root);
    let patience = match entry::wait(mode, protocol) {
        Wait::Never => None,
        Wait::AWhile => Some(limits::here().patience.detection),
        Wait::ForBytes => Some(limits::here().patience.first_byte),
    };
    let Some(arrival) = arrive(&mut stream, patience).await else {
        return refuse(worker, facts, None, "no_first_bytes");
    };
    let Arrival { first, head, offered, server_name } = arrival;
    let stream = Rewind::new(head, stream);
    match entry::enter(mode, protocol, first) {
        Entry::Refuse => {
            let reason = match first {
                First::Clear(_) => "plaintext",
                First::Tls(_) => "tls",
            };
            refuse(worker, facts, server_name, reason);
        }
        Entry::PassOn => {
            let entrant = Entrant::new(Rc::clone(thread), facts, None, server_name);
            bytes(entrant, stream).await;
        }
        Entry::Clear(inside) => {
            let http2 = first == First::Clear(Detected::Http2);
            let entrant = Entrant::new(Rc::clone(thread), facts, None, server_name);
            match inside {
                Inside::Requests => requests(entrant, stream, http2).await,
                Inside::Bytes => bytes(entrant, stream).await,
            }
        }
        Entry::Terminate(inside) => {
            let Some(own) = own else { return refuse(worker, facts, server_name, "no_identity") };
            Box::pin(terminate(worker, stream, facts, (own, offered, server_name), inside)).await;
        }
    }
}

/// Reads what tells the protocol. `None` where a client that must speak says nothing, or half a greeting.
async fn arrive(stream: &mut TcpStream, patience: Option<Duration>) -> Option<Arrival> {
    let nothing = Offered::default();
    let Some(patience) = patience else {
        let first = First::Clear(Detected::NeedMore);
        return Some(Arrival { first, head: Bytes::new(), offered: nothing, server_name: None });
    };
    let looked = look(stream, patience).await.ok()?;
    let is_silent =
        looked.head.is_empty() && (looked.ended || patience == limits::here().patience.first_byte);
    if is_silent {
        return None;
    }
    if looked.detected != Detected::Tls {
        let first = First::Clear(looked.detected);
        return Some(Arrival { first, head: looked.head, offered: nothing, server_name: None });
    }
    let (head, server_name) =
        server_name(stream, looked.head, limits::here().patience.detection).await.ok()?;
    let offered = hello::offered(&head)?;
    Some(Arrival { first: First::Tls(offered), head, offered, server_name: server_name.map(Text::from) })
}

/// Ends mutual TLS, and serves what is in it.
async fn terminate(
    worker: &Worker,
    stream: Rewind<TcpStream>,
    facts: Facts,
    (own, offered, server_name): (SpiffeId, Offered, Option<Text>),
    inside: Inside,
) {
    let thread = &worker.thread;
    let material = thread.svids.load();
    let Some(config) = material.direct(&own, offered) else {
        return refuse(worker, facts, server_name, "no_certificate");
    };
    let metrics = thread.metrics();
    let accepted = handshake::accept(stream, &config, &material, Side::Direct, facts, metrics).await;
    let Some(Proven { stream, leaf, chain }) = accepted else { return };
    let Some(trust) = material.trust().cloned() else { return };
    drop(material);
    let Some(_counted) = thread.identities.enter(leaf.id.text(), thread.limits.of_identity) else {
        metrics.supplies.shed(Shed::Identity, 1);
        return;
    };
    let shown = chain.first().and_then(|certificate| client_cert::element(&own, certificate, &leaf.id));
    let Some(client_cert) = shown else { return };
    let most = age(&leaf);
    let peer = MeshPeer::new(Rc::clone(thread), facts, leaf.id, own, client_cert);
    let entrant = Entrant::new(Rc::clone(thread), facts, Some(peer), server_name);
    let mut stream = stream;
    let serving = async {
        match inside {
            Inside::Bytes => bytes(entrant, stream).await,
            Inside::Requests => {
                let Ok(looked) = look(&mut stream, limits::here().patience.first_byte).await else { return };
                if looked.head.is_empty() {
                    return;
                }
                let http2 = looked.detected == Detected::Http2;
                requests(entrant, Rewind::new(looked.head, stream), http2).await;
            }
        }
    };
    tokio::select! {
        () = serving => {}
        // The certificate that let it in is no proof any more.
        () = tokio::time::sleep(most) => metrics.proxy.retired_peers.increment(1),
        () = thread.svids.distrust(&trust, &chain) => metrics.proxy.retired_peers.increment(1),
    }
}

async fn requests<S>(entrant: Entrant, stream: S, http2: bool)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let entrant = Rc::new(entrant);
    let thread = Rc::clone(&entrant.thread);
    let answer = |request: Request<Incoming>| {
        let entrant = Rc::clone(&entrant);
        async move { Box::pin(entering::request(&entrant, request)).await }
    };
    let retire = async {
        match thread.age_of_peers() {
            None => std::future::pending().await,
            Some(age) => tokio::time::sleep(age).await,
        }
        thread.metrics().proxy.retired_peers.increment(1);
    };
    let stream = Patient::new(stream);
    let ended = match http2 {
        false => server::http1(stream, &thread, retire, answer).await.map_err(|broken| broken.error),
        true => server::http2(stream, &thread, server::Side::Application, retire, answer).await,
    };
    if let Err(error) = ended {
        if error.is_parse() || failure::is_malformed(&error) {
            thread.metrics().proxy.malformed_downstream.increment(1);
        }
        tracing::debug!(%error, "a captured connection ended");
    }
}

/// A byte stream: judged, delivered, and judged again when policies change.
async fn bytes<S>(entrant: Entrant, stream: S)
where
    S: AsyncRead + AsyncWrite,
{
    let thread = &entrant.thread;
    let to = entrant.facts.local;
    let root = thread.view.root();
    let mut record = begin(&entrant, &root);
    let admission = match captured::admit(&root.tables, &entrant.inbound(), &mut Silent) {
        Ok(admission) => admission,
        Err(refusal) => {
            if let Reason::Denied(Denial { remarks: Some(remarks), .. }) = &refusal.reason {
                record.remarked = remarked(&root, to, remarks);
            }
            return record.refused(&refusal);
        }
    };
    let port = admission
        .as_ref()
        .and_then(|admission| root.local(&admission.workload)?.port(admission.port))
        .cloned();
    let permit = match port.as_ref().map(|port| port.stream()).transpose() {
        Ok(permit) => permit,
        Err(Overflow) => return record.failed("UO", ""),
    };
    let patience = port.as_ref().and_then(|port| port.connect_timeout).unwrap_or(PATIENCE);
    if let Some(port) = &port {
        (record.idle, record.most) = (port.limits.tcp_idle_timeout, port.limits.max_connection_duration);
    }
    let targets = match &admission {
        Some(admission) => {
            if let Some(remarks) = &admission.judgement.remarks {
                record.remarked = remarked(&root, to, remarks);
            }
            if admission.judgement.ask.is_some() {
                return record.failed("UAEX", "ext_authz_error");
            }
            targets(&root, admission, to)
        }
        None => Targets::only(to),
    };
    drop((root, admission));
    let server = match thread.pool.tcp(&targets, patience).await {
        Ok(server) => server,
        Err(error) => return record.failed("UF", &error.to_string()),
    };
    record.upstream = server.peer_addr().ok();
    let refused = turned(thread, |root| captured::admit(&root.tables, &entrant.inbound(), &mut Silent).err());
    record.carry(stream, server, refused).await;
    drop(permit);
}

/// The record of a stream to a workload of this host.
fn begin(entrant: &Entrant, root: &Root) -> StreamRecord {
    let to = entrant.facts.local;
    let mutual_tls = entrant.peer.is_some();
    let mut record =
        StreamRecord::new(&entrant.thread, entrant.facts, Reporter::Destination, mutual_tls, root);
    record.source = entrant.party();
    record.server_name = entrant.server_name.clone();
    record.cluster = PASSED.into();
    if let [only] = &captured::entered(&root.tables, to)[..]
        && let Some(local) = root.local(only)
    {
        record.cluster = format!("inbound|{}||", to.port()).into();
        record.tell_for(local);
        record.destination = local.party.number;
        record.service = local.service(to.port()).number;
    }
    record
}

/// Closes a connection that says nothing that may go on, and tells of it.
fn refuse(worker: &Worker, facts: Facts, server_name: Option<Text>, reason: &'static str) {
    let thread = &worker.thread;
    thread.metrics().entrance_refused(reason);
    tracing::debug!(peer = %facts.peer, to = %facts.local, reason, "a captured connection was refused");
    let root = thread.view.root();
    let entrant = Entrant::new(Rc::clone(thread), facts, None, server_name);
    let record = begin(&entrant, &root);
    match captured::admit(&root.tables, &entrant.inbound(), &mut Silent) {
        Err(refusal) => record.refused(&refusal),
        Ok(_) => record.failed("DPE", reason),
    }
}
