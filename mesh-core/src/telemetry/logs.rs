//! Where access logs are written, which entries, and how they look.

use super::expression::Expression;
use super::tracing::Collector;
use crate::vocab::name::Text;

/// Access logs of one side.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Logs {
    /// Nothing was declared: what the proxy was started with.
    #[default]
    AsStarted,
    /// These; none where logging is off.
    These(Vec<Log>),
}

/// One access log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Log {
    /// The provider.
    pub provider: Text,
    /// Where it is written.
    pub sink: Sink,
    /// Only what this yields true for.
    pub filter: Option<Expression>,
    /// The resource that asks for it: `telemetry/NS/NAME`, `meshconfig/NS/NAME`.
    pub origin: Text,
}

/// Where a log is written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Sink {
    /// A file; `/dev/stdout` and `/dev/stderr` are the proxy's own.
    File {
        /// Path.
        path: Text,
        /// How a line looks.
        format: Format,
    },
    /// A collector of OpenTelemetry.
    Otlp {
        /// Where.
        collector: Collector,
        /// `log_name`; Istio's default is `otel_envoy_accesslog`.
        name: Text,
        /// The body; `None` for Istio's text.
        body: Option<Text>,
        /// Attributes: names and formats.
        attributes: Vec<(Text, Text)>,
    },
}

/// How a line looks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Format {
    /// A line; `None` for Istio's.
    Text(Option<Text>),
    /// An object a line: names and formats; `None` for Istio's.
    Json(Option<Vec<(Text, Text)>>),
}
