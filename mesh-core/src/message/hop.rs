//! What belongs to one connection ends with it: fields of the hop, upgrades, expectations, and crumbs of HTTP/2.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Version};

use super::fault::Fault;
use super::fields::{Found, members};

static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
static HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Takes away what belongs to the connection (RFC 9110, section 7.6.1), but for `te: trailers`, which every hop agrees
/// to anew.
pub(super) fn strip(headers: &mut HeaderMap, found: &Found) {
    if found.connection {
        for name in listed(headers) {
            headers.remove(name);
        }
        headers.remove(header::CONNECTION);
    }
    if found.hop {
        headers.remove(&KEEP_ALIVE);
        headers.remove(&PROXY_CONNECTION);
        headers.remove(header::UPGRADE);
        headers.remove(&HTTP2_SETTINGS);
    }
    if found.codings {
        let takes_trailers =
            members(headers, header::TE).any(|coding| coding.eq_ignore_ascii_case(b"trailers"));
        match takes_trailers {
            true => headers.insert(header::TE, HeaderValue::from_static("trailers")),
            false => headers.remove(header::TE),
        };
    }
}

/// The fields that Connection lists, but for those that a client must not make us drop: who is asked, how the message
/// is framed, and by what it is judged.
fn listed(headers: &HeaderMap) -> Vec<HeaderName> {
    let kept = |name: &HeaderName| {
        let name = name.as_str();
        matches!(name, "host" | "content-length" | "te" | "authorization" | "cookie")
            || name.starts_with("x-forwarded-")
            || name.starts_with("x-mesh-")
    };
    // That one goes in any case, and most messages list nothing else.
    let others =
        members(headers, header::CONNECTION).filter(|name| !name.eq_ignore_ascii_case(b"keep-alive"));
    let names = others.filter_map(|name| HeaderName::from_bytes(name).ok());
    names.filter(|name| !kept(name)).collect()
}

/// Whether a request asks to go on as a WebSocket (RFC 6455, section 4.1): the only upgrade that is ever granted. All
/// others are not seen upstream, and the request is an ordinary one.
pub fn asks_websocket(method: &Method, version: Version, headers: &HeaderMap) -> bool {
    if version != Version::HTTP_11 || *method != Method::GET {
        return false;
    }
    let mut upgrades = headers.get_all(header::UPGRADE).into_iter();
    let (Some(only), None) = (upgrades.next(), upgrades.next()) else { return false };
    only.as_bytes().eq_ignore_ascii_case(b"websocket")
        && members(headers, header::CONNECTION).any(|name| name.eq_ignore_ascii_case(b"upgrade"))
}

/// `100-continue` is between the client and us (RFC 9110, section 10.1.1): the codec says when content may come.
pub(super) fn expectation(headers: &mut HeaderMap, found: &Found) -> Result<(), Fault> {
    if found.expectations == 0 {
        return Ok(());
    }
    let known = |value: &[u8]| value.eq_ignore_ascii_case(b"100-continue");
    if !members(headers, header::EXPECT).all(known) {
        return Err(Fault::Expectation);
    }
    headers.remove(header::EXPECT);
    Ok(())
}

/// HTTP/2 may send a cookie in crumbs (RFC 9113, section 8.2.3); everybody else reads one field.
pub(super) fn join_cookies(headers: &mut HeaderMap, found: &Found, longest: usize) -> Result<(), Fault> {
    if found.cookies < 2 {
        return Ok(());
    }
    let crumbs = headers.get_all(header::COOKIE);
    let sensitive = crumbs.iter().any(HeaderValue::is_sensitive);
    let crumbs: Vec<&[u8]> =
        crumbs.iter().map(HeaderValue::as_bytes).filter(|crumb| !crumb.is_empty()).collect();
    let joined = crumbs.join(&b"; "[..]);
    if joined.len() + header::COOKIE.as_str().len() + 4 > longest {
        return Err(Fault::Fields);
    }
    let mut joined = HeaderValue::from_bytes(&joined).map_err(|_| Fault::Fields)?;
    joined.set_sensitive(sensitive);
    headers.insert(header::COOKIE, joined);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn left(mut headers: HeaderMap) -> String {
        let found = Found::of(&headers);
        strip(&mut headers, &found);
        let told =
            |(name, value): (&HeaderName, &HeaderValue)| format!("{name}: {}", value.to_str().unwrap());
        let mut fields: Vec<String> = headers.iter().map(told).collect();
        fields.sort();
        fields.join(", ")
    }

    #[test]
    fn fields_of_the_connection_end_here() {
        let sent = map(&[
            ("connection", "keep-alive, X-Secret, authorization, x-mesh-hop"),
            ("connection", "x-other,, close"),
            ("x-secret", "1"),
            ("x-other", "1"),
            ("authorization", "b"),
            ("keep-alive", "5"),
            ("proxy-connection", "close"),
            ("upgrade", "h2c"),
            ("http2-settings", "x"),
            ("te", "gzip"),
            ("accept", "*/*"),
        ]);
        assert_eq!(left(sent), "accept: */*, authorization: b");
    }

    #[test]
    fn a_client_cannot_have_dropped_what_is_judged() {
        for kept in
            ["authorization", "cookie", "content-length", "x-forwarded-for", "x-forwarded-client-cert"]
        {
            let mut sent = map(&[("connection", kept)]);
            sent.append(kept, HeaderValue::from_static("1"));
            assert_eq!(left(sent), format!("{kept}: 1"));
        }
    }

    #[test]
    fn trailers_may_stay_announced() {
        for (sent, expected) in [
            (&[("te", "trailers")][..], "te: trailers"),
            (&[("te", "Trailers")], "te: trailers"),
            (&[("te", "gzip, trailers")], "te: trailers"),
            (&[("te", "trailers"), ("te", "trailers")], "te: trailers"),
            (&[("te", "gzip;q=1")], ""),
        ] {
            assert_eq!(left(map(sent)), expected, "{sent:?}");
        }
    }

    #[test]
    fn a_websocket_is_asked_for_in_one_way() {
        let check = |fields: &[(&'static str, &'static str)], expected: bool| {
            let found = asks_websocket(&Method::GET, Version::HTTP_11, &map(fields));
            assert_eq!(found, expected, "{fields:?}");
        };
        check(&[("upgrade", "WebSocket"), ("connection", "keep-alive, Upgrade")], true);
        check(&[("upgrade", "websocket"), ("connection", "close"), ("connection", "upgrade")], true);
        check(&[("upgrade", "websocket")], false);
        check(&[("upgrade", "h2c"), ("connection", "upgrade")], false);
        check(&[("upgrade", "websocket, h2c"), ("connection", "upgrade")], false);
        check(&[("upgrade", "websocket"), ("upgrade", "h2c"), ("connection", "upgrade")], false);
        let asking = map(&[("upgrade", "websocket"), ("connection", "upgrade")]);
        assert!(!asks_websocket(&Method::POST, Version::HTTP_11, &asking));
        assert!(!asks_websocket(&Method::GET, Version::HTTP_2, &asking));
    }

    #[test]
    fn an_expectation_is_met_here_or_by_nobody() {
        for (sent, expected) in [
            (&["100-continue"][..], Ok(())),
            (&["100-Continue", "100-continue"], Ok(())),
            (&["100-continue, more"], Err(Fault::Expectation)),
            (&["200-ok"], Err(Fault::Expectation)),
            (&[""], Err(Fault::Expectation)),
        ] {
            let mut headers = HeaderMap::new();
            for value in sent {
                headers.append("expect", HeaderValue::from_static(value));
            }
            let found = Found::of(&headers);
            assert_eq!(expectation(&mut headers, &found), expected, "{sent:?}");
            assert!(expected.is_err() || headers.is_empty());
        }
    }

    #[test]
    fn crumbs_become_a_cookie() {
        let mut headers = map(&[("cookie", "a=1"), ("accept", "x"), ("cookie", "b=2; c=3")]);
        let found = Found::of(&headers);
        join_cookies(&mut headers, &found, 1024).unwrap();
        assert_eq!(headers["cookie"], "a=1; b=2; c=3");
        assert_eq!(headers.get_all("cookie").iter().count(), 1);
    }
}
