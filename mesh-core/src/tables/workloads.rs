//! Workloads of this host with the policies that hold for them.

use std::sync::Arc;

use crate::policy::authorization::AuthorizationPolicy;
use crate::snapshot::workload::{Workload, WorkloadPort};

/// A workload of this host.
#[derive(Debug, PartialEq, Eq)]
pub struct HostedWorkload {
    /// Address, identity, ports, modes.
    pub section: Workload,
    /// The policies that hold for it, in the order in which it names them.
    pub policies: Vec<Arc<AuthorizationPolicy>>,
    /// Whether every policy that it names is at hand. While one is missing everything is refused.
    pub complete: bool,
}

impl HostedWorkload {
    /// What is known of a port.
    pub fn port(&self, number: u16) -> Option<&WorkloadPort> {
        self.section.ports.iter().find(|port| port.number == number)
    }
}
