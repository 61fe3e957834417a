//! meshd from outside: what a host may get and what it may not, over the real port, in one process.
#![allow(clippy::unwrap_used, reason = "a failed step of a test is a failed test")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use hyper_util::rt::TokioIo;
use mesh_core::snapshot::Version;
use mesh_core::snapshot::section::{Section, SectionKey};
use mesh_core::sync::message::{Ack, DeltaMessage, Nack};
use mesh_core::sync::subscriber::Subscriber;
use mesh_core::vocab::health::Health;
use mesh_core::vocab::node::{Node, Role};
use mesh_proto::convert::message::{Assembly, ClientMessage};
use mesh_proto::generated as wire;
use mesh_proto::generated::announcement::News;
use mesh_proto::generated::discovery_client::DiscoveryClient;
use mesh_proto::generated::identity_client::IdentityClient;
use mesh_proto::generated::registry_client::RegistryClient;
use meshd::admin::client::Client;
use meshd::admin::view::{
    AppliedView, ApplyRequest, DrainRequest, FileView, HealthView, NewTokenView, NodeView, ServiceView,
    StatusView, SyncView, TokenRequestView, WorkloadView,
};
use meshd::app::App;
use meshd::cli::{Cli, Command};
use meshd::telemetry::Metrics;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Streaming};

/// Only guards against hanging.
const LONG: Duration = Duration::from_secs(20);

async fn start(data_dir: &Path, more: &[&str]) -> App {
    let dir = data_dir.to_str().unwrap();
    let mut arguments =
        vec!["meshd", "serve", "--data-dir", dir, "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"];
    arguments.extend(more);
    if !more.contains(&"--lease") {
        // No host of these tests is missed because the machine is slow.
        arguments.extend(["--lease", "60s"]);
    }
    let Command::Serve(args) = Cli::try_parse_from(arguments).unwrap().command else { panic!("not serve") };
    App::start(*args, Metrics::install()).await.unwrap()
}

fn admin(app: &App) -> Client {
    Client::new(&format!("unix:{}", app.socket.display())).unwrap()
}

async fn apply(app: &App, text: &str) -> u64 {
    let files = vec![FileView { name: "test.yaml".to_owned(), text: text.to_owned() }];
    let request = ApplyRequest { files, ..ApplyRequest::default() };
    admin(app).post::<AppliedView>("/v1/apply", &request).await.unwrap().version
}

async fn token(app: &App, node: &str, accounts: &[&str]) -> String {
    let request = TokenRequestView {
        node: node.to_owned(),
        service_accounts: accounts.iter().map(|&account| account.to_owned()).collect(),
        ttl_seconds: 60,
        uses: 1,
    };
    admin(app).post::<NewTokenView>("/v1/tokens", &request).await.unwrap().token
}

/// A host with one key.
struct Host {
    name: &'static str,
    key: KeyPair,
    chain: Vec<CertificateDer<'static>>,
    root: CertificateDer<'static>,
    grpc: std::net::SocketAddr,
}

impl Host {
    fn new(app: &App, name: &'static str) -> Host {
        let root = std::fs::read(app.socket.with_file_name("ca").join("root.pem")).unwrap();
        Host {
            name,
            key: KeyPair::generate().unwrap(),
            chain: Vec::new(),
            root: CertificateDer::from_pem_slice(&root).unwrap(),
            grpc: app.grpc,
        }
    }

    async fn joined(app: &App, name: &'static str, accounts: &[&str]) -> Host {
        let mut host = Host::new(app, name);
        host.join(&token(app, name, accounts).await).await.unwrap();
        host
    }

    fn csr(&self) -> Vec<u8> {
        CertificateParams::default().serialize_request(&self.key).unwrap().der().to_vec()
    }

    async fn channel(&self) -> Channel {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = if self.chain.is_empty() {
            config.with_no_client_auth()
        } else {
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
            config.with_client_auth_cert(self.chain.clone(), key).unwrap()
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let address = self.grpc;
        let connect = tower::service_fn(move |_: Uri| {
            let connector = connector.clone();
            async move {
                let stream = TcpStream::connect(address).await?;
                let name = ServerName::try_from("localhost").unwrap();
                Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, stream).await?))
            }
        });
        Endpoint::from_static("https://localhost").connect_with_connector(connect).await.unwrap()
    }

    async fn join(&mut self, token: &str) -> Result<(), tonic::Status> {
        let request = wire::JoinRequest {
            token: token.to_owned(),
            node: self.name.to_owned(),
            csr: self.csr(),
            address: "10.0.0.1".to_owned(),
        };
        let answer = IdentityClient::new(self.channel().await).join(request).await?.into_inner();
        let svid = answer.svid.unwrap();
        assert_eq!(svid.spiffe_id, format!("spiffe://cluster.local/mesh/node/{}", self.name));
        self.chain = svid.chain.into_iter().map(CertificateDer::from).collect();
        Ok(())
    }

    async fn issue(&self, namespace: &str, account: &str) -> Result<wire::Svid, tonic::Status> {
        let request = wire::IssueRequest {
            namespace: namespace.to_owned(),
            service_account: account.to_owned(),
            csr: self.csr(),
        };
        Ok(IdentityClient::new(self.channel().await).issue(request).await?.into_inner())
    }
}

/// A host's announcement stream.
struct Announcing {
    sender: mpsc::Sender<wire::Announcement>,
    answers: Streaming<wire::Announced>,
}

impl Announcing {
    async fn open(host: &Host) -> Announcing {
        let (sender, receiver) = mpsc::channel(4);
        let stream = ReceiverStream::new(receiver);
        let answers = RegistryClient::new(host.channel().await).announce(stream).await.unwrap().into_inner();
        Announcing { sender, answers }
    }

    async fn say(&mut self, news: News) -> Result<wire::Announced, tonic::Status> {
        let message = wire::Announcement { sequence: 7, news: Some(news) };
        self.sender.send(message).await.unwrap();
        let answer = tokio::time::timeout(LONG, self.answers.message()).await.expect("no answer")?;
        let answer = answer.expect("the stream ended");
        assert_eq!(answer.sequence, 7);
        Ok(answer)
    }

    async fn register(&mut self, address: &str, yaml: &str, service: Option<&str>) -> wire::Announced {
        let services = service.map(|name| wire::LocalService {
            name: name.to_owned(),
            port: 8080,
            protocol: "http".to_owned(),
            ..wire::LocalService::default()
        });
        let registration = wire::Registration {
            address: address.to_owned(),
            mesh_port: 15008,
            documents: vec![wire::Document { file: "w.yaml".to_owned(), content: yaml.to_owned().into() }],
            services: services.into_iter().collect(),
            health: None,
            leaving: false,
        };
        self.say(News::Registration(registration)).await.unwrap()
    }

    async fn report(&mut self, name: &str, health: wire::Health) {
        let workload = wire::WorkloadHealth {
            namespace: "default".to_owned(),
            name: name.to_owned(),
            health: health.into(),
            reason: "connection refused".to_owned(),
            ..wire::WorkloadHealth::default()
        };
        self.say(News::Health(wire::HealthReport { workloads: vec![workload], ejected: Vec::new() }))
            .await
            .unwrap();
    }
}

/// A host's discovery stream, with the client half that proxies use.
struct Following {
    sender: mpsc::Sender<wire::ClientMessage>,
    answers: Streaming<wire::ServerMessage>,
    assembly: Assembly,
    subscriber: Subscriber,
}

impl Following {
    async fn open(host: &Host) -> Following {
        let node = Node { name: host.name.into(), address: "10.0.0.1".parse().unwrap(), role: Role::Host };
        let mut subscriber = Subscriber::new(node, None);
        let (sender, receiver) = mpsc::channel(4);
        sender.send(ClientMessage::Hello(subscriber.hello()).encode()).await.unwrap();
        let stream = ReceiverStream::new(receiver);
        let answers = DiscoveryClient::new(host.channel().await).stream(stream).await.unwrap().into_inner();
        Following { sender, answers, assembly: Assembly::default(), subscriber }
    }

    async fn message(&mut self) -> Result<wire::ServerMessage, tonic::Status> {
        let message = tokio::time::timeout(LONG, self.answers.message()).await.expect("no delta")?;
        Ok(message.expect("the stream ended"))
    }

    async fn delta(&mut self) -> DeltaMessage {
        loop {
            let message = self.message().await.unwrap();
            if let Some(delta) = self.assembly.push(message).unwrap() {
                return delta.unwrap();
            }
        }
    }

    /// The next delta, acknowledged.
    async fn follow(&mut self) -> DeltaMessage {
        let delta = self.delta().await;
        self.subscriber.on_delta(&delta);
        let ack: Ack = self.subscriber.accept(delta.nonce, Vec::new()).unwrap();
        self.sender.send(ClientMessage::Ack(ack).encode()).await.unwrap();
        delta
    }

    /// Follows until the snapshot in force is as wished.
    async fn until(&mut self, wished: impl Fn(&mesh_core::snapshot::Snapshot) -> bool) {
        while !self.subscriber.current().is_some_and(|snapshot| wished(snapshot)) {
            self.follow().await;
        }
    }

    fn health_of(snapshot: &mesh_core::snapshot::Snapshot, name: &str) -> Option<Health> {
        snapshot.sections.values().find_map(|entry| match &*entry.section {
            Section::Endpoints(slice) => slice
                .endpoints
                .iter()
                .find(|endpoint| &*endpoint.workload.name == name)
                .map(|found| found.health),
            _ => None,
        })
    }
}

fn workload(name: &str, account: &str, address: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: {name}}}\n\
         spec: {{address: {address}, serviceAccount: {account}, labels: {{app: {account}}}}}\n---\n"
    )
}

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: reviews}\n\
     spec: {selector: {app: reviews}, ports: [{name: http, port: 9080}]}\n";

#[tokio::test]
async fn a_token_lets_one_key_in() {
    let dir = tempfile::tempdir().unwrap();
    let app = start(dir.path(), &[]).await;
    let token = token(&app, "h1", &["default/reviews"]).await;
    let mut host = Host::new(&app, "h1");
    let early = host.issue("default", "reviews").await.unwrap_err();
    assert_eq!(early.code(), Code::Unauthenticated);
    host.join(&token).await.unwrap();
    host.chain.clear();
    host.join(&token).await.expect("the same key may repeat it");

    let mut thief = Host::new(&app, "h1");
    let refused = thief.join(&token).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("another key"), "{refused}");
    let mut other = Host::new(&app, "h2");
    assert_eq!(other.join(&token).await.unwrap_err().code(), Code::PermissionDenied);

    let svid = host.issue("default", "reviews").await.unwrap();
    assert_eq!(svid.spiffe_id, "spiffe://cluster.local/ns/default/sa/reviews");
    let outside = host.issue("default", "ratings").await.unwrap_err();
    assert_eq!(outside.code(), Code::PermissionDenied);
    assert!(outside.message().contains("meshd node allow h1 default/ratings"), "{outside}");
    app.stop().await;
}

#[tokio::test]
async fn a_workload_s_certificate_opens_nothing_here() {
    let dir = tempfile::tempdir().unwrap();
    let app = start(dir.path(), &[]).await;
    let mut host = Host::joined(&app, "h1", &["default/reviews"]).await;
    let svid = host.issue("default", "reviews").await.unwrap();
    host.chain = svid.chain.into_iter().map(CertificateDer::from).collect();
    assert_eq!(host.issue("default", "reviews").await.unwrap_err().code(), Code::PermissionDenied);
    app.stop().await;
}

#[tokio::test]
async fn what_a_node_announces_reaches_the_others_when_it_is_healthy() {
    let dir = tempfile::tempdir().unwrap();
    let app = start(dir.path(), &[]).await;
    apply(&app, SERVICE).await;
    let host = Host::joined(&app, "h1", &["default/reviews", "default/hello"]).await;
    let mut announcing = Announcing::open(&host).await;
    let yaml = workload("reviews-v1", "reviews", "10.0.0.1")
        + &workload("alien", "ratings", "10.0.0.1")
        + &workload("elsewhere", "reviews", "10.0.0.9");
    let answer = announcing.register("10.0.0.1", &yaml, Some("hello")).await;
    assert_eq!(answer.workloads.len(), 2, "{answer:?}");
    assert_eq!(answer.problems.len(), 2, "{answer:?}");
    let statuses: Vec<StatusView> = admin(&app).get("/v1/status").await.unwrap();
    assert_eq!(statuses[0].refused, answer.problems, "the operator sees it too");

    let other = Host::joined(&app, "h2", &[]).await;
    let mut following = Following::open(&other).await;
    following.until(|snapshot| Following::health_of(snapshot, "reviews-v1") == Some(Health::Unknown)).await;
    announcing.report("reviews-v1", wire::Health::Healthy).await;
    let delta = following.follow().await;
    let touched: Vec<_> = delta.delta.upserts.iter().map(|(key, _)| key.clone()).collect();
    let slice =
        SectionKey::Endpoints { host: "reviews.default.svc.cluster.local".into(), scope: None, slice: 0 };
    assert_eq!(touched, [slice], "one endpoint's health is one endpoint slice");
    assert!(
        following.subscriber.current().is_some_and(|snapshot| {
            Following::health_of(snapshot, "reviews-v1") == Some(Health::Healthy)
        })
    );

    let services: Vec<ServiceView> = admin(&app).get("/v1/services").await.unwrap();
    let hello = services.iter().find(|service| service.name == "hello").expect("made by the short form");
    assert_eq!((hello.workloads, hello.healthy, hello.ports[0].port), (1, 0, 8080));

    // A health report about another node's workload changes nothing.
    let mut intruder = Announcing::open(&other).await;
    intruder.register("10.0.0.2", "", None).await;
    intruder.report("reviews-v1", wire::Health::Unhealthy).await;
    let workloads: Vec<WorkloadView> = admin(&app).get("/v1/workloads").await.unwrap();
    let reviews = workloads.iter().find(|workload| workload.name == "reviews-v1").unwrap();
    assert_eq!((reviews.health.as_str(), reviews.node.as_str()), ("healthy", "h1"));
    app.stop().await;
}

#[tokio::test]
async fn after_a_restart_the_others_are_still_there() {
    let dir = tempfile::tempdir().unwrap();
    let app = start(dir.path(), &[]).await;
    let version = apply(&app, SERVICE).await;
    let mut host = Host::joined(&app, "h1", &["*"]).await;
    let mut announcing = Announcing::open(&host).await;
    announcing.register("10.0.0.1", &workload("reviews-v1", "reviews", "10.0.0.1"), None).await;
    announcing.report("reviews-v1", wire::Health::Healthy).await;
    app.stop().await;

    let app = start(dir.path(), &[]).await;
    assert_eq!(app.version, version);
    host.grpc = app.grpc;
    let mut following = Following::open(&host).await;
    following.follow().await;
    let snapshot = following.subscriber.current().unwrap();
    assert_eq!(snapshot.version, Version { number: version, revision: 0 });
    assert_eq!(Following::health_of(snapshot, "reviews-v1"), Some(Health::Healthy));
    assert!(snapshot.sections.keys().any(|key| matches!(key, SectionKey::Workload(_))));
    app.stop().await;
}

async fn drain(app: &App, node: &str, verb: &str, timeout_ms: u64) -> Vec<String> {
    let path = format!("/v1/nodes/{node}/{verb}");
    let answer: SyncView = admin(app).post(&path, &DrainRequest { timeout_ms }).await.unwrap();
    answer.lagging.into_iter().map(|proxy| proxy.node).collect()
}

async fn fares(app: &App, workload: &str) -> (String, String) {
    let rows: Vec<HealthView> = admin(app).get("/v1/health").await.unwrap();
    let row = rows.into_iter().find(|row| row.workload == workload).unwrap();
    (row.health, row.reason)
}

/// Waits until a workload fares so.
async fn comes(app: &App, workload: &str, health: &str, reason: &str) {
    let mut seen = Default::default();
    let waiting = async {
        loop {
            seen = fares(app, workload).await;
            if seen.0 == health && seen.1.starts_with(reason) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let came = tokio::time::timeout(LONG, waiting).await;
    assert!(came.is_ok(), "{workload} is {seen:?}, not {health} {reason}");
}

#[tokio::test]
async fn a_farewell_is_answered_when_callers_have_left() {
    let dir = tempfile::tempdir().unwrap();
    let app = start(dir.path(), &[]).await;
    apply(&app, SERVICE).await;
    let host = Host::joined(&app, "h1", &["*"]).await;
    let mut announcing = Announcing::open(&host).await;
    let yaml = workload("reviews-v1", "reviews", "10.0.0.1");
    announcing.register("10.0.0.1", &yaml, None).await;
    announcing.report("reviews-v1", wire::Health::Healthy).await;
    let caller = Host::joined(&app, "h2", &[]).await;
    let mut following = Following::open(&caller).await;
    let is = |health| {
        move |snapshot: &mesh_core::snapshot::Snapshot| {
            Following::health_of(snapshot, "reviews-v1") == Some(health)
        }
    };
    following.until(is(Health::Healthy)).await;

    let departure = Some(News::Departure(wire::Departure {}));
    announcing.sender.send(wire::Announcement { sequence: 8, news: departure }).await.unwrap();
    announcing.sender.send(wire::Announcement { sequence: 9, news: None }).await.unwrap();
    let alive = tokio::time::timeout(LONG, announcing.answers.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(alive.sequence, 9, "the caller has not acknowledged yet");
    following.until(is(Health::Unhealthy)).await;
    let left = tokio::time::timeout(LONG, announcing.answers.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(left.sequence, 8);
    assert_eq!(fares(&app, "reviews-v1").await, ("draining".into(), "its proxy is ending".into()));

    // It starts anew.
    announcing.register("10.0.0.1", &yaml, None).await;
    announcing.report("reviews-v1", wire::Health::Healthy).await;
    following.until(is(Health::Healthy)).await;
    assert_eq!(drain(&app, "h1", "drain", 100).await, ["h2"]);
    following.until(is(Health::Unhealthy)).await;
    assert!(drain(&app, "h1", "drain", 20_000).await.is_empty());
    assert_eq!(fares(&app, "reviews-v1").await, ("draining".into(), "its host is drained".into()));
    let statuses: Vec<StatusView> = admin(&app).get("/v1/status").await.unwrap();
    assert_eq!(statuses.iter().map(|one| one.draining).collect::<Vec<_>>(), [true, false]);
    app.stop().await;

    let app = start(dir.path(), &[]).await;
    assert_eq!(fares(&app, "reviews-v1").await.0, "draining");
    assert!(drain(&app, "h1", "undrain", 20_000).await.is_empty());
    assert_eq!(fares(&app, "reviews-v1").await.0, "healthy");
    app.stop().await;
}

#[tokio::test]
async fn what_is_declared_of_a_host_that_is_gone_gets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let app = start(dir.path(), &["--lease", "1s"]).await;
    apply(&app, &format!("{SERVICE}---\n{}", workload("reviews-v1", "reviews", "10.0.0.1"))).await;
    let host = Host::joined(&app, "h1", &["*"]).await;
    let mut announcing = Announcing::open(&host).await;
    announcing.register("10.0.0.1", "", None).await;
    announcing.report("reviews-v1", wire::Health::Healthy).await;
    comes(&app, "reviews-v1", "healthy", "").await;
    let away = "nothing was heard of its host for a lease";
    comes(&app, "reviews-v1", "unhealthy", away).await;
    app.stop().await;
    let app = start(dir.path(), &[]).await;
    assert_eq!(fares(&app, "reviews-v1").await, ("unhealthy".into(), away.into()));
    app.stop().await;
}

#[tokio::test]
async fn who_flaps_is_kept_out_while_others_are_well() {
    let dir = tempfile::tempdir().unwrap();
    let app = start(dir.path(), &["--flap-hold", "1h", "--flap-hold-max", "1h"]).await;
    apply(&app, SERVICE).await;
    let mut hosts = Vec::new();
    for (node, name, address) in [("h1", "reviews-v1", "10.0.0.1"), ("h2", "reviews-v2", "10.0.0.2")] {
        let mut announcing = Announcing::open(&Host::joined(&app, node, &["*"]).await).await;
        announcing.register(address, &workload(name, "reviews", address), None).await;
        announcing.report(name, wire::Health::Healthy).await;
        hosts.push(announcing);
    }
    comes(&app, "reviews-v2", "healthy", "").await;
    for _ in 0..3 {
        comes(&app, "reviews-v1", "healthy", "").await;
        hosts[0].report("reviews-v1", wire::Health::Unhealthy).await;
        hosts[0].report("reviews-v1", wire::Health::Healthy).await;
    }
    comes(&app, "reviews-v1", "unhealthy", "flapping: fell 3 times, kept out until ").await;
    // The only other one falls: now it is needed.
    hosts[1].report("reviews-v2", wire::Health::Unhealthy).await;
    comes(&app, "reviews-v1", "healthy", "").await;
    app.stop().await;
}

#[tokio::test]
async fn acks_and_nacks_are_seen_by_the_operator() {
    let dir = tempfile::tempdir().unwrap();
    let app = start(dir.path(), &[]).await;
    let host = Host::joined(&app, "h1", &[]).await;
    let mut following = Following::open(&host).await;
    following.follow().await;
    let version = apply(&app, SERVICE).await;
    let wait = |timeout: u64| format!("/v1/wait?version={version}&timeout_ms={timeout}");
    let behind: SyncView = admin(&app).get(&wait(50)).await.unwrap();
    assert_eq!(behind.lagging.len(), 1);
    assert_eq!(behind.lagging[0].node, "h1");

    let delta = following.delta().await;
    let nack = Nack { nonce: delta.nonce, reasons: vec![(None, "cannot build".to_owned())] };
    following.sender.send(ClientMessage::Nack(nack).encode()).await.unwrap();
    let path = "/v1/status";
    let mut seen: Vec<StatusView> = Vec::new();
    for _ in 0..200 {
        seen = admin(&app).get(path).await.unwrap();
        if seen[0].state == "REJECTED" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!((seen[0].state.as_str(), seen[0].reason.as_str()), ("REJECTED", "cannot build"));

    let version = apply(&app, &SERVICE.replace("9080", "9081")).await;
    following.follow().await;
    let path = format!("/v1/wait?version={version}&timeout_ms=20000");
    let synced: SyncView = admin(&app).get(&path).await.unwrap();
    assert!(synced.lagging.is_empty());

    let _node: NodeView = admin(&app).post("/v1/nodes/h1/revoke", &serde_json::json!({})).await.unwrap();
    let status = loop {
        match following.message().await {
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(host.issue("default", "x").await.unwrap_err().code(), Code::PermissionDenied);
    app.stop().await;
}

#[tokio::test]
async fn what_config_owns_is_changed_there_only() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config");
    std::fs::create_dir(&config).unwrap();
    let file = config.join("reviews.yaml");
    std::fs::write(&file, SERVICE).unwrap();
    let data = dir.path().join("data");
    let app = start(&data, &["--config", config.to_str().unwrap()]).await;
    assert_eq!(app.version, 1);
    let files = vec![FileView { name: "x.yaml".to_owned(), text: SERVICE.replace("9080", "1") }];
    let request = ApplyRequest { files, ..ApplyRequest::default() };
    let refused = admin(&app).post::<AppliedView>("/v1/apply", &request).await.unwrap_err();
    let meshd::admin::client::ClientError::Refused(refusal) = refused else { panic!("{refused}") };
    assert!(refusal.diagnostics[0].message.contains("reviews.yaml"), "{refusal:?}");

    // A broken change leaves what was in force; its repair comes in by itself.
    std::fs::write(&file, "kind: Nonsense").unwrap();
    app.reload().await;
    std::fs::write(&file, SERVICE.replace("9080", "9090")).unwrap();
    let wished =
        |services: &[ServiceView]| services.first().is_some_and(|service| service.ports[0].port == 9090);
    let mut services: Vec<ServiceView> = Vec::new();
    for _ in 0..500 {
        services = admin(&app).get("/v1/services").await.unwrap();
        assert_eq!(services.len(), 1);
        if wished(&services) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(wished(&services), "the change was not taken in");
    app.stop().await;

    let app = start(&data, &["--config", config.to_str().unwrap()]).await;
    assert_eq!(app.version, 2, "an unchanged configuration is no new version");
    app.stop().await;
}
