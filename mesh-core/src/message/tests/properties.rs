//! What holds for every request: the form is what the reference says, its form is itself, and nothing is in it that
//! must not be there.

use http::{HeaderMap, Version};
use proptest::prelude::*;

use super::super::authority;
use super::reference::{Form, Written, form};
use super::{Head, Normalization, Sender, Sent};
use crate::framing::{MOST_FIELDS, Sizes};
use crate::message::framing::Framing;

/// Pieces joined, so that separators meet.
fn pieces(pieces: &'static [&'static str], most: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(pieces), 0..=most).prop_map(|pieces| pieces.concat())
}

fn target() -> impl Strategy<Value = String> {
    const BEFORE: [&str; 12] =
        ["", "", "", "", "", "", "http://a", "HTTPS://A.b:80", "http://u@a", "http://a:080", "ftp://a", "*"];
    const PATH: &[&str] = &[
        "/", "/", "/", "//", ".", "..", "/../", "/./", "/..;/", ";", "%2e", "%2E", "%2f", "%5C", "\\", "a",
        "admin", "%61", "%", "%00", "%25", "%zz", "%32", "e", "#", "?", "=", "&", "\u{e9}", "%C3", ":", "@",
        "*",
    ];
    (prop::sample::select(&BEFORE[..]), pieces(PATH, 10)).prop_map(|(before, path)| {
        if before.is_empty() && !path.starts_with('/') {
            format!("/{path}")
        } else {
            format!("{before}{path}")
        }
    })
}

fn host() -> impl Strategy<Value = String> {
    const HOST: &[&str] =
        &["a", "B", ".", "a.b", ":", "80", "080", "65536", "@", "[::1]", ",", "_", "%41", " ", "]"];
    prop_oneof![4 => Just("a.b:80".to_owned()), 1 => pieces(HOST, 4)]
}

fn field() -> impl Strategy<Value = (String, String)> {
    const NAMES: [&str; 27] = [
        "content-length",
        "transfer-encoding",
        "connection",
        "te",
        "upgrade",
        "keep-alive",
        "expect",
        "cookie",
        "http2-settings",
        "proxy-connection",
        "authorization",
        "x-forwarded-for",
        "x-forwarded-client-cert",
        "x-mesh-hop",
        "x_mesh_from",
        "x-envoy-retry-on",
        "x-role",
        "x-other",
        "trailer",
        "content-type",
        "accept",
        "x-role",
        "x-other",
        "cookie",
        "accept",
        "x_role",
        "Date",
    ];
    const VALUE: &[&str] = &[
        "chunked",
        "Chunked",
        "gzip",
        ",",
        " ",
        "\t",
        "0",
        "5",
        "07",
        "+5",
        "close",
        "keep-alive",
        "Upgrade",
        "websocket",
        "h2c",
        "trailers",
        "X-Role",
        "te",
        "content-length",
        "cookie",
        "100-continue",
        ";",
        "a=1",
        "",
    ];
    (prop::sample::select(&NAMES[..]), pieces(VALUE, 3)).prop_map(|(name, value)| (name.to_owned(), value))
}

fn written() -> impl Strategy<Value = Written> {
    const METHODS: [&str; 8] = ["GET", "GET", "GET", "POST", "OPTIONS", "TRACE", "get", "CONNECT"];
    let version =
        prop::sample::select(vec![Version::HTTP_11, Version::HTTP_11, Version::HTTP_2, Version::HTTP_10]);
    let hosts = prop_oneof![
        6 => prop::collection::vec(host(), 1),
        1 => prop::collection::vec(host(), 0),
        1 => prop::collection::vec(host(), 2),
    ];
    let fields = prop::collection::vec(field(), 0..5);
    (version, prop::sample::select(&METHODS[..]), target(), hosts, fields, any::<bool>()).prop_map(
        |(version, method, target, hosts, fields, ended)| {
            let hosts = hosts.into_iter().map(|host| ("host".to_owned(), host));
            // A codec of HTTP/1 tells that something follows by these fields alone, and trims values.
            let announced = |(name, value): &(String, String)| match name.as_str() {
                "transfer-encoding" => true,
                "content-length" => value.trim().parse() != Ok(0),
                _ => false,
            };
            let one = version != Version::HTTP_2;
            let ended = if one { !fields.iter().any(announced) } else { ended };
            let trim = |(name, value): (String, String)| {
                let value = if one { value.trim().to_owned() } else { value };
                (name, value)
            };
            let fields = hosts.chain(fields).map(trim).collect();
            Written { version, method: method.to_owned(), target, fields, ended }
        },
    )
}

fn read(
    written: &Written,
    mode: Normalization,
    sender: Sender,
) -> Option<Result<Head, crate::message::fault::Fault>> {
    let fields: Vec<_> = written.fields.iter().map(|(name, value)| (&**name, &**value)).collect();
    let Written { version, method, target, ended, .. } = written;
    Sent { version: *version, method, target, fields: &fields, ended: *ended }.form(mode, sender)
}

fn fields(headers: &HeaderMap) -> Vec<(String, String)> {
    let mut fields: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    fields.sort_by(|(a, _), (b, _)| a.cmp(b));
    fields
}

fn as_text(head: &Head) -> Form {
    Form {
        method: head.method.to_string(),
        scheme: head.scheme.name().to_owned(),
        authority: head.authority.to_string(),
        path: head.target.path().to_owned(),
        query: head.target.query().map(str::to_owned),
        fields: fields(&head.headers),
        websocket: head.websocket,
    }
}

/// What goes on, read again.
fn again(head: &Head, mode: Normalization, sender: Sender) -> Head {
    let fields = fields(&head.headers);
    let mut fields: Vec<_> = fields.iter().map(|(name, value)| (&**name, &**value)).collect();
    let (authority, star) = (head.authority.as_str(), head.target.as_str() == "*");
    let whole = format!("{}://{authority}{}", head.scheme.name(), head.target);
    let target = if star { "*" } else { &whole };
    fields.extend(star.then_some(("host", authority)));
    let ended = head.framing == Framing::Nothing;
    let sent =
        Sent { version: Version::HTTP_2, method: head.method.as_str(), target, fields: &fields, ended };
    sent.form(mode, sender).expect("it can be written").expect("it is not refused")
}

fn assert_clean(head: &Head, mode: Normalization, sender: Sender) {
    const NEVER: [&str; 9] = [
        "host",
        "connection",
        "keep-alive",
        "proxy-connection",
        "upgrade",
        "http2-settings",
        "transfer-encoding",
        "expect",
        "x_mesh_from",
    ];
    let names: Vec<_> = head.headers.keys().map(|name| name.as_str()).collect();
    for name in NEVER {
        let fine = name == "x_mesh_from" && sender == Sender::Proxy;
        assert!(fine || !names.contains(&name), "{name}");
    }
    for single in ["content-length", "cookie", "te"] {
        assert!(head.headers.get_all(single).iter().count() < 2, "{single}");
    }
    if sender == Sender::Anybody {
        assert!(!names.iter().any(|name| name.starts_with("x-mesh-") || name.starts_with("x-envoy-")));
    }
    assert!(head.headers.values().all(|value| value.as_bytes() == value.as_bytes().trim_ascii()));
    assert!(head.headers.len() <= MOST_FIELDS);
    let host = head.authority.as_str();
    assert!(authority::Authority::parse(host).is_ok(), "{host}");
    let path = head.target.path();
    assert!(path.starts_with('/') || path == "*", "{path}");
    assert!(!path.contains("%00") && !head.target.as_str().contains('#'), "{path}");
    if mode == Normalization::None {
        return;
    }
    let dots = |segment: &str| matches!(segment.split(';').next(), Some("." | ".."));
    assert!(!path.split('/').any(dots) && !path.contains('\\'), "{path}");
    assert!(mode == Normalization::Base || !path.contains("//"), "{path}");
    let slashes = ["%2f", "%2F", "%5c", "%5C"];
    assert!(
        mode != Normalization::DecodeAndMergeSlashes || !slashes.iter().any(|s| path.contains(s)),
        "{path}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(4096)))]

    #[test]
    fn the_form_is_what_the_documents_say(
        sent in written(),
        mode in prop::sample::select(&Normalization::ALL[..]),
        proxy in any::<bool>(),
    ) {
        let sender = if proxy { Sender::Proxy } else { Sender::Anybody };
        // What no codec reads has no form.
        if let Some(found) = read(&sent, mode, sender) {
            match (found, form(&sent, mode, proxy)) {
                (Ok(head), Ok(expected)) => {
                    prop_assert_eq!(as_text(&head), expected);
                    assert_clean(&head, mode, sender);
                    let same = again(&head, mode, sender);
                    prop_assert_eq!(as_text(&same), Form { websocket: false, ..as_text(&head) });
                    prop_assert_eq!(same.framing, head.framing);
                }
                (Err(fault), Err(expected)) => {
                    prop_assert!(expected.contains(&fault.status().as_u16()), "{fault:?} {expected:?}");
                }
                (found, expected) => prop_assert!(false, "{found:?}, but {expected:?}"),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(4096)))]

    /// An answer's framing is one length or none, nothing of the hop or the mesh is left, and its form is itself.
    #[test]
    fn the_form_of_an_answer_is_itself(
        status in prop::sample::select(vec![100, 101, 200, 204, 206, 304, 404, 500, 599, 600, 999]),
        sent in prop::collection::vec(field(), 0..6),
    ) {
        let mut parts = http::Response::builder().status(status).body(()).unwrap().into_parts().0;
        for (name, value) in &sent {
            if let (Ok(name), Ok(value)) = (name.parse::<http::HeaderName>(), value.parse()) {
                parts.headers.append(name, value);
            }
        }
        let said = |name: &str| {
            let values = parts.headers.get_all(name).iter();
            values.map(|value| String::from_utf8_lossy(value.as_bytes()).trim().to_lowercase()).collect::<Vec<_>>()
        };
        // RFC 9112, sections 6.1 to 6.3; RFC 9110, sections 8.6 and 15.
        let (codings, lengths) = (said("transfer-encoding"), said("content-length"));
        let digits = |text: &String| text.parse::<u64>().is_ok() && !text.starts_with('+');
        let framed = match (&codings[..], &lengths[..]) {
            ([], []) => true,
            ([coding], []) => coding == "chunked",
            ([], [length]) => digits(length),
            _ => false,
        };
        let fine = framed && (200..600).contains(&status);
        let found = crate::message::response::canonical(&mut parts, false, &Sizes::DEFAULT);
        prop_assert_eq!(found.is_ok(), fine, "{:?}", found);
        if fine {
            for gone in ["connection", "keep-alive", "upgrade", "transfer-encoding", "x-mesh-hop", "x_mesh_from"] {
                prop_assert!(!parts.headers.contains_key(gone), "{}", gone);
            }
            prop_assert!(status != 204 || !parts.headers.contains_key("content-length"));
            let form = parts.headers.clone();
            parts.version = Version::HTTP_2;
            prop_assert!(crate::message::response::canonical(&mut parts, false, &Sizes::DEFAULT).is_ok());
            prop_assert_eq!(parts.headers, form);
        }
    }
}

/// How many of the generated requests have a form: enough to mean something.
#[test]
fn generated_requests_are_of_both_kinds() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut fine, mut refused) = (0, 0);
    for _ in 0..2000 {
        let sent = written().new_tree(&mut runner).unwrap().current();
        match read(&sent, Normalization::Base, Sender::Anybody) {
            Some(Ok(_)) => fine += 1,
            Some(Err(_)) => refused += 1,
            None => {}
        }
    }
    assert!(fine > 200 && refused > 200, "{fine} {refused}");
}
