//! Byte streams to upstreams that break off, and connections that do not come about.

use std::net::SocketAddr;
use std::time::Duration;

use mesh_core::resilience::retry::RetryPolicy;
use mesh_core::vocab::protocol::Protocol;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::upstream::Step::{Close, Pause, Reset, Send};
use super::upstream::{Speaks, Upstream};
use super::{PATIENCE, Scene, ask};

/// A stream through `a`; what comes of it until it ends.
async fn carried(scene: &Scene) -> (TcpStream, Vec<u8>) {
    let mut client = TcpStream::connect(scene.mesh.a.explicit).await.unwrap();
    client.write_all(b"CONNECT reviews:9080 HTTP/1.1\r\nhost: reviews:9080\r\n\r\n").await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 200"));
    let mut heard = Vec::new();
    // A reset ends it as well.
    drop(tokio::time::timeout(PATIENCE, client.read_to_end(&mut heard)).await.unwrap());
    (client, heard)
}

/// Takes no connection and refuses none: its queue is full.
async fn deaf() -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    let limit = Duration::from_millis(100);
    while let Ok(Ok(stream)) = tokio::time::timeout(limit, TcpStream::connect(address)).await {
        waiting.push(stream);
    }
    (listener, waiting)
}

async fn dead() -> SocketAddr {
    TcpListener::bind("127.0.0.2:0").await.unwrap().local_addr().unwrap()
}

fn tcp(plan: &mut super::Plan) {
    plan.mesh = false;
    plan.protocol = Protocol::Tcp;
    plan.shape = Box::new(|destination| destination.connect_timeout = Duration::from_millis(200));
}

fn http(plan: &mut super::Plan) {
    tcp(plan);
    plan.protocol = Protocol::Http;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_its_upstream() {
    let hello = || Send(b"hello".to_vec());
    for (name, steps, heard, flags) in [
        ("closes", vec![Close], "", "-"),
        ("resets", vec![Pause, Reset], "", "UR"),
        ("closes after bytes", vec![hello(), Pause, Close], "hello", "-"),
        ("resets after bytes", vec![hello(), Pause, Reset], "hello", "UR"),
    ] {
        for mesh in [false, true] {
            let change = |plan: &mut super::Plan| {
                tcp(plan);
                plan.mesh = mesh;
            };
            let mut scene = Scene::start(change, RetryPolicy::disabled()).await;
            let upstream = Upstream::always(steps.clone(), Speaks::Http1).await;
            scene.point_at(upstream.address).await;
            let (mut client, got) = carried(&scene).await;
            assert_eq!(String::from_utf8_lossy(&got), heard, "{name} {mesh}");
            drop(client.shutdown().await);
            drop(client);
            let (_, told, _) = scene.logs[0].told("reviews.default").await;
            assert_eq!(told, flags, "{name} {mesh}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_reached_is_told_apart() {
    let (listener, _waiting) = deaf().await;
    let (deaf, dead) = (listener.local_addr().unwrap(), dead().await);
    const REFUSED: &str = "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}";
    const TIMEOUT: &str = "upstream_reset_before_response_started{connection_timeout}";
    for (address, retry, flags, details) in [
        (dead, RetryPolicy::disabled(), "UF", REFUSED),
        (dead, RetryPolicy::default(), "URX,UF", REFUSED),
        (deaf, RetryPolicy::disabled(), "UF", TIMEOUT),
    ] {
        let mut scene = Scene::start(http, retry).await;
        scene.point_at(address).await;
        let answer = ask(&scene.mesh, "/unreachable").await;
        assert_eq!((answer.code, answer.whole), (503, true), "{answer:?}");
        let told = scene.logs[0].told("/unreachable").await;
        assert_eq!(told, (503, flags.to_owned(), details.to_owned()));
    }
    for address in [dead, deaf] {
        let mut scene = Scene::start(tcp, RetryPolicy::default()).await;
        scene.point_at(address).await;
        assert_eq!(carried(&scene).await.1, b"");
        let (code, flags, _) = scene.logs[0].told("reviews.default").await;
        assert_eq!((code, &*flags), (0, "UF,URX"));
    }
}
