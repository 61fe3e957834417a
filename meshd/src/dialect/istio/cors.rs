//! `corsPolicy` of an HTTP rule.

use mesh_core::matching::text::TextMatch;
use mesh_core::routing::cors::{CorsPolicy, UnmatchedPreflights};
use mesh_core::vocab::name::Text;

use super::header::header_name;
use super::http::{Star, TEXT, text_match};
use crate::dialect::field::{Field, Message, Note, Object, not_one_of};
use crate::dialect::scalar;

pub(crate) static CORS: Message = Message {
    name: "a corsPolicy",
    fields: &[
        "allowCredentials",
        "allowHeaders",
        "allowMethods",
        "allowOrigin",
        "allowOrigins",
        "exposeHeaders",
        "maxAge",
        "unmatchedPreflights",
    ],
    later: &[],
    skipped: &[],
};

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] = &[Note::Holds(&CORS, "allowOrigins[]", &TEXT)];

/// Methods that a preflight may be told of.
const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*"];

/// Reads `corsPolicy`.
pub(super) fn cors(field: &Field<'_>) -> Option<CorsPolicy> {
    let entry = field.object(&CORS)?;
    let mut allow_origins: Vec<TextMatch> = entry.items("allowOrigins").iter().filter_map(origin).collect();
    if let Some(old) = entry.get("allowOrigin") {
        old.advise("allowOrigin is deprecated, use allowOrigins");
        let items = old.items();
        let exact = items.iter().filter_map(|item| item.text().map(|text| TextMatch::Exact(text.into())));
        let exact: Vec<TextMatch> = exact.map(any_origin).collect();
        if !entry.has("allowOrigins") {
            allow_origins = exact;
        }
    }
    let allow_methods = entry.items("allowMethods");
    let allow_methods = allow_methods.iter().filter_map(|item| {
        let text = item.text()?;
        if !METHODS.contains(&text) {
            item.fault(not_one_of(text, &METHODS));
        }
        Some(Text::from(text))
    });
    let max_age = entry.get("maxAge").and_then(|field| {
        let age = scalar::duration(&field)?;
        if age.subsec_nanos() != 0 {
            field.fault("maxAge is in whole seconds");
        }
        Some(age.as_secs())
    });
    let preflights = entry.get("unmatchedPreflights");
    let preflights = preflights.and_then(|field| field.choice(&["UNSPECIFIED", "FORWARD", "IGNORE"]));
    Some(CorsPolicy {
        allow_origins,
        allow_methods: allow_methods.collect(),
        allow_headers: headers(&entry, "allowHeaders"),
        expose_headers: headers(&entry, "exposeHeaders"),
        max_age,
        allow_credentials: entry.get("allowCredentials").and_then(|field| field.boolean()).unwrap_or(false),
        unmatched_preflights: match preflights {
            Some("IGNORE") => UnmatchedPreflights::Ignore,
            _ => UnmatchedPreflights::Forward,
        },
    })
}

fn origin(field: &Field<'_>) -> Option<TextMatch> {
    let test = text_match(field, Star::Refused)?;
    if test == TextMatch::Present || test == TextMatch::Exact("".into()) {
        field.fault("an origin needs exact, prefix or regex that is not empty");
        return None;
    }
    Some(any_origin(test))
}

/// Envoy asks every test about `*` as well: one that takes it takes any origin.
fn any_origin(test: TextMatch) -> TextMatch {
    if test.matches(b"*") { TextMatch::Present } else { test }
}

/// Names of header fields, or `*`.
fn headers(entry: &Object<'_>, key: &'static str) -> Vec<Text> {
    let items = entry.items(key);
    let names = items.iter().filter_map(|item| {
        let text = item.text()?;
        if text != "*" {
            header_name(item, text)?;
        }
        Some(Text::from(text))
    });
    names.collect()
}
