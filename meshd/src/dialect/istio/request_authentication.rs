//! RequestAuthentication: which tokens are accepted.

use std::collections::HashSet;

use mesh_core::policy::jwt::{JwtRule, Keys};
use mesh_core::resource::security::RequestAuthentication;
use mesh_core::vocab::name::Text;

use super::{jwks, target};
use crate::dialect::field::{Field, Message, Note, Object};
use crate::dialect::node::quoted;
use crate::dialect::scalar;

pub(crate) static SPEC: Message = Message {
    name: "spec of a RequestAuthentication",
    fields: &["jwtRules", "selector", "targetRef", "targetRefs"],
    later: &[],
    skipped: &[],
};

static RULE: Message = Message {
    name: "a rule for tokens",
    fields: &[
        "audiences",
        "forwardOriginalToken",
        "fromCookies",
        "fromHeaders",
        "fromParams",
        "issuer",
        "jwks",
        "jwksUri",
        "jwks_uri",
        "outputClaimToHeaders",
        "outputPayloadToHeader",
        "presence",
        "spaceDelimitedClaims",
        "timeout",
    ],
    later: &[],
    skipped: &[],
};

static FROM_HEADER: Message =
    Message { name: "a header field with tokens", fields: &["name", "prefix"], later: &[], skipped: &[] };

static CLAIM_HEADER: Message =
    Message { name: "a claim for a header field", fields: &["claim", "header"], later: &[], skipped: &[] };

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] = &[
    Note::Holds(&SPEC, "selector", &target::SELECTOR),
    Note::Holds(&SPEC, "targetRef", &target::TARGET),
    Note::Holds(&SPEC, "targetRefs[]", &target::TARGET),
    Note::Refused(&SPEC, "targetRef", target::NOBODY),
    Note::Refused(&SPEC, "targetRefs", target::NOBODY),
    Note::Holds(&SPEC, "jwtRules[]", &RULE),
    Note::Holds(&RULE, "fromHeaders[]", &FROM_HEADER),
    Note::Holds(&RULE, "outputClaimToHeaders[]", &CLAIM_HEADER),
];

/// Most rules.
const MOST_RULES: usize = 4096;
/// Most claims that are lists in one text.
const MOST_CLAIMS: usize = 64;
/// Longest address of a key set.
const LONGEST_URL: usize = 2048;

/// Reads the spec of a RequestAuthentication.
pub(crate) fn request_authentication(field: &Field<'_>) -> Option<RequestAuthentication> {
    field.later("the kind RequestAuthentication");
    let spec = field.object(&SPEC)?;
    let scope = target::scope(&spec);
    let items = spec.items("jwtRules");
    if items.len() > MOST_RULES
        && let Some(list) = spec.get("jwtRules")
    {
        list.fault(format!("found {} rules, at most {MOST_RULES} are allowed", items.len()));
    }
    let rules = items.iter().take(MOST_RULES).filter_map(rule).collect();
    Some(RequestAuthentication { selector: scope.selector, targets: scope.targets, rules })
}

fn rule(field: &Field<'_>) -> Option<JwtRule> {
    let rule = field.object(&RULE)?;
    let issuer = rule.get("issuer").and_then(|field| field.some_text());
    let uri = rule.get("jwksUri").or_else(|| rule.get("jwks_uri"));
    if !["issuer", "jwksUri", "jwks_uri"].iter().any(|key| rule.has(key) || rule.is_misspelt(key)) {
        field.fault("issuer or jwksUri must be there: without either, every token would be accepted");
    }
    let sources: Vec<&str> =
        ["jwks", "jwksUri", "jwks_uri"].into_iter().filter(|key| rule.has(key)).collect();
    if sources.len() > 1 {
        field.fault(format!("only one of {} can be set", sources.join(" and ")));
    }
    let from_headers: Vec<(Text, Text)> = rule.items("fromHeaders").iter().filter_map(from_header).collect();
    Some(JwtRule {
        issuer: issuer.map(Text::from),
        audiences: texts(&rule, "audiences"),
        keys: keys(rule.get("jwks"), uri),
        from_headers,
        from_params: texts(&rule, "fromParams"),
        from_cookies: texts(&rule, "fromCookies"),
        payload_header: rule.text("outputPayloadToHeader").map(|name| name.to_ascii_lowercase().into()),
        claim_headers: claim_headers(&rule),
        forward_original: rule.get("forwardOriginalToken").and_then(|field| field.boolean()).unwrap_or(false),
        space_delimited: space_delimited(&rule),
        timeout: rule.get("timeout").and_then(|field| scalar::duration(&field)),
        required: rule
            .get("presence")
            .is_some_and(|field| field.choice(&["OPTIONAL", "REQUIRED"]) == Some("REQUIRED")),
    })
}

fn keys(inline: Option<Field<'_>>, uri: Option<Field<'_>>) -> Keys {
    if let Some(field) = inline
        && let Some(text) = field.text().filter(|text| !text.is_empty())
    {
        match jwks::check_keys(text) {
            Err(error) => field.fault(format!("is no set of keys: {error}")),
            Ok(secret) => {
                for index in secret {
                    field.warn(format!("key {index} is a secret; a public one is enough to verify tokens"));
                }
            }
        }
        return Keys::Inline(text.into());
    }
    let Some(field) = uri else { return Keys::Discovery };
    let Some(text) = field.some_text() else { return Keys::Discovery };
    if text.len() > LONGEST_URL {
        field.fault(format!("longer than {LONGEST_URL} characters"));
    } else if !jwks::is_url(text) {
        field.fault(format!("found {}, wanted a URL that begins with http:// or https://", quoted(text)));
    }
    Keys::Uri(text.into())
}

/// Texts of a list, none of them empty.
fn texts(rule: &Object<'_>, key: &'static str) -> Vec<Text> {
    rule.items(key).iter().filter_map(|field| field.some_text()).map(Text::from).collect()
}

fn from_header(field: &Field<'_>) -> Option<(Text, Text)> {
    let entry = field.object(&FROM_HEADER)?;
    let name = entry.require("name")?.some_text()?.to_ascii_lowercase();
    let prefix = entry.get("prefix").map_or(Some(""), |field| field.text())?;
    Some((name.into(), prefix.into()))
}

fn claim_headers(rule: &Object<'_>) -> Vec<(Text, Text)> {
    let mut seen = HashSet::new();
    let mut headers = Vec::new();
    for field in rule.items("outputClaimToHeaders") {
        let Some(entry) = field.object(&CLAIM_HEADER) else { continue };
        let claim = entry.require("claim").and_then(|field| field.some_text());
        let Some(header_field) = entry.require("header") else { continue };
        let Some(header) = header_field.some_text() else { continue };
        if !header.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
            header_field.fault(format!(
                "{} is no name of a header field: wanted letters, digits, '-' and '_'",
                quoted(header)
            ));
            continue;
        }
        let header = Text::from(header.to_ascii_lowercase());
        if !seen.insert(header.clone()) {
            header_field.fault(format!("the header field {header} is there twice"));
        } else if let Some(claim) = claim {
            headers.push((header, claim.into()));
        }
    }
    headers
}

fn space_delimited(rule: &Object<'_>) -> Vec<Text> {
    let claims = texts(rule, "spaceDelimitedClaims");
    if claims.len() > MOST_CLAIMS
        && let Some(field) = rule.get("spaceDelimitedClaims")
    {
        field.fault(format!("found {} claims, at most {MOST_CLAIMS} are allowed", claims.len()));
    }
    claims
}
