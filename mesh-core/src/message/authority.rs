//! The authority of a message: read strictly, once.

use http::uri;

/// Why an authority was refused. Such a request is answered with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// No host at all.
    #[error("authority is empty")]
    Empty,
    /// Userinfo, path characters, or anything else outside of names and addresses.
    #[error("authority is not of the form host[:port]")]
    Shape,
    /// The port is not a number up to 65535.
    #[error("port of the authority is not a number up to 65535")]
    Port,
}

/// A host and a port, as slices of what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authority<'a> {
    /// The host without port and trailing dot, in the case in which it was sent. IPv6 keeps its brackets.
    pub host: &'a str,
    /// The port, if one was sent.
    pub port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Reads `host[:port]`. A name has letters, digits and `-._~` only: what RFC 3986 admits beyond (section 3.2.2:
    /// escapes and `!$&'()*+,;=`) is in no name that exists, and `a,b` is what is left of two fields that were joined.
    pub fn parse(text: &'a str) -> Result<Authority<'a>, AuthorityError> {
        if text.is_empty() {
            return Err(AuthorityError::Empty);
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let end = rest.find(']').ok_or(AuthorityError::Shape)?;
                if rest[..end].parse::<std::net::Ipv6Addr>().is_err() {
                    return Err(AuthorityError::Shape);
                }
                text.split_at(end + 2)
            }
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let port = match port.strip_prefix(':') {
            Some(digits) => Some(parse_port(digits)?),
            None if port.is_empty() => None,
            None => return Err(AuthorityError::Shape),
        };
        if host.starts_with('[') {
            return Ok(Authority { host, port });
        }
        let host = host.strip_suffix('.').unwrap_or(host);
        if host.is_empty() {
            return Err(AuthorityError::Empty);
        }
        if !host.bytes().all(|byte| OF_NAME[usize::from(byte)])
            || host.starts_with('.')
            || host.ends_with('.')
        {
            return Err(AuthorityError::Shape);
        }
        Ok(Authority { host, port })
    }
}

/// The bytes that a name may have.
const OF_NAME: [bool; 256] = {
    let mut allowed = [false; 256];
    let mut byte = 0u8;
    while byte < 128 {
        allowed[byte as usize] = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        byte += 1;
    }
    allowed
};

/// A port has one spelling: `a:080` and `a:80` would be two hosts to a policy and one to a server.
fn parse_port(digits: &str) -> Result<u16, AuthorityError> {
    let plain = !digits.is_empty() && digits.len() <= 5 && digits.bytes().all(|b| b.is_ascii_digit());
    if !plain || (digits.len() > 1 && digits.starts_with('0')) {
        return Err(AuthorityError::Port);
    }
    digits.parse().map_err(|_| AuthorityError::Port)
}

/// The canonical text of an authority: valid, and as it was sent. Conditions on the host see its case, its port and a
/// trailing dot, which routing does not care about.
pub(super) fn canonical(sent: &[u8]) -> Option<uri::Authority> {
    settle(uri::Authority::try_from(sent).ok()?)
}

/// The same of one that a codec has read.
pub(super) fn settle(sent: uri::Authority) -> Option<uri::Authority> {
    Authority::parse(sent.as_str()).is_ok().then_some(sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities() {
        let check = |text: &str, host: &str, port: Option<u16>| {
            assert_eq!(Authority::parse(text), Ok(Authority { host, port }), "{text}");
        };
        check("reviews", "reviews", None);
        check("reviews.:9080", "reviews", Some(9080));
        check("Reviews:80", "Reviews", Some(80));
        check("a_b~c-d.e", "a_b~c-d.e", None);
        check("[::1]:80", "[::1]", Some(80));
        check("[2001:DB8::1]", "[2001:DB8::1]", None);
        check("127.0.0.1", "127.0.0.1", None);
        check("a:0", "a", Some(0));
        check("a:65535", "a", Some(65535));
        for bad in [
            "",
            ":80",
            ".",
            "..",
            "a..",
            "a:",
            "a:x",
            "a:65536",
            "a:99999",
            "a:+1",
            "a:-1",
            "a: 1",
            "a:080",
            "a:00",
            "u@a",
            "u:p@a",
            "a/b",
            "a?b",
            "a#b",
            "a b",
            "a\\b",
            "a,b",
            "a%41",
            "a*",
            "*",
            "é",
            "a\0",
            "[::1",
            "[x]",
            "[::1%25lo]",
            "[v1.x]",
            "::1",
            "a:1:2",
            "<a>",
            "[::1]x",
            "[::1].",
            "[[::1]]",
        ] {
            assert!(Authority::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_text_stays_as_it_was_sent() {
        let text = |sent: &str| canonical(sent.as_bytes()).map(|found| found.to_string());
        assert_eq!(text("Reviews:9080").as_deref(), Some("Reviews:9080"));
        assert_eq!(text("reviews.").as_deref(), Some("reviews."));
        assert_eq!(text("[2001:DB8::1]:80").as_deref(), Some("[2001:DB8::1]:80"));
        assert_eq!(text("u@a"), None);
        assert_eq!(canonical(b"a\xff"), None);
    }
}
