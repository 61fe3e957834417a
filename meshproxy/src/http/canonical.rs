//! The canonical request: read once after parsing, and the only thing that routing, policy, telemetry and forwarding
//! see. What hyper lets pass and a proxy must not is refused here (reliability notes, 1 to 5).

use std::borrow::Cow;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version, header};
use hyper::body::Incoming;
use mesh_core::matching::authority::Authority as Strict;
use mesh_core::matching::path;
use mesh_core::matching::request::{Request as Seen, forwarded_scheme};

use super::headers::{FORWARDED_PROTO, Scan, scan};

const LONGEST_METHOD: usize = 32;
const LONGEST_TARGET: usize = 8 * 1024;
const LONGEST_FIELD: usize = 16 * 1024;
const LONGEST_LIST: usize = 32 * 1024;
const MOST_FIELDS: usize = 100;

/// A request that is refused before anything is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadRequest {
    /// Status of the answer.
    pub status: StatusCode,
    /// Response flag.
    pub flag: &'static str,
    /// Details for the log.
    pub details: &'static str,
    /// What the client reads.
    pub body: &'static str,
}

impl BadRequest {
    const fn new(
        status: StatusCode,
        flag: &'static str,
        details: &'static str,
        body: &'static str,
    ) -> BadRequest {
        BadRequest { status, flag, details, body }
    }

    const fn malformed(details: &'static str) -> BadRequest {
        BadRequest::new(StatusCode::BAD_REQUEST, "-", details, "")
    }

    /// What is not HTTP.
    pub const fn codec(details: &'static str) -> BadRequest {
        BadRequest::new(StatusCode::BAD_REQUEST, "DPE", details, "Bad Request")
    }
}

/// The head of a request, canonical.
#[derive(Debug)]
pub struct Head {
    /// Method.
    pub method: Method,
    /// Version that the client speaks.
    pub version: Version,
    /// Host and port as sent: names are the same in either case, conditions on `authority` are not.
    pub authority: Authority,
    /// `http` or `https`: what the client says of itself, or a proxy before it.
    pub scheme: &'static str,
    /// Path and query; the path normalised.
    pub target: PathAndQuery,
    /// The path and query as sent, for the log.
    pub received: PathAndQuery,
    /// Fields, without those that say how the message is framed or belong to the connection.
    pub headers: HeaderMap,
    /// Whether this is gRPC.
    pub grpc: bool,
    /// Size of the head on the wire, nearly.
    pub bytes: u64,
    /// What else one look over the fields found.
    pub found: Scan,
}

impl Head {
    /// The request as decisions see it.
    pub fn seen(&self) -> Seen<'_> {
        Seen {
            method: self.method.as_str(),
            scheme: self.scheme,
            authority: self.authority.as_str(),
            path: self.target.path(),
            query: self.target.query(),
            headers: &self.headers,
            claims: None,
        }
    }
}

/// Reads the head of a request of an application or peer. The fields that only proxies may set are still in it.
pub fn read(request: Request<Incoming>) -> Result<(Head, Incoming), BadRequest> {
    let (parts, body) = request.into_parts();
    if matches!(parts.version, Version::HTTP_09 | Version::HTTP_10) {
        return Err(BadRequest::new(StatusCode::UPGRADE_REQUIRED, "DPE", "low_version", "Upgrade Required"));
    }
    if parts.method.as_str().len() > LONGEST_METHOD {
        return Err(BadRequest::codec("http1.codec_error"));
    }
    let mut headers = parts.headers;
    let found = scan(&headers);
    check_limits(&headers, &found)?;
    check_framing(&headers, &found)?;
    let uri = parts.uri.into_parts();
    // A target that is neither a path nor a whole URL (`GET reviews HTTP/1.1`): only CONNECT has that form.
    if uri.scheme.is_none() && uri.authority.is_some() {
        return Err(BadRequest::codec("http1.codec_error"));
    }
    let scheme = match uri.scheme {
        None => forwarded_scheme(headers.get(&FORWARDED_PROTO)),
        Some(scheme) if scheme == Scheme::HTTPS => "https",
        Some(_) => "http",
    };
    let authority = authority(uri.authority, &headers, &found)?;
    let received = uri.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
    let target = target(&received, &parts.method)?;
    found.strip_connection(&mut headers);
    headers.remove(header::HOST);
    if found.cookies > 1 {
        join_cookies(&mut headers);
    }
    let grpc = found.grpc;
    let bytes = (found.bytes + received.as_str().len() + parts.method.as_str().len() + 12) as u64;
    let head = Head {
        method: parts.method,
        found,
        version: parts.version,
        authority,
        scheme,
        target,
        received,
        headers,
        grpc,
        bytes,
    };
    Ok((head, body))
}

fn check_limits(headers: &HeaderMap, found: &Scan) -> Result<(), BadRequest> {
    if headers.len() > MOST_FIELDS || found.bytes > LONGEST_LIST || found.largest > LONGEST_FIELD {
        return Err(BadRequest::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "DPE",
            "http1.headers_too_large",
            "Request Header Fields Too Large",
        ));
    }
    Ok(())
}

fn check_framing(headers: &HeaderMap, found: &Scan) -> Result<(), BadRequest> {
    if found.encodings > 0 {
        if found.lengths > 0 {
            return Err(BadRequest::codec("http1.content_length_and_chunked_not_allowed"));
        }
        let chunked = headers
            .get(header::TRANSFER_ENCODING)
            .is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"chunked"));
        if found.encodings > 1 || !chunked {
            return Err(BadRequest::new(
                StatusCode::NOT_IMPLEMENTED,
                "DPE",
                "http1.invalid_transfer_encoding",
                "Not Implemented",
            ));
        }
    }
    if found.lengths > 1 {
        return Err(BadRequest::codec("http1.codec_error"));
    }
    Ok(())
}

/// The authority of the target wins; else there must be exactly one Host. Over HTTP/2 a Host beside the authority must
/// say the same, else it does not count.
fn authority(target: Option<Authority>, headers: &HeaderMap, found: &Scan) -> Result<Authority, BadRequest> {
    if found.hosts > 1 {
        return Err(BadRequest::malformed("invalid_host_header"));
    }
    let authority = match target {
        Some(authority) => authority,
        None => {
            let host = headers.get(header::HOST).ok_or(BadRequest::malformed("missing_host_header"))?;
            Authority::try_from(host.as_bytes()).map_err(|_| BadRequest::malformed("invalid_host_header"))?
        }
    };
    Strict::parse(authority.as_str()).map_err(|_| BadRequest::malformed("invalid_host_header"))?;
    Ok(authority)
}

fn target(received: &PathAndQuery, method: &Method) -> Result<PathAndQuery, BadRequest> {
    const BAD_PATH: BadRequest = BadRequest::malformed("path_normalization_failed");
    if received.as_str().len() > LONGEST_TARGET {
        return Err(BadRequest::new(StatusCode::URI_TOO_LONG, "DPE", "http1.uri_too_long", "URI Too Long"));
    }
    if received.path() == "*" && *method != Method::OPTIONS {
        return Err(BAD_PATH);
    }
    match path::normalize(received.path()).map_err(|_| BAD_PATH)? {
        Cow::Borrowed(path) if path.len() == received.path().len() => Ok(received.clone()),
        path => with_path(&path, received.query()).ok_or(BAD_PATH),
    }
}

/// A target of a path and a query.
pub fn with_path(path: &str, query: Option<&str>) -> Option<PathAndQuery> {
    match query {
        None => PathAndQuery::try_from(path).ok(),
        Some(query) => PathAndQuery::try_from(format!("{path}?{query}")).ok(),
    }
}

/// HTTP/2 may send a cookie in crumbs; everybody else reads one field.
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

/// The URI of a request upstream: in HTTP/2 it carries scheme and authority.
pub fn absolute(authority: Authority, target: PathAndQuery) -> http::Uri {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(authority);
    parts.path_and_query = Some(target);
    http::Uri::from_parts(parts).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(values: &[&str], target: Option<&str>) -> Result<String, &'static str> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::HOST, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let target = target.map(|text| Authority::try_from(text).unwrap());
        let found = scan(&headers);
        authority(target, &headers, &found).map(|a| a.to_string()).map_err(|bad| bad.details)
    }

    #[test]
    fn exactly_one_valid_host() {
        assert_eq!(host(&["Reviews:9080"], None), Ok("Reviews:9080".into()));
        assert_eq!(host(&[], None), Err("missing_host_header"));
        assert_eq!(host(&["a", "a"], None), Err("invalid_host_header"));
        assert_eq!(host(&["other"], Some("a:80")), Ok("a:80".into()));
        for bad in ["", "u@a", "a:99999", "a:x", "a/b", "a b", "a#b", "<a>"] {
            assert_eq!(host(&[bad], None), Err("invalid_host_header"), "{bad}");
        }
    }

    #[test]
    fn paths_are_normalised_before_anything_reads_them() {
        let check = |sent: &'static str, expected: Option<&str>| {
            let found = target(&PathAndQuery::from_static(sent), &Method::GET);
            assert_eq!(found.ok().as_ref().map(PathAndQuery::as_str), expected, "{sent}");
        };
        check("/a/../b?x=/../y", Some("/b?x=/../y"));
        check("/%61dmin", Some("/admin"));
        check("/a%00b", None);
        check("/plain?q", Some("/plain?q"));
        check("*", None);
    }

    #[test]
    fn framing_is_either_one_length_or_chunked() {
        let check = |fields: &[(&'static str, &'static str)], expected: Option<u16>| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, HeaderValue::from_static(value));
            }
            let verdict = check_framing(&headers, &scan(&headers));
            assert_eq!(verdict.err().map(|bad| bad.status.as_u16()), expected, "{fields:?}");
        };
        check(&[("content-length", "3")], None);
        check(&[("transfer-encoding", "Chunked")], None);
        check(&[("transfer-encoding", "chunked"), ("content-length", "3")], Some(400));
        check(&[("transfer-encoding", "gzip, chunked")], Some(501));
        check(&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], Some(501));
        check(&[("content-length", "3"), ("content-length", "3")], Some(400));
    }
}
