//! The target of a request: RFC 9112, section 3.2, of whose four forms two are for everybody (a path, a whole URI), one
//! for OPTIONS (`*`) and one for CONNECT alone, which is no request for a path.

use std::borrow::Cow;

use http::uri::{self, Authority, PathAndQuery, Uri};
use http::{HeaderMap, HeaderName, Method, Version, header};

use super::authority;
use super::fault::Fault;
use super::path::{self, Normalization};
use crate::matching::request::forwarded_scheme;

static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// By what a request is to be carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    pub fn name(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    /// The scheme of a request whose target names none, by its `x-forwarded-proto`, if that is a scheme.
    pub fn forwarded(headers: &HeaderMap) -> Scheme {
        match forwarded_scheme(headers.get(&FORWARDED_PROTO)) {
            "https" => Scheme::Https,
            _ => Scheme::Http,
        }
    }

    /// Schemes are compared without regard to case (RFC 3986, section 3.1).
    fn of(sent: &uri::Scheme) -> Result<Scheme, Fault> {
        let mut known = [Scheme::Http, Scheme::Https].into_iter();
        known.find(|known| sent.as_str().eq_ignore_ascii_case(known.name())).ok_or(Fault::Scheme)
    }
}

/// A target, taken apart.
#[derive(Debug)]
pub(super) struct Target {
    /// The authority that it names, as sent.
    pub(super) authority: Option<Authority>,
    /// The scheme, if it names one.
    pub(super) scheme: Option<Scheme>,
    /// Path and query, as sent but for a fragment.
    pub(super) received: PathAndQuery,
    /// Path and query; the path in its one form.
    pub(super) canonical: PathAndQuery,
}

pub(super) fn read(
    uri: Uri,
    method: &Method,
    version: Version,
    normalization: Normalization,
    longest: usize,
) -> Result<Target, Fault> {
    let uri::Parts { scheme, authority, path_and_query, .. } = uri.into_parts();
    if scheme.is_none() && authority.is_some() {
        return Err(Fault::Target);
    }
    let scheme = scheme.as_ref().map(Scheme::of).transpose()?;
    let received = path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
    if received.as_str().len() > longest {
        return Err(Fault::TargetLength);
    }
    // A whole URI may have no path; a `:path` is never without (RFC 9113, section 8.3.1).
    if version == Version::HTTP_2 && !received.as_str().starts_with(['/', '*']) {
        return Err(Fault::Target);
    }
    let canonical = canonical(&received, method, normalization)?;
    Ok(Target { authority, scheme, received, canonical })
}

fn canonical(
    received: &PathAndQuery,
    method: &Method,
    normalization: Normalization,
) -> Result<PathAndQuery, Fault> {
    if received.path().starts_with('*') {
        // RFC 9112, section 3.2.4.
        let whole = received.as_str() == "*" && *method == Method::OPTIONS;
        return if whole { Ok(received.clone()) } else { Err(Fault::Target) };
    }
    let path = normalization.apply(received.path()).map_err(|_| Fault::Path)?;
    if let Some(query) =
        received.query().filter(|query| !query.is_ascii() && normalization != Normalization::None)
    {
        let mut escaped = String::with_capacity(query.len() * 3);
        path::escape(query, &mut escaped);
        return with_path(&path, Some(&escaped)).ok_or(Fault::Path);
    }
    match path {
        // A URI of an authority has the path "/", without having written it.
        Cow::Borrowed("/") if received.query().is_none() => Ok(PathAndQuery::from_static("/")),
        Cow::Borrowed(path) if received.as_str().starts_with(path) => Ok(received.clone()),
        path => with_path(&path, received.query()).ok_or(Fault::Path),
    }
}

/// Whom a CONNECT asks for: an authority and nothing else (RFC 9112, section 3.2.3; RFC 9113, section 8.5), beside which
/// there is at most one Host, a good one.
pub fn of_tunnel<'a>(uri: &'a Uri, headers: &HeaderMap) -> Option<authority::Authority<'a>> {
    let mut hosts = headers.get_all(header::HOST).into_iter();
    let good = |host: &http::HeaderValue| authority::canonical(host.as_bytes()).is_some();
    if uri.scheme().is_some() || !hosts.next().is_none_or(good) || hosts.next().is_some() {
        return None;
    }
    if uri.path_and_query().is_some_and(|path| !path.as_str().is_empty()) {
        return None;
    }
    authority::Authority::parse(uri.authority()?.as_str()).ok()
}

/// A target of a path and a query.
pub fn with_path(path: &str, query: Option<&str>) -> Option<PathAndQuery> {
    match query {
        None => PathAndQuery::try_from(path).ok(),
        Some(query) => PathAndQuery::from_maybe_shared(format!("{path}?{query}")).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::LONGEST_TARGET;

    #[test]
    fn an_empty_path_is_a_slash() {
        for sent in ["http://h", "http://h#x", "http://h/", "/#x"] {
            let uri = Uri::try_from(sent).unwrap();
            let read =
                read(uri, &Method::GET, Version::HTTP_11, Normalization::Base, LONGEST_TARGET).unwrap();
            assert_eq!(read.canonical, PathAndQuery::from_static("/"), "{sent}");
        }
    }

    #[test]
    fn targets_by_form() {
        let check = |method: &str, sent: &str, expected: Result<&str, Fault>| {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let found = Uri::try_from(sent)
                .map(|uri| read(uri, &method, Version::HTTP_11, Normalization::Base, LONGEST_TARGET));
            let found = found.unwrap_or(Err(Fault::Target));
            let found = found.as_ref().map(|target| target.canonical.as_str()).map_err(|fault| *fault);
            assert_eq!(found, expected, "{method} {sent}");
        };
        check("GET", "/a/../b?x=/../y", Ok("/b?x=/../y"));
        check("GET", "/%61dmin", Ok("/admin"));
        check("GET", "/plain?q", Ok("/plain?q"));
        check("GET", "/plain?", Ok("/plain?"));
        check("GET", "/admin#x?y", Ok("/admin"));
        check("GET", "/a%00b", Err(Fault::Path));
        check("GET", "/a%zz", Err(Fault::Path));
        check("GET", "/?caf\u{e9}", Ok("/?caf%C3%A9"));
        check("GET", "/\u{e9}?\u{e9}", Ok("/%C3%A9?%C3%A9"));
        check("GET", "http://h", Ok("/"));
        check("GET", "HTTP://h/x/../y", Ok("/y"));
        check("GET", "https://h?q=1", Ok("/?q=1"));
        check("GET", "ftp://h/x", Err(Fault::Scheme));
        check("GET", "h:80", Err(Fault::Target));
        check("GET", "h", Err(Fault::Target));
        check("GET", "*", Err(Fault::Target));
        check("OPTIONS", "*", Ok("*"));
        check("GET", &format!("/{}", "a".repeat(LONGEST_TARGET - 1)), Ok(&format!("/{}", "a".repeat(8191))));
        check("GET", &format!("/{}", "a".repeat(LONGEST_TARGET)), Err(Fault::TargetLength));
    }

    #[test]
    fn a_path_of_http2_is_written_out() {
        for (sent, expected) in [("/?t", Ok("/?t")), ("?t", Err(Fault::Target)), ("t", Err(Fault::Path))] {
            let mut parts = uri::Parts::default();
            parts.scheme = Some(uri::Scheme::HTTP);
            parts.authority = Some(Authority::from_static("h"));
            let Ok(path) = PathAndQuery::try_from(sent) else { continue };
            parts.path_and_query = Some(path);
            let uri = Uri::from_parts(parts).unwrap();
            let found = read(uri, &Method::GET, Version::HTTP_2, Normalization::Base, LONGEST_TARGET);
            let found = found.as_ref().map(|target| target.canonical.as_str()).map_err(|fault| *fault);
            assert!(found == expected || (found.is_err() && expected.is_err()), "{sent}: {found:?}");
        }
    }

    #[test]
    fn tunnels_have_an_authority_and_nothing_else() {
        let check = |target: &str, hosts: &[&'static str], expected: bool| {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append("host", http::HeaderValue::from_static(host));
            }
            let uri = Uri::try_from(target).unwrap();
            assert_eq!(of_tunnel(&uri, &headers).is_some(), expected, "{target} {hosts:?}");
        };
        check("h:80", &["h:80"], true);
        check("h:80", &[], true);
        check("h:80", &["other:1"], true);
        check("[::1]:80", &["[::1]:80"], true);
        check("h:80", &["h:80", "h:80"], false);
        check("h:80", &["a b"], false);
        check("u@h:80", &[], false);
        check("h:080", &[], false);
        check("http://h:80/t", &["h:80"], false);
        check("http://h:80", &["h:80"], false);
        check("/t", &["h:80"], false);
    }
}
