//! What goes on is judged again when policies change: what is denied now is closed at the called host, and no other.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderName, Request};
use mesh_core::matching::path::PathMatch;
use mesh_core::matching::text::TextMatch;
use mesh_core::policy::authorization::{
    AuthorizationPolicy, AuthorizationRule, Condition, Operation, PolicyAction, Values,
};
use mesh_core::vocab::protocol::Protocol;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::harness::{Mesh, Plan, echo, grpc_echo};
use super::policy::allow;

/// Nothing is closed later than this after a policy is in force.
const SOON: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(5);

fn one<M>(value: M) -> Values<M> {
    Values { any: vec![value], none: vec![] }
}

fn policy(name: &str, action: PolicyAction, rule: AuthorizationRule) -> AuthorizationPolicy {
    AuthorizationPolicy { name: name.into(), action, rules: vec![rule], ..allow("nobody") }
}

/// Denies paths that begin so.
fn deny_path(prefix: &str) -> AuthorizationPolicy {
    let paths = one(PathMatch::Text(TextMatch::Prefix(prefix.into())));
    let to = vec![Operation { paths, ..Operation::default() }];
    policy("no-path", PolicyAction::Deny, AuthorizationRule { to, ..AuthorizationRule::default() })
}

/// Denies requests of one user.
fn deny_user(name: &str) -> AuthorizationPolicy {
    let is_user = one(TextMatch::Exact(name.into()));
    let when = vec![Condition::Header(HeaderName::from_static("user"), is_user)];
    policy("no-user", PolicyAction::Deny, AuthorizationRule { when, ..AuthorizationRule::default() })
}

fn cut_off(mesh: &Mesh, kind: &str) -> u64 {
    mesh.b.metric("mesh_proxy_authorization_cut_off_total", &[&format!("kind=\"{kind}\"")])
}

async fn eventually(holds: impl Fn() -> bool) -> bool {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, waiting).await.is_ok()
}

/// What a stream says until it ends.
async fn end_of(mut body: RecvStream) -> String {
    while let Some(data) = body.data().await {
        if let Err(error) = data {
            return error.to_string();
        }
    }
    let trailers = body.trailers().await.unwrap().unwrap_or_default();
    format!("{:?} {:?}", trailers.get("grpc-status"), trailers.get("grpc-message"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_stream_that_is_denied_hears_so_and_the_others_go_on() {
    let plan = Plan { protocol: Protocol::Grpc, ..Plan::new(&[grpc_echo("127.0.0.2").await]) };
    let mut mesh = Mesh::start(plan).await;
    let stream = TcpStream::connect(mesh.a.explicit).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut open = async |path: &str| {
        let request = Request::post(format!("http://reviews:9080{path}")).header("te", "trailers");
        let request = request.header("content-type", "application/grpc").body(()).unwrap();
        let (answer, mut upload) = client.send_request(request, false).unwrap();
        upload.send_data(Bytes::from_static(b"one"), false).unwrap();
        let mut body = answer.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "one");
        (body, upload)
    };
    let (doomed, _upload) = open("/doomed").await;
    let (mut kept, mut upload) = open("/kept").await;
    // A policy that is about neither closes nothing.
    mesh.change(2, |plan| plan.policies = vec![deny_path("/elsewhere")]).await;
    mesh.change(3, |plan| plan.policies = vec![deny_path("/doomed")]).await;
    let ended = timeout(SOON, end_of(doomed)).await.expect("it is closed");
    assert_eq!(ended, r#"Some("7") Some("RBAC: access denied")"#);
    upload.send_data(Bytes::from_static(b"two"), false).unwrap();
    assert_eq!(timeout(PATIENCE, kept.data()).await.unwrap().unwrap().unwrap(), "two");
    assert_eq!(cut_off(&mesh, "request"), 1);
}

/// Answers with a body that never ends, and tells when nobody wants it any more.
async fn endless() -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let tell = tell.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else { return };
                    head.push(byte);
                }
                let head = String::from_utf8(head).unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n").await.unwrap();
                let slow = head.contains("pace: slow");
                let part = vec![b'x'; if slow { 10 } else { 64 * 1024 }];
                while stream.write_all(&part).await.is_ok() {
                    if slow {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
                let _told = tell.try_send(head);
            });
        }
    });
    (address, told)
}

async fn download(mesh: &Mesh, user: &str, pace: &str) -> TcpStream {
    let mut stream = TcpStream::connect(mesh.a.explicit).await.unwrap();
    let head = format!(
        "GET http://reviews:9080/big HTTP/1.1\r\nhost: reviews:9080\r\nuser: {user}\r\npace: {pace}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_is_denied_breaks_off_and_the_others_go_on() {
    let (address, _told) = endless().await;
    let mut mesh = Mesh::start(Plan::new(&[address])).await;
    let mut doomed = download(&mesh, "bob", "slow").await;
    let mut kept = download(&mesh, "ann", "slow").await;
    mesh.change(2, |plan| plan.policies = vec![deny_user("bob")]).await;
    let mut rest = Vec::new();
    assert!(timeout(SOON, doomed.read_to_end(&mut rest)).await.is_ok(), "still open");
    let mut more = [0; 4096];
    kept.read_exact(&mut more).await.unwrap();
    assert_eq!(cut_off(&mesh, "request"), 1);
    let label = ["response_code=\"200\"", "reporter=\"destination\"", "response_flags=\"-\""];
    assert!(eventually(|| mesh.b.metric("istio_requests_total", &label) == 1).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_keeps_nothing_open() {
    let (address, mut told) = endless().await;
    let mut mesh = Mesh::start(Plan::new(&[address])).await;
    let _stalled = download(&mesh, "bob", "fast").await;
    let _kept = download(&mesh, "ann", "fast").await;
    // All windows on the way fill.
    tokio::time::sleep(Duration::from_millis(500)).await;
    mesh.change(2, |plan| plan.policies = vec![deny_user("bob")]).await;
    let closed = timeout(SOON, told.recv()).await.expect("it is closed").unwrap();
    assert!(closed.contains("user: bob"), "{closed}");
    assert_eq!(cut_off(&mesh, "request"), 1);
    assert!(told.try_recv().is_err(), "the other goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_answered_yet_is_answered_with_403() {
    // Accepts and says nothing.
    let deaf = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let mut mesh = Mesh::start(Plan::new(&[deaf.local_addr().unwrap()])).await;
    let explicit = mesh.a.explicit;
    let request = Request::get("http://reviews:9080/wait").body(Default::default()).unwrap();
    let waiting = tokio::spawn(super::harness::exchange(explicit, request));
    let (_taken, _) = deaf.accept().await.unwrap();
    mesh.change(2, |plan| plan.policies = vec![deny_path("/wait")]).await;
    let answer = timeout(SOON, waiting).await.expect("it is answered").unwrap();
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (403, "RBAC: access denied"));
    assert_eq!(cut_off(&mesh, "request"), 1);
}

/// Sends back what it hears, on a stream or behind a head that agrees to a WebSocket.
async fn parrot(websocket: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                if websocket {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(stream.read_u8().await.unwrap());
                    }
                    let agreed = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
                    stream.write_all(agreed.as_bytes()).await.unwrap();
                }
                let (mut read, mut write) = stream.split();
                drop(tokio::io::copy(&mut read, &mut write).await);
            });
        }
    });
    address
}

async fn goes_on(stream: &mut TcpStream) {
    stream.write_all(b"ping").await.unwrap();
    let mut heard = [0; 4];
    timeout(PATIENCE, stream.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(&heard, b"ping");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_that_is_denied_is_closed_and_the_others_go_on() {
    let mut mesh = Mesh::start(Plan::new(&[parrot(true).await])).await;
    let open = async |path: &str| {
        let mut stream = TcpStream::connect(mesh.a.explicit).await.unwrap();
        let head = format!(
            "GET http://reviews:9080{path} HTTP/1.1\r\nhost: reviews:9080\r\nconnection: Upgrade\r\n\
             upgrade: websocket\r\nsec-websocket-key: x\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await.unwrap());
        }
        assert!(answer.starts_with(b"HTTP/1.1 101"));
        goes_on(&mut stream).await;
        stream
    };
    let mut doomed = open("/doomed").await;
    let mut kept = open("/kept").await;
    mesh.change(2, |plan| plan.policies = vec![deny_path("/doomed")]).await;
    let mut rest = Vec::new();
    assert!(timeout(SOON, doomed.read_to_end(&mut rest)).await.is_ok(), "still open");
    goes_on(&mut kept).await;
    assert_eq!(cut_off(&mesh, "request"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_denied_is_closed_and_a_policy_that_allows_it_changes_nothing() {
    let plan = Plan { protocol: Protocol::Tcp, ..Plan::new(&[parrot(false).await]) };
    let mut mesh = Mesh::start(plan).await;
    let (mut stream, _) = super::streams::connect(&mesh, "reviews:9080").await;
    goes_on(&mut stream).await;
    let caller = || allow("cluster.local/ns/default/sa/a");
    mesh.change(2, |plan| plan.policies = vec![caller()]).await;
    goes_on(&mut stream).await;
    // On a stream a DENY rule on paths is about everything (Istio).
    mesh.change(3, |plan| plan.policies = vec![caller(), deny_path("/x")]).await;
    let mut rest = Vec::new();
    assert!(timeout(SOON, stream.read_to_end(&mut rest)).await.is_ok(), "still open");
    assert!(eventually(|| cut_off(&mesh, "stream") == 1).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_and_dry_run_are_counted_and_change_nothing() {
    let rule = || deny_path("/a").rules.remove(0);
    let audit = policy("audit", PolicyAction::Audit, rule());
    let dry = AuthorizationPolicy { dry_run: true, ..policy("dry", PolicyAction::Deny, rule()) };
    let policies = vec![audit, dry];
    let mesh = Mesh::start(Plan { policies, ..Plan::new(&[echo("127.0.0.2").await]) }).await;
    for (path, times) in [("/a", 2), ("/b", 3)] {
        for _ in 0..times {
            assert_eq!(mesh.get(&format!("http://reviews:9080{path}")).await.status, 200);
        }
    }
    let count =
        |name: &str, labels: &[&str]| mesh.b.metric(&format!("mesh_proxy_authorization_{name}"), labels);
    assert_eq!(count("audited_total", &["policy=\"default/audit\"", "workload=\"b0\""]), 2);
    assert_eq!(count("dry_run_total", &["policy=\"default/dry\"", "result=\"denied\""]), 2);
    assert_eq!(count("dry_run_total", &["policy=\"none\"", "result=\"allowed\""]), 3);
}
