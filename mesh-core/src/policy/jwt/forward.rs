//! What a validated token leaves behind on the way to the application.

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};

use super::JwtRule;
use super::place::{Place, without_parameter};
use super::token::Token;
use crate::matching::request::Request;

/// A request on its way on: what differs from what came.
#[derive(Debug, Default)]
pub(super) struct Forwarding {
    pub(super) headers: Option<HeaderMap>,
    pub(super) query: Option<String>,
}

impl Forwarding {
    /// Takes away what only a validated token may say: a client's own copy of the headers that rules write.
    pub(super) fn sanitize<'r>(&mut self, request: &Request<'_>, rules: impl Iterator<Item = &'r JwtRule>) {
        for rule in rules {
            let claims = rule.claim_headers.iter().map(|(header, _)| header);
            for name in rule.payload_header.iter().chain(claims) {
                if request.headers.contains_key(&**name) {
                    self.headers(request).remove(&**name);
                }
            }
        }
    }

    /// Writes what a rule says of its token, and takes the token away unless it is to be forwarded.
    pub(super) fn accept(&mut self, request: &Request<'_>, rule: &JwtRule, place: &Place, token: &Token<'_>) {
        if let Some(name) = &rule.payload_header {
            self.append(request, name, token.payload);
        }
        for (header, claim) in &rule.claim_headers {
            if let Some(text) = header_text(&token.claims, claim) {
                self.append(request, header, &text);
            }
        }
        if rule.forward_original {
            return;
        }
        match place {
            Place::Header(name, _) => {
                self.headers(request).remove(name);
            }
            Place::Parameter(name) => {
                let query = self.query.as_deref().or(request.query).unwrap_or("");
                if let Some(rest) = without_parameter(query, name) {
                    self.query = Some(rest);
                }
            }
            // Envoy leaves cookies as they are.
            Place::Cookie(_) => {}
        }
    }

    fn headers(&mut self, request: &Request<'_>) -> &mut HeaderMap {
        self.headers.get_or_insert_with(|| request.headers.clone())
    }

    fn append(&mut self, request: &Request<'_>, name: &str, text: &str) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(text)) {
            self.headers(request).append(name, value);
        }
    }
}

/// A claim, perhaps within others, as a header shows it: texts, numbers and truth values.
fn header_text(claims: &Map<String, Value>, path: &str) -> Option<String> {
    let (first, inner) = path.split_once('.').map_or((path, None), |(first, inner)| (first, Some(inner)));
    let value = claims.get(first)?;
    let text = match (value, inner) {
        (Value::Object(claims), Some(inner)) => return header_text(claims, inner),
        (Value::String(text), None) => text.clone(),
        (Value::Bool(truth), None) => truth.to_string(),
        (Value::Number(number), None) => match number.as_f64() {
            Some(float) if float >= 0.0 && float.fract() == 0.0 && float < 1.8e19 => {
                number.as_u64().unwrap_or(float as u64).to_string()
            }
            Some(float) => format!("{float:.6}"),
            None => return None,
        },
        _ => return None,
    };
    (!text.is_empty()).then_some(text)
}
