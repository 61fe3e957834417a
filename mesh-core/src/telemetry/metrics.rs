//! Changes of Istio's standard metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use super::expression::Expression;
use crate::vocab::name::Text;

/// Istio's default of `reportingInterval`.
pub const REPORTING_INTERVAL: Duration = Duration::from_secs(5);

/// A standard metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Metric {
    /// `istio_requests_total`.
    RequestCount,
    /// `istio_request_duration_milliseconds`.
    RequestDuration,
    /// `istio_request_bytes`.
    RequestSize,
    /// `istio_response_bytes`.
    ResponseSize,
    /// `istio_tcp_connections_opened_total`.
    TcpOpenedConnections,
    /// `istio_tcp_connections_closed_total`.
    TcpClosedConnections,
    /// `istio_tcp_sent_bytes_total`.
    TcpSentBytes,
    /// `istio_tcp_received_bytes_total`.
    TcpReceivedBytes,
    /// `istio_request_messages_total`.
    GrpcRequestMessages,
    /// `istio_response_messages_total`.
    GrpcResponseMessages,
}

impl Metric {
    /// Every metric.
    pub const ALL: [Metric; 10] = [
        Metric::RequestCount,
        Metric::RequestDuration,
        Metric::RequestSize,
        Metric::ResponseSize,
        Metric::TcpOpenedConnections,
        Metric::TcpClosedConnections,
        Metric::TcpSentBytes,
        Metric::TcpReceivedBytes,
        Metric::GrpcRequestMessages,
        Metric::GrpcResponseMessages,
    ];

    /// The name in a Telemetry: `REQUEST_COUNT`.
    pub fn name(self) -> &'static str {
        match self {
            Metric::RequestCount => "REQUEST_COUNT",
            Metric::RequestDuration => "REQUEST_DURATION",
            Metric::RequestSize => "REQUEST_SIZE",
            Metric::ResponseSize => "RESPONSE_SIZE",
            Metric::TcpOpenedConnections => "TCP_OPENED_CONNECTIONS",
            Metric::TcpClosedConnections => "TCP_CLOSED_CONNECTIONS",
            Metric::TcpSentBytes => "TCP_SENT_BYTES",
            Metric::TcpReceivedBytes => "TCP_RECEIVED_BYTES",
            Metric::GrpcRequestMessages => "GRPC_REQUEST_MESSAGES",
            Metric::GrpcResponseMessages => "GRPC_RESPONSE_MESSAGES",
        }
    }
}

/// How a tag of a metric changes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TagChange {
    /// It is left out.
    Remove,
    /// It is what an expression yields.
    Set(Expression),
}

/// How one metric changes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct MetricChange {
    /// It is not reported.
    pub disabled: bool,
    /// Tags, by name.
    pub tags: BTreeMap<Text, TagChange>,
}

/// What is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Metrics {
    /// Whether anything is: false where no provider of metrics is in force, or all are disabled.
    pub enabled: bool,
    /// The metrics that are not as Istio has them.
    pub changes: BTreeMap<Metric, MetricChange>,
    /// How often byte counts of streams and message counts of gRPC are reported.
    pub reporting_interval: Duration,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics { enabled: true, changes: BTreeMap::new(), reporting_interval: REPORTING_INTERVAL }
    }
}
