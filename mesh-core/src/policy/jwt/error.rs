//! Why a token is refused, with Envoy's words for it.

use std::fmt;

/// Why a request's token is refused. The text is the body of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenError {
    /// There is none, and a rule demands one.
    Missing,
    /// Its time has not come (`nbf`).
    NotYetValid,
    /// Its time is over (`exp`).
    Expired,
    /// Not three sections.
    Form,
    /// The header is not base64url.
    HeaderEncoding,
    /// The header is not a JSON object.
    HeaderJson,
    /// No algorithm, or not a text.
    AlgorithmMissing,
    /// An algorithm that is not known, `none` among them.
    AlgorithmUnknown,
    /// A key name that is not a text.
    KeyName,
    /// The payload is not base64url.
    PayloadEncoding,
    /// The payload is not a JSON object.
    PayloadJson,
    /// `iss` is not a text.
    IssuerType,
    /// `sub` is not a text.
    SubjectType,
    /// `jti` is not a text.
    NameType,
    /// `iat` is not a number.
    IssuedType,
    /// `iat` is no time.
    IssuedRange,
    /// `nbf` is not a number.
    NotBeforeType,
    /// `nbf` is no time.
    NotBeforeRange,
    /// `exp` is not a number.
    ExpiryType,
    /// `exp` is no time.
    ExpiryRange,
    /// `aud` is neither a text nor a list of texts.
    AudienceType,
    /// The signature is not base64url.
    SignatureEncoding,
    /// An Ed25519 signature of another length.
    SignatureLength,
    /// No rule that reads this place knows the issuer.
    UnknownIssuer,
    /// None of the wanted audiences.
    Audience,
    /// The signature is not that of any key.
    Signature,
    /// No key of that name and algorithm.
    NoSuchKey,
    /// The key set holds no key that can be used.
    NoKeys,
}

impl std::error::Error for TokenError {}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl TokenError {
    /// Status of the answer.
    pub fn status(self) -> u16 {
        if self == TokenError::Audience { 403 } else { 401 }
    }

    /// What the client reads.
    pub fn text(self) -> &'static str {
        match self {
            TokenError::Missing => "Jwt is missing",
            TokenError::NotYetValid => "Jwt not yet valid",
            TokenError::Expired => "Jwt is expired",
            TokenError::Form => {
                "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"
            }
            TokenError::HeaderEncoding => "Jwt header is an invalid Base64url encoded",
            TokenError::HeaderJson => "Jwt header is an invalid JSON",
            TokenError::AlgorithmMissing => "Jwt header [alg] field is required and must be a string",
            TokenError::AlgorithmUnknown => "Jwt header [alg] is not supported",
            TokenError::KeyName => "Jwt header [kid] field is not a string",
            TokenError::PayloadEncoding => "Jwt payload is an invalid Base64url encoded",
            TokenError::PayloadJson => "Jwt payload is an invalid JSON",
            TokenError::IssuerType => "Jwt payload [iss] field is not a string",
            TokenError::SubjectType => "Jwt payload [sub] field is not a string",
            TokenError::NameType => "Jwt payload [jti] field is not a string",
            TokenError::IssuedType => "Jwt payload [iat] field is not an integer",
            TokenError::IssuedRange => "Jwt payload [iat] field is not a positive 64 bit integer",
            TokenError::NotBeforeType => "Jwt payload [nbf] field is not an integer",
            TokenError::NotBeforeRange => "Jwt payload [nbf] field is not a positive 64 bit integer",
            TokenError::ExpiryType => "Jwt payload [exp] field is not an integer",
            TokenError::ExpiryRange => "Jwt payload [exp] field is not a positive 64 bit integer",
            TokenError::AudienceType => "Jwt payload [aud] field is not a string or string list",
            TokenError::SignatureEncoding => "Jwt signature is an invalid Base64url encoded",
            TokenError::SignatureLength => "Jwt ED25519 signature is wrong length",
            TokenError::UnknownIssuer => "Jwt issuer is not configured",
            TokenError::Audience => "Audiences in Jwt are not allowed",
            TokenError::Signature => "Jwt verification fails",
            TokenError::NoSuchKey => "Jwks doesn't have key to match kid or alg from Jwt",
            TokenError::NoKeys => "Jwks doesn't have any valid public key",
        }
    }

    /// The value of `www-authenticate` for a request of this URI.
    pub fn challenge(self, uri: &str) -> String {
        let hint = if self == TokenError::Missing { "" } else { ", error=\"invalid_token\"" };
        format!("Bearer realm=\"{uri}\"{hint}")
    }
}
