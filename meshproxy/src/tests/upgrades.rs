//! WebSocket: only with the application's consent, judged like any request.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::harness::{Mesh, Plan};
use super::policy::allow;

/// Answers a request with this head, then sends back what it hears in capitals.
async fn application(head: &'static str) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let asked = read_head(&mut stream).await.to_ascii_lowercase();
                assert!(asked.starts_with("get /chat http/1.1") && asked.contains("upgrade: websocket"));
                stream.write_all(head.as_bytes()).await.unwrap();
                let mut heard = [0; 64];
                while let Ok(length @ 1..) = stream.read(&mut heard).await {
                    heard[..length].make_ascii_uppercase();
                    stream.write_all(&heard[..length]).await.unwrap();
                }
            });
        }
    });
    address
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

async fn ask(mesh: &Mesh) -> (TcpStream, String) {
    ask_of(mesh, "reviews:9080").await
}

async fn ask_of(mesh: &Mesh, host: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(mesh.a.explicit).await.unwrap();
    let head = format!(
        "GET http://{host}/chat HTTP/1.1\r\nhost: {host}\r\nconnection: Upgrade\r\n\
         upgrade: websocket\r\nsec-websocket-key: x\r\n\r\nearly"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = read_head(&mut stream).await.to_ascii_lowercase();
    (stream, answer)
}

const AGREED: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                      sec-websocket-accept: y\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn with_101_the_ends_are_joined() {
    for mesh in [true, false] {
        let mesh = Mesh::start(Plan { mesh, ..Plan::new(&[application(AGREED).await]) }).await;
        let (mut stream, answer) = ask(&mesh).await;
        assert!(answer.starts_with("http/1.1 101"), "{answer}");
        assert!(
            answer.contains("sec-websocket-accept: y") && answer.contains("upgrade: websocket"),
            "{answer}"
        );
        assert!(!answer.contains("x-mesh-"), "{answer}");
        stream.write_all(b" hello").await.unwrap();
        let mut heard = [0; 11];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"EARLY HELLO");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_101_nothing_is_passed() {
    let refusal = "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n";
    let mesh = Mesh::start(Plan::new(&[application(refusal).await])).await;
    assert!(ask(&mesh).await.1.starts_with("http/1.1 403"));
    let mesh =
        Mesh::start(Plan { policies: vec![allow("nobody")], ..Plan::new(&[application(AGREED).await]) })
            .await;
    assert!(ask(&mesh).await.1.starts_with("http/1.1 403"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_cannot_be_reached_is_passed_over() {
    let dead = "127.0.0.2:1".parse().unwrap();
    let mesh = Mesh::start(Plan { mesh: false, ..Plan::new(&[dead, application(AGREED).await]) }).await;
    for _ in 0..6 {
        assert!(ask(&mesh).await.1.starts_with("http/1.1 101"));
    }
    assert!(mesh.a.shared.metrics.render().contains("mesh_proxy_retries_total"));
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_outside_the_mesh_may_agree_too() {
    let outside = application(AGREED).await;
    let mesh = Mesh::start(Plan::new(&[])).await;
    let (mut stream, answer) = ask_of(&mesh, &outside.to_string()).await;
    assert!(answer.starts_with("http/1.1 101"), "{answer}");
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"EARLY");
}
