//! What is known of a connection while its requests come.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use http::HeaderValue;
use mesh_core::matching::request::Caller;
use mesh_core::vocab::identity::SpiffeId;
use mesh_core::vocab::label::Labels;
use mesh_core::vocab::name::{ServicePort, Text, WorkloadKey};

use crate::live::destination::LiveDestination;
use crate::live::local::{LocalWorkload, read_from, source};
use crate::live::root::Root;
use crate::net::downstream::Facts;
use crate::net::hop::{self, Hop, Spoken};
use crate::telemetry::labels::{Numbered, Party};
use crate::telemetry::line::addresses;
use crate::upstream::thread::DataThread;

/// Where an application connected to.
#[derive(Debug, Clone)]
pub enum Entrance {
    /// The HTTP proxy: the request says where it goes.
    Explicit,
    /// The address of a service.
    Service(ServicePort),
    /// A socket that a Sidecar asks for: where it has a port that port is meant, and else the request says it.
    Bound {
        /// The view whose Sidecar that is.
        view: Text,
        /// Index of its entry.
        listener: usize,
        /// The port.
        port: Option<u16>,
    },
    /// The address that it was opened to, where connections are captured.
    Captured {
        /// That address.
        to: SocketAddr,
        /// The service whose address it is, and its port.
        owner: Option<ServicePort>,
    },
}

/// A connection of an application of this host.
#[derive(Debug)]
pub struct Outbound {
    /// Who carries it.
    pub thread: Rc<DataThread>,
    /// Where it came from.
    pub facts: Facts,
    /// Where it was accepted.
    pub entrance: Entrance,
    /// Whose it is.
    pub caller: Option<WorkloadKey>,
    addresses: Rc<str>,
    found: Cell<Found>,
    pinned: RefCell<Option<(u64, Option<Arc<LiveDestination>>)>>,
}

/// Where caller and service are in the root with this serial.
#[derive(Debug, Clone, Copy)]
struct Found {
    serial: u64,
    caller: Option<usize>,
    service: Option<usize>,
}

impl Outbound {
    /// A connection that was accepted.
    pub fn new(
        thread: Rc<DataThread>,
        facts: Facts,
        entrance: Entrance,
        caller: Option<WorkloadKey>,
    ) -> Outbound {
        let found = Cell::new(Found { serial: u64::MAX, caller: None, service: None });
        let addresses = addresses(facts.local, facts.peer).into();
        Outbound { thread, facts, entrance, caller, addresses, found, pinned: RefCell::default() }
    }

    /// Where it came from, with the text of it.
    pub fn shown(&self) -> (Facts, &Rc<str>) {
        (self.facts, &self.addresses)
    }

    /// The caller in a root.
    pub fn local<'r>(&self, root: &'r Root) -> Option<&'r Arc<LocalWorkload>> {
        root.locals.get(self.find(root).caller?)
    }

    /// Index of the service whose address the client connected to.
    pub fn service(&self, root: &Root) -> Option<usize> {
        self.find(root).service
    }

    /// The entry of its Sidecar whose hosts alone are reached here.
    pub fn listener(&self, local: Option<&Arc<LocalWorkload>>) -> Option<usize> {
        match &self.entrance {
            Entrance::Bound { view, listener, .. } => {
                let own = local.and_then(|local| local.hosted.section.view.as_deref()).unwrap_or("");
                (own == &**view).then_some(*listener)
            }
            Entrance::Explicit | Entrance::Service(_) | Entrance::Captured { .. } => None,
        }
    }

    /// The address that it was opened to, where connections are captured.
    pub fn original(&self) -> Option<SocketAddr> {
        match &self.entrance {
            Entrance::Captured { to, .. } => Some(*to),
            Entrance::Explicit | Entrance::Service(_) | Entrance::Bound { .. } => None,
        }
    }

    /// The endpoint that it was opened to, where connections are captured and it is nothing else. Looked up once in
    /// each root.
    pub fn pinned(&self, root: &Root) -> Option<Arc<LiveDestination>> {
        let Entrance::Captured { to, owner: None } = &self.entrance else { return None };
        let mut pinned = self.pinned.borrow_mut();
        if let Some((serial, found)) = &*pinned
            && *serial == root.serial
        {
            return found.clone();
        }
        let found = root.pinned(*to, self.local(root).map(|local| local.caller()));
        *pinned = Some((root.serial, found.clone()));
        found
    }

    /// The address of who sends. Behind a loopback address is a workload of this host, if it is known which.
    pub fn source(&self, local: Option<&Arc<LocalWorkload>>) -> IpAddr {
        source(self.facts.peer.ip(), local)
    }

    /// Looks once in each root.
    fn find(&self, root: &Root) -> Found {
        let found = self.found.get();
        if found.serial == root.serial {
            return found;
        }
        let caller = self.caller.as_ref();
        let caller = caller.and_then(|key| root.locals.iter().position(|l| l.hosted.section.key == *key));
        let service = match &self.entrance {
            Entrance::Explicit | Entrance::Bound { .. } | Entrance::Captured { owner: None, .. } => None,
            Entrance::Service(at) | Entrance::Captured { owner: Some(at), .. } => {
                root.tables.service_index(&at.host)
            }
        };
        let found = Found { serial: root.serial, caller, service };
        self.found.set(found);
        found
    }
}

/// The caller as decisions see it. One that is not known still looks names up where all workloads of this host would.
pub fn caller<'a>(
    local: Option<&'a Arc<LocalWorkload>>,
    namespace: &'a Text,
    none: &'a Labels,
) -> Caller<'a> {
    match local {
        Some(local) => local.caller(),
        None => Caller { namespace, labels: none, view: None },
    }
}

/// What another proxy says of a request.
#[derive(Debug, Clone)]
pub struct Heard {
    /// Address and port of the workload that is meant.
    pub to: SocketAddr,
    /// Whether its application is spoken to in HTTP/2.
    pub http2: bool,
    /// Number of the calling party.
    pub party: u32,
    /// The server name by which one of Istio's proxies would have asked for the destination.
    pub server_name: Option<Text>,
}

/// A connection of another proxy.
#[derive(Debug)]
pub struct MeshPeer {
    /// Who carries it.
    pub thread: Rc<DataThread>,
    /// Where it came from.
    pub facts: Facts,
    /// Whom its certificate proves.
    pub id: SpiffeId,
    /// Whom we showed ourselves as.
    pub own: SpiffeId,
    /// What `x-forwarded-client-cert` says of it.
    pub client_cert: HeaderValue,
    addresses: Rc<str>,
    said: RefCell<Option<(Box<str>, Numbered<Party>)>>,
    heard: RefCell<Option<(HeaderValue, Heard)>>,
    unsaid: OnceCell<Numbered<Party>>,
}

impl MeshPeer {
    /// A connection whose handshake is done.
    pub fn new(
        thread: Rc<DataThread>,
        facts: Facts,
        id: SpiffeId,
        own: SpiffeId,
        client_cert: HeaderValue,
    ) -> MeshPeer {
        let addresses = addresses(facts.local, facts.peer).into();
        let (said, heard, unsaid) = (RefCell::default(), RefCell::default(), OnceCell::new());
        MeshPeer { thread, facts, id, own, client_cert, addresses, said, heard, unsaid }
    }

    /// Where it came from, with the text of it.
    pub fn shown(&self) -> (Facts, &Rc<str>) {
        (self.facts, &self.addresses)
    }

    /// What is said of a request: nearly always what was said of the one before. `None` if that is nothing.
    pub fn hear(&self, value: &HeaderValue) -> Option<Heard> {
        if let Some((before, heard)) = &*self.heard.borrow()
            && before == value
        {
            return Some(heard.clone());
        }
        let Hop { to, spoken, from, server_name } = hop::read(value)?;
        let server_name = server_name.map(|name| name.to_ascii_lowercase().into());
        let heard = Heard { to, http2: spoken == Spoken::Http2, party: self.party(from), server_name };
        *self.heard.borrow_mut() = Some((value.clone(), heard.clone()));
        Some(heard)
    }

    /// The calling party. What it says of itself is believed for telemetry, and only within its own namespace.
    pub fn party(&self, from: Option<&str>) -> u32 {
        let Some(from) = from else { return self.anonymous() };
        if let Some((said, party)) = &*self.said.borrow()
            && **said == *from
        {
            return party.number;
        }
        let proven = self.id.account().map(|(namespace, _)| namespace);
        let party = match read_from(from) {
            Some((namespace, workload, app, version)) if Some(namespace) == proven => {
                let pairs = [("app", app), ("version", version)];
                let labels: Labels =
                    pairs.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
                Party::workload(&workload.into(), &namespace.into(), Some(&self.id), &labels)
            }
            Some(_) | None => return self.anonymous(),
        };
        let party = self.thread.metrics().party(party);
        let number = party.number;
        *self.said.borrow_mut() = Some((from.into(), party));
        number
    }

    /// The party of which only the certificate speaks.
    fn anonymous(&self) -> u32 {
        let party = self.unsaid.get_or_init(|| {
            let namespace = self.id.account().map_or("unknown", |(namespace, _)| namespace);
            let principal = self.id.text().clone();
            let party = Party { principal, namespace: namespace.into(), ..Party::unknown() };
            self.thread.metrics().party(party)
        });
        party.number
    }
}
