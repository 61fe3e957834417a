//! Requests: the head that everything behind the codec sees.

use http::request::Parts;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, Method, Version, header};

use super::authority;
use super::fault::Fault;
use super::fields::Found;
use super::framing::{self, Framing, Unclear};
use super::path::Normalization;
use super::target::Scheme;
use super::{hop, internal, target};
use crate::framing::Sizes;
use crate::matching::request::Request;

/// Who sends, as far as a request is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// Anybody: what only proxies may say is taken from the request.
    Anybody,
    /// A proxy of this mesh that has proven to be one.
    Proxy,
}

/// The head of a request, canonical.
#[derive(Debug)]
pub struct Head {
    /// Method.
    pub method: Method,
    /// Version that the client speaks.
    pub version: Version,
    /// What the client says, else what a proxy before this one says of it, else `http`.
    pub scheme: Scheme,
    /// Host and port as sent: names are the same in either case, conditions on `authority` are not.
    pub authority: Authority,
    /// Path and query; the path normalised.
    pub target: PathAndQuery,
    /// The path and query as sent, for the log.
    pub received: PathAndQuery,
    /// Fields, without those that belong to the connection. A length is the only one that says how the content is
    /// framed; content without a length is open.
    pub headers: HeaderMap,
    /// What follows.
    pub framing: Framing,
    /// Whether it asks to go on as a WebSocket.
    pub websocket: bool,
    /// Whether this is gRPC.
    pub grpc: bool,
    /// Size of the head on the wire, nearly.
    pub bytes: u64,
    /// How many of the fields are the mesh's own.
    pub mesh: u32,
    /// Whether there are others that only proxies may set.
    pub internal: bool,
}

impl Head {
    /// The request as decisions see it.
    pub fn seen(&self) -> Request<'_> {
        Request {
            method: self.method.as_str(),
            scheme: self.scheme.name(),
            authority: self.authority.as_str(),
            path: self.target.path(),
            query: self.target.query(),
            headers: &self.headers,
            claims: None,
        }
    }
}

/// The canonical form of what a codec has read. `ended` says that nothing follows the head.
pub fn canonical(
    parts: Parts,
    ended: bool,
    normalization: Normalization,
    sender: Sender,
    sizes: &Sizes,
) -> Result<Head, Fault> {
    let Parts { method, uri, version, mut headers, .. } = parts;
    if matches!(version, Version::HTTP_09 | Version::HTTP_10) {
        return Err(Fault::Version);
    }
    if method.as_str().len() > usize::from(sizes.method) {
        return Err(Fault::MethodLength);
    }
    if method == Method::CONNECT {
        return Err(Fault::Method);
    }
    let found = Found::of(&headers);
    if found.is_too_large(&headers, sizes) {
        return Err(Fault::Fields);
    }
    if found.is_foreign(version) {
        return Err(Fault::Connection);
    }
    found.trim(&mut headers);
    let framing = framing(&headers, &found, ended)?;
    let websocket = found.hop && hop::asks_websocket(&method, version, &headers);
    if (websocket || method == Method::TRACE) && !matches!(framing, Framing::Nothing | Framing::Length(0)) {
        return Err(Fault::Content);
    }
    let target = target::read(uri, &method, version, normalization, sizes.target as usize)?;
    let authority = authority(target.authority, &mut headers, &found)?;
    if sender == Sender::Anybody {
        internal::strip(&mut headers, &found);
    }
    hop::expectation(&mut headers, &found)?;
    hop::strip(&mut headers, &found);
    hop::join_cookies(&mut headers, &found, sizes.field as usize)?;
    framing::rebuild(&mut headers, &found, framing);
    let bytes = (found.bytes + target.received.as_str().len() + method.as_str().len() + 12) as u64;
    Ok(Head {
        method,
        version,
        scheme: target.scheme.unwrap_or_else(|| Scheme::forwarded(&headers)),
        authority,
        target: target.canonical,
        received: target.received,
        headers,
        framing,
        websocket,
        grpc: found.grpc,
        bytes,
        mesh: if sender == Sender::Proxy { found.mesh } else { 0 },
        internal: sender == Sender::Proxy && found.internal,
    })
}

fn framing(headers: &HeaderMap, found: &Found, ended: bool) -> Result<Framing, Fault> {
    let declared = framing::declared(headers, found).map_err(|unclear| match unclear {
        Unclear::Encoding => Fault::Encoding,
        Unclear::LengthAndEncoding => Fault::LengthAndEncoding,
        Unclear::Length => Fault::Length,
    })?;
    match (declared, ended) {
        (None, true) => Ok(Framing::Nothing),
        (None, false) => Ok(Framing::Open),
        // RFC 9113, section 8.1.1.
        (Some(Framing::Length(1..)), true) => Err(Fault::Length),
        (Some(declared), _) => Ok(declared),
    }
}

/// Takes the authority out of target and fields. There is at most one Host, and it is valid even where it does not
/// count: the authority of the target wins (RFC 9112, section 3.2.2; RFC 9113, section 8.3.1).
fn authority(target: Option<Authority>, headers: &mut HeaderMap, found: &Found) -> Result<Authority, Fault> {
    let host = match found.hosts {
        0 => None,
        1 => headers.remove(header::HOST),
        _ => return Err(Fault::Host),
    };
    let host = host.map(|host| authority::canonical(host.as_bytes()).ok_or(Fault::Host)).transpose()?;
    match (target, host) {
        (Some(target), _) => authority::settle(target).ok_or(Fault::Host),
        (None, Some(host)) => Ok(host),
        (None, None) => Err(Fault::HostMissing),
    }
}
