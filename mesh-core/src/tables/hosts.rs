//! Hosts and wildcards -> what belongs to the most specific of them that holds a name.

use super::Index;
use super::affixes::{Affixes, Side};
use crate::vocab::name::Text;

/// Values by host: a name, `*.suffix`, or `*`.
#[derive(Debug, Default)]
pub(crate) struct Hosts<T> {
    names: Index<Text, T>,
    /// By what follows the `*`.
    wildcards: Affixes<T>,
}

impl<T> Hosts<T> {
    /// Arranges values; of one host the first counts.
    pub(crate) fn new(entries: impl IntoIterator<Item = (Text, T)>) -> Hosts<T> {
        let mut names = Index::default();
        let mut wildcards = Vec::new();
        for (host, value) in entries {
            match host.strip_prefix('*') {
                Some(suffix) => wildcards.push((suffix.into(), value)),
                None => {
                    names.entry(host).or_insert(value);
                }
            }
        }
        Hosts { names, wildcards: Affixes::new(Side::Back, wildcards) }
    }

    /// The value of a host itself.
    pub(crate) fn named(&self, host: &str) -> Option<&T> {
        self.names.get(host)
    }

    /// What `take` makes of the most specific host that holds a name and of which it makes something.
    pub(crate) fn most_specific<'h, R>(&'h self, name: &str, take: impl Fn(&'h T) -> Option<R>) -> Option<R> {
        let own = self.names.get(name).and_then(&take);
        if own.is_some() {
            return own;
        }
        let mut longest = None;
        // A wildcard stands for something, so that the suffix is never all of the name.
        self.wildcards.each(name.as_bytes().get(1..)?, |value| longest = take(value).or(longest.take()));
        longest
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::matching::authority::{host_matches, specificity};

    proptest! {
        #[test]
        fn the_most_specific_host_that_will_do(
            hosts in prop::collection::vec("(\\*)?(\\.?[ab]{1,2}){0,3}", 0..20), name in "[ab]{1,2}(\\.[ab]{1,2}){0,3}", refused in 0usize..4,
        ) {
            let refused = hosts.get(refused).cloned().unwrap_or_default();
            let table = Hosts::new(hosts.iter().map(|host| (Text::from(host.as_str()), host.clone())));
            let found = table.most_specific(&name, |host| (*host != refused).then_some(host));
            let holding = hosts.iter().filter(|host| **host != refused && host_matches(host, &name));
            prop_assert_eq!(found, holding.max_by_key(|host| specificity(host)));
        }
    }
}
