//! Faults of connections on purpose.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use mesh_core::resilience::connection_fault::{ConnectionFault, ConnectionFaultKind};
use mesh_core::vocab::protocol::Protocol;
use mesh_core::vocab::ratio::Ratio;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::harness::{Mesh, Plan, application, default_rule, echo};
use super::streams::{connect, server_first};
use crate::runtime::clock;

fn with(applications: &[SocketAddr], kind: ConnectionFaultKind, left: i64) -> Plan {
    let until = clock::seconds().saturating_add_signed(left);
    let fault = ConnectionFault { kind, share: Ratio::ONE, until };
    Plan { shape: Box::new(move |destination| destination.fault = Some(fault)), ..Plan::new(applications) }
}

fn told(mesh: &Mesh, kind: &str, flags: &str) -> (u64, u64) {
    let flags = format!("response_flags=\"{flags}\"");
    (
        mesh.a.metric("mesh_proxy_faults_total", &[&format!("kind=\"{kind}\"")]),
        mesh.a.metric("istio_requests_total", &[&flags, "reporter=\"source\""]),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_come_later_there_and_back() {
    let mut mesh = Mesh::start(with(
        &[echo("127.0.0.2").await],
        ConnectionFaultKind::Latency(Duration::from_millis(60)),
        600,
    ))
    .await;
    let begun = Instant::now();
    assert_eq!(mesh.get("http://reviews:9080/").await.status, 200);
    assert!(begun.elapsed() >= Duration::from_millis(120));
    assert_eq!(told(&mesh, "latency", "DI"), (1, 1));
    // It is over, or further away than any may be: nothing happens.
    for (version, left) in [(2, -1), (3, 100_000)] {
        let until = clock::seconds().saturating_add_signed(left);
        mesh.change(version, |plan| {
            let kind = ConnectionFaultKind::Blackhole;
            let fault = ConnectionFault { kind, share: Ratio::ONE, until };
            plan.shape = Box::new(move |destination| destination.fault = Some(fault));
        })
        .await;
        assert_eq!(mesh.get("http://reviews:9080/").await.status, 200);
    }
    assert_eq!(told(&mesh, "blackhole", "-"), (0, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_reset_and_lost() {
    let reset = ConnectionFaultKind::Reset { after: 0 };
    let mesh = Mesh::start(with(&[echo("127.0.0.2").await], reset, 600)).await;
    let answer = mesh.get("http://reviews:9080/").await;
    assert_eq!(answer.status, 503);
    assert!(answer.body.ends_with("reset reason: connection termination"), "{}", answer.body);
    assert_eq!(told(&mesh, "reset", "FI,UC"), (1, 1), "{}", mesh.a.shared.metrics.render());
    let mut plan = with(&[echo("127.0.0.2").await], ConnectionFaultKind::Blackhole, 600);
    let mut rule = default_rule();
    rule.timeout = Some(Duration::from_millis(150));
    plan.rules = Some(vec![rule]);
    let mesh = Mesh::start(plan).await;
    assert_eq!(mesh.get("http://reviews:9080/").await.status, 504);
    assert_eq!(told(&mesh, "blackhole", "FI,UT"), (1, 1), "{}", mesh.a.shared.metrics.render());
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_slow_and_break_off() {
    let large =
        application("127.0.0.2", |_| async { Response::new(Full::new(Bytes::from(vec![7; 30_000]))) }).await;
    let mesh = Mesh::start(with(&[large], ConnectionFaultKind::Bandwidth(60_000), 600)).await;
    let begun = Instant::now();
    let answer = mesh.get("http://reviews:9080/").await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 30_000));
    assert!(begun.elapsed() >= Duration::from_millis(480), "{:?}", begun.elapsed());
    assert_eq!(told(&mesh, "bandwidth", "DI"), (1, 1));
    let mesh = Mesh::start(with(&[large], ConnectionFaultKind::Reset { after: 10_000 }, 600)).await;
    let answer = mesh.get("http://reviews:9080/").await;
    // What breaks off is not read as an answer.
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, ""));
    assert_eq!(mesh.a.metric("mesh_proxy_faults_total", &["kind=\"reset\""]), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn byte_streams_have_them_too() {
    let server = server_first().await;
    let tcp = |kind, left| Plan { protocol: Protocol::Tcp, ..with(&[server], kind, left) };
    let mesh = Mesh::start(tcp(ConnectionFaultKind::Latency(Duration::from_millis(80)), 600)).await;
    let (mut stream, _) = connect(&mesh, "reviews:9080").await;
    let begun = Instant::now();
    stream.write_all(b"world").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut heard = String::new();
    stream.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "hello world");
    assert!(begun.elapsed() >= Duration::from_millis(140), "{:?}", begun.elapsed());
    // Open, and nothing comes until it is over.
    let mesh = Mesh::start(tcp(ConnectionFaultKind::Blackhole, 2)).await;
    let (mut stream, head) = connect(&mesh, "reviews:9080").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    stream.write_all(b"world").await.unwrap();
    let nothing = tokio::time::timeout(Duration::from_millis(300), stream.read_u8()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    let ended = tokio::time::timeout(Duration::from_secs(20), stream.read_u8()).await;
    assert!(matches!(ended, Ok(Err(_))), "{ended:?}");
    let (mut stream, _) = connect(&mesh, "reviews:9080").await;
    assert_eq!(stream.read_u8().await.unwrap(), b'h');
    assert_eq!(mesh.a.metric("mesh_proxy_faults_total", &["kind=\"blackhole\""]), 1);
}
