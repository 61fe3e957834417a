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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::compile::compile;
    use crate::policy::authorization::PolicyAction;
    use crate::resource::Spec;
    use crate::resource::security::AuthorizationPolicy;
    use crate::state::sample::{declare, entry, joined, labels, mesh, node, service, virtual_service};

    #[test]
    fn a_node_gets_what_callers_need_and_what_its_own_workloads_name() {
        let allow = |id: &str, selector: &str| {
            let selector = Some(labels(selector));
            let policy = AuthorizationPolicy { selector, action: PolicyAction::Allow, rules: vec![] };
            declare(id, Spec::AuthorizationPolicy(policy))
        };
        let state = mesh(vec![
            service("default/a", &["http:80"], "app=a"),
            virtual_service("default/v", &["shop.example"], vec![]),
            allow("default/for-a", "app=a"),
            allow("default/for-b", "app=b"),
        ]);
        let nodes = vec![
            node("h1", "10.0.0.1", vec![entry("default/wa", "10.0.0.1", "app=a")]),
            node("h2", "10.0.0.2", vec![entry("default/wb", "10.0.0.2", "app=b")]),
        ];
        let compiled = compile(&joined(&state, nodes));
        let keys = |snapshot: Snapshot| -> BTreeSet<String> {
            snapshot.sections.keys().map(ToString::to_string).collect()
        };
        let host = "a.default.svc.cluster.local";
        let shared = [
            "trust".to_owned(),
            format!("service/{host}"),
            format!("routes/{host}:80"),
            format!("destination/outbound|80||{host}"),
            format!("endpoints/{host}/0"),
        ];
        let expected = |own: &[&str]| -> BTreeSet<String> {
            shared.iter().cloned().chain(own.iter().map(|key| (*key).to_owned())).collect()
        };
        let version = Version { number: 3, revision: 1 };
        let of_h1 = compiled.snapshot_for("h1", version);
        assert_eq!(of_h1.version, version);
        assert_eq!(keys(of_h1), expected(&["authorization/default/for-a", "workload/default/wa"]));
        assert_eq!(keys(compiled.snapshot_for("h3", version)), expected(&[]));
        let whole = [
            "authorization/default/for-a",
            "authorization/default/for-b",
            "workload/default/wa",
            "workload/default/wb",
        ];
        assert_eq!(keys(compiled.whole(version)), expected(&whole));
    }
}
