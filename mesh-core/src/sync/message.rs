//! Hello, delta, ack, nack.

use std::collections::BTreeMap;

use crate::snapshot::delta::Delta;
use crate::snapshot::digest::Digest;
use crate::snapshot::section::SectionKey;
use crate::snapshot::{Snapshot, Version};
use crate::vocab::name::Text;
use crate::vocab::node::Node;

/// What a proxy says first on a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Who it is.
    pub node: Node,
    /// The version that it runs; `None` before its first snapshot.
    pub version: Option<Version>,
    /// The sections that it holds.
    pub digests: BTreeMap<SectionKey, Digest>,
}

/// A delta that waits for an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeltaMessage {
    /// Repeated by the answer.
    pub nonce: u64,
    /// What changes.
    pub delta: Delta,
}

/// The delta is in force, and the sockets are open but for those named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// Of the delta.
    pub nonce: u64,
    /// The version now in force.
    pub version: Version,
    /// Sockets that could not be opened.
    pub listener_faults: Vec<ListenerFault>,
}

/// A socket that a proxy could not open.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ListenerFault {
    /// Its address and port.
    pub address: Text,
    /// Why not.
    pub reason: Text,
}

/// The delta was refused; what was in force stays in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nack {
    /// Of the delta.
    pub nonce: u64,
    /// Why, by section; `None` where no single section is at fault.
    pub reasons: Vec<(Option<SectionKey>, String)>,
}

impl Nack {
    /// All reasons on one line.
    pub fn text(&self) -> String {
        let one = |(key, reason): &(Option<SectionKey>, String)| match key {
            Some(key) => format!("{key}: {reason}"),
            None => reason.clone(),
        };
        self.reasons.iter().map(one).collect::<Vec<_>>().join("; ")
    }
}

/// The digests of a snapshot, as a hello carries them.
pub fn digests(snapshot: &Snapshot) -> BTreeMap<SectionKey, Digest> {
    snapshot.sections.iter().map(|(key, entry)| (key.clone(), entry.digest)).collect()
}
