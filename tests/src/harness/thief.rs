//! What somebody does who has the files of a host: asks meshd for identities, and keeps a connection to another host.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use anyhow::Context;
use bytes::{BufMut, Bytes, BytesMut};
use http::Request;
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;

use super::netns::Namespace;
use super::peer::{Credentials, client};

/// The code by which gRPC says that something is not allowed.
pub const PERMISSION_DENIED: u32 = 7;

/// Asks meshd to certify a fresh key for `NS/ACCOUNT`, as the host whose files these are. The gRPC status.
pub fn ask_for_identity(
    from: &Namespace,
    meshd: SocketAddr,
    node: Credentials,
    account: (&'static str, &'static str),
) -> anyhow::Result<u32> {
    from.block_on(None, move || async move {
        let stream = TcpStream::connect(meshd).await?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client(Some(node))?));
        let name = ServerName::try_from(meshd.ip().to_string())?;
        let stream = connector.connect(name, stream).await?;
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::task::spawn_local(connection);
        let csr = CertificateParams::default().serialize_request(&KeyPair::generate()?)?;
        let mut message = BytesMut::new();
        for (field, bytes) in [(1u8, account.0.as_bytes()), (2, account.1.as_bytes()), (3, csr.der())] {
            message.put_u8(field << 3 | 2);
            let mut length = bytes.len();
            while length >= 0x80 {
                message.put_u8((length & 0x7f) as u8 | 0x80);
                length >>= 7;
            }
            message.put_u8(length as u8);
            message.put_slice(bytes);
        }
        let mut framed = BytesMut::new();
        framed.put_u8(0);
        framed.put_u32(u32::try_from(message.len())?);
        framed.put_slice(&message);
        let request = Request::post(format!("https://{meshd}/mesh.v1.Identity/Issue"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(framed.freeze()))?;
        let answer = tokio::time::timeout(Duration::from_secs(5), sender.send_request(request))
            .await
            .context("meshd does not answer")??;
        let head = answer.headers().get("grpc-status").cloned();
        let body = answer.into_body().collect().await?;
        let status =
            head.or_else(|| body.trailers().and_then(|trailers| trailers.get("grpc-status").cloned()));
        let status = status.context("no grpc-status")?;
        Ok(status.to_str()?.parse()?)
    })
}

/// A connection over the mesh hop that has served a request and stays open.
pub struct Kept {
    /// The status of its request.
    pub first: u16,
    closed: Receiver<()>,
}

impl Kept {
    /// Opens it from a host with these credentials, for whom the server name asks for.
    pub fn open(
        from: &Namespace,
        to: SocketAddr,
        sni: String,
        credentials: Credentials,
        headers: Vec<(&'static str, String)>,
    ) -> anyhow::Result<Self> {
        let (say_first, first) = sync_channel(1);
        let (say_closed, closed) = sync_channel(1);
        drop(from.spawn(None, move || -> anyhow::Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async move {
                let config = Arc::new(client(Some(credentials))?);
                let stream = TcpStream::connect(to).await?;
                let connector = tokio_rustls::TlsConnector::from(config);
                let stream = connector.connect(ServerName::try_from(sni)?, stream).await?;
                let (mut sender, connection) =
                    hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
                let driver = tokio::task::spawn_local(connection);
                let mut request = Request::get("http://ratings:9080/ratings/0");
                for (name, value) in &headers {
                    request = request.header(*name, value);
                }
                let answer = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
                say_first.send(answer.status().as_u16())?;
                drop(answer.into_body().collect().await?);
                drop(driver.await);
                drop(sender);
                say_closed.send(())?;
                anyhow::Ok(())
            })
        }));
        let first = first.recv_timeout(Duration::from_secs(5)).context("no answer over the mesh")?;
        Ok(Self { first, closed })
    }

    /// Whether the other side closes it within so long.
    pub fn is_closed_within(&self, patience: Duration) -> bool {
        self.closed.recv_timeout(patience).is_ok()
    }
}
