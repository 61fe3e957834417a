//! Header operations: `headers` of a rule or of a destination.

use http::{HeaderName, HeaderValue};
use mesh_core::matching::authority::Authority;
use mesh_core::routing::header::HeaderChanges;
use mesh_core::vocab::name::Text;

use crate::dialect::field::{Field, Message, Note};
use crate::dialect::node::quoted;

pub(crate) static HEADERS: Message =
    Message { name: "headers", fields: &["request", "response"], later: &[], skipped: &[] };

static OPERATIONS: Message =
    Message { name: "header operations", fields: &["add", "remove", "set"], later: &[], skipped: &[] };

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] = &[
    Note::Holds(&HEADERS, "request", &OPERATIONS),
    Note::Holds(&HEADERS, "response", &OPERATIONS),
    Note::Later(&OPERATIONS, "set", "values with formatters such as %REQ(x)%"),
    Note::Later(&OPERATIONS, "add", "values with formatters such as %REQ(x)%"),
];

/// Fields that frame the message; changing them would break it on the way.
const FRAMING: [&str; 9] = [
    "connection",
    "content-length",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What `headers` changes.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) request: HeaderChanges,
    pub(super) response: HeaderChanges,
    /// Set or added `host` or `:authority` of the request, which is a rewrite of the authority.
    pub(super) authority: Option<Text>,
}

/// Reads `headers`.
pub(super) fn changes(field: &Field<'_>) -> Changes {
    let mut changes = Changes::default();
    let Some(headers) = field.object(&HEADERS) else { return changes };
    if let Some(request) = headers.get("request") {
        changes.request = operations(&request, Some(&mut changes.authority));
    }
    if let Some(response) = headers.get("response") {
        changes.response = operations(&response, None);
    }
    changes
}

/// `authority` is where an operation on the host goes; `None` where there is no host to change.
fn operations(field: &Field<'_>, mut authority: Option<&mut Option<Text>>) -> HeaderChanges {
    let mut changes = HeaderChanges::default();
    let Some(operations) = field.object(&OPERATIONS) else { return changes };
    for item in operations.items("remove") {
        let Some(text) = item.some_text() else { continue };
        if is_host(text) {
            item.fault("the host cannot be removed");
        } else {
            changes.remove.extend(name(&item, text));
        }
    }
    changes.remove.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    // Set before add: of two that change the authority the set wins.
    for (key, list) in [("set", &mut changes.set), ("add", &mut changes.add)] {
        let mut hosts = 0;
        for (header, value) in operations.get(key).map(|field| field.map()).unwrap_or_default() {
            let Some(text) = value.text().and_then(|text| literal(&value, text)) else { continue };
            if let (true, Some(authority)) = (is_host(header), authority.as_deref_mut()) {
                hosts += 1;
                if hosts > 1 {
                    value.fault("the authority is set twice: host and :authority are the same");
                }
                if let Some(text) = self::authority(&value, &text)
                    && authority.is_none()
                {
                    *authority = Some(text);
                }
                continue;
            }
            let Some(name) = name(&value, header) else { continue };
            match HeaderValue::from_bytes(text.as_bytes()) {
                Ok(text) => list.push((name, text)),
                Err(_) => {
                    value.fault(format!("{} has a character that no header value may have", quoted(&text)))
                }
            }
        }
        list.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
    }
    changes
}

fn is_host(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority")
}

/// A name that may be changed.
fn name(field: &Field<'_>, text: &str) -> Option<HeaderName> {
    if text.starts_with(':') || is_host(text) {
        field.fault(format!("{} cannot be changed here", quoted(text)));
        return None;
    }
    let name = header_name(field, text)?;
    if FRAMING.contains(&name.as_str()) {
        field.fault(format!("{name} frames the message and cannot be changed"));
        return None;
    }
    Some(name)
}

/// A header name as HTTP allows it, in lower case.
pub(super) fn header_name(field: &Field<'_>, text: &str) -> Option<HeaderName> {
    let name = HeaderName::from_bytes(text.as_bytes()).ok();
    if name.is_none() {
        field.fault(format!("{} is no header name", quoted(text)));
    }
    name
}

/// An authority to send in place of the one that came.
pub(super) fn authority(field: &Field<'_>, text: &str) -> Option<Text> {
    match Authority::parse(text) {
        Ok(_) => Some(text.into()),
        Err(error) => {
            field.fault(format!("{} cannot be an authority: {error}", quoted(text)));
            None
        }
    }
}

/// The value with `%%` read as a percent sign. Envoy's other formatters (`%REQ(x)%`) are not carried out.
fn literal(field: &Field<'_>, text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(after) = after.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let command =
            after.bytes().take_while(|b| b.is_ascii_uppercase() || matches!(b, b'_' | b'0'..=b'9')).count();
        if command > 0 && after[command..].contains('%') {
            field.later(format!("the formatter %{}%", &after[..command]));
        } else {
            field.fault(format!("{}: a literal percent sign is written %%", quoted(text)));
        }
        return None;
    }
    out.push_str(rest);
    Some(out)
}
