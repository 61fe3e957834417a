//! Which requests are traced, what spans say, where they go.

use std::time::Duration;

use crate::vocab::name::Text;
use crate::vocab::ratio::Ratio;

/// A collector of OpenTelemetry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Collector {
    /// Host of the service, `[NAMESPACE/]HOST`, or an address.
    pub service: Text,
    /// Port.
    pub port: u16,
    /// How it is spoken to.
    pub transport: Transport,
    /// Fields that every export carries.
    pub headers: Vec<(Text, Text)>,
    /// How long an export may take.
    pub timeout: Duration,
}

/// How a collector is spoken to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Transport {
    /// OTLP over gRPC.
    Grpc,
    /// OTLP over HTTP, protobuf: the path of the request.
    Http(Text),
}

/// The value of a tag of spans.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TagValue {
    /// This text.
    Literal(Text),
    /// An environment variable of the proxy, with a default.
    Environment(Text, Text),
    /// A header field of the request, with a default.
    Header(Text, Text),
    /// A format of the access log.
    Format(Text),
}

/// Traces of one side.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tracing {
    /// The provider that was chosen; `None` where none was.
    pub provider: Option<Text>,
    /// The resource that chose it: `telemetry/NS/NAME`, `meshconfig/NS/NAME`.
    pub origin: Option<Text>,
    /// Where spans go; `None` for what the proxy was started with (`OTEL_EXPORTER_OTLP_ENDPOINT`).
    pub collector: Option<Collector>,
    /// Whether spans are reported (`disableSpanReporting`, `enableTracing`).
    pub report: bool,
    /// Whether contexts are begun and passed on (`disableContextPropagation`).
    pub propagate: bool,
    /// How many of the traces that begin here are sampled; `None` for Istio's 1 %.
    pub sampling: Option<Ratio>,
    /// Tags of Istio's (`enableIstioTags`).
    pub istio_tags: bool,
    /// Whether the request's id says whether it is sampled (`useRequestIdForTraceSampling`).
    pub use_request_id: bool,
    /// More tags.
    pub tags: Vec<(Text, TagValue)>,
}

impl Default for Tracing {
    fn default() -> Tracing {
        Tracing {
            provider: None,
            origin: None,
            collector: None,
            report: true,
            propagate: true,
            sampling: None,
            istio_tags: true,
            use_request_id: true,
            tags: Vec::new(),
        }
    }
}
