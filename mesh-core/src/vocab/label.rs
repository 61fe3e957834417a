//! Labels and selectors.

use std::collections::BTreeMap;

use super::name::Text;

/// Labels of a workload or service, sorted by key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Labels(BTreeMap<Text, Text>);

impl Labels {
    /// The value of a label.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|value| &**value)
    }

    /// Sets a label, replacing what was there.
    pub fn set(&mut self, key: impl Into<Text>, value: impl Into<Text>) {
        self.0.insert(key.into(), value.into());
    }

    /// All pairs, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&Text, &Text)> {
        self.0.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether each of these pairs is also in `labels`: Istio's selector rule. No pair selects everything.
    pub fn selects(&self, labels: &Labels) -> bool {
        self.0.iter().all(|(key, value)| labels.0.get(key) == Some(value))
    }

    /// These labels with those of `over` winning.
    pub fn merged_with(&self, over: &Labels) -> Labels {
        let mut merged = self.clone();
        merged.0.extend(over.0.iter().map(|(key, value)| (key.clone(), value.clone())));
        merged
    }

    /// The canonical name of a workload's service (Istio's `canonical_service`), without the fall-back.
    pub fn canonical_name(&self) -> Option<&str> {
        ["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"]
            .iter()
            .find_map(|key| self.value(key))
    }

    /// The canonical revision of a workload, `latest` where no label tells.
    pub fn canonical_revision(&self) -> &str {
        ["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"]
            .iter()
            .find_map(|key| self.value(key))
            .unwrap_or("latest")
    }
}

impl<K: Into<Text>, V: Into<Text>> FromIterator<(K, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Labels {
        Labels(pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_a_subset_test() {
        let labels: Labels = [("app", "reviews"), ("version", "v1")].into_iter().collect();
        let check = |selector: &[(&str, &str)], expected: bool| {
            let selector: Labels = selector.iter().copied().collect();
            assert_eq!(selector.selects(&labels), expected, "{selector:?}");
        };
        check(&[], true);
        check(&[("app", "reviews")], true);
        check(&[("app", "reviews"), ("version", "v2")], false);
        check(&[("zone", "a")], false);
    }
}
