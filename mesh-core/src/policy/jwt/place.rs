//! Where tokens are looked for.

use std::borrow::Cow;

use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderMap, HeaderName};

use super::JwtRule;
use crate::matching::request::Request;
use crate::vocab::name::Text;

/// A place where a rule looks for tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A header field, after a prefix.
    Header(HeaderName, Text),
    /// A parameter of the query.
    Parameter(Text),
    /// A cookie.
    Cookie(Text),
}

/// The places of a rule: those it names, else the two of RFC 6750.
pub(super) fn places(rule: &JwtRule) -> Vec<Place> {
    let headers = rule.from_headers.iter().filter_map(|(name, prefix)| {
        let name = HeaderName::try_from(&**name).ok()?;
        Some(Place::Header(name, prefix.clone()))
    });
    let mut places: Vec<Place> = headers.collect();
    places.extend(rule.from_params.iter().cloned().map(Place::Parameter));
    places.extend(rule.from_cookies.iter().cloned().map(Place::Cookie));
    let named =
        !(rule.from_headers.is_empty() && rule.from_params.is_empty() && rule.from_cookies.is_empty());
    if !named {
        places.push(Place::Header(AUTHORIZATION, "Bearer ".into()));
        places.push(Place::Parameter("access_token".into()));
    }
    places
}

impl Place {
    /// The tokens at this place: one for each field of a header, the first of a parameter or cookie.
    pub(super) fn tokens<'r>(&self, request: &Request<'r>) -> Vec<Cow<'r, str>> {
        match self {
            Place::Header(name, prefix) => {
                let values = request.headers.get_all(name).iter();
                // What is not text is no token, but it is not nothing either.
                let texts = values.map(|value| value.to_str().unwrap_or("\u{fffd}"));
                texts.filter_map(|text| after(text, prefix)).map(Cow::Borrowed).collect()
            }
            Place::Parameter(name) => {
                let pairs = request.query.unwrap_or("").split('&');
                let mut pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
                let found = pairs.find(|(key, _)| decoded(key) == **name);
                found.map(|(_, value)| decoded(value)).into_iter().collect()
            }
            Place::Cookie(name) => cookie(request.headers, name).map(Cow::Borrowed).into_iter().collect(),
        }
    }
}

/// The token after the prefix, which may stand anywhere in the value: the first run of characters that a token can have.
fn after<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    if prefix.is_empty() {
        return Some(text.trim_start_matches([' ', '\t']));
    }
    let rest = &text[text.find(prefix)? + prefix.len()..];
    let of_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let Some(start) = rest.find(of_token) else { return Some(text) };
    let token = &rest[start..];
    Some(&token[..token.find(|c| !of_token(c)).unwrap_or(token.len())])
}

fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let fields = headers.get_all(COOKIE).iter().filter_map(|field| field.to_str().ok());
    let mut pairs = fields.flat_map(|field| field.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(key, _)| key.trim_end() == name)?;
    let quoted = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    Some(quoted.unwrap_or(value))
}

/// Percent-decoded; left as it is where that yields no text.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        match (bytes[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(out).map_or(Cow::Borrowed(text), Cow::Owned)
}

/// The query without a parameter; `None` if it did not hold it.
pub(super) fn without_parameter(query: &str, name: &str) -> Option<String> {
    let of_name = |pair: &&str| decoded(pair.split_once('=').map_or(*pair, |(key, _)| key)) == *name;
    if !query.split('&').any(|pair| of_name(&pair)) {
        return None;
    }
    Some(query.split('&').filter(|pair| !of_name(pair)).collect::<Vec<_>>().join("&"))
}
