//! What checks ask of a workload, and what they say of it.

use super::name::Text;

/// Whether an endpoint may get traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Health {
    /// Checked and well, or not subject to checks.
    Healthy,
    /// Checked and not well.
    Unhealthy,
    /// Not checked yet.
    Unknown,
}

impl Health {
    /// The word shown to people.
    pub fn name(self) -> &'static str {
        match self {
            Health::Healthy => "healthy",
            Health::Unhealthy => "unhealthy",
            Health::Unknown => "unknown",
        }
    }
}

/// How a host stands towards those who call its workloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostStanding {
    /// Its workloads get traffic as they fare.
    Serves,
    /// The operator takes its workloads out.
    Drained,
    /// Its proxy is about to end and has said so.
    Leaves,
    /// Nothing was heard of it for a lease.
    Away,
}

impl HostStanding {
    /// Whether it takes its workloads out of every caller's snapshot.
    pub fn withholds(self) -> bool {
        self != HostStanding::Serves
    }

    /// Whether callers turn away from it in good order.
    pub fn is_draining(self) -> bool {
        matches!(self, HostStanding::Drained | HostStanding::Leaves)
    }

    /// Why its workloads get no traffic; empty where they may.
    pub fn reason(self) -> &'static str {
        match self {
            HostStanding::Serves => "",
            HostStanding::Drained => "its host is drained",
            HostStanding::Leaves => "its proxy is ending",
            HostStanding::Away => "nothing was heard of its host for a lease",
        }
    }
}

/// What a probe does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ProbeAction {
    /// `httpGet`: 200 to 399 is success.
    Http {
        /// Path, default `/`.
        path: Text,
        /// Port.
        port: u16,
        /// Host, default the workload's address.
        host: Option<Text>,
        /// Over TLS.
        https: bool,
        /// Header fields.
        headers: Vec<(Text, Text)>,
    },
    /// `tcpSocket`: a connection is success.
    Tcp {
        /// Host, default the workload's address.
        host: Option<Text>,
        /// Port.
        port: u16,
    },
    /// `exec`: exit code 0 is success.
    Exec {
        /// Command and arguments.
        command: Vec<Text>,
    },
    /// `grpc`: the health service says SERVING.
    Grpc {
        /// Port; `None` for the first.
        port: Option<u16>,
        /// Service asked for.
        service: Option<Text>,
    },
}

/// `probe` of a WorkloadGroup.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Probe {
    /// What it does.
    pub action: ProbeAction,
    /// Seconds before the first; default 0.
    pub initial_delay: u32,
    /// Seconds it may take; default 1.
    pub timeout: u32,
    /// Seconds between two; default 10.
    pub period: u32,
    /// Successes until healthy; default 1.
    pub success_threshold: u32,
    /// Failures until unhealthy; default 1.
    pub failure_threshold: u32,
}
