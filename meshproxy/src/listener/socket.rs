//! One listening socket and the task that accepts on it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use mesh_core::snapshot::view::Bind;
use rustix::io::Errno;
use rustix::net::SocketFlags;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use crate::capture::Purpose;
use crate::net::downstream::Facts;
use crate::netns::Netns;
use crate::runtime::drain::{Drain, Open};
use crate::runtime::pressure::{Pressure, Scarce};
use crate::runtime::worker::Workers;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::shed::Shed;

const BACKLOG: i32 = 1024;
/// So many in a hundred descriptors go to accepted connections: each may need one upstream, and some must be left.
const SHARE_OF_DESCRIPTORS: u64 = 45;
/// Without descriptors or memory nothing can be accepted; it is tried again after a pause.
const PAUSE: Duration = Duration::from_millis(50);

/// An accepted connection on its way to a data thread.
#[derive(Debug)]
pub struct Accepted {
    /// The stream, not registered anywhere yet.
    pub stream: TcpStream,
    /// Where it came from.
    pub facts: Facts,
    /// The user who connected to a Unix socket, which the kernel says at once.
    pub user: Option<u32>,
    /// The network namespace that it was accepted in; `None` for our own.
    pub netns: Option<Arc<Netns>>,
    /// What the socket is for.
    pub purpose: Purpose,
    /// Counts it among the open ones.
    pub open: Open,
    /// Counts it against the limit.
    pub place: Place,
}

/// One of the connections that may be open at a time.
#[derive(Debug)]
pub struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        // Relaxed: a limit, not a lock.
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What all sockets hand their connections to.
#[derive(Debug, Clone)]
pub struct Target {
    /// The data threads.
    pub workers: Arc<Workers<Accepted>>,
    /// The end.
    pub drain: Drain,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// How many connections are open.
    pub connections: Arc<AtomicUsize>,
    /// How many may be.
    pub most_connections: usize,
    /// The network namespace that the socket is in; `None` for our own.
    pub netns: Option<Arc<Netns>>,
    /// What there is too little of.
    pub pressure: Pressure,
}

/// How many connections this process has room for, at most so many. More are closed at once.
pub fn most_connections(most: usize) -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let share = limit.map_or(u64::MAX, |limit| limit / 100 * SHARE_OF_DESCRIPTORS);
    usize::try_from(share).unwrap_or(usize::MAX).max(16).min(most)
}

/// Binds and listens. One socket an address: closing one of several would reset what waits in its queue. A transparent
/// one is handed connections for other addresses too, and keeps these.
pub fn listen(address: &Bind, transparent: bool) -> io::Result<TcpListener> {
    let address = match address {
        Bind::Ip(address) => *address,
        Bind::Unix(path) => return listen_unix(path),
    };
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    match address {
        SocketAddr::V4(_) if transparent => socket.set_ip_transparent_v4(true)?,
        SocketAddr::V6(_) if transparent => socket.set_ip_transparent_v6(true)?,
        SocketAddr::V4(_) | SocketAddr::V6(_) => {}
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Binds and listens on a path, or on `@NAME`. What a process that is gone has left there is removed.
fn listen_unix(path: &str) -> io::Result<TcpListener> {
    let abstract_name = path.strip_prefix('@').map(|name| format!("\0{name}"));
    let address = SockAddr::unix(abstract_name.as_deref().unwrap_or(path))?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    if let Err(error) = socket.bind(&address) {
        let is_left = error.kind() == io::ErrorKind::AddrInUse
            && abstract_name.is_none()
            && UnixStream::connect(path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
        if !is_left {
            return Err(error);
        }
        std::fs::remove_file(path)?;
        socket.bind(&address)?;
    }
    if abstract_name.is_none() {
        // As open as an address of this host; who connects is told by the kernel.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    }
    socket.listen(BACKLOG)?;
    // Streams are read and written alike, whatever kind of address they have.
    Ok(socket.into())
}

/// Accepts until `stop` resolves; what waits in the queue then is still accepted before the socket is closed.
pub async fn accept(
    listener: TcpListener,
    at: Bind,
    purpose: Purpose,
    target: Target,
    mut stop: oneshot::Receiver<()>,
) -> io::Result<()> {
    let address = match at {
        Bind::Ip(_) => Some(listener.local_addr()?),
        Bind::Unix(_) => None,
    };
    let at_hand = Original::of(&purpose);
    // SAFETY: the listener owns its descriptor, gives the same one for its whole life, and lives inside the `AsyncFd`.
    let listener = unsafe { AsyncFd::register(listener) }.map_err(io::Error::from)?;
    loop {
        tokio::select! {
            // The sender is dropped when the socket is not wanted any more.
            _ = &mut stop => break,
            ready = listener.readable() => {
                let mut ready = ready?;
                match next(listener.get_ref(), address, at_hand) {
                    Ok(accepted) => target.hand(accepted, &purpose),
                    Err(Errno::AGAIN) => ready.clear_ready(),
                    Err(errno) => failed(errno).await,
                }
            }
        }
    }
    if let Bind::Unix(path) = &at
        && !path.starts_with('@')
    {
        // Before the socket is closed: afterwards the path may be another's.
        drop(std::fs::remove_file(&**path));
    }
    while let Ok(accepted) = next(listener.get_ref(), address, at_hand) {
        target.hand(accepted, &purpose);
    }
    Ok(())
}

/// An error of one connection is that connection's; without room for more there is a pause.
async fn failed(errno: Errno) {
    match errno {
        Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => {
            tracing::warn!(error = %io::Error::from(errno), "no connection can be accepted");
            tokio::time::sleep(PAUSE).await;
        }
        _ => tracing::debug!(error = %io::Error::from(errno), "a connection was gone before it was accepted"),
    }
}

/// Connections that were accepted.
static CONNECTIONS: AtomicU64 = AtomicU64::new(1);

/// Where it is said to which address a connection was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Original {
    /// It is that of the socket.
    Listener,
    /// The accepted socket has it.
    Accepted,
    /// The kernel remembers what it was before it was redirected.
    Redirected,
}

impl Original {
    fn of(purpose: &Purpose) -> Original {
        match purpose {
            Purpose::Leaving(_) => Original::Redirected,
            Purpose::Entering => Original::Accepted,
            Purpose::Inbound | Purpose::Explicit | Purpose::Service(_) | Purpose::Bound(_) => {
                Original::Listener
            }
        }
    }

    /// The address that a connection was opened to.
    fn find(self, stream: &TcpStream, listener: SocketAddr) -> io::Result<SocketAddr> {
        let known = match (self, listener) {
            (Original::Listener, _) if !listener.ip().is_unspecified() => return Ok(listener),
            (Original::Listener | Original::Accepted, _) => return stream.local_addr(),
            (Original::Redirected, SocketAddr::V4(_)) => SockRef::from(stream).original_dst_v4()?,
            (Original::Redirected, SocketAddr::V6(_)) => SockRef::from(stream).original_dst_v6()?,
        };
        known.as_socket().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }
}

/// The next connection; `address` is `None` of a Unix socket.
fn next(
    listener: &TcpListener,
    address: Option<SocketAddr>,
    original: Original,
) -> Result<(TcpStream, Facts, Option<u32>), Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (stream, peer) = rustix::net::acceptfrom_with(listener, flags)?;
    let stream = TcpStream::from(stream);
    // Relaxed: only that no two are equal matters.
    let number = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
    let Some(address) = address else {
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let user = rustix::net::sockopt::socket_peercred(&stream).ok().map(|who| who.uid.as_raw());
        return Ok((stream, Facts { peer: nowhere, local: nowhere, number }, user));
    };
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok()).ok_or(Errno::CONNABORTED)?;
    let local = match original.find(&stream, address) {
        Ok(local) => local,
        // Nobody has redirected it: it was opened to this socket itself.
        Err(_) if original == Original::Redirected => address,
        Err(_) => return Err(Errno::CONNABORTED),
    };
    Ok((stream, Facts { peer, local, number }, None))
}

impl Target {
    fn hand(&self, (stream, facts, user): (TcpStream, Facts, Option<u32>), purpose: &Purpose) {
        // Relaxed: a limit, not a lock.
        let before = self.connections.fetch_add(1, Ordering::Relaxed);
        let place = Place(Arc::clone(&self.connections));
        self.metrics.proxy.accepted.increment(1);
        let why = match self.pressure.refuses_connections() {
            _ if before >= self.most_connections => Some(Shed::Connections),
            Some(Scarce::Memory) => Some(Shed::Memory),
            Some(Scarce::Descriptors) => Some(Shed::Descriptors),
            None => None,
        };
        if let Some(why) = why {
            return self.metrics.supplies.shed(why, 1);
        }
        let open = self.drain.hold();
        let netns = self.netns.clone();
        let accepted = Accepted { stream, facts, user, netns, purpose: purpose.clone(), open, place };
        if self.workers.hand(accepted).is_err() {
            self.metrics.supplies.shed(Shed::Queue, 1);
        }
    }
}
