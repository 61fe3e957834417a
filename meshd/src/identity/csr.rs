//! What is taken from a certificate request: its public key, and nothing else.

use rcgen::{CertificateSigningRequestParams, PublicKeyData, SubjectPublicKeyInfo};
use rustls_pki_types::CertificateSigningRequestDer;
use sha2::{Digest, Sha256};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

/// SHA-256 of a public key in its SubjectPublicKeyInfo form.
pub type Fingerprint = [u8; 32];

/// No honest request is larger; a bound before any parsing.
const LONGEST: usize = 16 << 10;

/// Why a certificate request was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Not PKCS#10, or longer than any honest one.
    #[error("the certificate request is not a PKCS#10 request in DER")]
    Shape,
    /// Not signed by the key that it names.
    #[error("the certificate request is not signed by its own key")]
    Signature,
    /// A kind or size of key that we do not certify.
    #[error(
        "a key of this kind is not certified (allowed: ECDSA P-256 and P-384, Ed25519, RSA from 2048 bits): {0}"
    )]
    Key(String),
}

/// The checked public key of a request.
#[derive(Debug, Clone)]
pub struct RequestedKey {
    /// The key, for the certificate.
    pub key: SubjectPublicKeyInfo,
    /// The key's fingerprint.
    pub fingerprint: Fingerprint,
}

/// Checks that the request is signed by its own key and that the key is of an allowed kind.
pub fn requested_key(der: &[u8]) -> Result<RequestedKey, CsrError> {
    if der.len() > LONGEST {
        return Err(CsrError::Shape);
    }
    let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| CsrError::Shape)?;
    if !rest.is_empty() {
        return Err(CsrError::Shape);
    }
    let spki = &request.certification_request_info.subject_pki;
    let refused = |what: &str| Err(CsrError::Key(what.to_owned()));
    match spki.parsed().map_err(|_| CsrError::Shape)? {
        PublicKey::EC(point) => {
            let size = point.key_size();
            if size != 256 && size != 384 {
                return refused(&format!("an elliptic curve of {size} bits"));
            }
        }
        PublicKey::RSA(key) => {
            let size = key.key_size();
            if !(2048..=8192).contains(&size) {
                return refused(&format!("RSA of {size} bits"));
            }
        }
        // x509-parser has no name for Ed25519; the look-up below accepts no other of the unnamed.
        PublicKey::Unknown(_) => {}
        _ => return refused("neither elliptic curve nor RSA"),
    }
    let key = SubjectPublicKeyInfo::from_der(spki.raw)
        .map_err(|_| CsrError::Key("unknown algorithm".to_owned()))?;
    CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der)).map_err(|error| {
        match error {
            rcgen::Error::InvalidCertificationRequestSignature => CsrError::Signature,
            rcgen::Error::UnsupportedSignatureAlgorithm => CsrError::Key("unknown algorithm".to_owned()),
            _ => CsrError::Shape,
        }
    })?;
    let fingerprint = fingerprint(&key.subject_public_key_info());
    Ok(RequestedKey { key, fingerprint })
}

/// SHA-256 of a SubjectPublicKeyInfo.
pub fn fingerprint(spki: &[u8]) -> Fingerprint {
    Sha256::digest(spki).into()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, RsaKeySize};

    use super::*;

    fn request(key: &KeyPair) -> Vec<u8> {
        let params = CertificateParams::new(["other.example".to_owned()]).unwrap();
        params.serialize_request(key).unwrap().der().to_vec()
    }

    #[test]
    fn allowed_keys_pass() {
        for algorithm in
            [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519]
        {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let requested =
                requested_key(&request(&key)).unwrap_or_else(|error| panic!("{algorithm:?}: {error}"));
            assert_eq!(requested.fingerprint, fingerprint(&key.subject_public_key_info()));
        }
        let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        requested_key(&request(&rsa)).unwrap();
    }

    #[test]
    fn other_keys_and_other_bytes_are_refused() {
        let large = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
        assert!(matches!(requested_key(&request(&large)), Err(CsrError::Key(_))));
        let key = KeyPair::generate().unwrap();
        let good = request(&key);
        for cut in [0, 1, good.len() / 2, good.len() - 1] {
            assert_eq!(requested_key(&good[..cut]).unwrap_err(), CsrError::Shape);
        }
        assert_eq!(requested_key(&vec![0x30; LONGEST + 1]).unwrap_err(), CsrError::Shape);
        let mut forged = good.clone();
        let last = forged.len() - 1;
        forged[last] ^= 1;
        assert_eq!(requested_key(&forged).unwrap_err(), CsrError::Signature);
    }
}
