//! The sockets follow the root: what it asks for is opened, what it asks for no more is drained. One that cannot be
//! opened is reported with its holder and tried again; nothing else is held up by it.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use mesh_core::snapshot::view::Bind;
use mesh_core::vocab::name::Text;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::accept;
use super::holder::holder;
use super::socket::{self, Accepted, Target};
use super::within::{self, Within};
use crate::capture::transparent::{self, Transparent};
use crate::capture::{Purpose, Wanted, bound, explicit, loopback};
use crate::live::root::{ListenerFault, Root, SocketReport};
use crate::netns::Netns;
use crate::runtime::drain::Drain;
use crate::runtime::worker::Workers;
use crate::telemetry::log::sinks::Sinks;
use crate::upstream::thread::Shared;

/// A socket that could not be opened is tried again so often.
const RETRY: Duration = Duration::from_secs(2);
/// What waits in the queues of sockets is accepted within this.
const LAST_ACCEPTS: Duration = Duration::from_secs(1);
/// What the access log still holds at the end is written within this.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Which sockets there are, beside those that services ask for.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The mesh hop.
    pub inbound: SocketAddr,
    /// The HTTP proxy; `None` without explicit capture.
    pub explicit: Option<SocketAddr>,
    /// Addresses of services; `None` without loopback capture.
    pub loopback: Option<Ipv4Net>,
    /// What the rules of interception hand over; `None` without transparent capture.
    pub transparent: Option<Transparent>,
    /// Data threads.
    pub threads: usize,
}

/// The traffic half of the proxy while it runs.
#[derive(Debug)]
pub struct Listeners {
    following: tokio::task::JoinHandle<()>,
    workers: Arc<Workers<Accepted>>,
    logs: Sinks,
    drain: Drain,
}

impl Listeners {
    /// Starts the data threads, and the task that lets sockets follow the root. No socket is opened before the first
    /// snapshot.
    pub fn start(settings: Settings, shared: Shared) -> io::Result<Listeners> {
        let logs = shared.access.sinks().clone();
        let for_threads = shared.clone();
        let workers =
            Workers::start(settings.threads, move |_, jobs| accept::serve(for_threads.clone(), jobs))?;
        let workers = Arc::new(workers);
        let target = Target {
            workers: Arc::clone(&workers),
            drain: shared.drain.clone(),
            metrics: Arc::clone(&shared.metrics),
            connections: Arc::default(),
            most_connections: socket::most_connections(shared.limits.connections),
            netns: None,
            pressure: shared.pressure.clone(),
        };
        let drain = shared.drain.clone();
        let following = tokio::spawn(follow(settings, shared, target));
        Ok(Listeners { following, workers, logs, drain })
    }

    /// Ends the data threads and writes the rest of the access log. What is still open is cut: drain first.
    pub async fn end(self) {
        let Listeners { mut following, workers, logs, drain } = self;
        drain.begin();
        if tokio::time::timeout(LAST_ACCEPTS, &mut following).await.is_err() {
            following.abort();
        }
        let ended = tokio::task::spawn_blocking(move || {
            match Arc::into_inner(workers) {
                Some(workers) => workers.join(),
                None => tracing::error!("a socket outlived the end"),
            }
            logs.finish(LAST_LINES);
        });
        drop(ended.await);
    }
}

async fn follow(settings: Settings, shared: Shared, target: Target) {
    let mut changed = shared.roots.subscribe();
    let mut sockets =
        Sockets { target, open: BTreeMap::new(), within: BTreeMap::new(), tasks: JoinSet::new() };
    let mut has_namespaces = false;
    loop {
        let root = shared.roots.load();
        if root.serial > 0 {
            let mut faults = sockets.reconcile(wanted(&settings, &root));
            let (elsewhere, missing) = within::wanted(&settings, &root);
            faults.extend(missing);
            faults.extend(sockets.reconcile_within(elsewhere));
            has_namespaces = !root.tables.network_namespaces().is_empty();
            let open = sockets.open.keys().filter_map(Bind::ip).collect();
            shared.roots.report_sockets(SocketReport { serial: root.serial, faults, open });
        }
        drop(root);
        let has_faults = !shared.roots.sockets().faults.is_empty();
        tokio::select! {
            result = changed.changed() => if result.is_err() { break },
            // A network namespace may be made anew under the same name.
            () = tokio::time::sleep(RETRY), if has_faults || has_namespaces => {}
            () = shared.drain.begun() => break,
        }
    }
    // Dropping the senders stops every accept task after its queue is empty.
    sockets.open.clear();
    sockets.within.clear();
    while sockets.tasks.join_next().await.is_some() {}
}

/// What shall be open. Where two want one address, the proxy's own comes first, then services, then Sidecars.
fn wanted(settings: &Settings, root: &Root) -> BTreeMap<Bind, Purpose> {
    let fixed = explicit::wanted(settings.inbound, settings.explicit);
    let services = settings.loopback.into_iter().flat_map(|net| {
        let seen = |(index, _): &(usize, _)| root.tables.is_seen_here(*index);
        let services = root.tables.services.iter().enumerate().filter(seen);
        services.flat_map(move |(_, table)| loopback::wanted(net, &table.service))
    });
    let captured = settings.transparent.map(transparent::wanted).unwrap_or_default();
    let all = fixed.into_iter().chain(captured).chain(services).chain(bound::wanted(&root.tables));
    let mut wanted = BTreeMap::new();
    for Wanted { address, purpose } in all {
        wanted.entry(address).or_insert(purpose);
    }
    wanted
}

struct Sockets {
    target: Target,
    open: BTreeMap<Bind, (Purpose, oneshot::Sender<()>)>,
    /// Those in other network namespaces.
    within: BTreeMap<(Within, Bind), (Purpose, oneshot::Sender<()>)>,
    tasks: JoinSet<()>,
}

impl Sockets {
    /// Opens and drains; returns what could not be opened.
    fn reconcile(&mut self, wanted: BTreeMap<Bind, Purpose>) -> Vec<ListenerFault> {
        while self.tasks.try_join_next().is_some() {}
        self.open.retain(|address, (purpose, stop)| {
            !stop.is_closed() && wanted.get(address).is_some_and(|wanted| wanted == purpose)
        });
        let mut faults = Vec::new();
        for (address, purpose) in wanted {
            if self.open.contains_key(&address) {
                continue;
            }
            match socket::listen(&address, purpose == Purpose::Entering) {
                Ok(listener) => {
                    let stop = self.accept(listener, &address, &purpose, None);
                    self.open.insert(address, (purpose, stop));
                }
                Err(error) => faults.push(fault(&address, &purpose, &error)),
            }
        }
        faults
    }

    /// The same for sockets in other network namespaces.
    fn reconcile_within(&mut self, wanted: BTreeMap<(Within, Bind), Purpose>) -> Vec<ListenerFault> {
        self.within.retain(|address, (purpose, stop)| {
            !stop.is_closed() && wanted.get(address).is_some_and(|wanted| wanted == purpose)
        });
        let mut faults = Vec::new();
        for ((within, address), purpose) in wanted {
            let key = (within, address);
            if self.within.contains_key(&key) {
                continue;
            }
            let (within, address) = &key;
            let netns = Netns::named(&within.name);
            let at = address.clone();
            match netns.run(move || socket::listen(&at, false)) {
                Ok(listener) => {
                    let stop = self.accept(listener, address, &purpose, Some(netns));
                    self.within.insert(key, (purpose, stop));
                }
                Err(error) => {
                    let fault = fault(address, &purpose, &error);
                    // Its holder was looked for among the sockets of our own namespace.
                    faults.push(within::told(&within.name, ListenerFault { holder: None, ..fault }));
                }
            }
        }
        faults
    }

    /// Accepts until what is returned is dropped.
    fn accept(
        &mut self,
        listener: TcpListener,
        address: &Bind,
        purpose: &Purpose,
        netns: Option<Arc<Netns>>,
    ) -> oneshot::Sender<()> {
        let (stop, stopped) = oneshot::channel();
        let at = address.clone();
        let target = Target { netns, ..self.target.clone() };
        let accepting = socket::accept(listener, at.clone(), purpose.clone(), target, stopped);
        // The end waits for what is still in the queue.
        let open = self.target.drain.hold();
        self.tasks.spawn(async move {
            if let Err(error) = accepting.await {
                tracing::error!(address = %at, %error, "accepting has failed");
            }
            drop(open);
        });
        stop
    }
}

fn fault(address: &Bind, purpose: &Purpose, error: &io::Error) -> ListenerFault {
    let purpose: Text = match purpose {
        Purpose::Inbound => "mesh inbound".into(),
        Purpose::Explicit => "HTTP proxy".into(),
        Purpose::Service(service) => service.to_string().into(),
        Purpose::Bound(_) => "egress of a Sidecar".into(),
        Purpose::Leaving(_) => "captured outbound".into(),
        Purpose::Entering => "captured inbound".into(),
    };
    let (reason, holder) = match error.kind() {
        io::ErrorKind::AddrInUse => ("address in use".to_owned(), address.ip().and_then(holder)),
        io::ErrorKind::PermissionDenied if address.ip().is_some_and(|ip| ip.port() < 1024) => {
            let port = address.ip().map_or(0, |ip| ip.port());
            (format!("no permission for port {port}: CAP_NET_BIND_SERVICE is needed"), None)
        }
        _ => (error.to_string(), None),
    };
    ListenerFault { address: address.clone(), purpose, reason, holder }
}
