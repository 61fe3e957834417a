//! Claims of a validated token, as conditions read them.

use std::collections::BTreeMap;

use super::text::TextMatch;
use crate::vocab::name::Text;

/// One claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// A text; numbers and booleans as they are written.
    Text(Text),
    /// A list of texts.
    List(Vec<Text>),
    /// Claims within a claim.
    Object(Claims),
}

impl Claim {
    /// Whether it is a text that passes, or a list with a member that does.
    pub fn passes(&self, test: &TextMatch) -> bool {
        match self {
            Claim::Text(text) => test.matches(text.as_bytes()),
            Claim::List(list) => list.iter().any(|text| test.matches(text.as_bytes())),
            Claim::Object(_) => *test == TextMatch::Present,
        }
    }
}

/// The claims of a token by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Claims(BTreeMap<Text, Claim>);

impl Claims {
    /// Sets a claim.
    pub fn set(&mut self, name: impl Into<Text>, claim: Claim) {
        self.0.insert(name.into(), claim);
    }

    /// The claim at a path.
    pub fn at(&self, path: &[Text]) -> Option<&Claim> {
        let (first, rest) = path.split_first()?;
        match (self.0.get(first)?, rest) {
            (found, []) => Some(found),
            (Claim::Object(inner), rest) => inner.at(rest),
            (Claim::Text(_) | Claim::List(_), _) => None,
        }
    }

    /// The claim of a name, not within another.
    pub fn named(&self, name: &str) -> Option<&Claim> {
        self.0.get(name)
    }

    /// Whether the claim at a path is a text that passes, or a list with a member that does.
    pub fn pass(&self, path: &[Text], test: &TextMatch) -> bool {
        self.at(path).is_some_and(|claim| claim.passes(test))
    }
}

impl<K: Into<Text>> FromIterator<(K, Claim)> for Claims {
    fn from_iter<I: IntoIterator<Item = (K, Claim)>>(pairs: I) -> Claims {
        Claims(pairs.into_iter().map(|(name, claim)| (name.into(), claim)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_or_any_member_of_a_list_passes() {
        let inner: Claims = [("b", Claim::Text("deep".into()))].into_iter().collect();
        let claims: Claims = [
            ("sub", Claim::Text("x".into())),
            ("groups", Claim::List(vec!["a".into(), "b".into()])),
            ("a", Claim::Object(inner)),
        ]
        .into_iter()
        .collect();
        let check = |path: &[&str], value: &str, expected: bool| {
            let path: Vec<Text> = path.iter().map(|name| Text::from(*name)).collect();
            assert_eq!(claims.pass(&path, &TextMatch::Exact(value.into())), expected, "{path:?} {value}");
        };
        check(&["sub"], "x", true);
        check(&["groups"], "b", true);
        check(&["groups"], "a,b", false);
        check(&["a", "b"], "deep", true);
        check(&["a"], "deep", false);
        check(&["nobody"], "", false);
    }
}
