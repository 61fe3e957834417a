//! Which workload of this host a process is of.

use std::cmp::Ordering;
use std::sync::Arc;

use super::Tables;
use super::workloads::HostedWorkload;
use crate::vocab::name::Text;
use crate::vocab::recognition::{Process, User};

/// What must be found out of a process to say which workload it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Evidence {
    /// Its user.
    pub user: bool,
    /// Its control group.
    pub cgroup: bool,
}

impl Evidence {
    /// Whether nothing need be found out.
    pub fn is_none(self) -> bool {
        self == Evidence::default()
    }
}

impl Tables {
    /// What must be found out of processes in a network namespace.
    pub fn evidence(&self, netns: Option<&str>) -> Evidence {
        let mut evidence = Evidence::default();
        for recognition in self.workloads.values().map(|workload| &workload.section.recognition) {
            if recognition.netns.as_deref() == netns {
                evidence.user |= recognition.user.is_some();
                evidence.cgroup |= recognition.cgroup.is_some();
            }
        }
        evidence
    }

    /// The users that workloads are recognised by and that only the host knows.
    pub fn user_names(&self) -> impl Iterator<Item = &Text> {
        self.workloads.values().filter_map(|workload| match &workload.section.recognition.user {
            Some(User::Name(name)) => Some(name),
            Some(User::Id(_)) | None => None,
        })
    }

    /// The network namespaces that workloads live in beside the proxy's own, each once.
    pub fn network_namespaces(&self) -> Vec<&Text> {
        let named =
            self.workloads.values().filter_map(|workload| workload.section.recognition.netns.as_ref());
        let mut names: Vec<&Text> = named.collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The workload that a process is of; `None` for one of none, or that cannot be told. Where there is a single
    /// workload that says nothing of how it is recognised, every process is of it. Among several, one that says
    /// nothing is never meant. `uid_of` knows users by name.
    pub fn owner(
        &self,
        process: &Process<'_>,
        uid_of: impl Fn(&str) -> Option<u32>,
    ) -> Option<&Arc<HostedWorkload>> {
        if let Some(only) = self.only_workload()
            && only.section.recognition.is_silent()
        {
            return Some(only);
        }
        let mut best: Option<&Arc<HostedWorkload>> = None;
        let mut is_tied = false;
        for workload in self.workloads.values() {
            let recognition = &workload.section.recognition;
            if recognition.is_silent() || !recognition.admits(process, &uid_of) {
                continue;
            }
            match best.map(|best| recognition.weight().cmp(&best.section.recognition.weight())) {
                None | Some(Ordering::Greater) => (best, is_tied) = (Some(workload), false),
                Some(Ordering::Equal) => is_tied = true,
                Some(Ordering::Less) => {}
            }
        }
        // Two that say equally much cannot be told apart.
        best.filter(|_| !is_tied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::section::Section;
    use crate::snapshot::workload::{Recognition, Workload, WorkloadPort};
    use crate::snapshot::{Entry, Snapshot};
    use crate::tables::build::build;
    use crate::vocab::identity::SpiffeId;
    use crate::vocab::name::WorkloadKey;
    use crate::vocab::protocol::Protocol;

    fn by(user: Option<u32>, cgroup: Option<&str>, netns: Option<&str>) -> Recognition {
        Recognition { user: user.map(User::Id), cgroup: cgroup.map(Text::from), netns: netns.map(Text::from) }
    }

    fn id(name: &str) -> SpiffeId {
        SpiffeId::parse(&format!("spiffe://cluster.local/ns/default/sa/{name}")).unwrap()
    }

    /// Workloads of these names, all at one address and port.
    fn tables(workloads: &[(&str, Recognition)]) -> Tables {
        let mut snapshot = Snapshot::default();
        for (name, recognition) in workloads {
            let section = Section::Workload(Workload {
                key: WorkloadKey { namespace: "default".into(), name: (*name).into() },
                address: "10.0.0.1".parse().unwrap(),
                identity: Some(id(name)),
                labels: Default::default(),
                node: "h1".into(),
                locality: Default::default(),
                network: None,
                ports: vec![WorkloadPort {
                    number: 80,
                    protocol: Protocol::Http,
                    service: "s".into(),
                    endpoint: None,
                    pool: Default::default(),
                }],
                mtls: Default::default(),
                policies: Vec::new(),
                tokens: Vec::new(),
                limits: Vec::new(),
                view: None,
                recognition: recognition.clone(),
                probe: None,
                telemetry: Default::default(),
            });
            snapshot.sections.insert(section.key(), Entry::new(section));
        }
        build(&snapshot, None).unwrap()
    }

    #[test]
    fn a_process_is_of_the_workload_that_says_most_of_it() {
        let process =
            |user: u32, cgroup: &'static str| Process { user: Some(user), cgroup: Some(cgroup), netns: None };
        let check = |workloads: &[(&str, Recognition)], process: Process<'_>, expected: Option<&str>| {
            let tables = tables(workloads);
            let owner = tables.owner(&process, |_| None);
            assert_eq!(owner.map(|owner| &*owner.section.key.name), expected, "{process:?}");
        };
        let silent = by(None, None, None);
        let several = [
            ("user", by(Some(1), None, None)),
            ("both", by(Some(1), Some("a"), None)),
            ("deep", by(None, Some("a/b/c"), None)),
            ("silent", silent.clone()),
            ("apart", by(None, None, Some("blue"))),
        ];
        check(&several, process(1, "/x"), Some("user"));
        check(&several, process(1, "/a"), Some("both"));
        check(&several, process(2, "/a/b/c"), Some("deep"));
        check(&several, process(2, "/a"), None);
        check(&several, Process { netns: Some("blue"), ..Process::default() }, Some("apart"));
        check(&several, Process { netns: Some("red"), ..process(1, "/a") }, None);
        check(&several, Process::default(), None);
        // Two that cannot be told apart.
        check(&[("a", by(Some(1), None, None)), ("b", by(Some(1), None, None))], process(1, "/"), None);
        check(&[("only", silent)], Process::default(), Some("only"));
        check(&[("only", by(Some(1), None, None))], process(2, "/"), None);
        check(&[], process(1, "/"), None);
    }

    #[test]
    fn only_what_tells_workloads_apart_is_found_out() {
        let tables = tables(&[("a", by(Some(1), None, None)), ("b", by(None, Some("b"), Some("blue")))]);
        assert_eq!(tables.evidence(None), Evidence { user: true, cgroup: false });
        assert_eq!(tables.evidence(Some("blue")), Evidence { user: false, cgroup: true });
        assert!(tables.evidence(Some("red")).is_none());
        assert_eq!(tables.network_namespaces(), [&Text::from("blue")]);
    }

    #[test]
    fn of_one_address_and_port_the_identity_tells_which_is_meant() {
        let tables = tables(&[("a", by(None, None, Some("red"))), ("b", by(None, None, Some("blue")))]);
        let at = "10.0.0.1:80".parse().unwrap();
        for name in ["a", "b"] {
            let shown = tables.workload_shown(at, &id(name)).unwrap();
            assert_eq!(&*shown.section.key.name, name);
        }
        // Whose identity it is not says so.
        assert_eq!(tables.workload_shown(at, &id("c")).map(|found| &*found.section.key.name), Some("a"));
        assert!(tables.workload_shown("10.0.0.2:80".parse().unwrap(), &id("a")).is_none());
    }
}
