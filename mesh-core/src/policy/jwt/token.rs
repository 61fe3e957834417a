//! A token taken apart: header, claims, what was signed.

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

use super::error::TokenError;
use crate::matching::claims::{Claim, Claims};
use crate::vocab::name::Text;

/// How far a clock may be off, in seconds.
const SKEW: u64 = 60;

/// Base64 of URLs, padded or not.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A signature algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    Hs256,
    Hs384,
    Hs512,
    EdDsa,
}

impl Algorithm {
    pub(super) const ALL: [Algorithm; 13] = [
        Algorithm::Rs256,
        Algorithm::Rs384,
        Algorithm::Rs512,
        Algorithm::Ps256,
        Algorithm::Ps384,
        Algorithm::Ps512,
        Algorithm::Es256,
        Algorithm::Es384,
        Algorithm::Es512,
        Algorithm::Hs256,
        Algorithm::Hs384,
        Algorithm::Hs512,
        Algorithm::EdDsa,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Algorithm::Rs256 => "RS256",
            Algorithm::Rs384 => "RS384",
            Algorithm::Rs512 => "RS512",
            Algorithm::Ps256 => "PS256",
            Algorithm::Ps384 => "PS384",
            Algorithm::Ps512 => "PS512",
            Algorithm::Es256 => "ES256",
            Algorithm::Es384 => "ES384",
            Algorithm::Es512 => "ES512",
            Algorithm::Hs256 => "HS256",
            Algorithm::Hs384 => "HS384",
            Algorithm::Hs512 => "HS512",
            Algorithm::EdDsa => "EdDSA",
        }
    }
}

/// A token taken apart. Nothing of it is believed yet.
#[derive(Debug)]
pub(super) struct Token<'t> {
    pub(super) algorithm: Algorithm,
    pub(super) key: Option<String>,
    /// Header and payload as they were signed.
    pub(super) signed: &'t [u8],
    /// The payload's section, without padding.
    pub(super) payload: &'t str,
    pub(super) signature: Vec<u8>,
    pub(super) claims: Map<String, Value>,
    pub(super) issuer: String,
    pub(super) audiences: Vec<String>,
    not_before: u64,
    expiry: u64,
}

impl<'t> Token<'t> {
    pub(super) fn parse(text: &'t str) -> Result<Token<'t>, TokenError> {
        let mut sections = text.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (sections.next(), sections.next(), sections.next(), sections.next())
        else {
            return Err(TokenError::Form);
        };
        if header.is_empty() || payload.is_empty() || signature.is_empty() {
            return Err(TokenError::Form);
        }
        let fields = object(header, TokenError::HeaderEncoding, TokenError::HeaderJson)?;
        let name = fields.get("alg").and_then(Value::as_str).ok_or(TokenError::AlgorithmMissing)?;
        let algorithm = Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name);
        let algorithm = algorithm.ok_or(TokenError::AlgorithmUnknown)?;
        let key = text_of(&fields, "kid", TokenError::KeyName)?;
        let claims = object(payload, TokenError::PayloadEncoding, TokenError::PayloadJson)?;
        let issuer = text_of(&claims, "iss", TokenError::IssuerType)?;
        text_of(&claims, "sub", TokenError::SubjectType)?;
        time_of(&claims, "iat", TokenError::IssuedType, TokenError::IssuedRange)?;
        let not_before = time_of(&claims, "nbf", TokenError::NotBeforeType, TokenError::NotBeforeRange)?;
        let expiry = time_of(&claims, "exp", TokenError::ExpiryType, TokenError::ExpiryRange)?;
        text_of(&claims, "jti", TokenError::NameType)?;
        let audiences = audiences(&claims)?;
        let signature = BASE64.decode(signature).map_err(|_| TokenError::SignatureEncoding)?;
        Ok(Token {
            algorithm,
            key: key.filter(|name| !name.is_empty()).map(str::to_owned),
            signed: &text.as_bytes()[..header.len() + 1 + payload.len()],
            payload: payload.trim_end_matches('='),
            signature,
            issuer: issuer.unwrap_or_default().to_owned(),
            audiences,
            not_before: not_before.unwrap_or(0),
            expiry: expiry.unwrap_or(0),
            claims,
        })
    }

    /// Whether its time is now, in seconds since 1970. A token without times is for ever.
    pub(super) fn check_time(&self, now: u64) -> Result<(), TokenError> {
        if now.saturating_add(SKEW) < self.not_before {
            return Err(TokenError::NotYetValid);
        }
        if self.expiry > 0 && now > self.expiry.saturating_add(SKEW) {
            return Err(TokenError::Expired);
        }
        Ok(())
    }

    /// The claims as conditions read them. Those named are lists of words, where they are texts.
    pub(super) fn conditions(&self, space_delimited: &[Text]) -> Claims {
        let words = |name: &str| {
            matches!(name, "scope" | "permission") || space_delimited.iter().any(|listed| **listed == *name)
        };
        let claims = self.claims.iter().filter_map(|(name, value)| match value {
            Value::String(text) if words(name) => {
                let list = text.split(' ').filter(|word| !word.is_empty()).map(Text::from);
                Some((name.as_str(), Claim::List(list.collect())))
            }
            value => claim(value).map(|claim| (name.as_str(), claim)),
        });
        claims.collect()
    }
}

/// A claim that a condition can look at: numbers and truth values are none, as in Envoy.
fn claim(value: &Value) -> Option<Claim> {
    match value {
        Value::String(text) => Some(Claim::Text(text.as_str().into())),
        Value::Array(list) => {
            Some(Claim::List(list.iter().filter_map(Value::as_str).map(Text::from).collect()))
        }
        Value::Object(inner) => {
            let inner = inner.iter().filter_map(|(name, value)| Some((name.as_str(), claim(value)?)));
            Some(Claim::Object(inner.collect()))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

fn object(section: &str, encoding: TokenError, json: TokenError) -> Result<Map<String, Value>, TokenError> {
    let bytes = BASE64.decode(section).map_err(|_| encoding)?;
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(fields)) => Ok(fields),
        _ => Err(json),
    }
}

fn text_of<'f>(
    fields: &'f Map<String, Value>,
    name: &str,
    wrong: TokenError,
) -> Result<Option<&'f str>, TokenError> {
    match fields.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(wrong),
    }
}

fn time_of(
    fields: &Map<String, Value>,
    name: &str,
    wrong: TokenError,
    range: TokenError,
) -> Result<Option<u64>, TokenError> {
    let Some(value) = fields.get(name) else { return Ok(None) };
    let Value::Number(number) = value else { return Err(wrong) };
    if let Some(seconds) = number.as_u64() {
        return Ok(Some(seconds));
    }
    match number.as_f64() {
        // A fraction of a second is cut off; the range is that of the cast.
        Some(seconds) if (0.0..18_446_744_073_709_551_616.0).contains(&seconds) => Ok(Some(seconds as u64)),
        _ => Err(range),
    }
}

fn audiences(fields: &Map<String, Value>) -> Result<Vec<String>, TokenError> {
    match fields.get("aud") {
        None => Ok(Vec::new()),
        Some(Value::String(one)) => Ok(vec![one.clone()]),
        Some(Value::Array(list)) => {
            let texts = list.iter().map(|entry| entry.as_str().map(str::to_owned));
            texts.collect::<Option<Vec<_>>>().ok_or(TokenError::AudienceType)
        }
        Some(_) => Err(TokenError::AudienceType),
    }
}
