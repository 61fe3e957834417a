//! Messages of HTTP/1.1 as they are on the wire: what frames them, what comes before and after them.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::harness::{Mesh, Plan};

/// Answers each connection with these bytes once it has heard `until`, then closes it; tells what it has heard.
async fn answers(
    until: &'static str,
    bytes: &'static str,
) -> (SocketAddr, tokio::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, heard) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut text = String::new();
            while !text.ends_with(until) {
                let mut piece = [0; 1024];
                let Ok(length @ 1..) = stream.read(&mut piece).await else { break };
                text.push_str(&String::from_utf8_lossy(&piece[..length]).to_ascii_lowercase());
            }
            stream.write_all(bytes.as_bytes()).await.unwrap();
            let _told = tell.try_send(text);
        }
    });
    (address, heard)
}

/// Everything that comes back for these bytes.
async fn exchange(mesh: &Mesh, bytes: &str) -> String {
    let mut stream = TcpStream::connect(mesh.a.explicit).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut answer));
    read.await.unwrap().unwrap();
    answer.to_ascii_lowercase()
}

const ASK: &str = "GET http://reviews:9080/ HTTP/1.1\r\nhost: reviews:9080\r\nconnection: close\r\n\r\n";
const HEAD: &str = "HEAD http://reviews:9080/ HTTP/1.1\r\nhost: reviews:9080\r\nconnection: close\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_framed_as_their_kind_demands() {
    let check = async |request: &str, answer: &'static str, start: &str, has: &[&str], lacks: &[&str]| {
        for mesh in [true, false] {
            let (address, _heard) = answers("\r\n\r\n", answer).await;
            let mesh = Mesh::start(Plan { mesh, ..Plan::new(&[address]) }).await;
            let got = exchange(&mesh, request).await;
            assert!(got.starts_with(start), "{answer:?} became {got:?}");
            assert!(has.iter().all(|text| got.contains(text)), "{answer:?} became {got:?}");
            assert!(!lacks.iter().any(|text| got.contains(text)), "{answer:?} became {got:?}");
        }
    };
    let (ok, ends) = ("http/1.1 200", "\r\n\r\n");
    check(HEAD, "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n", ok, &["content-length: 7", ends], &[]).await;
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    check(HEAD, chunked, ok, &[ends], &["content-length"]).await;
    let empty = "HTTP/1.1 204 No Content\r\nx-a: b\r\n\r\n";
    check(ASK, empty, "http/1.1 204", &["x-a: b", ends], &["content-length", "transfer-encoding"]).await;
    let unchanged = "HTTP/1.1 304 Not Modified\r\netag: \"a\"\r\n\r\n";
    check(ASK, unchanged, "http/1.1 304", &["etag: \"a\"", ends], &["transfer-encoding"]).await;
    let hints =
        "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    check(ASK, hints, ok, &["\r\n\r\nok"], &["103"]).await;
    check(ASK, "HTTP/1.1 200 OK\r\n\r\nto the end", ok, &["to the end", "chunked"], &[]).await;
    let trailing = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-t\r\n\r\n3\r\nabc\r\n0\r\nx-t: yes\r\n\r\n";
    let wants = "GET http://reviews:9080/ HTTP/1.1\r\nhost: reviews:9080\r\nte: trailers\r\nconnection: te, close\r\n\r\n";
    check(wants, trailing, ok, &["abc\r\n0\r\nx-t: yes\r\n\r\n"], &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_of_requests_arrive_and_going_on_is_agreed_here() {
    for mesh in [true, false] {
        let (address, mut heard) =
            answers("\r\nx-up: 1\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        let mesh = Mesh::start(Plan { mesh, ..Plan::new(&[address]) }).await;
        let request = "POST http://reviews:9080/ HTTP/1.1\r\nhost: reviews:9080\r\nconnection: close\r\n\
                       expect: 100-continue\r\ntransfer-encoding: chunked\r\ntrailer: x-up\r\n\r\n\
                       3\r\nabc\r\n0\r\nx-up: 1\r\n\r\n";
        let answer = exchange(&mesh, request).await;
        assert!(answer.starts_with("http/1.1 100 continue\r\n\r\nhttp/1.1 200"), "{answer:?}");
        let heard = heard.recv().await.unwrap();
        assert!(heard.contains("abc") && !heard.contains("expect:"), "{heard:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_may_come_before_the_request_has_ended() {
    for mesh in [true, false] {
        let early = "HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno";
        let (address, _heard) = answers("early", early).await;
        let mesh = Mesh::start(Plan { mesh, ..Plan::new(&[address]) }).await;
        let mut stream = TcpStream::connect(mesh.a.explicit).await.unwrap();
        let head =
            "POST http://reviews:9080/ HTTP/1.1\r\nhost: reviews:9080\r\ncontent-length: 1000\r\n\r\nearly";
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        while !answer.ends_with("\r\n\r\nno") {
            let mut piece = [0; 1024];
            let read = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut piece)).await;
            let length = read.unwrap().unwrap();
            assert!(length > 0, "{answer:?}");
            answer.push_str(&String::from_utf8_lossy(&piece[..length]));
        }
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer:?}");
    }
}
