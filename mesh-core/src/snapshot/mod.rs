//! What one proxy needs: sections by key, at a version and revision.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

pub mod credential;
pub mod delta;
pub mod destination;
pub mod digest;
pub mod endpoints;
pub mod gateway;
pub mod routes;
pub mod section;
pub mod security;
pub mod service;
pub mod view;
pub mod workload;

use digest::Digest;
use section::{Section, SectionKey};

/// The number of an accepted configuration batch, durable, with the counter of registry changes since, in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Version {
    /// Number of the configuration batch; 0 before the first.
    pub number: u64,
    /// Registry changes (endpoints, health) since meshd started at or reached that version.
    pub revision: u64,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.number, self.revision)
    }
}

/// A section with its content digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Digest of the content.
    pub digest: Digest,
    /// The content.
    pub section: Arc<Section>,
}

impl Entry {
    /// Wraps a section and digests it.
    pub fn new(section: Section) -> Entry {
        Entry { digest: Digest::of(&section), section: Arc::new(section) }
    }
}

/// Sections by key. Two snapshots are equal when versions and contents are.
pub type Sections = BTreeMap<SectionKey, Entry>;

/// The sections of one proxy at a version.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// Version.
    pub version: Version,
    /// Sections.
    pub sections: Sections,
}
