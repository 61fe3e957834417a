//! Tests of a normalised path.

use super::text::TextMatch;
use crate::vocab::name::Text;

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
