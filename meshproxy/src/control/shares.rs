//! Shares of the rate limits that proxies keep to together: asked of meshd every second. Where it does not answer, what was
//! leased runs out, and each proxy keeps to an even part.

use std::sync::Arc;
use std::time::Duration;

use mesh_proto::generated as wire;
use mesh_proto::generated::registry_client::RegistryClient;
use tokio::time::MissedTickBehavior;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::live::limits::{SharedLimit, moment, shared};
use crate::live::root::Roots;

/// How often shares are asked for.
const EVERY: Duration = Duration::from_secs(1);
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Most limits of one question: what meshd takes.
const MOST: usize = 1000;

/// Asks for as long as the channel lasts.
pub async fn run(roots: Arc<Roots>, channel: Channel) -> Status {
    let mut client = RegistryClient::new(channel);
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut changed = roots.subscribe();
    loop {
        let is_time = tokio::select! {
            _ = tick.tick() => true,
            Ok(()) = changed.changed() => false,
        };
        let limits = shared(&roots);
        // A new limit is told of at once, so that all who keep to it are soon known.
        if !is_time {
            if limits.iter().all(SharedLimit::is_reported) {
                continue;
            }
            tick.reset();
        }
        for some in limits.chunks(MOST) {
            let asked = moment();
            let limits = some.iter().map(report).collect();
            let mut request = tonic::Request::new(wire::LimitReports { limits });
            request.set_timeout(PATIENCE);
            match client.share_limits(request).await {
                Ok(answer) => take(some, &answer.into_inner(), asked),
                // A meshd from before there were any: each keeps to itself.
                Err(status) if status.code() == Code::Unimplemented => return std::future::pending().await,
                // The other streams tell whether meshd has gone.
                Err(status) => tracing::debug!(%status, "no shares of rate limits"),
            }
        }
    }
}

fn report(limit: &SharedLimit) -> wire::LimitReport {
    let said = limit.report();
    wire::LimitReport {
        limit: limit.limit.clone(),
        workload: limit.workload.clone(),
        demand: said.demand,
        held: said.held,
    }
}

fn take(limits: &[SharedLimit], answer: &wire::LimitShares, asked: u64) {
    let lease = Duration::from_millis(u64::from(answer.lease_milliseconds));
    for (limit, share) in limits.iter().zip(&answer.shares) {
        limit.grant(share.share, share.holders, asked, lease);
    }
}
