//! MeshConfig: what holds for the whole mesh. Istio reads it as proto-JSON and not by a schema of Kubernetes, so null
//! means absent here.

use std::time::Duration;

use mesh_core::balancing::locality::LocalityPolicy;
use mesh_core::message::path::Normalization;
use mesh_core::resource::mesh_config::{AccessLogEncoding, DefaultProviders, MeshConfig};
use mesh_core::resource::reach::ExportTo;
use mesh_core::resource::sidecar::OutboundMode;
use mesh_core::telemetry::logs::Format;
use mesh_core::vocab::name::Text;

use super::{connection_pool, extension_provider, locality, mesh_proxy, outlier_detection, resilience};
use crate::dialect::export::export_to;
use crate::dialect::field::{Field, Message, Note, Object};
use crate::dialect::node::quoted;
use crate::dialect::scalar;

pub(crate) static SPEC: Message = Message {
    name: "a MeshConfig",
    fields: &[
        "accessLogEncoding",
        "accessLogFile",
        "accessLogFormat",
        "connectTimeout",
        "defaultConfig",
        "defaultDestinationRuleExportTo",
        "defaultHttpRetryPolicy",
        "defaultProviders",
        "defaultServiceExportTo",
        "defaultTrafficPolicy",
        "defaultVirtualServiceExportTo",
        "enableAutoMtls",
        "enableTracing",
        "extensionProviders",
        "h2UpgradePolicy",
        "localityLbSetting",
        "outboundTrafficPolicy",
        "pathNormalization",
        "rootNamespace",
        "trustDomain",
        "trustDomainAliases",
    ],
    later: &[
        "caCertificates",
        "dnsRefreshRate",
        "meshMTLS",
        "protocolDetectionTimeout",
        "proxyListenPort",
        "serviceSettings",
        "tcpKeepalive",
        "tlsDefaults",
        "zoneAwareLbSetting",
    ],
    skipped: &[
        "ca",
        "certificates",
        "compliancePolicy",
        "configSources",
        "defaultInboundHttpRetryPolicy",
        "disableEnvoyListenerLog",
        "discoverySelectors",
        "enableEnvoyAccessLogService",
        "enablePrometheusMerge",
        "inboundClusterStatName",
        "inboundTrafficPolicy",
        "ingressClass",
        "ingressControllerMode",
        "ingressSelector",
        "ingressService",
        "outboundClusterStatName",
        "proxyHttpPort",
        "proxyInboundListenPort",
        "serviceScopeConfigs",
        "thriftConfig",
        "verifyCertificateAtClient",
    ],
};

static MODE: Message =
    Message { name: "a policy for unknown hosts", fields: &["mode"], later: &[], skipped: &[] };

static NORMALIZATION: Message =
    Message { name: "pathNormalization", fields: &["normalization"], later: &[], skipped: &[] };

static PROVIDERS: Message = Message {
    name: "defaultProviders",
    fields: &["accessLogging", "metrics", "tracing"],
    later: &[],
    skipped: &[],
};

static TRAFFIC: Message = Message {
    name: "defaultTrafficPolicy",
    fields: &["connectionPool", "outlierDetection"],
    later: &[],
    skipped: &[],
};

static ROOT: Message = Message {
    name: "an entry of caCertificates",
    fields: &["pem"],
    later: &[],
    skipped: &["certSigners", "spiffeBundleUrl", "trustDomains"],
};

static TLS: Message = Message {
    name: "TLS of the mesh",
    fields: &["cipherSuites", "ecdhCurves", "minProtocolVersion"],
    later: &[],
    skipped: &[],
};

static SERVICE: Message =
    Message { name: "an entry of serviceSettings", fields: &["hosts"], later: &[], skipped: &["settings"] };

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] = &[
    Note::Holds(&SPEC, "caCertificates[]", &ROOT),
    Note::Holds(&SPEC, "defaultConfig", &mesh_proxy::PROXY),
    Note::Holds(&SPEC, "defaultHttpRetryPolicy", &resilience::RETRIES),
    Note::Holds(&SPEC, "defaultProviders", &PROVIDERS),
    Note::Holds(&SPEC, "defaultTrafficPolicy", &TRAFFIC),
    Note::Holds(&SPEC, "extensionProviders[]", &extension_provider::PROVIDER),
    Note::Holds(&SPEC, "localityLbSetting", &locality::LOCALITY),
    Note::Holds(&SPEC, "meshMTLS", &TLS),
    Note::Holds(&SPEC, "outboundTrafficPolicy", &MODE),
    Note::Holds(&SPEC, "pathNormalization", &NORMALIZATION),
    Note::Holds(&SPEC, "serviceSettings[]", &SERVICE),
    Note::Holds(&SPEC, "tcpKeepalive", &connection_pool::TCP_KEEPALIVE),
    Note::Holds(&SPEC, "tlsDefaults", &TLS),
    Note::Holds(&SPEC, "zoneAwareLbSetting", &locality::ZONE_AWARE),
    Note::Holds(&TRAFFIC, "connectionPool", &connection_pool::CONNECTION_POOL),
    Note::Holds(&TRAFFIC, "outlierDetection", &outlier_detection::OUTLIER_DETECTION),
];

/// Longest `connectTimeout`.
const LONGEST_CONNECT: Duration = Duration::from_secs(3600);

const CURVES: [&str; 7] =
    ["P-224", "P-256", "P-384", "P-521", "X25519", "X25519Kyber768Draft00", "X25519MLKEM768"];

/// Reads the settings.
pub(crate) fn mesh_config(field: &Field<'_>) -> Option<MeshConfig> {
    let spec = field.object(&SPEC)?;
    for key in SPEC.skipped {
        if let Some(unused) = field.below(key) {
            unused.warn(format!("{key} means nothing here: passed over"));
        }
    }
    if let Some(port) = spec.get("proxyListenPort") {
        port.port();
    }
    for service in spec.items("serviceSettings") {
        let Some(service) = service.object(&SERVICE) else { continue };
        for host in service.items("hosts") {
            scalar::host(&host);
        }
    }
    tls(&spec);
    let encoding = spec.get("accessLogEncoding").and_then(|field| field.choice(&["TEXT", "JSON"]));
    if let Some(field) = spec.get("accessLogFormat") {
        log_format(&field, encoding == Some("JSON"));
    }
    let proxy = spec.get("defaultConfig").map(|field| mesh_proxy::proxy(&field)).unwrap_or_default();
    let traffic = spec.get("defaultTrafficPolicy").and_then(|field| field.object(&TRAFFIC));
    let traffic = traffic.as_ref();
    let text = |key| spec.text(key).map(Text::from);
    let duration = |key| spec.get(key).and_then(|field: Field<'_>| scalar::duration(&field));
    let boolean = |key| spec.get(key).and_then(|field: Field<'_>| field.boolean());
    Some(MeshConfig {
        trust_domain: spec.get("trustDomain").and_then(|field| trust_domain(&field)),
        trust_domain_aliases: spec.items("trustDomainAliases").iter().filter_map(trust_domain).collect(),
        root_namespace: spec
            .get("rootNamespace")
            .filter(|field| !field.is_empty_text())
            .and_then(|field| scalar::label_name(&field)),
        outbound: spec.get("outboundTrafficPolicy").and_then(|field| outbound(&field)),
        auto_mtls: boolean("enableAutoMtls"),
        connect_timeout: spec.get("connectTimeout").and_then(|field| connect_timeout(&field)),
        tcp_keepalive: spec.get("tcpKeepalive").and_then(|field| connection_pool::tcp_keepalive(&field)),
        protocol_detection_timeout: spec
            .get("protocolDetectionTimeout")
            .and_then(|field| scalar::duration_or_zero(&field)),
        dns_refresh_rate: duration("dnsRefreshRate"),
        normalization: spec.get("pathNormalization").and_then(|field| normalization(&field)),
        locality: locality(&spec),
        service_export_to: exports(&spec, "defaultServiceExportTo"),
        virtual_service_export_to: exports(&spec, "defaultVirtualServiceExportTo"),
        destination_rule_export_to: exports(&spec, "defaultDestinationRuleExportTo"),
        default_retry: spec.get("defaultHttpRetryPolicy").and_then(|field| resilience::retries(&field)),
        default_connection_pool: traffic
            .and_then(|traffic| traffic.get("connectionPool"))
            .and_then(|field| connection_pool::connection_pool(&field)),
        default_outlier_detection: traffic
            .and_then(|traffic| traffic.get("outlierDetection"))
            .and_then(|field| outlier_detection::outlier_detection(&field)),
        h2_upgrade: spec
            .get("h2UpgradePolicy")
            .is_some_and(|field| field.choice(&["DO_NOT_UPGRADE", "UPGRADE"]) == Some("UPGRADE")),
        access_log_file: text("accessLogFile"),
        access_log_format: text("accessLogFormat"),
        access_log_encoding: match encoding {
            Some("JSON") => AccessLogEncoding::Json,
            _ => AccessLogEncoding::Text,
        },
        providers: extension_provider::providers(&spec),
        auto_addresses: proxy.auto_addresses,
        default_providers: spec
            .get("defaultProviders")
            .and_then(|field| default_providers(&field))
            .unwrap_or_default(),
        enable_tracing: boolean("enableTracing"),
        tracing: proxy.tracing,
        concurrency: proxy.concurrency,
        drain_duration: proxy.drain_duration,
        trusted_proxies: proxy.trusted_proxies,
        extra_roots: spec.items("caCertificates").iter().filter_map(root).collect(),
    })
}

/// A trust domain: labels joined by dots, with a dot at the end or without.
fn trust_domain(field: &Field<'_>) -> Option<Text> {
    let text = field.some_text()?;
    let name = text.strip_suffix('.').unwrap_or(text);
    if !name.split('.').all(scalar::is_label) {
        field.fault(format!(
            "{} is no trust domain: wanted letters, digits and '-', in labels that dots separate",
            quoted(text)
        ));
        return None;
    }
    Some(text.into())
}

fn outbound(field: &Field<'_>) -> Option<OutboundMode> {
    let policy = field.object(&MODE)?;
    match policy.get("mode") {
        // The zero of its enumeration.
        None => Some(OutboundMode::RegistryOnly),
        Some(mode) => match mode.choice(&["REGISTRY_ONLY", "ALLOW_ANY"])? {
            "ALLOW_ANY" => Some(OutboundMode::AllowAny),
            _ => Some(OutboundMode::RegistryOnly),
        },
    }
}

fn connect_timeout(field: &Field<'_>) -> Option<Duration> {
    let timeout = scalar::duration(field)?;
    if timeout > LONGEST_CONNECT {
        field.fault("must be at most 1h");
        return None;
    }
    Some(timeout)
}

fn normalization(field: &Field<'_>) -> Option<Normalization> {
    let words = ["DEFAULT", "NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"];
    match field.object(&NORMALIZATION)?.get("normalization")?.choice(&words)? {
        "NONE" => Some(Normalization::None),
        "MERGE_SLASHES" => Some(Normalization::MergeSlashes),
        "DECODE_AND_MERGE_SLASHES" => Some(Normalization::DecodeAndMergeSlashes),
        _ => Some(Normalization::Base),
    }
}

fn locality(spec: &Object<'_>) -> Option<LocalityPolicy> {
    if spec.get("localityLbSetting").is_some()
        && let Some(zone_aware) = spec.get("zoneAwareLbSetting")
    {
        zone_aware.fault("only one of localityLbSetting and zoneAwareLbSetting can be set");
        return None;
    }
    // Whether failing endpoints are noticed is for each DestinationRule to say.
    match spec.get("zoneAwareLbSetting") {
        Some(field) => locality::zone_aware(&field, true),
        None => locality::locality(&spec.get("localityLbSetting")?, true),
    }
}

fn exports(spec: &Object<'_>, key: &'static str) -> ExportTo {
    // "~" hides resources from everybody until they say otherwise.
    spec.get(key).map(|field| export_to(&field, "", true)).unwrap_or_default()
}

fn default_providers(field: &Field<'_>) -> Option<DefaultProviders> {
    let object = field.object(&PROVIDERS)?;
    let names = |key| {
        object.items(key).iter().filter_map(|field: &Field<'_>| field.some_text()).map(Text::from).collect()
    };
    Some(DefaultProviders {
        metrics: names("metrics"),
        access_logging: names("accessLogging"),
        tracing: names("tracing"),
    })
}

fn root(field: &Field<'_>) -> Option<Text> {
    let object = field.object(&ROOT)?;
    if let Some(url) = field.below("spiffeBundleUrl") {
        url.warn("bundles are not fetched here; write the certificates into pem");
    }
    let pem = object.get("pem")?;
    let text = pem.some_text()?;
    if !text.contains("-----BEGIN CERTIFICATE-----") {
        pem.fault("holds no certificate in PEM");
        return None;
    }
    Some(text.into())
}

fn tls(spec: &Object<'_>) {
    for key in ["meshMTLS", "tlsDefaults"] {
        let Some(object) = spec.get(key).and_then(|field: Field<'_>| field.object(&TLS)) else { continue };
        if let Some(version) = object.get("minProtocolVersion") {
            version.choice(&["TLS_AUTO", "TLSV1_2", "TLSV1_3"]);
        }
        for suite in object.items("cipherSuites") {
            suite.text();
        }
        let curves = object.items("ecdhCurves");
        if key == "meshMTLS" && !curves.is_empty() {
            object.field().fault("ecdhCurves cannot be chosen for TLS between workloads");
        }
        let mut seen = Vec::new();
        for curve in curves {
            let Some(name) = curve.text() else { continue };
            if !CURVES.contains(&name) {
                curve.warn(format!("{} is not known; known: {}", quoted(name), CURVES.join(", ")));
            } else if seen.contains(&name) {
                curve.warn(format!("{name} is there twice"));
            } else {
                seen.push(name);
            }
        }
    }
}

/// Checks `accessLogFormat`: a line, or an object of JSON whose texts are formats.
fn log_format(field: &Field<'_>, is_json: bool) {
    let Some(text) = field.text().filter(|text| !text.is_empty()) else { return };
    let read = match is_json {
        true => Format::Json(Some(vec![("".into(), text.into())])).read(),
        false => Format::Text(Some(text.into())).read(),
    };
    if let Err(error) = read {
        field.fault(error.to_string());
    }
}
