//! Who is connected, and how far each proxy is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mesh_core::snapshot::{Snapshot, Version};
use mesh_core::sync::publisher::{SyncState, SyncStatus};
use tokio::sync::watch;

use crate::telemetry;

/// How far one proxy is.
#[derive(Debug, Clone)]
pub struct Standing {
    /// Whether its stream is open.
    pub connected: bool,
    /// What it was sent and runs, as of its last word.
    pub sync: SyncState,
    /// The snapshot that it acknowledged last.
    pub running: Option<Arc<Snapshot>>,
}

impl Standing {
    /// The version that the proxy runs; 0 before its first.
    pub fn acknowledged(&self) -> u64 {
        self.sync.acknowledged.map_or(0, |version| version.number)
    }

    /// Whether it runs the newest, or at least this version.
    pub fn is_in_step(&self, version: Option<u64>) -> bool {
        match version {
            Some(version) => self.sync.acknowledged.is_some_and(|runs| runs.number >= version),
            None => self.sync.status == SyncStatus::Synced,
        }
    }
}

#[derive(Debug)]
struct Seat {
    stream: u64,
    standing: Standing,
}

/// The proxies that are connected, or were since meshd started.
pub struct Roster {
    seats: Mutex<BTreeMap<String, Seat>>,
    changed: watch::Sender<u64>,
}

impl Default for Roster {
    fn default() -> Roster {
        Roster { seats: Mutex::default(), changed: watch::channel(0).0 }
    }
}

impl Roster {
    /// Takes a seat for a stream of a node. A later stream of the same node replaces it.
    pub fn enter(self: &Arc<Self>, node: &str, sync: SyncState) -> Presence {
        let mut seats = self.seats();
        let stream = seats.get(node).map_or(0, |seat| seat.stream) + 1;
        seats.insert(
            node.to_owned(),
            Seat { stream, standing: Standing { connected: true, sync, running: None } },
        );
        drop(seats);
        self.tick();
        Presence { roster: Arc::clone(self), node: node.to_owned(), stream }
    }

    /// How far a node's proxy is; `None` if it was never connected.
    pub fn standing(&self, node: &str) -> Option<Standing> {
        self.seats().get(node).map(|seat| seat.standing.clone())
    }

    /// Every proxy that is connected.
    pub fn connected(&self) -> Vec<(String, Standing)> {
        let seats = self.seats();
        let connected = seats.iter().filter(|(_, seat)| seat.standing.connected);
        connected.map(|(node, seat)| (node.clone(), seat.standing.clone())).collect()
    }

    /// Waits until every connected proxy is in step. The names of those that are not when the time is over.
    pub async fn in_step(&self, version: Option<u64>, timeout: Duration) -> Vec<String> {
        self.all(timeout, |_, standing| standing.is_in_step(version)).await
    }

    /// Waits until every connected proxy that counts runs this version and revision, or later ones of this meshd. The
    /// names of those that do not when the time is over.
    pub async fn in_force(
        &self,
        version: Version,
        timeout: Duration,
        counts: impl Fn(&str) -> bool,
    ) -> Vec<String> {
        // What a proxy held when it came may be a revision of an earlier meshd.
        let runs =
            |standing: &Standing| standing.running.as_ref().is_some_and(|runs| runs.version >= version);
        self.all(timeout, |node, standing| !counts(node) || runs(standing)).await
    }

    async fn all(&self, timeout: Duration, is_done: impl Fn(&str, &Standing) -> bool) -> Vec<String> {
        let mut changes = self.changed.subscribe();
        let lagging = || {
            let connected = self.connected();
            let behind = connected.into_iter().filter(|(node, standing)| !is_done(node, standing));
            behind.map(|(node, _)| node).collect::<Vec<_>>()
        };
        let deadline = tokio::time::sleep(timeout);
        tokio::pin!(deadline);
        loop {
            changes.mark_unchanged();
            if lagging().is_empty() {
                return Vec::new();
            }
            tokio::select! {
                () = &mut deadline => return lagging(),
                changed = changes.changed() => if changed.is_err() { return lagging() },
            }
        }
    }

    fn seats(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Seat>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick(&self) {
        let connected = self.seats().values().filter(|seat| seat.standing.connected).count();
        telemetry::connected(connected);
        self.changed.send_modify(|count| *count += 1);
    }
}

/// A stream's seat; given up when dropped.
pub struct Presence {
    roster: Arc<Roster>,
    node: String,
    stream: u64,
}

impl Presence {
    /// Notes how far the proxy is.
    pub fn update(&self, sync: SyncState) {
        self.change(|standing| standing.sync = sync);
    }

    /// Notes what the proxy runs.
    pub fn runs(&self, snapshot: Arc<Snapshot>) {
        self.change(|standing| standing.running = Some(snapshot));
    }

    /// Whether a later stream of the node has taken the seat.
    pub fn is_replaced(&self) -> bool {
        self.roster.seats().get(&self.node).is_none_or(|seat| seat.stream != self.stream)
    }

    fn change(&self, change: impl FnOnce(&mut Standing)) {
        let mut seats = self.roster.seats();
        if let Some(seat) = seats.get_mut(&self.node).filter(|seat| seat.stream == self.stream) {
            change(&mut seat.standing);
        }
        drop(seats);
        self.roster.tick();
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.change(|standing| standing.connected = false);
    }
}

#[cfg(test)]
mod tests {
    use mesh_core::snapshot::Version;

    use super::*;

    fn at(number: u64, status: SyncStatus) -> SyncState {
        SyncState {
            sent: None,
            acknowledged: Some(Version { number, revision: 0 }),
            status,
            reason: String::new(),
            listener_faults: Vec::new(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_with_the_last_ack_or_names_who_is_behind() {
        let roster = Arc::new(Roster::default());
        let one = roster.enter("h1", at(3, SyncStatus::Synced));
        let two = roster.enter("h2", at(2, SyncStatus::Stale));
        assert_eq!(roster.in_step(Some(3), Duration::from_secs(1)).await, ["h2"]);
        let waiting = roster.in_step(Some(3), Duration::from_secs(60));
        let answering = async { two.update(at(3, SyncStatus::Synced)) };
        assert!(tokio::join!(waiting, answering).0.is_empty());
        let runs = |number, revision| {
            Arc::new(Snapshot { version: Version { number, revision }, ..Snapshot::default() })
        };
        let second = Duration::from_secs(1);
        let wanted = Version { number: 3, revision: 2 };
        assert_eq!(roster.in_force(wanted, second, |_| true).await, ["h1", "h2"]);
        one.runs(runs(3, 2));
        two.runs(runs(3, 1));
        assert_eq!(roster.in_force(wanted, second, |_| true).await, ["h2"]);
        assert!(roster.in_force(wanted, second, |node| node != "h2").await.is_empty());
        two.runs(runs(4, 0));
        assert!(roster.in_force(wanted, second, |_| true).await.is_empty());
        drop(one);
        assert_eq!(roster.connected().len(), 1);
        assert!(roster.standing("h1").is_some_and(|standing| !standing.connected));
    }

    #[test]
    fn a_later_stream_keeps_its_seat_when_the_earlier_ends() {
        let roster = Arc::new(Roster::default());
        let first = roster.enter("h1", at(1, SyncStatus::Synced));
        let _second = roster.enter("h1", at(1, SyncStatus::Synced));
        assert!(first.is_replaced());
        drop(first);
        assert_eq!(roster.connected().len(), 1);
    }
}
