//! TLS between proxies: 1.3 only, both sides prove a SPIFFE ID.
//!
//! Authority and SNI never count as identity. The client checks one expected identity, by one verifier
//! object for each, because rustls keys resumption by the verifier; the server takes any workload of the
//! trust domain and leaves the rest to policy. A node's or the control plane's identity is never a peer.

use std::fmt::Write as _;
use std::sync::Arc;

use mesh_core::vocab::hello::Offered;
use mesh_core::vocab::identity::SpiffeId;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, SignatureScheme};
use sha2::{Digest as _, Sha256};

use super::near::Near;
use super::peer::PeerVerifier;
use super::svid::{Material, Svid, Trust};

const ALPN: &[u8] = b"h2";
/// What a connection straight to a workload's port may agree on. Istio's clients offer these behind its own names, of which
/// `istio-peer-exchange` is never agreed on: whoever does must begin with metadata that nobody here reads.
const DIRECT: [&[u8]; 3] = [ALPN, b"http/1.1", b"istio"];

/// The server name that asks for an identity: half of the SHA-256 of its text. It only selects; it proves nothing.
pub fn server_name(id: &SpiffeId) -> String {
    let digest = Sha256::digest(id.as_str().as_bytes());
    let mut name = String::with_capacity(37);
    for byte in &digest[..16] {
        let _ = write!(name, "{byte:02x}");
    }
    name.push_str(".mesh");
    name
}

/// The one cryptographic provider.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::OnceLock<Arc<CryptoProvider>> = std::sync::OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        // First what costs least: processors have instructions for SHA-256, and AES-128 has fewer rounds.
        provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
        Arc::new(provider)
    }))
}

/// What to present and demand when calling `peer` as the owner of `svid`. Made once for a pair and reused:
/// resumption depends on it.
pub fn client_config(svid: &Arc<Svid>, trust: &Arc<Trust>, peer: &SpiffeId) -> Arc<rustls::ClientConfig> {
    let verifier = PeerVerifier::new(trust, Vec::new(), Some(peer.clone()));
    let builder = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3");
    let mut config = builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(OneKey(Arc::clone(svid.certified()))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.enable_early_data = false;
    Arc::new(config)
}

/// What the mesh port presents and demands; `None` without a bundle or any workload's key.
pub(super) fn server_config(material: &Material) -> Option<Arc<rustls::ServerConfig>> {
    let trust = material.trust()?;
    let keys: Vec<(String, Arc<CertifiedKey>)> = material
        .svids()
        .filter(|svid| svid.id().account().is_some())
        .map(|svid| (server_name(svid.id()), Arc::clone(svid.certified())))
        .collect();
    if keys.is_empty() {
        return None;
    }
    let mut config = accepting(trust, Near::of(trust, material.svids()), Arc::new(BySni { keys }));
    config.alpn_protocols = vec![ALPN.to_vec()];
    Some(Arc::new(config))
}

/// What connections straight to a port of this workload are shown, and what they must show: any workload of the mesh.
pub(super) fn direct_config(svid: &Arc<Svid>, trust: &Arc<Trust>) -> Arc<rustls::ServerConfig> {
    let near = Near::of(trust, std::iter::once(svid));
    let mut config = accepting(trust, near, Arc::new(OneKey(Arc::clone(svid.certified()))));
    config.alpn_protocols = DIRECT.map(<[u8]>::to_vec).to_vec();
    Arc::new(config)
}

/// The same for a client that offers these: with one that knows none of ours nothing is agreed on.
pub(super) fn for_client(config: &Arc<rustls::ServerConfig>, offered: Offered) -> Arc<rustls::ServerConfig> {
    if offered.known || !offered.any {
        return Arc::clone(config);
    }
    let mut config = rustls::ServerConfig::clone(config);
    config.alpn_protocols.clear();
    Arc::new(config)
}

/// Takes any workload of the trust domain. Sessions live in the configuration and die with it.
fn accepting(trust: &Arc<Trust>, near: Vec<Near>, keys: Arc<dyn ResolvesServerCert>) -> rustls::ServerConfig {
    let verifier = PeerVerifier::new(trust, near, None);
    let builder = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3");
    let mut config = builder.with_client_cert_verifier(Arc::new(verifier)).with_cert_resolver(keys);
    config.max_early_data_size = 0;
    config.ignore_client_order = true;
    // A proxy opens another connection only when one is full.
    config.send_tls13_tickets = 1;
    config
}

pub(super) fn algorithms() -> WebPkiSupportedAlgorithms {
    provider().signature_verification_algorithms
}

/// Presents always the same key.
#[derive(Debug)]
pub(super) struct OneKey(Arc<CertifiedKey>);

impl OneKey {
    pub(super) fn new(key: Arc<CertifiedKey>) -> OneKey {
        OneKey(key)
    }
}

impl rustls::client::ResolvesClientCert for OneKey {
    fn resolve(&self, _root_hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for OneKey {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// Presents the key of the identity that the server name asks for.
#[derive(Debug)]
struct BySni {
    keys: Vec<(String, Arc<CertifiedKey>)>,
}

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        match (hello.server_name(), &self.keys[..]) {
            (Some(name), keys) => {
                keys.iter().find(|(known, _)| known == name).map(|(_, key)| Arc::clone(key))
            }
            // An Istio ambient peer sends none; answered only where there is nothing to choose.
            (None, [(_, only)]) => Some(Arc::clone(only)),
            (None, _) => None,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use mesh_core::vocab::identity::TrustDomain;
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
    };
    use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::super::peer::{PeerError, read_leaf};
    use super::super::svid::Svids;

    /// A root for tests.
    pub(crate) struct TestCa(CertifiedIssuer<'static, KeyPair>);

    impl TestCa {
        pub(crate) fn new() -> TestCa {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            TestCa(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
        }

        /// An authority that this one has signed, and its certificate.
        pub(crate) fn intermediate(&self) -> (TestCa, CertificateDer<'static>) {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().unwrap();
            let issuer = CertifiedIssuer::signed_by(params, key, &self.0).unwrap();
            let certificate = issuer.der().clone();
            (TestCa(issuer), certificate)
        }

        pub(crate) fn trust(&self) -> Trust {
            Trust::new(TrustDomain::new("cluster.local").unwrap(), vec![self.0.der().to_vec()]).unwrap()
        }

        pub(crate) fn svid(&self, id: &str) -> Svid {
            self.svid_with(id, |_| {})
        }

        pub(crate) fn svid_with(&self, id: &str, change: impl Fn(&mut CertificateParams)) -> Svid {
            let (certificate, key) = self.issue(|params| {
                params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
                change(params);
            });
            Svid::new(SpiffeId::parse(id).unwrap(), vec![certificate], key.into()).unwrap()
        }

        /// A certificate with whatever may be wrong with it, and its key.
        pub(crate) fn issue(
            &self,
            change: impl Fn(&mut CertificateParams),
        ) -> (Vec<u8>, PrivatePkcs8KeyDer<'static>) {
            let mut params = CertificateParams::default();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.extended_key_usages =
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            change(&mut params);
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &self.0).unwrap();
            (certificate.der().to_vec(), PrivatePkcs8KeyDer::from(key.serialize_der()))
        }
    }

    const A: &str = "spiffe://cluster.local/ns/default/sa/a";
    const B: &str = "spiffe://cluster.local/ns/default/sa/b";

    fn id(text: &str) -> SpiffeId {
        SpiffeId::parse(text).unwrap()
    }

    /// Whether `client` reaches `servers` when it expects `peer`.
    async fn handshake(ca: &TestCa, client: Svid, servers: Vec<Svid>, peer: &str) -> bool {
        let holder = Svids::new();
        holder.trust(ca.trust());
        for server in servers {
            holder.install(server);
        }
        let material = holder.load();
        let acceptor = TlsAcceptor::from(Arc::clone(material.server().unwrap()));
        let config = client_config(&Arc::new(client), &Arc::new(ca.trust()), &id(peer));
        let name = ServerName::try_from(server_name(&id(peer))).unwrap();
        let (near, far) = tokio::io::duplex(64 * 1024);
        let connector = TlsConnector::from(config);
        let (client, server) = tokio::join!(connector.connect(name, near), acceptor.accept(far));
        // With TLS 1.3 the client finishes first: the server's word counts too.
        client.is_ok() && server.is_ok()
    }

    #[tokio::test]
    async fn the_expected_identity_is_let_in_and_no_other() {
        let ca = TestCa::new();
        assert!(handshake(&ca, ca.svid(A), vec![ca.svid(B)], B).await);
        assert!(handshake(&ca, ca.svid(A), vec![ca.svid(A), ca.svid(B)], B).await);
        assert!(!handshake(&ca, ca.svid(A), vec![ca.svid(A)], B).await);
        assert!(!handshake(&ca, TestCa::new().svid(A), vec![ca.svid(B)], B).await);
        assert!(!handshake(&ca, ca.svid(A), vec![TestCa::new().svid(B)], B).await);
    }

    #[tokio::test]
    async fn expired_misused_and_non_workload_certificates_are_refused() {
        let ca = TestCa::new();
        let past = time::OffsetDateTime::UNIX_EPOCH + time::Duration::days(365 * 40);
        let expired = ca.svid_with(A, |params| params.not_after = past);
        assert!(!handshake(&ca, expired, vec![ca.svid(B)], B).await);
        let server_only = ca.svid_with(A, |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        });
        assert!(!handshake(&ca, server_only, vec![ca.svid(B)], B).await);
        for caller in [
            "spiffe://cluster.local/mesh/node/h1",
            "spiffe://cluster.local/mesh/control",
            "spiffe://other/ns/default/sa/a",
        ] {
            assert!(!handshake(&ca, ca.svid(caller), vec![ca.svid(B)], B).await, "{caller}");
        }
        let two = ca.svid_with(A, |params| {
            params.subject_alt_names.push(SanType::DnsName("a".try_into().unwrap()));
        });
        assert!(handshake(&ca, two, vec![ca.svid(B)], B).await);
    }

    #[test]
    fn two_uris_are_no_identity() {
        let ca = TestCa::new();
        let mut params = CertificateParams::default();
        params.subject_alt_names =
            vec![SanType::URI(A.try_into().unwrap()), SanType::URI(B.try_into().unwrap())];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &ca.0).unwrap();
        assert_eq!(read_leaf(certificate.der()), Err(PeerError::NotOneUri));
    }
}
