//! The authority of a request: read strictly, once.

/// Why an authority was refused. Such a request is answered with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// No host at all.
    #[error("authority is empty")]
    Empty,
    /// Userinfo, path characters, or anything else outside RFC 3986's `host[:port]`.
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
    /// Reads `host[:port]`; refuses userinfo, `#?\/@<>`, spaces, controls and empty hosts.
    pub fn parse(text: &'a str) -> Result<Authority<'a>, AuthorityError> {
        if text.is_empty() {
            return Err(AuthorityError::Empty);
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let end = rest.find(']').ok_or(AuthorityError::Shape)?;
                let inner = &rest[..end];
                if inner.parse::<std::net::Ipv6Addr>().is_err() {
                    return Err(AuthorityError::Shape);
                }
                (&text[..end + 2], &rest[end + 1..])
            }
            None => {
                let end = text.find(':').unwrap_or(text.len());
                (&text[..end], &text[end..])
            }
        };
        let port = match port.strip_prefix(':') {
            Some(digits) => Some(parse_port(digits)?),
            None if port.is_empty() => None,
            None => return Err(AuthorityError::Shape),
        };
        let host = host.strip_suffix('.').unwrap_or(host);
        if host.is_empty() {
            return Err(AuthorityError::Empty);
        }
        if !host.bytes().all(|b| ALLOWED[usize::from(b)]) || host.starts_with('.') {
            return Err(AuthorityError::Shape);
        }
        Ok(Authority { host, port })
    }
}

/// The bytes that a host may have.
const ALLOWED: [bool; 256] = {
    let mut allowed = [false; 256];
    let mut byte = 0u8;
    while byte < 128 {
        allowed[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"-._~!$&'()*+,;=[]:";
    let mut index = 0;
    while index < others.len() {
        allowed[others[index] as usize] = true;
        index += 1;
    }
    allowed
};

fn parse_port(digits: &str) -> Result<u16, AuthorityError> {
    let plain = !digits.is_empty() && digits.len() <= 5 && digits.bytes().all(|b| b.is_ascii_digit());
    if !plain {
        return Err(AuthorityError::Port);
    }
    digits.parse().map_err(|_| AuthorityError::Port)
}

/// Whether a host pattern (`*`, `*.suffix` or a name) covers a host. Both in lower case.
/// `*.foo.com` covers `a.foo.com` and `a.b.foo.com`, never `foo.com`.
pub fn host_matches(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        None => pattern == host,
        Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
    }
}

/// Orders host patterns by how specific they are: exact names above wildcards, longer above shorter.
pub fn specificity(pattern: &str) -> (bool, usize) {
    (!pattern.starts_with('*'), pattern.len())
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
        check("[::1]:80", "[::1]", Some(80));
        check("127.0.0.1", "127.0.0.1", None);
        for bad in [
            "", ":80", ".", "a:", "a:x", "a:99999", "a:+1", "u@a", "a/b", "a?b", "a#b", "a b", "a\\b",
            "[::1", "[x]", "a:1:2", "<a>", "[::1]x",
        ] {
            assert!(Authority::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn wildcards_lead_only() {
        for (pattern, host, expected) in [
            ("*", "a", true),
            ("*.foo.com", "a.foo.com", true),
            ("*.foo.com", "a.b.foo.com", true),
            ("*.foo.com", "foo.com", false),
            ("foo.com", "foo.com", true),
            ("foo.com", "a.foo.com", false),
        ] {
            assert_eq!(host_matches(pattern, host), expected, "{pattern} {host}");
        }
        assert!(specificity("a.b") > specificity("*.aaaaaaaa"));
    }
}
