//! Random sections for the tests: every kind and every variant, drawn from a seed.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use mesh_core::balancing::balancer::LoadBalancer;
use mesh_core::balancing::locality::{Distribute, Preference};
use mesh_core::balancing::policy::{Algorithm, HashKey, HashTable, Warmup};
use mesh_core::balancing::utilization::Utilization;
use mesh_core::matching::path::PathMatch;
use mesh_core::matching::pseudo::Pseudo;
use mesh_core::matching::request::RequestMatch;
use mesh_core::matching::scope::{EgressListener, Import};
use mesh_core::matching::text::{Pattern, TextMatch};
use mesh_core::message::path::Normalization;
use mesh_core::policy::authorization::{
    AuthorizationPolicy, AuthorizationRule, Condition, Operation, PolicyAction, Source, Values,
};
use mesh_core::policy::external::{Authorizer, Provider};
use mesh_core::policy::jwt::{JwtRule, Keys, TokenPolicy};
use mesh_core::policy::mtls::{
    ClientCertificate, ClientTls, CredentialKey, MtlsMode, MtlsPolicy, ServerNames, ServerRoots,
    TlsOrigination,
};
use mesh_core::resilience::connection_fault::{ConnectionFault, ConnectionFaultKind};
use mesh_core::resilience::fault::{AbortStatus, FaultPolicy};
use mesh_core::resilience::hedge::Hedge;
use mesh_core::resilience::outlier::OutlierDetection;
use mesh_core::resilience::pool::{ConnectionPool, H2Upgrade, PoolLimits, RetryBudget, TcpKeepalive};
use mesh_core::resilience::ratelimit::Rate;
use mesh_core::resilience::retry::{RetryCondition, RetryPolicy};
use mesh_core::routing::cors::{CorsPolicy, UnmatchedPreflights};
use mesh_core::routing::format::Template;
use mesh_core::routing::header::HeaderOperations;
use mesh_core::routing::limit::{Counts, KeyPart, Limit, RateLimit, Tell, Terms};
use mesh_core::routing::mirror::Mirror;
use mesh_core::routing::rewrite::{PathRewrite, Redirect, RedirectPort, Rewrite};
use mesh_core::routing::rule::{Backend, DirectResponse, HttpRule, RuleAction, StreamMatch, TcpRule};
use mesh_core::snapshot::credential::{Credential, Pem};
use mesh_core::snapshot::destination::Destination;
use mesh_core::snapshot::endpoints::{Endpoint, EndpointAddress, EndpointSlice};
use mesh_core::snapshot::gateway::{Gateway, GatewayListener, GatewayServer, GatewayTls, VirtualHost};
use mesh_core::snapshot::routes::{Fallback, Routes};
use mesh_core::snapshot::section::Section;
use mesh_core::snapshot::security::TrustBundle;
use mesh_core::snapshot::service::{Port, Service};
use mesh_core::snapshot::view::{Bind, BoundListener, Outbound, View};
use mesh_core::snapshot::workload::{Recognition, Workload, WorkloadPort};
use mesh_core::snapshot::{Entry, Snapshot, Version};
use mesh_core::telemetry::expression::Expression;
use mesh_core::telemetry::logs::{Format, Log, Logs, Sink};
use mesh_core::telemetry::metrics::{Metric, MetricChange, Metrics, TagChange};
use mesh_core::telemetry::tracing::{Collector, TagValue, Tracing, Transport};
use mesh_core::telemetry::{Side, Telemetry};
use mesh_core::vocab::health::{Health, Probe, ProbeAction};
use mesh_core::vocab::identity::{SpiffeId, TrustDomain};
use mesh_core::vocab::label::Labels;
use mesh_core::vocab::locality::Locality;
use mesh_core::vocab::name::{DestinationKey, ServicePort, Text, WorkloadKey};
use mesh_core::vocab::origin::Origin;
use mesh_core::vocab::protocol::{Protocol, UpstreamProtocol};
use mesh_core::vocab::random::Random;
use mesh_core::vocab::ratio::Ratio;
use mesh_core::vocab::recognition::User;
use mesh_core::vocab::resolution::Resolution;
use mesh_core::vocab::tunnel::Tunnel;
use proptest::prelude::*;

/// Any section.
pub(crate) fn section() -> impl Strategy<Value = Section> {
    any::<u64>().prop_map(|seed| Draw(Random::seeded(seed)).section())
}

/// Any snapshot.
pub(crate) fn snapshot() -> impl Strategy<Value = Snapshot> {
    let version = any::<(u64, u64)>().prop_map(|(number, revision)| Version { number, revision });
    (version, prop::collection::vec(section(), 0..6)).prop_map(|(version, sections)| Snapshot {
        version,
        sections: sections.into_iter().map(|section| (section.key(), Entry::new(section))).collect(),
    })
}

/// One small section.
pub(crate) fn trust() -> Section {
    Draw(Random::seeded(0)).trust()
}

struct Draw(Random);

impl Draw {
    fn below(&mut self, bound: usize) -> usize {
        self.0.below(bound as u64) as usize
    }

    fn flag(&mut self) -> bool {
        self.below(2) == 0
    }

    fn number(&mut self) -> u32 {
        self.0.bits() as u32
    }

    fn short(&mut self) -> u16 {
        self.0.bits() as u16
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    fn option<T>(&mut self, draw: impl FnOnce(&mut Draw) -> T) -> Option<T> {
        self.flag().then(|| draw(self))
    }

    fn list<T>(&mut self, mut draw: impl FnMut(&mut Draw) -> T) -> Vec<T> {
        (0..self.below(4)).map(|_| draw(self)).collect()
    }

    fn text(&mut self) -> Text {
        self.one(&["", "a", "reviews.default.svc.cluster.local", "*.example.com", "ü", "x y/z", "\0"]).into()
    }

    fn bytes(&mut self) -> Vec<u8> {
        self.list(|d| d.0.bits() as u8)
    }

    fn duration(&mut self) -> Duration {
        let any = Duration::new(self.0.bits(), self.number() % 1_000_000_000);
        self.one(&[Duration::ZERO, Duration::from_millis(25), Duration::MAX, any])
    }

    fn ratio(&mut self) -> Ratio {
        Ratio::from_ppm(self.number() % 1_000_001).unwrap()
    }

    fn labels(&mut self) -> Labels {
        self.list(|d| (d.text(), d.text())).into_iter().collect()
    }

    fn address(&mut self) -> std::net::IpAddr {
        match self.flag() {
            true => self.number().to_be_bytes().into(),
            false => u128::from(self.0.bits()).to_le_bytes().into(),
        }
    }

    fn identity(&mut self) -> SpiffeId {
        let text = ["spiffe://cluster.local/ns/default/sa/a", "spiffe://td/mesh/node/h1", "spiffe://a.b/x"];
        SpiffeId::parse(self.one(&text)).unwrap()
    }

    fn origin(&mut self) -> Origin {
        Origin { resource: self.text(), rule: self.option(Draw::number) }
    }

    fn protocol(&mut self) -> Protocol {
        use Protocol as P;
        self.one(&[P::Auto, P::Http, P::Http2, P::Grpc, P::GrpcWeb, P::Https, P::Tls, P::Tcp, P::Udp])
    }

    fn workload_key(&mut self) -> WorkloadKey {
        WorkloadKey { namespace: self.text(), name: self.text() }
    }

    fn section(&mut self) -> Section {
        match self.below(12) {
            0 => self.trust(),
            1 => Section::Service(self.service()),
            2 => Section::Routes(self.routes()),
            3 => Section::Destination(self.destination()),
            4 => Section::Endpoints(EndpointSlice {
                host: self.text(),
                scope: self.option(Draw::text),
                slice: self.number(),
                endpoints: self.list(Draw::endpoint),
            }),
            5 => Section::Authorization(self.policy()),
            6 => Section::Tokens(self.tokens()),
            7 => Section::View(self.view()),
            8 => Section::Gateway(self.gateway()),
            9 => Section::Credential(Credential {
                key: match self.flag() {
                    true => CredentialKey::Shown(self.text()),
                    false => CredentialKey::Authority(self.text()),
                },
                certificates: Pem(self.bytes()),
                other: Pem(self.bytes()),
            }),
            10 => Section::Telemetry(self.telemetry()),
            _ => Section::Workload(self.workload()),
        }
    }

    fn telemetry(&mut self) -> Telemetry {
        Telemetry { client: self.side(), server: self.side() }
    }

    fn side(&mut self) -> Side {
        let logs = match self.flag() {
            true => Logs::AsStarted,
            false => Logs::These(self.list(Draw::log)),
        };
        Side { metrics: self.metrics(), logs, tracing: self.tracing() }
    }

    fn expression(&mut self) -> Expression {
        Expression::new(self.one(&["request.host", "response.code >= 400", "'a'"])).unwrap()
    }

    fn metrics(&mut self) -> Metrics {
        let changes = self.list(|d| {
            let tags = d.list(|d| {
                let change = match d.flag() {
                    true => TagChange::Remove,
                    false => TagChange::Set(d.expression()),
                };
                (d.text(), change)
            });
            let change = MetricChange { disabled: d.flag(), tags: tags.into_iter().collect() };
            (d.one(&Metric::ALL), change)
        });
        let changes = changes.into_iter().collect();
        Metrics { enabled: self.flag(), changes, reporting_interval: self.duration() }
    }

    fn log(&mut self) -> Log {
        let sink = match self.below(3) {
            0 => Sink::File { path: self.text(), format: Format::Text(self.option(Draw::text)) },
            1 => {
                let format = Format::Json(self.option(|d| d.list(Draw::pair)));
                Sink::File { path: self.text(), format }
            }
            _ => Sink::Otlp {
                collector: self.collector(),
                name: self.text(),
                body: self.option(Draw::text),
                attributes: self.list(Draw::pair),
            },
        };
        Log { provider: self.text(), sink, filter: self.option(Draw::expression), origin: self.text() }
    }

    fn collector(&mut self) -> Collector {
        Collector {
            service: self.text(),
            port: self.short(),
            transport: match self.flag() {
                true => Transport::Grpc,
                false => Transport::Http(self.text()),
            },
            headers: self.list(Draw::pair),
            timeout: self.duration(),
        }
    }

    fn tracing(&mut self) -> Tracing {
        Tracing {
            provider: self.option(Draw::text),
            origin: self.option(Draw::text),
            collector: self.option(Draw::collector),
            report: self.flag(),
            propagate: self.flag(),
            sampling: self.option(Draw::ratio),
            istio_tags: self.flag(),
            use_request_id: self.flag(),
            tags: self.list(|d| {
                let value = match d.below(4) {
                    0 => TagValue::Literal(d.text()),
                    1 => TagValue::Environment(d.text(), d.text()),
                    2 => TagValue::Header(d.text(), d.text()),
                    _ => TagValue::Format(d.text()),
                };
                (d.text(), value)
            }),
        }
    }

    fn trust(&mut self) -> Section {
        let domain = TrustDomain::new(self.one(&["cluster.local", "td"])).unwrap();
        use Normalization as N;
        Section::Trust(TrustBundle {
            domain,
            roots: self.list(Draw::bytes),
            aliases: self.list(|d| TrustDomain::new(d.one(&["old.example", "td"])).unwrap()),
            normalization: self.one(&[N::None, N::Base, N::MergeSlashes, N::DecodeAndMergeSlashes]),
            revoked: self.list(|d| u64::from(d.number()).to_be_bytes()),
        })
    }

    fn routes(&mut self) -> Routes {
        Routes {
            at: ServicePort { host: self.text(), port: self.short() },
            scope: self.option(Draw::text),
            origin: self.option(Draw::text),
            http: self.list(Draw::http_rule),
            tcp: self.list(Draw::tcp_rule),
            tls: self.list(Draw::tcp_rule),
            fallback: self.option(|d| Box::new(Fallback { http: d.http_rule(), stream: d.tcp_rule() })),
        }
    }

    fn resolution(&mut self) -> Resolution {
        use Resolution as R;
        self.one(&[R::None, R::Static, R::Dns, R::DnsRoundRobin, R::DynamicDns])
    }

    fn pair(&mut self) -> (Text, Text) {
        (self.text(), self.text())
    }

    fn network(&mut self) -> ipnet::IpNet {
        self.one(&["10.1.2.3/8", "0.0.0.0/0", "fd00::1/64"]).parse().unwrap()
    }

    fn tokens(&mut self) -> TokenPolicy {
        TokenPolicy {
            namespace: self.text(),
            name: self.text(),
            rules: self.list(|d| JwtRule {
                issuer: d.option(Draw::text),
                audiences: d.list(Draw::text),
                keys: match d.below(3) {
                    0 => Keys::Inline(d.text()),
                    1 => Keys::Uri(d.text()),
                    _ => Keys::Discovery,
                },
                from_headers: d.list(Draw::pair),
                from_params: d.list(Draw::text),
                from_cookies: d.list(Draw::text),
                payload_header: d.option(Draw::text),
                claim_headers: d.list(Draw::pair),
                forward_original: d.flag(),
                space_delimited: d.list(Draw::text),
                timeout: d.option(Draw::duration),
                required: d.flag(),
            }),
        }
    }

    fn view(&mut self) -> View {
        View {
            key: self.text(),
            namespace: self.text(),
            origin: self.option(Draw::text),
            egress: self.option(|d| {
                d.list(|d| EgressListener {
                    port: d.option(Draw::short),
                    imports: d.list(|d| Import {
                        excluded: d.flag(),
                        namespace: d.option(Draw::text),
                        host: d.text(),
                    }),
                })
            }),
            bound: self.list(|d| BoundListener {
                at: match d.flag() {
                    true => Bind::Unix(d.text()),
                    false => Bind::Ip(std::net::SocketAddr::new(d.address(), d.short())),
                },
                protocol: d.protocol(),
                port: d.option(Draw::short),
                listener: usize::from(d.short()),
            }),
            outbound: match self.flag() {
                true => Outbound::Refuse,
                false => Outbound::Allow(self.option(Draw::backend)),
            },
            connect_timeout: self.option(Draw::duration),
        }
    }

    fn virtual_host(&mut self) -> VirtualHost {
        VirtualHost { routes: self.routes(), https_redirect: self.flag() }
    }

    fn gateway(&mut self) -> Gateway {
        use GatewayTls as T;
        Gateway {
            namespace: self.text(),
            name: self.text(),
            workload: self.option(Draw::workload_key),
            workload_namespace: self.text(),
            labels: self.labels(),
            selector: self.labels(),
            policies: self.list(Draw::pair),
            tokens: self.list(Draw::pair),
            identity: self.option(Draw::identity),
            view: self.text(),
            trusted_proxies: self.number(),
            listeners: self.list(|d| GatewayListener {
                port: d.short(),
                servers: d.list(|d| GatewayServer {
                    origin: d.text(),
                    index: d.number(),
                    protocol: d.protocol(),
                    tls: d.one(&[
                        T::None,
                        T::Passthrough,
                        T::AutoPassthrough,
                        T::Simple,
                        T::Mutual,
                        T::OptionalMutual,
                        T::IstioMutual,
                    ]),
                    https_redirect: d.flag(),
                    hosts: d.list(Draw::text),
                    credentials: d.list(Draw::text),
                    virtual_hosts: d.list(Draw::virtual_host),
                    streams: d.routes(),
                }),
                virtual_hosts: d.list(Draw::virtual_host),
                dropped: d.list(Draw::pair),
            }),
        }
    }

    fn service(&mut self) -> Service {
        Service {
            scope: self.option(Draw::text),
            exported_to: self.option(|d| d.list(Draw::text)),
            aliases: self.list(Draw::pair),
            networks: self.list(Draw::network),
            auto_address: self.option(Draw::address),
            resolution: self.resolution(),
            headless: self.flag(),
            stands_for: self.option(Draw::text),
            host: self.text(),
            namespace: self.text(),
            origin: self.origin(),
            names: self.list(Draw::text),
            short_name: self.option(Draw::text),
            ports: self.list(|d| Port { number: d.short(), name: d.text(), protocol: d.protocol() }),
            addresses: self.list(Draw::address),
            offset: self.option(Draw::number),
            external: self.flag(),
        }
    }

    fn destination(&mut self) -> Destination {
        Destination {
            node_local: self.flag(),
            resolution: self.resolution(),
            target_port: self.option(Draw::short),
            preference: self.preference(),
            warmup: self.option(|d| Warmup {
                duration: d.duration(),
                minimum: d.ratio(),
                aggression_thousandths: d.number(),
            }),
            pool: self.limits(),
            outlier_detection: self.option(|d| OutlierDetection {
                consecutive_5xx: d.number(),
                consecutive_gateway: d.number(),
                split_local_origin: d.flag(),
                consecutive_local_origin: d.number(),
                interval: d.duration(),
                base_ejection_time: d.duration(),
                max_ejection_percent: d.number(),
                min_health_percent: d.number(),
                http_error_codes: d.list(Draw::short),
            }),
            retry_budget: self.option(|d| RetryBudget { share: d.ratio(), min_concurrency: d.number() }),
            fault: self.option(|d| ConnectionFault {
                kind: match d.one(&[0, 1, 2, 3]) {
                    0 => ConnectionFaultKind::Reset { after: u64::from(d.number()) },
                    1 => ConnectionFaultKind::Blackhole,
                    2 => ConnectionFaultKind::Bandwidth(u64::from(d.number())),
                    _ => ConnectionFaultKind::Latency(d.duration()),
                },
                share: d.ratio(),
                until: u64::from(d.number()),
            }),
            tunnel: self.option(|d| Tunnel { post: d.flag(), host: d.text(), port: d.short() }),
            proxy_protocol: self.option(|d| d.one(&[1, 2])),
            upstream: self.one(&[
                UpstreamProtocol::Http1,
                UpstreamProtocol::Http2,
                UpstreamProtocol::AsClient,
                UpstreamProtocol::Opaque,
            ]),
            key: DestinationKey {
                host: self.text(),
                port: self.short(),
                subset: self.option(Draw::text),
                scope: self.option(Draw::text),
            },
            origin: self.option(Draw::text),
            protocol: self.protocol(),
            labels: self.labels(),
            load_balancer: self.algorithm(),
            tls: self.client_tls(),
            connect_timeout: self.duration(),
        }
    }

    fn algorithm(&mut self) -> Algorithm {
        use LoadBalancer as B;
        match self.below(4) {
            0 => Algorithm::Simple(self.one(&[B::RoundRobin, B::LeastRequest, B::Random])),
            1 => Algorithm::Passthrough,
            2 => Algorithm::Utilization(Utilization {
                error_penalty_percent: self.number(),
                metrics: self.list(Draw::text),
                stabilization: self.duration(),
                expiration: self.duration(),
                update: self.duration(),
            }),
            _ => Algorithm::ConsistentHash {
                key: match self.below(4) {
                    0 => HashKey::Header(self.text()),
                    1 => HashKey::Cookie {
                        name: self.text(),
                        path: self.option(Draw::text),
                        ttl: self.option(Draw::duration),
                        attributes: self.list(Draw::pair),
                    },
                    2 => HashKey::SourceIp,
                    _ => HashKey::QueryParameter(self.text()),
                },
                table: match self.flag() {
                    true => HashTable::Ring(self.0.bits()),
                    false => HashTable::Maglev(self.0.bits()),
                },
            },
        }
    }

    fn client_tls(&mut self) -> ClientTls {
        match self.below(4) {
            0 => ClientTls::Auto,
            1 => ClientTls::Disable,
            2 => ClientTls::IstioMutual { sni: self.text(), subject_alt_names: self.list(Draw::text) },
            _ => ClientTls::Originate(TlsOrigination {
                certificate: self.option(|d| match d.flag() {
                    true => ClientCertificate::Files { chain: d.text(), key: d.text() },
                    false => ClientCertificate::Credential(d.text()),
                }),
                roots: match self.below(4) {
                    0 => ServerRoots::System,
                    1 => ServerRoots::File(self.text()),
                    2 => ServerRoots::Credential(self.text()),
                    _ => ServerRoots::Unverified,
                },
                crl: self.option(Draw::text),
                sni: self.option(Draw::text),
                names: match self.below(3) {
                    0 => ServerNames::Requested,
                    1 => ServerNames::OneOf(self.list(Draw::text)),
                    _ => ServerNames::Any,
                },
                gateways_only: self.flag(),
            }),
        }
    }

    fn preference(&mut self) -> Preference {
        match self.below(4) {
            0 => Preference::None,
            1 => Preference::Shares(
                self.list(|d| Distribute { from: d.text(), to: d.list(|d| (d.text(), d.number())) }),
            ),
            2 => Preference::Order {
                labels: self.list(Draw::text),
                regions: self.option(|d| d.list(Draw::pair)),
            },
            _ => Preference::Zones {
                labels: self.list(Draw::text),
                regions: self.list(Draw::pair),
                min_cluster_size: self.number(),
            },
        }
    }

    fn keepalive(&mut self) -> TcpKeepalive {
        TcpKeepalive {
            probes: self.option(Draw::number),
            time: self.option(Draw::duration),
            interval: self.option(Draw::duration),
        }
    }

    fn limits(&mut self) -> PoolLimits {
        PoolLimits {
            max_connections: self.number(),
            tcp_keepalive: self.option(Draw::keepalive),
            max_connection_duration: self.option(Draw::duration),
            tcp_idle_timeout: self.option(Draw::duration),
            max_pending_requests: self.number(),
            max_requests: self.number(),
            max_requests_per_connection: self.option(Draw::number),
            max_retries: self.number(),
            http_idle_timeout: self.option(Draw::duration),
            max_concurrent_streams: self.number(),
            http2_keepalive: self.option(|d| (d.duration(), d.duration())),
        }
    }

    fn pool(&mut self) -> ConnectionPool {
        ConnectionPool {
            max_connections: self.option(Draw::number),
            connect_timeout: self.option(Draw::duration),
            tcp_keepalive: self.option(Draw::keepalive),
            max_connection_duration: self.option(Draw::duration),
            tcp_idle_timeout: self.option(Draw::duration),
            max_pending_requests: self.option(Draw::number),
            max_requests: self.option(Draw::number),
            max_requests_per_connection: self.option(Draw::number),
            max_retries: self.option(Draw::number),
            http_idle_timeout: self.option(Draw::duration),
            h2_upgrade: self.one(&[H2Upgrade::Default, H2Upgrade::DoNotUpgrade, H2Upgrade::Upgrade]),
            use_client_protocol: self.flag(),
            max_concurrent_streams: self.option(Draw::number),
            http2_keepalive: self.option(|d| (d.duration(), d.duration())),
        }
    }

    fn endpoint(&mut self) -> Endpoint {
        Endpoint {
            workload: self.workload_key(),
            address: match self.below(3) {
                0 => EndpointAddress::Ip(self.address()),
                1 => EndpointAddress::Name(self.text()),
                _ => EndpointAddress::Unix(self.text()),
            },
            network: self.option(Draw::text),
            node: self.option(Draw::text),
            ports: self.list(|d| (d.short(), d.short())),
            labels: self.labels(),
            identity: self.option(Draw::identity),
            tunnel: self.option(|d| (d.address(), d.short()).into()),
            plaintext_ports: self.list(Draw::short),
            locality: self.locality(),
            weight: self.number(),
            health: self.one(&[Health::Healthy, Health::Unhealthy, Health::Unknown]),
        }
    }

    fn locality(&mut self) -> Locality {
        Locality {
            region: self.option(Draw::text),
            zone: self.option(Draw::text),
            subzone: self.option(Draw::text),
        }
    }

    fn workload(&mut self) -> Workload {
        let modes = [MtlsMode::Disable, MtlsMode::Permissive, MtlsMode::Strict];
        Workload {
            key: self.workload_key(),
            address: self.address(),
            identity: self.option(Draw::identity),
            labels: self.labels(),
            ports: self.list(|d| WorkloadPort {
                number: d.short(),
                protocol: d.protocol(),
                service: d.text(),
                endpoint: d.option(Draw::text),
                pool: d.pool(),
            }),
            node: self.text(),
            locality: self.locality(),
            network: self.option(Draw::text),
            tokens: self.list(Draw::pair),
            limits: self.list(Draw::rate_limit),
            view: self.option(Draw::text),
            mtls: MtlsPolicy {
                default: self.one(&modes),
                origin: self.option(Draw::text),
                ports: self.list(|d| (d.short(), d.one(&modes))),
                ports_origin: self.option(Draw::text),
            },
            policies: self.list(|d| (d.text(), d.text())),
            recognition: Recognition {
                user: self.option(|d| match d.below(2) {
                    0 => User::Id(d.number()),
                    _ => User::Name(d.text()),
                }),
                cgroup: self.option(Draw::text),
                netns: self.option(Draw::text),
            },
            probe: self.option(Draw::probe),
            telemetry: if self.flag() { self.telemetry() } else { Telemetry::default() },
        }
    }

    fn probe(&mut self) -> Probe {
        let action = match self.below(4) {
            0 => ProbeAction::Http {
                path: self.text(),
                port: self.short(),
                host: self.option(Draw::text),
                https: self.flag(),
                headers: self.list(|d| (d.text(), d.text())),
            },
            1 => ProbeAction::Tcp { host: self.option(Draw::text), port: self.short() },
            2 => ProbeAction::Exec { command: self.list(Draw::text) },
            _ => ProbeAction::Grpc { port: self.option(Draw::short), service: self.option(Draw::text) },
        };
        Probe {
            action,
            initial_delay: self.number(),
            timeout: self.number(),
            period: self.number(),
            success_threshold: self.number(),
            failure_threshold: self.number(),
        }
    }

    fn policy(&mut self) -> AuthorizationPolicy {
        AuthorizationPolicy {
            namespace: self.text(),
            name: self.text(),
            action: self.one(&[
                PolicyAction::Allow,
                PolicyAction::Deny,
                PolicyAction::Audit,
                PolicyAction::Custom,
            ]),
            provider: self.option(|d| Provider {
                name: d.text(),
                authorizer: d.option(|d| Authorizer {
                    grpc: d.flag(),
                    service: d.text(),
                    port: d.short(),
                    timeout: d.duration(),
                    fail_open: d.flag(),
                    status_on_error: d.short(),
                }),
            }),
            dry_run: self.flag(),
            rules: self.list(|d| AuthorizationRule {
                from: d.list(|d| Source {
                    principals: d.values(Draw::text_match),
                    namespaces: d.values(Draw::text_match),
                    service_accounts: d.values(Draw::text),
                    trust_domains: d.values(Draw::text_match),
                    ip_blocks: d.values(Draw::network),
                    remote_ip_blocks: d.values(Draw::network),
                    request_principals: d.values(Draw::text_match),
                }),
                to: d.list(|d| Operation {
                    hosts: d.values(Draw::text_match),
                    methods: d.values(Draw::text_match),
                    paths: d.values(Draw::path_match),
                    ports: d.values(Draw::short),
                }),
                when: d.list(Draw::condition),
            }),
        }
    }

    fn condition(&mut self) -> Condition {
        let texts = self.values(Draw::text_match);
        match self.below(16) {
            0 => Condition::Header(self.header(), texts),
            14 => Condition::Pseudo(self.text(), texts),
            1 => Condition::SourceIp(self.values(Draw::network)),
            2 => Condition::RemoteIp(self.values(Draw::network)),
            3 => Condition::SourceNamespace(texts),
            4 => Condition::SourceServiceAccount(self.values(Draw::text)),
            5 => Condition::SourcePrincipal(texts),
            6 => Condition::SourceTrustDomain(texts),
            7 => Condition::RequestPrincipal(texts),
            8 => Condition::Audiences(texts),
            9 => Condition::Presenter(texts),
            10 => Condition::Claim(self.list(Draw::text), texts),
            11 => Condition::DestinationIp(self.values(Draw::network)),
            12 => Condition::DestinationPort(self.values(Draw::short)),
            13 => Condition::Sni(texts),
            _ => Condition::Metadata(self.text(), texts),
        }
    }

    fn values<M>(&mut self, draw: impl Fn(&mut Draw) -> M) -> Values<M> {
        Values { any: self.list(&draw), none: self.list(&draw) }
    }

    fn pattern(&mut self) -> Pattern {
        Pattern::new(self.one(&["", "a.*", "^/v[0-9]+/(x|y)$", "(?i)é"])).unwrap()
    }

    fn text_match(&mut self) -> TextMatch {
        let text = self.text();
        match self.below(9) {
            0 => TextMatch::Present,
            1 => TextMatch::NotEmpty,
            2 => TextMatch::Exact(text),
            3 => TextMatch::Prefix(text),
            4 => TextMatch::Suffix(text),
            5 => TextMatch::ExactIgnoringCase(text),
            6 => TextMatch::PrefixIgnoringCase(text),
            7 => TextMatch::SuffixIgnoringCase(text),
            _ => TextMatch::Regex(self.pattern()),
        }
    }

    fn path_match(&mut self) -> PathMatch {
        match self.flag() {
            true => PathMatch::Text(self.text_match()),
            false => PathMatch::policy(self.one(&["/{*}", "/a/{*}/b", "/a/{**}/z", "/{*}/{**}"])).unwrap(),
        }
    }

    fn header(&mut self) -> HeaderName {
        self.one(&[http::header::HOST, HeaderName::from_static("x-b3-traceid"), http::header::COOKIE])
    }

    fn request_match(&mut self) -> RequestMatch {
        RequestMatch {
            name: self.option(Draw::text),
            uri: self.option(Draw::text_match),
            scheme: self.option(Draw::text_match),
            method: self.option(Draw::text_match),
            authority: self.option(Draw::text_match),
            headers: self.list(|d| (d.header(), d.text_match())),
            without_headers: self.list(|d| (d.header(), d.text_match())),
            query: self.list(|d| (d.text(), d.text_match())),
            claims: self.list(|d| (d.list(Draw::text), d.text_match())),
            without_claims: self.list(|d| (d.list(Draw::text), d.text_match())),
            pseudo: self.list(|d| (d.one(&Pseudo::ALL), d.text_match())),
            without_pseudo: self.list(|d| (d.one(&Pseudo::ALL), d.text_match())),
            caller_labels: self.labels(),
            caller_namespace: self.option(Draw::text),
        }
    }

    fn http_rule(&mut self) -> HttpRule {
        let action = match self.below(3) {
            0 => RuleAction::Route { backends: self.list(Draw::backend), rewrite: self.rewrite() },
            1 => RuleAction::Redirect(self.redirect()),
            _ => {
                RuleAction::DirectResponse(DirectResponse { status: self.short(), body: self.bytes().into() })
            }
        };
        HttpRule {
            origin: self.origin(),
            name: self.option(Draw::text),
            matches: self.list(Draw::request_match),
            action,
            timeout: self.option(Draw::duration),
            retry: RetryPolicy {
                attempts: self.number(),
                per_try_timeout: self.option(Draw::duration),
                on: self.list(|d| d.one(&RetryCondition::ALL)),
                codes: self.list(Draw::short),
                backoff: self.duration(),
                avoid_tried: self.flag(),
                remote_localities: self.flag(),
                hedge: self.option(|d| Hedge {
                    after: d.duration(),
                    most: d.one(&[1, 2, 3]),
                    any_method: d.flag(),
                }),
            },
            fault: FaultPolicy {
                delay: self.option(|d| (d.ratio(), d.duration())),
                abort: self.option(|d| {
                    let code = d.short();
                    (d.ratio(), d.one(&[AbortStatus::Http(code), AbortStatus::Grpc(code)]))
                }),
            },
            numbers: self.list(Draw::number),
            mirrors: self.list(|d| Mirror {
                host: d.text(),
                port: d.short(),
                subset: d.option(Draw::text),
                share: d.ratio(),
            }),
            cors: self.option(|d| CorsPolicy {
                allow_origins: d.list(Draw::text_match),
                allow_methods: d.list(Draw::text),
                allow_headers: d.list(Draw::text),
                expose_headers: d.list(Draw::text),
                max_age: d.option(|d| d.0.bits()),
                allow_credentials: d.flag(),
                unmatched_preflights: d.one(&[UnmatchedPreflights::Forward, UnmatchedPreflights::Ignore]),
            }),
            request_headers: self.header_changes(),
            response_headers: self.header_changes(),
            limits: self.list(Draw::rate_limit),
        }
    }

    fn rate_limit(&mut self) -> RateLimit {
        RateLimit {
            origin: self.text(),
            target: self.text(),
            ports: self.list(Draw::short),
            terms: Terms {
                shared: self.flag(),
                limits: self.list(Draw::limit),
                status: self.short(),
                tell: self.one(&[Tell::Refused, Tell::All, Tell::None]),
                dry_run: self.flag(),
            },
        }
    }

    fn limit(&mut self) -> Limit {
        let name = HeaderName::from_static("x-user");
        let (requests, burst) = (self.number() % 1000 + 1, self.number() % 1000 + 1);
        let interval = self.one(&[Duration::from_secs(1), Duration::from_millis(1), Duration::from_secs(60)]);
        Limit {
            name: self.text(),
            rate: Rate::new(requests, interval, burst).unwrap(),
            key: self.list(|d| {
                d.one(&[
                    KeyPart::Principal,
                    KeyPart::Namespace,
                    KeyPart::Address,
                    KeyPart::Method,
                    KeyPart::Path,
                    KeyPart::Header(name.clone()),
                ])
            }),
            counts: Counts {
                methods: self.list(Draw::text_match),
                paths: self.list(Draw::text_match),
                headers: self.list(|d| (name.clone(), d.text_match())),
            },
        }
    }

    fn tcp_rule(&mut self) -> TcpRule {
        TcpRule {
            origin: self.origin(),
            matches: self.list(|d| StreamMatch {
                sni_hosts: d.list(Draw::text),
                destination_subnets: d.list(Draw::network),
                caller_labels: d.labels(),
                caller_namespace: d.option(Draw::text),
            }),
            numbers: self.list(Draw::number),
            backends: self.list(Draw::backend),
        }
    }

    fn backend(&mut self) -> Backend {
        Backend {
            host: self.text(),
            port: self.short(),
            subset: self.option(Draw::text),
            weight: self.number(),
            request_headers: self.header_changes(),
            response_headers: self.header_changes(),
            authority: self.option(Draw::text),
        }
    }

    fn rewrite(&mut self) -> Rewrite {
        let path = self.option(|d| match d.flag() {
            true => PathRewrite::Matched(d.text()),
            false => PathRewrite::Regex { pattern: d.pattern(), substitution: d.text() },
        });
        Rewrite { path, authority: self.option(Draw::text) }
    }

    fn redirect(&mut self) -> Redirect {
        let port = RedirectPort::Fixed(self.short());
        Redirect {
            code: self.short(),
            path: self.option(Draw::text),
            prefix: self.option(Draw::text),
            authority: self.option(Draw::text),
            scheme: self.option(Draw::text),
            port: self.one(&[RedirectPort::ProtocolDefault, RedirectPort::Request, port]),
        }
    }

    fn header_changes(&mut self) -> HeaderOperations {
        let field = |d: &mut Draw| {
            let value: &[u8] = d.one(&[b"".as_slice(), b"v", b"\xff\xfe", b"a, b"]);
            let template = match d.flag() {
                true => Template::Fixed(HeaderValue::from_bytes(value).unwrap()),
                false => Template::parse("a %REQ(x-user?:path):8% %PROTOCOL%").unwrap(),
            };
            (d.header(), template)
        };
        HeaderOperations { remove: self.list(Draw::header), set: self.list(field), add: self.list(field) }
    }
}
