//! Conditions of an HTTP rule: `http[].match`.

use http::HeaderName;
use mesh_core::matching::pseudo::Pseudo;
use mesh_core::matching::request::RequestMatch;
use mesh_core::matching::text::TextMatch;
use mesh_core::resource::reach::GatewayRef;
use mesh_core::resource::virtual_service::HttpMatch;
use mesh_core::vocab::label::Labels;
use mesh_core::vocab::name::Text;

use super::gateway_ref::{Binding, gateways};
use super::header::header_name;
use crate::dialect::field::{Field, Message, Note, Object};
use crate::dialect::node::quoted;
use crate::dialect::{re2, scalar};

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
    later: &[],
    // It names statistics of Envoy's own.
    skipped: &["statPrefix"],
};

pub(crate) static TEXT: Message =
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
    Note::Later(&MATCH, "headers", "@request.auth.claims"),
    Note::Later(&MATCH, "withoutHeaders", "@request.auth.claims"),
];

/// Reads one entry of `match`.
pub(super) fn condition(field: &Field<'_>, binding: &Binding<'_>) -> Option<HttpMatch> {
    let entry = field.object(&MATCH)?;
    let uri = text_of(&entry, "uri");
    let ignore_case = entry.get("ignoreUriCase").and_then(|field| field.boolean()).unwrap_or(false);
    let caller = Caller::read(&entry, binding, Namespace::Checked);
    let headers = Headers::read(&entry, "headers", binding);
    let without = Headers::read(&entry, "withoutHeaders", binding);
    if let Some(prefix) = field.below("statPrefix")
        && prefix.text().is_some()
    {
        prefix.advise("statPrefix has no effect: it only names statistics of Envoy's own");
    }
    let mut request = RequestMatch {
        claims: headers.claims,
        without_claims: without.claims,
        name: entry.text("name").map(Text::from),
        uri: if ignore_case { uri.map(TextMatch::ignoring_case) } else { uri },
        scheme: text_of(&entry, "scheme"),
        method: text_of(&entry, "method"),
        authority: text_of(&entry, "authority"),
        headers: headers.plain,
        without_headers: without.plain,
        pseudo: Vec::new(),
        without_pseudo: without.pseudo,
        query: query(&entry),
        caller_labels: caller.labels,
        caller_namespace: caller.namespace,
    };
    for (name, test) in headers.pseudo {
        pseudo_header(&mut request, name, test);
    }
    Some(HttpMatch { request, port: port(&entry), gateways: caller.gateways })
}

/// A condition on a pseudo-header is one on what the match has a field for, if that is free.
fn pseudo_header(request: &mut RequestMatch, name: Pseudo, test: TextMatch) {
    let place = match name {
        Pseudo::Method => Some(&mut request.method),
        Pseudo::Scheme => Some(&mut request.scheme),
        Pseudo::Authority => Some(&mut request.authority),
        Pseudo::Path | Pseudo::Status => None,
    };
    match (place, test) {
        // They are always there.
        (Some(_), TextMatch::Present) => {}
        (Some(place), test) if place.is_none() => *place = Some(test),
        (_, test) => request.pseudo.push((name, test)),
    }
}

/// `port` of a match; 0 is none.
pub(super) fn port(entry: &Object<'_>) -> Option<u16> {
    let port = entry.get("port")?.integer(0..=65535)?;
    u16::try_from(port).ok().filter(|port| *port != 0)
}

/// What is settled when rules are made for a proxy: who calls, or through which gateway.
pub(super) struct Caller {
    pub(super) labels: Labels,
    pub(super) namespace: Option<Text>,
    pub(super) gateways: Vec<GatewayRef>,
}

/// Whether `sourceNamespace` must have the form of a name, which Istio asks of HTTP rules alone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Namespace {
    Checked,
    Free,
}

impl Caller {
    /// Reads `sourceLabels`, `sourceNamespace` and `gateways`. Where the last is written, Istio does not look at the
    /// others.
    pub(super) fn read(entry: &Object<'_>, binding: &Binding<'_>, form: Namespace) -> Caller {
        let labels = entry.get("sourceLabels").map(|field| scalar::labels(&field)).unwrap_or_default();
        let namespace = entry.text("sourceNamespace").map(Text::from);
        if let (Some(text), Some(field)) = (&namespace, entry.get("sourceNamespace"))
            && !scalar::is_label(text)
        {
            let message = format!("{} is no name of a namespace", quoted(text));
            if form == Namespace::Checked { field.fault(message) } else { field.advise(message) }
        }
        let gateways =
            entry.get("gateways").map(|field| gateways(&field, binding.namespace)).unwrap_or_default();
        if !gateways.is_empty() && (!labels.is_empty() || namespace.is_some()) {
            entry.field().advise("with gateways, sourceLabels and sourceNamespace have no effect");
            return Caller { labels: Labels::default(), namespace: None, gateways };
        }
        Caller { labels, namespace, gateways }
    }
}

/// A condition on a text that is always there; `{}` demands nothing.
fn text_of(entry: &Object<'_>, key: &'static str) -> Option<TextMatch> {
    text_match(&entry.get(key)?, Star::Refused).filter(|test| *test != TextMatch::Present)
}

/// What the regex `*` is, which is none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Star {
    /// Istio's way to say that something is there.
    Present,
    Refused,
}

/// Reads exact, prefix or regex. `{}` demands presence only.
pub(super) fn text_match(field: &Field<'_>, star: Star) -> Option<TextMatch> {
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
        _ if star == Star::Present && value.text() == Some("*") => Some(TextMatch::Present),
        _ => re2::pattern(&value).map(TextMatch::Regex),
    }
}

/// Keys of `headers` that Istio ignores, as there are fields for them.
const NO_HEADERS: [&str; 4] = ["uri", "scheme", "method", "authority"];
/// What a condition on a claim begins with, in any case.
const CLAIM: &str = "@request.auth.claims";

/// Conditions on header fields, and what else is written among them.
#[derive(Default)]
struct Headers {
    plain: Vec<(HeaderName, TextMatch)>,
    claims: Vec<(Vec<Text>, TextMatch)>,
    /// Pseudo-headers of HTTP/2, which Istio lets pass as headers.
    pseudo: Vec<(Pseudo, TextMatch)>,
}

impl Headers {
    fn read(entry: &Object<'_>, key: &'static str, binding: &Binding<'_>) -> Headers {
        let mut headers = Headers::default();
        for (name, field) in entry.get(key).map(|field| field.map()).unwrap_or_default() {
            let Some(test) = text_match(&field, Star::Present) else { continue };
            if let Some(path) = claim(name) {
                if !binding.gateways_only {
                    field.fault(format!(
                        "{} is for gateways only, where tokens are validated; bind the VirtualService to gateways without mesh",
                        quoted(name)
                    ));
                }
                field.later("a condition on JWT claims");
                headers.claims.push((path, test));
            } else if NO_HEADERS.contains(&name) {
                field.advise(format!("has no effect; use the field {name} of the match"));
            } else if let Some(pseudo) = Pseudo::from_name(name) {
                headers.pseudo.push((pseudo, test));
            } else if let Some(name) = header_name(&field, name) {
                headers.plain.push((name, test));
            }
        }
        headers
    }
}

/// The path of a claim: `@request.auth.claims.a.b` or `@request.auth.claims[a][b]`.
fn claim(key: &str) -> Option<Vec<Text>> {
    let head = key.get(..CLAIM.len()).filter(|head| head.eq_ignore_ascii_case(CLAIM))?;
    let path = &key[head.len()..];
    if let Some(path) = path.strip_prefix('.').filter(|path| !path.is_empty()) {
        return Some(path.split('.').map(Text::from).collect());
    }
    let path = path.strip_prefix('[')?.strip_suffix(']').filter(|path| !path.is_empty())?;
    Some(path.split("][").map(Text::from).collect())
}

fn query(entry: &Object<'_>) -> Vec<(Text, TextMatch)> {
    let mut query = Vec::new();
    for (name, field) in entry.get("queryParams").map(|field| field.map()).unwrap_or_default() {
        if name.is_empty() {
            field.fault("the name of a query parameter must not be empty");
        } else if let Some(test) = text_match(&field, Star::Present) {
            query.push((Text::from(name), test));
        }
    }
    query
}
