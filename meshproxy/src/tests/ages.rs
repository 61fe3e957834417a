//! Old connections take no new requests and end; nothing that goes on over them does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_core::vocab::protocol::Protocol;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::harness::{Mesh, Plan, Proxy, echo, grpc_echo};
use super::streams::{connect, server_first};

const AGE: Option<Duration> = Some(Duration::from_millis(200));
const RETIRED: &str = "mesh_proxy_connections_retired_total";

async fn until_retired(proxy: &Proxy, side: &str) {
    let retired = async {
        while proxy.metric(RETIRED, &[side]) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), retired).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_outlive_their_connection_s_age_and_new_ones_get_another() {
    let plan = Plan { protocol: Protocol::Tcp, ..Plan::new(&[server_first().await]) };
    let mesh = Mesh::start(Plan { most_age: [None, AGE], ..plan }).await;
    let (mut old, _) = connect(&mesh, "reviews:9080").await;
    let mut greeting = [0; 6];
    old.read_exact(&mut greeting).await.unwrap();
    until_retired(&mesh.b, "side=\"mesh\"").await;
    // The other proxy's word needs a moment; however it falls out, a new stream is opened.
    for _ in 0..20 {
        let (mut new, _) = connect(&mesh, "reviews:9080").await;
        let heard = tokio::time::timeout(Duration::from_secs(5), new.read_exact(&mut greeting)).await;
        assert!(matches!(heard, Ok(Ok(_))), "{heard:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    old.write_all(b"still").await.unwrap();
    let mut heard = [0; 5];
    old.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"still");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_s_http1_connection_ends_with_an_answer() {
    let mesh = Mesh::start(Plan { most_age: [AGE, None], ..Plan::new(&[echo("127.0.0.2").await]) }).await;
    let stream = TcpStream::connect(mesh.a.explicit).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut ask = async || {
        let request = Request::get("http://reviews:9080/").body(Full::<Bytes>::default()).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        let last = answer.headers().get("connection").is_some_and(|value| value == "close");
        drop(http_body_util::BodyExt::collect(answer.into_body()).await.unwrap());
        last
    };
    assert!(!ask().await);
    until_retired(&mesh.a, "side=\"downstream\"").await;
    assert!(ask().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_s_http2_connection_ends_with_its_last_stream() {
    let plan = Plan { protocol: Protocol::Grpc, ..Plan::new(&[grpc_echo("127.0.0.2").await]) };
    let mesh = Mesh::start(Plan { most_age: [AGE, None], ..plan }).await;
    let stream = TcpStream::connect(mesh.a.explicit).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::post("http://reviews:9080/").header("te", "trailers").body(()).unwrap();
    let (answer, mut upload) = client.send_request(request, false).unwrap();
    upload.send_data("one".into(), false).unwrap();
    let mut answer = answer.await.unwrap().into_body();
    assert_eq!(answer.data().await.unwrap().unwrap(), "one");
    until_retired(&mesh.a, "side=\"downstream\"").await;
    let ended = async { while client.clone().ready().await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(5), ended).await.unwrap();
    upload.send_data("two".into(), true).unwrap();
    assert_eq!(answer.data().await.unwrap().unwrap(), "two");
    assert_eq!(answer.trailers().await.unwrap().unwrap()["grpc-status"], "5");
    tokio::time::timeout(Duration::from_secs(5), connection).await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_connections_upstream_are_made_anew() {
    let accepted = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&accepted);
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::Relaxed);
            let answer =
                |_| async { Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::default())) };
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(stream), hyper::service::service_fn(answer)));
        }
    });
    let plan = Plan { protocol: Protocol::Http2, mesh: false, ..Plan::new(&[address]) };
    let mesh = Mesh::start(Plan { most_age: [AGE, None], ..plan }).await;
    for round in 1..=2 {
        for _ in 0..5 {
            assert_eq!(mesh.get("http://reviews:9080/").await.status, 200);
        }
        assert_eq!(accepted.load(Ordering::Relaxed), round);
        until_retired(&mesh.a, "side=\"upstream\"").await;
    }
}
