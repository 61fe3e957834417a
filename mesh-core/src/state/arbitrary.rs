//! Random meshes for tests: resources of every kind over few names, so that they meet.

use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::sample::{
    declare, destination_rule, http_route, labels, node, peer_authentication, service, service_entry,
    virtual_service, workload,
};
use super::{Change, Registration};
use crate::policy::authorization::PolicyAction;
use crate::policy::mtls::MtlsMode;
use crate::resilience::pool::ConnectionPool;
use crate::resilience::ratelimit::Rate;
use crate::resource::destination_rule::{TrafficBlocks, TrafficPolicy};
use crate::resource::gateway::{Gateway, HostNamespace, Server, ServerHost, ServerTls, ServerTlsMode};
use crate::resource::kubernetes::{StaticAddress, StaticEndpoints, StaticSubset};
use crate::resource::mesh_config::{
    AccessLogEncoding, DefaultProviders, ExtensionProvider, MeshConfig, ProviderKind,
};
use crate::resource::rate_limit::{LimitTarget, RateLimit, TargetKind};
use crate::resource::reach::{Export, ExportTo, GatewayRef};
use crate::resource::security::{AuthorizationPolicy, RequestAuthentication};
use crate::resource::service::{Location, Resolution, ServiceForm};
use crate::resource::sidecar::{
    Egress, EgressHost, EgressNamespace, OutboundMode, OutboundPolicy, Sidecar, SidecarPort,
};
use crate::resource::telemetry::{
    AccessLogging, MetricChoice, MetricOverride, Metrics, TagOverride, Telemetry, TelemetryMode, Tracing,
};
use crate::resource::virtual_service::HttpAction;
use crate::resource::{Resource, Spec};
use crate::routing::limit::{Counts, Limit, Tell, Terms};
use crate::telemetry::expression::Expression;
use crate::telemetry::logs::{Format, Sink};
use crate::telemetry::metrics::Metric;
use crate::telemetry::tracing::{Collector, Transport};
use crate::vocab::health::{Health, HostStanding};
use crate::vocab::name::{Text, WorkloadKey};
use crate::vocab::protocol::Protocol;
use crate::vocab::ratio::Ratio;

const NAMESPACES: &[&str] = &["default", "prod", "istio-system"];
const LABELS: &[&str] = &["app=a", "app=b", "app=a,version=v1", "version=v2", ""];
const ADDRESSES: &[&str] = &["10.0.0.1", "10.0.0.2", "10.0.0.3"];
const PORTS: &[&str] = &["http:80", "tcp:81:8081", "auto:82:named", "grpc:83"];
const HOSTS: &[&str] = &[
    "a",
    "b",
    "a.prod.svc.cluster.local",
    "ext.example",
    "*.example",
    "*.svc.cluster.local",
    "*",
    "nowhere.org",
];

fn id(names: &'static [&'static str]) -> impl Strategy<Value = String> {
    (select(NAMESPACES), select(names), 0..3_u64)
        .prop_map(|(namespace, name, created)| format!("{namespace}/{name}@{created}"))
}

/// Mostly the default of the mesh.
fn an_export() -> impl Strategy<Value = ExportTo> {
    let entries = [
        vec![],
        vec![],
        vec![],
        vec![Export::Own],
        vec![Export::All],
        vec![Export::Namespace("prod".into())],
        vec![Export::Namespace("default".into()), Export::Own],
        vec![Export::Nobody],
    ];
    select(entries.to_vec()).prop_map(|entries| ExportTo { entries })
}

fn some_ports() -> impl Strategy<Value = Vec<&'static str>> {
    subsequence(PORTS, 1..=3)
}

fn a_service() -> impl Strategy<Value = Arc<Resource>> {
    let alias = proptest::option::weighted(0.2, select(HOSTS));
    (id(&["a", "b"]), some_ports(), select(LABELS), an_export(), alias).prop_map(
        |(id, ports, selector, export_to, alias)| {
            let mut resource = service(&id, &ports, selector);
            if let Spec::Service(service) = &mut Arc::make_mut(&mut resource).spec {
                service.export_to = export_to;
                if let Some(host) = alias {
                    service.form = ServiceForm::ExternalName(host.into());
                }
            }
            resource
        },
    )
}

/// Some of these names are those of endpoints of `a_service_entry`.
fn an_entry() -> impl Strategy<Value = Arc<Resource>> {
    let names = &["w1", "w2", "se-0", "se-1"];
    (id(names), select(ADDRESSES), select(LABELS), 1..3_u32).prop_map(|(id, address, labels, weight)| {
        let mut entry = workload(address, labels);
        entry.weight = weight;
        entry.ports.insert("named".into(), 9000);
        declare(&id, Spec::WorkloadEntry(entry))
    })
}

fn a_service_entry() -> impl Strategy<Value = Arc<Resource>> {
    let endpoints = vec((select(ADDRESSES), select(LABELS)), 0..3);
    let hosts = select(&["ext.example", "a.prod.svc.cluster.local", "*.example"][..]);
    let resolutions = vec![Resolution::Static, Resolution::Static, Resolution::Dns, Resolution::None];
    let kind = (select(resolutions), any::<bool>());
    let selector = proptest::option::of(select(LABELS));
    (id(&["se", "sf"]), hosts, some_ports(), endpoints, kind, selector, an_export()).prop_map(
        |(id, host, ports, endpoints, (resolution, internal), selector, export_to)| {
            let endpoints = endpoints.into_iter().map(|(address, labels)| workload(address, labels));
            let mut entry = service_entry(host, &ports, endpoints.collect());
            if internal {
                entry.location = Location::Internal;
            }
            entry.workload_selector = selector.map(labels);
            entry.resolution = resolution;
            entry.export_to = export_to;
            declare(&id, Spec::ServiceEntry(entry))
        },
    )
}

fn a_virtual_service() -> impl Strategy<Value = Arc<Resource>> {
    let destination =
        select(&["a", "b/v1*10", "ext.example*90", "a.prod.svc.cluster.local:80", "a:82*1"][..]);
    let prefix = proptest::option::of(select(&["/x", "/y"][..]));
    let port = proptest::option::of(select(&[80_u16, 82, 9][..]));
    let route = (prefix, port, vec(destination, 1..3))
        .prop_map(|(prefix, port, destinations)| http_route(prefix, port, &destinations));
    let gateways =
        subsequence(vec![GatewayRef::Mesh, gateway_ref("default", "g"), gateway_ref("prod", "g")], 0..3);
    let delegation = proptest::option::weighted(0.2, select(NAMESPACES));
    let hosts = prop_oneof![5 => subsequence(HOSTS, 1..3), 1 => Just(Vec::new())];
    (id(&["v", "w"]), hosts, vec(route, 0..3), gateways, delegation, an_export()).prop_map(
        |(id, hosts, mut routes, gateways, delegation, export_to)| {
            if let Some(namespace) = delegation {
                let mut route = http_route(Some("/x"), None, &["a"]);
                let (namespace, name, rewrite) = (namespace.into(), "w".into(), Default::default());
                route.action = HttpAction::Delegate { namespace, name, rewrite };
                routes.insert(0, route);
            }
            let mut resource = virtual_service(&id, &hosts, routes);
            if let Spec::VirtualService(rules) = &mut Arc::make_mut(&mut resource).spec {
                (rules.gateways, rules.export_to) = (gateways, export_to);
            }
            resource
        },
    )
}

fn gateway_ref(namespace: &str, name: &str) -> GatewayRef {
    GatewayRef::Named { namespace: namespace.into(), name: name.into() }
}

fn a_destination_rule() -> impl Strategy<Value = Arc<Resource>> {
    let policy = proptest::option::of(any::<bool>().prop_map(|_| {
        let blocks = TrafficBlocks {
            load_balancer: Some(Default::default()),
            connection_pool: Some(ConnectionPool { max_connections: Some(9), ..ConnectionPool::default() }),
            ..TrafficBlocks::default()
        };
        TrafficPolicy { blocks, ..TrafficPolicy::default() }
    }));
    let selector = proptest::option::weighted(0.2, select(LABELS));
    (id(&["d", "e"]), select(HOSTS), subsequence(&["v1", "v2"][..], 0..=2), policy, selector, an_export())
        .prop_map(|(id, host, subsets, policy, selector, export_to)| {
            let mut resource = destination_rule(&id, host, &subsets, policy);
            if let Spec::DestinationRule(rule) = &mut Arc::make_mut(&mut resource).spec {
                (rule.workload_selector, rule.export_to) = (selector.map(labels), export_to);
            }
            resource
        })
}

fn a_policy() -> impl Strategy<Value = Arc<Resource>> {
    let selector = proptest::option::of(select(LABELS));
    let mode = proptest::option::of(select(&[MtlsMode::Disable, MtlsMode::Strict][..]));
    (id(&["p", "q"]), selector, mode, any::<bool>()).prop_map(|(id, selector, mode, peer)| {
        if peer {
            return peer_authentication(&id, selector, mode, &[(80, Some(MtlsMode::Disable))]);
        }
        let action = mode.map_or(PolicyAction::Allow, |_| PolicyAction::Deny);
        let policy =
            AuthorizationPolicy { selector: selector.map(labels), action, ..AuthorizationPolicy::default() };
        declare(&id, Spec::AuthorizationPolicy(policy))
    })
}

fn a_sidecar() -> impl Strategy<Value = Arc<Resource>> {
    let imported = |(own, host, excluded): (usize, &str, bool)| EgressHost {
        excluded,
        namespace: [
            EgressNamespace::All,
            EgressNamespace::Own,
            EgressNamespace::Named("prod".into()),
            EgressNamespace::Nobody,
        ][own]
            .clone(),
        host: host.into(),
    };
    let hosts = vec(
        (
            0..4_usize,
            select(&["*", "*.example", "a.prod.svc.cluster.local"][..]),
            proptest::bool::weighted(0.2),
        ),
        1..3,
    );
    let egress = (proptest::option::of(Just(80_u16)), hosts).prop_map(move |(port, hosts)| Egress {
        port: port.map(|number| SidecarPort { number, name: "p".into(), protocol: Protocol::Http }),
        bind: None,
        is_proxy: false,
        capture: Default::default(),
        hosts: hosts.into_iter().map(imported).collect(),
    });
    let egress = proptest::option::of(vec(egress, 1..3));
    let mode = proptest::option::of(select(&[OutboundMode::AllowAny, OutboundMode::RegistryOnly][..]));
    (id(&["s", "t"]), proptest::option::of(select(LABELS)), egress, mode, any::<bool>()).prop_map(
        |(id, selector, egress, mode, pooled)| {
            let outbound = mode.map(|mode| OutboundPolicy { mode, egress_proxy: None });
            let limited = ConnectionPool { max_connections: Some(7), ..ConnectionPool::default() };
            let inbound_connection_pool = pooled.then_some(limited);
            let selector = selector.map(labels);
            let sidecar =
                Sidecar { selector, egress, outbound, inbound_connection_pool, ..Sidecar::default() };
            declare(&id, Spec::Sidecar(sidecar))
        },
    )
}

fn a_gateway() -> impl Strategy<Value = Arc<Resource>> {
    let protocols = &[Protocol::Http, Protocol::Https, Protocol::Tls, Protocol::Tcp][..];
    let modes = &[ServerTlsMode::Simple, ServerTlsMode::Passthrough, ServerTlsMode::AutoPassthrough][..];
    let hosts = select(&["*", "*.example", "ext.example"][..]);
    let server = (select(&[80_u16, 443][..]), select(protocols), select(modes), hosts, any::<bool>())
        .prop_map(|(port, protocol, mode, host, own)| Server {
            name: None,
            port,
            port_name: "p".into(),
            protocol,
            bind: None,
            hosts: vec![ServerHost {
                namespace: if own { HostNamespace::Own } else { HostNamespace::All },
                host: host.into(),
            }],
            tls: Some(ServerTls { mode, https_redirect: own, ..ServerTls::default() }),
        });
    (id(&["g", "h"]), select(LABELS), vec(server, 1..3)).prop_map(|(id, selector, servers)| {
        declare(&id, Spec::Gateway(Gateway { selector: labels(selector), servers }))
    })
}

fn a_telemetry() -> impl Strategy<Value = Arc<Resource>> {
    let modes = &[TelemetryMode::ClientAndServer, TelemetryMode::Client, TelemetryMode::Server][..];
    let providers = subsequence(&["prometheus", "envoy", "log", "otel", "nobody"][..], 0..3);
    let selector = proptest::option::of(select(LABELS));
    let disabled = proptest::option::of(any::<bool>());
    let metrics = &[MetricChoice::Each, MetricChoice::All, MetricChoice::One(Metric::RequestCount)][..];
    (id(&["t", "u"]), selector, select(modes), providers, disabled, select(metrics), 0..101_u32).prop_map(
        |(id, selector, mode, providers, disabled, metric, percent)| {
            let providers: Vec<Text> = providers.into_iter().map(Text::from).collect();
            let expression = Expression::new("response.code >= 400").ok();
            let tag = expression.clone().map(|expression| ("code".into(), TagOverride::Upsert(expression)));
            let change = MetricOverride { metric, mode, disabled, tags: tag.into_iter().collect() };
            let telemetry = Telemetry {
                selector: selector.map(labels),
                targets: Vec::new(),
                metrics: vec![Metrics {
                    providers: providers.clone(),
                    overrides: vec![change],
                    reporting_interval: None,
                }],
                access_logging: vec![AccessLogging {
                    mode,
                    providers: providers.clone(),
                    disabled,
                    filter: expression,
                }],
                tracing: vec![Tracing {
                    mode,
                    providers,
                    sampling: Ratio::from_percent(f64::from(percent)),
                    ..Tracing::default()
                }],
            };
            declare(&id, Spec::Telemetry(telemetry))
        },
    )
}

/// What a MeshConfig says of telemetry.
fn a_mesh_of_telemetry() -> impl Strategy<Value = MeshConfig> {
    let file = proptest::option::of(select(&["", "/dev/stdout"][..]));
    let default = subsequence(&["log", "otel", "envoy"][..], 0..2);
    (file, default, any::<bool>(), proptest::option::of(any::<bool>())).prop_map(
        |(file, default, json, traces)| {
            let collector = Collector {
                service: "otel.svc".into(),
                port: 4317,
                transport: Transport::Grpc,
                headers: Vec::new(),
                timeout: Duration::from_secs(1),
            };
            let sink = Sink::File { path: "/log".into(), format: Format::Text(None) };
            let default: Vec<Text> = default.into_iter().map(Text::from).collect();
            MeshConfig {
                access_log_file: file.map(Text::from),
                access_log_encoding: if json { AccessLogEncoding::Json } else { AccessLogEncoding::Text },
                providers: vec![
                    ExtensionProvider { name: "log".into(), kind: ProviderKind::Log(sink) },
                    ExtensionProvider { name: "otel".into(), kind: ProviderKind::Traces(collector) },
                ],
                default_providers: DefaultProviders {
                    metrics: Vec::new(),
                    access_logging: default.clone(),
                    tracing: default,
                },
                enable_tracing: traces,
                ..MeshConfig::default()
            }
        },
    )
}

fn a_mesh_config() -> impl Strategy<Value = Arc<Resource>> {
    let domain = proptest::option::of(select(&["cluster.local", "other.org"][..]));
    let root = proptest::option::of(select(&["istio-system", "prod"][..]));
    (id(&["m"]), domain, root, an_export(), any::<bool>(), a_mesh_of_telemetry()).prop_map(
        |(id, domain, root, export_to, registry, telemetry)| {
            let config = MeshConfig {
                trust_domain: domain.map(Text::from),
                root_namespace: root.map(Text::from),
                outbound: registry.then_some(OutboundMode::RegistryOnly),
                virtual_service_export_to: export_to.clone(),
                destination_rule_export_to: export_to,
                ..telemetry
            };
            declare(&id, Spec::MeshConfig(Box::new(config)))
        },
    )
}

fn endpoints() -> impl Strategy<Value = Arc<Resource>> {
    (id(&["a", "b"]), select(ADDRESSES), any::<bool>()).prop_map(|(id, address, ready)| {
        let ip = address.parse().unwrap();
        let address = StaticAddress { ip, ready, zone: None, node: None };
        let subsets = vec![StaticSubset { addresses: vec![address], ports: vec![("http".into(), 8080)] }];
        let name = id.split(['/', '@']).nth(1).unwrap().into();
        declare(&id, Spec::Endpoints(StaticEndpoints { service: name, subsets }))
    })
}

fn a_request_authentication() -> impl Strategy<Value = Arc<Resource>> {
    (id(&["r", "q"]), proptest::option::of(select(LABELS))).prop_map(|(id, selector)| {
        let selector = selector.map(labels);
        declare(&id, Spec::RequestAuthentication(RequestAuthentication { selector, ..Default::default() }))
    })
}

fn a_rate_limit() -> impl Strategy<Value = Arc<Resource>> {
    let kinds = select(&[TargetKind::Service, TargetKind::VirtualService][..]);
    let target = (kinds, select(&["a", "b"][..]), proptest::option::of(select(&["http", "named"][..])));
    let target = target.prop_map(|(kind, name, section)| LimitTarget {
        kind,
        name: name.into(),
        section: section.map(Text::from),
    });
    (id(&["a", "b"]), select(LABELS), vec(target, 0..3), 1..3_u32).prop_map(
        |(id, selector, targets, requests)| {
            let rate = Rate::new(requests, Duration::from_secs(1), 1).expect("a valid rate");
            let limit = Limit { name: "all".into(), rate, key: vec![], counts: Counts::default() };
            let terms = Terms {
                shared: false,
                limits: vec![limit],
                status: 429,
                tell: Tell::Refused,
                dry_run: false,
            };
            let selector = Some(labels(selector)).filter(|labels| !labels.is_empty());
            declare(&id, Spec::RateLimit(RateLimit { selector, targets, terms }))
        },
    )
}

pub(crate) fn a_resource() -> impl Strategy<Value = Arc<Resource>> {
    prop_oneof![
        3 => a_service(),
        3 => an_entry(),
        2 => a_service_entry(),
        3 => a_virtual_service(),
        3 => a_destination_rule(),
        2 => a_policy(),
        2 => a_sidecar(),
        2 => a_gateway(),
        1 => a_mesh_config(),
        2 => a_telemetry(),
        1 => endpoints(),
        1 => a_request_authentication(),
        1 => a_rate_limit(),
    ]
}

pub(crate) fn a_registration() -> impl Strategy<Value = Registration> {
    let health = select(&[Health::Healthy, Health::Unhealthy, Health::Unknown][..]);
    (
        select(&["h1", "h2", "h3"][..]),
        select(ADDRESSES),
        vec(an_entry(), 0..3),
        vec(a_service(), 0..2),
        vec((an_entry(), health), 0..3),
        proptest::option::weighted(
            0.2,
            select(&[HostStanding::Drained, HostStanding::Leaves, HostStanding::Away][..]),
        ),
    )
        .prop_map(|(name, address, workloads, services, health, standing)| {
            let mut registration = node(name, address, workloads);
            registration.services = services;
            registration.standing = standing.unwrap_or(HostStanding::Serves);
            for (resource, health) in health {
                let key = &resource.meta.key;
                let key = WorkloadKey { namespace: key.namespace.clone(), name: key.name.clone() };
                registration.health.insert(key, (health, health.name().into()));
            }
            registration
        })
}

pub(crate) fn a_change() -> impl Strategy<Value = Change> {
    (
        vec(a_resource(), 0..5),
        vec(a_resource(), 0..4),
        vec((a_registration(), proptest::bool::weighted(0.7)), 0..2),
        vec((select(&["ext.example", "a.prod.svc.cluster.local"][..]), 0..9_u32), 0..2),
        proptest::option::weighted(0.1, vec(any::<u8>(), 3)),
    )
        .prop_map(|(upserts, removals, registrations, offsets, root)| Change {
            upserts,
            removals: removals.iter().map(|resource| resource.meta.key.clone()).collect(),
            registrations: registrations
                .into_iter()
                .map(|(registration, stays)| (registration.node.clone(), stays.then_some(registration)))
                .collect(),
            offsets: offsets.into_iter().map(|(host, offset)| (Text::from(host), offset)).collect(),
            revoked: root.as_ref().map(|root| vec![[root[0]; 8]]),
            roots: root.map(|root| vec![root]),
            keys: Vec::new(),
        })
}
