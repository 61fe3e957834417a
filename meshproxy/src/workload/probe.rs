//! One question to a workload: is it well? Answered by its port, its HTTP or gRPC health endpoint, or a command.

use std::io;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::config::CheckKind;

/// The longest answer that is read.
const LONGEST: usize = 64 << 10;
/// `grpc.health.v1.HealthCheckResponse.ServingStatus.SERVING` in field 1.
const SERVING: [u8; 2] = [0x08, 0x01];

/// Asks once. The error is what people are told.
pub async fn probe(kind: &CheckKind, targets: &[SocketAddr], patience: Duration) -> Result<(), String> {
    let asked = async {
        match kind {
            CheckKind::Tcp => connect(targets).await.map(drop),
            CheckKind::Http(path) => http(targets, path).await,
            CheckKind::Grpc(service) => grpc(targets, service).await,
            CheckKind::Exec(command) => exec(command).await,
        }
    };
    tokio::time::timeout(patience, asked)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {patience:?}")))
}

/// Connects to the first target that does not refuse.
async fn connect(targets: &[SocketAddr]) -> Result<TcpStream, String> {
    let mut last = "no address".to_owned();
    for target in targets {
        match TcpStream::connect(target).await {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                last = "connection refused".to_owned();
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    Err(last)
}

async fn http(targets: &[SocketAddr], path: &str) -> Result<(), String> {
    let stream = connect(targets).await?;
    let authority = stream.peer_addr().map_err(|error| error.to_string())?.to_string();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let request = Request::get(path)
        .header(header::HOST, authority)
        .header(header::USER_AGENT, "meshproxy-check")
        .header(header::CONNECTION, "close")
        .body(Full::<Bytes>::default())
        .map_err(|error| error.to_string())?;
    let asked = async { sender.send_request(request).await.map_err(|error| error.to_string()) };
    let answer = beside(connection, asked).await?;
    let status = answer.status();
    if status.is_success() || status.is_redirection() { Ok(()) } else { Err(format!("status {status}")) }
}

async fn grpc(targets: &[SocketAddr], service: &str) -> Result<(), String> {
    let stream = connect(targets).await?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
    let request = Request::post("http://health/grpc.health.v1.Health/Check")
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(Full::new(question(service)))
        .map_err(|error| error.to_string())?;
    let asked = async move {
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let head = answer.headers().get("grpc-status").cloned();
        let body = Limited::new(answer.into_body(), LONGEST).collect().await.map_err(|e| e.to_string())?;
        let status = head.or_else(|| body.trailers().and_then(|t| t.get("grpc-status").cloned()));
        match status.as_ref().map(|status| status.as_bytes()) {
            Some(b"0") if body.to_bytes().get(5..) == Some(&SERVING) => Ok(()),
            Some(b"0") => Err("not serving".to_owned()),
            Some(code) => Err(format!("grpc-status {}", String::from_utf8_lossy(code))),
            None => Err("no grpc-status".to_owned()),
        }
    };
    beside(connection, asked).await
}

/// What was asked on a connection, which must be driven meanwhile. A connection that is closed after its answer has
/// still answered.
async fn beside<T>(
    connection: impl Future<Output = Result<(), hyper::Error>>,
    asked: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    let mut asked = std::pin::pin!(asked);
    tokio::select! {
        answer = &mut asked => answer,
        ended = connection => match ended {
            Ok(()) => asked.await,
            Err(error) => Err(error.to_string()),
        },
    }
}

/// A framed `HealthCheckRequest`: field 1 is the service.
fn question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        // Flags limit the name to 253 bytes: at most two bytes of varint.
        let length = service.len();
        if length < 0x80 {
            message.put_u8(length as u8);
        } else {
            message.put_slice(&[(length & 0x7f) as u8 | 0x80, (length >> 7) as u8]);
        }
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put_slice(&message);
    framed.freeze()
}

async fn exec(command: &str) -> Result<(), String> {
    let status = tokio::process::Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .status()
        .await
        .map_err(|error| error.to_string())?;
    if status.success() { Ok(()) } else { Err(status.to_string()) }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    async fn answering(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            assert!(stream.read(&mut request).await.unwrap() > 0);
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        address
    }

    #[tokio::test]
    async fn tcp_falls_back_only_when_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        let closed = SocketAddr::new("127.0.0.2".parse().unwrap(), open.port());
        probe(&CheckKind::Tcp, &[closed, open], PATIENCE).await.unwrap();
        let refused = probe(&CheckKind::Tcp, &[closed], PATIENCE).await;
        assert_eq!(refused, Err("connection refused".to_owned()));
    }

    #[tokio::test]
    async fn http_wants_200_to_399() {
        let check = CheckKind::Http("/healthz".to_owned());
        let good = answering("HTTP/1.1 204 No Content\r\n\r\n").await;
        probe(&check, &[good], PATIENCE).await.unwrap();
        let bad = answering("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
        assert!(probe(&check, &[bad], PATIENCE).await.unwrap_err().contains("503"));
        let garbage = answering("hello\r\n").await;
        assert!(probe(&check, &[garbage], PATIENCE).await.is_err());
    }

    #[tokio::test]
    async fn commands_answer_by_their_exit_code() {
        let exec = |command: &str| CheckKind::Exec(command.to_owned());
        probe(&exec("true"), &[], PATIENCE).await.unwrap();
        assert!(probe(&exec("exit 3"), &[], PATIENCE).await.unwrap_err().contains('3'));
        let slow = probe(&exec("sleep 10"), &[], Duration::from_millis(50)).await;
        assert!(slow.unwrap_err().contains("no answer"));
    }

    #[test]
    fn the_question_is_a_framed_message() {
        assert_eq!(&question("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&question("a")[..], [0, 0, 0, 0, 3, 0x0a, 1, b'a']);
        assert_eq!(question(&"a".repeat(200))[5..8], [0x0a, 0xc8, 0x01]);
    }
}
