//! Path and authority rewrites, redirects (VirtualService `rewrite` and `redirect`).

use std::fmt;

use crate::matching::request::Request;
use crate::matching::text::{Pattern, TextMatch};
use crate::vocab::name::Text;

/// How the path changes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathRewrite {
    /// The matched prefix is replaced textually; the whole path where the match was exact or a pattern.
    Matched(Text),
    /// Every non-overlapping match is replaced; `\1` stands for a group.
    Regex {
        /// What is replaced.
        pattern: Pattern,
        /// By what, in RE2's notation.
        substitution: Text,
    },
}

/// What is sent upstream in place of what came.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Rewrite {
    /// New path.
    pub path: Option<PathRewrite>,
    /// New authority.
    pub authority: Option<Text>,
}

impl Rewrite {
    /// The new path, `None` if it stays. `uri` is the condition that matched; none means prefix `/`.
    pub fn path(&self, path: &str, uri: Option<&TextMatch>) -> Option<String> {
        match self.path.as_ref()? {
            PathRewrite::Matched(with) => Some(replace_matched(path, uri, with)),
            PathRewrite::Regex { pattern, substitution } => Some(replace_all(path, pattern, substitution)),
        }
    }
}

fn replace_matched(path: &str, uri: Option<&TextMatch>, with: &str) -> String {
    let matched = match uri {
        None => "/".len(),
        Some(TextMatch::Prefix(prefix) | TextMatch::PrefixIgnoringCase(prefix)) => prefix.len(),
        Some(_) => path.len(),
    };
    format!("{with}{}", path.get(matched..).unwrap_or(""))
}

fn replace_all(path: &str, pattern: &Pattern, substitution: &str) -> String {
    let replaced = pattern.replace_all(path.as_bytes(), substitution);
    String::from_utf8_lossy(&replaced).into_owned()
}

/// Which port a redirect names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RedirectPort {
    /// The default of the scheme, so none is written.
    #[default]
    ProtocolDefault,
    /// The port of the request.
    Request,
    /// This one.
    Fixed(u16),
}

/// An answer that sends the client elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub code: u16,
    /// Replaces the whole path.
    pub path: Option<Text>,
    /// Replaces the matched prefix.
    pub prefix: Option<Text>,
    /// New host.
    pub authority: Option<Text>,
    /// New scheme.
    pub scheme: Option<Text>,
    /// Port.
    pub port: RedirectPort,
}

impl Redirect {
    /// The `location` of the answer, `port` being the one that the request was addressed to. The default port of the
    /// scheme is not written; the query is kept unless the new path has one.
    pub fn location(&self, request: &Request<'_>, port: u16, uri: Option<&TextMatch>) -> String {
        let scheme = self.scheme.as_deref().unwrap_or(request.scheme);
        let (host, written) = split_port(self.authority.as_deref().unwrap_or(request.authority));
        let port = match self.port {
            // The host keeps its port, but not one that only says what scheme it came by.
            RedirectPort::ProtocolDefault if self.authority.is_none() => {
                written.filter(|port| *port != default_port(request.scheme))
            }
            RedirectPort::ProtocolDefault => written,
            RedirectPort::Request => Some(port),
            RedirectPort::Fixed(port) => Some(port),
        };
        let port = port.filter(|port| *port != default_port(scheme));
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        let path = match (&self.path, &self.prefix) {
            (Some(path), _) => path.to_string(),
            (None, Some(prefix)) => replace_matched(request.path, uri, prefix),
            (None, None) => request.path.to_owned(),
        };
        let query = match request.query {
            Some(query) if !path.contains('?') => format!("?{query}"),
            _ => String::new(),
        };
        format!("{scheme}://{host}{port}{path}{query}")
    }
}

fn default_port(scheme: &str) -> u16 {
    if scheme == "https" { 443 } else { 80 }
}

impl fmt::Display for Redirect {
    /// What it changes, in words: `308 path /new, scheme https`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        let parts = [
            ("path", &self.path),
            ("prefix", &self.prefix),
            ("authority", &self.authority),
            ("scheme", &self.scheme),
        ];
        for (name, value) in parts.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
            write!(f, " {name} {value}")?;
        }
        match self.port {
            RedirectPort::ProtocolDefault => Ok(()),
            RedirectPort::Request => f.write_str(" port of the request"),
            RedirectPort::Fixed(port) => write!(f, " port {port}"),
        }
    }
}

fn split_port(authority: &str) -> (&str, Option<u16>) {
    match authority.rsplit_once(':') {
        Some((host, digits)) if !digits.ends_with(']') => match digits.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (authority, None),
        },
        _ => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;

    fn prefix(text: &str) -> Option<TextMatch> {
        Some(TextMatch::Prefix(text.into()))
    }

    #[test]
    fn a_prefix_is_replaced_textually() {
        let check = |uri: Option<TextMatch>, with: &str, path: &str, expected: &str| {
            let rewrite = Rewrite { path: Some(PathRewrite::Matched(with.into())), authority: None };
            assert_eq!(rewrite.path(path, uri.as_ref()).as_deref(), Some(expected), "{path}");
        };
        check(prefix("/foo"), "/", "/foo/bar", "//bar");
        check(prefix("/foo/"), "/", "/foo/bar", "/bar");
        check(None, "/v2/", "/bar", "/v2/bar");
        check(Some(TextMatch::Exact("/a".into())), "/b", "/a", "/b");
        check(Some(TextMatch::Regex(Pattern::new("/a.*").unwrap())), "/b", "/abc", "/b");
    }

    #[test]
    fn a_pattern_replaces_every_match() {
        let rewrite = Rewrite {
            path: Some(PathRewrite::Regex {
                pattern: Pattern::new("a(.)").unwrap(),
                substitution: r"\1-$0".into(),
            }),
            authority: None,
        };
        assert_eq!(rewrite.path("/ab/ac", None).as_deref(), Some("/b-$0/c-$0"));
    }

    #[test]
    fn locations() {
        let headers = HeaderMap::new();
        let redirect = |authority: Option<&str>, scheme: Option<&str>, port| Redirect {
            code: 301,
            path: Some("/new".into()),
            prefix: None,
            authority: authority.map(Into::into),
            scheme: scheme.map(Into::into),
            port,
        };
        let check = |redirect: Redirect, authority: &str, expected: &str| {
            let request = Request {
                method: "GET",
                scheme: "http",
                authority,
                path: "/old",
                query: Some("q=1"),
                headers: &headers,
                claims: None,
            };
            let uri = TextMatch::Prefix("/o".into());
            assert_eq!(redirect.location(&request, 9080, Some(&uri)), expected);
        };
        let default = RedirectPort::ProtocolDefault;
        check(redirect(None, None, default), "a:8080", "http://a:8080/new?q=1");
        check(redirect(Some("b"), None, default), "a:8080", "http://b/new?q=1");
        check(redirect(Some("b:8443"), None, default), "a", "http://b:8443/new?q=1");
        check(redirect(None, Some("https"), default), "a:80", "https://a/new?q=1");
        check(redirect(None, Some("https"), default), "a:8080", "https://a:8080/new?q=1");
        check(redirect(None, Some("https"), RedirectPort::Fixed(443)), "a:8080", "https://a/new?q=1");
        check(redirect(None, None, RedirectPort::Fixed(80)), "a:8080", "http://a/new?q=1");
        check(redirect(None, None, RedirectPort::Fixed(8081)), "a", "http://a:8081/new?q=1");
        check(redirect(Some("b"), None, RedirectPort::Request), "a", "http://b:9080/new?q=1");
        check(redirect(None, None, default), "[::1]:8080", "http://[::1]:8080/new?q=1");
        let prefixed = |prefix: &str| Redirect {
            path: None,
            prefix: Some(prefix.into()),
            ..redirect(None, None, default)
        };
        check(prefixed("/n"), "a", "http://a/nld?q=1");
        check(prefixed("/n?x="), "a", "http://a/n?x=ld");
    }
}
