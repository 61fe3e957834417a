//! Peers that are not ours: certificates of any kind, and a client and a server of the mesh hop that use them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::netns::Namespace;

/// An authority that signs what it is told.
pub struct Signer {
    issuer: Issuer<'static, KeyPair>,
    chain: Vec<CertificateDer<'static>>,
    root: CertificateDer<'static>,
}

/// A certificate chain with its key.
pub struct Credentials {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Credentials {
    /// From files in PEM.
    pub fn read(chain: &Path, key: &Path) -> anyhow::Result<Self> {
        let chain = CertificateDer::pem_file_iter(chain)?.collect::<Result<Vec<_>, _>>()?;
        Ok(Self { chain, key: PrivateKeyDer::from_pem_file(key)? })
    }
}

impl Credentials {
    /// Shows them whatever they are: what no library would take for a certificate too.
    fn shown(self) -> anyhow::Result<Arc<SingleCertAndKey>> {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let key = provider.key_provider.load_private_key(self.key)?;
        Ok(Arc::new(SingleCertAndKey::from(CertifiedKey::new(self.chain, key))))
    }
}

impl Clone for Credentials {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

/// When a certificate is valid, relative to now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// For the next hour.
    Now,
    /// It ended an hour ago.
    Over,
    /// It begins in an hour.
    Later,
}

/// What else a certificate may be.
#[derive(Clone, Copy, Debug)]
pub struct Shape<'a> {
    /// Its URIs.
    pub uris: &'a [&'a str],
    /// When it is valid.
    pub validity: Validity,
    /// Whether it says to be of an authority.
    pub authority: bool,
    /// So many bytes are in it that mean nothing.
    pub padding: usize,
}

impl<'a> Shape<'a> {
    /// That of a workload of the mesh.
    pub fn of(uris: &'a [&'a str]) -> Self {
        Self { uris, validity: Validity::Now, authority: false, padding: 0 }
    }
}

impl Signer {
    /// The mesh's own authority, by its files in meshd's data directory.
    pub fn of_mesh(data: &Path) -> anyhow::Result<Self> {
        let ca = data.join("ca");
        let text = |name: &str| {
            std::fs::read_to_string(ca.join(name))
                .with_context(|| format!("reading {}", ca.join(name).display()))
        };
        let key = KeyPair::from_pem(&text("intermediate.key")?)?;
        let certificate = text("intermediate.pem")?;
        let root = CertificateDer::from_pem_slice(text("root.pem")?.as_bytes())?;
        let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { issuer: Issuer::from_ca_cert_pem(&certificate, key)?, chain, root })
    }

    /// An authority that the mesh does not know.
    pub fn foreign() -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = named("another authority");
        let certificate = params.self_signed(&key)?;
        let root = certificate.der().clone();
        Ok(Self { issuer: Issuer::new(params, key), chain: Vec::new(), root })
    }

    /// A certificate for an identity.
    pub fn sign(&self, identity: &str, validity: Validity) -> anyhow::Result<Credentials> {
        self.sign_as(Shape { validity, ..Shape::of(&[identity]) })
    }

    /// A certificate of any shape.
    pub fn sign_as(&self, shape: Shape<'_>) -> anyhow::Result<Credentials> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named("peer");
        let uris = shape.uris.iter().map(|uri| Ok(SanType::URI((*uri).try_into()?)));
        params.subject_alt_names = uris.collect::<anyhow::Result<_>>()?;
        if shape.uris.is_empty() {
            params.subject_alt_names.push(SanType::DnsName("ratings.default.svc.cluster.local".try_into()?));
        }
        if shape.authority {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        if shape.padding > 0 {
            let nothing =
                CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![0; shape.padding]);
            params.custom_extensions.push(nothing);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let hour = time::Duration::hours(1);
        let now = OffsetDateTime::now_utc();
        (params.not_before, params.not_after) = match shape.validity {
            Validity::Now => (now - 2 * hour, now + hour),
            Validity::Over => (now - 4 * hour, now - hour),
            Validity::Later => (now + hour, now + 3 * hour),
        };
        let mut chain = vec![params.signed_by(&key, &self.issuer)?.der().clone()];
        chain.extend(self.chain.iter().cloned());
        Ok(Credentials {
            chain,
            key: PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?,
        })
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

/// The identity of a service account of the namespace `default`.
pub fn identity(account: &str) -> String {
    format!("spiffe://cluster.local/ns/default/sa/{account}")
}

/// The name by which a peer is asked for on the mesh port.
pub fn server_name(identity: &str) -> String {
    let digest = Sha256::digest(identity.as_bytes());
    let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("{hex}.mesh")
}

/// One request over the mesh hop, made from a host with credentials of the caller's choice. Who answers is not verified.
pub fn ask_over_mesh(
    from: &Namespace,
    to: SocketAddr,
    sni: String,
    credentials: Option<Credentials>,
    headers: Vec<(&'static str, String)>,
) -> anyhow::Result<u16> {
    from.block_on(None, move || async move {
        let config = Arc::new(client(credentials)?);
        let asked = Asked { to, sni, url: "http://ratings:9080/ratings/0".to_owned(), headers };
        asked.once(&config).await
    })
}

/// What is asked on a connection of its own, over TLS and HTTP/2.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Where.
    pub to: SocketAddr,
    /// The server name.
    pub sni: String,
    /// What.
    pub url: String,
    /// With these fields.
    pub headers: Vec<(&'static str, String)>,
}

impl Asked {
    /// Asks so many times, one after the other: each with a handshake of its own in full. Runs on one CPU.
    pub fn again_and_again(
        self,
        from: &Namespace,
        credentials: Credentials,
        count: usize,
        cpu: usize,
    ) -> anyhow::Result<()> {
        from.block_on(None, move || async move {
            let mut cpus = rustix::thread::CpuSet::new();
            cpus.set(cpu);
            rustix::thread::sched_setaffinity(None, &cpus)?;
            let mut config = client(Some(credentials))?;
            config.resumption = rustls::client::Resumption::disabled();
            let config = Arc::new(config);
            for _ in 0..count {
                let status = self.once(&config).await?;
                anyhow::ensure!(status == 200, "{} answers {status}", self.to);
            }
            Ok(())
        })
    }

    async fn once(&self, config: &Arc<ClientConfig>) -> anyhow::Result<u16> {
        let stream = TcpStream::connect(self.to).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(self.sni.clone())?;
        let connector = tokio_rustls::TlsConnector::from(config.clone());
        let stream = connector.connect(name, stream).await?;
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        let driver = tokio::task::spawn_local(connection);
        let mut request = Request::get(&self.url);
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let answer = sender.send_request(request.body(Empty::<Bytes>::new())?);
        let answer = tokio::time::timeout(Duration::from_secs(5), answer).await.context("no answer")??;
        let status = answer.status().as_u16();
        drop(answer.into_body().collect().await?);
        drop(sender);
        // The connection is closed before another is opened.
        drop(tokio::time::timeout(Duration::from_secs(1), driver).await);
        Ok(status)
    }
}

/// Begins TLS from a host and says whether it came about: with these protocols, and no certificate.
pub fn greet(from: &Namespace, to: SocketAddr, sni: String, protocols: &[&str]) -> anyhow::Result<bool> {
    let mut config = client(None)?;
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    from.block_on(None, move || async move {
        let stream = TcpStream::connect(to).await?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let greeting = connector.connect(ServerName::try_from(sni)?, stream);
        Ok(tokio::time::timeout(Duration::from_secs(8), greeting).await.is_ok_and(|done| done.is_ok()))
    })
}

/// Sends bytes from a host and reads until the other side has closed, for so long at most: what came, and whether it
/// has closed.
pub fn throw(
    from: &Namespace,
    to: SocketAddr,
    bytes: Vec<u8>,
    patience: Duration,
) -> anyhow::Result<(Vec<u8>, bool)> {
    from.block_on(None, move || async move {
        let mut stream = TcpStream::connect(to).await?;
        stream.write_all(&bytes).await?;
        let mut heard = Vec::new();
        let closed = tokio::time::timeout(patience, stream.read_to_end(&mut heard)).await.is_ok();
        Ok((heard, closed))
    })
}

/// A client that takes any server and shows what it is given.
pub(crate) fn client(credentials: Option<Credentials>) -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider)));
    let mut config = match credentials {
        Some(own) => builder.with_client_cert_resolver(own.shown()?),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// Takes any server's certificate: here the server's view of us is what is tried.
#[derive(Debug)]
struct Anyone(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A server on the mesh port that answers every request with 200 and counts them.
pub struct FalseProxy {
    requests: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<anyhow::Result<anyhow::Result<()>>>>,
}

impl FalseProxy {
    /// Starts it; callers must have certificates of the mesh's authority.
    pub fn start(host: &Namespace, at: SocketAddr, own: Credentials, mesh: &Signer) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(mesh.root.clone())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let callers =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(callers)
            .with_cert_resolver(own.shown()?);
        config.alpn_protocols = vec![b"h2".to_vec()];
        let (requests, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, stopping) = (requests.clone(), stop.clone());
        let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
        let thread = host.spawn(None, move || -> anyhow::Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async move {
                let listener = TcpListener::bind(at).await?;
                let _ = ready.send(());
                let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
                while !stopping.load(Ordering::Relaxed) {
                    let accepted = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
                    let Ok(Ok((stream, _))) = accepted else { continue };
                    let (acceptor, count) = (acceptor.clone(), count.clone());
                    tokio::spawn(async move {
                        let Ok(stream) = acceptor.accept(stream).await else { return };
                        let service = service_fn(move |_| {
                            count.fetch_add(1, Ordering::Relaxed);
                            async {
                                Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from(
                                    "caught",
                                ))))
                            }
                        });
                        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                        drop(server.serve_connection(TokioIo::new(stream), service).await);
                    });
                }
                Ok(())
            })
        });
        is_ready.recv_timeout(Duration::from_secs(5)).context("the false proxy does not start")?;
        Ok(Self { requests, stop, thread: Some(thread) })
    }

    /// How many requests have got through to it.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

impl Drop for FalseProxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
