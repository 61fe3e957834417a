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
use super::connect::{self, Http1, MeshTls, Opened, STREAMS};
use super::failure::ConnectError;
use super::http2::{Http2, Sending};
use super::resolve;
use super::way::{Target, Way};
use crate::identity::svid::{Material, Svid, Svids, Trust};
use crate::identity::tls;
use crate::live::breaker::Place;
use crate::live::destination::LiveDestination;
use crate::live::endpoint::LiveEndpoint;
use crate::live::root::{Root, Roots};
use crate::net::socket::Socket;
use crate::telemetry::metrics::Metrics;

type Map<K, V> = HashMap<K, V, RandomState>;

/// Idle HTTP/1 connections are closed after so many looks: a minute.
const IDLE_HTTP1: u32 = 4;
/// Idle HTTP/2 connections are closed after so many looks: five minutes, as in ztunnel's pool.
const IDLE_HTTP2: u32 = 20;
/// Idle HTTP/1 connections that are kept for one address.
const MOST_IDLE: usize = 256;
/// Idle connections with PROXY headers that are kept: each is of use to one client only.
const MOST_PROXIED: usize = 1024;
/// A server that closes connections without a word does so after they had nothing to do; busy ones are not looked at so.
const RESTED: Duration = Duration::from_millis(100);
/// How often idle connections are looked through. Age is counted in looks, so that requests read no clock.
const SWEEP: Duration = Duration::from_secs(15);
/// How long after a change it is looked for endpoints that have gone, of which there may be many more.
const COMPARE: Duration = Duration::from_millis(500);
/// Addresses of endpoints that have gone that are remembered until the next look.
const MOST_GONE: usize = 4096;
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

#[derive(Debug)]
struct Idle {
    sender: Http1,
    since: u32,
    last: u32,
    kept: Instant,
    life: Option<Box<Life>>,
}

/// What a rule leaves of an HTTP/1 connection.
#[derive(Debug)]
struct Life {
    /// Requests, the present one included.
    left: u32,
    ends: Option<Instant>,
}

impl Life {
    fn new(settings: &ConnectionSettings) -> Box<Life> {
        let ends = settings.most_age.and_then(|age| Instant::now().checked_add(age));
        Box::new(Life { left: settings.most_requests.unwrap_or(u32::MAX), ends })
    }

    fn is_over(&self) -> bool {
        self.left == 0 || self.ends.is_some_and(|ends| ends <= Instant::now())
    }
}

/// TLS of one identity pair, with the material that it was made from.
#[derive(Debug)]
struct Pair {
    material: RefCell<Arc<Material>>,
    svid: Arc<Svid>,
    trust: Arc<Trust>,
    tls: MeshTls,
}

/// The shared connections of one key.
#[derive(Debug, Default)]
struct Slot {
    connections: RefCell<Vec<Rc<Shared>>>,
    dialing: tokio::sync::Mutex<()>,
    failed: RefCell<Option<(Instant, ConnectError)>>,
}

/// One shared connection.
#[derive(Debug)]
struct Shared {
    sender: Http2,
    pair: Option<Rc<Pair>>,
    streams: Cell<u32>,
    /// Whether a request was sent over it.
    has_begun: Cell<bool>,
    /// Whether a request has had its answer over it.
    has_served: Cell<bool>,
    /// Looks at which it had no stream, since it last had one.
    idle: Cell<u32>,
    /// How it is kept, where a rule says anything of it.
    settings: Option<Arc<ConnectionSettings>>,
    /// Streams that it may still take.
    left: Cell<u32>,
    /// Since when it has had no stream; known where a rule says how long that may last.
    rests: Cell<Option<Instant>>,
}

/// One stream of a shared connection; counted until it is dropped.
#[derive(Debug)]
pub struct Stream {
    shared: Rc<Shared>,
    sending: Option<Sending>,
    fresh: bool,
}

impl Stream {
    fn new(shared: Rc<Shared>, fresh: bool) -> Stream {
        Stream { shared, sending: None, fresh }
    }

    /// The connection.
    pub fn connection(&self) -> &Http2 {
        &self.shared.sender
    }

    /// Whether the connection was made for this stream and has been of no use to any: then it cannot have been about to
    /// close for long, and a peer that closes it at once would do so again.
    pub fn is_fresh(&self) -> bool {
        self.fresh && !self.shared.has_served.get()
    }

    /// Whether it is the first of its connection to be asked so.
    pub fn is_first(&self) -> bool {
        !self.shared.has_begun.replace(true)
    }

    /// The answer has come. The request's body is sent as long as this stream is held.
    pub fn hold(&mut self, sending: Sending) {
        self.shared.has_served.set(true);
        self.sending = Some(sending);
    }

    /// Whether the request has not been sent whole.
    pub fn is_sending(&self) -> bool {
        self.sending.as_ref().is_some_and(Sending::goes_on)
    }

    /// The answer was read whole. What the peer still takes of the request it gets.
    pub fn finish(mut self) {
        if let Some(sending) = self.sending.take() {
            sending.let_go();
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.streams.set(self.shared.streams.get().saturating_sub(1));
        if self.shared.streams.get() == 0 && self.shared.idle_timeout().is_some() {
            self.shared.rests.set(Some(Instant::now()));
        }
    }
}

/// An HTTP/1 connection that belongs to one exchange at a time.
#[derive(Debug)]
pub struct Lease {
    sender: Option<Http1>,
    key: Option<Http1Key>,
    /// The last look at which it may serve another exchange.
    last: u32,
    /// Whether it had served another exchange before: then it may have been closed in the meantime.
    pub reused: bool,
    /// Whether it had nothing to do for a while: then its server may be about to close it.
    pub rested: bool,
    life: Option<Box<Life>>,
    pool: Weak<Pool>,
}

impl Lease {
    /// Sends the request.
    pub fn sender(&mut self) -> Option<&mut Http1> {
        self.sender.as_mut()
    }

    /// The exchange is over and its answer was read whole: the connection may serve another.
    pub fn give_back(&mut self) {
        let (Some(mut sender), Some(key), Some(pool)) =
            (self.sender.take(), self.key.take(), self.pool.upgrade())
        else {
            return;
        };
        let mut life = self.life.take();
        if let Some(life) = &mut life {
            life.left = life.left.saturating_sub(1);
            if life.is_over() {
                return;
            }
        }
        if sender.is_ready() {
            return pool.keep(key, sender, self.last, life);
        }
        if sender.is_closed() {
            return;
        }
        let (pool, last) = (Rc::downgrade(&pool), self.last);
        tokio::task::spawn_local(async move {
            // The connection's task needs another turn to see that the answer has ended.
            let ready = tokio::time::timeout(Duration::from_secs(1), sender.ready()).await;
            if let (Ok(Ok(())), Some(pool)) = (ready, pool.upgrade())
                && sender.is_ready()
            {
                pool.keep(key, sender, last, life);
            }
        });
    }
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

    /// Closes what has been idle for long, again and again; runs as long as its data thread.
    pub async fn keep_sweeping(self: Rc<Pool>) {
        let mut next = Instant::now() + SWEEP;
        let mut changed = self.roots.subscribe();
        let mut before = self.roots.load();
        // Where endpoints were that may have gone, and when that is looked at.
        let (mut suspects, mut compare) = (HashSet::new(), None::<Instant>);
        loop {
            let at = self.finest.get().map_or(next, |finest| next.min(Instant::now() + finest));
            let at = compare.map_or(at, |compare| compare.min(at));
            tokio::select! {
                () = tokio::time::sleep_until(at) => {}
                () = self.finer.notified() => continue,
                // `roots` holds the sender.
                Ok(()) = changed.changed() => {
                    let now = self.roots.load();
                    suspects.extend(changed_endpoints(&before, &now).filter_map(LiveEndpoint::reached));
                    before = now;
                    compare.get_or_insert(Instant::now() + COMPARE);
                    continue;
                }
            }
            if compare.is_some_and(|compare| Instant::now() >= compare) {
                compare = None;
                self.let_go(std::mem::take(&mut suspects), &before);
            }
            self.sweep_settled();
            if Instant::now() >= next {
                self.gone.borrow_mut().clear();
                self.sweep();
                next = Instant::now() + SWEEP;
            }
        }
    }

    /// Closes connections to endpoints that are there no more. What is under way there comes to its end.
    fn let_go(&self, mut gone: HashSet<SocketAddr>, now: &Root) {
        // One that went before may have come back.
        gone.extend(self.gone.borrow_mut().drain());
        let endpoints = now.destinations.iter().flat_map(|one| &one.endpoints);
        for address in endpoints.filter_map(LiveEndpoint::reached) {
            if gone.is_empty() {
                return;
            }
            gone.remove(&address);
        }
        self.idle.borrow_mut().retain(|key, _| !gone.contains(&key.address));
        for (key, slot) in self.shared.borrow().iter() {
            if gone.contains(&key.address) {
                // Each ends with its last stream.
                slot.connections.borrow_mut().clear();
            }
        }
        self.gone.borrow_mut().extend(gone.into_iter().take(MOST_GONE));
    }

    /// Closes what is over as rules say.
    fn sweep_settled(&self) {
        self.idle.borrow_mut().retain(|key, idle| {
            if let Some(settings) = one_settings(&key.way) {
                let rests = |one: &Idle| settings.idle_timeout.is_some_and(|most| one.kept.elapsed() >= most);
                idle.retain(|one| !rests(one) && !one.life.as_ref().is_some_and(|life| life.is_over()));
            }
            !idle.is_empty()
        });
        for slot in self.shared.borrow().values() {
            slot.connections
                .borrow_mut()
                .retain(|one| one.settings.is_none() || (one.is_open() && !one.rests_too_long()));
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

    fn sweep(&self) {
        let now = self.looks.get() + 1;
        self.looks.set(now);
        self.idle.borrow_mut().retain(|key, idle| {
            let before = idle.len();
            idle.retain(|one| one.last >= now || !one.sender.is_ready());
            self.ages.count(before - idle.len());
            let settled = one_settings(&key.way).is_some_and(|settings| settings.idle_timeout.is_some());
            idle.retain(|one| one.sender.is_ready() && (settled || now - one.since <= IDLE_HTTP1));
            !idle.is_empty()
        });
        self.shared.borrow_mut().retain(|key, slot| {
            let proxied = key.way.as_ref().is_some_and(|way| way.proxy.is_some());
            let most = if proxied { IDLE_HTTP1 } else { IDLE_HTTP2 };
            slot.connections.borrow_mut().retain(|one| {
                one.idle.set(if one.streams.get() > 0 { 0 } else { one.idle.get() + 1 });
                one.is_open() && (one.idle.get() <= most || one.idle_timeout().is_some())
            });
            // Somebody who waits for a connection holds the slot too.
            !slot.connections.borrow().is_empty() || Rc::strong_count(slot) > 1
        });
        if self.shared.borrow().is_empty() {
            self.pairs.borrow_mut().clear();
        }
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

/// Endpoints of what is not the same in a later root, the same ones among them.
fn changed_endpoints<'r>(before: &'r Root, now: &Root) -> impl Iterator<Item = &'r LiveEndpoint> {
    let same_place = before.destinations.len() == now.destinations.len();
    let known: HashSet<_> = match same_place {
        true => HashSet::new(),
        false => now.destinations.iter().map(Arc::as_ptr).collect(),
    };
    let is_changed = move |(index, one): &(usize, &Arc<LiveDestination>)| match same_place {
        true => !now.destinations.get(*index).is_some_and(|now| Arc::ptr_eq(one, now)),
        false => !known.contains(&Arc::as_ptr(one)),
    };
    before.destinations.iter().enumerate().filter(is_changed).flat_map(|(_, one)| &one.endpoints)
}

fn one_settings(way: &Option<Rc<Way>>) -> Option<&ConnectionSettings> {
    way.as_ref()?.settings.as_deref()
}

impl Shared {
    fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    fn idle_timeout(&self) -> Option<Duration> {
        self.settings.as_ref()?.idle_timeout
    }

    fn rests_too_long(&self) -> bool {
        let (Some(since), Some(most)) = (self.rests.get(), self.idle_timeout()) else { return false };
        self.streams.get() == 0 && since.elapsed() >= most
    }

    fn take(&self) {
        self.streams.set(self.streams.get() + 1);
        self.left.set(self.left.get().saturating_sub(1));
        self.idle.set(0);
    }

    /// Other proxies allow what we open at most; other servers say what they allow.
    fn most_streams(&self) -> u32 {
        let most = match self.pair {
            Some(_) => STREAMS,
            None => u32::try_from(self.sender.most_streams()).unwrap_or(STREAMS).min(STREAMS),
        };
        self.settings.as_ref().map_or(most, |settings| most.min(settings.most_streams))
    }

    /// A server that allows no stream at all has done with a connection, whatever it may allow later.
    fn is_of_use(&self) -> bool {
        self.left.get() > 0 && (self.streams.get() > 0 || self.most_streams() > 0)
    }

    fn was_made_with(&self, pair: Option<&Rc<Pair>>) -> bool {
        match (&self.pair, pair) {
            (Some(made), Some(now)) => Rc::ptr_eq(made, now),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }
}

impl Slot {
    /// A stream of a new connection. Whoever waits for the same connection shares it, or its failure.
    async fn dial<F>(
        &self,
        pair: Option<Rc<Pair>>,
        settings: Option<&Arc<ConnectionSettings>>,
        dial: impl FnOnce() -> F,
    ) -> Result<Stream, ConnectError>
    where
        F: Future<Output = Result<Http2, ConnectError>>,
    {
        let asked = Instant::now();
        let _dialing = self.dialing.lock().await;
        if let Some(stream) = self.room(pair.as_ref()) {
            return Ok(stream);
        }
        if let Some((when, error)) = &*self.failed.borrow()
            && *when > asked
        {
            return Err(error.clone());
        }
        match dial().await {
            Ok(sender) => {
                let shared = Rc::new(Shared {
                    sender,
                    pair,
                    streams: Cell::new(0),
                    has_begun: Cell::new(false),
                    has_served: Cell::new(false),
                    idle: Cell::new(0),
                    settings: settings.cloned(),
                    left: Cell::new(settings.and_then(|s| s.most_requests).unwrap_or(u32::MAX)),
                    rests: Cell::new(None),
                });
                shared.take();
                self.connections.borrow_mut().push(Rc::clone(&shared));
                Ok(Stream::new(shared, true))
            }
            Err(error) => {
                *self.failed.borrow_mut() = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    fn room(&self, pair: Option<&Rc<Pair>>) -> Option<Stream> {
        let mut connections = self.connections.borrow_mut();
        // Those that are closed or were made with other keys end with their last stream.
        connections.retain(|one| one.is_open() && one.was_made_with(pair) && one.is_of_use());
        let free = connections.iter().find(|one| one.streams.get() < one.most_streams())?;
        free.take();
        Some(Stream::new(Rc::clone(free), false))
    }
}
