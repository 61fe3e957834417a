//! What a rule does with path and authority, or answers itself: `rewrite`, `redirect`, `directResponse`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use mesh_core::matching::text::TextMatch;
use mesh_core::resource::virtual_service::HttpMatch;
use mesh_core::routing::rewrite::{PathRewrite, Redirect, RedirectPort, Rewrite};
use mesh_core::routing::rule::DirectResponse;
use mesh_core::vocab::name::Text;

use super::header::authority;
use crate::dialect::field::{Field, Message, Note, Object};
use crate::dialect::node::quoted;
use crate::dialect::re2;

pub(crate) static REWRITE: Message =
    Message { name: "a rewrite", fields: &["authority", "uri", "uriRegexRewrite"], later: &[], skipped: &[] };

static REGEX_REWRITE: Message =
    Message { name: "a uriRegexRewrite", fields: &["match", "rewrite"], later: &[], skipped: &[] };

pub(crate) static REDIRECT: Message = Message {
    name: "a redirect",
    fields: &["authority", "derivePort", "port", "prefixRewrite", "redirectCode", "scheme", "uri"],
    later: &[],
    skipped: &[],
};

pub(crate) static DIRECT_RESPONSE: Message =
    Message { name: "a directResponse", fields: &["body", "status"], later: &[], skipped: &[] };

static BODY: Message = Message { name: "a body", fields: &["bytes", "string"], later: &[], skipped: &[] };

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] =
    &[Note::Holds(&REWRITE, "uriRegexRewrite", &REGEX_REWRITE), Note::Holds(&DIRECT_RESPONSE, "body", &BODY)];

/// Codes that a redirect can be answered with.
const REDIRECT_CODES: [u16; 5] = [301, 302, 303, 307, 308];
const LARGEST_BODY: usize = 1 << 20;
const LARGE_BODY: usize = 100 << 10;

/// Reads `rewrite`.
pub(super) fn rewrite(field: &Field<'_>) -> Option<Rewrite> {
    let entry = field.object(&REWRITE)?;
    let uri = entry.text("uri");
    let by_regex = entry.get("uriRegexRewrite");
    let new_authority = entry.text("authority");
    if uri.is_some() && by_regex.is_some() {
        field.fault("only one of uri and uriRegexRewrite can be set");
    }
    let says = |key| entry.get(key).is_some_and(|field| !field.is_empty_text());
    if !["uri", "authority", "uriRegexRewrite"].into_iter().any(says) {
        field.fault("a rewrite needs uri, uriRegexRewrite or authority");
    }
    let path = match (uri, by_regex) {
        (Some(uri), _) => {
            new_path(&entry, "uri", Fragment::Refused);
            Some(PathRewrite::Matched(uri.into()))
        }
        (None, Some(field)) => Some(regex_rewrite(&field)?),
        (None, None) => None,
    };
    let new_authority = match new_authority {
        Some(text) => Some(authority(&entry.get("authority")?, text)?),
        None => None,
    };
    Some(Rewrite { path, authority: new_authority })
}

fn regex_rewrite(field: &Field<'_>) -> Option<PathRewrite> {
    let entry = field.object(&REGEX_REWRITE)?;
    let pattern = entry.require("match").and_then(|field| re2::pattern(&field));
    let substitution = entry.require("rewrite").and_then(|field| Some((field.some_text()?, field)));
    let (pattern, (substitution, substitution_field)) = (pattern?, substitution?);
    // Counted by the same engine that the pattern was compiled with.
    let groups = regex::Regex::new(pattern.source()).map_or(10, |regex| regex.captures_len());
    let bytes = substitution.as_bytes();
    let mut at = 0;
    while let Some(found) = bytes[at..].iter().position(|&b| b == b'\\') {
        let next = bytes.get(at + found + 1).copied();
        match next {
            Some(digit @ b'0'..=b'9') if usize::from(digit - b'0') >= groups => {
                let group = char::from(digit);
                substitution_field.fault(format!("\\{group} names a group that the match does not have"));
            }
            Some(b'0'..=b'9' | b'\\') => {}
            _ => substitution_field.fault("a backslash stands before a digit or another backslash"),
        }
        at += found + 2;
        if at > bytes.len() {
            break;
        }
    }
    new_path(&entry, "rewrite", Fragment::Refused);
    Some(PathRewrite::Regex { pattern, substitution: substitution.into() })
}

/// Whether a `#` may stand in a path: in a `location`, not in a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fragment {
    Allowed,
    Refused,
}

/// Refuses what cannot stand in a request line or a header.
fn new_path(entry: &Object<'_>, key: &'static str, fragment: Fragment) {
    let Some(field) = entry.get(key) else { return };
    let odd = |text: &str| {
        let hash = |b: u8| b == b'#' && fragment == Fragment::Refused;
        text.bytes().any(|b| b <= b' ' || b == 0x7f || hash(b))
    };
    if let Some(text) = field.text().filter(|text| odd(text)) {
        field.fault(format!("{} has a character that no path may have", quoted(text)));
    }
}

/// Reads `redirect`. `matches` are those of its rule.
pub(super) fn redirect(field: &Field<'_>, matches: &[HttpMatch]) -> Option<Redirect> {
    let entry = field.object(&REDIRECT)?;
    let (path, prefix) = (entry.text("uri"), entry.text("prefixRewrite"));
    let (new_authority, scheme) = (entry.text("authority"), entry.get("scheme"));
    let scheme = scheme.filter(|field| !field.is_empty_text());
    let says = |key| entry.get(key).is_some_and(|field| !field.is_empty_text());
    if !["uri", "prefixRewrite", "authority", "scheme", "port", "derivePort"].into_iter().any(says) {
        field.fault("a redirect needs uri, prefixRewrite, authority, scheme, port or derivePort");
    }
    if path.is_some() && prefix.is_some() {
        field.fault("only one of uri and prefixRewrite can be set");
    }
    if entry.has("port") && entry.has("derivePort") {
        field.fault("only one of port and derivePort can be set");
    }
    if let (Some(_), Some(at)) = (prefix, entry.get("prefixRewrite")) {
        let by_prefix =
            |uri: &TextMatch| matches!(uri, TextMatch::Prefix(_) | TextMatch::PrefixIgnoringCase(_));
        if matches.iter().any(|entry| !entry.request.uri.as_ref().is_none_or(by_prefix)) {
            at.fault("prefixRewrite needs every uri match of the rule to be a prefix");
        }
    }
    new_path(&entry, "uri", Fragment::Allowed);
    new_path(&entry, "prefixRewrite", Fragment::Allowed);
    let port = match (entry.get("port"), entry.get("derivePort")) {
        (Some(port), _) => match u16::try_from(port.integer(0..=65535)?).ok()? {
            // The zero of proto-JSON is absent.
            0 => RedirectPort::ProtocolDefault,
            port => RedirectPort::Fixed(port),
        },
        (None, Some(derive)) => match derive.choice(&["FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"])? {
            "FROM_REQUEST_PORT" => RedirectPort::Request,
            _ => RedirectPort::ProtocolDefault,
        },
        (None, None) => RedirectPort::ProtocolDefault,
    };
    let scheme = match scheme {
        Some(field) => Some(Text::from(field.choice(&["http", "https"])?)),
        None => None,
    };
    let new_authority = match new_authority {
        Some(text) => Some(authority(&entry.get("authority")?, text)?),
        None => None,
    };
    let code = entry.get("redirectCode").map_or(Some(301), |field| redirect_code(&field))?;
    let writable = |text: &&str| HeaderValue::from_str(text).is_ok();
    let text = |text: &str| Text::from(text);
    Some(Redirect {
        code,
        path: path.filter(writable).map(text),
        prefix: prefix.filter(writable).map(text),
        authority: new_authority,
        scheme,
        port,
    })
}

fn redirect_code(field: &Field<'_>) -> Option<u16> {
    let code = field.integer(0..=i64::from(u32::MAX))?;
    match u16::try_from(code).ok().filter(|code| *code == 0 || (300..=399).contains(code)) {
        // The zero of proto-JSON is absent.
        Some(0) => Some(301),
        Some(code) => {
            if !REDIRECT_CODES.contains(&code) {
                field.advise(format!(
                    "{code} cannot be used, and the rule with it; use 301, 302, 303, 307 or 308"
                ));
            }
            Some(code)
        }
        None => {
            field.fault(format!("{code} is no code of a redirect: wanted 301, 302, 303, 307 or 308"));
            None
        }
    }
}

/// Reads `directResponse`.
pub(super) fn direct_response(field: &Field<'_>) -> Option<DirectResponse> {
    let entry = field.object(&DIRECT_RESPONSE)?;
    let status = entry.require("status").and_then(|field| status(&field));
    let body = match entry.get("body") {
        Some(field) => body(&field)?,
        None => Vec::new(),
    };
    Some(DirectResponse { status: status?, body: body.into() })
}

/// A status that an answer may be made with. (Istio's admission takes 600 for one.)
pub(super) fn status(field: &Field<'_>) -> Option<u16> {
    let status = field.integer(i64::from(i32::MIN)..=i64::from(u32::MAX))?;
    match u16::try_from(status).ok().filter(|status| (200..=600).contains(status)) {
        None => {
            field.fault(format!("{status} is out of range: 200 to 599"));
            None
        }
        Some(600) => {
            field.advise("600 is no status of HTTP; those end with 599");
            Some(600)
        }
        status => status,
    }
}

fn body(field: &Field<'_>) -> Option<Vec<u8>> {
    let entry = field.object(&BODY)?;
    if entry.has("string") && entry.has("bytes") {
        field.fault("only one of string and bytes can be set");
        return None;
    }
    let body = match (entry.get("string"), entry.get("bytes")) {
        (Some(string), _) => string.text()?.as_bytes().to_vec(),
        (None, Some(bytes)) => {
            let text = bytes.text()?;
            match STANDARD.decode(text) {
                Ok(body) => body,
                Err(error) => {
                    bytes.fault(format!("not base64: {error}"));
                    return None;
                }
            }
        }
        (None, None) => Vec::new(),
    };
    if body.len() > LARGEST_BODY {
        field.fault(format!("the body has {} bytes, at most {LARGEST_BODY} are allowed", body.len()));
        return None;
    }
    if body.len() > LARGE_BODY {
        field.warn(format!("the body has {} bytes; every proxy keeps it in memory", body.len()));
    }
    Some(body)
}
