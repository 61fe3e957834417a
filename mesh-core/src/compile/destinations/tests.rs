use super::*;
use std::time::Duration;

use crate::balancing::locality::LocalityPolicy;
use crate::balancing::policy::{HashKey, HashTable};
use crate::balancing::utilization::Utilization;
use crate::compile::compile;
use crate::resilience::outlier::OutlierDetection;
use crate::resilience::pool::TcpKeepalive;
use crate::resource::Spec;
use crate::resource::destination_rule::{DestinationRule, TlsMode, TlsSettings};
use crate::resource::mesh_config::MeshConfig;
use crate::resource::service::{ServiceEntry, TargetPort};
use crate::snapshot::Version;
use crate::snapshot::section::Section;
use crate::state::sample::{declare, destination_rule, labels, mesh, port, service};
use crate::vocab::ratio::Ratio;

/// Blocks by their first letters: `l` load balancer, `c` connection pool, `o` outliers, `t` TLS, with a mark of the
/// level: a number that tells one level's block from another's.
fn blocks(text: &str) -> TrafficBlocks {
    let mut blocks = TrafficBlocks::default();
    for part in text.split_whitespace().filter(|part| part.len() == 2) {
        let level: u32 = part[1..].parse().unwrap();
        match &part[..1] {
            "l" => {
                let key = HashKey::Header(part[1..].into());
                let algorithm = Algorithm::ConsistentHash { key, table: HashTable::Ring(1024) };
                blocks.load_balancer = Some(LoadBalancerPolicy { algorithm, ..Default::default() });
            }
            "c" => {
                blocks.connection_pool =
                    Some(ConnectionPool { max_connections: Some(level), ..Default::default() });
            }
            "o" => {
                blocks.outlier_detection =
                    Some(OutlierDetection { consecutive_5xx: level, ..Default::default() });
            }
            "t" => blocks.tls = Some(TlsSettings { sni: Some(part[1..].into()), ..Default::default() }),
            _ => {}
        }
    }
    blocks
}

/// Blocks, and `u` tunnel, `p` PROXY header, `r` retry budget. Entries for ports follow as `@PORT BLOCKS`.
fn policy(text: &str) -> TrafficPolicy {
    let mut entries = text.split('@');
    let own = entries.next().unwrap();
    let value = |letter: char| {
        let part = own.split_whitespace().find(|part| part.starts_with(letter))?;
        part[1..].parse::<u16>().ok()
    };
    TrafficPolicy {
        blocks: blocks(own),
        ports: entries
            .map(|entry| {
                let (port, own) = entry.split_once(' ').unwrap_or((entry, ""));
                (port.trim().parse().unwrap(), blocks(own))
            })
            .collect(),
        tunnel: value('u').map(|port| Tunnel { post: false, host: "t".into(), port }),
        proxy_protocol: value('p').map(|version| version as u8),
        retry_budget: value('r')
            .map(|min| RetryBudget { share: Ratio::ONE, min_concurrency: u32::from(min) }),
    }
}

/// The blocks that hold, in the words of [`policy`].
fn words(effective: &Effective) -> String {
    let mut words = Vec::new();
    let blocks = &effective.blocks;
    if let Some(Algorithm::ConsistentHash { key: HashKey::Header(level), .. }) =
        blocks.load_balancer.as_ref().map(|policy| &policy.algorithm)
    {
        words.push(format!("l{level}"));
    }
    words.extend(
        blocks.connection_pool.and_then(|pool| pool.max_connections).map(|level| format!("c{level}")),
    );
    words.extend(blocks.outlier_detection.as_ref().map(|outliers| format!("o{}", outliers.consecutive_5xx)));
    words.extend(blocks.tls.as_ref().and_then(|tls| tls.sni.as_ref()).map(|level| format!("t{level}")));
    words.extend(effective.tunnel.as_ref().map(|tunnel| format!("u{}", tunnel.port)));
    words.extend(effective.proxy_protocol.map(|version| format!("p{version}")));
    words.extend(effective.retry_budget.map(|budget| format!("r{}", budget.min_concurrency)));
    words.join(" ")
}

#[test]
fn levels_are_laid_over_one_another() {
    let check = |top: Option<&str>, subset: Option<&str>, expected: &str| {
        let (above, below) = (top.map(policy), subset.map(policy));
        let found = words(&effective(above.as_ref(), below.as_ref(), 80));
        assert_eq!(found, expected, "{top:?} {subset:?}");
    };
    let all = "l1 c1 o1 t1 u1 p1 r1";
    check(None, None, "");
    check(Some(all), None, all);
    // A subset wins block by block, each wholesale.
    check(Some(all), Some("c2"), "l1 c2 o1 t1 u1 p1 r1");
    check(Some(all), Some("l2 c2 o2 t2 u2 p2 r2"), "l2 c2 o2 t2 u2 p2 r2");
    check(Some("l1"), Some("u2"), "l1 u2");
    check(None, Some("l2 r2"), "l2 r2");
    // An entry for the port is the whole policy, and takes along what no entry can say.
    check(Some("l1 c1 o1 t1 u1 p1 r1 @80 l3"), None, "l3");
    check(Some("l1 c1 o1 t1 u1 p1 r1 @80"), None, "");
    check(Some("l1 c1 o1 t1 u1 p1 r1 @81 l3"), None, all);
    // A subset stands over the entry for the port of the top level.
    check(Some("l1 c1 u1 @80 o3"), Some("c2"), "c2 o3");
    check(Some("l1 u1 @80 l3 t3"), Some("l2"), "l2 t3");
    // A subset's entry for the port replaces all four blocks, but not what no entry can say.
    check(Some(all), Some("c2 @80 l4"), "l4 u1 p1 r1");
    check(Some(all), Some("c2 u2 @80 l4"), "l4 u2 p1 r1");
    check(Some("l1 c1 u1 @80 o3"), Some("@80 t4"), "t4");
    check(Some(all), Some("c2 @81 l4"), "l1 c2 o1 t1 u1 p1 r1");
}

/// Every destination of the mesh.
fn destinations(resources: Vec<Arc<Resource>>) -> Vec<Destination> {
    let compiled = compile(&mesh(resources)).whole(Version::default());
    let sections = compiled.sections.values();
    let found = sections.filter_map(|entry| match &*entry.section {
        Section::Destination(found) => Some(found.clone()),
        _ => None,
    });
    found.collect()
}

/// The destination of port 80 of `a.default`, without a subset.
fn of_a(rule: Option<TrafficPolicy>, config: MeshConfig) -> Destination {
    let mut resources = vec![
        service("default/a", &["http:80"], "app=a"),
        declare("istio-system/mesh", Spec::MeshConfig(Box::new(config))),
    ];
    resources.extend(rule.map(|policy| destination_rule("default/a", "a", &[], Some(policy))));
    destinations(resources).into_iter().find(|found| found.key.scope.is_none()).unwrap()
}

#[test]
fn the_mesh_fills_in_what_a_rule_leaves_out() {
    let baseline = || MeshConfig {
        default_connection_pool: Some(ConnectionPool { max_connections: Some(7), ..Default::default() }),
        default_outlier_detection: Some(OutlierDetection { consecutive_5xx: 7, ..Default::default() }),
        connect_timeout: Some(Duration::from_secs(7)),
        tcp_keepalive: Some(TcpKeepalive { probes: Some(7), ..Default::default() }),
        ..MeshConfig::default()
    };
    let check = |rule: Option<&str>, connections: u32, errors: Option<u32>| {
        let found = of_a(rule.map(policy), baseline());
        let outliers = found.outlier_detection.map(|outliers| outliers.consecutive_5xx);
        assert_eq!((found.pool.max_connections, outliers), (connections, errors), "{rule:?}");
        assert_eq!(found.connect_timeout, Duration::from_secs(7));
        assert_eq!(found.pool.tcp_keepalive.and_then(|keepalive| keepalive.probes), Some(7));
    };
    check(None, 7, Some(7));
    check(Some("l1"), 7, Some(7));
    check(Some("c1"), 1, Some(7));
    check(Some("o1"), 7, Some(1));
    check(Some("c1 o1"), 1, Some(1));
    check(Some("c1 o1 @80 l3"), 7, Some(7));
    let plain = of_a(None, MeshConfig::default());
    assert_eq!((plain.connect_timeout, plain.outlier_detection), (Duration::from_secs(10), None));
    assert_eq!(
        (plain.load_balancer, plain.tls),
        (Algorithm::Simple(LoadBalancer::LeastRequest), ClientTls::Auto)
    );
}

#[test]
fn automatic_mutual_tls_ends_with_the_mesh_s_word_or_any_block() {
    let tls = |settings: TlsSettings| {
        Some(TrafficPolicy {
            blocks: TrafficBlocks { tls: Some(settings), ..TrafficBlocks::default() },
            ..TrafficPolicy::default()
        })
    };
    let check = |rule: Option<TrafficPolicy>, auto: Option<bool>, expected: &str| {
        let found = of_a(rule, MeshConfig { auto_mtls: auto, ..MeshConfig::default() });
        assert_eq!(found.tls.name(), expected, "{auto:?}");
    };
    check(None, None, "AUTO");
    check(None, Some(false), "DISABLE");
    check(tls(TlsSettings::default()), None, "DISABLE");
    let mutual = || TlsSettings { mode: TlsMode::IstioMutual, ..TlsSettings::default() };
    check(tls(mutual()), Some(false), "ISTIO_MUTUAL");
    check(Some(policy("t1 @80 l3")), None, "AUTO");
}

#[test]
fn what_endpoints_are_spoken_to_in() {
    let check = |name: &str, upgrade: H2Upgrade, as_client: bool, mesh: bool, expected: UpstreamProtocol| {
        let protocol = Protocol::select(None, name, 80);
        let pool = ConnectionPool {
            h2_upgrade: upgrade,
            use_client_protocol: as_client,
            ..ConnectionPool::default()
        };
        assert_eq!(upstream(protocol, &pool, mesh), expected, "{name} {upgrade:?} {as_client} {mesh}");
    };
    use H2Upgrade::{Default, DoNotUpgrade, Upgrade};
    use UpstreamProtocol::{AsClient, Http1, Http2, Opaque};
    check("http", Default, false, false, Http1);
    check("grpc-web", Default, false, false, Http1);
    check("http2", Default, false, false, Http2);
    check("grpc", Default, false, false, Http2);
    check("", Default, false, false, AsClient);
    check("tcp", Upgrade, false, true, Opaque);
    check("https", Default, false, true, Opaque);
    check("http", Default, false, true, Http2);
    check("http", DoNotUpgrade, false, true, Http1);
    check("http", Upgrade, false, false, Http2);
    // A rule may upgrade what is not declared; the mesh does not.
    check("", Upgrade, false, false, Http2);
    check("", Default, false, true, AsClient);
    check("http", Default, true, true, AsClient);
    check("grpc", Default, true, false, AsClient);
}

#[test]
fn a_service_without_endpoints_of_its_own_sends_traffic_where_it_was_sent() {
    let entry = |resolution: Resolution, target: TargetPort| {
        let mut entry = ServiceEntry {
            hosts: vec!["*.example".into()],
            ports: vec![Port { target, ..port("http:80") }],
            resolution,
            ..ServiceEntry::default()
        };
        if resolution == Resolution::Static {
            entry.hosts = vec!["a.example".into()];
        }
        declare("default/e", Spec::ServiceEntry(entry))
    };
    let shape = |host: &str| destination_rule("default/r", host, &[], Some(policy("l1 o1")));
    let check = |resolution: Resolution, target: TargetPort, passthrough: bool, port: Option<u16>| {
        let found = destinations(vec![entry(resolution, target), shape("*.example")]);
        assert_eq!(found.len(), 1);
        let found = &found[0];
        assert_eq!(found.load_balancer == Algorithm::Passthrough, passthrough, "{resolution:?}");
        assert_eq!((found.target_port, found.resolution), (port, resolution));
        assert!(found.outlier_detection.is_some());
    };
    check(Resolution::None, TargetPort::Same, true, None);
    check(Resolution::None, TargetPort::Number(8080), true, Some(8080));
    check(Resolution::DynamicDns, TargetPort::Number(8080), false, Some(8080));
    check(Resolution::Static, TargetPort::Number(8080), false, None);
}

#[test]
fn only_plain_turns_warm_up_and_nothing_is_preferred_where_nothing_is_chosen() {
    let warm =
        Warmup { duration: Duration::from_secs(60), minimum: Ratio::ZERO, aggression_thousandths: 1000 };
    let check = |algorithm: Algorithm, warms: bool, prefers: bool| {
        let balancing = LoadBalancerPolicy {
            algorithm: algorithm.clone(),
            locality: Some(LocalityPolicy::default()),
            warmup: Some(warm),
        };
        let blocks = TrafficBlocks {
            load_balancer: Some(balancing),
            outlier_detection: Some(OutlierDetection::default()),
            ..TrafficBlocks::default()
        };
        let found = of_a(Some(TrafficPolicy { blocks, ..TrafficPolicy::default() }), MeshConfig::default());
        let found = (found.warmup.is_some(), found.preference != Preference::None);
        assert_eq!(found, (warms, prefers), "{algorithm:?}");
    };
    check(Algorithm::Simple(LoadBalancer::RoundRobin), true, true);
    check(Algorithm::Simple(LoadBalancer::LeastRequest), true, true);
    check(Algorithm::Simple(LoadBalancer::Random), false, true);
    check(Algorithm::Passthrough, false, false);
    let hash = Algorithm::ConsistentHash { key: HashKey::SourceIp, table: HashTable::Maglev(65537) };
    check(hash, false, true);
    check(Algorithm::Utilization(Utilization::default()), false, true);
}

#[test]
fn every_port_has_every_subset_and_each_names_the_rule_that_shaped_it() {
    let subset = |name: &str, own: Option<TrafficPolicy>| Subset {
        name: name.into(),
        labels: labels("version=v1"),
        policy: own,
    };
    let rule = |id: &str, subsets: Vec<Subset>, own: Option<TrafficPolicy>| {
        let rule = DestinationRule { host: "a".into(), policy: own, subsets, ..DestinationRule::default() };
        declare(id, Spec::DestinationRule(Box::new(rule)))
    };
    let found = destinations(vec![
        service("default/a", &["http:80", "tcp:81"], "app=a"),
        rule("default/young@2", vec![subset("x", Some(policy("c2"))), subset("y", None)], Some(policy("l1"))),
        rule("default/old@1", vec![subset("x", None)], None),
    ]);
    let found = found.iter().filter(|found| found.key.scope.is_none()).map(|found| {
        let origin =
            found.origin.as_deref().map_or("-", |origin| &origin["destinationrule/default/".len()..]);
        let subset = found.key.subset.as_deref().unwrap_or("");
        format!("{}/{subset}={origin} {}", found.key.port, found.load_balancer.name())
    });
    let expected = [
        "80/=young RING_HASH",
        "80/x=old RING_HASH",
        "80/y=young RING_HASH",
        "81/=young RING_HASH",
        "81/x=old RING_HASH",
        "81/y=young RING_HASH",
    ];
    assert_eq!(found.collect::<Vec<_>>(), expected);
}

#[test]
fn a_service_says_which_endpoints_and_that_a_client_keeps_one() {
    let found = |rule: Option<TrafficPolicy>| {
        let mut declared = Resource::clone(&service("default/a", &["http:80"], "app=a"));
        if let Spec::Service(service) = &mut declared.spec {
            (service.client_affinity, service.node_local) = (true, true);
        }
        let mut resources = vec![Arc::new(declared)];
        resources.extend(rule.map(|policy| destination_rule("default/rule", "a", &[], Some(policy))));
        destinations(resources).remove(0)
    };
    let plain = found(None);
    let by_client = Algorithm::ConsistentHash { key: HashKey::SourceIp, table: HashTable::Ring(RING) };
    assert_eq!((plain.load_balancer, plain.node_local), (by_client, true));
    let LoadBalancerPolicy { algorithm, .. } = blocks("l7").load_balancer.unwrap();
    assert_eq!(found(Some(policy("l7"))).load_balancer, algorithm);
}
