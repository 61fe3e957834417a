//! Fields after the content. Whoever reads a head has judged it by then, so what would change the judgement, the framing
//! or the route must not come late (RFC 9110, section 6.5.1): it is dropped. Too many or too large ones end the message.

use http::HeaderMap;

use super::fields::Found;
use super::internal::{strip_named, whose};
use crate::framing::Sizes;

/// More trailers than a message may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the trailers are too many or too large")]
pub struct TooLarge;

/// Brings trailers into their one form, in place.
pub fn canonical(fields: &mut HeaderMap, sizes: &Sizes) -> Result<(), TooLarge> {
    let found = Found::of(fields);
    if fields.len() > usize::from(sizes.trailers) || found.bytes > usize::from(sizes.trailer_list) {
        return Err(TooLarge);
    }
    found.trim(fields);
    if fields.keys().any(|name| !is_allowed(name.as_str())) {
        strip_named(fields, |name| !is_allowed(name));
    }
    Ok(())
}

/// Whether a field may come after the content.
pub fn is_allowed(name: &str) -> bool {
    let forbidden = match name {
        // How the message is framed and carried.
        "connection" | "content-length" | "host" | "http2-settings" | "keep-alive" | "proxy-connection" | "te"
        | "trailer" | "transfer-encoding" | "upgrade"
        // Who asks, and on whose behalf.
        | "authorization" | "cookie" | "forwarded" | "proxy-authenticate" | "proxy-authorization" | "set-cookie"
        | "www-authenticate" | "x-request-id"
        // How it is to be dealt with.
        | "cache-control" | "expect" | "max-forwards" | "pragma" | "range" | "age" | "date" | "expires"
        | "location" | "retry-after" | "vary" | "warning"
        // What the content is.
        | "content-encoding" | "content-range" | "content-type" => true,
        name => name.starts_with("if-") || name.starts_with("x-forwarded-") || whose(name).is_some(),
    };
    !forbidden
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::{LONGEST_TRAILERS, MOST_TRAILERS};
    use http::{HeaderName, HeaderValue};

    #[test]
    fn what_is_judged_does_not_come_late() {
        let mut fields = HeaderMap::new();
        for name in [
            "grpc-status",
            "host",
            "authorization",
            "x-mesh-hop",
            "x_mesh_from",
            "x-envoy-attempt-count",
            "x-forwarded-for",
            "content-length",
            "transfer-encoding",
            "if-match",
            "server-timing",
            "digest",
        ] {
            fields.append(HeaderName::from_static(name), HeaderValue::from_static("0"));
        }
        canonical(&mut fields, &Sizes::DEFAULT).unwrap();
        let mut names: Vec<_> = fields.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["digest", "grpc-status", "server-timing"]);
    }

    #[test]
    fn trailers_are_few_and_small() {
        let fields = |count: usize, size: usize| -> HeaderMap {
            let name = |at: usize| HeaderName::try_from(format!("x-{at:02}")).unwrap();
            (0..count).map(|at| (name(at), HeaderValue::try_from("v".repeat(size)).unwrap())).collect()
        };
        for (count, size, fine) in [
            (MOST_TRAILERS, 1, true),
            (MOST_TRAILERS + 1, 1, false),
            (1, LONGEST_TRAILERS - 8, true),
            (1, LONGEST_TRAILERS - 7, false),
        ] {
            assert_eq!(
                canonical(&mut fields(count, size), &Sizes::DEFAULT).is_ok(),
                fine,
                "{count} of {size}"
            );
        }
    }
}
