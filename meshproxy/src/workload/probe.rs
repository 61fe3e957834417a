//! One question to a workload: is it well? Answered by its port, its HTTP or gRPC health endpoint, or a command.

use std::io;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_core::vocab::name::Text;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::config::CheckKind;
use crate::identity::tls::provider;
use crate::netns::Netns;

/// The longest answer that is read.
const LONGEST: usize = 64 << 10;
/// `grpc.health.v1.HealthCheckResponse.ServingStatus.SERVING` in field 1.
const SERVING: [u8; 2] = [0x08, 0x01];

/// Where, and in which network namespace if not in ours.
type Targets<'a> = (Option<&'a Netns>, &'a [SocketAddr]);

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// As a flag of this proxy says.
    Flag(CheckKind),
    /// `httpGet` of a WorkloadGroup.
    Get {
        /// Path and query.
        path: Text,
        /// Whether over TLS, in which the certificate is not looked at.
        https: bool,
        /// Header fields.
        headers: Vec<(Text, Text)>,
    },
    /// `exec` of a WorkloadGroup: a command with its arguments, without a shell.
    Command(Vec<Text>),
}

/// Asks once, in the network namespace that the workload lives in, if it is not ours. The error is what people are told.
pub async fn probe(
    kind: &Question,
    (netns, targets): (Option<&Netns>, &[SocketAddr]),
    patience: Duration,
) -> Result<(), String> {
    let targets = (netns, targets);
    let asked = async {
        match kind {
            Question::Flag(CheckKind::Tcp) => connect(targets).await.map(drop),
            Question::Flag(CheckKind::Http(path)) => get(targets, false, path, &[]).await,
            Question::Flag(CheckKind::Grpc(service)) => grpc(targets, service).await,
            Question::Flag(CheckKind::Exec(command)) => exec("/bin/sh", &["-c", command]).await,
            Question::Get { path, https, headers } => get(targets, *https, path, headers).await,
            Question::Command(command) => {
                let words: Vec<&str> = command.iter().map(|word| &**word).collect();
                let Some((program, arguments)) = words.split_first() else {
                    return Err("no command".to_owned());
                };
                exec(program, arguments).await
            }
        }
    };
    tokio::time::timeout(patience, asked)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {patience:?}")))
}

/// Connects to the first target that does not refuse.
async fn connect((netns, targets): Targets<'_>) -> Result<TcpStream, String> {
    let mut last = "no address".to_owned();
    for target in targets {
        let dialled = match netns {
            Some(netns) => netns.tcp(*target).await,
            None => crate::dial::tcp(*target).await,
        };
        match dialled {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                last = "connection refused".to_owned();
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    Err(last)
}

async fn get(targets: Targets<'_>, https: bool, path: &str, headers: &[(Text, Text)]) -> Result<(), String> {
    let stream = connect(targets).await?;
    let authority = stream.peer_addr().map_err(|error| error.to_string())?.to_string();
    match https {
        true => http(encrypted(stream).await?, &authority, path, headers).await,
        false => http(stream, &authority, path, headers).await,
    }
}

/// TLS to a server that proves nothing: it is asked how it fares, and told nothing.
async fn encrypted(stream: TcpStream) -> Result<TlsStream<TcpStream>, String> {
    let ip = stream.peer_addr().map_err(|error| error.to_string())?.ip();
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unproven(provider())))
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector.connect(ip.into(), stream).await.map_err(|error| error.to_string())?;
    Ok(stream)
}

async fn http<S>(stream: S, authority: &str, path: &str, headers: &[(Text, Text)]) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let mut request = Request::get(path)
        .header(header::HOST, authority)
        .header(header::USER_AGENT, "meshproxy-check")
        .header(header::CONNECTION, "close")
        .body(Full::<Bytes>::default())
        .map_err(|error| error.to_string())?;
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| error.to_string())?;
        let value = HeaderValue::from_str(value).map_err(|error| error.to_string())?;
        request.headers_mut().insert(name, value);
    }
    let asked = async { sender.send_request(request).await.map_err(|error| error.to_string()) };
    let answer = beside(connection, asked).await?;
    let status = answer.status();
    if status.is_success() || status.is_redirection() { Ok(()) } else { Err(format!("status {status}")) }
}

async fn grpc(targets: Targets<'_>, service: &str) -> Result<(), String> {
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

async fn exec(program: &str, arguments: &[&str]) -> Result<(), String> {
    let status = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .status()
        .await
        .map_err(|error| error.to_string())?;
    if status.success() { Ok(()) } else { Err(status.to_string()) }
}

/// Takes every certificate.
#[derive(Debug)]
struct Unproven(Arc<CryptoProvider>);

impl ServerCertVerifier for Unproven {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
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
        probe(&Question::Flag(CheckKind::Tcp), (None, &[closed, open]), PATIENCE).await.unwrap();
        let refused = probe(&Question::Flag(CheckKind::Tcp), (None, &[closed]), PATIENCE).await;
        assert_eq!(refused, Err("connection refused".to_owned()));
    }

    #[tokio::test]
    async fn http_wants_200_to_399() {
        let check = Question::Flag(CheckKind::Http("/healthz".to_owned()));
        let good = answering("HTTP/1.1 204 No Content\r\n\r\n").await;
        probe(&check, (None, &[good]), PATIENCE).await.unwrap();
        let bad = answering("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
        assert!(probe(&check, (None, &[bad]), PATIENCE).await.unwrap_err().contains("503"));
        let garbage = answering("hello\r\n").await;
        assert!(probe(&check, (None, &[garbage]), PATIENCE).await.is_err());
    }

    #[tokio::test]
    async fn commands_answer_by_their_exit_code() {
        let exec = |command: &str| Question::Flag(CheckKind::Exec(command.to_owned()));
        probe(&exec("true"), (None, &[]), PATIENCE).await.unwrap();
        assert!(probe(&exec("exit 3"), (None, &[]), PATIENCE).await.unwrap_err().contains('3'));
        let slow = probe(&exec("sleep 10"), (None, &[]), Duration::from_millis(50)).await;
        assert!(slow.unwrap_err().contains("no answer"));
        let words = |words: &[&str]| Question::Command(words.iter().map(|word| Text::from(*word)).collect());
        probe(&words(&["test", "a b", "=", "a b"]), (None, &[]), PATIENCE).await.unwrap();
        assert!(probe(&words(&["test", "a", "=", "b"]), (None, &[]), PATIENCE).await.is_err());
        assert!(probe(&words(&["/nowhere"]), (None, &[]), PATIENCE).await.is_err());
    }

    #[test]
    fn the_question_is_a_framed_message() {
        assert_eq!(&question("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&question("a")[..], [0, 0, 0, 0, 3, 0x0a, 1, b'a']);
        assert_eq!(question(&"a".repeat(200))[5..8], [0x0a, 0xc8, 0x01]);
    }
}
