//! Header fields that expressions, formats and tags of spans ask for.

use http::{HeaderMap, HeaderName, HeaderValue};
use mesh_core::message::request::Head;
use mesh_core::telemetry::wanted::Wanted;

/// What is kept of an exchange because somebody asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    scheme: &'static str,
    request: Vec<(HeaderName, HeaderValue)>,
    response: Vec<(HeaderName, HeaderValue)>,
}

impl Kept {
    /// What is wanted of a request.
    pub fn of_request(wanted: &Wanted, head: &Head) -> Kept {
        let request = found(&wanted.request, &head.headers);
        Kept { scheme: head.scheme.name(), request, response: Vec::new() }
    }

    /// Keeps what is wanted of the answer.
    pub fn keep_response(&mut self, wanted: &Wanted, headers: &HeaderMap) {
        self.response = found(&wanted.response, headers);
    }

    /// Scheme of the request.
    pub fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// A field of the request, by its name in lower case.
    pub fn request(&self, name: &str) -> Option<&HeaderValue> {
        named(&self.request, name)
    }

    /// A field of the answer, by its name in lower case.
    pub fn response(&self, name: &str) -> Option<&HeaderValue> {
        named(&self.response, name)
    }
}

fn found(names: &[HeaderName], headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    names.iter().filter_map(|name| Some((name.clone(), headers.get(name)?.clone()))).collect()
}

fn named<'k>(kept: &'k [(HeaderName, HeaderValue)], name: &str) -> Option<&'k HeaderValue> {
    kept.iter().find(|(known, _)| known.as_str() == name).map(|(_, value)| value)
}
