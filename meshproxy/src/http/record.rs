//! The record of one exchange: filled while it goes on, written to metrics and access log when it is dropped, however
//! the exchange ended.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderValue, Method, Version};
use mesh_core::decide::plan::{AnswerChanges, Chosen};
use mesh_core::decide::refusal::Refusal;
use mesh_core::message::request::Head;
use mesh_core::telemetry::Side;
use mesh_core::vocab::name::Text;
use tokio::time::Instant;

use super::body::grpc_status;
use super::headers::{FORWARDED_FOR, REQUEST_ID};
use super::load;
use super::variables::Told;
use crate::live::endpoint::Permit;
use crate::live::limits::Fields;
use crate::live::load::Ear;
use crate::live::local::LocalWorkload;
use crate::live::standing::Standing;
use crate::live::view::Held;
use crate::net::downstream::Facts;
use crate::telemetry::entry::{Entry, Remarked};
use crate::telemetry::fields::Kept;
use crate::telemetry::flags::Flags;
use crate::telemetry::line::number;
use crate::telemetry::messages::Messages;
use crate::telemetry::metrics::{Reporter, interval};
use crate::upstream::body::Upload;
use crate::upstream::thread::DataThread;

/// So many fields are gone through for two of them.
const FEW: usize = 16;

/// Which cluster of Istio's naming an exchange went to.
#[derive(Debug, Clone)]
pub enum Cluster {
    /// None was chosen.
    None,
    /// A destination, or a fixed name.
    Named(Text),
    /// A port of a workload of this host.
    Inbound(u16),
    /// A host outside the mesh.
    Passthrough,
}

impl Cluster {
    /// Its name in the log; empty where none was chosen.
    pub fn name(&self) -> Cow<'_, str> {
        match self {
            Cluster::None => "".into(),
            Cluster::Named(name) => (&**name).into(),
            Cluster::Inbound(port) => inbound_name(*port).into(),
            Cluster::Passthrough => "PassthroughCluster".into(),
        }
    }
}

/// What is known of one exchange so far.
#[derive(Debug)]
pub struct Record {
    thread: Rc<DataThread>,
    root: Held,
    facts: Facts,
    addresses: Rc<str>,
    started: Instant,
    reporter: Reporter,
    mutual_tls: bool,
    /// Numbers of the caller, the called, and the service.
    pub source: u32,
    /// See `source`.
    pub destination: u32,
    /// See `source`.
    pub service: u32,
    /// Index of the workload of this host that it is told for.
    own: Option<u32>,
    /// Whether the request is gRPC.
    pub grpc: bool,
    /// The rule that decided.
    pub chosen: Option<Chosen>,
    /// Attempts upstream, those beside others included.
    pub attempts: u32,
    request: Option<Box<Logged>>,
    /// The messages of gRPC, counted.
    messages: Option<Rc<Messages>>,
    /// What somebody asks for of the fields; nothing where nobody does.
    kept: Option<Box<Kept>>,
    request_head: u64,
    /// The request's body, for its size.
    pub upload: Option<Upload>,
    /// Response flags.
    pub flags: Flags,
    /// Response code details.
    pub details: Cow<'static, str>,
    /// Why the connection upstream failed.
    pub transport_failure: String,
    /// Name of the route.
    pub route: Option<Cow<'static, str>>,
    /// The cluster.
    pub cluster: Cluster,
    /// The endpoint.
    pub upstream: Option<SocketAddr>,
    /// The place at the endpoint.
    pub permit: Option<Permit>,
    /// Who hears what the endpoint's trailers report of its load.
    pub ear: Option<Ear>,
    /// What changes of the answer's fields need to know of the request.
    pub told: Option<Box<Told>>,
    /// How an answer of our own is changed.
    pub changes: Option<AnswerChanges>,
    /// By what it goes on, where it was let in by policies of this host.
    pub standing: Option<Standing>,
    /// What the answer tells of rate limits.
    pub standing_fields: Option<Box<Fields>>,
    /// What policies have written down of it.
    pub remarked: Option<Box<Remarked>>,
    /// Whether its answer goes to the caller's proxy, which says anew how long it took.
    pub told_on: bool,
    code: u16,
    grpc_status: Option<u16>,
    service_time: Option<Duration>,
    response_head: u64,
    sent: u64,
    complete: bool,
}

/// What only the access log reads.
#[derive(Debug)]
struct Logged {
    method: Method,
    version: Version,
    path: PathAndQuery,
    authority: Authority,
    user_agent: Option<HeaderValue>,
    forwarded_for: Option<HeaderValue>,
    request_id: Option<HeaderValue>,
}

impl Record {
    /// An exchange begins.
    pub fn begin(
        thread: &Rc<DataThread>,
        root: &Held,
        (facts, addresses): (Facts, &Rc<str>),
        reporter: Reporter,
        mutual_tls: bool,
    ) -> Box<Record> {
        Box::new(Record {
            thread: Rc::clone(thread),
            root: Rc::clone(root),
            facts,
            addresses: Rc::clone(addresses),
            started: Instant::now(),
            reporter,
            mutual_tls,
            source: 0,
            destination: 0,
            service: 0,
            own: None,
            grpc: false,
            chosen: None,
            attempts: 0,
            request: None,
            messages: None,
            kept: None,
            request_head: 0,
            upload: None,
            flags: Flags::NONE,
            details: Cow::Borrowed(""),
            transport_failure: String::new(),
            route: None,
            cluster: Cluster::None,
            upstream: None,
            permit: None,
            ear: None,
            told: None,
            changes: None,
            standing: None,
            standing_fields: None,
            remarked: None,
            told_on: false,
            code: 0,
            grpc_status: None,
            service_time: None,
            response_head: 0,
            sent: 0,
            complete: false,
        })
    }

    /// The head was read.
    pub fn request(&mut self, head: &Head) {
        self.grpc = head.grpc;
        if head.grpc {
            self.messages = Some(self.thread.observers.series.call());
        }
        self.request_head = head.bytes;
        let wanted = &self.root.tables.wanted;
        if !wanted.request.is_empty() || !wanted.response.is_empty() {
            self.kept = Some(Box::new(Kept::of_request(wanted, head)));
        }
        if wanted.head || self.thread.observers.want_head(self.side()) {
            let mut logged = Box::new(Logged {
                method: head.method.clone(),
                version: head.version,
                path: head.received.clone(),
                authority: head.authority.clone(),
                user_agent: head.headers.get(http::header::USER_AGENT).cloned(),
                forwarded_for: None,
                request_id: None,
            });
            // Few fields are sooner gone through than their names hashed.
            if head.headers.len() <= FEW {
                for (name, value) in &head.headers {
                    let wanted = match name.as_str() {
                        "x-forwarded-for" => &mut logged.forwarded_for,
                        "x-request-id" => &mut logged.request_id,
                        _ => continue,
                    };
                    wanted.get_or_insert_with(|| value.clone());
                }
            } else {
                logged.forwarded_for = head.headers.get(&FORWARDED_FOR).cloned();
                logged.request_id = head.headers.get(&REQUEST_ID).cloned();
            }
            self.request = Some(logged);
        }
    }

    /// The body of the request.
    pub fn uploads(&mut self, upload: Option<Upload>) {
        if let (Some(upload), Some(messages)) = (&upload, &self.messages) {
            upload.count_messages(messages);
        }
        self.upload = upload;
    }

    /// The workload of this host that it is told for.
    pub fn tell_for(&mut self, local: &Arc<LocalWorkload>) {
        let index = self.root.locals.iter().position(|one| Arc::ptr_eq(one, local));
        self.own = index.and_then(|index| u32::try_from(index).ok());
    }

    /// What is told of it.
    fn side(&self) -> &Side {
        let own = self.own.and_then(|index| self.root.locals.get(index as usize));
        let telemetry = own.map_or(&*self.root.tables.telemetry, |own| &own.hosted.section.telemetry);
        match self.reporter {
            Reporter::Source => &telemetry.client,
            Reporter::Destination => &telemetry.server,
        }
    }

    /// Where it came from.
    pub fn client(&self) -> Facts {
        self.facts
    }

    /// When it began.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Where its connection came from.
    pub fn facts(&self) -> Facts {
        self.facts
    }

    /// The name of this host.
    pub fn node(&self) -> Option<&Text> {
        self.root.locals.first().map(|local| &local.hosted.section.node)
    }

    /// The thread that carries it.
    pub fn thread(&self) -> &Rc<DataThread> {
        &self.thread
    }

    /// Whether the caller's proxy speaks.
    pub fn is_outbound(&self) -> bool {
        self.reporter == Reporter::Source
    }

    /// Bytes of the request's body so far.
    pub fn received(&self) -> u64 {
        self.upload.as_ref().map_or(0, Upload::received)
    }

    /// The upstream answered; its time counts from the beginning of the exchange.
    pub fn answered(&mut self) -> Duration {
        *self.service_time.insert(self.started.elapsed())
    }

    /// The head of the answer goes out.
    pub fn reply(&mut self, code: u16, head_bytes: u64, grpc_status: Option<u16>) {
        self.code = code;
        self.response_head = head_bytes;
        self.grpc_status = grpc_status;
        if self.messages.is_some() {
            self.settle_messages();
        }
    }

    #[cold]
    fn settle_messages(&self) {
        let Some(messages) = &self.messages else { return };
        let declared = &self.side().metrics;
        let series = || self.with_entry(|entry| self.thread.observers.series.messages(entry, declared));
        messages.settle(|| (series(), interval(declared.reporting_interval)));
    }

    /// A piece of the answer's body goes out.
    pub fn pass(&mut self, data: &[u8]) {
        self.data(data.len());
        if let Some(messages) = &self.messages {
            messages.response(data);
        }
    }

    /// The fields of the answer, as they go out.
    pub fn reply_fields(&mut self, headers: &HeaderMap) {
        if let Some(kept) = &mut self.kept {
            kept.keep_response(&self.root.tables.wanted, headers);
        }
    }

    /// Bytes of the answer's body go out.
    pub fn data(&mut self, length: usize) {
        self.sent += length as u64;
    }

    /// The answer's trailers go out.
    pub fn trailers(&mut self, trailers: &HeaderMap) {
        self.grpc_status = grpc_status(trailers).or(self.grpc_status);
        if let Some(ear) = &self.ear {
            load::hear(ear, trailers, &self.thread.metrics().proxy);
        }
    }

    /// The answer is whole.
    pub fn complete(&mut self) {
        self.complete = true;
    }

    /// The answer broke off on the upstream's side.
    pub fn broke_off(&mut self, flag: &str, reason: &'static str) {
        self.complete = true;
        self.flags.push(flag);
        self.details = Cow::Borrowed(reason);
    }

    /// It went on until a policy turned against it.
    pub fn cut_off(&mut self, refusal: &Refusal) {
        self.complete = true;
        self.flags.push(refusal.flag());
        self.details = Cow::Owned(refusal.details());
        self.thread.metrics().proxy.requests_cut_off.increment(1);
    }

    /// Says what is known to everybody who wants to hear it.
    fn tell(&self) {
        if let Some(messages) = &self.messages {
            self.settle_messages();
            messages.flush();
        }
        self.with_entry(|entry| self.thread.observers.exchange(entry, self.side()));
    }

    fn with_entry<R>(&self, tell: impl FnOnce(&Entry<'_>) -> R) -> R {
        let cluster = self.cluster.name();
        let request = self.request.as_deref();
        let protocol =
            request.map_or("HTTP/1.1", |r| if r.version == Version::HTTP_2 { "HTTP/2" } else { "HTTP/1.1" });
        let named = match &self.route {
            Some(_) => None,
            None => self.chosen.as_ref().and_then(Chosen::route_name),
        };
        let received = self.received();
        let entry = Entry {
            reporter: self.reporter,
            mutual_tls: self.mutual_tls,
            source: self.source,
            destination: self.destination,
            service: self.service,
            grpc: self.grpc,
            grpc_status: self.grpc_status,
            started: self.started,
            duration: self.started.elapsed(),
            method: request.map_or("", |r| r.method.as_str()),
            path: request.map_or("", |r| r.path.as_str()),
            protocol,
            code: self.code,
            flags: self.flags,
            details: &self.details,
            termination: "",
            transport_failure: &self.transport_failure,
            server_name: "",
            request_bytes: self.request_head + received,
            response_bytes: self.response_head + self.sent,
            attempts: self.attempts,
            origin: self.chosen.as_ref().map(Chosen::origin),
            received,
            sent: self.sent,
            service_time: self.service_time,
            forwarded_for: request.and_then(|r| r.forwarded_for.as_ref()),
            user_agent: request.and_then(|r| r.user_agent.as_ref()),
            request_id: request.and_then(|r| r.request_id.as_ref()),
            authority: request.map_or("", |r| r.authority.as_str()),
            upstream_host: self.upstream,
            cluster: &cluster,
            local: self.facts.local,
            remote: self.facts.peer,
            addresses: &self.addresses,
            route: self.route.as_deref().or(named.as_deref()).unwrap_or(""),
            remarked: self.remarked.as_deref(),
            kept: self.kept.as_deref(),
            version: self.root.tables.version.number,
            trace_id: None,
        };
        tell(&entry)
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let standing = self.standing.take();
        if let Some(refusal) = standing.and_then(|standing| standing.take_refused()) {
            self.cut_off(&refusal);
        }
        if !self.complete {
            self.flags.push("DC");
            self.details = Cow::Borrowed("downstream_remote_disconnect");
        }
        self.tell();
    }
}

/// `inbound|PORT||`.
fn inbound_name(port: u16) -> String {
    let mut name = Vec::with_capacity(16);
    name.extend_from_slice(b"inbound|");
    number(u64::from(port), &mut name);
    name.extend_from_slice(b"||");
    String::from_utf8(name).unwrap_or_default()
}

/// A fixed cluster name as text.
pub fn named(name: &Arc<str>) -> Cluster {
    Cluster::Named(Arc::clone(name))
}
