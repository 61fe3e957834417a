//! The difference of two snapshots, and its application.

use std::collections::BTreeMap;

use super::digest::Digest;
use super::section::SectionKey;
use super::{Entry, Snapshot, Version};

/// What turns one snapshot into another.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Delta {
    /// Version of the result.
    pub version: Version,
    /// Sections that are new or changed.
    pub upserts: Vec<(SectionKey, Entry)>,
    /// Sections that are gone.
    pub removals: Vec<SectionKey>,
}

impl Delta {
    /// The difference from what a proxy holds to a snapshot.
    pub fn between(held: &BTreeMap<SectionKey, Digest>, next: &Snapshot) -> Delta {
        let changed = |(key, entry): &(&SectionKey, &Entry)| held.get(*key) != Some(&entry.digest);
        let upserts =
            next.sections.iter().filter(changed).map(|(key, entry)| (key.clone(), entry.clone())).collect();
        let removals = held.keys().filter(|key| !next.sections.contains_key(*key)).cloned().collect();
        Delta { version: next.version, upserts, removals }
    }

    /// Whether a version leaves the proxy's sections unchanged.
    pub fn is_empty(&self) -> bool {
        self.upserts.is_empty() && self.removals.is_empty()
    }

    /// The snapshot that results; unchanged sections are shared with `base`.
    pub fn apply(&self, base: &Snapshot) -> Snapshot {
        let mut sections = base.sections.clone();
        for key in &self.removals {
            sections.remove(key);
        }
        sections.extend(self.upserts.iter().cloned());
        Snapshot { version: self.version, sections }
    }
}
