//! Telemetry: metrics, access logs and traces of workloads.

use std::collections::BTreeMap;
use std::time::Duration;

use super::reach::TargetRef;
use crate::telemetry::expression::Expression;
use crate::telemetry::metrics::Metric;
use crate::vocab::label::Labels;
use crate::vocab::name::Text;
use crate::vocab::ratio::Ratio;

/// Which side of a call a setting is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TelemetryMode {
    /// Both.
    #[default]
    ClientAndServer,
    /// The caller's.
    Client,
    /// The called one's.
    Server,
}

/// How a tag of a metric changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagOverride {
    /// `UPSERT`: the value of an expression (CEL).
    Upsert(Expression),
    /// `REMOVE`.
    Remove,
}

/// `match.metric` of an override.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MetricChoice {
    /// Nothing was written: each of them.
    #[default]
    Each,
    /// `ALL_METRICS`: reporting as a whole, where it is disabled.
    All,
    /// This one.
    One(Metric),
}

/// One entry of `metrics[].overrides`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricOverride {
    /// Which.
    pub metric: MetricChoice,
    /// Side.
    pub mode: TelemetryMode,
    /// Whether it is not reported; `None` inherits.
    pub disabled: Option<bool>,
    /// Changes of tags.
    pub tags: BTreeMap<Text, TagOverride>,
}

/// One entry of `metrics`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metrics {
    /// Providers by name; none for the mesh's default.
    pub providers: Vec<Text>,
    /// Changes, in order.
    pub overrides: Vec<MetricOverride>,
    /// `reportingInterval` of byte counts of streams.
    pub reporting_interval: Option<Duration>,
}

/// One entry of `accessLogging`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AccessLogging {
    /// Side.
    pub mode: TelemetryMode,
    /// Providers by name.
    pub providers: Vec<Text>,
    /// Whether it is off; `None` inherits.
    pub disabled: Option<bool>,
    /// `filter.expression` (CEL).
    pub filter: Option<Expression>,
}

/// The value of a custom tag of spans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CustomTag {
    /// This text.
    Literal(Text),
    /// An environment variable of the proxy, with a default.
    Environment(Text, Text),
    /// A header field of the request, with a default.
    Header(Text, Text),
    /// A format of the access log.
    Formatter(Text),
}

/// One entry of `tracing`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tracing {
    /// Side.
    pub mode: TelemetryMode,
    /// Providers by name.
    pub providers: Vec<Text>,
    /// `randomSamplingPercentage`.
    pub sampling: Option<Ratio>,
    /// `disableSpanReporting`.
    pub disable_span_reporting: Option<bool>,
    /// `disableContextPropagation`.
    pub disable_context_propagation: Option<bool>,
    /// `enableIstioTags`.
    pub enable_istio_tags: Option<bool>,
    /// `useRequestIdForTraceSampling`.
    pub use_request_id: Option<bool>,
    /// Tags.
    pub custom_tags: Option<BTreeMap<Text, CustomTag>>,
}

/// Telemetry of the selected workloads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Telemetry {
    /// Workloads; none for the namespace, or for the mesh in the root namespace.
    pub selector: Option<Labels>,
    /// Objects instead of workloads.
    pub targets: Vec<TargetRef>,
    /// Metrics.
    pub metrics: Vec<Metrics>,
    /// Access logs.
    pub access_logging: Vec<AccessLogging>,
    /// Traces.
    pub tracing: Vec<Tracing>,
}
