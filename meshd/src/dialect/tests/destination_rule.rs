use std::time::Duration;

use mesh_core::balancing::balancer::LoadBalancer;
use mesh_core::balancing::policy::{Algorithm, HashKey, HashTable, LoadBalancerPolicy};
use mesh_core::balancing::utilization::Utilization;
use mesh_core::resilience::outlier::OutlierDetection;
use mesh_core::resilience::pool::H2Upgrade;
use mesh_core::resource::destination_rule::{DestinationRule, TlsMode, TrafficPolicy};
use mesh_core::resource::reach::Export;

use super::verdict::{accepted, denied, warned};
use super::*;

const KIND: &str = "DestinationRule";

fn with(policy: &str) -> String {
    format!("{{host: a, trafficPolicy: {policy}}}")
}

#[track_caller]
fn rule(spec: &str) -> DestinationRule {
    let Spec::DestinationRule(rule) = accepted(KIND, spec) else { panic!() };
    *rule
}

#[track_caller]
fn policy(policy: &str) -> TrafficPolicy {
    rule(&with(policy)).policy.unwrap()
}

#[track_caller]
fn balancer(text: &str) -> LoadBalancerPolicy {
    policy(&format!("{{outlierDetection: {{}}, loadBalancer: {text}}}")).blocks.load_balancer.unwrap()
}

#[test]
fn hosts_subsets_and_reach() {
    let read = rule(
        "{host: Reviews, exportTo: [., other], subsets: [{name: V1, labels: {version: v1}}, {name: all, labels: {}}, {name: bare}]}",
    );
    assert_eq!((&*read.host, read.subsets.len(), &*read.subsets[0].name), ("reviews", 3, "V1"));
    assert_eq!(read.export_to.entries, [Export::Own, Export::Namespace("other".into())]);
    let read =
        rule("{host: '*.example.com', exportTo: [default], workloadSelector: {matchLabels: {app: x}}}");
    assert_eq!(read.workload_selector.unwrap().value("app"), Some("x"));
    rule("{host: '*', exportTo: [.], workloadSelector: {matchLabels: {app: x}}}");
    rule("{host: a.b.c.}");
    for (spec, field, words) in [
        ("{host: ''}", "spec.host", "must not be empty"),
        ("{subsets: []}", "spec", "the field host is missing"),
        ("{host: 'a.*'}", "spec.host", "no host"),
        ("{host: 1.2.3.4}", "spec.host", "no host"),
        ("{host: a/b}", "spec.host", "no host"),
        ("{host: a, subsets: [{name: ''}]}", "spec.subsets[0].name", "must not be empty"),
        ("{host: a, subsets: [{labels: {}}]}", "spec.subsets[0]", "the field name is missing"),
        ("{host: a, subsets: [{name: a_b}]}", "spec.subsets[0].name", "no name of a subset"),
        ("{host: a, subsets: [{name: a}, {name: a}]}", "spec.subsets[1]", "twice"),
        ("{host: a, subsets: [{name: a, labels: {'.': x}}]}", "spec.subsets[0].labels[\".\"]", "no key"),
        (
            "{host: a, subsets: [{name: a, trafficPolicy: {}}]}",
            "spec.subsets[0].trafficPolicy",
            "at least one",
        ),
        ("{host: a, exportTo: ['*', x]}", "spec.exportTo[0]", "cannot be combined"),
        ("{host: a, exportTo: [~]}", "spec.exportTo[0]", "null"),
        ("{host: a, exportTo: ['~']}", "spec.exportTo[0]", "ServiceEntry only"),
        ("{host: a, exportTo: [., default]}", "spec.exportTo[1]", "twice"),
        (
            "{host: a, exportTo: ['*'], workloadSelector: {matchLabels: {a: b}}}",
            "spec.exportTo",
            "own namespace only",
        ),
        (
            "{host: a, exportTo: [x], workloadSelector: {matchLabels: {a: b}}}",
            "spec.exportTo",
            "own namespace only",
        ),
        (
            "{host: a, workloadSelector: {matchLabels: {a: 'b*'}}}",
            "spec.workloadSelector.matchLabels.a",
            "wildcard",
        ),
        (
            "{host: a, workloadSelector: {matchLabels: {'': b}}}",
            "spec.workloadSelector.matchLabels[\"\"]",
            "empty key",
        ),
        (
            "{host: a, workloadSelector: {labels: {a: b}}}",
            "spec.workloadSelector.labels",
            "a selector has: matchLabels",
        ),
    ] {
        denied(KIND, spec, field, words);
    }
    warned(KIND, "{host: a, workloadSelector: {}}", "selects every workload");
}

#[test]
fn connection_pools() {
    let pool = policy(
        "{connectionPool: {tcp: {maxConnections: 7, connectTimeout: 2s, idleTimeout: 0s, maxConnectionDuration: 1h, \
         tcpKeepalive: {probes: 3, time: 7200s, interval: 75s}}, \
         http: {http1MaxPendingRequests: 2, http2MaxRequests: 11, maxRequestsPerConnection: 5, maxRetries: 4, idleTimeout: 30s, \
         maxConcurrentStreams: 0, h2UpgradePolicy: UPGRADE, http2KeepAlive: {interval: 15s, timeout: 5s}}}}",
    )
    .blocks
    .connection_pool
    .unwrap();
    assert_eq!((pool.max_connections, pool.tcp_idle_timeout), (Some(7), Some(Duration::ZERO)));
    assert_eq!((pool.max_retries, pool.max_concurrent_streams), (Some(4), None));
    assert_eq!(pool.h2_upgrade, H2Upgrade::Upgrade);
    assert_eq!(pool.http2_keepalive, Some((Duration::from_secs(15), Duration::from_secs(5))));
    assert_eq!(pool.tcp_keepalive.unwrap().probes, Some(3));
    policy("{connectionPool: {tcp: {}}}");
    policy("{connectionPool: {http: {useClientProtocol: true, h2UpgradePolicy: DEFAULT}}}");
    let at = |rest: &str| format!("spec.trafficPolicy.connectionPool{rest}");
    for (text, field, words) in [
        ("{}", at(""), "needs tcp or http"),
        ("{tcp: {maxConnections: -1}}", at(".tcp.maxConnections"), "out of range"),
        ("{tcp: {maxConnections: '1'}}", at(".tcp.maxConnections"), "wanted a whole number"),
        ("{tcp: {connectTimeout: 2.000005s}}", at(".tcp.connectTimeout"), "whole milliseconds"),
        ("{tcp: {connectTimeout: 0s}}", at(".tcp.connectTimeout"), "at least 1ms"),
        ("{tcp: {maxConnectionDuration: 500ns}}", at(".tcp.maxConnectionDuration"), "whole milliseconds"),
        ("{tcp: {tcpKeepalive: {time: 0s}}}", at(".tcp.tcpKeepalive.time"), "at least 1ms"),
        ("{tcp: {tcpKeepalive: {probes: -1}}}", at(".tcp.tcpKeepalive.probes"), "out of range"),
        ("{http: {http1MaxPendingRequests: -1}}", at(".http.http1MaxPendingRequests"), "out of range"),
        ("{http: {maxConcurrentStreams: -1}}", at(".http.maxConcurrentStreams"), "out of range"),
        ("{http: {idleTimeout: 0s}}", at(".http.idleTimeout"), "at least 1ms"),
        (
            "{http: {h2UpgradePolicy: UPGRADE, useClientProtocol: true}}",
            at(".http.h2UpgradePolicy"),
            "cannot both",
        ),
        ("{http: {h2UpgradePolicy: upgrade}}", at(".http.h2UpgradePolicy"), "did you mean UPGRADE?"),
        ("{http: {http2KeepAlive: {interval: 1s}}}", at(".http.http2KeepAlive"), "timeout is missing"),
        ("{https: {}}", at(".https"), "did you mean http?"),
    ] {
        denied(KIND, &with(&format!("{{connectionPool: {text}}}")), &field, words);
    }
}

#[test]
fn outlier_detection() {
    let read =
        |text: &str| policy(&format!("{{outlierDetection: {text}}}")).blocks.outlier_detection.unwrap();
    assert_eq!(read("{}"), OutlierDetection::default());
    assert_eq!(read("{consecutive5xxErrors: null, maxEjectionPercent: 0}"), OutlierDetection::default());
    let all = read(
        "{consecutive5xxErrors: 0, consecutiveGatewayErrors: 3, interval: 2s, baseEjectionTime: 1m, maxEjectionPercent: 100, \
         minHealthPercent: 20, splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 7, outlierDetectionHttpErrorCodes: [500, 503]}",
    );
    assert_eq!((all.consecutive_5xx, all.consecutive_gateway, all.consecutive_local_origin), (0, 3, 7));
    assert_eq!(
        (all.max_ejection_percent, all.min_health_percent, &all.http_error_codes[..]),
        (100, 20, &[500, 503][..])
    );
    warned(KIND, &with("{outlierDetection: {consecutiveErrors: 5}}"), "deprecated");
    let at = |rest: &str| format!("spec.trafficPolicy.outlierDetection.{rest}");
    for (text, field, words) in [
        (
            "{consecutiveLocalOriginFailures: 10}",
            at("consecutiveLocalOriginFailures"),
            "splitExternalLocalOriginErrors",
        ),
        ("{maxEjectionPercent: 105}", at("maxEjectionPercent"), "0 to 100"),
        ("{minHealthPercent: -1}", at("minHealthPercent"), "0 to 100"),
        ("{consecutive5xxErrors: -1}", at("consecutive5xxErrors"), "out of range"),
        ("{interval: 0s}", at("interval"), "at least 1ms"),
        ("{baseEjectionTime: 2.000000005s}", at("baseEjectionTime"), "whole milliseconds"),
        ("{outlierDetectionHttpErrorCodes: [600]}", at("outlierDetectionHttpErrorCodes[0]"), "100 to 599"),
    ] {
        denied(KIND, &with(&format!("{{outlierDetection: {text}}}")), &field, words);
    }
}

#[test]
fn load_balancers() {
    assert_eq!(balancer("{}").algorithm, Algorithm::Simple(LoadBalancer::LeastRequest));
    assert_eq!(balancer("{simple: UNSPECIFIED}").algorithm, Algorithm::Simple(LoadBalancer::LeastRequest));
    assert_eq!(balancer("{simple: PASSTHROUGH}").algorithm, Algorithm::Passthrough);
    let hash = |text: &str| match balancer(&format!("{{consistentHash: {text}}}")).algorithm {
        Algorithm::ConsistentHash { key, table } => (key, table),
        other => panic!("{other:?}"),
    };
    assert_eq!(hash("{httpHeaderName: X-User}"), (HashKey::Header("x-user".into()), HashTable::Ring(1024)));
    assert_eq!(
        hash("{useSourceIp: true, ringHash: {minimumRingSize: 9}}"),
        (HashKey::SourceIp, HashTable::Ring(9))
    );
    assert_eq!(
        hash("{httpQueryParameterName: Q, maglev: {tableSize: 101}}"),
        (HashKey::QueryParameter("Q".into()), HashTable::Maglev(101))
    );
    let (key, _) = hash(
        "{httpCookie: {name: c, path: /, ttl: 0s, attributes: [{name: SameSite, value: Strict}, {name: Secure}]}}",
    );
    let HashKey::Cookie { ttl, attributes, .. } = key else { panic!() };
    assert_eq!((ttl, attributes.len()), (Some(Duration::ZERO), 2));
    let warmup = balancer("{warmup: {duration: 300s, minimumPercent: 5.0, aggression: 5.0}}").warmup.unwrap();
    assert_eq!((warmup.minimum.percent(), warmup.aggression_thousandths), (5.0, 5000));
    balancer("{warmup: {duration: 300s, aggression: null}}");
    let slow = balancer("{warmup: {duration: 300s, aggression: 0.3}}").warmup.unwrap();
    assert_eq!(slow.aggression_thousandths, 300);
    let reported = |text: &str| match balancer(&format!("{{backendUtilization: {text}}}")).algorithm {
        Algorithm::Utilization(utilization) => utilization,
        other => panic!("{text}: {other:?}"),
    };
    assert_eq!(reported("{}"), Utilization::default());
    let all = Utilization {
        error_penalty_percent: 150,
        metrics: vec!["mem_utilization".into(), "named_metrics.queue".into()],
        stabilization: Duration::ZERO,
        expiration: Duration::from_secs(60),
        update: Duration::from_millis(500),
    };
    let text = "{errorUtilizationPenaltyPercent: 150, weightStabilizationPeriod: 0s, weightExpirationPeriod: 1m, \
                weightUpdatePeriod: 500ms, metricNamesForComputingUtilization: [mem_utilization, named_metrics.queue]}";
    assert_eq!(reported(text), all);
    for (text, words) in [
        ("{warmupDurationSecs: 10s}", "deprecated"),
        ("{consistentHash: {httpHeaderName: a, minimumRingSize: 7}}", "deprecated here"),
        ("{consistentHash: {}}", "nothing to hash by"),
        ("{consistentHash: {useSourceIp: false}}", "nothing to hash by"),
    ] {
        warned(KIND, &with(&format!("{{loadBalancer: {text}}}")), words);
    }
    let at = |rest: &str| format!("spec.trafficPolicy.loadBalancer{rest}");
    for (text, field, words) in [
        ("{simple: ROUND-ROBIN}", at(".simple"), "did you mean ROUND_ROBIN?"),
        ("{simple: 4}", at(".simple"), "wanted one of"),
        ("{simple: RANDOM, consistentHash: {useSourceIp: true}}", at(""), "only one of"),
        ("{consistentHash: {useSourceIp: true, httpHeaderName: a}}", at(".consistentHash"), "only one of"),
        (
            "{consistentHash: {useSourceIp: true, ringHash: {}, maglev: {tableSize: 7}}}",
            at(".consistentHash"),
            "only one of",
        ),
        (
            "{consistentHash: {useSourceIp: true, minimumRingSize: 7, ringHash: {}}}",
            at(".consistentHash.minimumRingSize"),
            "only one of",
        ),
        (
            "{consistentHash: {useSourceIp: true, maglev: {}}}",
            at(".consistentHash.maglev"),
            "tableSize is missing",
        ),
        (
            "{consistentHash: {useSourceIp: true, maglev: {tableSize: 0}}}",
            at(".consistentHash.maglev.tableSize"),
            "no prime",
        ),
        (
            "{consistentHash: {useSourceIp: true, maglev: {tableSize: 1000}}}",
            at(".consistentHash.maglev.tableSize"),
            "no prime",
        ),
        (
            "{consistentHash: {useSourceIp: true, maglev: {tableSize: 5000011}}}",
            at(".consistentHash.maglev.tableSize"),
            "too large",
        ),
        ("{consistentHash: {httpCookie: {ttl: 1s}}}", at(".consistentHash.httpCookie"), "name is missing"),
        (
            "{consistentHash: {httpCookie: {name: ''}}}",
            at(".consistentHash.httpCookie.name"),
            "must not be empty",
        ),
        (
            "{consistentHash: {httpCookie: {name: a, attributes: [{name: b}, {name: b}]}}}",
            at(".consistentHash.httpCookie.attributes[1]"),
            "twice",
        ),
        ("{warmup: {duration: 300s, minimumPercent: 150.0}}", at(".warmup.minimumPercent"), "0 to 100"),
        ("{warmup: {minimumPercent: 5.0}}", at(".warmup"), "duration is missing"),
        ("{warmup: {duration: 300s, aggression: 0}}", at(".warmup.aggression"), "more than 0"),
        ("{warmup: {duration: 300s, aggression: -0.1}}", at(".warmup.aggression"), "more than 0"),
        ("{warmup: {duration: 0s}}", at(".warmup.duration"), "at least 1ms"),
        ("{warmup: {duration: 1s}, warmupDurationSecs: 1s}", at(""), "only one of"),
        ("{localityLbSetting: {}, zoneAwareLbSetting: {}}", at(""), "only one of"),
    ] {
        let parsed = with(&format!("{{loadBalancer: {text}}}"));
        denied(KIND, &parsed, &field, words);
    }
}

#[test]
fn localities() {
    let read = |text: &str| balancer(text).locality.unwrap();
    let spread = read(
        "{localityLbSetting: {enabled: true, distribute: [{from: a1/*, to: {a1/*: 80, a2/*: 20}}, {from: a3/b3/c3, to: {a4/b4: 100}}, \
         {from: a5/b5/*, to: {a: 100}}, {from: '*', to: {b: 100}}]}}",
    );
    assert_eq!((spread.enabled, spread.distribute.len(), spread.distribute[0].to.len()), (Some(true), 4, 2));
    let failover =
        read("{localityLbSetting: {failover: [{from: us, to: eu}], failoverPriority: [app, 'v=1']}}");
    assert_eq!((failover.failover.len(), failover.failover_priority.len()), (1, 2));
    read(
        "{localityLbSetting: {failoverPriority: [topology.kubernetes.io/region, topology.kubernetes.io/zone]}}",
    );
    assert_eq!(read("{zoneAwareLbSetting: {minClusterSize: 3, enabled: null}}").zone_aware, Some(3));
    assert_eq!(read("{zoneAwareLbSetting: {enabled: true, failoverPriority: [app=x]}}").zone_aware, Some(6));
    assert_eq!(balancer("{zoneAwareLbSetting: {enabled: false}}").locality, None);
    for text in [
        "{localityLbSetting: {failover: [{from: us, to: eu}]}}",
        "{localityLbSetting: {failoverPriority: [app]}}",
        "{zoneAwareLbSetting: {failoverPriority: [app]}}",
    ] {
        warned(KIND, &with(&format!("{{loadBalancer: {text}}}")), "without outlierDetection");
    }
    let distribute = |text: &str| format!("{{localityLbSetting: {{distribute: [{text}]}}}}");
    let at = |rest: &str| format!("spec.trafficPolicy.loadBalancer.localityLbSetting.{rest}");
    for (text, field, words) in [
        (distribute("{from: a/b/c, to: {a/b/c: 80, a/b1: 15}}"), at("distribute[0]"), "add up to 95"),
        (distribute("{from: a, to: {}}"), at("distribute[0]"), "add up to 0"),
        (distribute("{from: a, to: {a: 0, b: 100}}"), at("distribute[0].to.a"), "1 to 100"),
        (distribute("{from: a, to: {a: 101}}"), at("distribute[0].to.a"), "1 to 100"),
        (distribute("{from: '*/zone', to: {a: 100}}"), at("distribute[0].from"), "only stand once"),
        (distribute("{from: '*/z/*', to: {a: 100}}"), at("distribute[0].from"), "only stand once"),
        (distribute("{from: a//c, to: {a: 100}}"), at("distribute[0].from"), "empty region"),
        (distribute("{from: '*', to: {a: 100}}, {from: a/b/c, to: {a: 100}}"), at("distribute[1].from"), "overlaps"),
        (distribute("{from: a, to: {a: 100}}, {from: a/b/c, to: {a: 100}}"), at("distribute[1].from"), "overlaps"),
        (distribute("{from: a/*, to: {a: 100}}, {from: a/b/c, to: {a: 100}}"), at("distribute[1].from"), "overlaps"),
        (distribute("{from: a/b, to: {a: 100}}, {from: a/b/c, to: {a: 100}}"), at("distribute[1].from"), "overlaps"),
        (distribute("{from: a/b/*, to: {a: 100}}, {from: a/b/c, to: {a: 100}}"), at("distribute[1].from"), "overlaps"),
        (distribute("{from: a/b/c, to: {a: 100}}, {from: a, to: {a: 100}}"), at("distribute[1].from"), "overlaps"),
        (distribute("{from: a, to: {b/c: 50, b/c/d: 50}}"), at("distribute[0].to[\"b/c/d\"]"), "overlaps"),
        ("{localityLbSetting: {failover: [{from: a, to: a}]}}".to_owned(), at("failover[0]"), "for itself"),
        ("{localityLbSetting: {failover: [{from: a/b, to: c}]}}".to_owned(), at("failover[0].from"), "regions only"),
        ("{localityLbSetting: {failover: [{from: a, to: '*'}]}}".to_owned(), at("failover[0].to"), "no wildcard"),
        (
            "{localityLbSetting: {failover: [{from: a, to: b}], failoverPriority: [topology.istio.io/subzone]}}".to_owned(),
            at("failoverPriority[0]"),
            "combined with failover",
        ),
        (
            "{zoneAwareLbSetting: {failoverPriority: [topology.kubernetes.io/zone]}}".to_owned(),
            "spec.trafficPolicy.loadBalancer.zoneAwareLbSetting.failoverPriority[0]".to_owned(),
            "no place here",
        ),
        (
            "{zoneAwareLbSetting: {minClusterSize: 0}}".to_owned(),
            "spec.trafficPolicy.loadBalancer.zoneAwareLbSetting.minClusterSize".to_owned(),
            "out of range",
        ),
    ] {
        denied(KIND, &with(&format!("{{outlierDetection: {{}}, loadBalancer: {text}}}")), &field, words);
    }
    denied(
        KIND,
        &with(
            "{loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {b: 100}}], failover: [{from: a, to: b}]}}, outlierDetection: {}}",
        ),
        "spec.trafficPolicy.loadBalancer.localityLbSetting",
        "distribute and failover",
    );
}

#[test]
fn tls() {
    let read = |text: &str| policy(&format!("{{tls: {text}}}")).blocks.tls.unwrap();
    assert_eq!(read("{}").mode, TlsMode::Disable);
    assert_eq!(read("{mode: ISTIO_MUTUAL, sni: x}").sni.as_deref(), Some("x"));
    for text in [
        "{mode: SIMPLE, caCertificates: /ca, subjectAltNames: [a]}",
        "{mode: SIMPLE, insecureSkipVerify: true}",
        "{mode: MUTUAL, clientCertificate: /c, privateKey: /k, caCertificates: /ca, caCrl: /crl}",
        "{mode: MUTUAL, clientCertificate: /c, privateKey: /k, insecureSkipVerify: null}",
    ] {
        read(text);
    }
    for text in [
        "{mode: SIMPLE, credentialName: x, subjectAltNames: [a], insecureSkipVerify: false}",
        "{mode: MUTUAL, credentialName: x, insecureSkipVerify: true}",
        "{mode: SIMPLE, credentialName: 'configmap://default/ca'}",
    ] {
        warned(KIND, &with(&format!("{{tls: {text}}}")), "those of hosts connect in the clear");
        let selector = "workloadSelector: {matchLabels: {app: a}}";
        rule(&format!("{{host: a, {selector}, trafficPolicy: {{tls: {text}}}}}"));
    }
    warned(KIND, &with("{tls: {mode: ISTIO_MUTUAL, privateKey: /k}}"), "no effect with ISTIO_MUTUAL");
    let at = |rest: &str| format!("spec.trafficPolicy.tls{rest}");
    for (text, field, words) in [
        ("{mode: simple}", at(".mode"), "did you mean SIMPLE?"),
        ("{mode: MUTUAL, clientCertificate: /c}", at(""), "MUTUAL needs privateKey"),
        ("{mode: MUTUAL, privateKey: /c}", at(""), "MUTUAL needs clientCertificate"),
        (
            "{mode: SIMPLE, credentialName: x, caCertificates: /ca}",
            at(".caCertificates"),
            "beside credentialName",
        ),
        ("{mode: MUTUAL, credentialName: x, caCrl: /crl}", at(".caCrl"), "beside credentialName"),
        ("{mode: SIMPLE, insecureSkipVerify: true, caCertificates: /ca}", at(".caCertificates"), "turns off"),
        ("{mode: SIMPLE, insecureSkipVerify: true, credentialName: x}", at(".credentialName"), "turns off"),
        (
            "{mode: MUTUAL, clientCertificate: /c, privateKey: /k, insecureSkipVerify: true, subjectAltNames: [a]}",
            at(".subjectAltNames"),
            "turns off",
        ),
        ("{mode: SIMPLE, credentialName: 'configmap://x/ca'}", at(".credentialName"), "own namespace"),
        ("{mode: SIMPLE, credentialName: 'configmap://'}", at(".credentialName"), "wanted configmap://"),
        ("{credentialName: 'configmap://ca'}", at(".credentialName"), "wanted configmap://default/NAME"),
    ] {
        denied(KIND, &with(&format!("{{tls: {text}}}")), &field, words);
    }
}

#[test]
fn ports_tunnels_and_budgets() {
    let read = policy(
        "{portLevelSettings: [{port: {number: 80}, tls: {}}, {port: {number: 81}, connectionPool: {tcp: {}}, outlierDetection: {}}]}",
    );
    assert_eq!(read.ports.iter().map(|(port, _)| *port).collect::<Vec<_>>(), [80, 81]);
    assert!(read.ports[1].1.outlier_detection.is_some());
    let tunnel =
        policy("{tunnel: {protocol: POST, targetHost: Example.com, targetPort: 443}}").tunnel.unwrap();
    assert_eq!((tunnel.post, &*tunnel.host, tunnel.port), (true, "example.com", 443));
    policy("{tunnel: {targetHost: '::1', targetPort: 443}}");
    assert_eq!(policy("{proxyProtocol: {version: V2}}").proxy_protocol, Some(2));
    assert_eq!(policy("{proxyProtocol: {}}").proxy_protocol, Some(1));
    let budget = policy("{retryBudget: {percent: null, minRetryConcurrency: 0, budgetInterval: 10s}}")
        .retry_budget
        .unwrap();
    assert_eq!((budget.share.percent(), budget.min_concurrency), (20.0, 3));
    warned(
        KIND,
        &with("{portLevelSettings: [{port: {number: 80}, tls: {}}, {port: {number: 80}, tls: {}}]}"),
        "earlier entry",
    );
    warned(KIND, &with("{portLevelSettings: [{port: {}, tls: {}}]}"), "no effect");
    for (text, field, words) in [
        ("{}", "", "at least one field"),
        ("{portLevelSettings: []}", "", "at least one field"),
        ("{portLevelSettings: [{tls: {}}]}", ".portLevelSettings[0]", "port is missing"),
        ("{portLevelSettings: [{port: {number: 80}}]}", ".portLevelSettings[0]", "beside port"),
        (
            "{portLevelSettings: [{port: {number: 80}, connectionPool: {}}]}",
            ".portLevelSettings[0].connectionPool",
            "needs tcp",
        ),
        (
            "{portLevelSettings: [{port: {number: 80}, tls: {mode: DISABLE}, tunnel: {}}]}",
            ".portLevelSettings[0].tunnel",
            "unknown field",
        ),
        ("{tunnel: {targetHost: a, targetPort: 1}, proxyProtocol: {}}", "", "cannot both"),
        ("{tunnel: {protocol: GET, targetHost: a, targetPort: 1}}", ".tunnel.protocol", "CONNECT, POST"),
        ("{tunnel: {targetHost: '*.a', targetPort: 1}}", ".tunnel.targetHost", "neither"),
        ("{tunnel: {targetHost: a, targetPort: 0}}", ".tunnel.targetPort", "out of range"),
        ("{tunnel: {targetHost: a}}", ".tunnel", "targetPort is missing"),
        ("{proxyProtocol: {version: V3}}", ".proxyProtocol.version", "V1, V2"),
        ("{retryBudget: {percent: 101}}", ".retryBudget.percent", "0 to 100"),
        ("{loadBalancer: null}", ".loadBalancer", "null is not allowed"),
    ] {
        denied(KIND, &with(text), &format!("spec.trafficPolicy{field}"), words);
    }
}

/// What has no effect on the wire yet is refused by `apply` alone.
#[test]
fn explained_only() {
    assert!(
        !read(&resource(KIND, &with("{loadBalancer: {simple: PASSTHROUGH}, tls: {mode: SIMPLE}}")))
            .is_refused()
    );
}
