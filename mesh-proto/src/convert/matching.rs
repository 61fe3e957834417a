//! Tests of texts, paths and requests.

use http::HeaderName;
use mesh_core::matching::path::{PathMatch, PathTemplate};
use mesh_core::matching::pseudo::Pseudo;
use mesh_core::matching::request::RequestMatch;
use mesh_core::matching::text::{Pattern, TextMatch};
use mesh_core::vocab::name::Text;

use super::error::{At as _, ConvertError, Fault};
use super::{Wire, field, list, optional, required, to_wires};
use crate::generated as wire;

impl Wire for Pattern {
    type Message = String;

    fn to_wire(&self) -> String {
        self.source().to_owned()
    }

    fn from_wire(message: String) -> Result<Pattern, ConvertError> {
        Ok(Pattern::new(&message).map_err(Fault::from)?)
    }
}

impl Wire for TextMatch {
    type Message = wire::TextMatch;

    fn to_wire(&self) -> wire::TextMatch {
        use wire::text_match::Kind;
        let (kind, value) = match self {
            TextMatch::Present => (Kind::Present, ""),
            TextMatch::NotEmpty => (Kind::NotEmpty, ""),
            TextMatch::Exact(text) => (Kind::Exact, &**text),
            TextMatch::Prefix(text) => (Kind::Prefix, &**text),
            TextMatch::Suffix(text) => (Kind::Suffix, &**text),
            TextMatch::ExactIgnoringCase(text) => (Kind::ExactIgnoringCase, &**text),
            TextMatch::PrefixIgnoringCase(text) => (Kind::PrefixIgnoringCase, &**text),
            TextMatch::SuffixIgnoringCase(text) => (Kind::SuffixIgnoringCase, &**text),
            TextMatch::Regex(pattern) => (Kind::Regex, pattern.source()),
        };
        wire::TextMatch { kind: kind.into(), value: value.to_owned() }
    }

    fn from_wire(message: wire::TextMatch) -> Result<TextMatch, ConvertError> {
        use wire::text_match::Kind;
        let unknown = || ConvertError::from(Fault::UnknownValue(message.kind));
        let text = || Text::from(message.value.as_str());
        Ok(match Kind::try_from(message.kind).map_err(|_| unknown()).at("kind")? {
            Kind::Unspecified => return Err(unknown()).at("kind"),
            Kind::Present => TextMatch::Present,
            Kind::NotEmpty => TextMatch::NotEmpty,
            Kind::Exact => TextMatch::Exact(text()),
            Kind::Prefix => TextMatch::Prefix(text()),
            Kind::Suffix => TextMatch::Suffix(text()),
            Kind::ExactIgnoringCase => TextMatch::ExactIgnoringCase(text()),
            Kind::PrefixIgnoringCase => TextMatch::PrefixIgnoringCase(text()),
            Kind::SuffixIgnoringCase => TextMatch::SuffixIgnoringCase(text()),
            Kind::Regex => TextMatch::Regex(field(message.value, "value")?),
        })
    }
}

impl Wire for PathMatch {
    type Message = wire::PathMatch;

    fn to_wire(&self) -> wire::PathMatch {
        use wire::path_match::Test;
        let test = match self {
            PathMatch::Text(text) => Test::Text(text.to_wire()),
            // A template is displayed as it was written.
            PathMatch::Template(_) => Test::Template(self.to_string()),
        };
        wire::PathMatch { test: Some(test) }
    }

    fn from_wire(message: wire::PathMatch) -> Result<PathMatch, ConvertError> {
        use wire::path_match::Test;
        match message.test.ok_or(Fault::Missing)? {
            Test::Text(text) => Ok(PathMatch::Text(TextMatch::from_wire(text)?)),
            Test::Template(source) => match PathTemplate::parse(&source) {
                Some(template) => Ok(PathMatch::Template(template)),
                None => Err(Fault::Template(source)).at("template"),
            },
        }
    }
}

impl Wire for HeaderName {
    type Message = String;

    fn to_wire(&self) -> String {
        self.as_str().to_owned()
    }

    fn from_wire(message: String) -> Result<HeaderName, ConvertError> {
        HeaderName::from_bytes(message.as_bytes()).map_err(|_| Fault::HeaderName(message).into())
    }
}

impl Wire for Pseudo {
    type Message = String;

    fn to_wire(&self) -> String {
        self.name().to_owned()
    }

    fn from_wire(message: String) -> Result<Pseudo, ConvertError> {
        Pseudo::from_name(&message).ok_or_else(|| Fault::HeaderName(message).into())
    }
}

/// A header field or query parameter and its test.
impl<N: Wire<Message = String>> Wire for (N, TextMatch) {
    type Message = wire::NamedMatch;

    fn to_wire(&self) -> wire::NamedMatch {
        wire::NamedMatch { name: self.0.to_wire(), test: Some(self.1.to_wire()) }
    }

    fn from_wire(message: wire::NamedMatch) -> Result<(N, TextMatch), ConvertError> {
        Ok((field(message.name, "name")?, required(message.test, "test")?))
    }
}

/// A claim and its test.
impl Wire for (Vec<Text>, TextMatch) {
    type Message = wire::ClaimMatch;

    fn to_wire(&self) -> wire::ClaimMatch {
        wire::ClaimMatch { path: to_wires(&self.0), test: Some(self.1.to_wire()) }
    }

    fn from_wire(message: wire::ClaimMatch) -> Result<(Vec<Text>, TextMatch), ConvertError> {
        Ok((list(message.path, "path")?, required(message.test, "test")?))
    }
}

impl Wire for RequestMatch {
    type Message = wire::RequestMatch;

    fn to_wire(&self) -> wire::RequestMatch {
        let test = |test: &Option<TextMatch>| test.as_ref().map(Wire::to_wire);
        wire::RequestMatch {
            name: self.name.as_ref().map(Wire::to_wire),
            uri: test(&self.uri),
            scheme: test(&self.scheme),
            method: test(&self.method),
            authority: test(&self.authority),
            headers: to_wires(&self.headers),
            without_headers: to_wires(&self.without_headers),
            query: to_wires(&self.query),
            caller_labels: self.caller_labels.to_wire(),
            caller_namespace: self.caller_namespace.as_ref().map(Wire::to_wire),
            claims: to_wires(&self.claims),
            without_claims: to_wires(&self.without_claims),
            pseudo: to_wires(&self.pseudo),
            without_pseudo: to_wires(&self.without_pseudo),
        }
    }

    fn from_wire(message: wire::RequestMatch) -> Result<RequestMatch, ConvertError> {
        Ok(RequestMatch {
            name: message.name.map(Text::from),
            uri: optional(message.uri, "uri")?,
            scheme: optional(message.scheme, "scheme")?,
            method: optional(message.method, "method")?,
            authority: optional(message.authority, "authority")?,
            headers: list(message.headers, "headers")?,
            without_headers: list(message.without_headers, "without_headers")?,
            query: list(message.query, "query")?,
            caller_labels: field(message.caller_labels, "caller_labels")?,
            caller_namespace: message.caller_namespace.map(Text::from),
            claims: list(message.claims, "claims")?,
            without_claims: list(message.without_claims, "without_claims")?,
            pseudo: list(message.pseudo, "pseudo")?,
            without_pseudo: list(message.without_pseudo, "without_pseudo")?,
        })
    }
}
