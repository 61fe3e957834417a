//! The principal of a request: `ISSUER/SUBJECT` of its token.

use crate::matching::claims::{Claim, Claims};
use crate::matching::text::TextMatch;

/// `ISSUER/SUBJECT`, if the token names both.
pub fn of(claims: &Claims) -> Option<String> {
    Some(format!("{}/{}", text(claims, "iss")?, text(claims, "sub")?))
}

fn text<'c>(claims: &'c Claims, name: &str) -> Option<&'c str> {
    match claims.named(name)? {
        Claim::Text(text) => Some(text),
        Claim::List(_) | Claim::Object(_) => None,
    }
}

/// Whether a token's issuer and subject pass. The test is cut at its last `/`, because an issuer may hold slashes;
/// where it has none, it is about the issuer, but a suffix is about the subject.
pub(super) fn passes(test: &TextMatch, claims: &Claims) -> bool {
    let (Some(issuer), Some(subject)) = (text(claims, "iss"), text(claims, "sub")) else { return false };
    match test {
        TextMatch::Present | TextMatch::NotEmpty => !issuer.is_empty() && !subject.is_empty(),
        TextMatch::Suffix(suffix) => match suffix.rsplit_once('/') {
            Some(("", wanted)) => !issuer.is_empty() && subject == wanted,
            Some((tail, wanted)) => issuer.ends_with(tail) && subject == wanted,
            None => !issuer.is_empty() && subject.ends_with(&**suffix),
        },
        TextMatch::Prefix(prefix) => match prefix.rsplit_once('/') {
            Some((wanted, "")) => issuer == wanted && !subject.is_empty(),
            Some((wanted, head)) => issuer == wanted && subject.starts_with(head),
            None => issuer.starts_with(&**prefix) && !subject.is_empty(),
        },
        TextMatch::Exact(whole) => match whole.rsplit_once('/') {
            Some((wanted, name)) => issuer == wanted && subject == name,
            None => issuer == &**whole && subject.is_empty(),
        },
        other => other.matches(format!("{issuer}/{subject}").as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_is_cut_at_its_last_slash() {
        let check = |written: &str, issuer: &str, subject: &str, expected: bool| {
            let pairs = [("iss", Claim::Text(issuer.into())), ("sub", Claim::Text(subject.into()))];
            let claims: Claims = pairs.into_iter().collect();
            let found = passes(&TextMatch::policy(written), &claims);
            assert_eq!(found, expected, "{written} of {issuer} / {subject}");
        };
        let issuer = "https://a.example/b";
        check("https://a.example/b/ann", issuer, "ann", true);
        check("https://a.example/b/ann", "https://a.example", "b/ann", false);
        check("*", issuer, "ann", true);
        check("*", issuer, "", false);
        check("https://a.example/b/*", issuer, "ann", true);
        check("https://a.example/b/a*", issuer, "ann", true);
        check("https://a.example/b/b*", issuer, "ann", false);
        check("https://a.example/*", issuer, "ann", false);
        check("https:*", issuer, "ann", true);
        check("*/ann", issuer, "ann", true);
        check("*/ann", issuer, "bob", false);
        check("*example/b/ann", issuer, "ann", true);
        check("*nn", issuer, "ann", true);
        check("is*", "issuer", "x", true);
        check("issuer", "issuer", "x", false);
    }

    #[test]
    fn a_token_without_issuer_or_subject_has_none() {
        let only: Claims = [("iss", Claim::Text("a".into()))].into_iter().collect();
        assert!(!passes(&TextMatch::NotEmpty, &only));
        assert_eq!(of(&only), None);
    }
}
