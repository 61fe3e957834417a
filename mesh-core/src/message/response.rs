//! Responses: what of an upstream's answer goes back.

use http::response::Parts;
use http::{StatusCode, header};

use super::fault::Unusable;
use super::fields::Found;
use super::framing::{self, Framing, Unclear};
use super::{hop, internal};
use crate::framing::Sizes;

/// Brings the head of an upstream's final answer into its one form, in place; `upgrading` says that a WebSocket was
/// asked for. What one look over its fields found comes back.
pub fn canonical(parts: &mut Parts, upgrading: bool, sizes: &Sizes) -> Result<Found, Unusable> {
    let switched = parts.status == StatusCode::SWITCHING_PROTOCOLS;
    let granted = || parts.headers.get(header::UPGRADE).map(|to| to.as_bytes());
    if switched && !(upgrading && granted().is_some_and(|to| to.eq_ignore_ascii_case(b"websocket"))) {
        return Err(Unusable::Unsolicited);
    }
    if !switched && !(200..600).contains(&parts.status.as_u16()) {
        return Err(Unusable::Status);
    }
    let headers = &mut parts.headers;
    let found = Found::of(headers);
    if found.is_too_large(headers, sizes) {
        return Err(Unusable::Fields);
    }
    if found.is_foreign(parts.version) {
        return Err(Unusable::Connection);
    }
    found.trim(headers);
    let declared = framing::declared(headers, &found).map_err(|unclear| match unclear {
        Unclear::Encoding => Unusable::Encoding,
        Unclear::LengthAndEncoding => Unusable::LengthAndEncoding,
        Unclear::Length => Unusable::Length,
    })?;
    // RFC 9110, section 8.6: these have no content, and so no length.
    let bare = switched || parts.status == StatusCode::NO_CONTENT;
    let framing = if bare { Framing::Nothing } else { declared.unwrap_or(Framing::Open) };
    framing::rebuild(headers, &found, framing);
    hop::strip(headers, &found);
    internal::strip_mesh(headers, found.mesh);
    if found.hosts > 0 {
        headers.remove(header::HOST);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, Response, Version};

    fn check(status: u16, fields: &[(&'static str, &'static str)], expected: Result<&str, Unusable>) {
        let mut parts = Response::new(()).into_parts().0;
        parts.status = StatusCode::from_u16(status).unwrap();
        for (name, value) in fields {
            parts.headers.append(*name, HeaderValue::from_static(value));
        }
        let found = canonical(&mut parts, false, &Sizes::DEFAULT).map(|_| {
            let fields =
                parts.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
            fields.collect::<Vec<_>>().join(", ")
        });
        assert_eq!(found.as_deref().map_err(|unusable| *unusable), expected, "{status} {fields:?}");
    }

    #[test]
    fn framing_of_answers_is_as_strict_as_that_of_requests() {
        check(200, &[("content-length", "5")], Ok("content-length: 5"));
        check(200, &[("transfer-encoding", "chunked")], Ok(""));
        check(200, &[("content-length", "5"), ("content-length", "5")], Err(Unusable::Length));
        check(200, &[("content-length", "5, 5")], Err(Unusable::Length));
        check(200, &[("content-length", "+5")], Err(Unusable::Length));
        check(200, &[("transfer-encoding", "gzip, chunked")], Err(Unusable::Encoding));
        check(200, &[("transfer-encoding", "identity")], Err(Unusable::Encoding));
        let both = [("content-length", "5"), ("transfer-encoding", "chunked")];
        check(200, &both, Err(Unusable::LengthAndEncoding));
        check(304, &[("content-length", "5")], Ok("content-length: 5"));
        check(204, &[("content-length", "0"), ("etag", "x")], Ok("etag: x"));
    }

    #[test]
    fn an_answer_has_the_status_of_one() {
        for (status, expected) in [
            (200, Ok("")),
            (599, Ok("")),
            (101, Err(Unusable::Unsolicited)),
            (100, Err(Unusable::Status)),
            (199, Err(Unusable::Status)),
            (600, Err(Unusable::Status)),
            (999, Err(Unusable::Status)),
        ] {
            check(status, &[], expected);
        }
    }

    #[test]
    fn only_what_was_asked_for_is_granted() {
        for (upgrade, asked, expected) in [
            ("WebSocket", true, None),
            ("h2c", true, Some(Unusable::Unsolicited)),
            ("websocket", false, Some(Unusable::Unsolicited)),
        ] {
            let mut parts = Response::new(()).into_parts().0;
            parts.status = StatusCode::SWITCHING_PROTOCOLS;
            parts.headers.insert(header::UPGRADE, HeaderValue::from_static(upgrade));
            assert_eq!(canonical(&mut parts, asked, &Sizes::DEFAULT).err(), expected, "{upgrade}");
        }
    }

    #[test]
    fn what_belongs_to_the_connection_ends_here() {
        check(
            200,
            &[
                ("connection", "close, x-hop"),
                ("x-hop", "1"),
                ("keep-alive", "5"),
                ("upgrade", "h2c"),
                ("x-mesh-upgrade", "websocket"),
                ("x-mesh-other", "1"),
                ("set-cookie", "a"),
                ("set-cookie", "b"),
            ],
            Ok("set-cookie: a, set-cookie: b"),
        );
        let mut parts = Response::new(()).into_parts().0;
        parts.version = Version::HTTP_2;
        parts.headers.insert("connection", HeaderValue::from_static("x"));
        assert_eq!(canonical(&mut parts, false, &Sizes::DEFAULT).err(), Some(Unusable::Connection));
    }
}
