//! Random sections for the tests: every kind and every variant, drawn from a seed.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use mesh_core::balancing::balancer::LoadBalancer;
use mesh_core::matching::path::PathMatch;
use mesh_core::matching::request::RequestMatch;
use mesh_core::matching::text::{Pattern, TextMatch};
use mesh_core::policy::authorization::{
    AuthorizationPolicy, AuthorizationRule, Operation, PolicyAction, Source, Values,
};
use mesh_core::policy::mtls::{ClientTls, MtlsMode, MtlsPolicy};
use mesh_core::resilience::fault::{AbortStatus, FaultPolicy};
use mesh_core::resilience::retry::{RetryCondition, RetryPolicy};
use mesh_core::routing::header::HeaderChanges;
use mesh_core::routing::rewrite::{PathRewrite, Redirect, RedirectPort, Rewrite};
use mesh_core::routing::rule::{Backend, DirectResponse, HttpRule, RuleAction, StreamMatch, TcpRule};
use mesh_core::snapshot::destination::Destination;
use mesh_core::snapshot::endpoints::{Endpoint, EndpointSlice};
use mesh_core::snapshot::routes::Routes;
use mesh_core::snapshot::section::Section;
use mesh_core::snapshot::security::TrustBundle;
use mesh_core::snapshot::service::{Port, Service};
use mesh_core::snapshot::workload::{Recognition, Workload, WorkloadPort};
use mesh_core::snapshot::{Entry, Snapshot, Version};
use mesh_core::vocab::health::Health;
use mesh_core::vocab::identity::{SpiffeId, TrustDomain};
use mesh_core::vocab::label::Labels;
use mesh_core::vocab::locality::Locality;
use mesh_core::vocab::name::{DestinationKey, ServicePort, Text, WorkloadKey};
use mesh_core::vocab::origin::Origin;
use mesh_core::vocab::protocol::Protocol;
use mesh_core::vocab::random::Random;
use mesh_core::vocab::ratio::Ratio;
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
        match self.below(7) {
            0 => self.trust(),
            1 => Section::Service(self.service()),
            2 => Section::Routes(Routes {
                at: ServicePort { host: self.text(), port: self.short() },
                origin: self.option(Draw::text),
                http: self.list(Draw::http_rule),
                tcp: self.list(Draw::tcp_rule),
            }),
            3 => Section::Destination(self.destination()),
            4 => Section::Endpoints(EndpointSlice {
                host: self.text(),
                slice: self.number(),
                endpoints: self.list(Draw::endpoint),
            }),
            5 => Section::Authorization(self.policy()),
            _ => Section::Workload(self.workload()),
        }
    }

    fn trust(&mut self) -> Section {
        let domain = TrustDomain::new(self.one(&["cluster.local", "td"])).unwrap();
        Section::Trust(TrustBundle { domain, roots: self.list(Draw::bytes) })
    }

    fn service(&mut self) -> Service {
        Service {
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
        use LoadBalancer as B;
        Destination {
            key: DestinationKey {
                host: self.text(),
                port: self.short(),
                subset: self.option(Draw::text),
                scope: self.option(Draw::text),
            },
            origin: self.option(Draw::text),
            protocol: self.protocol(),
            labels: self.labels(),
            load_balancer: self.one(&[B::RoundRobin, B::LeastRequest, B::Random]),
            tls: self.one(&[ClientTls::Auto, ClientTls::Disable, ClientTls::IstioMutual]),
            connect_timeout: self.duration(),
        }
    }

    fn endpoint(&mut self) -> Endpoint {
        Endpoint {
            workload: self.workload_key(),
            address: self.address(),
            node: self.option(Draw::text),
            ports: self.list(|d| (d.short(), d.short())),
            labels: self.labels(),
            identity: self.option(Draw::identity),
            tunnel: self.option(|d| (d.address(), d.short()).into()),
            plaintext_ports: self.list(Draw::short),
            locality: Locality {
                region: self.option(Draw::text),
                zone: self.option(Draw::text),
                subzone: self.option(Draw::text),
            },
            weight: self.number(),
            health: self.one(&[Health::Healthy, Health::Unhealthy, Health::Unknown]),
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
            }),
            mtls: MtlsPolicy {
                default: self.one(&modes),
                origin: self.option(Draw::text),
                ports: self.list(|d| (d.short(), d.one(&modes))),
            },
            policies: self.list(|d| (d.text(), d.text())),
            recognition: Recognition { user: self.option(Draw::number) },
        }
    }

    fn policy(&mut self) -> AuthorizationPolicy {
        AuthorizationPolicy {
            namespace: self.text(),
            name: self.text(),
            action: self.one(&[PolicyAction::Allow, PolicyAction::Deny]),
            rules: self.list(|d| AuthorizationRule {
                from: d.list(|d| Source {
                    principals: d.values(Draw::text_match),
                    namespaces: d.values(Draw::text_match),
                }),
                to: d.list(|d| Operation {
                    hosts: d.values(Draw::text_match),
                    methods: d.values(Draw::text_match),
                    paths: d.values(Draw::path_match),
                    ports: d.values(Draw::short),
                }),
            }),
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
            caller_labels: self.labels(),
            caller_namespace: self.option(Draw::text),
        }
    }

    fn http_rule(&mut self) -> HttpRule {
        let action = match self.below(3) {
            0 => RuleAction::Route { backends: self.list(Draw::backend), rewrite: self.rewrite() },
            1 => RuleAction::Redirect(self.redirect()),
            _ => RuleAction::DirectResponse(DirectResponse { status: self.short(), body: self.bytes() }),
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
                remote_localities: true,
            },
            fault: FaultPolicy {
                delay: self.option(|d| (d.ratio(), d.duration())),
                abort: self.option(|d| {
                    let code = d.short();
                    (d.ratio(), d.one(&[AbortStatus::Http(code), AbortStatus::Grpc(code)]))
                }),
            },
            request_headers: self.header_changes(),
            response_headers: self.header_changes(),
        }
    }

    fn tcp_rule(&mut self) -> TcpRule {
        TcpRule {
            origin: self.origin(),
            matches: self.list(|d| StreamMatch {
                destination_subnets: d
                    .list(|d| d.one(&["10.1.2.3/8", "0.0.0.0/0", "fd00::1/64"]).parse().unwrap()),
                caller_labels: d.labels(),
                caller_namespace: d.option(Draw::text),
            }),
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

    fn header_changes(&mut self) -> HeaderChanges {
        let field = |d: &mut Draw| {
            let value: &[u8] = d.one(&[b"".as_slice(), b"v", b"\xff\xfe", b"a, b"]);
            (d.header(), HeaderValue::from_bytes(value).unwrap())
        };
        HeaderChanges { remove: self.list(Draw::header), set: self.list(field), add: self.list(field) }
    }
}
