//! Header operations: `headers` of a rule or of a destination.

use http::{HeaderName, HeaderValue};
use mesh_core::message::authority::Authority;
use mesh_core::routing::format::{Plain, Template, Variable};
use mesh_core::routing::header::HeaderChanges;
use mesh_core::vocab::name::Text;

use super::formatter;
use crate::dialect::field::{Field, Message, Note};
use crate::dialect::node::quoted;

pub(crate) static HEADERS: Message =
    Message { name: "headers", fields: &["request", "response"], later: &[], skipped: &[] };

static OPERATIONS: Message =
    Message { name: "header operations", fields: &["add", "remove", "set"], later: &[], skipped: &[] };

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] =
    &[Note::Holds(&HEADERS, "request", &OPERATIONS), Note::Holds(&HEADERS, "response", &OPERATIONS)];

/// Fields that frame the message, which the proxy writes itself: changing them would break it on the way.
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
    /// How many operations give the request an authority that is not empty.
    pub(super) authorities: usize,
}

/// Reads `headers`.
pub(super) fn changes(field: &Field<'_>) -> Changes {
    let mut changes = Changes::default();
    let Some(headers) = field.object(&HEADERS) else { return changes };
    if let Some(request) = headers.get("request") {
        let mut hosts = Vec::new();
        changes.request = operations(&request, Some(&mut hosts));
        changes.authorities = hosts.len();
        // In the order in which they were read: of two that change the authority the set wins.
        changes.authority = hosts.into_iter().next();
    }
    if let Some(response) = headers.get("response") {
        changes.response = operations(&response, None);
    }
    changes
}

/// `hosts` is where operations on the host go; `None` where there is no host to change.
fn operations(field: &Field<'_>, mut hosts: Option<&mut Vec<Text>>) -> HeaderChanges {
    let mut changes = HeaderChanges::default();
    let Some(operations) = field.object(&OPERATIONS) else { return changes };
    for item in operations.items("remove") {
        let Some(text) = item.text() else { continue };
        if is_host(text) {
            item.fault("the host cannot be removed");
        } else {
            changes.remove.extend(name(&item, text));
        }
    }
    changes.remove.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    for (key, list) in [("set", &mut changes.set), ("add", &mut changes.add)] {
        for (header, value) in operations.get(key).map(|field| field.map()).unwrap_or_default() {
            let Some(written) = value.text().and_then(|text| written(&value, text)) else { continue };
            if let (true, Some(hosts)) = (is_host(header), hosts.as_deref_mut()) {
                hosts.extend(host(&value, &written));
                continue;
            }
            let Some(name) = name(&value, header) else { continue };
            // As it is written: what has been read of it could look like a formatter.
            let raw = value.text().unwrap_or_default();
            match HeaderValue::from_bytes(raw.as_bytes()) {
                Ok(text) => list.push((name, text)),
                Err(_) => {
                    value.fault(format!("{} has a character that no header value may have", quoted(raw)))
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
        field.advise(format!("{name} frames the message: the proxy writes it itself and this has no effect"));
        return None;
    }
    Some(name)
}

/// A header name as HTTP allows it, in lower case.
pub(super) fn header_name(field: &Field<'_>, text: &str) -> Option<HeaderName> {
    let name = HeaderName::from_bytes(text.as_bytes()).ok();
    if name.is_none() {
        field.fault(match text {
            "" => "the name of a header must not be empty".to_owned(),
            _ => format!(
                "{} is no header name: wanted letters, digits and any of !#$%&'*+-.^_`|~",
                quoted(text)
            ),
        });
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

/// A variable that is always empty.
fn without_value(template: &Template) -> Option<&Variable> {
    template.variables().find(|variable| {
        matches!(variable, Variable::Empty(_) | Variable::Plain(Plain::UpstreamLocalAddress))
    })
}

/// A value and whether it is more than text.
struct Written {
    text: String,
    formatted: bool,
}

/// The authority that an operation gives; none where it is empty.
fn host(field: &Field<'_>, written: &Written) -> Option<Text> {
    match written.text.as_str() {
        "" => None,
        // Istio sends it as it stands, formatters unread, and that is no host.
        text if written.formatted => {
            field.fault(format!("{} cannot be an authority: formatters are not read in it", quoted(text)));
            None
        }
        text => authority(field, text),
    }
}

/// The value with `%%` read as a percent sign. A value with formatters (`%REQ(x)%`) stays as it is written.
fn written(field: &Field<'_>, text: &str) -> Option<Written> {
    match formatter::parse(text) {
        Ok(formatter::Value::Literal(text)) => Some(Written { text, formatted: false }),
        Ok(formatter::Value::Formatted(_)) => {
            if let Some(variable) = Template::parse(text).ok().as_ref().and_then(without_value) {
                field.advise(format!("{variable} has no value here: it is always empty"));
            }
            Some(Written { text: text.to_owned(), formatted: true })
        }
        Err(error) => {
            field.fault(format!("{}: {error}", quoted(text)));
            None
        }
    }
}
