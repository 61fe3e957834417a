use std::time::Duration;

use mesh_core::message::path::Normalization;
use mesh_core::resource::mesh_config::{AccessLogEncoding, MeshConfig, ProviderKind};
use mesh_core::resource::reach::Export;
use mesh_core::resource::sidecar::OutboundMode;
use mesh_core::telemetry::logs::{Format, Sink};
use mesh_core::telemetry::tracing::Transport;
use mesh_core::vocab::ratio::Ratio;

use super::*;

fn text(fields: &str) -> String {
    format!("{{kind: MeshConfig, {fields}}}")
}

#[track_caller]
fn config(text: &str) -> MeshConfig {
    let Spec::MeshConfig(read) = offline_specs(text).remove(0) else { panic!() };
    *read
}

#[test]
fn every_field() {
    let read = config(&text(
        "trustDomain: td.example, trustDomainAliases: [old], rootNamespace: root, outboundTrafficPolicy: {mode: REGISTRY_ONLY}, \
         enableAutoMtls: false, connectTimeout: 5s, tcpKeepalive: {probes: 3}, protocolDetectionTimeout: 0s, dnsRefreshRate: 1m, \
         pathNormalization: {normalization: MERGE_SLASHES}, localityLbSetting: {enabled: false}, \
         defaultServiceExportTo: ['.'], defaultVirtualServiceExportTo: ['*'], defaultDestinationRuleExportTo: [~, '.'], \
         defaultHttpRetryPolicy: {attempts: 5}, h2UpgradePolicy: UPGRADE, accessLogFile: /dev/stdout, accessLogEncoding: JSON, \
         defaultTrafficPolicy: {outlierDetection: {consecutive5xxErrors: 7}, connectionPool: {tcp: {maxConnections: 9}}}, \
         extensionProviders: [{name: a, envoyExtAuthzHttp: {service: ns/authz.example.com, port: 80, failOpen: true, statusOnError: '503', timeout: 2s}}, \
         {name: b, prometheus: {}}, {name: c, opentelemetry: {service: otel.ns.svc.cluster.local, port: 4317, maxTagLength: 10}}], \
         defaultProviders: {metrics: [b], tracing: [c]}, enableTracing: true, \
         defaultConfig: {concurrency: 2, drainDuration: 45s, gatewayTopology: {numTrustedProxies: 1}, discoveryAddress: 'istiod.istio-system.svc:15012', \
         tracing: {zipkin: {address: 'zipkin:9411'}, sampling: 10}}",
    ).replace("[~, '.']", "['.']"));
    assert_eq!(read.trust_domain.as_deref(), Some("td.example"));
    assert_eq!(read.root_namespace.as_deref(), Some("root"));
    assert_eq!((read.outbound, read.auto_mtls), (Some(OutboundMode::RegistryOnly), Some(false)));
    assert_eq!(read.connect_timeout, Some(Duration::from_secs(5)));
    assert_eq!(read.protocol_detection_timeout, Some(Duration::ZERO));
    assert_eq!(read.dns_refresh_rate, Some(Duration::from_secs(60)));
    assert_eq!(read.normalization, Some(Normalization::MergeSlashes));
    assert_eq!(read.locality.unwrap().enabled, Some(false));
    assert_eq!(read.service_export_to.entries, [Export::Own]);
    assert_eq!(read.default_retry.unwrap().attempts, 5);
    assert_eq!(read.default_outlier_detection.unwrap().consecutive_5xx, 7);
    assert_eq!(read.default_connection_pool.unwrap().max_connections, Some(9));
    assert!(read.h2_upgrade);
    assert_eq!(read.access_log_encoding, AccessLogEncoding::Json);
    let ProviderKind::ExtAuthz(authz) = &read.providers[0].kind else { panic!() };
    assert_eq!((&*authz.service, authz.port, authz.status_on_error), ("ns/authz.example.com", 80, 503));
    assert_eq!(read.providers[1].kind, ProviderKind::Prometheus);
    let ProviderKind::Traces(collector) = &read.providers[2].kind else { panic!() };
    assert_eq!((&*collector.service, collector.port), ("otel.ns.svc.cluster.local", 4317));
    assert_eq!((read.tracing.sampling, read.enable_tracing), (Ratio::from_percent(10.0), Some(true)));
    assert_eq!(read.default_providers.metrics, ["b".into()]);
    assert_eq!((read.concurrency, read.trusted_proxies), (Some(2), 1));
    assert_eq!(read.drain_duration, Some(Duration::from_secs(45)));
}

#[test]
fn where_it_stands() {
    let bare = config("{kind: MeshConfig, trustDomain: td}");
    let spec = "{apiVersion: mesh.istio.io/v1alpha1, kind: MeshConfig, metadata: {name: a}, spec: {trustDomain: td}}";
    assert_eq!(config(spec), bare);
    let config_map = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: istio-canary\n  namespace: istio-system\n\
                      data:\n  mesh: |-\n    # a comment\n    trustDomain: td\n  meshNetworks: 'networks: {}'\n";
    assert_eq!(config(config_map), bare);
    let key = offline(config_map).documents[0].resource.meta.key.to_string();
    assert_eq!(key, "meshconfig/istio-system/istio-canary");
    assert_eq!(
        offline("{kind: MeshConfig}").documents[0].resource.meta.key.to_string(),
        "meshconfig/istio-system/istio"
    );
    assert_eq!(config(&config_map.replace("trustDomain: td", "")), MeshConfig::default());
    assert_eq!(specs(config_map).len(), 1);
    let later = config_map.replace("trustDomain: td", "dnsRefreshRate: 5s");
    refused(&later, "data.mesh.dnsRefreshRate", "not carried out yet");
    let wrong = config_map.replace("trustDomain", "trustDomian");
    let found = &offline(&wrong).diagnostics[0];
    assert_eq!((found.line, found.column, &*found.field), (9, 5, "data.mesh.trustDomian"));
    assert!(found.message.contains("did you mean trustDomain?"), "{found}");
    faulty(&config_map.replace("trustDomain: td", "a: ["), "data.mesh", "is not readable as YAML");
    let other = "{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}, data: {mesh: x}}";
    assert!(matches!(offline_specs(other)[0], Spec::ConfigMap(_)));
}

#[test]
fn what_means_nothing_here_is_passed_over() {
    accepted(&text("ingressClass: istio"), "ingressClass means nothing here");
    accepted(&text("defaultConfig: {meshId: a}"), "");
    accepted(&text("rootNamespace: null"), "");
    accepted(&text("defaultConfig: {proxyMetadata: {ISTIO_META_DNS_AUTO_ALLOCATE: 'true'}}"), "deprecated");
    accepted(&text("tlsDefaults: {ecdhCurves: [P-256, P-256]}"), "twice");
    accepted(&text("tlsDefaults: {ecdhCurves: [foo]}"), "not known");
    accepted(&text("defaultConfig: {tracing: {sampling: 101}}"), "no percentage");
    accepted(&text("serviceScopeConfigs: [], compliancePolicy: ''"), "means nothing here");
    for address in
        ["istio-pilot:80", "10.0.0.100:9090", "'[2001:db8::100]:80'", "'[fe80::1%eth0]:80'", "'[host]:080'"]
    {
        accepted(&text(&format!("defaultConfig: {{discoveryAddress: {address}}}")), "");
    }
    for fields in [
        "defaultConfig: {tracingServiceName: CANONICAL_NAME_ONLY}",
        "defaultConfig: {tracing: {zipkin: {address: '$(HOST_IP):9411'}, tlsSettings: {mode: SIMPLE}}}",
        "defaultConfig: {tracing: {datadog: {address: '$(HOST_IP):8126'}}}",
        "defaultConfig: {statsdUdpAddress: '', envoyMetricsService: {address: ''}}",
        "zoneAwareLbSetting: {failoverPriority: [topology.kubernetes.io/region]}",
        "extensionProviders: [{name: a, envoyExtAuthzHttp: {service: a.b, port: 80, pathPrefix: '/a?%b'}}]",
    ] {
        accepted(&text(fields), "");
    }
    accepted(&text("defaultConfig: {privateKeyProvider: {qat: {pollDelay: 10us}}}"), "passed over");
}

#[test]
fn what_is_refused() {
    for (fields, field, words) in [
        ("proxyListenPort: 0", "proxyListenPort", "out of range"),
        ("connectTimeout: -1s", "connectTimeout", "wanted a duration"),
        ("connectTimeout: 0s", "connectTimeout", "at least 1ms"),
        ("connectTimeout: 999999999s", "connectTimeout", "at most 1h"),
        ("protocolDetectionTimeout: 99999ns", "protocolDetectionTimeout", "whole milliseconds"),
        ("trustDomain: ''", "trustDomain", "must not be empty"),
        ("trustDomain: foo/bar", "trustDomain", "no trust domain"),
        ("trustDomain: -foo.bar", "trustDomain", "no trust domain"),
        ("trustDomainAliases: ['a.$b']", "trustDomainAliases[0]", "no trust domain"),
        ("rootNamespace: A", "rootNamespace", "lower-case"),
        ("meshMTLS: {ecdhCurves: [P-256]}", "meshMTLS", "ecdhCurves"),
        ("localityLbSetting: {}, zoneAwareLbSetting: {}", "zoneAwareLbSetting", "only one of"),
        (
            "localityLbSetting: {distribute: [{from: a, to: {a: 80}}]}",
            "localityLbSetting.distribute[0]",
            "wanted 100",
        ),
        ("serviceSettings: [{hosts: ['foo.bar.*']}]", "serviceSettings[0].hosts[0]", "no host"),
        ("outboundTrafficPolicy: {mode: ANY}", "outboundTrafficPolicy.mode", "allowed: REGISTRY_ONLY"),
        ("extensionProviders: [{prometheus: {}}]", "extensionProviders[0]", "name is missing"),
        ("extensionProviders: [{name: a}]", "extensionProviders[0]", "needs a kind"),
        (
            "extensionProviders: [{name: a, prometheus: {}}, {name: a, stackdriver: {}}]",
            "extensionProviders[1].name",
            "twice",
        ),
        (
            "extensionProviders: [{name: a, zipkin: {service: a, port: 99999}}]",
            "extensionProviders[0].zipkin.port",
            "out of range",
        ),
        (
            "extensionProviders: [{name: a, envoyExtAuthzHttp: {service: foo/ext-authz, port: 80}}]",
            "extensionProviders[0].envoyExtAuthzHttp.service",
            "full host name",
        ),
        (
            "extensionProviders: [{name: a, envoyExtAuthzGrpc: {service: a.b, port: 80, statusOnError: '999'}}]",
            "extensionProviders[0].envoyExtAuthzGrpc.statusOnError",
            "HTTP status",
        ),
        (
            "extensionProviders: [{name: a, envoyExtAuthzHttp: {service: a.b, port: 80, pathPrefix: x}}]",
            "extensionProviders[0].envoyExtAuthzHttp.pathPrefix",
            "begin with '/'",
        ),
        ("defaultConfig: {configPath: ''}", "defaultConfig.configPath", "must not be empty"),
        ("defaultConfig: {serviceCluster: ''}", "defaultConfig.serviceCluster", "must not be empty"),
        ("defaultConfig: {discoveryAddress: 10.0.0.100}", "defaultConfig.discoveryAddress", "HOST:PORT"),
        ("defaultConfig: {discoveryAddress: 'isti..:80'}", "defaultConfig.discoveryAddress", "HOST:PORT"),
        (
            "defaultConfig: {discoveryAddress: '2001:db8::100:80'}",
            "defaultConfig.discoveryAddress",
            "HOST:PORT",
        ),
        ("defaultConfig: {proxyAdminPort: 65536}", "defaultConfig.proxyAdminPort", "out of range"),
        ("defaultConfig: {statusPort: 0}", "defaultConfig.statusPort", "out of range"),
        ("defaultConfig: {drainDuration: 1001ms}", "defaultConfig.drainDuration", "whole seconds"),
        ("defaultConfig: {concurrency: -1}", "defaultConfig.concurrency", "out of range"),
        ("defaultConfig: {tracing: {datadog: {}}}", "defaultConfig.tracing.datadog", "address is missing"),
        (
            "defaultConfig: {tracing: {lightstep: {address: 'a:1', accessToken: ''}}}",
            "defaultConfig.tracing.lightstep.accessToken",
            "must not be empty",
        ),
        (
            "defaultConfig: {tracing: {customTags: {a: null}}}",
            "defaultConfig.tracing.customTags",
            "has no value",
        ),
        ("defaultConfig: {privateKeyProvider: {}}", "defaultConfig.privateKeyProvider", "one of cryptomb"),
        (
            "defaultConfig: {privateKeyProvider: {qat: {}}}",
            "defaultConfig.privateKeyProvider.qat",
            "pollDelay is missing",
        ),
        (
            "defaultConfig: {privateKeyProvider: {qat: {pollDelay: 0s}}}",
            "defaultConfig.privateKeyProvider.qat.pollDelay",
            "longer than 0",
        ),
        ("defaultConfig: {discoveryAddress: '$(HOST_IP):1'}", "defaultConfig.discoveryAddress", "HOST:PORT"),
        ("defaultConfig: {tracingServiceName: A}", "defaultConfig.tracingServiceName", "allowed: APP_LABEL"),
        (
            "defaultConfig: {serviceCluster: a, tracingServiceName: CANONICAL_NAME_ONLY}",
            "defaultConfig",
            "only one of serviceCluster and tracingServiceName",
        ),
        (
            "defaultConfig: {tracing: {stackdriver: {}, zipkin: {address: 'a:1'}}}",
            "defaultConfig.tracing",
            "only one of stackdriver and zipkin",
        ),
        (
            "defaultConfig: {tracing: {tlsSettings: {mode: SIMPLE, credentialName: a, privateKey: b}}}",
            "defaultConfig.tracing.tlsSettings.privateKey",
            "beside credentialName",
        ),
        (
            "defaultConfig: {privateKeyProvider: {qat: {pollDelay: soon}}}",
            "defaultConfig.privateKeyProvider.qat.pollDelay",
            "wanted a duration",
        ),
        (
            "defaultConfig: {privateKeyProvider: {qat: {pollDelay: 1s}, cryptomb: {pollDelay: 1s}}}",
            "defaultConfig.privateKeyProvider",
            "only one of cryptomb and qat",
        ),
        (
            "zoneAwareLbSetting: {failover: [{from: a, to: b}], failoverPriority: [topology.kubernetes.io/region]}",
            "zoneAwareLbSetting.failoverPriority[0]",
            "combined with failover",
        ),
        (
            "extensionProviders: [{name: a, envoyExtAuthzHttp: {service: a.b, port: 80, pathPrefix: '/%b'}}]",
            "extensionProviders[0].envoyExtAuthzHttp.pathPrefix",
            "no path of a URL",
        ),
        ("pathNormalisation: {}", "pathNormalisation", "did you mean pathNormalization?"),
    ] {
        faulty(&text(fields), field, words);
    }
}

#[test]
fn providers_of_telemetry() {
    let providers = |list: &str| {
        let Spec::MeshConfig(read) = specs(&text(&format!("extensionProviders: [{list}]"))).remove(0) else {
            panic!()
        };
        read.providers.into_iter().map(|provider| provider.kind).collect::<Vec<_>>()
    };
    let read = providers(
        "{name: a, envoyFileAccessLog: {}}, {name: b, envoyFileAccessLog: {path: /log, logFormat: {labels: {x: '%PROTOCOL%'}}}}, \
         {name: c, envoyOtelAls: {service: otel.svc, port: 4317, logFormat: {text: t, labels: {k: v}}}}, \
         {name: d, opentelemetry: {service: otel.svc, port: 4318, http: {path: /p, timeout: 3s, headers: [{name: X-A, value: b}]}}}, \
         {name: e, opentelemetry: {service: otel.svc, port: 4317, grpc: {timeout: 2s, initialMetadata: [{name: a, value: b}]}}}",
    );
    let file = |path: &str, format| ProviderKind::Log(Sink::File { path: path.into(), format });
    assert_eq!(read[0], file("/dev/stdout", Format::Text(None)));
    assert_eq!(read[1], file("/log", Format::Json(Some(vec![("x".into(), "%PROTOCOL%".into())]))));
    let ProviderKind::Log(Sink::Otlp { name, body, attributes, .. }) = &read[2] else { panic!() };
    assert_eq!((&**name, body.as_deref(), attributes.len()), ("otel_envoy_accesslog", Some("t"), 1));
    let ProviderKind::Traces(http) = &read[3] else { panic!() };
    assert_eq!((&http.transport, http.timeout), (&Transport::Http("/p".into()), Duration::from_secs(3)));
    assert_eq!(http.headers, [("x-a".into(), "b".into())]);
    let ProviderKind::Traces(grpc) = &read[4] else { panic!() };
    assert_eq!((&grpc.transport, grpc.headers.len()), (&Transport::Grpc, 1));
    for (list, field, words) in [
        (
            "{name: a, zipkin: {service: a.svc, port: 1}}",
            "spec.extensionProviders[0].zipkin",
            "not carried out yet",
        ),
        (
            "{name: a, opentelemetry: {service: a.svc, port: 1, dynatraceSampler: {}}}",
            "spec.extensionProviders[0].opentelemetry.dynatraceSampler",
            "not carried out yet",
        ),
        (
            "{name: a, opentelemetry: {service: a.svc, port: 1, http: {path: x, timeout: 1s}}}",
            "spec.extensionProviders[0].opentelemetry.http.path",
            "must begin with '/'",
        ),
    ] {
        let field = field.strip_prefix("spec.").unwrap();
        refused(&text(&format!("extensionProviders: [{list}]")), field, words);
    }
    let json = "accessLogEncoding: JSON, accessLogFormat: ";
    specs(&text(&format!("{json}'{{\"a\": \"%PROTOCOL%\"}}'")));
    specs(&text(&format!("{json}'{{\"a\": {{\"b\": \"%PROTOCOL%\"}}}}'")));
    for (fields, words) in [
        (format!("{json}'[]'"), "begins with {"),
        (format!("{json}'{{\"a\": \"%NOBODY%\"}}'"), "NOBODY"),
        ("accessLogFormat: '%RESPONSE_CODES%'".to_owned(), "RESPONSE_CODE"),
    ] {
        faulty(&text(&fields), "accessLogFormat", words);
    }
    let nested = providers("{name: a, envoyFileAccessLog: {logFormat: {labels: {x: {y: '%PROTOCOL%'}}}}}");
    let whole = Format::Json(Some(vec![("".into(), r#"{"x":{"y":"%PROTOCOL%"}}"#.into())]));
    assert_eq!(nested[0], file("/dev/stdout", whole));
}
