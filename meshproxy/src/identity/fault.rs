//! Why a handshake came to nothing, in one word: what metrics count it by.

use std::io;

use rustls::{CertificateError, Error, InvalidMessage, OtherError, PeerIncompatible};

use super::peer::PeerError;

/// The peer did not finish in time.
pub const TIMEOUT: &str = "timeout";
/// The peer went away.
pub const CLOSED: &str = "closed";

/// The word for what a TLS connector or acceptor said.
pub fn reason(error: &io::Error) -> &'static str {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(error) => of_tls(error),
        None => CLOSED,
    }
}

fn of_tls(error: &Error) -> &'static str {
    match error {
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => "no_tls",
        Error::InvalidMessage(
            InvalidMessage::HandshakePayloadTooLarge
            | InvalidMessage::CertificatePayloadTooLarge
            | InvalidMessage::MessageTooLarge,
        ) => "too_large",
        Error::PeerIncompatible(
            // Without which there is no later version than TLS 1.1.
            PeerIncompatible::SignatureAlgorithmsExtensionRequired
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled,
        )
        | Error::InvalidMessage(InvalidMessage::UnknownProtocolVersion) => "tls_version",
        Error::PeerIncompatible(_) => "nothing_in_common",
        Error::NoApplicationProtocol => "alpn",
        Error::NoCertificatesPresented => "no_certificate",
        // What rustls says where there is no key for the name that was asked for.
        Error::General(_) => "unknown_name",
        Error::AlertReceived(_) => "refused_by_peer",
        Error::InvalidCertificate(error) => of_certificate(error),
        Error::InvalidMessage(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::PeerMisbehaved(_)
        | Error::PeerSentOversizedRecord
        | Error::DecryptError => "malformed",
        _ => "other",
    }
}

fn of_certificate(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "not_valid_yet",
        CertificateError::UnknownIssuer | CertificateError::BadSignature => "unknown_authority",
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => "purpose",
        CertificateError::Revoked => "revoked",
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "other_identity"
        }
        CertificateError::BadEncoding => "malformed_certificate",
        CertificateError::Other(OtherError(inner)) => {
            if let Some(error) = inner.downcast_ref::<PeerError>() {
                return error.name();
            }
            match inner.downcast_ref::<webpki::Error>() {
                Some(webpki::Error::CaUsedAsEndEntity) => "authority_as_peer",
                // An authority of the same name with another key.
                Some(webpki::Error::InvalidSignatureForPublicKey) => "unknown_authority",
                _ => "bad_certificate",
            }
        }
        _ => "bad_certificate",
    }
}
