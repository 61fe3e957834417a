//! The gRPC channel to a meshd: dialled here, verified by the pinned root or the stored bundle and by meshd's
//! SPIFFE ID, never by host name.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper_util::rt::TokioIo;
use mesh_core::vocab::identity::{SpiffeId, TrustDomain};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, DigitallySignedStruct, SignatureScheme};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use crate::config::ControlUrl;
use crate::identity::{peer, tls};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A meshd whose host vanished is noticed after the sum of both.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Finds the addresses of a control plane's name. Not the host's resolver: that may be this proxy.
pub type Resolve = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;

/// Why there is no channel.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The name has no address.
    #[error("cannot resolve {host}: {source}")]
    Resolve {
        /// The name.
        host: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Nobody answers.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Somebody answers who is not our control plane, or does not take our certificate.
    #[error("{address} is not the control plane of this mesh: {source}")]
    Handshake {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The control plane's certificate is of another time than this host's clock shows.
    #[error("by this host's clock the certificate of {address} is not valid now; set the clock: {source}")]
    Clock {
        /// Where.
        address: SocketAddr,
        /// Expired, or not valid yet.
        #[source]
        source: io::Error,
    },
    /// HTTP/2 could not be begun.
    #[error("no HTTP/2 with {address}")]
    Http {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: tonic::transport::Error,
    },
}

/// Whether a handshake failed only for the time on our clock.
fn is_out_of_time(error: &io::Error) -> bool {
    use rustls::CertificateError as Fault;
    let inner = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::InvalidCertificate(fault)) = inner else { return false };
    matches!(
        fault,
        Fault::Expired | Fault::ExpiredContext { .. } | Fault::NotValidYet | Fault::NotValidYetContext { .. }
    )
}

impl ChannelError {
    /// Whether the other side proved to be another mesh's, so that another trust might help.
    pub fn is_distrust(&self) -> bool {
        let ChannelError::Handshake { source, .. } = self else { return false };
        let inner = source.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
        matches!(inner, Some(rustls::Error::InvalidCertificate(_)))
    }
}

/// What proves that somebody is our control plane.
#[derive(Debug, Clone)]
pub enum Expected {
    /// A chain that ends in the root with this SHA-256: before the first join.
    Pin([u8; 32]),
    /// A chain to one of these roots, for the control plane of this trust domain.
    Roots(TrustDomain, Vec<CertificateDer<'static>>),
}

/// Dials one meshd. The channel does not reconnect: its owner dials again, perhaps another one.
pub async fn dial(
    url: &ControlUrl,
    resolve: &Resolve,
    expected: Expected,
    key: Option<Arc<CertifiedKey>>,
) -> Result<Channel, ChannelError> {
    let connector = TlsConnector::from(Arc::new(client_config(expected, key)));
    let stream = connect(url, resolve).await?;
    let address = stream.peer_addr().map_err(|source| ChannelError::Connect {
        address: SocketAddr::new(IpAddr::from([0, 0, 0, 0]), url.port),
        source,
    })?;
    let handshake = |source: io::Error| match is_out_of_time(&source) {
        true => ChannelError::Clock { address, source },
        false => ChannelError::Handshake { address, source },
    };
    let name =
        ServerName::try_from(url.host.clone()).unwrap_or_else(|_| ServerName::IpAddress(address.ip().into()));
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, connector.connect(name, stream))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(handshake)?;
    let mut once = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_: http::Uri| {
        let stream = once.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
        std::future::ready(stream)
    });
    Endpoint::from_static("http://control.mesh")
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(1 << 21)
        .connect_with_connector(connector)
        .await
        .map_err(|source| ChannelError::Http { address, source })
}

async fn connect(url: &ControlUrl, resolve: &Resolve) -> Result<TcpStream, ChannelError> {
    let missing = |source| ChannelError::Resolve { host: url.host.clone(), source };
    let addresses = match url.host.parse::<IpAddr>() {
        Ok(address) => vec![address],
        Err(_) => resolve(url.host.clone()).await.map_err(missing)?,
    };
    let mut last = missing(io::Error::new(io::ErrorKind::NotFound, "no address"));
    for address in addresses {
        let address = SocketAddr::new(address, url.port);
        let attempt = tokio::time::timeout(CONNECT_TIMEOUT, crate::dial::tcp(address)).await;
        match attempt.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => {
                let set = stream.set_nodelay(true);
                return set.map(|()| stream).map_err(|source| ChannelError::Connect { address, source });
            }
            Err(source) => last = ChannelError::Connect { address, source },
        }
    }
    Err(last)
}

fn client_config(expected: Expected, key: Option<Arc<CertifiedKey>>) -> rustls::ClientConfig {
    let builder = rustls::ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ControlVerifier(expected)));
    let mut config = match key {
        Some(key) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A session that is resumed skips the verifier, and a channel is dialled seldom.
    config.resumption = rustls::client::Resumption::disabled();
    config
}

/// Verifies meshd: chain to the expected root, and the control plane's SPIFFE ID.
#[derive(Debug)]
struct ControlVerifier(Expected);

impl ControlVerifier {
    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), CertificateError> {
        let pinned;
        let roots: &[CertificateDer<'_>] = match &self.0 {
            Expected::Roots(_, roots) => roots,
            Expected::Pin(pin) => {
                let is_pinned = |der: &&CertificateDer<'_>| Sha256::digest(der) == (*pin).into();
                let root = above.iter().find(is_pinned).ok_or(CertificateError::UnknownIssuer)?;
                pinned = [root.clone()];
                &pinned
            }
        };
        let anchors: Vec<TrustAnchor<'_>> =
            roots.iter().filter_map(|root| webpki::anchor_from_trusted_cert(root).ok()).collect();
        let certificate = webpki::EndEntityCert::try_from(leaf).map_err(|_| CertificateError::BadEncoding)?;
        certificate
            .verify_for_usage(
                tls::provider().signature_verification_algorithms.all,
                &anchors,
                above,
                now,
                webpki::KeyUsage::server_auth(),
                None,
                None,
            )
            .map_err(|error| match error {
                webpki::Error::CertExpired { .. } => CertificateError::Expired,
                webpki::Error::CertNotValidYet { .. } => CertificateError::NotValidYet,
                webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
                other => CertificateError::Other(rustls::OtherError(Arc::new(other))),
            })?;
        let id = peer::read_leaf(leaf)
            .map_err(|error| CertificateError::Other(rustls::OtherError(Arc::new(error))))?
            .id;
        let is_control = match &self.0 {
            Expected::Roots(domain, _) => id == SpiffeId::control(domain),
            Expected::Pin(_) => id.path() == "mesh/control",
        };
        if is_control { Ok(()) } else { Err(CertificateError::NotValidForName) }
    }
}

impl ServerCertVerifier for ControlVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(end_entity, intermediates, now).map_err(rustls::Error::InvalidCertificate)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = tls::provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        tls::provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
    };

    use super::*;

    fn root() -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn leaf(root: &CertifiedIssuer<'static, KeyPair>, id: &str) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.signed_by(&KeyPair::generate().unwrap(), root).unwrap().der().clone()
    }

    const CONTROL: &str = "spiffe://cluster.local/mesh/control";

    #[test]
    fn only_the_pinned_root_s_control_plane_is_believed() {
        let (ours, other) = (root(), root());
        let pin = Expected::Pin(Sha256::digest(ours.der()).into());
        let check = |expected: &Expected, leaf: &CertificateDer<'_>, above: &[CertificateDer<'_>]| {
            ControlVerifier(expected.clone()).check(leaf, above, UnixTime::now())
        };
        let [ours_der, other_der] = [ours.der().clone(), other.der().clone()];
        let good = leaf(&ours, CONTROL);
        assert_eq!(check(&pin, &good, std::slice::from_ref(&ours_der)), Ok(()));
        assert_eq!(check(&pin, &good, &[]), Err(CertificateError::UnknownIssuer));
        let forged = leaf(&other, CONTROL);
        assert!(check(&pin, &forged, &[other_der.clone(), ours_der.clone()]).is_err());
        let node = leaf(&ours, "spiffe://cluster.local/mesh/node/h1");
        assert_eq!(
            check(&pin, &node, std::slice::from_ref(&ours_der)),
            Err(CertificateError::NotValidForName)
        );
        let domain = TrustDomain::new("cluster.local").unwrap();
        let roots = Expected::Roots(domain, vec![ours_der]);
        assert_eq!(check(&roots, &good, &[]), Ok(()));
        assert!(check(&roots, &forged, &[]).is_err());
        let elsewhere = leaf(&ours, "spiffe://other/mesh/control");
        assert_eq!(check(&roots, &elsewhere, &[]), Err(CertificateError::NotValidForName));
    }
}
