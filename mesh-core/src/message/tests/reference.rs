//! The form, written slowly from the documents alone: RFC 9110 (semantics), 9112 (HTTP/1.1), 9113 (HTTP/2), 3986 (URIs)
//! and 6455 (WebSocket), with the choices of this mesh where they leave one. It knows text, not types.

use std::collections::BTreeSet;

use http::Version;

use crate::message::path::Normalization;

/// A request as it was written.
#[derive(Debug, Clone)]
pub(super) struct Written {
    pub(super) version: Version,
    pub(super) method: String,
    pub(super) target: String,
    pub(super) fields: Vec<(String, String)>,
    pub(super) ended: bool,
}

/// A request in its one form.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) method: String,
    pub(super) scheme: String,
    pub(super) authority: String,
    pub(super) path: String,
    pub(super) query: Option<String>,
    /// Sorted by name; of one name in their order.
    pub(super) fields: Vec<(String, String)>,
    pub(super) websocket: bool,
}

/// The form of a request, or every status that it could be refused with.
pub(super) fn form(sent: &Written, mode: Normalization, proxy: bool) -> Result<Form, BTreeSet<u16>> {
    let mut faults = BTreeSet::new();
    // HTTP/1.0 is not spoken, as in Istio.
    if sent.version < Version::HTTP_11 {
        faults.insert(426);
    }
    // RFC 9110, section 9.3.6: CONNECT has no path; 9.1: we decide how long a method may be.
    if sent.method == "CONNECT" {
        faults.insert(400);
    }
    if sent.method.len() > 32 {
        faults.insert(501);
    }
    let size = |(name, value): &(String, String)| name.len() + value.len() + 4;
    let sizes: Vec<usize> = sent.fields.iter().map(size).collect();
    if sizes.len() > 100 || sizes.iter().any(|size| *size > 16384) || sizes.iter().sum::<usize>() > 32768 {
        faults.insert(431);
    }
    // RFC 9110, sections 5.1 and 5.5: names have no case, whitespace around a value is not part of it.
    let mut fields: Vec<(String, String)> = sent
        .fields
        .iter()
        .map(|(name, value)| (name.to_lowercase(), value.trim_matches([' ', '\t']).to_owned()))
        .collect();
    let values = |fields: &[(String, String)], wanted: &str| -> Vec<String> {
        fields.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value.clone()).collect()
    };
    let list = |fields: &[(String, String)], wanted: &str| -> Vec<String> {
        let members = values(fields, wanted).join(",").to_lowercase();
        members.split(',').map(|member| member.trim().to_owned()).collect()
    };
    // RFC 9113, section 8.2.2.
    const OF_THE_CONNECTION: [&str; 6] =
        ["connection", "keep-alive", "proxy-connection", "upgrade", "http2-settings", "transfer-encoding"];
    if sent.version == Version::HTTP_2 && fields.iter().any(|(name, _)| OF_THE_CONNECTION.contains(&&**name))
    {
        faults.insert(400);
    }
    // RFC 9112, sections 6.1 to 6.3; RFC 9110, section 8.6.
    let (codings, lengths) = (values(&fields, "transfer-encoding"), values(&fields, "content-length"));
    let digits = |text: &String| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    let length: Option<u64> = lengths.first().filter(|text| digits(text)).and_then(|text| text.parse().ok());
    if !codings.is_empty() && !lengths.is_empty() {
        faults.insert(400);
    } else if codings.len() > 1 || codings.iter().any(|coding| coding.to_lowercase() != "chunked") {
        faults.insert(501);
    } else if lengths.len() > 1 || (lengths.len() == 1 && length.is_none()) {
        faults.insert(400);
    }
    // RFC 9113, section 8.1.1.
    if sent.ended && length.is_some_and(|length| length > 0) {
        faults.insert(400);
    }
    let content = match (length, codings.is_empty()) {
        (Some(length), _) => length > 0,
        (None, false) => true,
        (None, true) => !sent.ended,
    };
    // RFC 6455, section 4.1.
    let upgrades = values(&fields, "upgrade");
    let websocket = sent.version == Version::HTTP_11
        && sent.method == "GET"
        && upgrades.len() == 1
        && upgrades[0].to_lowercase() == "websocket"
        && list(&fields, "connection").contains(&"upgrade".to_owned());
    // RFC 9110, section 9.3.8; before an upgrade content could be read as the other protocol.
    if content && (websocket || sent.method == "TRACE") {
        faults.insert(400);
    }
    let target = target(&sent.target, &sent.method, sent.version, mode).unwrap_or_else(|status| {
        faults.insert(status);
        Target::default()
    });
    // RFC 9112, section 3.2; RFC 9113, section 8.3.1.
    let hosts = values(&fields, "host");
    if hosts.len() > 1 || hosts.iter().chain(&target.authority).any(|host| !is_host(host)) {
        faults.insert(400);
    }
    let authority = target.authority.clone().or_else(|| hosts.first().cloned());
    if authority.is_none() {
        faults.insert(400);
    }
    // RFC 9110, section 10.1.1.
    if !values(&fields, "expect").is_empty() && list(&fields, "expect").iter().any(|e| e != "100-continue") {
        faults.insert(417);
    }
    // RFC 9110, section 7.6.1; some fields cannot be taken away by a client.
    let protected = |name: &str| {
        ["host", "content-length", "te", "authorization", "cookie"].contains(&name)
            || name.starts_with("x-forwarded-")
            || name.starts_with("x-mesh-")
    };
    let mut gone = list(&fields, "connection");
    gone.retain(|name| !protected(name));
    let internal = |name: &str| {
        let name = name.replace('_', "-");
        name.starts_with("x-mesh-") || name.starts_with("x-envoy-") || name == "x-forwarded-client-cert"
    };
    let takes_trailers = list(&fields, "te").contains(&"trailers".to_owned());
    // RFC 9113, section 8.2.3.
    let cookies = values(&fields, "cookie");
    fields.retain(|(name, _)| {
        !gone.contains(name)
            && !OF_THE_CONNECTION.contains(&&**name)
            && !["host", "te", "expect", "cookie", "content-length"].contains(&&**name)
            && (proxy || !internal(name))
    });
    if takes_trailers {
        fields.push(("te".into(), "trailers".into()));
    }
    if !cookies.is_empty() {
        let crumbs: Vec<_> = cookies.iter().filter(|crumb| !crumb.is_empty()).cloned().collect();
        let joined = crumbs.join("; ");
        if cookies.len() > 1 && joined.len() + 10 > 16384 {
            faults.insert(431);
        }
        fields.push(("cookie".into(), joined));
    }
    if let Some(length) = length {
        fields.push(("content-length".into(), length.to_string()));
    }
    fields.sort_by(|(a, _), (b, _)| a.cmp(b));
    match (faults.is_empty(), authority) {
        (true, Some(authority)) => Ok(Form {
            method: sent.method.clone(),
            scheme: target.scheme.unwrap_or("http".into()),
            authority,
            path: target.path,
            query: target.query,
            fields,
            websocket,
        }),
        _ => Err(faults),
    }
}

#[derive(Debug, Default)]
struct Target {
    scheme: Option<String>,
    authority: Option<String>,
    path: String,
    query: Option<String>,
}

/// RFC 9112, section 3.2. A fragment is no part of a target; one that was sent is dropped before all else.
fn target(text: &str, method: &str, version: Version, mode: Normalization) -> Result<Target, u16> {
    let sent = text;
    let text = text.split('#').next().unwrap_or("");
    if text == "*" && method == "OPTIONS" && sent == "*" {
        return Ok(Target { path: "*".into(), ..Target::default() });
    }
    let mut target = Target::default();
    let rest = match text.split_once("://") {
        _ if text.starts_with('/') => text,
        None => return Err(400),
        Some((scheme, rest)) => {
            // RFC 3986, section 3.1.
            let scheme = scheme.to_lowercase();
            if scheme != "http" && scheme != "https" {
                return Err(400);
            }
            target.scheme = Some(scheme);
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            target.authority = Some(rest[..end].to_owned());
            &rest[end..]
        }
    };
    if rest.len() > 8192 {
        return Err(414);
    }
    // RFC 9113, section 8.3.1: a `:path` is never empty.
    if version == Version::HTTP_2 && rest.starts_with('?') {
        return Err(400);
    }
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (rest, None),
    };
    let escaped = |c: char| match c.is_ascii() || mode == Normalization::None {
        true => c.to_string(),
        false => c.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect(),
    };
    target.query = query.map(|query| query.chars().map(escaped).collect());
    target.path = path_form(if path.is_empty() { "/" } else { path }, mode).ok_or(400_u16)?;
    Ok(target)
}

/// RFC 3986, section 3.2: no userinfo, an address or a name, one spelling of a port.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.rfind("]:").map(|at| at + 1).or_else(|| text.find(':')) {
        Some(at) if !text.ends_with(']') => (&text[..at], Some(&text[at + 1..])),
        _ => (text, None),
    };
    if port.is_some_and(|port| {
        port.parse::<u16>().map(|number| number.to_string()).ok().as_deref() != Some(port)
    }) {
        return false;
    }
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    !name.is_empty()
        && !name.starts_with('.')
        && !name.ends_with('.')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-._~".contains(c))
}

fn path_form(path: &str, mode: Normalization) -> Option<String> {
    if path.contains("%00") || path.chars().any(|c| c <= ' ' || c == '\u{7f}') || !path.starts_with('/') {
        return None;
    }
    if mode == Normalization::None {
        return Some(path.to_owned());
    }
    let decodes = mode == Normalization::DecodeAndMergeSlashes;
    let merges = decodes || mode == Normalization::MergeSlashes;
    // RFC 3986, sections 2.1 and 6.2.2.2.
    let mut decoded = Vec::new();
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if !byte.is_ascii() {
            // Section 2.1: characters that a URI cannot have are escaped.
            decoded.extend(format!("%{byte:02X}").bytes());
            continue;
        }
        if byte != b'%' {
            decoded.push(if byte == b'\\' { b'/' } else { byte });
            continue;
        }
        let digits = [bytes.next()?, bytes.next()?];
        let text = String::from_utf8(digits.to_vec()).ok().filter(|text| !text.contains('+'))?;
        let meant = u8::from_str_radix(&text, 16).ok()?;
        if meant.is_ascii_alphanumeric() || b"-._~".contains(&meant) {
            decoded.push(meant);
        } else if decodes && b"/\\".contains(&meant) {
            decoded.push(b'/');
        } else {
            decoded.extend([b'%', digits[0], digits[1]]);
        }
    }
    let mut path = String::from_utf8(decoded).ok()?;
    // Our choice: parameters of a dot segment go with it.
    let bare = |segment: &str| match segment.split(';').next() {
        Some(name @ ("." | "..")) => name.to_owned(),
        _ => segment.to_owned(),
    };
    path = path.split('/').map(bare).collect::<Vec<_>>().join("/");
    path = remove_dot_segments(&path);
    while merges && path.contains("//") {
        path = path.replace("//", "/");
    }
    Some(path)
}

/// RFC 3986, section 5.2.4, step by step.
fn remove_dot_segments(path: &str) -> String {
    let (mut input, mut output) = (path.to_owned(), String::new());
    while !input.is_empty() {
        if input.starts_with("/./") || input == "/." {
            input = format!("/{}", input.get(3..).unwrap_or(""));
        } else if input.starts_with("/../") || input == "/.." {
            input = format!("/{}", input.get(4..).unwrap_or(""));
            output.truncate(output.rfind('/').unwrap_or(0));
        } else {
            let end = input[1..].find('/').map_or(input.len(), |at| at + 1);
            output.push_str(&input[..end]);
            input = input[end..].to_owned();
        }
    }
    output
}
