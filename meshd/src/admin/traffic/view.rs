//! The shapes of live traffic, which are those of `-o json`. What does not apply is absent.

use serde::{Deserialize, Serialize};

use crate::traffic::ledger::Party;
use crate::traffic::window::{Moment, Numbers, Total};

/// What is asked.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TrafficQuery {
    /// Of services in this namespace; of all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Of this service: any form of its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Of so many milliseconds before now.
    pub window_ms: u64,
    /// What a line is for: `service`, `workload`, `route`, `version`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Who speaks: `source` or `destination`; both if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reporter: Option<String>,
    /// Calls of this workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Calls to this workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// Byte streams.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TcpView {
    /// Connections that began.
    pub connections: u64,
    /// Those that came to nothing or broke off.
    pub failed: u64,
    /// Bytes from clients.
    pub received_bytes: u64,
    /// Bytes to clients.
    pub sent_bytes: u64,
}

impl TcpView {
    pub(super) fn of(numbers: &Numbers) -> Option<TcpView> {
        let any = numbers.streams + numbers.streams_failed + numbers.received + numbers.sent > 0;
        any.then_some(TcpView {
            connections: numbers.streams,
            failed: numbers.streams_failed,
            received_bytes: numbers.received,
            sent_bytes: numbers.sent,
        })
    }
}

/// A rule.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct RuleView {
    /// The resource.
    pub resource: String,
    /// Index of the rule in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<u32>,
}

/// What `stat` says of a service or a part of its traffic.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatView {
    /// Host of the service.
    pub service: String,
    /// Subset, or version of the workloads; absent for the whole service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subset: Option<String>,
    /// The workload that is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// Its namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The rule that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<RuleView>,
    /// Who speaks: `source` or `destination`.
    pub reporter: String,
    /// Requests.
    pub requests: u64,
    /// The part of them that went well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_rate: Option<f64>,
    /// Requests a second.
    pub rps: f64,
    /// Half of them took no longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50_ms: Option<f64>,
    /// 95 of 100 took no longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p95_ms: Option<f64>,
    /// 99 of 100 took no longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99_ms: Option<f64>,
    /// Clients' connections and byte streams that are open now.
    pub connections: u64,
    /// Byte streams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpView>,
    /// Since when it is clearly worse than it was in the hour; absent if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worse_since: Option<String>,
    /// What is worse: `success_rate` or `p99`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worse: Option<String>,
}

/// One end of a call.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct EndView {
    /// Host of the service that was addressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// Its namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its SPIFFE ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
}

impl EndView {
    pub(super) fn of(service: Option<&str>, party: &Party) -> EndView {
        let known = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        EndView {
            service: service.and_then(known),
            workload: known(&party.workload),
            namespace: known(&party.namespace),
            identity: known(&party.identity),
        }
    }
}

/// Who calls whom.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EdgeView {
    /// Who calls.
    pub source: EndView,
    /// Who is called.
    pub destination: EndView,
    /// Whether both know each other by their certificates.
    pub mtls: bool,
    /// Requests.
    pub requests: u64,
    /// Requests a second.
    pub rps: f64,
    /// The part of them that went well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_rate: Option<f64>,
    /// 99 of 100 took no longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99_ms: Option<f64>,
    /// Byte streams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpView>,
}

/// Where a rule sends requests.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShareView {
    /// Host, where it is not the service's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Subset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subset: Option<String>,
    /// What the rule says; absent where it no longer names this destination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// The part that went there.
    pub share: f64,
}

/// What became of the requests of a rule.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RouteView {
    /// Host of the service.
    pub service: String,
    /// The rule.
    pub route: RuleView,
    /// Where its requests went.
    pub destinations: Vec<ShareView>,
    /// Requests of callers.
    pub requests: u64,
    /// The part of all attempts that went well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_rate: Option<f64>,
    /// The part of the requests that went well in the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_success_rate: Option<f64>,
    /// Requests a second.
    pub rps: f64,
    /// Attempts after others that had failed.
    pub retries: u64,
    /// Half of the requests took no longer, retries included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50_ms: Option<f64>,
    /// 95 of 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p95_ms: Option<f64>,
    /// 99 of 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99_ms: Option<f64>,
}

/// A line of `top`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TopView {
    /// Who calls.
    pub source: EndView,
    /// Who is called.
    pub destination: EndView,
    /// The rule that decided, where the caller's proxy speaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<RuleView>,
    /// Requests.
    pub requests: u64,
    /// Requests a second.
    pub rps: f64,
    /// Shortest, longest and last duration.
    pub best_ms: f64,
    /// See `best_ms`.
    pub worst_ms: f64,
    /// See `best_ms`.
    pub last_ms: f64,
    /// The part that went well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_rate: Option<f64>,
}

/// A part of a whole, if there is a whole.
pub(super) fn part(some: u64, all: u64) -> Option<f64> {
    (all > 0).then(|| rounded(some as f64 / all as f64, 1e6))
}

/// A rate over a stretch of time.
pub(super) fn a_second(count: u64, length: Moment) -> f64 {
    rounded(count as f64 * 1000.0 / length.max(1000) as f64, 1e3)
}

/// Microseconds in milliseconds.
pub(super) fn milliseconds(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

/// So many of a thousand took no longer than so many milliseconds.
pub(super) fn quantile(total: &Total, thousandths: u64) -> Option<f64> {
    let found = total.durations.quantile(thousandths)?;
    // The middle of a bucket may lie beyond what there was.
    Some(milliseconds(found.clamp(total.numbers.shortest, total.numbers.longest.max(total.numbers.shortest))))
}

fn rounded(value: f64, digits: f64) -> f64 {
    (value * digits).round() / digits
}
