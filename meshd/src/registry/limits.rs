//! The shares of rate limits that proxies keep to together. In memory only: a lease is soon over, and a meshd that starts
//! gives nobody more than it has until those of before are.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mesh_core::resilience::shares::{LEASE, Report, Shares};
use mesh_core::vocab::name::Text;
use mesh_proto::generated::{LimitReports, LimitShare, LimitShares};
use tokio::time::Instant;
use tonic::Status;

/// Most limits of one report.
const MOST_REPORTS: usize = 1000;
/// Longest name of a limit or workload: a few names of resources.
const LONGEST_NAME: usize = 2048;

/// Who may use how much.
#[derive(Debug)]
pub struct Ledger {
    began: Instant,
    shares: Mutex<Shares>,
}

impl Default for Ledger {
    fn default() -> Ledger {
        Ledger { began: Instant::now(), shares: Mutex::new(Shares::new(Duration::ZERO)) }
    }
}

impl Ledger {
    /// Answers the reports of a node.
    pub fn share(&self, node: &str, reports: &LimitReports) -> Result<LimitShares, Status> {
        let too_long = |text: &str| text.len() > LONGEST_NAME;
        if reports.limits.len() > MOST_REPORTS {
            return Err(Status::invalid_argument(format!(
                "at most {MOST_REPORTS} limits can be reported at once"
            )));
        }
        if reports.limits.iter().any(|one| too_long(&one.limit) || too_long(&one.workload)) {
            return Err(Status::invalid_argument("the name of a limit or workload is too long"));
        }
        let now = self.began.elapsed();
        let mut ledger = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let shares = reports.limits.iter().map(|one| {
            let limit = Text::from(one.limit.as_str());
            let who = Text::from(format!("{node} {}", one.workload));
            let report = Report { demand: one.demand, held: one.held };
            let granted = ledger.report(&limit, &who, report, now);
            let (share, holders) = granted.map_or((0, 0), |grant| (grant.share, grant.holders));
            LimitShare { limit: one.limit.clone(), share, holders }
        });
        let shares = shares.collect();
        Ok(LimitShares { shares, lease_milliseconds: u32::try_from(LEASE.as_millis()).unwrap_or(u32::MAX) })
    }
}
