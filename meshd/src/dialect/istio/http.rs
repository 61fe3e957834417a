//! Conditions of an HTTP rule: `http[].match`.

use http::HeaderName;
use mesh_core::matching::request::RequestMatch;
use mesh_core::matching::text::{LONGEST_PATTERN, Pattern, TextMatch};
use mesh_core::resource::virtual_service::HttpMatch;
use mesh_core::vocab::label::Labels;
use mesh_core::vocab::name::Text;

use super::header::header_name;
use crate::dialect::field::{Field, Message, Note, Object};
use crate::dialect::scalar;

pub(crate) static MATCH: Message = Message {
    name: "a match",
    fields: &[
        "authority",
        "gateways",
        "headers",
        "ignoreUriCase",
        "method",
        "name",
        "port",
        "queryParams",
        "scheme",
        "sourceLabels",
        "sourceNamespace",
        "uri",
        "withoutHeaders",
    ],
    later: &["statPrefix"],
    skipped: &[],
};

static TEXT: Message =
    Message { name: "a text match", fields: &["exact", "prefix", "regex"], later: &[], skipped: &[] };

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] = &[
    Note::Holds(&MATCH, "uri", &TEXT),
    Note::Holds(&MATCH, "scheme", &TEXT),
    Note::Holds(&MATCH, "method", &TEXT),
    Note::Holds(&MATCH, "authority", &TEXT),
    Note::Holds(&MATCH, "headers{}", &TEXT),
    Note::Holds(&MATCH, "withoutHeaders{}", &TEXT),
    Note::Holds(&MATCH, "queryParams{}", &TEXT),
    Note::Later(&MATCH, "gateways", "other than mesh"),
    Note::Later(&MATCH, "headers", "@request.auth.claims"),
    Note::Later(&MATCH, "withoutHeaders", "@request.auth.claims"),
];

/// Reads one entry of `match`.
pub(super) fn condition(field: &Field<'_>) -> Option<HttpMatch> {
    let entry = field.object(&MATCH)?;
    let uri = text_of(&entry, "uri");
    let ignore_case = entry.get("ignoreUriCase").and_then(|field| field.boolean()).unwrap_or(false);
    let (caller_labels, caller_namespace) = caller(&entry);
    let request = RequestMatch {
        claims: Vec::new(),
        without_claims: Vec::new(),
        name: entry.text("name").map(Text::from),
        uri: if ignore_case { uri.map(TextMatch::ignoring_case) } else { uri },
        scheme: text_of(&entry, "scheme"),
        method: text_of(&entry, "method"),
        authority: text_of(&entry, "authority"),
        headers: headers(&entry, "headers"),
        without_headers: headers(&entry, "withoutHeaders"),
        query: query(&entry),
        caller_labels,
        caller_namespace,
    };
    let port = entry.get("port").and_then(|field| field.port());
    Some(HttpMatch { request, port, gateways: Vec::new() })
}

/// `sourceLabels` and `sourceNamespace`. Where `gateways` names the mesh, Istio does not read them.
pub(super) fn caller(entry: &Object<'_>) -> (Labels, Option<Text>) {
    let labels = entry.get("sourceLabels").map(|field| scalar::labels(&field)).unwrap_or_default();
    let namespace = entry
        .get("sourceNamespace")
        .filter(|field| field.text() != Some(""))
        .and_then(|field| scalar::label_name(&field));
    let mesh_named = entry.get("gateways").is_some_and(|field| is_mesh(&field));
    if mesh_named && (!labels.is_empty() || namespace.is_some()) {
        entry.field().warn("with gateways, sourceLabels and sourceNamespace have no effect");
        return (Labels::default(), None);
    }
    (labels, namespace)
}

/// Whether `gateways` names `mesh`. Others are for later.
pub(super) fn is_mesh(field: &Field<'_>) -> bool {
    let mut mesh = false;
    for item in field.items() {
        match item.some_text() {
            Some("mesh") => mesh = true,
            Some(gateway) => {
                let name = gateway.split_once('/').map_or(gateway, |(_, name)| name);
                if mesh_core::vocab::name::check_subdomain(name).is_ok() {
                    item.later("a gateway other than mesh");
                } else {
                    item.fault(format!("{gateway:?} is no name of a gateway"));
                }
            }
            None => {}
        }
    }
    mesh
}

/// A condition on a text that is always there; `{}` demands nothing.
fn text_of(entry: &Object<'_>, key: &'static str) -> Option<TextMatch> {
    text_match(&entry.get(key)?, false).filter(|test| *test != TextMatch::Present)
}

/// Reads exact, prefix or regex. `{}`, and the regex `*` where `star_is_present`, demand presence only.
fn text_match(field: &Field<'_>, star_is_present: bool) -> Option<TextMatch> {
    let entry = field.object(&TEXT)?;
    let written: Vec<&'static str> = TEXT.fields.iter().copied().filter(|key| entry.has(key)).collect();
    let key = match written.as_slice() {
        [] => return Some(TextMatch::Present),
        [key] => *key,
        _ => {
            field.fault(format!(
                "only one of exact, prefix and regex can be set, found {}",
                written.join(" and ")
            ));
            return None;
        }
    };
    let value = entry.get(key)?;
    match key {
        "exact" => Some(TextMatch::Exact(value.text()?.into())),
        "prefix" => Some(TextMatch::Prefix(value.some_text()?.into())),
        _ if star_is_present && value.text() == Some("*") => Some(TextMatch::Present),
        _ => regex(&value).map(TextMatch::Regex),
    }
}

/// A regular expression.
pub(super) fn regex(field: &Field<'_>) -> Option<Pattern> {
    let source = field.some_text()?;
    match Pattern::new(source) {
        Ok(pattern) => Some(pattern),
        Err(error) if source.len() > LONGEST_PATTERN => {
            field.fault(error.to_string());
            None
        }
        Err(error) => {
            field.fault(format!("not a regular expression of RE2: {error}"));
            None
        }
    }
}

/// Keys of `headers` that Istio ignores, as there are fields for them.
const NO_HEADERS: [&str; 4] = ["uri", "scheme", "method", "authority"];

fn headers(entry: &Object<'_>, key: &'static str) -> Vec<(HeaderName, TextMatch)> {
    let mut headers = Vec::new();
    for (name, field) in entry.get(key).map(|field| field.map()).unwrap_or_default() {
        let Some(test) = text_match(&field, true) else { continue };
        if name.starts_with("@request.auth.claims") {
            field.later("a condition on JWT claims");
        } else if NO_HEADERS.contains(&name) {
            field.warn(format!("has no effect; use the field {name} of the match"));
        } else if !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        {
            headers.extend(header_name(&field, name).map(|name| (name, test)));
        } else {
            field.fault(format!("{name:?} is no header name: wanted letters, digits, '-' and '_'"));
        }
    }
    headers
}

fn query(entry: &Object<'_>) -> Vec<(Text, TextMatch)> {
    let mut query = Vec::new();
    for (name, field) in entry.get("queryParams").map(|field| field.map()).unwrap_or_default() {
        if name.is_empty() {
            field.fault("the name of a query parameter must not be empty");
        } else if let Some(test) = text_match(&field, true) {
            query.push((Text::from(name), test));
        }
    }
    query
}
