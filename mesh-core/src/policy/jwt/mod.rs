//! What tokens are accepted and where they are found (RequestAuthentication `jwtRules`).

use std::time::Duration;

use crate::vocab::name::Text;

pub mod check;
pub mod error;
mod forward;
mod keys;
mod place;
#[cfg(test)]
mod tests;
mod token;

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

impl JwtRule {
    /// The URI that its keys come from: the key set itself, or the issuer's OpenID configuration, which names it. `None`
    /// where they are inline.
    pub fn keys_from(&self) -> Option<Text> {
        match &self.keys {
            Keys::Inline(_) => None,
            Keys::Uri(uri) => Some(uri.clone()),
            Keys::Discovery => {
                let issuer = self.issuer.as_deref().unwrap_or_default();
                Some(format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/')).into())
            }
        }
    }
}

/// What a RequestAuthentication accepts, as it stands for the workloads that name it. Keys that were fetched are
/// inline; where a URI is left they are not at hand, and tokens of that rule are refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TokenPolicy {
    /// Namespace of the resource.
    pub namespace: Text,
    /// Name of the resource.
    pub name: Text,
    /// Rules.
    pub rules: Vec<JwtRule>,
}

impl TokenPolicy {
    /// `requestauthentication/NAMESPACE/NAME`.
    pub fn resource(&self) -> String {
        format!("requestauthentication/{}/{}", self.namespace, self.name)
    }
}
