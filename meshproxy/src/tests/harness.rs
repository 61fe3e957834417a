//! A mesh of two hosts in one process: `a` calls, `b` serves. Both are real data paths on loopback addresses.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_core::policy::authorization::AuthorizationPolicy;
use mesh_core::resilience::pool::ConnectionPool;
use mesh_core::resilience::retry::RetryPolicy;
use mesh_core::routing::limit::RateLimit;
use mesh_core::routing::rule::{HttpRule, TcpRule};
use mesh_core::snapshot::destination::Destination;
use mesh_core::snapshot::endpoints::{Endpoint, EndpointAddress, EndpointSlice};
use mesh_core::snapshot::routes::Routes;
use mesh_core::snapshot::section::Section;
use mesh_core::snapshot::service::{Port, Service};
use mesh_core::snapshot::workload::{Recognition, Workload, WorkloadPort};
use mesh_core::snapshot::{Entry, Snapshot, Version};
use mesh_core::tables::build::build;
use mesh_core::telemetry::Telemetry;
use mesh_core::telemetry::logs::Logs;
use mesh_core::vocab::health::Health;
use mesh_core::vocab::identity::SpiffeId;
use mesh_core::vocab::locality::Locality;
use mesh_core::vocab::name::{DestinationKey, ServicePort, Text, WorkloadKey};
use mesh_core::vocab::origin::{Kind, Origin, ResourceKey};
use mesh_core::vocab::protocol::Protocol;
use mesh_core::vocab::resolution::Resolution;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc};

use crate::dns::forward::Forwarder;
use crate::dns::resolv_conf::HostResolvers;
use crate::identity::svid::Svids;
use crate::identity::tls::tests::TestCa;
use crate::listener::sockets::{Listeners, Settings};
use crate::live::root::Roots;
use crate::net::limits::Limits;
use crate::runtime::drain::Drain;
use crate::runtime::pressure::Pressure;
use crate::telemetry::access::AccessSink;
use crate::telemetry::export::Exporter;
use crate::telemetry::export::parcel::Parcel;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::tap::Hub;
use crate::telemetry::trace::{Tail, TraceSettings};
use crate::upstream::budget::MOST;
use crate::upstream::thread::Shared;

pub(super) const HOST: &str = "reviews.default.svc.cluster.local";
pub(super) const A: &str = "spiffe://cluster.local/ns/default/sa/a";
pub(super) const B: &str = "spiffe://cluster.local/ns/default/sa/b";
pub(super) const OTHER: &str = "spiffe://cluster.local/ns/default/sa/other";

/// What a test varies of the mesh.
pub(super) struct Plan {
    pub(super) protocol: Protocol,
    pub(super) rules: Option<Vec<HttpRule>>,
    pub(super) policies: Vec<AuthorizationPolicy>,
    /// Whom the caller expects at the endpoint.
    pub(super) expected: &'static str,
    /// Applications of host `b`; each is an endpoint.
    pub(super) applications: Vec<SocketAddr>,
    /// Whether the endpoints are reached over the mesh hop.
    pub(super) mesh: bool,
    /// Namespaces that see the service; `None` for all.
    pub(super) exported_to: Option<Vec<Text>>,
    /// The view of host `a`.
    pub(super) view: Option<&'static str>,
    /// More sections for both hosts.
    pub(super) extra: Vec<Section>,
    /// Who resolves names; nobody where there is none.
    pub(super) resolver: Option<SocketAddr>,
    /// What a rule says of the destination.
    pub(super) shape: Shape,
    /// What the proxy of the applications limits.
    pub(super) pool: ConnectionPool,
    /// Rules for TLS that is passed on.
    pub(super) tls: Vec<TcpRule>,
    /// How old connections of `a` and of `b` become.
    pub(super) most_age: [Option<Duration>; 2],
    /// The access logs of both hosts.
    pub(super) logs: [AccessSink; 2],
    /// Where host `a` is.
    pub(super) caller: &'static str,
    /// Where each of the applications is; nowhere for those that are not listed.
    pub(super) localities: Vec<&'static str>,
    /// How much both take, and how long they wait.
    pub(super) limits: Limits,
    /// Rate limits of what reaches the applications.
    pub(super) rate_limits: Vec<RateLimit>,
    /// What is told of the traffic of every workload.
    pub(super) telemetry: Telemetry,
    /// Access logs of the workloads, of their callers' side and their own.
    pub(super) declared: [Logs; 2],
    /// Which requests are traced that were not sampled.
    pub(super) tail: Tail,
}

/// Changes a destination.
pub(super) type Shape = Box<dyn Fn(&mut Destination) + Send + Sync>;

impl Plan {
    pub(super) fn new(applications: &[SocketAddr]) -> Plan {
        Plan {
            protocol: Protocol::Http,
            rules: None,
            policies: Vec::new(),
            expected: B,
            applications: applications.to_vec(),
            mesh: true,
            exported_to: None,
            view: None,
            extra: Vec::new(),
            resolver: None,
            shape: Box::new(|_| {}),
            pool: ConnectionPool::default(),
            tls: Vec::new(),
            most_age: [None; 2],
            logs: [AccessSink::off(), AccessSink::off()],
            caller: "",
            localities: Vec::new(),
            limits: Limits::default(),
            rate_limits: Vec::new(),
            telemetry: Telemetry::default(),
            declared: Default::default(),
            tail: Tail::default(),
        }
    }
}

/// A running mesh.
pub(super) struct Mesh {
    pub(super) a: Proxy,
    pub(super) b: Proxy,
    pub(super) ca: TestCa,
    plan: Plan,
}

/// One host's data path.
pub(super) struct Proxy {
    pub(super) shared: Shared,
    pub(super) explicit: SocketAddr,
    pub(super) inbound: SocketAddr,
    pub(super) listeners: Listeners,
    /// What its data threads hand over for collectors.
    pub(super) parcels: Mutex<mpsc::Receiver<Parcel>>,
}

pub(super) fn origin() -> Origin {
    let resource = ResourceKey { kind: Kind::Service, namespace: "default".into(), name: "reviews".into() };
    Origin { resource: resource.to_string().into(), rule: None }
}

fn free(ip: &str) -> SocketAddr {
    let listener = std::net::TcpListener::bind((ip, 0)).unwrap();
    listener.local_addr().unwrap()
}

pub(super) fn default_rule() -> HttpRule {
    HttpRule::default_route(&origin(), HOST.into(), 9080, RetryPolicy::default())
}

impl Mesh {
    /// Starts both hosts: `a` at 127.0.0.1, `b` at 127.0.0.2.
    pub(super) async fn start(plan: Plan) -> Mesh {
        let ca = TestCa::new();
        let resolver = plan.resolver;
        let start = |ip, id: &str, host: usize| {
            let traced = TraceSettings { node: id.into(), tail: plan.tail };
            let access = plan.logs[host].clone();
            Proxy::start(&ca, ip, id, resolver, plan.most_age[host], access, (plan.limits, traced))
        };
        let (a, b) = (start("127.0.0.1", A, 0), start("127.0.0.2", B, 1));
        let mesh = Mesh { a, b, ca, plan };
        mesh.install(1).await;
        mesh
    }

    /// Changes the plan and gives both hosts the next version.
    pub(super) async fn change(&mut self, version: u64, change: impl FnOnce(&mut Plan)) {
        change(&mut self.plan);
        self.install(version).await;
    }

    async fn install(&self, version: u64) {
        self.a.install(version, self.sections(&self.a, "a", A)).await;
        self.b.install(version, self.sections(&self.b, "b", B)).await;
    }

    fn sections(&self, proxy: &Proxy, name: &str, id: &str) -> Vec<Section> {
        let plan = &self.plan;
        let host: Text = HOST.into();
        let service = Service {
            host: host.clone(),
            namespace: "default".into(),
            origin: origin(),
            names: vec!["reviews.default".into()],
            short_name: Some("reviews".into()),
            ports: vec![Port { number: 9080, name: "http".into(), protocol: plan.protocol }],
            addresses: Vec::new(),
            offset: Some(1),
            scope: None,
            exported_to: plan.exported_to.clone(),
            aliases: Vec::new(),
            networks: Vec::new(),
            auto_address: None,
            resolution: Resolution::Static,
            headless: false,
            stands_for: None,
            external: false,
        };
        let at = ServicePort { host: host.clone(), port: 9080 };
        let routes = Routes {
            at,
            origin: None,
            http: plan.rules.clone().unwrap_or_else(|| vec![default_rule()]),
            tcp: vec![TcpRule::default_route(&origin(), host.clone(), 9080)],
            scope: None,
            tls: plan.tls.clone(),
            fallback: None,
        };
        let key = DestinationKey { host: host.clone(), port: 9080, subset: None, scope: None };
        let mut destination =
            Destination { connect_timeout: Duration::from_secs(2), ..Destination::plain(key, plan.protocol) };
        (plan.shape)(&mut destination);
        let endpoint = |(index, application): (usize, &SocketAddr)| Endpoint {
            workload: WorkloadKey { namespace: "default".into(), name: format!("b{index}").into() },
            address: EndpointAddress::Ip(application.ip()),
            network: None,
            node: Some("b".into()),
            ports: vec![(9080, application.port())],
            labels: [("app", "reviews")].into_iter().collect(),
            identity: Some(SpiffeId::parse(plan.expected).unwrap()),
            tunnel: plan.mesh.then_some(self.b.inbound),
            plaintext_ports: Vec::new(),
            locality: Locality::parse(plan.localities.get(index).copied().unwrap_or("")),
            weight: 1,
            health: Health::Healthy,
        };
        let slice = EndpointSlice {
            host: host.clone(),
            scope: None,
            slice: 0,
            endpoints: plan.applications.iter().enumerate().map(endpoint).collect(),
        };
        let policies = plan.policies.iter().map(|p| (p.namespace.clone(), p.name.clone()));
        let caller = |is_caller: bool| Locality::parse(if is_caller { plan.caller } else { "" });
        let workload = |name: String, address: IpAddr, ports: Vec<WorkloadPort>| Workload {
            locality: caller(name == "a"),
            key: WorkloadKey { namespace: "default".into(), name: name.into() },
            address,
            identity: Some(SpiffeId::parse(id).unwrap()),
            labels: [("app", "x"), ("version", "v1")].into_iter().collect(),
            ports,
            mtls: Default::default(),
            policies: policies.clone().collect(),
            node: "b".into(),
            network: None,
            tokens: Vec::new(),
            limits: plan.rate_limits.clone(),
            view: plan.view.map(Text::from),
            recognition: Recognition::default(),
            probe: None,
            telemetry: {
                let mut telemetry = plan.telemetry.clone();
                [telemetry.client.logs, telemetry.server.logs] = plan.declared.clone();
                telemetry
            },
        };
        let port = |number| WorkloadPort {
            number,
            protocol: plan.protocol,
            service: host.clone(),
            endpoint: None,
            pool: plan.pool,
        };
        let workloads: Vec<Workload> = match name {
            "b" => {
                let each = plan.applications.iter().enumerate();
                each.map(|(i, app)| workload(format!("b{i}"), app.ip(), vec![port(app.port())])).collect()
            }
            _ => vec![workload(name.to_owned(), proxy.inbound.ip(), Vec::new())],
        };
        let mut sections = vec![
            Section::Service(service),
            Section::Routes(routes),
            Section::Destination(destination),
            Section::Endpoints(slice),
        ];
        sections.extend(plan.extra.iter().cloned());
        sections.extend(workloads.into_iter().map(Section::Workload));
        sections.extend(plan.policies.iter().cloned().map(Section::Authorization));
        sections
    }

    /// Sends through the HTTP proxy of `a`, as a client that uses it would.
    pub(super) async fn get(&self, url: &str) -> Answer {
        self.send(Request::get(url).body(Full::default()).unwrap()).await
    }

    /// The same with any request.
    pub(super) async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        exchange(self.a.explicit, request).await
    }
}

impl Proxy {
    fn start(
        ca: &TestCa,
        ip: &str,
        id: &str,
        resolver: Option<SocketAddr>,
        most_age: Option<Duration>,
        access: AccessSink,
        (limits, tracing): (Limits, TraceSettings),
    ) -> Proxy {
        // Nobody answers there.
        let nobody = "127.0.0.1:9".parse().unwrap();
        let resolvers = HostResolvers::new(vec![resolver.unwrap_or(nobody)], nobody);
        let metrics = Arc::new(Metrics::default());
        let taps = Hub::new(id, &metrics, std::env::temp_dir(), 64);
        let svids = Arc::new(Svids::new());
        svids.trust(ca.trust());
        svids.install(ca.svid(id));
        let (exporter, parcels) = Exporter::new(Default::default(), Arc::clone(&metrics));
        let shared = Shared {
            exporter,
            tracing,
            roots: Arc::new(Roots::new(Arc::clone(&metrics))),
            svids,
            metrics,
            reports: None,
            access,
            taps,
            drain: Drain::new(),
            forwarder: Forwarder::new(Arc::new(resolvers)),
            most_age,
            limits,
            identities: Arc::default(),
            pressure: Pressure::default(),
            kept_bodies: MOST,
        };
        let (explicit, inbound) = (free(ip), free(ip));
        let settings =
            Settings { inbound, explicit: Some(explicit), loopback: None, transparent: None, threads: 1 };
        let listeners = Listeners::start(settings, shared.clone()).unwrap();
        Proxy { shared, explicit, inbound, listeners, parcels: Mutex::new(parcels) }
    }

    async fn install(&self, version: u64, sections: Vec<Section>) {
        let sections = sections.into_iter().map(|section| (section.key(), Entry::new(section))).collect();
        let snapshot = Snapshot { version: Version { number: version, revision: 0 }, sections };
        let tables = build(&snapshot, Some(&self.shared.roots.load().tables)).unwrap();
        let serial = self.shared.roots.install(Arc::new(tables));
        let report = self.shared.roots.opened(serial).await;
        assert!(report.faults.is_empty(), "{report:?}");
    }

    /// The value of a metric whose line contains all of these.
    pub(super) fn metric(&self, name: &str, labels: &[&str]) -> u64 {
        let text = self.shared.metrics.render();
        let lines = text.lines().filter(|line| line.starts_with(&format!("{name}{{")));
        let matching = lines.filter(|line| labels.iter().all(|label| line.contains(label)));
        matching.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
    }
}

/// An answer read whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// One request over HTTP/1 on a connection of its own.
pub(super) async fn exchange(to: SocketAddr, request: Request<Full<Bytes>>) -> Answer {
    let stream = tokio::net::TcpStream::connect(to).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let driver = tokio::spawn(connection);
    let response = sender.send_request(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    drop(sender);
    driver.abort();
    Answer { status: parts.status, headers: parts.headers, body: String::from_utf8_lossy(&body).into_owned() }
}

/// An application that answers with what it heard: method, path, then each field on a line.
pub(super) async fn echo(ip: &str) -> SocketAddr {
    application(ip, |request| async move {
        let mut heard = format!("{} {}\n", request.method(), request.uri());
        for (name, value) in request.headers() {
            heard.push_str(&format!("{name}: {}\n", value.to_str().unwrap_or("?")));
        }
        let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        heard.push_str(&format!("body: {}", String::from_utf8_lossy(&body)));
        Response::new(Full::new(Bytes::from(heard)))
    })
    .await
}

/// An application over HTTP/1 and HTTP/2 in the clear.
pub(super) async fn application<F>(
    ip: &str,
    answer: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static,
) -> SocketAddr
where
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let answer = answer.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let reply = answer(request);
                    async move { Ok::<_, std::convert::Infallible>(reply.await) }
                });
                let mut first = [0; 3];
                let http2 = stream.peek(&mut first).await.is_ok_and(|_| &first == b"PRI");
                let io = TokioIo::new(stream);
                if http2 {
                    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    drop(builder.serve_connection(io, service).await);
                } else {
                    drop(hyper::server::conn::http1::Builder::new().serve_connection(io, service).await);
                }
            });
        }
    });
    address
}

/// A gRPC-like application: sends each message back as it comes, then `grpc-status: 5`.
pub(super) async fn grpc_echo(ip: &str) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    tokio::spawn(async move {
                        assert_eq!(request.headers()["te"], "trailers");
                        let mut body = request.into_body();
                        let mut reply = respond.send_response(Response::new(()), false).unwrap();
                        while let Some(Ok(data)) = body.data().await {
                            reply.send_data(data, false).unwrap();
                        }
                        let mut trailers = HeaderMap::new();
                        trailers.insert("grpc-status", "5".parse().unwrap());
                        reply.send_trailers(trailers).unwrap();
                    });
                }
            });
        }
    });
    address
}
