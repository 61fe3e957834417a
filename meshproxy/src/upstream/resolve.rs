//! Names that requests ask for, and the guard against dialling ourselves.
//!
//! The names of endpoints are resolved beforehand (`dns/keep.rs`); here are those that nobody could know before: of hosts
//! outside the mesh, and of wildcards.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use mesh_core::decide::aim::Aim;
use tokio::time::Instant;

use super::failure::ConnectError;
use crate::dns::forward::Forwarder;
use crate::live::destination::LiveDestination;
use crate::live::root::{Root, Roots};

const PATIENCE: Duration = Duration::from_secs(5);
/// Names that a data thread remembers.
const MOST_NAMES: usize = 1024;
/// Names that a data thread asks for at one time; more are refused at once.
const AT_ONCE: usize = 256;
/// Addresses of one name that are used.
const MOST_ADDRESSES: usize = 32;
/// How long an answer is believed at least and at most, and one that was followed by a failure.
const FRESH: (u32, u32) = (1, 300);
const STALE: Duration = Duration::from_secs(5);

/// What a data thread has resolved.
#[derive(Debug)]
pub struct Lookups {
    forwarder: Forwarder,
    known: RefCell<HashMap<Box<str>, Known, RandomState>>,
    targets: RefCell<Targets>,
    asking: Cell<usize>,
}

#[derive(Debug, Clone)]
struct Known {
    addresses: Rc<[IpAddr]>,
    until: Instant,
}

/// Destinations as they were aimed, in one root.
#[derive(Debug, Default)]
struct Targets {
    serial: u64,
    known: HashMap<Aimed, Target, RandomState>,
}

/// The index of a destination, and the host and port that a caller means.
type Aimed = (usize, Box<str>, u16);

/// A destination of certain addresses.
type Target = (Rc<[IpAddr]>, Arc<LiveDestination>);

/// One name less is asked for when this is dropped, however the asking ended.
struct Asking<'a>(&'a Cell<usize>);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Lookups {
    /// Nothing is known yet.
    pub fn new(forwarder: Forwarder) -> Lookups {
        Lookups { forwarder, known: RefCell::default(), targets: RefCell::default(), asking: Cell::new(0) }
    }

    /// The addresses of a host outside the mesh, none of which is a listener of ours.
    pub async fn outside(
        &self,
        roots: &Roots,
        host: &str,
        port: u16,
    ) -> Result<Vec<SocketAddr>, ConnectError> {
        let root = roots.load();
        let namespace = root.namespace();
        let host = root.tables.stands_for(host, Some(&namespace)).map_or(host, |target| target);
        let found = self.addresses(host).await?;
        let root = roots.load();
        let at = |ip: &IpAddr| SocketAddr::new(*ip, port);
        let others: Vec<SocketAddr> =
            found.iter().map(at).filter(|address| !is_own(roots, &root, *address)).collect();
        if others.is_empty() { Err(ConnectError::Loop) } else { Ok(others) }
    }

    /// A destination that no endpoint is chosen for, with the addresses of what its caller means as endpoints.
    pub async fn aimed(
        &self,
        roots: &Roots,
        root: &Root,
        index: usize,
        aim: &Aim,
    ) -> Result<Arc<LiveDestination>, ConnectError> {
        let found = self.addresses(&aim.host).await?;
        let key = (index, aim.host.as_str().into(), aim.port);
        let mut targets = self.targets.borrow_mut();
        if targets.serial != root.serial || targets.known.len() >= MOST_NAMES {
            targets.known.clear();
            targets.serial = root.serial;
        }
        if let Some((of, target)) = targets.known.get(&key)
            && Rc::ptr_eq(of, &found)
        {
            return Ok(Arc::clone(target));
        }
        let at = |ip: &IpAddr| SocketAddr::new(*ip, aim.port);
        let others: Vec<SocketAddr> =
            found.iter().map(at).filter(|address| !is_own(roots, root, *address)).collect();
        if others.is_empty() {
            return Err(ConnectError::Loop);
        }
        let target = Arc::new(roots.aimed(&root.destinations[index], &aim.host, &others));
        targets.known.insert(key, (found, Arc::clone(&target)));
        Ok(target)
    }

    async fn addresses(&self, host: &str) -> Result<Rc<[IpAddr]>, ConnectError> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let now = Instant::now();
        let known = self.known.borrow().get(bare).cloned();
        if let Some(known) = known.as_ref().filter(|known| known.until > now) {
            return Ok(Rc::clone(&known.addresses));
        }
        let (addresses, fresh): (Vec<IpAddr>, Duration) = match bare.parse() {
            // Remembered too, so that what is aimed at it is found again.
            Ok(ip) => (vec![ip], Duration::from_secs(FRESH.1.into())),
            Err(_) => match self.ask(bare).await {
                Ok(found) => found,
                Err(error) => match &known {
                    Some(known) => (known.addresses.to_vec(), STALE),
                    None => return Err(error),
                },
            },
        };
        let addresses = match known {
            // The same as before stays the same.
            Some(known) if *known.addresses == *addresses => known.addresses,
            _ => Rc::from(addresses),
        };
        let mut all = self.known.borrow_mut();
        if all.len() >= MOST_NAMES && !all.contains_key(bare) {
            all.retain(|_, known| known.until > now);
            if all.len() >= MOST_NAMES {
                all.clear();
            }
        }
        all.insert(bare.into(), Known { addresses: Rc::clone(&addresses), until: Instant::now() + fresh });
        Ok(addresses)
    }

    async fn ask(&self, name: &str) -> Result<(Vec<IpAddr>, Duration), ConnectError> {
        if self.asking.get() >= AT_ONCE {
            return Err(ConnectError::Resolve("too many names at one time".to_owned()));
        }
        self.asking.set(self.asking.get() + 1);
        let _asking = Asking(&self.asking);
        let mut answer = tokio::time::timeout(PATIENCE, self.forwarder.look_up(name))
            .await
            .map_err(|_elapsed| ConnectError::Resolve("timeout".to_owned()))?
            .map_err(|error| ConnectError::Resolve(error.to_string()))?;
        answer.addresses.truncate(MOST_ADDRESSES);
        Ok((answer.addresses, Duration::from_secs(answer.ttl.clamp(FRESH.0, FRESH.1).into())))
    }
}

/// Whether an address is one of our own listeners.
pub fn is_own(roots: &Roots, root: &Root, address: SocketAddr) -> bool {
    let ours = |ip: IpAddr| {
        ip.is_loopback()
            || ip.is_unspecified()
            || root.locals.iter().any(|local| local.hosted.section.address == ip)
    };
    roots.sockets().open.iter().any(|open| {
        open.port() == address.port()
            && (open.ip() == address.ip() || (open.ip().is_unspecified() && ours(address.ip())))
    })
}
