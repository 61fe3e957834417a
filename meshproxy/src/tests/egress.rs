//! What leaves the mesh: unknown hosts under both policies, names that are resolved, what goes where it was sent.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mesh_core::resilience::retry::RetryPolicy;
use mesh_core::routing::rule::{Backend, HttpRule, TcpRule};
use mesh_core::snapshot::destination::Destination;
use mesh_core::snapshot::endpoints::{Endpoint, EndpointAddress, EndpointSlice};
use mesh_core::snapshot::routes::Routes;
use mesh_core::snapshot::section::Section;
use mesh_core::snapshot::service::{Port, Service};
use mesh_core::snapshot::view::{Outbound, View};
use mesh_core::vocab::health::Health;
use mesh_core::vocab::name::{DestinationKey, ServicePort, Text, WorkloadKey};
use mesh_core::vocab::protocol::Protocol;
use mesh_core::vocab::resolution::Resolution;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::harness::{HOST, Mesh, Plan, echo, origin};
use crate::dns::keep;

/// What the resolver answers now; `None` for a failure.
type Script = Arc<Mutex<Option<IpAddr>>>;

/// A resolver that knows one address, good for a second, for every name.
async fn resolver(script: &Script) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (address, script) = (socket.local_addr().unwrap(), Arc::clone(script));
    tokio::spawn(async move {
        let mut question = [0; 512];
        loop {
            let (length, from) = socket.recv_from(&mut question).await.unwrap();
            let mut answer = question[..length].to_vec();
            let found = *script.lock().unwrap();
            // The question ends with its type and class.
            let is_a = answer[length - 3] == 1;
            answer[2..4].copy_from_slice(if found.is_some() { &[0x81, 0x80] } else { &[0x81, 0x82] });
            if let (Some(IpAddr::V4(ip)), true) = (found, is_a) {
                answer[7] = 1;
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
                answer.extend(ip.octets());
            }
            socket.send_to(&answer, from).await.unwrap();
        }
    });
    address
}

/// A service of a host outside of the mesh, with all its sections.
fn external(host: &str, port: u16, resolution: Resolution, endpoint: Option<&str>) -> Vec<Section> {
    let host: Text = host.into();
    let protocol = Protocol::Http;
    let key = DestinationKey { host: host.clone(), port, subset: None, scope: None };
    let mut destination = Destination { resolution, ..Destination::plain(key, protocol) };
    destination.connect_timeout = Duration::from_secs(2);
    if resolution == Resolution::None {
        destination.load_balancer = mesh_core::balancing::policy::Algorithm::Passthrough;
    }
    let endpoint = endpoint.map(|name| Endpoint {
        workload: WorkloadKey { namespace: "default".into(), name: "e".into() },
        address: match name.starts_with(['/', '@']) {
            true => EndpointAddress::Unix(name.into()),
            false => EndpointAddress::Name(name.into()),
        },
        node: None,
        ports: vec![(port, port)],
        labels: Default::default(),
        identity: None,
        tunnel: None,
        plaintext_ports: Vec::new(),
        locality: Default::default(),
        network: None,
        weight: 1,
        health: Health::Healthy,
    });
    vec![
        Section::Service(Service {
            host: host.clone(),
            namespace: "default".into(),
            scope: None,
            exported_to: None,
            origin: origin(),
            names: Vec::new(),
            short_name: None,
            aliases: Vec::new(),
            ports: vec![Port { number: port, name: "http".into(), protocol }],
            addresses: Vec::new(),
            networks: Vec::new(),
            auto_address: None,
            resolution,
            headless: false,
            stands_for: None,
            offset: None,
            external: true,
        }),
        Section::Routes(Routes {
            at: ServicePort { host: host.clone(), port },
            scope: None,
            origin: None,
            http: vec![HttpRule::default_route(&origin(), host.clone(), port, RetryPolicy::default())],
            tcp: vec![TcpRule::default_route(&origin(), host.clone(), port)],
            tls: Vec::new(),
            fallback: None,
        }),
        Section::Destination(destination),
        Section::Endpoints(EndpointSlice {
            host,
            scope: None,
            slice: 0,
            endpoints: endpoint.into_iter().collect(),
        }),
    ]
}

fn view(outbound: Outbound) -> Section {
    Section::View(View { key: "v".into(), namespace: "default".into(), outbound, ..View::default() })
}

async fn connect(mesh: &Mesh, to: &str) -> String {
    let mut stream = TcpStream::connect(mesh.a.explicit).await.unwrap();
    stream.write_all(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n").as_bytes()).await.unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    String::from_utf8_lossy(&head).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_hosts_are_refused_or_passed_on() {
    let application = echo("127.0.0.3").await;
    let mut plan = Plan::new(&[]);
    plan.extra = vec![view(Outbound::Refuse)];
    plan.view = Some("v");
    let mut mesh = Mesh::start(plan).await;
    let url = format!("http://{application}/x");
    let refused = mesh.get(&url).await;
    assert_eq!((refused.status.as_u16(), refused.body.as_str()), (502, ""));
    assert_eq!(connect(&mesh, &application.to_string()).await, "HTTP/1.1 502");
    let black_hole = "destination_service_name=\"BlackHoleCluster\"";
    for (name, labels) in [
        ("istio_requests_total", &[black_hole, "response_code=\"502\""][..]),
        ("istio_tcp_connections_opened_total", &[black_hole, "response_flags=\"UH\""]),
    ] {
        assert_eq!(mesh.a.metric(name, labels), 1, "{}", mesh.a.shared.metrics.render());
    }
    mesh.change(2, |plan| plan.extra = vec![view(Outbound::Allow(None))]).await;
    assert_eq!(mesh.get(&url).await.status.as_u16(), 200);
    assert_eq!(connect(&mesh, &application.to_string()).await, "HTTP/1.1 200");
    let passed = ["destination_service_name=\"PassthroughCluster\"", "response_code=\"200\""];
    assert_eq!(mesh.a.metric("istio_requests_total", &passed), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_caller_does_not_see_is_unknown_to_it() {
    let mut plan = Plan::new(&[echo("127.0.0.3").await]);
    plan.exported_to = Some(vec!["other".into()]);
    plan.extra = vec![view(Outbound::Refuse)];
    plan.view = Some("v");
    let mut mesh = Mesh::start(plan).await;
    assert_eq!(mesh.get("http://reviews:9080/").await.status.as_u16(), 502);
    mesh.change(2, |plan| plan.exported_to = Some(vec!["default".into()])).await;
    assert_eq!(mesh.get("http://reviews:9080/").await.status.as_u16(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_endpoints_are_resolved_again() {
    let script: Script = Arc::new(Mutex::new(Some("127.0.0.3".parse().unwrap())));
    let application = echo("127.0.0.3").await;
    let port = application.port();
    let mut plan = Plan::new(&[]);
    plan.resolver = Some(resolver(&script).await);
    plan.extra = external("api.example", port, Resolution::Dns, Some("real.example"));
    let mesh = Mesh::start(plan).await;
    let url = format!("http://api.example:{port}/x");
    assert_eq!(mesh.get(&url).await.status.as_u16(), 503, "no address is known yet");
    let shared = &mesh.a.shared;
    let (roots, metrics) = (Arc::clone(&shared.roots), Arc::clone(&shared.metrics));
    let keeping = tokio::spawn(keep::keep(roots, shared.forwarder.clone(), metrics));
    tokio::time::timeout(Duration::from_secs(5), shared.roots.resolved()).await.unwrap();
    assert_eq!(mesh.get(&url).await.status.as_u16(), 200);
    // A failure keeps the last answer.
    *script.lock().unwrap() = None;
    let failed = "mesh_proxy_name_resolutions_total";
    let wait = async {
        while mesh.a.metric(failed, &["result=\"failed\""]) == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap();
    assert_eq!(mesh.get(&url).await.status.as_u16(), 200);
    // Nobody is at the new address.
    *script.lock().unwrap() = Some("127.0.0.4".parse().unwrap());
    let wait = async {
        while mesh.get(&url).await.status.as_u16() == 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap();
    keeping.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_endpoints_goes_to_the_name_that_is_asked_for() {
    let script: Script = Arc::new(Mutex::new(Some("127.0.0.3".parse().unwrap())));
    let port = echo("127.0.0.3").await.port();
    for (host, resolution) in [
        ("*.example", Resolution::DynamicDns),
        ("*.example", Resolution::None),
        ("api.example", Resolution::None),
    ] {
        let mut plan = Plan::new(&[]);
        plan.resolver = Some(resolver(&script).await);
        plan.extra = external(host, port, resolution, None);
        let mesh = Mesh::start(plan).await;
        let answer = mesh.get(&format!("http://api.example:{port}/x")).await;
        assert_eq!(answer.status.as_u16(), 200, "{host} {resolution:?} {}", answer.body);
        let labels = ["response_code=\"200\"", &format!("destination_service=\"{host}\"")];
        assert_eq!(mesh.a.metric("istio_requests_total", &labels), 1, "{}", mesh.a.shared.metrics.render());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_that_are_sockets_of_this_host() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock").display().to_string();
    let name = format!("@meshproxy-test-{}", std::process::id());
    for (at, bound) in [(&path, path.clone()), (&name, name.replacen('@', "\0", 1))] {
        let listener = tokio::net::UnixListener::bind(bound).unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    while stream.read(&mut request).await.is_ok_and(|length| length > 0) {
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
                        stream.write_all(answer).await.unwrap();
                    }
                });
            }
        });
        let mut plan = Plan::new(&[]);
        plan.extra = external("local.example", 80, Resolution::Static, Some(at));
        let mesh = Mesh::start(plan).await;
        for _ in 0..2 {
            let answer = mesh.get("http://local.example/x").await;
            assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, "hi"), "{at}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_egress_proxy_takes_what_is_unknown() {
    let mut plan = Plan::new(&[echo("127.0.0.3").await]);
    plan.extra = vec![view(Outbound::Allow(Some(Backend::whole(HOST.into(), 9080))))];
    plan.view = Some("v");
    let mesh = Mesh::start(plan).await;
    let answer = mesh.get("http://unknown.example/x").await;
    assert_eq!(answer.status.as_u16(), 200);
    assert!(answer.body.contains("host: unknown.example"), "{}", answer.body);
    let mut stream = TcpStream::connect(mesh.a.explicit).await.unwrap();
    stream
        .write_all(b"CONNECT unknown.example:5555 HTTP/1.1\r\nHost: unknown.example:5555\r\n\r\n")
        .await
        .unwrap();
    let mut head = [0; 256];
    let length = stream.read(&mut head).await.unwrap();
    assert!(head[..length].starts_with(b"HTTP/1.1 200"));
    // What speaks no HTTP gets there too: the application says what it thinks of it.
    stream.write_all(b"\x01\x02\x03\x04 hello\r\n\r\n").await.unwrap();
    let length = stream.read(&mut head).await.unwrap();
    assert!(head[..length].starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&head[..length]));
    let cluster = ["destination_service_name=\"reviews\"", "reporter=\"source\""];
    assert_eq!(mesh.a.metric("istio_tcp_connections_opened_total", &cluster), 1);
}
