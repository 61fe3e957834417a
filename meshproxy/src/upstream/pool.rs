//! The connections of one data thread: idle HTTP/1 ones by address and way, shared HTTP/2 ones by these and identities.
//!
//! The key of a shared connection holds what it promised when it was made: who we are and whom we expect. When the
//! document or the trust bundle changes, connections that were made with the old ones take no new streams and end
//! with their last.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use mesh_core::resilience::pool::ConnectionSettings;
use mesh_core::vocab::identity::SpiffeId;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::age::{Age, Ages};
use super::connect::{self, Http1, MeshTls, Opened};
use super::failure::ConnectError;
use super::resolve;
use super::way::{Target, Way};
use crate::identity::svid::{Material, Svid, Svids, Trust};
use crate::identity::tls;
use crate::live::breaker::Place;
use crate::live::root::Roots;
use crate::net::socket::Socket;
use crate::telemetry::metrics::Metrics;

mod lease;
mod shared;
mod sweep;

pub use lease::Lease;
use lease::{Idle, Life};
use shared::Slot;
pub use shared::Stream;
use sweep::SWEEP;

type Map<K, V> = HashMap<K, V, RandomState>;

/// Idle HTTP/1 connections that are kept for one address.
const MOST_IDLE: usize = 256;
/// Idle connections with PROXY headers that are kept: each is of use to one client only.
const MOST_PROXIED: usize = 1024;
/// A server that closes connections without a word does so after they had nothing to do; busy ones are not looked at so.
const RESTED: Duration = Duration::from_millis(100);
/// No oftener than this where rules say how long connections live.
const FINEST: Duration = Duration::from_millis(100);

/// An identity with its number.
#[derive(Debug, Clone, Copy)]
pub struct Who<'a> {
    /// Its number.
    pub number: u32,
    /// The identity.
    pub id: &'a SpiffeId,
}

/// The mesh hop of a request.
#[derive(Debug, Clone, Copy)]
pub struct Hop<'a> {
    /// Where it ends.
    pub address: SocketAddr,
    /// Who we are.
    pub own: Who<'a>,
    /// Who must answer.
    pub peer: Who<'a>,
    /// How long it may take.
    pub patience: Duration,
    /// How it is kept, where a rule says anything of it.
    pub settings: Option<&'a Arc<ConnectionSettings>>,
    /// What the request takes of what is limited.
    pub place: Option<&'a Place>,
}

/// What tells one HTTP/1 connection from another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Http1Key {
    address: SocketAddr,
    way: Option<Rc<Way>>,
}

/// What tells one shared connection from another. The numbers are 0 where it is no mesh hop.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Http2Key {
    address: SocketAddr,
    way: Option<Rc<Way>>,
    /// How it is kept, where it is a mesh hop; otherwise the way says it.
    settings: Option<Arc<ConnectionSettings>>,
    own: u32,
    peer: u32,
}

/// The connections of one data thread.
#[derive(Debug)]
pub struct Pool {
    svids: Arc<Svids>,
    roots: Arc<Roots>,
    metrics: Arc<Metrics>,
    idle: RefCell<Map<Http1Key, Vec<Idle>>>,
    shared: RefCell<Map<Http2Key, Rc<Slot>>>,
    pairs: RefCell<Map<(u32, u32), Rc<Pair>>>,
    looks: Cell<u32>,
    /// How often connections are looked through whose times a rule says, and who hears that it shall be oftener.
    finest: Cell<Option<Duration>>,
    finer: Notify,
    /// Where endpoints were of late that have gone: connections to them are not kept.
    gone: RefCell<HashSet<SocketAddr>>,
    ages: Ages,
    this: Weak<Pool>,
}

/// TLS of one identity pair, with the material that it was made from.
#[derive(Debug)]
struct Pair {
    material: RefCell<Arc<Material>>,
    svid: Arc<Svid>,
    trust: Arc<Trust>,
    tls: MeshTls,
}

impl Pool {
    /// An empty pool. Its connections serve nothing new once they are older than `most_age`.
    pub fn new(
        svids: Arc<Svids>,
        roots: Arc<Roots>,
        metrics: Arc<Metrics>,
        most_age: Option<Duration>,
    ) -> Rc<Pool> {
        let ages = Ages::new(most_age, SWEEP, metrics.proxy.retired_upstream.clone());
        Rc::new_cyclic(|this| Pool {
            ages,
            svids,
            roots,
            metrics,
            idle: RefCell::default(),
            shared: RefCell::default(),
            pairs: RefCell::default(),
            looks: Cell::new(0),
            finest: Cell::new(None),
            finer: Notify::new(),
            gone: RefCell::default(),
            this: this.clone(),
        })
    }

    /// An idle HTTP/1 connection to one of these addresses.
    pub fn idle_http1(&self, target: Target<'_>) -> Option<Lease> {
        target.addresses.iter().find_map(|address| {
            let key = Http1Key { address: *address, way: target.way.cloned() };
            self.idle(&key).map(|one| {
                let rested = one.kept.elapsed() > RESTED;
                if let Some(place) = target.place {
                    place.connected();
                }
                Lease { reused: true, rested, life: one.life, ..self.lease(key, one.sender, one.last) }
            })
        })
    }

    /// A new HTTP/1 connection to the first of these addresses that does not refuse.
    pub async fn new_http1(&self, target: Target<'_>) -> Result<Lease, ConnectError> {
        let _dialing = target.place.map(Place::dial).transpose()?;
        let mut last = None;
        for &address in target.addresses {
            self.check(address, target.way)?;
            match connect::http1(address, target.way, target.patience, &self.metrics).await {
                Ok(sender) => {
                    let key = Http1Key { address, way: target.way.cloned() };
                    let life = target.way.and_then(|way| way.settings.as_deref()).map(|settings| {
                        self.look_oftener(settings);
                        Life::new(settings)
                    });
                    let last = self.ages.last_look(self.looks.get());
                    return Ok(Lease { life, ..self.lease(key, sender, last) });
                }
                Err(error @ ConnectError::Refused { .. }) => last = last.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or(ConnectError::NoAddress))
    }

    /// A stream of an HTTP/2 connection to the first of these addresses that does not refuse.
    pub async fn http2(&self, target: Target<'_>) -> Result<Stream, ConnectError> {
        let mut last = None;
        for &address in target.addresses {
            let way = target.way.cloned();
            let slot = self.slot(Http2Key { address, way, settings: None, own: 0, peer: 0 });
            if let Some(stream) = slot.room(None) {
                if let Some(place) = target.place {
                    place.connected();
                }
                return Ok(stream);
            }
            let _dialing = target.place.map(Place::dial).transpose()?;
            let settings = target.way.and_then(|way| way.settings.as_ref());
            let age = self.age(settings);
            let dial = || async move {
                self.check(address, target.way)?;
                connect::http2(address, target.way, target.patience, &self.metrics, age).await
            };
            match Box::pin(slot.dial(None, settings, dial)).await {
                Ok(stream) => return Ok(stream),
                Err(error @ ConnectError::Refused { .. }) => last = last.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or(ConnectError::NoAddress))
    }

    /// A TCP connection in the clear, to the first of these addresses that does not refuse.
    pub async fn tcp(&self, addresses: &[SocketAddr], patience: Duration) -> Result<TcpStream, ConnectError> {
        let mut last = None;
        for address in addresses {
            self.check(*address, None)?;
            match connect::tcp(*address, patience).await {
                Ok(stream) => return Ok(stream),
                Err(error @ ConnectError::Refused { .. }) => last = last.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or(ConnectError::NoAddress))
    }

    /// The same to a workload of this host, wherever it lives.
    pub async fn tcp_by(
        &self,
        addresses: &[SocketAddr],
        way: Option<&Rc<Way>>,
        patience: Duration,
    ) -> Result<TcpStream, ConnectError> {
        let Some(way) = way else { return self.tcp(addresses, patience).await };
        match Box::pin(self.opened(Target { addresses, patience, way: Some(way), place: None }, way)).await? {
            Opened::Plain(Socket::Tcp(stream)) => Ok(stream),
            Opened::Plain(Socket::Unix(_)) | Opened::Secured(_) => Err(ConnectError::NoAddress),
        }
    }

    /// A connection that carries bytes, to the first of these addresses that does not refuse.
    pub async fn opened(&self, target: Target<'_>, way: &Way) -> Result<Opened, ConnectError> {
        let _dialing = target.place.map(Place::dial).transpose()?;
        let mut last = None;
        for &address in target.addresses {
            self.check(address, target.way)?;
            match connect::opened(address, way, target.patience, &self.metrics).await {
                Ok(opened) => return Ok(opened),
                Err(error @ ConnectError::Refused { .. }) => last = last.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or(ConnectError::NoAddress))
    }

    /// Where no proxy stands before an endpoint we never dial ourselves: that would go round and round.
    fn check(&self, address: SocketAddr, way: Option<&Rc<Way>>) -> Result<(), ConnectError> {
        // In another network namespace the same address is another.
        let is_here = way.is_none_or(|way| way.netns.is_none());
        if is_here && resolve::is_own(&self.roots, &self.roots.load(), address) {
            return Err(ConnectError::Loop);
        }
        Ok(())
    }

    /// A stream of a mesh hop.
    pub async fn mesh(&self, hop: &Hop<'_>) -> Result<Stream, ConnectError> {
        // By reference: the future of every request would hold it twice.
        let Hop { address, own, peer, patience, settings, place } = *hop;
        let pair = self.pair(own, peer)?;
        let (own, peer) = (own.number, peer.number);
        let slot = self.slot(Http2Key { address, way: None, settings: settings.cloned(), own, peer });
        if let Some(stream) = slot.room(Some(&pair)) {
            if let Some(place) = place {
                place.connected();
            }
            return Ok(stream);
        }
        let _dialing = place.map(Place::dial).transpose()?;
        let tls = pair.tls.clone();
        let age = self.age(settings);
        let settled = settings.map(|settings| &**settings);
        let tls = (&tls, &self.svids);
        let dial = || async move { connect::mesh(address, tls, patience, &self.metrics, age, settled).await };
        Box::pin(slot.dial(Some(pair), settings, dial)).await
    }

    /// How old a shared connection becomes.
    fn age(&self, settings: Option<&Arc<ConnectionSettings>>) -> Option<Age> {
        let usual = self.ages.age();
        let Some(settings) = settings else { return usual };
        self.look_oftener(settings);
        match settings.most_age {
            Some(most) => Some(self.ages.exactly(usual.map_or(most, |usual| usual.most.min(most)))),
            None => usual,
        }
    }

    /// Has connections looked through as often as these need it.
    fn look_oftener(&self, settings: &ConnectionSettings) {
        let times = settings.idle_timeout.into_iter().chain(settings.most_age);
        let Some(shortest) = times.min() else { return };
        let every = (shortest / 4).clamp(FINEST, SWEEP);
        if self.finest.get().is_none_or(|finest| every < finest) {
            self.finest.set(Some(every));
            self.finer.notify_one();
        }
    }

    /// Connections at hand: idle HTTP/1, shared HTTP/2.
    pub fn counts(&self) -> (usize, usize) {
        let idle = self.idle.borrow().values().map(Vec::len).sum();
        let shared = self.shared.borrow().values().map(|slot| slot.connections.borrow().len()).sum();
        (idle, shared)
    }

    /// Closes every connection that has nothing to do.
    pub fn drop_idle(&self) {
        self.idle.borrow_mut().clear();
        let idle = |slot: &Slot| slot.connections.borrow_mut().retain(|one| one.streams.get() > 0);
        self.shared.borrow().values().for_each(|slot| idle(slot));
    }

    fn idle(&self, key: &Http1Key) -> Option<Idle> {
        let mut idle = self.idle.borrow_mut();
        let waiting = idle.get_mut(key)?;
        while let Some(one) = waiting.pop() {
            if one.sender.is_ready() && !one.life.as_ref().is_some_and(|life| life.is_over()) {
                return Some(one);
            }
        }
        None
    }

    fn keep(&self, key: Http1Key, sender: Http1, last: u32, life: Option<Box<Life>>) {
        if last < self.looks.get() {
            self.ages.count(1);
            return;
        }
        if self.gone.borrow().contains(&key.address) {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let proxied = key.way.as_ref().is_some_and(|way| way.proxy.is_some());
        if proxied && idle.len() >= MOST_PROXIED {
            return;
        }
        let waiting = idle.entry(key).or_default();
        if waiting.len() < MOST_IDLE {
            waiting.push(Idle { sender, since: self.looks.get(), last, kept: Instant::now(), life });
        }
    }

    fn lease(&self, key: Http1Key, sender: Http1, last: u32) -> Lease {
        let pool = self.this.clone();
        Lease { sender: Some(sender), key: Some(key), last, reused: false, rested: false, life: None, pool }
    }

    fn slot(&self, key: Http2Key) -> Rc<Slot> {
        Rc::clone(self.shared.borrow_mut().entry(key).or_default())
    }

    /// TLS of an identity pair, made anew when the document or the bundle changed.
    fn pair(&self, own: Who<'_>, peer: Who<'_>) -> Result<Rc<Pair>, ConnectError> {
        let key = (own.number, peer.number);
        if let Some(pair) = self.pairs.borrow().get(&key)
            && self.svids.is_current(&pair.material.borrow())
        {
            return Ok(Rc::clone(pair));
        }
        let material = self.svids.load();
        let (Some(svid), Some(trust)) = (material.svid(own.id), material.trust()) else {
            return Err(ConnectError::NoIdentity);
        };
        if let Some(pair) = self.pairs.borrow().get(&key)
            && Arc::ptr_eq(&pair.svid, svid)
            && Arc::ptr_eq(&pair.trust, trust)
        {
            *pair.material.borrow_mut() = Arc::clone(&material);
            return Ok(Rc::clone(pair));
        }
        let name = ServerName::try_from(tls::server_name(peer.id)).expect("hex digits and .mesh are a name");
        let pair = Rc::new(Pair {
            svid: Arc::clone(svid),
            trust: Arc::clone(trust),
            tls: MeshTls { config: tls::client_config(svid, trust, peer.id), name },
            material: RefCell::new(material),
        });
        self.pairs.borrow_mut().insert(key, Rc::clone(&pair));
        Ok(pair)
    }
}
