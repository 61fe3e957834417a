//! A request path: normalised once, then matched.

use std::borrow::Cow;

use super::text::TextMatch;
use crate::vocab::name::Text;

/// Why a path was refused. Such a request is answered with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Does not begin with `/` (and is not `*`).
    #[error("path does not begin with '/'")]
    NotAbsolute,
    /// Has a control character or an encoded NUL.
    #[error("path contains a control character")]
    Control,
}

/// How far paths are brought into one form before they are judged (MeshConfig `pathNormalization`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Normalization {
    /// Not at all.
    None,
    /// RFC 3986: dot segments, `\\` to `/`, escapes of unreserved characters decoded. The default.
    #[default]
    Base,
    /// And runs of slashes become one.
    MergeSlashes,
    /// And escaped slashes and backslashes are decoded first.
    DecodeAndMergeSlashes,
}

impl Normalization {
    /// The name in a MeshConfig.
    pub fn name(self) -> &'static str {
        match self {
            Normalization::None => "NONE",
            Normalization::Base => "BASE",
            Normalization::MergeSlashes => "MERGE_SLASHES",
            Normalization::DecodeAndMergeSlashes => "DECODE_AND_MERGE_SLASHES",
        }
    }

    /// The one form of a path that is judged, routed and forwarded. In every mode a fragment is dropped, and control
    /// characters and an encoded NUL are refused; case, `;` and what is encoded twice are left alone. Normalising twice
    /// gives the same as once.
    pub fn apply(self, path: &str) -> Result<Cow<'_, str>, PathError> {
        if path == "*" {
            return Ok(Cow::Borrowed(path));
        }
        let path = path.split('#').next().unwrap_or("");
        if path.bytes().any(|b| b < 0x20 || b == 0x7f) || has_encoded_nul(path) {
            return Err(PathError::Control);
        }
        let mut path = match self {
            Normalization::DecodeAndMergeSlashes => decode_slashes(path),
            Normalization::None | Normalization::Base | Normalization::MergeSlashes => Cow::Borrowed(path),
        };
        if self != Normalization::None && !is_plain(&path) {
            let decoded = decode_unreserved(&path);
            if !decoded.starts_with('/') {
                return Err(PathError::NotAbsolute);
            }
            path = Cow::Owned(remove_dot_segments(&decoded));
        }
        if !path.starts_with('/') {
            return Err(PathError::NotAbsolute);
        }
        // After the dot segments, as in Envoy: `/a//../b` is `/a/b`.
        let merges = matches!(self, Normalization::MergeSlashes | Normalization::DecodeAndMergeSlashes);
        Ok(if merges && path.contains("//") { Cow::Owned(merge_slashes(&path)) } else { path })
    }
}

/// Istio's default: BASE.
pub fn normalize(path: &str) -> Result<Cow<'_, str>, PathError> {
    Normalization::Base.apply(path)
}

fn has_encoded_nul(path: &str) -> bool {
    path.contains("%00")
}

fn decode_slashes(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        decoded.push_str(&rest[..at]);
        let (written, length) = match rest.get(at + 1..at + 3) {
            Some("2F" | "2f") => ("/", 3),
            Some("5C" | "5c") => ("\\", 3),
            _ => ("%", 1),
        };
        decoded.push_str(written);
        rest = &rest[at + length..];
    }
    decoded.push_str(rest);
    Cow::Owned(decoded)
}

fn merge_slashes(path: &str) -> String {
    let mut merged = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !merged.ends_with('/') {
            merged.push(c);
        }
    }
    merged
}

/// Whether there is nothing to normalise: the common case, found in one pass without allocation.
fn is_plain(path: &str) -> bool {
    let bytes = path.as_bytes();
    !bytes.iter().enumerate().any(|(i, &b)| match b {
        b'%' | b'\\' => true,
        b'.' => i > 0 && bytes[i - 1] == b'/' && matches!(bytes.get(i + 1), None | Some(b'/' | b'.' | b'%')),
        _ => false,
    })
}

fn decode_unreserved(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = |at: usize| bytes.get(at).and_then(|&b| char::from(b).to_digit(16));
        match (bytes[i], hex(i + 1), hex(i + 2)) {
            (b'\\', ..) => decoded.push(b'/'),
            (b'%', Some(high), Some(low)) => {
                let byte = (high * 16 + low) as u8;
                if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                    decoded.push(byte);
                } else {
                    decoded.extend_from_slice(&bytes[i..i + 3]);
                }
                i += 3;
                continue;
            }
            (byte, ..) => decoded.push(byte),
        }
        i += 1;
    }
    // Only ASCII bytes were replaced by ASCII bytes, so the text is still UTF-8.
    String::from_utf8_lossy(&decoded).into_owned()
}

fn remove_dot_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            _ => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

/// Splits a request target into path and query.
pub fn split_query(target: &str) -> (&str, Option<&str>) {
    let target = target.split('#').next().unwrap_or("");
    match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    }
}

/// A path test of an AuthorizationPolicy: text, or a template with `{*}` and `{**}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathMatch {
    /// Exact, prefix, suffix or any.
    Text(TextMatch),
    /// Segments and operators.
    Template(PathTemplate),
}

impl PathMatch {
    /// Parses a value of `paths`; `None` for a malformed template.
    pub fn policy(value: &str) -> Option<PathMatch> {
        if value.contains("{*}") || value.contains("{**}") || value.contains('{') || value.contains('}') {
            return PathTemplate::parse(value).map(PathMatch::Template);
        }
        Some(PathMatch::Text(TextMatch::policy(value)))
    }

    /// Whether the normalised path passes.
    pub fn matches(&self, path: &str) -> bool {
        match self {
            PathMatch::Text(text) => text.matches(path.as_bytes()),
            PathMatch::Template(template) => template.matches(path),
        }
    }
}

impl std::fmt::Display for PathMatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PathMatch::Text(text) => text.fmt(f),
            PathMatch::Template(template) => f.write_str(&template.source),
        }
    }
}

/// A path template: `{*}` is one non-empty segment, `{**}` any rest, once and as the last operator.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PathTemplate {
    source: Text,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Part {
    Literal(Text),
    OneSegment,
    Rest,
}

impl PathTemplate {
    /// Parses; `None` if an operator shares a segment with other text, follows `{**}`, or a literal
    /// segment is empty or has a character outside RFC 3986's `pchar`.
    pub fn parse(source: &str) -> Option<PathTemplate> {
        if source.trim_matches('/').split('/').any(str::is_empty) {
            return None;
        }
        let rest = source.strip_prefix('/').unwrap_or(source);
        let mut parts = Vec::new();
        let mut literal = String::from("/");
        for (index, segment) in rest.split('/').enumerate() {
            if index > 0 {
                literal.push('/');
            }
            match segment {
                "{*}" | "{**}" => {
                    if parts.contains(&Part::Rest) {
                        return None;
                    }
                    parts.push(Part::Literal(std::mem::take(&mut literal).into()));
                    parts.push(if segment == "{*}" { Part::OneSegment } else { Part::Rest });
                }
                _ if segment.bytes().all(is_pchar) => literal.push_str(segment),
                _ => return None,
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.into()));
        }
        Some(PathTemplate { source: source.into(), parts })
    }

    /// What every path of this shape begins with.
    pub fn prefix(&self) -> &str {
        match self.parts.first() {
            Some(Part::Literal(literal)) => literal,
            Some(Part::OneSegment | Part::Rest) | None => "",
        }
    }

    /// Whether the path has this shape. No path has that of a template that does not begin with a slash.
    pub fn matches(&self, path: &str) -> bool {
        self.source.starts_with('/') && matches_parts(&self.parts, path)
    }
}

fn matches_parts(parts: &[Part], path: &str) -> bool {
    match parts.split_first() {
        None => path.is_empty(),
        Some((Part::Literal(literal), rest)) => {
            path.strip_prefix(&**literal).is_some_and(|path| matches_parts(rest, path))
        }
        Some((Part::OneSegment, rest)) => {
            let end = path.find('/').unwrap_or(path.len());
            end > 0 && matches_parts(rest, &path[end..])
        }
        // The last operator: what follows is at most one literal, so a suffix test decides.
        Some((Part::Rest, rest)) => match rest.first() {
            None => true,
            Some(Part::Literal(literal)) => path.ends_with(&**literal),
            Some(Part::OneSegment | Part::Rest) => false,
        },
    }
}

fn is_pchar(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-._~!$&'()+,;=:@%".contains(&b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn base_normalisation() {
        let check = |path: &str, expected: &str| assert_eq!(normalize(path).unwrap(), expected, "{path}");
        check("/a/../b", "/b");
        check("/a/./b/.", "/a/b/");
        check("/a/b/..", "/a/");
        check("/../../a", "/a");
        check("/%2e%2e/admin", "/admin");
        check("/x/.%2E/admin", "/admin");
        check(r"/x\..\admin", "/admin");
        check("//admin", "//admin");
        check("/a%2Fb", "/a%2Fb");
        check("/%61dmin", "/admin");
        check("/%252e", "/%252e");
        check("/a;x/b", "/a;x/b");
        check("/admin#x", "/admin");
        check("/.well-known/x", "/.well-known/x");
        check("/a..b/c.", "/a..b/c.");
        check("*", "*");
    }

    #[test]
    fn every_mode() {
        use Normalization::{Base, DecodeAndMergeSlashes, MergeSlashes, None};
        let check = |path: &str, expected: [&str; 4]| {
            for (mode, expected) in
                [None, Base, MergeSlashes, DecodeAndMergeSlashes].into_iter().zip(expected)
            {
                assert_eq!(mode.apply(path).unwrap(), expected, "{path} {}", mode.name());
            }
        };
        check("/a/../b", ["/a/../b", "/b", "/b", "/b"]);
        check("/%61/x", ["/%61/x", "/a/x", "/a/x", "/a/x"]);
        check("//a///b/", ["//a///b/", "//a///b/", "/a/b/", "/a/b/"]);
        check("/a%2Fb", ["/a%2Fb", "/a%2Fb", "/a%2Fb", "/a/b"]);
        check("/a%2f%2Fb", ["/a%2f%2Fb", "/a%2f%2Fb", "/a%2f%2Fb", "/a/b"]);
        check("/a%5c..%5Cb", ["/a%5c..%5Cb", "/a%5c..%5Cb", "/a%5c..%5Cb", "/b"]);
        check("/a/%2e%2e%2Fb", ["/a/%2e%2e%2Fb", "/a/..%2Fb", "/a/..%2Fb", "/b"]);
        check("/a//../b", ["/a//../b", "/a/b", "/a/b", "/a/b"]);
        check("/a\\b", ["/a\\b", "/a/b", "/a/b", "/a/b"]);
        check("/a%252Fb", ["/a%252Fb", "/a%252Fb", "/a%252Fb", "/a%252Fb"]);
        check("/A;x=1/%C0%AE#f", ["/A;x=1/%C0%AE", "/A;x=1/%C0%AE", "/A;x=1/%C0%AE", "/A;x=1/%C0%AE"]);
        check("/100%", ["/100%", "/100%", "/100%", "/100%"]);
        for mode in [None, Base, MergeSlashes, DecodeAndMergeSlashes] {
            for bad in ["/%00", "/a%00b", "a", "", "/\u{7f}"] {
                assert!(mode.apply(bad).is_err(), "{bad} {}", mode.name());
            }
        }
    }

    #[test]
    fn bad_paths_are_refused() {
        for bad in ["", "a", "/%00", "/a\u{1}", "?x", "%2e/a"] {
            assert!(normalize(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn normalising_twice_is_normalising_once(path in "/[a-c./%2eE\\\\;]{0,24}") {
            if let Ok(once) = normalize(&path) {
                prop_assert_eq!(normalize(&once).unwrap(), once.clone());
                prop_assert!(!once.split('/').any(|s| s == "." || s == ".."), "{}", once);
            }
        }
    }

    #[test]
    fn templates() {
        let check = |template: &str, path: &str, expected: bool| {
            assert_eq!(PathTemplate::parse(template).unwrap().matches(path), expected, "{template} {path}");
        };
        check("/a/{**}", "/a/", true);
        check("/a/{**}", "/a/b/c", true);
        check("/a/{**}", "/a", false);
        check("/s/{**}/c", "/s//c", true);
        check("/s/{**}/c", "/s/x/y/c", true);
        check("/s/{**}/c", "/s/c", false);
        check("/f/{*}/b", "/f/x/b", true);
        check("/f/{*}/b", "/f//b", false);
        check("/{*}", "/x", true);
        check("/{*}", "/x/y", false);
        check("{**}", "/x", false);
        check("a/{*}", "/a/x", false);
        check("/a/{*}/", "/a/x/", true);
        check("/a/{*}/", "/a/x", false);
        for bad in ["/a{*}", "/{**}/{*}", "/{**}/{**}", "/{x}", "/a//{*}", "/{*}/*"] {
            assert!(PathTemplate::parse(bad).is_none(), "{bad}");
        }
    }
}
