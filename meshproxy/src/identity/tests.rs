//! Handshakes of every kind of peer, and the word that each failure is counted by.

use std::io;
use std::sync::Arc;

use mesh_core::vocab::hello;
use mesh_core::vocab::identity::{SpiffeId, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    SanType,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, HandshakeKind, ServerConfig, SignatureScheme};
use time::{Duration, OffsetDateTime};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::fault;
use super::near::Near;
use super::peer;
use super::svid::{Svid, Svids};
use super::tls::tests::TestCa;
use super::tls::{self, OneKey, client_config, direct_config, server_name};

const A: &str = "spiffe://cluster.local/ns/default/sa/a";
const B: &str = "spiffe://cluster.local/ns/default/sa/b";

/// Takes every server, as an attacker would.
#[derive(Debug)]
struct Blind;

impl ServerCertVerifier for Blind {
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
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        tls::algorithms().supported_schemes()
    }
}

/// A client that takes every server, shows this, and offers these protocols.
pub(crate) fn blind(
    shown: Option<Arc<CertifiedKey>>,
    versions: &[&'static rustls::SupportedProtocolVersion],
    protocols: &[&str],
) -> ClientConfig {
    let builder =
        ClientConfig::builder_with_provider(tls::provider()).with_protocol_versions(versions).unwrap();
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Blind));
    let mut config = match shown {
        Some(key) => builder.with_client_cert_resolver(Arc::new(OneKey::new(key))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// What an authority has signed, whatever is wrong with it.
pub(crate) fn certified(ca: &TestCa, change: impl Fn(&mut CertificateParams)) -> Arc<CertifiedKey> {
    let (certificate, key) = ca.issue(change);
    let chain = vec![CertificateDer::from(certificate)];
    // Not asked whether they fit: a certificate may be what no library reads.
    let key = tls::provider().key_provider.load_private_key(key.into()).unwrap();
    Arc::new(CertifiedKey::new(chain, key))
}

type Change = Box<dyn Fn(&mut CertificateParams)>;

/// One name.
pub(crate) fn named(uri: &'static str) -> Change {
    Box::new(move |params| params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())])
}

fn and(first: Change, then: impl Fn(&mut CertificateParams) + 'static) -> Change {
    Box::new(move |params| {
        first(params);
        then(params);
    })
}

/// Why certificates are refused, of whoever shows them; `None` where they are taken.
pub(crate) fn certificates() -> Vec<(&'static str, Change, Option<&'static str>)> {
    let now = OffsetDateTime::now_utc();
    let until = move |end: Duration| and(named(A), move |params| params.not_after = now + end);
    let from = move |begin: Duration| and(named(A), move |params| params.not_before = now + begin);
    let usages =
        |usages: &'static [KeyUsagePurpose]| and(named(A), move |params| params.key_usages = usages.to_vec());
    let large = and(named(A), |params| {
        params.custom_extensions = vec![CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![7; 1 << 20])];
    });
    vec![
        ("good", named(A), None),
        (
            "with a DNS name beside it",
            and(named(A), |params| {
                params.subject_alt_names.push(SanType::DnsName("a".try_into().unwrap()));
            }),
            None,
        ),
        ("expired for long", until(-Duration::hours(1)), Some("expired")),
        ("expired by less than clocks differ", until(-Duration::seconds(30)), None),
        ("not valid yet", from(Duration::hours(1)), Some("not_valid_yet")),
        ("valid in less than clocks differ", from(Duration::seconds(30)), None),
        (
            "no URI",
            Box::new(|params| {
                params.subject_alt_names = vec![SanType::DnsName("a".try_into().unwrap())];
            }),
            Some("not_one_uri"),
        ),
        ("no name at all", Box::new(|_| {}), Some("not_one_uri")),
        (
            "two URIs",
            and(named(A), |params| {
                params.subject_alt_names.push(SanType::URI(B.try_into().unwrap()));
            }),
            Some("not_one_uri"),
        ),
        ("another scheme", named("https://cluster.local/ns/default/sa/a"), Some("not_spiffe")),
        ("a percent sign", named("spiffe://cluster.local/ns/default/sa/%61"), Some("not_spiffe")),
        ("a query", named("spiffe://cluster.local/ns/default/sa/a?x"), Some("not_spiffe")),
        ("a NUL", named("spiffe://cluster.local/ns/default/sa/a\0b"), Some("not_spiffe")),
        ("an empty segment", named("spiffe://cluster.local/ns//sa/a"), Some("not_spiffe")),
        ("no workload", named("spiffe://cluster.local/mesh/node/h1"), Some("not_workload")),
        ("one segment too many", named("spiffe://cluster.local/ns/default/sa/a/b"), Some("not_workload")),
        ("another trust domain", named("spiffe://other/ns/default/sa/a"), Some("trust_domain")),
        (
            "CA:TRUE",
            and(named(A), |params| {
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            }),
            Some("authority_as_peer"),
        ),
        ("a key that signs certificates", usages(&[KeyUsagePurpose::KeyCertSign]), Some("authority_as_peer")),
        ("a key that signs messages", usages(&[KeyUsagePurpose::DigitalSignature]), None),
        ("a megabyte", large, Some("too_large")),
        (
            "for nothing in particular",
            and(named(A), |params| params.extended_key_usages = Vec::new()),
            Some("purpose"),
        ),
        (
            "for mails",
            and(named(A), |params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::EmailProtection];
            }),
            Some("purpose"),
        ),
    ]
}

/// What both ends of a handshake say; nothing where all went well.
async fn shake(
    client: ClientConfig,
    name: &str,
    server: Arc<ServerConfig>,
) -> (Option<&'static str>, Option<&'static str>) {
    let (near, far) = tokio::io::duplex(4 << 20);
    let (connector, acceptor) = (TlsConnector::from(Arc::new(client)), TlsAcceptor::from(server));
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let (client, server) = tokio::join!(connector.connect(name, near), acceptor.accept(far));
    let word = |error: io::Error| fault::reason(&error);
    (client.err().map(word), server.err().map(word))
}

fn holder(ca: &TestCa, servers: &[&str]) -> Svids {
    let holder = Svids::new();
    holder.trust(ca.trust());
    for server in servers {
        holder.install(ca.svid(server));
    }
    holder
}

const TLS13: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

#[tokio::test]
async fn a_caller_is_refused_for_what_is_wrong_with_it() {
    let ca = TestCa::new();
    let material = holder(&ca, &[B]).load();
    let name = server_name(&SpiffeId::parse(B).unwrap());
    let check = async |case: &str, client, name: &str, expected| {
        let (_, told) = shake(client, name, Arc::clone(material.server().unwrap())).await;
        assert_eq!(told, expected, "{case}");
    };
    for (case, change, expected) in certificates() {
        check(case, blind(Some(certified(&ca, change)), TLS13, &["h2"]), &name, expected).await;
    }
    let stranger = certified(&TestCa::new(), named(A));
    check("another authority", blind(Some(stranger), TLS13, &["h2"]), &name, Some("unknown_authority")).await;
    let for_servers = and(named(A), |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    check(
        "only for servers",
        blind(Some(certified(&ca, for_servers)), TLS13, &["h2"]),
        &name,
        Some("purpose"),
    )
    .await;
    let good = || Some(certified(&ca, named(A)));
    check("nothing", blind(None, TLS13, &["h2"]), &name, Some("no_certificate")).await;
    let old: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];
    check("TLS 1.2", blind(good(), old, &["h2"]), &name, Some("tls_version")).await;
    check("strange protocols", blind(good(), TLS13, &["\u{0}", "smtp"]), &name, Some("alpn")).await;
    check("a strange name", blind(good(), TLS13, &["h2"]), "a.example", Some("unknown_name")).await;
}

#[tokio::test]
async fn a_server_must_be_exactly_the_one_expected() {
    let ca = TestCa::new();
    let (own, expected_id) = (Arc::new(ca.svid(B)), SpiffeId::parse(A).unwrap());
    let trust = Arc::new(ca.trust());
    let check = async |case: &str, shown: Arc<CertifiedKey>, expected: Option<&str>| {
        let config = ServerConfig::builder_with_provider(tls::provider()).with_protocol_versions(TLS13);
        let config = config.unwrap().with_no_client_auth();
        let config = config.with_cert_resolver(Arc::new(OneKey::new(shown)));
        let client = ClientConfig::clone(&client_config(&own, &trust, &expected_id));
        let (told, _) = shake(client, &server_name(&expected_id), Arc::new(config)).await;
        assert_eq!(told, expected, "{case}");
    };
    for (case, change, expected) in certificates() {
        check(case, certified(&ca, change), expected).await;
    }
    check("another workload", certified(&ca, named(B)), Some("other_identity")).await;
    check("another authority", certified(&TestCa::new(), named(A)), Some("unknown_authority")).await;
    let for_clients = and(named(A), |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    check("only for clients", certified(&ca, for_clients), Some("purpose")).await;
}

#[tokio::test]
async fn aliases_of_the_trust_domain_are_of_the_mesh_and_outlive_renewals() {
    let ca = TestCa::new();
    let holder = holder(&ca, &[B]);
    let name = server_name(&SpiffeId::parse(B).unwrap());
    let meets = async |expected: Option<&str>| {
        let caller = certified(&ca, named("spiffe://old.example/ns/default/sa/a"));
        let server = Arc::clone(holder.load().server().unwrap());
        assert_eq!(shake(blind(Some(caller), TLS13, &["h2"]), &name, server).await.1, expected);
    };
    meets(Some("trust_domain")).await;
    holder.trust(ca.trust().with_aliases(vec![TrustDomain::new("old.example").unwrap()]));
    meets(None).await;
    // The node's own certificate is renewed, and its bundle comes without the aliases.
    holder.trust_roots(ca.trust());
    meets(None).await;
    holder.trust(ca.trust());
    meets(Some("trust_domain")).await;
}

/// How two handshakes in a row with the same client go.
async fn resumed(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Option<HandshakeKind> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (near, far) = tokio::io::duplex(1 << 20);
    let name = ServerName::try_from(server_name(&SpiffeId::parse(B).unwrap())).unwrap();
    let (connector, acceptor) =
        (TlsConnector::from(Arc::clone(client)), TlsAcceptor::from(Arc::clone(server)));
    let (client, server) = tokio::join!(connector.connect(name, near), acceptor.accept(far));
    let (mut client, mut server) = (client.unwrap(), server.unwrap());
    // Tickets come behind the handshake.
    server.write_all(b"x").await.unwrap();
    server.flush().await.unwrap();
    client.read_exact(&mut [0]).await.unwrap();
    client.get_ref().1.handshake_kind()
}

#[tokio::test]
async fn sessions_end_with_the_bundle_and_nothing_is_sent_early() {
    let ca = TestCa::new();
    let holder = holder(&ca, &[B]);
    let server = || Arc::clone(holder.load().server().unwrap());
    let trust = Arc::clone(holder.load().trust().unwrap());
    let client = client_config(&Arc::new(ca.svid(A)), &trust, &SpiffeId::parse(B).unwrap());
    assert!(!client.enable_early_data && server().max_early_data_size == 0);
    assert_eq!(resumed(&client, &server()).await, Some(HandshakeKind::Full));
    assert_eq!(resumed(&client, &server()).await, Some(HandshakeKind::Resumed));
    // The same bundle again is no change.
    holder.trust(ca.trust());
    assert_eq!(resumed(&client, &server()).await, Some(HandshakeKind::Resumed));
    holder.trust(ca.trust().with_aliases(vec![TrustDomain::new("old.example").unwrap()]));
    assert_eq!(resumed(&client, &server()).await, Some(HandshakeKind::Full));
}

#[tokio::test]
async fn a_direct_connection_agrees_on_what_is_carried() {
    let ca = TestCa::new();
    let holder = holder(&ca, &[A, B]);
    let material = holder.load();
    let b = SpiffeId::parse(B).unwrap();
    let check = async |protocols: &[&str], expected: Option<&str>| {
        let client = Arc::new(blind(Some(certified(&ca, named(A))), TLS13, protocols));
        let name = ServerName::try_from("outbound_.80_._.b.default.svc.cluster.local").unwrap();
        let mut first = rustls::ClientConnection::new(Arc::clone(&client), name.clone()).unwrap();
        let mut bytes = Vec::new();
        first.write_tls(&mut bytes).unwrap();
        let config = material.direct(&b, hello::offered(&bytes).unwrap()).unwrap();
        let (near, far) = tokio::io::duplex(1 << 20);
        let (connector, acceptor) = (TlsConnector::from(client), TlsAcceptor::from(config));
        let (near, far) = tokio::join!(connector.connect(name, near), acceptor.accept(far));
        let (near, far) = (near.unwrap(), far.unwrap());
        let agreed = far.get_ref().1.alpn_protocol().map(|name| String::from_utf8(name.to_vec()).unwrap());
        assert_eq!(agreed.as_deref(), expected, "{protocols:?}");
        let shown = peer::read_leaf(&near.get_ref().1.peer_certificates().unwrap()[0]).unwrap();
        assert_eq!(shown.id, b);
    };
    check(&["istio-peer-exchange", "istio"], Some("istio")).await;
    check(&["istio-http/1.1", "istio", "http/1.1"], Some("http/1.1")).await;
    check(&["istio-http/1.0", "istio", "http/1.0"], Some("istio")).await;
    check(&["istio-h2", "istio", "h2"], Some("h2")).await;
    check(&["istio-peer-exchange"], None).await;
    check(&[], None).await;
    let strict = direct_config(&Arc::new(ca.svid(B)), &Arc::new(ca.trust()));
    assert_eq!(shake(blind(None, TLS13, &["h2"]), "x.example", strict).await.1, Some("no_certificate"));
}

/// The short way through an intermediate of our own lets nobody in whom the long way would not.
#[tokio::test]
async fn a_known_intermediate_vouches_for_what_it_has_signed_alone() {
    let root = TestCa::new();
    let ((ours, our_der), (other, other_der), (foreign, foreign_der)) =
        (root.intermediate(), root.intermediate(), TestCa::new().intermediate());
    let through = |ca: &TestCa, between: &CertificateDer<'static>, change: Change| {
        let (certificate, key) = ca.issue(change);
        let key = tls::provider().key_provider.load_private_key(key.into()).unwrap();
        Arc::new(CertifiedKey::new(vec![CertificateDer::from(certificate), between.clone()], key))
    };
    let (certificate, key) = ours.issue(named(B));
    let own =
        Svid::new(SpiffeId::parse(B).unwrap(), vec![certificate, our_der.to_vec()], key.into()).unwrap();
    let holder = Svids::new();
    holder.trust(root.trust());
    holder.install(own);
    let trust = Arc::clone(holder.load().trust().unwrap());
    assert_eq!(Near::of(&trust, holder.load().svids()).len(), 1);
    let name = server_name(&SpiffeId::parse(B).unwrap());
    let check = async |case: &str, shown: Arc<CertifiedKey>, expected: Option<&str>| {
        let server = Arc::clone(holder.load().server().unwrap());
        let (_, told) = shake(blind(Some(shown), TLS13, &["h2"]), &name, server).await;
        assert_eq!(told, expected, "{case}");
    };
    check("ours", through(&ours, &our_der, named(A)), None).await;
    check("another of the root", through(&other, &other_der, named(A)), None).await;
    check("another authority's", through(&foreign, &foreign_der, named(A)), Some("unknown_authority")).await;
    check("ours, but not signed by it", through(&foreign, &our_der, named(A)), Some("unknown_authority"))
        .await;
    check("not its own", through(&other, &our_der, named(A)), Some("unknown_authority")).await;
    let past = and(named(A), |params| params.not_after = OffsetDateTime::now_utc() - Duration::hours(1));
    check("expired", through(&ours, &our_der, past), Some("expired")).await;
    // The root is gone, and what it had signed with it.
    let stranger = Arc::new(TestCa::new().trust());
    assert_eq!(Near::of(&stranger, holder.load().svids()).len(), 0);
}
