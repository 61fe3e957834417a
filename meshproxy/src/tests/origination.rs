//! TLS towards servers that are not the mesh's, the PROXY header, and what such endpoints are spoken to in.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_core::policy::mtls::{
    ClientCertificate, ClientTls, CredentialKey, ServerNames, ServerRoots, TlsOrigination,
};
use mesh_core::snapshot::credential::{Credential, Pem};
use mesh_core::snapshot::destination::Destination;
use mesh_core::snapshot::section::Section;
use mesh_core::vocab::name::Text;
use mesh_core::vocab::protocol::{Protocol, UpstreamProtocol};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::harness::{Answer, HOST, Mesh, Plan};
use crate::identity::tls::provider;

/// An authority whose files lie in a folder.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
}

impl Authority {
    fn new(folder: &Path, name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Authority { issuer, folder: folder.to_owned() };
        std::fs::write(folder.join(format!("{name}.pem")), authority.issuer.pem()).unwrap();
        authority
    }

    /// Chain and key of a name, as files.
    fn issue(&self, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let paths = (self.folder.join(format!("{name}.crt")), self.folder.join(format!("{name}.key")));
        std::fs::write(&paths.0, certificate.pem()).unwrap();
        std::fs::write(&paths.1, key.serialize_pem()).unwrap();
        paths
    }

    /// What a server with that name shows; it demands a certificate of clients where `mutual`.
    fn server(
        &self,
        name: &str,
        mutual: bool,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> TlsAcceptor {
        let (chain, key) = self.issue(name);
        let chain = CertificateDer::pem_file_iter(chain).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(key).unwrap();
        let builder = rustls::ServerConfig::builder_with_provider(provider());
        let builder = builder.with_protocol_versions(versions).unwrap();
        let builder = if mutual {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(self.issuer.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}

/// A server that answers with its version of HTTP, the server name that was asked for, and whether the client showed a
/// certificate. Before TLS it takes a PROXY header where there is one, and repeats it.
async fn server(acceptor: Option<TlsAcceptor>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let header = proxy_header(&mut stream).await;
                match acceptor {
                    None => serve(stream, header).await,
                    Some(acceptor) => {
                        let Ok(stream) = acceptor.accept(stream).await else { return };
                        let session = stream.get_ref().1;
                        let name = session.server_name().unwrap_or("-").to_owned();
                        let shown = session.peer_certificates().is_some();
                        serve(stream, format!("{header}{name} {shown} ")).await;
                    }
                }
            });
        }
    });
    address
}

async fn proxy_header(stream: &mut TcpStream) -> String {
    let mut first = [0; 1];
    drop(stream.peek(&mut first).await);
    let mut header = String::new();
    match first[0] {
        b'P' => {
            let mut peeked = [0; 6];
            drop(stream.peek(&mut peeked).await);
            while &peeked == b"PROXY " && !header.ends_with("\r\n") {
                header.push(stream.read_u8().await.unwrap().into());
            }
            header = header.replace("\r\n", " ");
        }
        b'\r' => {
            let mut fixed = [0; 16];
            stream.read_exact(&mut fixed).await.unwrap();
            let mut rest = vec![0; usize::from(u16::from_be_bytes([fixed[14], fixed[15]]))];
            stream.read_exact(&mut rest).await.unwrap();
            header = format!("V2 {}.{}.{}.{} ", rest[0], rest[1], rest[2], rest[3]);
        }
        _ => {}
    }
    header
}

async fn serve<T>(stream: T, said: String)
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let version = if request.version() == Version::HTTP_2 { "h2" } else { "h1" };
        let answer = Response::new(Full::new(Bytes::from(format!("{said}{version}"))));
        async move { Ok::<_, Infallible>(answer) }
    });
    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    drop(builder.serve_connection(TokioIo::new(stream), service).await);
}

fn text(path: &Path) -> Text {
    path.to_str().unwrap().into()
}

/// What a rule with SIMPLE and a file of roots says.
fn simple(roots: &Path) -> TlsOrigination {
    TlsOrigination {
        certificate: None,
        roots: ServerRoots::File(text(roots)),
        crl: None,
        sni: None,
        names: ServerNames::Requested,
        gateways_only: false,
    }
}

fn originating(
    origination: TlsOrigination,
    upstream: UpstreamProtocol,
) -> impl Fn(&mut Destination) + Send + Sync {
    move |destination: &mut Destination| {
        destination.tls = ClientTls::Originate(origination.clone());
        destination.upstream = upstream;
    }
}

async fn mesh(server: SocketAddr, shape: impl Fn(&mut Destination) + Send + Sync + 'static) -> Mesh {
    Mesh::start(Plan { mesh: false, shape: Box::new(shape), ..Plan::new(&[server]) }).await
}

async fn get(mesh: &Mesh) -> Answer {
    mesh.get(&format!("http://{HOST}:9080/")).await
}

const BOTH: [&rustls::SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

#[tokio::test(flavor = "multi_thread")]
async fn servers_are_asked_by_name_verified_and_spoken_to() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, others) = (Authority::new(folder.path(), "ours"), Authority::new(folder.path(), "others"));
    let (good, bad) = (folder.path().join("ours.pem"), folder.path().join("others.pem"));
    let named = |names: &[&str]| ServerNames::OneOf(names.iter().map(|name| Text::from(*name)).collect());
    let (http1, http2) = (UpstreamProtocol::Http1, UpstreamProtocol::Http2);
    let check = async |acceptor: TlsAcceptor, origination: TlsOrigination, upstream, expected: &str| {
        let mesh = mesh(server(Some(acceptor)).await, originating(origination.clone(), upstream)).await;
        // The second request finds the connection of the first.
        for _ in 0..2 {
            let answer = get(&mesh).await;
            let found = format!("{} {}", answer.status.as_u16(), answer.body);
            assert!(found.contains(expected), "{origination:?}: {found}");
        }
    };
    let of = |name: &str| ours.server(name, false, &BOTH);
    check(of(HOST), simple(&good), http1, &format!("200 {HOST} false h1")).await;
    check(of(HOST), simple(&good), http2, &format!("200 {HOST} false h2")).await;
    let old = ours.server(HOST, false, &BOTH[..1]);
    check(old, simple(&good), http1, &format!("200 {HOST} false h1")).await;
    check(of(HOST), simple(&bad), http1, "503 upstream connect error").await;
    check(of("else.example"), simple(&good), http1, "503 upstream connect error").await;
    let asked = |sni: &str, names| TlsOrigination { sni: Some(sni.into()), names, ..simple(&good) };
    check(of("a.example"), asked("a.example", ServerNames::Requested), http1, "200 a.example false h1").await;
    check(of("b.example"), asked("a.example", ServerNames::Requested), http1, "503 ").await;
    check(of("b.example"), asked("a.example", named(&["x", "b.example"])), http1, "200 a.example").await;
    check(of("*.b.example"), asked("x", named(&["c.b.example"])), http1, "200 x").await;
    check(of("b.example"), asked("b.example", named(&["a.example"])), http1, "503 ").await;
    let careless =
        TlsOrigination { roots: ServerRoots::Unverified, names: ServerNames::Any, ..simple(&good) };
    check(others.server("x", false, &BOTH), careless, http1, "200 ").await;
    // With a certificate of our own.
    let (chain, key) = ours.issue("client.example");
    let certificate = Some(ClientCertificate::Files { chain: text(&chain), key: text(&key) });
    let mutual = TlsOrigination { certificate, ..simple(&good) };
    check(ours.server(HOST, true, &BOTH), mutual.clone(), http2, "true h2").await;
    check(ours.server(HOST, true, &BOTH), simple(&good), http1, "503 ").await;
    check(
        others.server(HOST, true, &BOTH),
        TlsOrigination { roots: ServerRoots::File(text(&bad)), ..mutual },
        http1,
        "503 ",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_read_again_and_nothing_goes_in_the_clear_without_them() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new(folder.path(), "ours");
    let roots = folder.path().join("later.pem");
    let tls = mesh(
        server(Some(ours.server(HOST, false, &BOTH))).await,
        originating(simple(&roots), UpstreamProtocol::Http1),
    )
    .await;
    // In the clear this one would answer.
    let clear = mesh(server(None).await, originating(simple(&roots), UpstreamProtocol::Http1)).await;
    for mesh in [&tls, &clear] {
        let answer = get(mesh).await;
        assert_eq!(answer.status, 503, "{answer:?}");
        let faults = mesh.a.shared.roots.originations().faults();
        assert!(faults.len() == 1 && faults[0].contains("later.pem"), "{faults:?}");
    }
    assert_eq!(clear.a.metric("istio_requests_total", &["response_flags=\"URX,UF\""]), 1);
    std::fs::copy(folder.path().join("ours.pem"), &roots).unwrap();
    for mesh in [&tls, &clear] {
        mesh.a.shared.roots.originations().refresh();
        assert!(mesh.a.shared.roots.originations().faults().is_empty());
    }
    assert_eq!((get(&tls).await.status.as_u16(), get(&clear).await.status.as_u16()), (200, 503));
    // What cannot be used does not replace what can, and is told.
    std::fs::write(&roots, "nothing").unwrap();
    tls.a.shared.roots.originations().refresh();
    assert_eq!(get(&tls).await.status, 200);
    assert_eq!(tls.a.shared.roots.originations().faults().len(), 1);
    // Another authority: connections that trusted the old one are not used any more.
    Authority::new(folder.path(), "others");
    std::fs::copy(folder.path().join("others.pem"), &roots).unwrap();
    tls.a.shared.roots.originations().refresh();
    assert_eq!(get(&tls).await.status, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_come_with_the_configuration_and_go_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, others) = (Authority::new(folder.path(), "ours"), Authority::new(folder.path(), "others"));
    let read = |path: &Path| Pem(std::fs::read(path).unwrap());
    let shown = |authority: &Authority| {
        let (chain, key) = authority.issue("client.example");
        let key_of = CredentialKey::Shown("default/shop".into());
        Section::Credential(Credential { key: key_of, certificates: read(&chain), other: read(&key) })
    };
    let roots = |authority: &str| {
        let key = CredentialKey::Authority("default/shop".into());
        let certificates = read(&folder.path().join(format!("{authority}.pem")));
        Section::Credential(Credential { key, certificates, other: Pem::default() })
    };
    let origination = TlsOrigination {
        certificate: Some(ClientCertificate::Credential("default/shop".into())),
        roots: ServerRoots::Credential("default/shop".into()),
        ..simple(folder.path())
    };
    let shape = originating(origination, UpstreamProtocol::Http1);
    let address = server(Some(ours.server(HOST, true, &BOTH))).await;
    let mut mesh = Mesh::start(Plan { mesh: false, shape: Box::new(shape), ..Plan::new(&[address]) }).await;
    let mut version = 10;
    let mut asked = async |extra: Vec<Section>| {
        version += 1;
        mesh.change(version, |plan| plan.extra = extra).await;
        let faults = mesh.a.shared.roots.originations().faults();
        (
            get(&mesh).await.status.as_u16(),
            faults.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        )
    };
    let missing = |name: &str| (503, format!("there is no credential default/{name}"));
    assert_eq!(asked(vec![]).await, missing("shop-cacert"));
    assert_eq!(asked(vec![shown(&ours)]).await, missing("shop-cacert"));
    assert_eq!(asked(vec![roots("ours")]).await, missing("shop"));
    let good = || vec![shown(&ours), roots("ours")];
    assert_eq!(asked(good()).await, (200, String::new()));
    // What others signed is refused by the server, and theirs by us.
    assert_eq!(asked(vec![shown(&others), roots("ours")]).await.0, 503);
    assert_eq!(asked(vec![shown(&ours), roots("others")]).await.0, 503);
    assert_eq!(asked(good()).await, (200, String::new()));
    // What cannot be read does not replace what can.
    let broken = Credential {
        key: CredentialKey::Shown("default/shop".into()),
        certificates: Pem(b"nothing".to_vec()),
        other: Pem(b"secret".to_vec()),
    };
    let (status, fault) = asked(vec![Section::Credential(broken), roots("ours")]).await;
    assert!(status == 200 && fault.contains("default/shop holds no certificate"), "{status} {fault}");
    assert_eq!(asked(vec![]).await, missing("shop-cacert"));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_begin_with_a_proxy_header_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new(folder.path(), "ours");
    let roots = folder.path().join("ours.pem");
    for (version, expected) in [(1, "PROXY TCP4 127.0.0.1 "), (2, "V2 127.0.0.1 ")] {
        for acceptor in [None, Some(ours.server(HOST, false, &BOTH))] {
            let tls = acceptor.is_some();
            let roots = roots.clone();
            let mesh = mesh(server(acceptor).await, move |destination: &mut Destination| {
                destination.proxy_protocol = Some(version);
                if tls {
                    destination.tls = ClientTls::Originate(simple(&roots));
                }
            })
            .await;
            let (first, second) = (get(&mesh).await, get(&mesh).await);
            assert!(first.body.starts_with(expected), "{first:?}");
            assert!(version == 2 || first.body != second.body, "one connection for two clients: {second:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_behind_another_proxy_gets_the_header_too() {
    let shape =
        |version| Box::new(move |destination: &mut Destination| destination.proxy_protocol = Some(version));
    for (version, expected) in [(1, "PROXY TCP4 127.0.0.1 127.0.0.2 "), (2, "V2 127.0.0.1 ")] {
        let mesh = Mesh::start(Plan { shape: shape(version), ..Plan::new(&[server(None).await]) }).await;
        for _ in 0..2 {
            let answer = get(&mesh).await;
            assert!(answer.body.starts_with(expected) && answer.body.ends_with("h1"), "{answer:?}");
        }
        assert_eq!(mesh.b.metric("istio_requests_total", &["response_code=\"200\""]), 2);
    }
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mesh = Mesh::start(Plan { protocol: Protocol::Tcp, shape: shape(1), ..Plan::new(&[address]) }).await;
    let (mut client, head) = super::streams::connect(&mesh, "reviews:9080").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    client.write_all(b"hello").await.unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut heard = Vec::new();
    while !heard.ends_with(b"hello") {
        heard.push(stream.read_u8().await.unwrap());
    }
    assert!(heard.starts_with(b"PROXY TCP4 127.0.0.1 127.0.0.2 "), "{}", String::from_utf8_lossy(&heard));
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_are_spoken_to_as_the_rule_says() {
    for (upstream, expected) in
        [(UpstreamProtocol::Http1, "h1"), (UpstreamProtocol::Http2, "h2"), (UpstreamProtocol::AsClient, "h1")]
    {
        let mesh = mesh(server(None).await, move |d: &mut Destination| d.upstream = upstream).await;
        assert_eq!(get(&mesh).await.body, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_revoked_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new(folder.path(), "ours");
    let list = |serials: &[u64]| {
        let now = time::OffsetDateTime::now_utc();
        let day = time::Duration::days(1);
        let revoked = serials.iter().map(|serial| rcgen::RevokedCertParams {
            serial_number: (*serial).into(),
            revocation_time: now - day,
            reason_code: None,
            invalidity_date: None,
        });
        let params = rcgen::CertificateRevocationListParams {
            this_update: now - day,
            next_update: now + day,
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        params.signed_by(&ours.issuer).unwrap().pem().unwrap()
    };
    let crl = folder.path().join("crl.pem");
    std::fs::write(&crl, list(&[7])).unwrap();
    let origination = TlsOrigination { crl: Some(text(&crl)), ..simple(&folder.path().join("ours.pem")) };
    for (serial, expected) in [(6, 200), (7, 503)] {
        let (chain, key) = (folder.path().join("s.crt"), KeyPair::generate().unwrap());
        let mut params = CertificateParams::new(vec![HOST.to_owned()]).unwrap();
        params.serial_number = Some(serial.into());
        std::fs::write(&chain, params.signed_by(&key, &ours.issuer).unwrap().pem()).unwrap();
        let chain = CertificateDer::pem_file_iter(chain).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&BOTH)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let shape = originating(origination.clone(), UpstreamProtocol::Http1);
        let mesh = mesh(server(Some(acceptor)).await, shape).await;
        assert_eq!(get(&mesh).await.status, expected, "{serial}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_go_on_through_a_proxy_that_a_rule_names() {
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let asked = head.lines().next().unwrap_or_default().to_owned();
            if asked == "POST / HTTP/1.1" && head.contains("host: db.example:5432") {
                // What comes is chunked as what goes back is.
                let greeting = b"HTTP/1.1 200 Fine\r\ntransfer-encoding: chunked\r\n\r\n6\r\nhello \r\n";
                stream.write_all(greeting).await.unwrap();
                let (mut read, mut write) = stream.split();
                drop(tokio::io::copy(&mut read, &mut write).await);
                continue;
            }
            if asked != "CONNECT db.example:5432 HTTP/1.1" {
                drop(stream.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").await);
                continue;
            }
            // The server behind speaks first.
            stream.write_all(b"HTTP/1.1 200 Fine\r\nx: y\r\n\r\nhello ").await.unwrap();
            let (mut read, mut write) = stream.split();
            drop(tokio::io::copy(&mut read, &mut write).await);
            drop(write.shutdown().await);
        }
    });
    for (host, post, over_mesh, expected) in [
        ("db.example", false, false, "hello world"),
        ("db.example", false, true, "hello world"),
        ("db.example", true, false, "hello world"),
        ("db.example", true, true, "hello world"),
        ("other.example", false, false, ""),
        ("other.example", true, false, ""),
    ] {
        let shape = Box::new(move |destination: &mut Destination| {
            destination.tunnel =
                Some(mesh_core::vocab::tunnel::Tunnel { post, host: host.into(), port: 5432 });
        });
        let plan = Plan { mesh: over_mesh, protocol: Protocol::Tcp, shape, ..Plan::new(&[address]) };
        let mesh = Mesh::start(plan).await;
        let (mut stream, _) = super::streams::connect(&mesh, "reviews:9080").await;
        drop(stream.write_all(b"world").await);
        drop(stream.shutdown().await);
        let mut heard = String::new();
        drop(stream.read_to_string(&mut heard).await);
        assert_eq!(heard, expected, "{host} {post} {over_mesh}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn byte_streams_begin_tls_too() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new(folder.path(), "ours");
    let acceptor = ours.server(HOST, false, &BOTH);
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let header = proxy_header(&mut stream).await;
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            stream.write_all(header.as_bytes()).await.unwrap();
            let (mut read, mut write) = tokio::io::split(stream);
            drop(tokio::io::copy(&mut read, &mut write).await);
            drop(write.shutdown().await);
        }
    });
    let roots = folder.path().join("ours.pem");
    let shape = Box::new(move |destination: &mut Destination| {
        destination.proxy_protocol = Some(1);
        destination.tls = ClientTls::Originate(simple(&roots));
    });
    let mesh =
        Mesh::start(Plan { mesh: false, protocol: Protocol::Tcp, shape, ..Plan::new(&[address]) }).await;
    let (mut stream, head) = super::streams::connect(&mesh, "reviews:9080").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    stream.write_all(b"hello").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut heard = String::new();
    stream.read_to_string(&mut heard).await.unwrap();
    assert!(heard.starts_with("PROXY TCP4 127.0.0.1 127.0.0.2 ") && heard.ends_with("hello"), "{heard}");
}
