//! Which connections are not kept: idle for too long, too old, or of endpoints that have gone.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::resilience::pool::ConnectionSettings;

use tokio::time::Instant;

use super::Pool;
use super::lease::Idle;
use crate::live::destination::LiveDestination;
use crate::live::endpoint::LiveEndpoint;
use crate::live::root::Root;
use crate::upstream::way::Way;

/// Idle HTTP/1 connections are closed after so many looks: a minute.
const IDLE_HTTP1: u32 = 4;
/// Idle HTTP/2 connections are closed after so many looks: five minutes, as in ztunnel's pool.
const IDLE_HTTP2: u32 = 20;
/// How often idle connections are looked through. Age is counted in looks, so that requests read no clock.
pub(super) const SWEEP: Duration = Duration::from_secs(15);
/// How long after a change it is looked for endpoints that have gone, of which there may be many more.
const COMPARE: Duration = Duration::from_millis(500);
/// Addresses of endpoints that have gone that are remembered until the next look.
const MOST_GONE: usize = 4096;

impl Pool {
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
    pub(super) fn let_go(&self, mut gone: HashSet<SocketAddr>, now: &Root) {
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

    /// How many connections there are: idle ones of HTTP/1, shared ones of HTTP/2, those to other proxies; and the exchanges
    /// on shared ones.
    pub fn figures(&self) -> (usize, usize, usize, u32) {
        let http1 = self.idle.borrow().values().map(Vec::len).sum();
        let (mut http2, mut mesh, mut streams) = (0, 0, 0);
        for slot in self.shared.borrow().values() {
            for one in slot.connections.borrow().iter() {
                *(if one.pair.is_some() { &mut mesh } else { &mut http2 }) += 1;
                streams += one.streams.get();
            }
        }
        (http1, http2, mesh, streams)
    }

    /// Closes what is over as rules say.
    pub(super) fn sweep_settled(&self) {
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

    pub(super) fn sweep(&self) {
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
