//! What tokens are accepted and where they are found (RequestAuthentication `jwtRules`).

use std::time::Duration;

use crate::vocab::name::Text;

/// Where the keys that verify a token come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Keys {
    /// `jwks`: a JSON Web Key Set, inline.
    Inline(Text),
    /// `jwksUri`.
    Uri(Text),
    /// Neither: OpenID discovery at the issuer.
    Discovery,
}

/// One entry of `jwtRules`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JwtRule {
    /// `issuer`; `None` for any.
    pub issuer: Option<Text>,
    /// One of these must be in `aud`; none asks nothing.
    pub audiences: Vec<Text>,
    /// Keys.
    pub keys: Keys,
    /// `fromHeaders`: name in lower case, and prefix.
    pub from_headers: Vec<(Text, Text)>,
    /// `fromParams`.
    pub from_params: Vec<Text>,
    /// `fromCookies`.
    pub from_cookies: Vec<Text>,
    /// `outputPayloadToHeader`.
    pub payload_header: Option<Text>,
    /// `outputClaimToHeaders`: header in lower case, and claim.
    pub claim_headers: Vec<(Text, Text)>,
    /// `forwardOriginalToken`.
    pub forward_original: bool,
    /// `spaceDelimitedClaims`.
    pub space_delimited: Vec<Text>,
    /// `timeout` of fetching keys; default 5 s.
    pub timeout: Option<Duration>,
    /// `presence: REQUIRED`: a request without a token is refused.
    pub required: bool,
}
