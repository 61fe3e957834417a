//! MeshConfig: what holds for the whole mesh.

use std::collections::BTreeMap;
use std::time::Duration;

use super::reach::ExportTo;
use super::sidecar::OutboundMode;
use super::telemetry::CustomTag;
use crate::balancing::locality::LocalityPolicy;
use crate::message::path::Normalization;
use crate::resilience::outlier::OutlierDetection;
use crate::resilience::pool::{ConnectionPool, TcpKeepalive};
use crate::resilience::retry::RetryPolicy;
use crate::telemetry::logs::{Format, Sink};
use crate::telemetry::tracing::Collector;
use crate::vocab::name::Text;
use crate::vocab::ratio::Ratio;

/// What an extension provider does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProviderKind {
    /// `envoyExtAuthzHttp` or `envoyExtAuthzGrpc`.
    ExtAuthz(ExtAuthz),
    /// `prometheus`.
    Prometheus,
    /// `envoyFileAccessLog` or `envoyOtelAls`.
    Log(Sink),
    /// `opentelemetry`.
    Traces(Collector),
    /// A kind that proxies do not speak to, by the name of its field: `zipkin`...
    Other(Text),
}

impl ProviderKind {
    /// The providers that Istio's default MeshConfig has.
    pub fn built_in(name: &str) -> Option<ProviderKind> {
        match name.to_ascii_lowercase().as_str() {
            "prometheus" => Some(ProviderKind::Prometheus),
            "envoy" => {
                let (path, format) = ("/dev/stdout".into(), Format::Text(None));
                Some(ProviderKind::Log(Sink::File { path, format }))
            }
            _ => None,
        }
    }
}

/// An authorization service that CUSTOM policies call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtAuthz {
    /// Over gRPC instead of HTTP.
    pub grpc: bool,
    /// Host of the service, `[NAMESPACE/]HOST`.
    pub service: Text,
    /// Port.
    pub port: u16,
    /// Default 600 s.
    pub timeout: Duration,
    /// Whether requests pass when it cannot be asked. Default false.
    pub fail_open: bool,
    /// Status of a request that is refused because it cannot be asked. Default 403.
    pub status_on_error: u16,
}

/// One entry of `extensionProviders`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtensionProvider {
    /// Name by which resources mean it.
    pub name: Text,
    /// What it is.
    pub kind: ProviderKind,
}

/// `defaultProviders`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DefaultProviders {
    /// Of metrics.
    pub metrics: Vec<Text>,
    /// Of access logs.
    pub access_logging: Vec<Text>,
    /// Of traces.
    pub tracing: Vec<Text>,
}

/// `defaultConfig.tracing`: what holds where no Telemetry says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProxyTracing {
    /// `sampling`.
    pub sampling: Option<Ratio>,
    /// `customTags`.
    pub custom_tags: BTreeMap<Text, CustomTag>,
    /// `enableIstioTags`.
    pub istio_tags: Option<bool>,
}

/// How access logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum AccessLogEncoding {
    /// Istio's line.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// Settings of the whole mesh. `None` where nothing was written: the default of the flag or of Istio.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MeshConfig {
    /// `trustDomain`; default that of `--trust-domain`.
    pub trust_domain: Option<Text>,
    /// `trustDomainAliases`.
    pub trust_domain_aliases: Vec<Text>,
    /// `rootNamespace`; default that of `--root-namespace`.
    pub root_namespace: Option<Text>,
    /// `outboundTrafficPolicy.mode`; default ALLOW_ANY.
    pub outbound: Option<OutboundMode>,
    /// `enableAutoMtls`; default true.
    pub auto_mtls: Option<bool>,
    /// `connectTimeout`; default 10 s.
    pub connect_timeout: Option<Duration>,
    /// `tcpKeepalive`.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// `protocolDetectionTimeout`; zero waits without limit.
    pub protocol_detection_timeout: Option<Duration>,
    /// `dnsRefreshRate`; default 60 s.
    pub dns_refresh_rate: Option<Duration>,
    /// `pathNormalization.normalization`; default BASE.
    pub normalization: Option<Normalization>,
    /// `localityLbSetting`.
    pub locality: Option<LocalityPolicy>,
    /// `defaultServiceExportTo`.
    pub service_export_to: ExportTo,
    /// `defaultVirtualServiceExportTo`.
    pub virtual_service_export_to: ExportTo,
    /// `defaultDestinationRuleExportTo`.
    pub destination_rule_export_to: ExportTo,
    /// `defaultHttpRetryPolicy`.
    pub default_retry: Option<RetryPolicy>,
    /// `defaultTrafficPolicy.connectionPool`.
    pub default_connection_pool: Option<ConnectionPool>,
    /// `defaultTrafficPolicy.outlierDetection`.
    pub default_outlier_detection: Option<OutlierDetection>,
    /// `h2UpgradePolicy: UPGRADE`.
    pub h2_upgrade: bool,
    /// `accessLogFile`; empty for none.
    pub access_log_file: Option<Text>,
    /// `accessLogFormat`.
    pub access_log_format: Option<Text>,
    /// `accessLogEncoding`.
    pub access_log_encoding: AccessLogEncoding,
    /// `extensionProviders`.
    pub providers: Vec<ExtensionProvider>,
    /// `defaultProviders`.
    pub default_providers: DefaultProviders,
    /// Whether `defaultConfig.proxyMetadata` has names answered by the proxy (`ISTIO_META_DNS_CAPTURE`), so that
    /// ServiceEntries without addresses get some.
    pub auto_addresses: bool,
    /// `enableTracing`.
    pub enable_tracing: Option<bool>,
    /// `defaultConfig.tracing`.
    pub tracing: ProxyTracing,
    /// `defaultConfig.concurrency`.
    pub concurrency: Option<u32>,
    /// `defaultConfig.drainDuration`.
    pub drain_duration: Option<Duration>,
    /// `defaultConfig.gatewayTopology.numTrustedProxies`; default 0.
    pub trusted_proxies: u32,
    /// `caCertificates[].pem`: further roots.
    pub extra_roots: Vec<Text>,
}
