//! Which sections a proxy needs.
//!
//! Every node gets all that callers need, its own workloads, and the authorization policies that these name.

use super::Compiled;
use crate::snapshot::section::{Section, SectionKey};
use crate::snapshot::{Snapshot, Version};

impl Compiled {
    /// The snapshot of a node.
    pub fn snapshot_for(&self, node: &str, version: Version) -> Snapshot {
        let mut sections = self.shared.clone();
        for (key, entry) in self.nodes.get(node).into_iter().flatten() {
            if let Section::Workload(workload) = &*entry.section {
                for (namespace, name) in &workload.policies {
                    let policy = SectionKey::Authorization(namespace.clone(), name.clone());
                    if let Some(entry) = self.policies.get(&policy) {
                        sections.insert(policy, entry.clone());
                    }
                }
            }
            sections.insert(SectionKey::Workload(key.clone()), entry.clone());
        }
        Snapshot { version, sections }
    }

    /// Every section of the mesh, for questions about it.
    pub fn whole(&self, version: Version) -> Snapshot {
        let mut sections = self.shared.clone();
        sections.extend(self.policies.iter().map(|(key, entry)| (key.clone(), entry.clone())));
        let workloads = self.nodes.values().flatten();
        sections.extend(workloads.map(|(key, entry)| (SectionKey::Workload(key.clone()), entry.clone())));
        Snapshot { version, sections }
    }
}
