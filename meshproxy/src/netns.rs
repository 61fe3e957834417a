//! Network namespaces of this host beside the proxy's own (`ip netns`, under `/run/netns`). A thread stays in each that is
//! used; a socket belongs to the namespace that it was made in, whoever uses it afterwards.

use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;

use mesh_core::vocab::name::Text;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;

/// Where they have names.
const FOLDER: &str = "/run/netns";
/// Sockets that wait to be made. Each takes microseconds.
const QUEUE: usize = 256;

type Job = Box<dyn FnOnce() + Send>;

/// Those in use, by name: all who mean one share its thread.
static IN_USE: Mutex<BTreeMap<Text, Weak<Netns>>> = Mutex::new(BTreeMap::new());

/// Which namespace has a name now: another one has another number.
pub type Id = (u64, u64);

/// A namespace by its name, whether there is one of that name yet or not.
#[derive(Debug)]
pub struct Netns {
    name: Text,
    entered: Mutex<Option<Entered>>,
}

#[derive(Debug)]
struct Entered {
    id: Id,
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        // Its queue ends, and with it the thread, which has at most a socket to make.
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of a network namespace panicked");
        }
    }
}

impl PartialEq for Netns {
    fn eq(&self, other: &Netns) -> bool {
        self.name == other.name
    }
}

impl Eq for Netns {}

impl Hash for Netns {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl Netns {
    /// The one of that name.
    pub fn named(name: &Text) -> Arc<Netns> {
        let mut in_use = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = in_use.get(name).and_then(Weak::upgrade) {
            return known;
        }
        in_use.retain(|_, known| known.strong_count() > 0);
        let new = Arc::new(Netns { name: name.clone(), entered: Mutex::default() });
        in_use.insert(name.clone(), Arc::downgrade(&new));
        new
    }

    /// Its name.
    pub fn name(&self) -> &Text {
        &self.name
    }

    /// Looks which namespace has the name now, and is in that one afterwards.
    pub fn look(&self) -> io::Result<Id> {
        let mut entered = self.entered.lock().unwrap_or_else(PoisonError::into_inner);
        let found = open(&self.name).and_then(|file| Ok((id(&file)?, file)));
        let (id, file) = match found {
            Ok(found) => found,
            Err(error) => {
                *entered = None;
                return Err(error);
            }
        };
        if entered.as_ref().is_none_or(|entered| entered.id != id) {
            *entered = Some(enter(&self.name, id, file)?);
        }
        Ok(id)
    }

    /// Has something done in it, which must not take long.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (reply, answer) = mpsc::sync_channel(1);
        self.send(Box::new(move || drop(reply.send(work()))))?;
        answer.recv().map_err(|_| gone())?
    }

    /// The same without blocking the caller's thread.
    async fn run_aside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (reply, answer) = oneshot::channel();
        self.send(Box::new(move || drop(reply.send(work()))))?;
        answer.await.map_err(|_| gone())?
    }

    /// Connects in it. An address that is none of its own is refused: behind it is something else.
    pub async fn tcp(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = self.run_aside(move || unconnected(address)).await?;
        TcpSocket::from_std_stream(socket.into()).connect(address).await
    }

    fn send(&self, job: Job) -> io::Result<()> {
        let mut entered = self.entered.lock().unwrap_or_else(PoisonError::into_inner);
        if entered.is_none() {
            let file = open(&self.name)?;
            *entered = Some(enter(&self.name, id(&file)?, file)?);
        }
        let jobs = entered.as_ref().and_then(|entered| entered.jobs.as_ref()).ok_or_else(gone)?;
        jobs.try_send(job).map_err(|_| io::ErrorKind::ResourceBusy.into())
    }
}

fn open(name: &str) -> io::Result<File> {
    File::open(Path::new(FOLDER).join(name)).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => io::Error::new(
            io::ErrorKind::NotFound,
            format!("there is no network namespace {name} under {FOLDER}"),
        ),
        _ => error,
    })
}

fn id(file: &File) -> io::Result<Id> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

fn enter(name: &str, id: Id, file: File) -> io::Result<Entered> {
    let (jobs, queue) = mpsc::sync_channel::<Job>(QUEUE);
    let (ready, is_ready) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name(format!("netns-{name}")).spawn(move || {
        let entered = move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network));
        let is_there = entered.is_ok();
        drop(file);
        if ready.send(entered).is_ok() && is_there {
            queue.into_iter().for_each(|job| job());
        }
    })?;
    let entered = Entered { id, jobs: Some(jobs), thread: Some(thread) };
    match is_ready.recv().map_err(|_| gone())? {
        Ok(()) => Ok(entered),
        Err(rustix::io::Errno::PERM) => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("no permission to enter the network namespace {name}: CAP_SYS_ADMIN is needed"),
        )),
        Err(error) => Err(error.into()),
    }
}

fn gone() -> io::Error {
    io::Error::other("the thread of the network namespace has ended")
}

/// A socket in the namespace of the calling thread.
fn unconnected(address: SocketAddr) -> io::Result<Socket> {
    if !address.ip().is_loopback() && UdpSocket::bind((address.ip(), 0)).is_err() {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_not_there_is_named() {
        let netns = Netns::named(&"no-such-namespace".into());
        let error = netns.look().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("no-such-namespace under /run/netns"), "{error}");
        assert!(netns.run(|| Ok(())).is_err());
        assert!(Arc::ptr_eq(&netns, &Netns::named(&"no-such-namespace".into())));
    }

    #[test]
    fn only_its_own_addresses_are_dialled() {
        let refused = unconnected("192.0.2.1:80".parse().unwrap()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        unconnected("127.0.0.1:80".parse().unwrap()).unwrap();
    }
}
