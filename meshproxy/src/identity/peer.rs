//! Whether a certificate proves whom it must: chain, usage, validity, then the one identity that it names.

use std::sync::Arc;
use std::time::Duration;

use mesh_core::vocab::identity::{Mark, SpiffeId};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::near::Near;
use super::svid::Trust;
use super::tls::algorithms;

/// Clocks of hosts may differ by so much (reliability notes, TLS and identity).
const SKEW: Duration = Duration::from_secs(60);

/// Why a certificate does not prove an identity that may call or be called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Not a certificate.
    #[error("certificate cannot be parsed")]
    Malformed,
    /// None, or more than one URI in its names.
    #[error("certificate must have exactly one URI name")]
    NotOneUri,
    /// The URI is not a SPIFFE ID.
    #[error("certificate's URI is not a SPIFFE ID")]
    NotSpiffe,
    /// It may sign other certificates, which a peer's must not (X509-SVID section 4.3).
    #[error("certificate is of an authority")]
    Authority,
    /// Its time is over.
    #[error("certificate has expired")]
    Expired,
    /// It is someone else's.
    #[error("certificate is of {0}")]
    Other(SpiffeId),
    /// A node or the control plane.
    #[error("{0} is not a workload")]
    NotWorkload(SpiffeId),
    /// Its host was thrown out.
    #[error("certificate of {0} is of a host that was thrown out")]
    Revoked(SpiffeId),
    /// Another trust domain.
    #[error("{0} is of another trust domain")]
    TrustDomain(SpiffeId),
}

impl PeerError {
    /// One word, for metrics.
    pub fn name(&self) -> &'static str {
        match self {
            PeerError::Malformed => "malformed_certificate",
            PeerError::NotOneUri => "not_one_uri",
            PeerError::NotSpiffe => "not_spiffe",
            PeerError::Authority => "authority_as_peer",
            PeerError::Expired => "expired",
            PeerError::Other(_) => "other_identity",
            PeerError::NotWorkload(_) => "not_workload",
            PeerError::Revoked(_) => "revoked",
            PeerError::TrustDomain(_) => "trust_domain",
        }
    }
}

/// What a leaf certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Its one SPIFFE ID.
    pub id: SpiffeId,
    /// What its serial number begins with: that of all certificates of its host.
    pub mark: Mark,
    /// Whether it says what it is for.
    has_purpose: bool,
    /// Seconds since 1970.
    pub not_before: i64,
    /// Seconds since 1970.
    pub not_after: i64,
}

/// Reads the identity and validity of a leaf, strictly: exactly one URI among its names. Verifies nothing.
pub fn read_leaf(certificate: &CertificateDer<'_>) -> Result<Leaf, PeerError> {
    let (rest, parsed) = X509Certificate::from_der(certificate).map_err(|_| PeerError::Malformed)?;
    if !rest.is_empty() {
        return Err(PeerError::Malformed);
    }
    let usage = parsed.key_usage().map_err(|_| PeerError::Malformed)?;
    if usage.is_some_and(|usage| usage.value.key_cert_sign() || usage.value.crl_sign()) {
        return Err(PeerError::Authority);
    }
    let names = parsed.subject_alternative_name().map_err(|_| PeerError::Malformed)?;
    let mut uris = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let (Some(uri), None) = (uris.next(), uris.next()) else { return Err(PeerError::NotOneUri) };
    let id = SpiffeId::parse(uri).map_err(|_| PeerError::NotSpiffe)?;
    let validity = parsed.validity();
    let mut mark = Mark::default();
    if let Some(first) = parsed.raw_serial().first_chunk() {
        mark = *first;
    }
    let has_purpose = parsed.extended_key_usage().map_err(|_| PeerError::Malformed)?.is_some();
    Ok(Leaf {
        id,
        mark,
        has_purpose,
        not_before: validity.not_before.timestamp(),
        not_after: validity.not_after.timestamp(),
    })
}

/// Who is at the other end, read from the chain that the handshake verified. Checks expiry again, because
/// a resumed session was verified earlier.
pub fn peer(
    chain: Option<&[CertificateDer<'static>]>,
    trust: &Trust,
    now: UnixTime,
) -> Result<Leaf, PeerError> {
    let leaf = read_leaf(chain.and_then(<[_]>::first).ok_or(PeerError::Malformed)?)?;
    let expired = i64::try_from(now.as_secs()).is_ok_and(|now| now > leaf.not_after + SKEW.as_secs() as i64);
    if expired {
        return Err(PeerError::Expired);
    }
    check_workload(&leaf, trust)?;
    Ok(leaf)
}

/// Whether a chain that was verified before would still let its workload in.
pub(super) fn still_trusts(trust: &Arc<Trust>, chain: &[CertificateDer<'static>]) -> bool {
    let Some((leaf, intermediates)) = chain.split_first() else { return false };
    let verifier = PeerVerifier::new(trust, Vec::new(), None);
    verifier.verify(leaf, intermediates, UnixTime::now(), webpki::KeyUsage::client_auth()).is_ok()
}

fn check_workload(leaf: &Leaf, trust: &Trust) -> Result<(), PeerError> {
    let id = &leaf.id;
    if !trust.covers(id.trust_domain()) {
        return Err(PeerError::TrustDomain(id.clone()));
    }
    if id.account().is_none() {
        return Err(PeerError::NotWorkload(id.clone()));
    }
    if trust.revokes(&leaf.mark) {
        return Err(PeerError::Revoked(id.clone()));
    }
    Ok(())
}

/// Verifies a peer: chain, usage, validity, then its one identity.
#[derive(Debug)]
pub(super) struct PeerVerifier {
    trust: Arc<Trust>,
    /// Intermediates that need not be verified again.
    near: Vec<Near>,
    /// Whom the peer must be; `None` takes any workload of the trust domain.
    expected: Option<SpiffeId>,
}

impl PeerVerifier {
    /// Takes this identity, or any workload of the trust domain.
    pub(super) fn new(trust: &Arc<Trust>, near: Vec<Near>, expected: Option<SpiffeId>) -> PeerVerifier {
        PeerVerifier { trust: Arc::clone(trust), near, expected }
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: webpki::KeyUsage,
    ) -> Result<(), rustls::Error> {
        // Cheap, and without it what is wrong could not be told from what a chain may lack.
        let found = read_leaf(leaf);
        if let Err(error @ PeerError::Authority) = found {
            return Err(peer_error(error));
        }
        let certificate = webpki::EndEntityCert::try_from(leaf)
            .map_err(|_| rustls::Error::InvalidCertificate(rustls::CertificateError::BadEncoding))?;
        let all = algorithms().all;
        let verify = |at: UnixTime| {
            if let Some(near) = self.near.iter().find_map(|near| near.anchor(intermediates, at)) {
                let anchor = std::slice::from_ref(near);
                if certificate.verify_for_usage(all, anchor, &[], at, usage, None, None).is_ok() {
                    return Ok(());
                }
            }
            let anchors = &self.trust.anchors;
            certificate.verify_for_usage(all, anchors, intermediates, at, usage, None, None).map(|_| ())
        };
        let verified = match verify(now) {
            Err(webpki::Error::CertExpired { .. }) => verify(shift(now, false)),
            Err(webpki::Error::CertNotValidYet { .. }) => verify(shift(now, true)),
            verified => verified,
        };
        verified.map_err(|error| rustls::Error::InvalidCertificate(certificate_error(error)))?;
        let leaf = found.map_err(peer_error)?;
        // One that says nothing would be good for everything.
        if !leaf.has_purpose {
            return Err(rustls::Error::InvalidCertificate(rustls::CertificateError::InvalidPurpose));
        }
        check_workload(&leaf, &self.trust).map_err(peer_error)?;
        let id = leaf.id;
        match &self.expected {
            Some(expected) if *expected != id => Err(peer_error(PeerError::Other(id))),
            Some(_) | None => Ok(()),
        }
    }
}

fn shift(now: UnixTime, forward: bool) -> UnixTime {
    let now = Duration::from_secs(now.as_secs());
    UnixTime::since_unix_epoch(if forward { now + SKEW } else { now.saturating_sub(SKEW) })
}

pub(super) fn certificate_error(error: webpki::Error) -> rustls::CertificateError {
    match error {
        webpki::Error::CertExpired { .. } => rustls::CertificateError::Expired,
        webpki::Error::CertNotValidYet { .. } => rustls::CertificateError::NotValidYet,
        webpki::Error::UnknownIssuer => rustls::CertificateError::UnknownIssuer,
        webpki::Error::RequiredEkuNotFoundContext(_) => rustls::CertificateError::InvalidPurpose,
        other => rustls::CertificateError::Other(rustls::OtherError(Arc::new(other))),
    }
}

fn peer_error(error: PeerError) -> rustls::Error {
    rustls::Error::InvalidCertificate(rustls::CertificateError::Other(rustls::OtherError(Arc::new(error))))
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates, now, webpki::KeyUsage::server_auth())?;
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
        rustls::crypto::verify_tls13_signature(message, cert, dss, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates, now, webpki::KeyUsage::client_auth())?;
        Ok(ClientCertVerified::assertion())
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
        rustls::crypto::verify_tls13_signature(message, cert, dss, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}
