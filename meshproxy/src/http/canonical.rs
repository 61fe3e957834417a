//! Between codecs and the canonical form of `mesh_core::message`: what hyper has read goes in, and nothing but what comes
//! out is routed, judged, told of and sent on.

use http::Request;
use http::uri::{Authority, PathAndQuery, Scheme};
use hyper::body::{Body as _, Incoming};
use mesh_core::message::fault::Fault;
use mesh_core::message::path::Normalization;
use mesh_core::message::request::{self, Head, Sender};

use crate::net::limits;

/// Reads the head of a request. It is boxed, for it goes through the hands of many futures.
pub fn read(
    request: Request<Incoming>,
    normalization: Normalization,
    sender: Sender,
) -> Result<(Box<Head>, Incoming), Fault> {
    let (parts, body) = request.into_parts();
    let sizes = match sender {
        Sender::Anybody => limits::sizes(),
        Sender::Proxy => limits::sizes_with_room(),
    };
    let head = request::canonical(parts, body.is_end_stream(), normalization, sender, &sizes)?;
    Ok((Box::new(head), body))
}

/// The URI of a request upstream: in HTTP/2 it carries scheme and authority.
pub fn absolute(authority: Authority, target: PathAndQuery) -> http::Uri {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(authority);
    parts.path_and_query = Some(target);
    http::Uri::from_parts(parts).unwrap_or_default()
}
