//! The client half: the snapshot in force and the one that is being tried.
//!
//! Invariant: `current` moves only with [`Subscriber::accept`]; whatever happens to a candidate or a stream,
//! the last accepted snapshot stays whole.

use std::sync::Arc;

use super::message::{Ack, DeltaMessage, Hello, ListenerFault, Nack, digests};
use crate::snapshot::section::SectionKey;
use crate::snapshot::{Snapshot, Version};
use crate::vocab::node::Node;

/// The client half, living longer than its streams.
#[derive(Debug)]
pub struct Subscriber {
    node: Node,
    current: Option<Arc<Snapshot>>,
    candidate: Option<Candidate>,
}

/// A snapshot to build tables from, and then to accept or to reject.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Of the delta that led to it.
    pub nonce: u64,
    /// The whole snapshot; unchanged sections are shared with the one in force.
    pub snapshot: Arc<Snapshot>,
    /// Whether its sections are those in force, so that only the version moves.
    pub unchanged: bool,
}

impl Subscriber {
    /// A subscriber that holds the last good snapshot, or nothing.
    pub fn new(node: Node, held: Option<Arc<Snapshot>>) -> Subscriber {
        Subscriber { node, current: held, candidate: None }
    }

    /// The first message of a new stream. Forgets a candidate of the stream before.
    pub fn hello(&mut self) -> Hello {
        self.candidate = None;
        let digests = self.current.as_deref().map(digests).unwrap_or_default();
        Hello { node: self.node.clone(), version: self.version(), digests }
    }

    /// Applies a delta to what is in force. A candidate that was not decided yet is replaced.
    pub fn on_delta(&mut self, message: &DeltaMessage) -> Candidate {
        let (base, unchanged) = match &self.current {
            Some(current) => (&**current, message.delta.is_empty()),
            None => (&Snapshot::default(), false),
        };
        let snapshot = Arc::new(message.delta.apply(base));
        let candidate = Candidate { nonce: message.nonce, snapshot, unchanged };
        self.candidate = Some(candidate.clone());
        candidate
    }

    /// The candidate is in force and kept. `None` if a newer delta or a new stream took its place.
    pub fn accept(&mut self, nonce: u64, listener_faults: Vec<ListenerFault>) -> Option<Ack> {
        let candidate = self.candidate.take_if(|candidate| candidate.nonce == nonce)?;
        let version = candidate.snapshot.version;
        self.current = Some(candidate.snapshot);
        Some(Ack { nonce, version, listener_faults })
    }

    /// The candidate cannot be used. `None` if a newer delta or a new stream took its place.
    pub fn reject(&mut self, nonce: u64, reasons: Vec<(Option<SectionKey>, String)>) -> Option<Nack> {
        self.candidate.take_if(|candidate| candidate.nonce == nonce)?;
        Some(Nack { nonce, reasons })
    }

    /// The snapshot in force.
    pub fn current(&self) -> Option<&Arc<Snapshot>> {
        self.current.as_ref()
    }

    /// Its version.
    pub fn version(&self) -> Option<Version> {
        self.current.as_ref().map(|snapshot| snapshot.version)
    }
}
