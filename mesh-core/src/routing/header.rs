//! Changes of header fields.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::format::{Plain, Template, Variable};

/// Changes as they are declared; values may have variables between percent signs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct HeaderChanges {
    /// Fields taken away.
    pub remove: Vec<HeaderName>,
    /// Fields overwritten or added.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Values appended.
    pub add: Vec<(HeaderName, HeaderValue)>,
}

impl HeaderChanges {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }
}

/// Changes ready to be carried out: removals first, then sets, then additions, each sorted by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct HeaderOperations {
    /// Fields taken away.
    pub remove: Vec<HeaderName>,
    /// Fields overwritten or added.
    pub set: Vec<(HeaderName, Template)>,
    /// Values appended.
    pub add: Vec<(HeaderName, Template)>,
}

/// What variables stand for where the fields of the message that is changed do not say it.
pub trait Values {
    /// A variable without arguments.
    fn plain(&self, variable: Plain) -> Option<String>;
    /// A field of the request: what is none in HTTP, such as `:path`, and any field where an answer is changed.
    fn request(&self, name: &str) -> Option<String>;
    /// A field of the answer that is none in HTTP (`:status`), and any field where a request is changed.
    fn response(&self, name: &str) -> Option<String>;
}

/// Knows nothing: every variable is empty.
#[derive(Debug, Clone, Copy)]
pub struct NoValues;

impl Values for NoValues {
    fn plain(&self, _: Plain) -> Option<String> {
        None
    }

    fn request(&self, _: &str) -> Option<String> {
        None
    }

    fn response(&self, _: &str) -> Option<String> {
        None
    }
}

/// Which message is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Request,
    Response,
}

impl From<&HeaderChanges> for HeaderOperations {
    /// A value that is no template stands for itself: the dialect has refused what is wrong.
    fn from(changes: &HeaderChanges) -> HeaderOperations {
        let templates = |list: &[(HeaderName, HeaderValue)]| -> Vec<(HeaderName, Template)> {
            let template = |value: &HeaderValue| {
                let parsed = std::str::from_utf8(value.as_bytes()).ok().map(Template::parse);
                match parsed {
                    Some(Ok(template)) => template,
                    _ => Template::Fixed(value.clone()),
                }
            };
            let mut list: Vec<_> = list.iter().map(|(name, value)| (name.clone(), template(value))).collect();
            list.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
            list
        };
        let mut remove = changes.remove.clone();
        remove.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        HeaderOperations { remove, set: templates(&changes.set), add: templates(&changes.add) }
    }
}

impl HeaderOperations {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// Whether a value differs from message to message: who changes an answer must have kept what it says then.
    pub fn has_variables(&self) -> bool {
        let has = |(_, template): &(HeaderName, Template)| matches!(template, Template::Pieces(_));
        self.set.iter().any(has) || self.add.iter().any(has)
    }

    /// Changes a request. `values` has what the request's fields do not: `:path` and the like, addresses, names.
    pub fn apply_to_request(&self, headers: &mut HeaderMap, values: &dyn Values) {
        self.apply(headers, values, Side::Request);
    }

    /// Changes a response. `values` has what the response's fields do not.
    pub fn apply_to_response(&self, headers: &mut HeaderMap, values: &dyn Values) {
        self.apply(headers, values, Side::Response);
    }

    /// All values are found before any field is written, as Envoy does.
    fn apply(&self, headers: &mut HeaderMap, values: &dyn Values, side: Side) {
        for name in &self.remove {
            headers.remove(name);
        }
        if self.set.is_empty() && self.add.is_empty() {
            return;
        }
        let found = |list: &[(HeaderName, Template)]| -> Vec<(HeaderName, HeaderValue)> {
            let own = |name: &str| text(headers.get(name)?);
            let look = |variable: &Variable| match variable {
                Variable::Plain(plain) => values.plain(*plain),
                Variable::Empty(_) => None,
                Variable::Request(field) if side == Side::Request => {
                    field.value(|name| own(name).or_else(|| values.request(name)))
                }
                Variable::Request(field) => field.value(|name| values.request(name)),
                Variable::Response(field) if side == Side::Response => {
                    field.value(|name| own(name).or_else(|| values.response(name)))
                }
                Variable::Response(field) => field.value(|name| values.response(name)),
            };
            let value =
                |(name, template): &(HeaderName, Template)| Some((name.clone(), template.value(&look)?));
            list.iter().filter_map(value).collect()
        };
        let (set, add) = (found(&self.set), found(&self.add));
        for (name, value) in set {
            headers.insert(name, value);
        }
        for (name, value) in add {
            headers.append(name, value);
        }
    }
}

/// The value of a field as text; `None` for bytes that are none.
pub fn text(value: &HeaderValue) -> Option<String> {
    Some(std::str::from_utf8(value.as_bytes()).ok()?.to_owned())
}

impl fmt::Display for HeaderOperations {
    /// `removes a; sets b to x; adds c: y`; `nothing` where nothing changes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let removed = self.remove.iter().map(|name| format!("removes {name}"));
        let set = self.set.iter().map(|(name, value)| format!("sets {name} to {value}"));
        let added = self.add.iter().map(|(name, value)| format!("adds {name}: {value}"));
        let words: Vec<_> = removed.chain(set).chain(added).collect();
        if words.is_empty() { f.write_str("nothing") } else { f.write_str(&words.join("; ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Knows the path.
    struct Path;

    impl Values for Path {
        fn plain(&self, _: Plain) -> Option<String> {
            None
        }

        fn request(&self, name: &str) -> Option<String> {
            (name == ":path").then(|| "/p".to_owned())
        }

        fn response(&self, _: &str) -> Option<String> {
            None
        }
    }

    #[test]
    fn removals_come_first_and_additions_last() {
        let name = HeaderName::from_static("x");
        let changes = HeaderChanges {
            remove: vec![name.clone()],
            set: vec![(name.clone(), HeaderValue::from_static("set"))],
            add: vec![(name.clone(), HeaderValue::from_static("added"))],
        };
        let mut headers = HeaderMap::new();
        headers.append(&name, HeaderValue::from_static("old"));
        HeaderOperations::from(&changes).apply_to_request(&mut headers, &NoValues);
        assert_eq!(headers.get_all(&name).iter().collect::<Vec<_>>(), ["set", "added"]);
    }

    #[test]
    fn values_are_of_the_message_and_empty_ones_are_left_out() {
        let field =
            |name: &'static str, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let changes = HeaderChanges {
            set: vec![
                field("x-b", "%REQ(x-user)%/%REQ(:path)%"),
                field("x-a", "%REQ(x-nobody?x-user):2%"),
                field("x-first", "%REQ(:path?x-user)%"),
                field("x-kept", "%REQ(x-nobody)%"),
                field("x-percent", "100%%"),
                field("x-no-template", "100% sure"),
            ],
            ..HeaderChanges::default()
        };
        let operations = HeaderOperations::from(&changes);
        assert!(operations.set.is_sorted_by_key(|(name, _)| name.as_str()));
        let mut headers = HeaderMap::new();
        headers.insert("x-user", "jason".parse().unwrap());
        headers.insert("x-kept", "old".parse().unwrap());
        operations.apply_to_request(&mut headers, &Path);
        for (name, expected) in [
            ("x-b", "jason//p"),
            ("x-a", "ja"),
            ("x-first", "/p"),
            ("x-kept", "old"),
            ("x-percent", "100%"),
            ("x-no-template", "100% sure"),
        ] {
            assert_eq!(headers.get(name).map(|value| value.to_str().unwrap()), Some(expected), "{name}");
        }
    }

    #[test]
    fn operations_in_words() {
        let name = HeaderName::from_static("x");
        let changes = HeaderChanges {
            remove: vec![name.clone()],
            add: vec![(name, HeaderValue::from_static("%PROTOCOL%"))],
            ..HeaderChanges::default()
        };
        assert_eq!(HeaderOperations::from(&changes).to_string(), "removes x; adds x: %PROTOCOL%");
    }
}
