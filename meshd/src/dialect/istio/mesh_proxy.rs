//! `defaultConfig` of a MeshConfig: settings of the proxies. Few have a meaning without Envoy and its container;
//! the others are checked as far as Istio checks them.

use std::time::Duration;

use mesh_core::resource::mesh_config::ProxyTracing;
use mesh_core::vocab::ratio::Ratio;

use super::client_tls;
use crate::dialect::field::{Field, Message, Note, Object};
use crate::dialect::node::{Value, quoted};
use crate::dialect::scalar;

pub(crate) static PROXY: Message = Message {
    name: "defaultConfig",
    fields: &["tracing"],
    later: &[
        "binaryPath",
        "concurrency",
        "configPath",
        "controlPlaneAuthPolicy",
        "discoveryAddress",
        "drainDuration",
        "envoyAccessLogService",
        "envoyMetricsService",
        "envoyMetricsServiceAddress",
        "gatewayTopology",
        "privateKeyProvider",
        "proxyAdminPort",
        "proxyMetadata",
        "serviceCluster",
        "statsdUdpAddress",
        "statusPort",
        "terminationDrainDuration",
        "tracingServiceName",
    ],
    skipped: &[
        "availabilityZone",
        "caCertificatesPem",
        "connectTimeout",
        "customConfigFile",
        "discoveryRefreshDelay",
        "envoyMetricsReporting",
        "extraStatTags",
        "fileFlushInterval",
        "fileFlushMinSizeKb",
        "holdApplicationUntilProxyStarts",
        "image",
        "interceptionMode",
        "meshId",
        "parentShutdownDuration",
        "proxyBootstrapTemplatePath",
        "proxyHeaders",
        "proxyStatsMatcher",
        "readinessProbe",
        "runtimeValues",
        "sds",
        "statNameLength",
        "statsCompression",
        "statsEvictionInterval",
        "zipkinAddress",
    ],
};

static REMOTE: Message = Message {
    name: "a service of Envoy",
    fields: &["address"],
    later: &[],
    skipped: &["tcpKeepalive", "tlsSettings"],
};

static TOPOLOGY: Message = Message {
    name: "gatewayTopology",
    fields: &["numTrustedProxies"],
    later: &[],
    skipped: &["forwardClientCertDetails", "proxyProtocol"],
};

static TRACING: Message = Message {
    name: "tracing",
    fields: &["customTags", "enableIstioTags", "sampling"],
    later: &["datadog", "lightstep", "tlsSettings", "zipkin"],
    skipped: &["maxPathTagLength", "openCensusAgent", "stackdriver"],
};

static COLLECTOR: Message =
    Message { name: "a collector of traces", fields: &["accessToken", "address"], later: &[], skipped: &[] };

static KEYS: Message =
    Message { name: "privateKeyProvider", fields: &["cryptomb", "qat"], later: &[], skipped: &[] };

static POLL: Message = Message {
    name: "a provider of private keys",
    fields: &["pollDelay"],
    later: &[],
    skipped: &["fallback"],
};

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] = &[
    Note::Holds(&PROXY, "envoyAccessLogService", &REMOTE),
    Note::Holds(&PROXY, "envoyMetricsService", &REMOTE),
    Note::Holds(&PROXY, "gatewayTopology", &TOPOLOGY),
    Note::Holds(&PROXY, "privateKeyProvider", &KEYS),
    Note::Holds(&PROXY, "tracing", &TRACING),
    Note::Holds(&TRACING, "datadog", &COLLECTOR),
    Note::Holds(&TRACING, "lightstep", &COLLECTOR),
    Note::Holds(&TRACING, "tlsSettings", &client_tls::CLIENT_TLS),
    Note::Holds(&TRACING, "zipkin", &COLLECTOR),
    Note::Holds(&KEYS, "cryptomb", &POLL),
    Note::Holds(&KEYS, "qat", &POLL),
];

/// What is used of the settings.
#[derive(Debug, Default)]
pub(super) struct Proxy {
    pub(super) tracing: ProxyTracing,
    pub(super) concurrency: Option<u32>,
    pub(super) drain_duration: Option<Duration>,
    pub(super) trusted_proxies: u32,
    pub(super) auto_addresses: bool,
}

/// Reads the settings.
pub(super) fn proxy(field: &Field<'_>) -> Proxy {
    let Some(object) = field.object(&PROXY) else { return Proxy::default() };
    for key in ["binaryPath", "configPath", "serviceCluster"] {
        if let Some(field) = object.get(key) {
            field.some_text();
        }
    }
    if let Some(named) = object.get("tracingServiceName") {
        named.choice(&["APP_LABEL_AND_NAMESPACE", "CANONICAL_NAME_ONLY", "CANONICAL_NAME_AND_NAMESPACE"]);
    }
    only_one(field, &["serviceCluster", "tracingServiceName"]);
    for key in ["proxyAdminPort", "statusPort"] {
        if let Some(field) = object.get(key) {
            field.port();
        }
    }
    for key in ["discoveryAddress", "statsdUdpAddress", "envoyMetricsServiceAddress"] {
        if let Some(field) = object.get(key)
            && (key == "discoveryAddress" || !field.is_blank())
        {
            address(&field, false);
        }
    }
    for key in ["envoyAccessLogService", "envoyMetricsService"] {
        let service = object.get(key).and_then(|field: Field<'_>| field.object(&REMOTE));
        if let Some(field) = service.and_then(|service| service.get("address"))
            && !field.is_blank()
        {
            address(&field, false);
        }
    }
    if let Some(field) = object.get("controlPlaneAuthPolicy") {
        field.choice(&["NONE", "MUTUAL_TLS"]);
    }
    let metadata = object.get("proxyMetadata").map(|field| field.map()).unwrap_or_default();
    let is_true = |name: &str| {
        let mut named = metadata.iter().filter(|(key, _)| *key == name);
        named.any(|(_, value)| matches!(value.value(), Value::Text(text) if &**text == "true"))
    };
    // Where names are answered by the proxy, Istio gives addresses to what has none without being asked.
    let auto_addresses = is_true("ISTIO_META_DNS_CAPTURE");
    for (key, value) in &metadata {
        value.text();
        if *key == "ISTIO_META_DNS_AUTO_ALLOCATE" {
            value.warn("ISTIO_META_DNS_AUTO_ALLOCATE is deprecated; addresses are allocated by the label networking.istio.io/enable-autoallocate-ip");
        }
    }
    let tracing = object.get("tracing").map(|field| tracing(&field)).unwrap_or_default();
    if let Some(field) = object.get("privateKeyProvider") {
        private_keys(&field);
    }
    if let Some(field) = object.get("terminationDrainDuration") {
        scalar::duration_or_zero(&field);
    }
    let whole = |field: Field<'_>| field.integer(0..=i64::from(i32::MAX));
    let number = |value: i64| u32::try_from(value).ok();
    let topology = object.get("gatewayTopology").and_then(|field| field.object(&TOPOLOGY));
    let trusted = topology.and_then(|topology| topology.get("numTrustedProxies")).and_then(whole);
    Proxy {
        concurrency: object.get("concurrency").and_then(whole).and_then(number),
        drain_duration: object.get("drainDuration").and_then(|field| seconds(&field)),
        tracing,
        trusted_proxies: trusted.and_then(number).unwrap_or(0),
        auto_addresses,
    }
}

/// A duration of whole seconds.
fn seconds(field: &Field<'_>) -> Option<Duration> {
    let duration = scalar::duration(field)?;
    if duration.subsec_nanos() != 0 {
        field.fault("must be in whole seconds");
        return None;
    }
    Some(duration)
}

/// Refuses more than one of these fields.
fn only_one(field: &Field<'_>, keys: &[&str]) {
    let written: Vec<&str> = keys.iter().copied().filter(|key| field.below(key).is_some()).collect();
    if written.len() > 1 {
        field.fault(format!("only one of {} can be set", written.join(" and ")));
    }
}

/// `HOST:PORT`, `IP:PORT` or `[IPv6]:PORT`; in some places the host may be filled in later.
fn address(field: &Field<'_>, may_stand_for_host: bool) {
    let Some(text) = field.text() else { return };
    let plain =
        if may_stand_for_host { text.replacen("$(HOST_IP)", "127.0.0.1", 1) } else { text.to_owned() };
    if !is_address(&plain) {
        field.fault(format!("found {}, wanted HOST:PORT", quoted(text)));
    }
}

fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let host = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']').filter(|inner| !inner.contains(['[', ']'])),
        None => Some(host).filter(|host| !host.contains([':', '[', ']'])),
    };
    let port_fits = port.parse::<i64>().is_ok_and(|port| (1..=65535).contains(&port));
    port_fits && host.is_some_and(|host| scalar::is_dns_name(host) || is_ip(host))
}

/// Whether this is an IP address, with the zone of a link-local one or without.
fn is_ip(text: &str) -> bool {
    match text.split_once('%') {
        Some((address, zone)) => !zone.is_empty() && address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => text.parse::<std::net::IpAddr>().is_ok(),
    }
}

fn tracing(field: &Field<'_>) -> ProxyTracing {
    let Some(object) = field.object(&TRACING) else { return ProxyTracing::default() };
    let mut found = ProxyTracing::default();
    only_one(field, &["datadog", "lightstep", "openCensusAgent", "stackdriver", "zipkin"]);
    if let Some(tls) = object.get("tlsSettings") {
        // In no namespace, so that there is no ConfigMap either.
        client_tls::client_tls(&tls, "");
    }
    for key in ["datadog", "lightstep", "zipkin"] {
        let Some(collector) = object.get(key).and_then(|field: Field<'_>| field.object(&COLLECTOR)) else {
            continue;
        };
        required(&collector, "address", |field| address(field, key != "lightstep"));
        if key == "lightstep" {
            required(&collector, "accessToken", |field| {
                field.some_text();
            });
        }
    }
    if let Some(tags) = object.get("customTags")
        && let Value::Map(entries) = tags.value()
    {
        // Null is not absent among the values of a map.
        for entry in entries.iter().filter(|entry| entry.value.value == Value::Null) {
            tags.fault(format!("the tag {} has no value", quoted(&entry.key)));
        }
        found.custom_tags = super::tracing::tags(&tags);
    }
    found.istio_tags = object.get("enableIstioTags").and_then(|field| field.boolean());
    if let Some(field) = object.get("sampling")
        && let Some(percent) = field.number()
    {
        found.sampling = Ratio::from_percent(percent);
        if found.sampling.is_none() {
            field.warn("is no percentage from 0 to 100");
        }
    }
    found
}

fn required(object: &Object<'_>, key: &'static str, check: impl Fn(&Field<'_>)) {
    if let Some(field) = object.require(key) {
        check(&field);
    }
}

fn private_keys(field: &Field<'_>) {
    let Some(object) = field.object(&KEYS) else { return };
    only_one(field, &["cryptomb", "qat"]);
    let chosen = ["cryptomb", "qat"].into_iter().find_map(|key| object.get(key));
    let Some(provider) = chosen else {
        field.fault("one of cryptomb and qat must be set");
        return;
    };
    field.warn("private keys are kept by the proxies themselves: passed over");
    let Some(provider) = provider.object(&POLL) else { return };
    required(&provider, "pollDelay", |field| {
        if scalar::any_duration(field).is_some_and(|delay| delay.is_zero()) {
            field.fault("must be longer than 0");
        }
    });
}
