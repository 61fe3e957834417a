//! Messages brought into their one form. The size is the number of fields; what is measured gets back what it gave, so
//! that nothing but the form is counted.

use std::hint::black_box;

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri, Version, header};
use mesh_core::framing::Sizes;
use mesh_core::message::path::Normalization;
use mesh_core::message::request::{self, Head, Sender};
use mesh_core::message::response;

use super::Run;

const FIELDS: [(&str, &str); 8] = [
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("accept-encoding", "gzip, deflate, br"),
    ("cookie", "session=8f14e45fceea167a5a36dedd4bea2543"),
    ("x-request-id", "6f0d9f0e-3d9b-4a0e-9a53-7f5d2f1f9a11"),
    ("x-forwarded-proto", "http"),
    ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ("end-user", "jason"),
];

fn fields(size: usize) -> HeaderMap {
    let more = (FIELDS.len()..size).map(|at| (format!("x-field-{at}"), "value".to_owned()));
    let first = FIELDS.iter().take(size).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let typed = |(name, value): (String, String)| {
        Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?))
    };
    let mut fields = HeaderMap::with_capacity(2 * size);
    fields.extend(first.chain(more).filter_map(typed));
    fields
}

fn form(parts: Parts) -> Head {
    let head =
        request::canonical(black_box(parts), true, Normalization::Base, Sender::Anybody, &Sizes::DEFAULT);
    head.expect("a request of this bench")
}

fn repeated(version: Version, target: &'static str, size: usize) -> Run {
    let (mut headers, uri) = (fields(size), Uri::from_static(target));
    let host = (version == Version::HTTP_11).then(|| HeaderValue::from_static("reviews:9080"));
    Box::new(move || {
        let mut parts = Request::new(()).into_parts().0;
        parts.version = version;
        parts.uri = uri.clone();
        parts.headers = std::mem::take(&mut headers);
        if let Some(host) = &host {
            parts.headers.insert(header::HOST, host.clone());
        }
        headers = black_box(form(parts)).headers;
    })
}

/// A request of an application over HTTP/1.
pub(crate) fn http1(size: usize) -> Run {
    repeated(Version::HTTP_11, "/orders/17?full=true", size)
}

/// A request over HTTP/2.
pub(crate) fn http2(size: usize) -> Run {
    repeated(Version::HTTP_2, "http://reviews:9080/orders/17?full=true", size)
}

/// One whose path has another form.
pub(crate) fn resolved(size: usize) -> Run {
    repeated(Version::HTTP_2, "http://reviews:9080/x/../%6Frders/./17?full=true", size)
}

/// An answer on its way back.
pub(crate) fn answer(size: usize) -> Run {
    let mut headers = fields(size);
    Box::new(move || {
        let mut parts = Response::new(()).into_parts().0;
        parts.headers = std::mem::take(&mut headers);
        let found = response::canonical(black_box(&mut parts), false, &Sizes::DEFAULT);
        assert!(black_box(found).is_ok(), "an answer of this bench");
        headers = parts.headers;
    })
}
