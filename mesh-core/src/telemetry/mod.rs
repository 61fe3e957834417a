//! What is measured, logged and traced of a workload's traffic: settled by the control plane, carried out by proxies.

pub mod attribute;
pub mod exposition;
pub mod expression;
pub mod logs;
pub mod metrics;
pub mod tracing;
pub mod wanted;

use logs::Logs;
use metrics::Metrics;
use tracing::Tracing;

/// What is told of a workload's traffic (Istio's Telemetry and MeshConfig, merged over all levels).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Telemetry {
    /// Of the calls that it makes.
    pub client: Side,
    /// Of the calls that it gets.
    pub server: Side,
}

/// The same for one side of its calls.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Side {
    /// Metrics.
    pub metrics: Metrics,
    /// Access logs.
    pub logs: Logs,
    /// Traces.
    pub tracing: Tracing,
}
