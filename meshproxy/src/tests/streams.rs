//! Byte streams through the HTTP proxy's CONNECT, over HBONE.

use std::net::SocketAddr;
use std::time::Duration;

use mesh_core::routing::rule::{Backend, StreamMatch, TcpRule};
use mesh_core::vocab::protocol::Protocol;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::harness::{HOST, Mesh, Plan, origin};
use super::policy::allow;

/// Greets first, as many protocols do, then sends back what it hears.
pub(super) async fn server_first() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                stream.write_all(b"hello ").await.unwrap();
                let (mut read, mut write) = stream.split();
                drop(tokio::io::copy(&mut read, &mut write).await);
                drop(write.shutdown().await);
            });
        }
    });
    address
}

pub(super) async fn connect(mesh: &Mesh, authority: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(mesh.a.explicit).await.unwrap();
    stream
        .write_all(format!("CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { break };
        head.push(byte);
    }
    (stream, String::from_utf8(head).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_flow_over_the_tunnel_and_half_close_passes() {
    let mesh = Mesh::start(Plan { protocol: Protocol::Tcp, ..Plan::new(&[server_first().await]) }).await;
    let (mut stream, head) = connect(&mesh, "reviews:9080").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    stream.write_all(b"world").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut heard = String::new();
    stream.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "hello world");
    for (proxy, reporter) in [(&mesh.a, "reporter=\"source\""), (&mesh.b, "reporter=\"destination\"")] {
        for (name, expected) in [
            ("istio_tcp_connections_opened_total", 1),
            ("istio_tcp_connections_closed_total", 1),
            ("istio_tcp_sent_bytes_total", 11),
            ("istio_tcp_received_bytes_total", 5),
        ] {
            let reached = async {
                while proxy.metric(name, &[reporter, "source_workload=\"a\""]) != expected {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            let reached = tokio::time::timeout(Duration::from_secs(5), reached).await;
            assert!(reached.is_ok(), "{name} {reporter} {}", proxy.shared.metrics.render());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_stream_is_closed_when_policy_turns_against_it() {
    let mut mesh = Mesh::start(Plan { protocol: Protocol::Tcp, ..Plan::new(&[server_first().await]) }).await;
    let (mut stream, _) = connect(&mesh, "reviews:9080").await;
    let mut greeting = [0; 6];
    stream.read_exact(&mut greeting).await.unwrap();
    mesh.change(2, |plan| plan.policies = vec![allow("nobody")]).await;
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "still open");
    // A new one is refused from the start.
    let (mut stream, _) = connect(&mesh, "reviews:9080").await;
    assert!(!matches!(stream.read(&mut greeting).await, Ok(1..)));
}

/// The first bytes of a TLS client that asks for a name.
fn client_hello(name: &str) -> Vec<u8> {
    let config = rustls::ClientConfig::builder_with_provider(crate::identity::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
    let mut client = rustls::ClientConnection::new(std::sync::Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_goes_where_its_server_name_leads() {
    let rule = |name: &str, backend: Backend| TcpRule {
        matches: vec![StreamMatch { sni_hosts: vec![name.into()], ..StreamMatch::default() }],
        backends: vec![backend],
        ..TcpRule::default_route(&origin(), HOST.into(), 9080)
    };
    let missing = Backend { subset: Some("missing".into()), ..Backend::whole(HOST.into(), 9080) };
    let tls = vec![rule("*.example", missing), rule("a.example", Backend::whole(HOST.into(), 9080))];
    let plan = Plan { protocol: Protocol::Tls, tls, ..Plan::new(&[server_first().await]) };
    let mesh = Mesh::start(plan).await;
    for (name, passes) in [("a.example", true), ("b.example", false), ("other", false)] {
        let (mut stream, _) = connect(&mesh, "reviews:9080").await;
        let hello = client_hello(name);
        // Cut in two: the name is clear only when the second part is there.
        stream.write_all(&hello[..60]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        stream.write_all(&hello[60..]).await.unwrap();
        let mut heard = vec![0; 6 + hello.len()];
        let read = stream.read_exact(&mut heard).await;
        assert_eq!(read.is_ok(), passes, "{name}");
        if passes {
            assert_eq!(heard, [b"hello ", &hello[..]].concat());
        }
    }
}
