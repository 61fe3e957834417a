//! Changes of header fields.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Removals first, then sets, then additions, each in the order of the list (sorted by key when compiled).
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

    /// Carries the changes out.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        changes.apply(&mut headers);
        assert_eq!(headers.get_all(&name).iter().collect::<Vec<_>>(), ["set", "added"]);
    }
}
