//! What goes upstream is made from the form of a request, not from what came.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::harness::{Mesh, Plan, echo};

/// Sends bytes as they stand; what came back until the connection closed.
async fn raw(mesh: &Mesh, bytes: &str) -> String {
    let mut stream = TcpStream::connect(mesh.a.explicit).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn content_of_a_get_arrives_framed() {
    for direct in [false, true] {
        let mesh = Mesh::start(Plan { mesh: !direct, ..Plan::new(&[echo("127.0.0.2").await]) }).await;
        let head = "host: reviews:9080\r\nconnection: close\r\n";
        let chunked =
            format!("GET /s HTTP/1.1\r\n{head}transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
        let answer = raw(&mesh, &chunked).await;
        assert!(answer.contains("transfer-encoding: chunked\n"), "{answer}");
        assert!(answer.contains("body: abc"), "{answer}");
        let counted = format!("GET /s HTTP/1.1\r\n{head}content-length: 03\r\n\r\nabc");
        let answer = raw(&mesh, &counted).await;
        assert!(answer.contains("\ncontent-length: 3\n") && answer.contains("body: abc"), "{answer}");
        let answer = raw(&mesh, &format!("GET /s HTTP/1.1\r\n{head}\r\n")).await;
        assert!(!answer.contains("\ntransfer-encoding: ") && answer.contains("\nbody: "), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_arrive_in_their_form() {
    let mesh = Mesh::start(Plan::new(&[echo("127.0.0.2").await])).await;
    let answer = raw(
        &mesh,
        "POST http://Reviews:9080/a/../b?c HTTP/1.1\r\nHost: other\r\nConnection: close, x-gone\r\nX-Gone: 1\r\n\
         TE: gzip, Trailers\r\nCookie: a=1\r\nCookie: b=2\r\nExpect: 100-continue\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: AAMAAABk\r\nX_Mesh_From: evil/evil\r\nX_Kept: 1\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    assert!(answer.contains("POST /b?c\n"), "{answer}");
    for line in ["host: Reviews:9080", "te: trailers", "cookie: a=1; b=2", "x_kept: 1", "content-length: 0"] {
        assert!(answer.contains(&format!("\n{line}\n")), "{line}: {answer}");
    }
    for gone in ["x-gone", "h2c", "http2-settings", "evil", "expect", "other"] {
        assert!(!answer.contains(gone), "{gone}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_form_is_answered_and_counted() {
    let mesh = Mesh::start(Plan::new(&[echo("127.0.0.2").await])).await;
    let sent = "GET / HTTP/1.1\r\nhost: reviews:9080\r\nexpect: a-miracle\r\n\r\n";
    let answer = raw(&mesh, sent).await;
    assert!(answer.starts_with("HTTP/1.1 417 ") && answer.contains("connection: close"), "{answer}");
    let answer = raw(&mesh, "GET / HTTP/1.1\r\nhost: a,b\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\ncontent-length: 3\r\n\r\nabc";
    let answer = raw(&mesh, &format!("GET / HTTP/1.1\r\nhost: reviews:9080\r\n{upgrade}")).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(mesh.a.metric("istio_requests_total", &["response_code=\"417\""]), 1);
    assert_eq!(mesh.a.metric("istio_requests_total", &["response_flags=\"DPE\""]), 1);
}
