//! The tokens that are accepted.

use mesh_core::policy::jwt::{JwtRule, Keys, TokenPolicy};
use mesh_core::vocab::name::Text;

use super::error::{At as _, ConvertError, Fault};
use super::vocab::{from_pairs, pairs, texts};
use super::{Wire, list, optional, to_wires};
use crate::generated as wire;

impl Wire for TokenPolicy {
    type Message = wire::TokenPolicy;

    fn to_wire(&self) -> wire::TokenPolicy {
        wire::TokenPolicy {
            namespace: self.namespace.to_wire(),
            name: self.name.to_wire(),
            rules: to_wires(&self.rules),
        }
    }

    fn from_wire(message: wire::TokenPolicy) -> Result<TokenPolicy, ConvertError> {
        Ok(TokenPolicy {
            namespace: message.namespace.into(),
            name: message.name.into(),
            rules: list(message.rules, "rules")?,
        })
    }
}

impl Wire for JwtRule {
    type Message = wire::JwtRule;

    fn to_wire(&self) -> wire::JwtRule {
        use wire::jwt_rule::Keys as Kind;
        wire::JwtRule {
            issuer: self.issuer.as_ref().map(Wire::to_wire),
            audiences: to_wires(&self.audiences),
            keys: Some(match &self.keys {
                Keys::Inline(set) => Kind::Inline(set.to_wire()),
                Keys::Uri(uri) => Kind::Uri(uri.to_wire()),
                Keys::Discovery => Kind::Discovery(true),
            }),
            from_headers: pairs(&self.from_headers),
            from_params: to_wires(&self.from_params),
            from_cookies: to_wires(&self.from_cookies),
            payload_header: self.payload_header.as_ref().map(Wire::to_wire),
            claim_headers: pairs(&self.claim_headers),
            forward_original: self.forward_original,
            space_delimited: to_wires(&self.space_delimited),
            timeout: self.timeout.as_ref().map(Wire::to_wire),
            required: self.required,
        }
    }

    fn from_wire(message: wire::JwtRule) -> Result<JwtRule, ConvertError> {
        use wire::jwt_rule::Keys as Kind;
        Ok(JwtRule {
            issuer: message.issuer.map(Text::from),
            audiences: texts(message.audiences),
            keys: match message.keys.ok_or(Fault::Missing).at("keys")? {
                Kind::Inline(set) => Keys::Inline(set.into()),
                Kind::Uri(uri) => Keys::Uri(uri.into()),
                Kind::Discovery(true) => Keys::Discovery,
                Kind::Discovery(false) => return Err(Fault::Missing).at("discovery"),
            },
            from_headers: from_pairs(message.from_headers),
            from_params: texts(message.from_params),
            from_cookies: texts(message.from_cookies),
            payload_header: message.payload_header.map(Text::from),
            claim_headers: from_pairs(message.claim_headers),
            forward_original: message.forward_original,
            space_delimited: texts(message.space_delimited),
            timeout: optional(message.timeout, "timeout")?,
            required: message.required,
        })
    }
}
