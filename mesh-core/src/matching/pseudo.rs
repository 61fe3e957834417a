//! Parts of a request that HTTP/2 writes like header fields, and that conditions may name as such (`:path`).

use std::borrow::Cow;
use std::fmt;

use super::request::Request;
use super::text::TextMatch;

/// A pseudo-header field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pseudo {
    /// `:method`.
    Method,
    /// `:scheme`.
    Scheme,
    /// `:authority`.
    Authority,
    /// `:path`: path and query.
    Path,
    /// `:status`, which no request has.
    Status,
}

impl Pseudo {
    /// Every one.
    pub const ALL: [Pseudo; 5] =
        [Pseudo::Method, Pseudo::Scheme, Pseudo::Authority, Pseudo::Path, Pseudo::Status];

    /// The name, with its colon.
    pub fn name(self) -> &'static str {
        match self {
            Pseudo::Method => ":method",
            Pseudo::Scheme => ":scheme",
            Pseudo::Authority => ":authority",
            Pseudo::Path => ":path",
            Pseudo::Status => ":status",
        }
    }

    /// The one of that name.
    pub fn from_name(name: &str) -> Option<Pseudo> {
        Pseudo::ALL.into_iter().find(|pseudo| pseudo.name() == name)
    }

    /// Its value in a request.
    pub fn value<'r>(self, request: &Request<'r>) -> Option<Cow<'r, str>> {
        match (self, request.query) {
            (Pseudo::Method, _) => Some(request.method.into()),
            (Pseudo::Scheme, _) => Some(request.scheme.into()),
            (Pseudo::Authority, _) => Some(request.authority.into()),
            (Pseudo::Path, Some(query)) => Some(format!("{}?{query}", request.path).into()),
            (Pseudo::Path, None) => Some(request.path.into()),
            (Pseudo::Status, _) => None,
        }
    }

    /// Whether a request has it and it passes.
    pub(super) fn passes(self, request: &Request<'_>, test: &TextMatch) -> bool {
        self.value(request).is_some_and(|value| test.matches(value.as_bytes()))
    }

    /// Whether a negated condition on it holds: what is missing counts as empty where a value is tested.
    pub(super) fn lacks(self, request: &Request<'_>, test: &TextMatch) -> bool {
        match self.value(request) {
            Some(value) => !test.matches(value.as_bytes()),
            None => *test == TextMatch::Present || !test.matches(b""),
        }
    }
}

impl fmt::Display for Pseudo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_on_what_is_no_field() {
        let headers = http::HeaderMap::new();
        let request = Request {
            method: "GET",
            scheme: "http",
            authority: "a:80",
            path: "/p",
            query: Some("q"),
            headers: &headers,
            claims: None,
        };
        let exact = |text: &str| TextMatch::Exact(text.into());
        for (pseudo, test, passes, lacks) in [
            (Pseudo::Path, exact("/p?q"), true, false),
            (Pseudo::Path, exact("/p"), false, true),
            (Pseudo::Authority, TextMatch::Present, true, false),
            (Pseudo::Status, TextMatch::Present, false, true),
            (Pseudo::Status, exact("200"), false, true),
            (Pseudo::Status, exact(""), false, false),
        ] {
            let found = (pseudo.passes(&request, &test), pseudo.lacks(&request, &test));
            assert_eq!(found, (passes, lacks), "{pseudo} {test}");
            assert_eq!(Pseudo::from_name(pseudo.name()), Some(pseudo));
        }
    }
}
