//! The server half of one stream: what the proxy holds, what is on its way, what is wanted.
//!
//! Invariant: `held` is what the proxy runs, as far as it has said; it moves only with a hello or an ack.
//! After a nack the refused content is not sent again; the next snapshot with other content is.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::message::{Ack, DeltaMessage, Hello, ListenerFault, Nack};
use crate::snapshot::delta::Delta;
use crate::snapshot::digest::Digest;
use crate::snapshot::section::SectionKey;
use crate::snapshot::{Snapshot, Version};

/// The server half of one stream.
#[derive(Debug, Default)]
pub struct Publisher {
    greeted: bool,
    held: BTreeMap<SectionKey, Digest>,
    acknowledged: Option<Version>,
    sent: Option<Version>,
    outstanding: Option<Outstanding>,
    wanted: Option<Arc<Snapshot>>,
    rejected: Option<Rejected>,
    faults: Vec<ListenerFault>,
    last_nonce: u64,
}

/// A delta that was sent and not answered yet.
#[derive(Debug)]
struct Outstanding {
    nonce: u64,
    snapshot: Arc<Snapshot>,
    delta: Delta,
}

/// A snapshot that the proxy refused.
#[derive(Debug)]
struct Rejected {
    snapshot: Arc<Snapshot>,
    reason: String,
}

/// Whether a proxy runs what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SyncStatus {
    /// It runs the newest.
    Synced,
    /// The newest is on its way.
    Stale,
    /// It refused the newest and runs what it had.
    Rejected,
}

impl SyncStatus {
    /// The word in `status`.
    pub fn name(self) -> &'static str {
        match self {
            SyncStatus::Synced => "SYNCED",
            SyncStatus::Stale => "STALE",
            SyncStatus::Rejected => "REJECTED",
        }
    }
}

/// How far a proxy is, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncState {
    /// The last version sent to it.
    pub sent: Option<Version>,
    /// The version that it runs.
    pub acknowledged: Option<Version>,
    /// Whether that is the newest.
    pub status: SyncStatus,
    /// Why it refused the newest; empty otherwise.
    pub reason: String,
    /// Sockets that it could not open.
    pub listener_faults: Vec<ListenerFault>,
}

impl Publisher {
    /// A publisher for a stream on which nothing was said yet.
    pub fn new() -> Publisher {
        Publisher::default()
    }

    /// Takes in a hello, also a second one on the same stream, and answers with what brings the proxy to
    /// `snapshot`. The answer may change nothing: its ack then tells that the proxy is alive and its sockets open.
    pub fn on_hello(&mut self, hello: Hello, snapshot: Arc<Snapshot>) -> Option<DeltaMessage> {
        self.greeted = true;
        self.held = hello.digests;
        self.acknowledged = hello.version;
        self.outstanding = None;
        self.rejected = None;
        self.faults.clear();
        self.wanted = Some(snapshot.clone());
        Some(self.send(snapshot))
    }

    /// Takes in the newest snapshot. `None` while a delta is outstanding: the answer to it sets this one free.
    pub fn on_snapshot(&mut self, snapshot: Arc<Snapshot>) -> Option<DeltaMessage> {
        self.wanted = Some(snapshot);
        self.next()
    }

    /// Takes in an ack; one that answers nothing outstanding is ignored.
    pub fn on_ack(&mut self, ack: Ack) -> Option<DeltaMessage> {
        let Outstanding { snapshot, delta, .. } = self.take_outstanding(ack.nonce)?;
        for key in &delta.removals {
            self.held.remove(key);
        }
        self.held.extend(delta.upserts.into_iter().map(|(key, entry)| (key, entry.digest)));
        self.acknowledged = Some(snapshot.version);
        self.rejected = None;
        self.faults = ack.listener_faults;
        self.next()
    }

    /// Takes in a nack; one that answers nothing outstanding is ignored. The proxy keeps what it had.
    pub fn on_nack(&mut self, nack: &Nack) -> Option<DeltaMessage> {
        let Outstanding { snapshot, .. } = self.take_outstanding(nack.nonce)?;
        self.rejected = Some(Rejected { snapshot, reason: nack.text() });
        self.next()
    }

    /// How far the proxy is.
    pub fn state(&self) -> SyncState {
        let wanted = self.wanted.as_ref().map(|snapshot| snapshot.version);
        let refused = self.wanted.as_ref().zip(self.rejected.as_ref());
        let refused = refused.filter(|(wanted, rejected)| same_content(wanted, &rejected.snapshot));
        let status = match refused {
            Some(_) => SyncStatus::Rejected,
            None if wanted.is_some() && wanted == self.acknowledged && self.outstanding.is_none() => {
                SyncStatus::Synced
            }
            None => SyncStatus::Stale,
        };
        SyncState {
            sent: self.sent,
            acknowledged: self.acknowledged,
            status,
            reason: refused.map(|(_, rejected)| rejected.reason.clone()).unwrap_or_default(),
            listener_faults: self.faults.clone(),
        }
    }

    fn take_outstanding(&mut self, nonce: u64) -> Option<Outstanding> {
        self.outstanding.take_if(|outstanding| outstanding.nonce == nonce)
    }

    /// Sends the newest if the stream is free and the proxy neither runs nor refused it.
    fn next(&mut self) -> Option<DeltaMessage> {
        if !self.greeted || self.outstanding.is_some() {
            return None;
        }
        let wanted = self.wanted.clone()?;
        let refused = self.rejected.as_ref().is_some_and(|r| same_content(&wanted, &r.snapshot));
        if refused || (self.acknowledged == Some(wanted.version) && holds(&self.held, &wanted)) {
            return None;
        }
        Some(self.send(wanted))
    }

    fn send(&mut self, snapshot: Arc<Snapshot>) -> DeltaMessage {
        self.last_nonce += 1;
        let nonce = self.last_nonce;
        let delta = Delta::between(&self.held, &snapshot);
        self.sent = Some(snapshot.version);
        self.outstanding = Some(Outstanding { nonce, snapshot, delta: delta.clone() });
        DeltaMessage { nonce, delta }
    }
}

/// Keys and digests, in order.
fn contents(snapshot: &Snapshot) -> impl Iterator<Item = (&SectionKey, Digest)> {
    snapshot.sections.iter().map(|(key, entry)| (key, entry.digest))
}

fn same_content(one: &Snapshot, other: &Snapshot) -> bool {
    contents(one).eq(contents(other))
}

fn holds(held: &BTreeMap<SectionKey, Digest>, snapshot: &Snapshot) -> bool {
    held.iter().map(|(key, digest)| (key, *digest)).eq(contents(snapshot))
}
