//! One request of a captured connection to an application of this host: read, admit, deliver, reply, record.

use std::rc::Rc;
use std::time::Duration;

use http::{HeaderValue, Request, StatusCode};
use hyper::body::Incoming;
use mesh_core::decide::captured;
use mesh_core::decide::inbound::{Admission, Inbound};
use mesh_core::decide::refusal::{Denial, Reason};
use mesh_core::decide::witness::Silent;
use mesh_core::framing::refusal::Refusal as Bytes;
use mesh_core::message::internal::strip_mesh;
use mesh_core::message::request::{Head, Sender};
use mesh_core::vocab::name::Text;

use super::connection::MeshPeer;
use super::deliver::{Entered, Targets, add_client_cert, name_parties, remarked, targets};
use super::headers::{FORWARDED_PROTO, REQUEST_ID};
use super::record::{Cluster, Record};
use super::reply::{self, Reply};
use super::send::{Message, connect_failed, plain};
use super::{canonical, limits, upgrade};
use crate::live::endpoint::Permit;
use crate::live::root::Root;
use crate::net::downstream::Facts;
use crate::runtime::clock;
use crate::telemetry::line::addresses;
use crate::telemetry::metrics::Reporter;
use crate::telemetry::trace;
use crate::upstream::body::Upload;
use crate::upstream::failure::ConnectError;
use crate::upstream::thread::DataThread;
use crate::upstream::way::{Target, Way};

/// An application on the same host answers a dial at once or not at all.
const PATIENCE: Duration = Duration::from_secs(2);
/// Where traffic goes that no workload of this host is known to take.
pub const PASSED: &str = "InboundPassthroughCluster";

/// A captured connection to an address of this host.
#[derive(Debug)]
pub struct Entrant {
    /// Who carries it.
    pub thread: Rc<DataThread>,
    /// Where it came from, and the address that it was opened to.
    pub facts: Facts,
    /// Who proved to be there; `None` for anybody.
    pub peer: Option<MeshPeer>,
    /// The server name that its TLS asks for.
    pub server_name: Option<Text>,
    addresses: Rc<str>,
}

impl Entrant {
    /// A connection whose handshake is done, if it has one.
    pub fn new(
        thread: Rc<DataThread>,
        facts: Facts,
        peer: Option<MeshPeer>,
        server_name: Option<Text>,
    ) -> Entrant {
        let addresses = addresses(facts.local, facts.peer).into();
        Entrant { thread, facts, peer, server_name, addresses }
    }

    /// What is known of it when it is judged.
    pub fn inbound(&self) -> Inbound<'_> {
        Inbound {
            to: self.facts.local,
            peer: self.peer.as_ref().map(|peer| &peer.id),
            shown: self.peer.as_ref().map(|peer| &peer.own),
            source: Some(self.facts.peer.ip()),
            sni: self.server_name.as_deref(),
            request: None,
            now: clock::seconds(),
        }
    }

    /// The calling party, as far as its certificate tells.
    pub fn party(&self) -> u32 {
        self.peer.as_ref().map_or(0, |peer| peer.party(None))
    }
}

/// One request.
pub async fn request(entrant: &Entrant, mut request: Request<Incoming>) -> Reply {
    let thread = &entrant.thread;
    let root = thread.view.root();
    let shown = (entrant.facts, &entrant.addresses);
    let mut record = Record::begin(thread, &root, shown, Reporter::Destination, entrant.peer.is_some());
    if let Some(refusal) = request.extensions().get::<Bytes>() {
        return reply::refuse_bytes(record, *refusal);
    }
    let upgrade = upgrade::asked(&mut request);
    // What proxies say of others is believed from those that have proven to be of the mesh.
    let sender = if entrant.peer.is_some() { Sender::Proxy } else { Sender::Anybody };
    let (mut head, body) = match canonical::read(request, root.tables.normalization(), sender) {
        Ok(read) => read,
        Err(fault) => return reply::bad_request(record, fault),
    };
    record.request(&head);
    record.source = entrant.party();
    record.uploads(Upload::of(body, &thread.bodies));
    strip_mesh(&mut head.headers, head.mesh);
    add_context(entrant, &mut head);
    // What is judged is what the application receives.
    if let Some(peer) = &entrant.peer {
        add_client_cert(&mut head.headers, &peer.client_cert);
    }
    let Entered { targets, way, port, mut record } = match enter(entrant, &root, &mut head, record) {
        Ok(entered) => entered,
        Err(refused) => return *refused,
    };
    record.upstream = targets.first().copied();
    let http2 = head.version == http::Version::HTTP_2;
    let Head { method, authority, target, mut headers, .. } = *head;
    record.pass_on_trace(&mut headers);
    let message = Box::new(Message { method, authority, target, headers });
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
    let target = Target { place: record.permit.as_ref().and_then(Permit::place), ..target };
    let sending = plain(thread, message, record.upload.as_ref(), target, http2);
    let sent = match &record.standing {
        Some(standing) => standing.unless_refused(sending).await,
        None => Ok(sending.await),
    };
    if let (true, Some(upload)) = (http2, &record.upload) {
        upload.settle();
    }
    match sent {
        Ok(Ok(answer)) => reply::pass_on(answer, record, &[], None),
        Ok(Err(failure)) => reply::failed(record, failure),
        Err(refusal) => reply::cut_off(record, &refusal),
    }
}

/// Judges a request: where it is delivered, or the answer in its place.
fn enter(
    entrant: &Entrant,
    root: &Root,
    head: &mut Head,
    mut record: Box<Record>,
) -> Result<Entered, Box<Reply>> {
    let to = entrant.facts.local;
    if let Some(local) = root.tables.workload_at(to).and_then(|hosted| root.local(hosted)) {
        record.tell_for(local);
    }
    record.trace(head, false);
    let seen = head.seen();
    let facts = Inbound { request: Some(&seen), ..entrant.inbound() };
    let admission = match captured::admit(&root.tables, &facts, &mut Silent) {
        Ok(admission) => admission,
        Err(refusal) => {
            name_parties(root, to, &mut record);
            if let Reason::Denied(Denial { remarks: Some(remarks), .. }) = &refusal.reason {
                record.remarked = remarked(root, to, remarks);
            }
            return Err(Box::new(reply::refuse(record, &refusal)));
        }
    };
    let Some(admission) = admission else {
        record.cluster = Cluster::Named(PASSED.into());
        return Ok(Entered { targets: Targets::only(to), way: None, port: None, record });
    };
    name_parties(root, to, &mut record);
    if let Some(remarks) = &admission.judgement.remarks {
        record.remarked = remarked(root, to, remarks);
    }
    if admission.judgement.ask.is_some() {
        // Nobody is asked here yet, and unasked nothing that a CUSTOM policy is about may pass.
        return Err(Box::new(reply::plain(record, StatusCode::FORBIDDEN, "UAEX", "ext_authz_error", "")));
    }
    if let Err(refused) = limits::enter(root, &admission, &facts, &mut record) {
        return Err(Box::new(reply::too_much(record, *refused)));
    }
    let targets = targets(root, &admission, to);
    let port = root.local(&admission.workload).and_then(|local| local.port(admission.port)).cloned();
    let settings = port.as_ref().and_then(|port| port.settings.clone());
    let way = settings.map(|settings| Rc::new(Way { settings: Some(settings), ..Way::default() }));
    let Admission { workload, judgement, .. } = admission;
    record.standing =
        Some(entrant.thread.standings.enter(workload, &facts, entrant.server_name.as_ref(), Some(head)));
    if let Some(rewritten) = judgement.token.headers {
        head.headers = rewritten;
    }
    Ok(Entered { targets, way, port, record })
}

fn add_context(entrant: &Entrant, head: &mut Head) {
    if !head.headers.contains_key(&REQUEST_ID) {
        let mut id = entrant.thread.random(trace::request_id);
        id.set_sensitive(true);
        head.headers.insert(&REQUEST_ID, id);
    }
    if !head.headers.contains_key(&FORWARDED_PROTO) {
        head.headers.insert(&FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
}
