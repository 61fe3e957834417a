//! Where announcements go: the seam between the gRPC face and the single writer, which stands above this folder.

use std::time::Duration;

use mesh_core::snapshot::Version;
use mesh_core::vocab::health::Health;
use mesh_core::vocab::name::{Text, WorkloadKey};

use super::announcement::Announcement;
use super::fare::Told;

/// What became of an announcement.
#[derive(Debug, Clone, Default)]
pub struct Announced {
    /// Workloads taken in, with their identity where they have one.
    pub workloads: Vec<(WorkloadKey, Option<String>)>,
    /// What was not taken in, and why.
    pub problems: Vec<String>,
}

/// Health of one workload as its node reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported {
    /// The workload.
    pub workload: WorkloadKey,
    /// Its health.
    pub health: Health,
    /// Why it is not healthy.
    pub reason: Text,
}

/// Those who call workloads.
#[tonic::async_trait]
pub trait Callers: Send + Sync {
    /// Waits until all of them that are connected, but one, run this version or a later one, for no longer than `patience`.
    async fn run(&self, version: Version, but: &str, patience: Duration);
}

/// Takes in what nodes say. Each call renews the node's lease.
#[tonic::async_trait]
pub trait Registrar: Send + Sync {
    /// Replaces what a node has announced; `None` when meshd is going down.
    async fn announce(&self, node: &str, announcement: Announcement) -> Option<Announced>;
    /// Notes the health of workloads of a node.
    async fn report(&self, node: &str, reports: Vec<Reported>);
    /// Notes for people how workloads fare as a node tells; `whole` if it tells of all of its own.
    async fn fare(&self, node: &str, told: Told, whole: bool);
    /// The node's proxy is about to end: its workloads get nothing from the version on that is returned. `None` when meshd
    /// is going down.
    async fn depart(&self, node: &str) -> Option<Version>;
    /// The node is alive; `false` if nothing is known of it any more, so that it must announce its workloads anew.
    async fn renew(&self, node: &str) -> bool;
}
