//! What may come to the mesh port instead of a proxy: refused, counted by its reason, and no harm to others.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_core::vocab::identity::SpiffeId;
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::harness::{A, B, Mesh, OTHER, Plan, Proxy, echo};
use crate::identity::tests::{blind, certificates, certified, named};
use crate::identity::tls::server_name;
use crate::identity::tls::tests::TestCa;

const FAILURES: &str = "mesh_proxy_handshake_failures_total";

async fn start() -> Mesh {
    Mesh::start(Plan::new(&[echo("127.0.0.2").await])).await
}

/// Waits until so many failures of a reason are counted, or more: a caller tries again.
async fn counted(proxy: &Proxy, side: &str, reason: &str, count: u64) {
    let (side, reason) = (format!("side=\"{side}\""), format!("reason=\"{reason}\""));
    let end = Instant::now() + Duration::from_secs(20);
    while proxy.metric(FAILURES, &[&side, &reason]) < count {
        assert!(
            Instant::now() < end,
            "{reason} not counted {count} times: {}",
            proxy.shared.metrics.render()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The first bytes of a good client, as one record.
fn hello() -> Vec<u8> {
    let name = ServerName::try_from(server_name(&SpiffeId::parse(B).unwrap())).unwrap();
    let config = blind(None, &[&rustls::version::TLS13], &["h2"]);
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// A hello of TLS 1.0, which knows no extensions.
fn tls10() -> Vec<u8> {
    let body = [&[3, 1][..], &[7; 32], &[0, 0, 2, 0, 0x2f, 1, 0]].concat();
    let message = [&[1, 0, 0, body.len() as u8][..], &body].concat();
    [&[22, 3, 1, 0, message.len() as u8][..], &message].concat()
}

/// Sends bytes and reads what comes back until the proxy closes.
async fn say(to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut heard = Vec::new();
    let reading = stream.read_to_end(&mut heard);
    drop(tokio::time::timeout(Duration::from_secs(15), reading).await.expect("the proxy closes"));
    heard
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_handshake_is_refused_and_counted() {
    let mesh = start().await;
    let to = mesh.b.inbound;
    let rows: [(&[u8], &str); 5] = [
        (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", "no_tls"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "no_tls"),
        (&tls10(), "tls_version"),
        // A hello that says to be a megabyte long.
        (&[&[22, 3, 1, 0, 8, 1, 0x10, 0, 0][..], &[3; 4]].concat(), "too_large"),
        (&[22, 3, 1, 0, 4, 2, 0, 0, 0], "malformed"),
    ];
    let mut expected = std::collections::BTreeMap::new();
    for (bytes, reason) in rows {
        let heard = say(to, bytes).await;
        assert!(!heard.starts_with(b"HTTP"), "{reason}: {heard:?}");
        let count = expected.entry(reason).or_insert(0);
        *count += 1;
        counted(&mesh.b, "inbound", reason, *count).await;
    }
    assert_eq!(mesh.get("http://reviews:9080/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_hello_is_waited_for_and_no_longer() {
    let mesh = start().await;
    let began = Instant::now();
    let bytes = hello();
    say(mesh.b.inbound, &bytes[..bytes.len() / 2]).await;
    assert!((4..10).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    counted(&mesh.b, "inbound", "timeout", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_one_byte_are_put_together() {
    let mesh = start().await;
    let cut: Vec<u8> = hello()[5..].iter().flat_map(|byte| [22, 3, 1, 0, 1, *byte]).collect();
    let mut stream = TcpStream::connect(mesh.b.inbound).await.unwrap();
    stream.write_all(&cut).await.unwrap();
    let mut first = [0; 6];
    stream.read_exact(&mut first).await.unwrap();
    // A server's hello.
    assert_eq!((first[0], first[5]), (22, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_that_leave_in_the_middle_leave_nothing_behind() {
    let mesh = start().await;
    let mut bytes = hello();
    bytes.extend_from_slice(&[21, 3, 3, 0, 2, 1, 0]);
    for _ in 0..1000 {
        let mut stream = TcpStream::connect(mesh.b.inbound).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        // What the proxy had said by then is of no interest.
        drop(stream.read(&mut [0; 16]).await);
    }
    let end = Instant::now() + Duration::from_secs(20);
    while mesh.b.metric(FAILURES, &["side=\"inbound\""]) != 1000 {
        assert!(Instant::now() < end, "{}", mesh.b.shared.metrics.render());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(mesh.get("http://reviews:9080/").await.status, 200);
    let kinds = mesh.b.shared.metrics.render();
    assert!(kinds.lines().filter(|line| line.starts_with(FAILURES)).count() <= 3, "{kinds}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_proves_nothing_lets_nobody_in() {
    let mesh = start().await;
    let name = ServerName::try_from(server_name(&SpiffeId::parse(B).unwrap())).unwrap();
    let mut expected = std::collections::BTreeMap::new();
    let stranger = ("another authority", certified(&TestCa::new(), named(A)), Some("unknown_authority"));
    let rows =
        certificates().into_iter().map(|(case, change, told)| (case, certified(&mesh.ca, change), told));
    for (case, shown, told) in rows.chain([stranger]) {
        let config = Arc::new(blind(Some(shown), &[&rustls::version::TLS13], &["h2"]));
        let stream = TcpStream::connect(mesh.b.inbound).await.unwrap();
        let secured = tokio_rustls::TlsConnector::from(config).connect(name.clone(), stream).await;
        let Some(reason) = told else {
            assert!(secured.is_ok(), "{case}");
            continue;
        };
        // Nothing comes back but the end.
        if let Ok(mut stream) = secured {
            let mut heard = Vec::new();
            drop(stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await);
            drop(stream.read_to_end(&mut heard).await);
            assert!(heard.is_empty(), "{case}: {heard:?}");
        }
        let count = expected.entry(reason).or_insert(0);
        *count += 1;
        counted(&mesh.b, "inbound", reason, *count).await;
    }
    assert_eq!(mesh.get("http://reviews:9080/").await.status, 200);
}

/// An endpoint that is registered with one identity and answers with another.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_answers_in_the_place_of_another_is_not_spoken_to() {
    let mut mesh = start().await;
    mesh.change(2, |plan| plan.expected = OTHER).await;
    let answer = mesh.get("http://reviews:9080/").await;
    assert_eq!(answer.status, 503);
    // The host has no such workload, and says so.
    counted(&mesh.b, "inbound", "unknown_name", 1).await;
    assert!(mesh.a.metric(FAILURES, &["side=\"outbound\"", "reason=\"refused_by_peer\""]) >= 1);
    // It claims to have it, by a certificate of another authority.
    mesh.b.shared.svids.install(TestCa::new().svid(OTHER));
    assert_eq!(mesh.get("http://reviews:9080/").await.status, 503);
    assert!(mesh.a.metric(FAILURES, &["side=\"outbound\"", "reason=\"unknown_authority\""]) >= 1);
}
