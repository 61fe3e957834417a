//! The keys of a JSON Web Key Set, ready to verify with.

use aws_lc_rs::{hmac, signature};
use base64::Engine as _;
use serde_json::{Map, Value};

use super::error::TokenError;
use super::token::{Algorithm, BASE64, Token};

/// The name of the key that Istio puts in the place of a set that it could not fetch: a token that names another
/// hears that there is no such key.
const PLACEHOLDER: &str = "abc";

/// Keys; or that they are not at hand, so that no token verifies.
#[derive(Debug)]
pub(super) enum KeySet {
    Known(Vec<Key>),
    NotFetched,
}

/// One key with the algorithms that it is for.
#[derive(Debug)]
pub(super) struct Key {
    name: Option<String>,
    algorithm: Option<String>,
    verifiers: Vec<(Algorithm, Verifier)>,
}

#[derive(Debug)]
enum Verifier {
    Public(signature::ParsedPublicKey),
    Shared(Box<hmac::Key>),
}

impl KeySet {
    /// Reads a set; keys that cannot be used are passed over.
    pub(super) fn parse(text: &str) -> KeySet {
        let set: Value = serde_json::from_str(text).unwrap_or(Value::Null);
        let keys = set.get("keys").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        KeySet::Known(keys.iter().filter_map(Value::as_object).filter_map(Key::read).collect())
    }

    /// Whether a token was signed with one of the keys. With a name only the keys of that name, and those without
    /// any, are tried; a key that names an algorithm is for that alone.
    pub(super) fn verify(&self, token: &Token<'_>) -> Result<(), TokenError> {
        let keys = match self {
            KeySet::Known(keys) if keys.is_empty() => return Err(TokenError::NoKeys),
            KeySet::Known(keys) => keys,
            KeySet::NotFetched => {
                let named = token.key.as_deref().is_some_and(|name| name != PLACEHOLDER);
                return Err(if named { TokenError::NoSuchKey } else { TokenError::Signature });
            }
        };
        let mut error = TokenError::NoSuchKey;
        for key in keys {
            let other = |wanted: &Option<String>, found: &str| wanted.as_deref().is_some_and(|w| w != found);
            if token.key.as_ref().is_some_and(|name| other(&key.name, name))
                || other(&key.algorithm, token.algorithm.name())
            {
                continue;
            }
            error = TokenError::Signature;
            let verifier = key.verifiers.iter().find(|(algorithm, _)| *algorithm == token.algorithm);
            let Some((_, verifier)) = verifier else { continue };
            if token.algorithm == Algorithm::EdDsa && token.signature.len() != 64 {
                return Err(TokenError::SignatureLength);
            }
            let verified = match verifier {
                Verifier::Public(key) => key.verify_sig(token.signed, &token.signature).is_ok(),
                Verifier::Shared(key) => hmac::verify(key, token.signed, &token.signature).is_ok(),
            };
            if verified {
                return Ok(());
            }
        }
        Err(error)
    }
}

impl Key {
    fn read(fields: &Map<String, Value>) -> Option<Key> {
        let text = |name: &str| fields.get(name).and_then(Value::as_str);
        let bytes = |name: &str| text(name).and_then(|encoded| BASE64.decode(encoded).ok());
        let algorithm = text("alg").filter(|name| !name.is_empty());
        let wanted = |known: &Algorithm| algorithm.is_none_or(|name| name == known.name());
        let public = |known: Algorithm, encoded: &[u8]| {
            let parsed = signature::ParsedPublicKey::new(verification(known)?, encoded).ok()?;
            Some((known, Verifier::Public(parsed)))
        };
        let verifiers: Vec<(Algorithm, Verifier)> = match text("kty")? {
            "RSA" => {
                let encoded = rsa_public_key(&bytes("n")?, &bytes("e")?);
                let known = [
                    Algorithm::Rs256,
                    Algorithm::Rs384,
                    Algorithm::Rs512,
                    Algorithm::Ps256,
                    Algorithm::Ps384,
                    Algorithm::Ps512,
                ];
                known.into_iter().filter(wanted).filter_map(|known| public(known, &encoded)).collect()
            }
            "EC" => {
                let (known, size) = match (text("crv"), algorithm) {
                    (Some("P-256"), _) | (None, None | Some("ES256")) => (Algorithm::Es256, 32),
                    (Some("P-384"), _) | (None, Some("ES384")) => (Algorithm::Es384, 48),
                    (Some("P-521"), _) | (None, Some("ES512")) => (Algorithm::Es512, 66),
                    _ => return None,
                };
                let point = point(&bytes("x")?, &bytes("y")?, size)?;
                [known].into_iter().filter(wanted).filter_map(|known| public(known, &point)).collect()
            }
            "OKP" if text("crv") == Some("Ed25519") => {
                let encoded = bytes("x")?;
                let known = [Algorithm::EdDsa];
                known.into_iter().filter(wanted).filter_map(|known| public(known, &encoded)).collect()
            }
            "oct" => {
                let secret = bytes("k").filter(|secret| !secret.is_empty())?;
                let known = [
                    (Algorithm::Hs256, hmac::HMAC_SHA256),
                    (Algorithm::Hs384, hmac::HMAC_SHA384),
                    (Algorithm::Hs512, hmac::HMAC_SHA512),
                ];
                let known = known.into_iter().filter(|(known, _)| wanted(known));
                known
                    .map(|(known, mac)| (known, Verifier::Shared(Box::new(hmac::Key::new(mac, &secret)))))
                    .collect()
            }
            _ => return None,
        };
        if verifiers.is_empty() {
            return None;
        }
        let name = text("kid").filter(|name| !name.is_empty()).map(str::to_owned);
        Some(Key { name, algorithm: algorithm.map(str::to_owned), verifiers })
    }
}

fn verification(algorithm: Algorithm) -> Option<&'static dyn signature::VerificationAlgorithm> {
    Some(match algorithm {
        Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
        Algorithm::Es256 => &signature::ECDSA_P256_SHA256_FIXED,
        Algorithm::Es384 => &signature::ECDSA_P384_SHA384_FIXED,
        Algorithm::Es512 => &signature::ECDSA_P521_SHA512_FIXED,
        Algorithm::EdDsa => &signature::ED25519,
        Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512 => return None,
    })
}

/// An uncompressed point of a curve (SEC 1, section 2.3.3); coordinates may lack leading zeros.
fn point(x: &[u8], y: &[u8], size: usize) -> Option<Vec<u8>> {
    let mut point = vec![4];
    for coordinate in [x, y] {
        let missing = size.checked_sub(coordinate.len())?;
        point.resize(point.len() + missing, 0);
        point.extend_from_slice(coordinate);
    }
    Some(point)
}

/// `RSAPublicKey` in DER (RFC 8017, appendix A.1.1).
fn rsa_public_key(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    for number in [modulus, exponent] {
        let start = number.iter().position(|byte| *byte != 0).unwrap_or(number.len());
        let digits = &number[start..];
        let positive = digits.first().is_none_or(|first| *first >= 0x80);
        let mut integer = if positive { vec![0] } else { Vec::new() };
        integer.extend_from_slice(digits);
        element(&mut content, 0x02, &integer);
    }
    let mut key = Vec::new();
    element(&mut key, 0x30, &content);
    key
}

fn element(into: &mut Vec<u8>, tag: u8, content: &[u8]) {
    into.push(tag);
    let length = content.len().to_be_bytes();
    let start = length.iter().position(|byte| *byte != 0).unwrap_or(length.len() - 1);
    let digits = &length[start..];
    if content.len() >= 0x80 {
        into.push(0x80 | digits.len() as u8);
    }
    into.extend_from_slice(digits);
    into.extend_from_slice(content);
}
