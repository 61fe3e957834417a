//! Workloads of this host with the policies that hold for them.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Tables;
use super::governance::{Governance, Policies};
use crate::policy::authorization::AuthorizationPolicy;
use crate::snapshot::workload::{Workload, WorkloadPort};

/// A workload of this host.
#[derive(Debug, PartialEq, Eq)]
pub struct HostedWorkload {
    /// Address, identity, ports, modes.
    pub section: Workload,
    /// The policies that hold for it.
    pub governance: Arc<Governance>,
}

impl HostedWorkload {
    /// What is known of a port.
    pub fn port(&self, number: u16) -> Option<&WorkloadPort> {
        self.section.ports.iter().find(|port| port.number == number)
    }

    /// The authorization policies that hold for it, in the order in which it names them.
    pub fn policies(&self) -> &[Arc<AuthorizationPolicy>] {
        self.governance.program.policies()
    }
}

/// Adds workloads with what governs them, sharing what did not change with the tables before.
pub(super) fn add(
    tables: &mut Tables,
    sections: &[&Workload],
    policies: &mut Policies,
    previous: Option<&Tables>,
) {
    for section in sections {
        let before = previous.and_then(|tables| tables.workloads.get(&section.key));
        let governance =
            policies.govern(&section.policies, &section.tokens, before.map(|hosted| &hosted.governance));
        for port in &section.ports {
            let address = SocketAddr::new(section.address, port.number);
            tables.by_address.entry(address).or_insert_with(|| section.key.clone());
        }
        let hosted = match before {
            Some(before) if before.section == **section && before.governance == governance => before.clone(),
            _ => Arc::new(HostedWorkload { section: (*section).clone(), governance }),
        };
        tables.workloads.insert(section.key.clone(), hosted);
    }
}
