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
