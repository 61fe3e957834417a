//! Exact, prefix, suffix and regular-expression tests of one text.

use std::fmt;
use std::hash::{Hash, Hasher};

use crate::vocab::name::Text;

/// Longest source of a regular expression, in bytes (Istio refuses longer ones).
pub const LONGEST_PATTERN: usize = 1024;
/// Largest compiled regular expression, in bytes: bounds memory for repeated classes such as `\w{1000}`.
const LARGEST_COMPILED: usize = 512 * 1024;

/// Why a regular expression was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Source longer than [`LONGEST_PATTERN`].
    #[error("regular expression has {0} characters, at most {LONGEST_PATTERN} are allowed")]
    TooLong(usize),
    /// Not RE2 syntax, or too large when compiled.
    #[error("{0}")]
    Invalid(String),
}

/// A compiled regular expression of RE2's syntax, equal to another when their sources are.
#[derive(Clone)]
pub struct Pattern {
    source: Text,
    full: regex::bytes::Regex,
    part: regex::bytes::Regex,
}

impl Pattern {
    /// Compiles; matching takes time linear in the text.
    pub fn new(source: &str) -> Result<Pattern, PatternError> {
        if source.len() > LONGEST_PATTERN {
            return Err(PatternError::TooLong(source.len()));
        }
        let compile = |text: &str| {
            regex::bytes::RegexBuilder::new(text)
                .size_limit(LARGEST_COMPILED)
                .build()
                .map_err(|error| PatternError::Invalid(one_line(&error.to_string())))
        };
        // Compiled alone first, so that an unbalanced ')' cannot escape the anchors.
        let part = compile(source)?;
        Ok(Pattern { source: source.into(), full: compile(&format!(r"\A(?:{source})\z"))?, part })
    }

    /// The text it was compiled from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What every text that matches begins with: often nothing.
    pub fn beginning(&self) -> String {
        let parsed = regex_syntax::ParserBuilder::new().utf8(false).build().parse(&self.source);
        let literals = parsed.map(|parsed| regex_syntax::hir::literal::Extractor::new().extract(&parsed));
        let common = literals.as_ref().ok().and_then(|literals| literals.longest_common_prefix());
        let text = common.unwrap_or_default().utf8_chunks().next();
        text.map(|text| text.valid().to_owned()).unwrap_or_default()
    }

    /// Whether it matches a part of a text.
    pub fn finds(&self, text: &[u8]) -> bool {
        self.part.is_match(text)
    }

    /// Whether the whole text matches.
    pub fn matches(&self, text: &[u8]) -> bool {
        self.full.is_match(text)
    }

    /// Replaces every non-overlapping match. In the substitution `\0` to `\9` stand for groups (RE2's
    /// notation), `\\` for a backslash; a group that the pattern does not have is empty.
    pub fn replace_all(&self, text: &[u8], substitution: &str) -> Vec<u8> {
        let expand = |captures: &regex::bytes::Captures<'_>| {
            let mut out = Vec::with_capacity(substitution.len());
            let mut bytes = substitution.bytes();
            while let Some(byte) = bytes.next() {
                match (byte, byte == b'\\') {
                    (byte, false) => out.push(byte),
                    (_, true) => match bytes.next() {
                        Some(digit @ b'0'..=b'9') => {
                            let group = captures.get(usize::from(digit - b'0'));
                            out.extend_from_slice(group.map_or(b"", |group| group.as_bytes()));
                        }
                        Some(other) => out.push(other),
                        None => out.push(b'\\'),
                    },
                }
            }
            out
        };
        self.part.replace_all(text, expand).into_owned()
    }
}

fn one_line(text: &str) -> String {
    let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or(text);
    last.trim().trim_start_matches("error: ").to_owned()
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/", self.source)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.source == other.source
    }
}

impl Eq for Pattern {}

impl Hash for Pattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.source.hash(state);
    }
}

/// A test of one text (Istio's StringMatch, and the pattern language of AuthorizationPolicy).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TextMatch {
    /// There is a text, whatever it says.
    Present,
    /// There is a text and it is not empty (`*` in an AuthorizationPolicy).
    NotEmpty,
    /// The same text.
    Exact(Text),
    /// Begins so.
    Prefix(Text),
    /// Ends so.
    Suffix(Text),
    /// The same, ASCII case aside; kept in lower case.
    ExactIgnoringCase(Text),
    /// Begins so, ASCII case aside; kept in lower case.
    PrefixIgnoringCase(Text),
    /// Ends so, ASCII case aside; kept in lower case.
    SuffixIgnoringCase(Text),
    /// The whole text matches.
    Regex(Pattern),
}

impl TextMatch {
    /// Whether the text passes.
    pub fn matches(&self, text: &[u8]) -> bool {
        match self {
            TextMatch::Present => true,
            TextMatch::NotEmpty => !text.is_empty(),
            TextMatch::Exact(expected) => text == expected.as_bytes(),
            TextMatch::Prefix(prefix) => text.starts_with(prefix.as_bytes()),
            TextMatch::Suffix(suffix) => text.ends_with(suffix.as_bytes()),
            TextMatch::ExactIgnoringCase(expected) => text.eq_ignore_ascii_case(expected.as_bytes()),
            TextMatch::PrefixIgnoringCase(prefix) => {
                text.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix.as_bytes()))
            }
            TextMatch::SuffixIgnoringCase(suffix) => text
                .len()
                .checked_sub(suffix.len())
                .is_some_and(|at| text[at..].eq_ignore_ascii_case(suffix.as_bytes())),
            TextMatch::Regex(pattern) => pattern.matches(text),
        }
    }

    /// AuthorizationPolicy's language: `*` is any non-empty text, `*x` a suffix (tested first), `x*` a prefix,
    /// all else exact (Istio, AuthorizationPolicy rules).
    pub fn policy(value: &str) -> TextMatch {
        if value == "*" {
            return TextMatch::NotEmpty;
        }
        if let Some(suffix) = value.strip_prefix('*') {
            return TextMatch::Suffix(suffix.into());
        }
        match value.strip_suffix('*') {
            Some(prefix) => TextMatch::Prefix(prefix.into()),
            None => TextMatch::Exact(value.into()),
        }
    }

    /// The same test without regard to ASCII case; regular expressions stay as they are.
    #[must_use]
    pub fn ignoring_case(self) -> TextMatch {
        let lower = |text: Text| Text::from(text.to_ascii_lowercase());
        match self {
            TextMatch::Exact(text) => TextMatch::ExactIgnoringCase(lower(text)),
            TextMatch::Prefix(text) => TextMatch::PrefixIgnoringCase(lower(text)),
            TextMatch::Suffix(text) => TextMatch::SuffixIgnoringCase(lower(text)),
            same @ (TextMatch::Present
            | TextMatch::NotEmpty
            | TextMatch::ExactIgnoringCase(_)
            | TextMatch::PrefixIgnoringCase(_)
            | TextMatch::SuffixIgnoringCase(_)
            | TextMatch::Regex(_)) => same,
        }
    }
}

impl fmt::Display for TextMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TextMatch::Present => f.write_str("present"),
            TextMatch::NotEmpty => f.write_str("*"),
            TextMatch::Exact(text) | TextMatch::ExactIgnoringCase(text) => write!(f, "{text}"),
            TextMatch::Prefix(text) | TextMatch::PrefixIgnoringCase(text) => write!(f, "{text}*"),
            TextMatch::Suffix(text) | TextMatch::SuffixIgnoringCase(text) => write!(f, "*{text}"),
            TextMatch::Regex(pattern) => write!(f, "regex {}", pattern.source),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_the_whole_text() {
        let check = |source: &str, text: &str, expected: bool| {
            assert_eq!(Pattern::new(source).unwrap().matches(text.as_bytes()), expected, "{source} {text}");
        };
        check("a|b", "a", true);
        check("a|b", "ab", false);
        check("v[0-9]+", "v12", true);
        check("v[0-9]+", "xv12", false);
        check("(?i)jason", "JASON", true);
        check("a", "a\n", false);
    }

    #[test]
    fn what_re2_refuses_is_refused() {
        for bad in ["(", "a)", "[", r"(?=x)", r"(a)\1", "*", &"a".repeat(1025), r"(\w{1000}){1000}"] {
            assert!(Pattern::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_all_matches_begin_with() {
        for (source, expected) in [
            ("/api/v[0-9]+/.*", "/api/v"),
            ("/a|/b", "/"),
            ("a|b", ""),
            ("/ab?c", "/a"),
            ("/ab*", "/a"),
            ("/(en|de)/x", "/"),
            ("^/a\\.b$", "/a.b"),
            ("(?i)/abc", "/"),
            (".*", ""),
            ("/é.*", "/é"),
            ("/[é-ê]", "/"),
            ("", ""),
        ] {
            assert_eq!(Pattern::new(source).unwrap().beginning(), expected, "{source}");
        }
    }

    #[test]
    fn policy_language() {
        let check = |value: &str, text: &str, expected: bool| {
            assert_eq!(TextMatch::policy(value).matches(text.as_bytes()), expected, "{value} {text}");
        };
        check("/a", "/a", true);
        check("/a", "/a/", false);
        check("/a*", "/a/b", true);
        check("*/b", "/a/b", true);
        check("*", "x", true);
        check("*", "", false);
        check("*a*", "xa*", true);
        check("*a*", "xab", false);
    }

    #[test]
    fn case_is_ignored_only_on_request() {
        let exact = TextMatch::Exact("/Api".into());
        assert!(!exact.matches(b"/api"));
        assert!(exact.clone().ignoring_case().matches(b"/aPI"));
        assert!(TextMatch::Suffix(".Com".into()).ignoring_case().matches(b"a.cOM"));
        assert!(!TextMatch::Prefix("/abc".into()).ignoring_case().matches(b"/a"));
    }
}
