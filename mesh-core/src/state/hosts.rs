//! Short names, wildcards, and resources by the host they are for.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::resource::Resource;
use crate::vocab::name::Text;
use crate::vocab::origin::ResourceKey;

/// The DNS domain under which Services are named, whatever the trust domain is.
pub const DOMAIN: &str = "cluster.local";

/// The host of a Kubernetes Service.
pub fn service_host(name: &str, namespace: &str) -> Text {
    format!("{name}.{namespace}.svc.{DOMAIN}").into()
}

/// What a host means in a resource of `namespace`: one without a dot is a Service there, any other is verbatim.
pub fn resolve(host: &Text, namespace: &str) -> Text {
    let verbatim = host.contains(['.', ':']) || &**host == "*";
    if verbatim { host.clone() } else { service_host(host, namespace) }
}

/// Whether a host stands for several.
pub fn is_wildcard(host: &str) -> bool {
    host.starts_with('*')
}

pub use crate::matching::scope::overlap;
pub use crate::vocab::name::covers;

/// Resources by resolved host, each list by precedence.
#[derive(Debug, Clone, Default)]
pub struct HostTable {
    exact: BTreeMap<Text, Vec<Arc<Resource>>>,
    wildcard: BTreeMap<Text, Vec<Arc<Resource>>>,
    /// How many wildcards there are of each length: the only suffixes that a look-up must try.
    lengths: BTreeMap<usize, usize>,
}

impl HostTable {
    /// Adds a resource for a resolved host.
    pub(crate) fn add(&mut self, host: Text, resource: &Arc<Resource>) {
        let wildcard = is_wildcard(&host);
        let length = host.len();
        let table = if wildcard { &mut self.wildcard } else { &mut self.exact };
        let list = table.entry(host).or_default();
        if list.is_empty() && wildcard {
            *self.lengths.entry(length).or_default() += 1;
        }
        let place = list.partition_point(|other| other.meta.precedence() < resource.meta.precedence());
        if list.iter().all(|other| other.meta.key != resource.meta.key) {
            list.insert(place, resource.clone());
        }
    }

    /// Takes a resource out for a resolved host.
    pub(crate) fn remove(&mut self, host: &str, key: &ResourceKey) {
        let wildcard = is_wildcard(host);
        let table = if wildcard { &mut self.wildcard } else { &mut self.exact };
        let Some(list) = table.get_mut(host) else { return };
        list.retain(|resource| resource.meta.key != *key);
        if !list.is_empty() {
            return;
        }
        table.remove(host);
        if let Some(count) = self.lengths.get_mut(&host.len()).filter(|_| wildcard) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&host.len());
            }
        }
    }

    /// The resources for the most specific pattern that holds `host`: itself, else the longest wildcard.
    pub fn most_specific<'t>(&'t self, host: &'t str) -> &'t [Arc<Resource>] {
        self.by_specificity(host).next().unwrap_or_default()
    }

    /// The lists of every pattern that holds `host`, the most specific first.
    pub fn by_specificity<'t>(&'t self, host: &'t str) -> impl Iterator<Item = &'t [Arc<Resource>]> + 't {
        let exact = self.exact.get(host).map(Vec::as_slice);
        let mut pattern = String::new();
        let covering = self.lengths.keys().rev().filter_map(move |length| -> Option<&'t [Arc<Resource>]> {
            let start = (host.len() + 1).checked_sub(*length)?;
            pattern.clear();
            pattern.push('*');
            pattern.push_str(host.get(start..)?);
            self.wildcard.get(pattern.as_str()).map(Vec::as_slice)
        });
        exact.into_iter().chain(covering)
    }

    /// The resources whose host is exactly this one, a wildcard for itself.
    pub fn of(&self, host: &str) -> &[Arc<Resource>] {
        self.exact.get(host).or_else(|| self.wildcard.get(host)).map_or(&[], Vec::as_slice)
    }

    /// Every host and wildcard.
    pub fn hosts(&self) -> impl Iterator<Item = &Text> {
        self.exact.keys().chain(self.wildcard.keys())
    }

    /// Every wildcard.
    pub fn wildcards(&self) -> impl Iterator<Item = &Text> {
        self.wildcard.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_without_a_dot_are_short() {
        let check = |host: &str, expected: &str| assert_eq!(&*resolve(&host.into(), "prod"), expected);
        check("reviews", "reviews.prod.svc.cluster.local");
        check("reviews.prod", "reviews.prod");
        check("*", "*");
        check("*.com", "*.com");
        check("::1", "::1");
        check("10.0.0.1", "10.0.0.1");
    }

    #[test]
    fn wildcards_test_the_suffix() {
        let check = |pattern: &str, host: &str, expected: bool| {
            assert_eq!(covers(pattern, host), expected, "{pattern} {host}");
        };
        check("*.foo.com", "a.foo.com", true);
        check("*.foo.com", "a.b.foo.com", true);
        check("*.foo.com", "foo.com", false);
        check("*", "anything", true);
        check("foo.com", "foo.com", true);
        check("foo.com", "a.foo.com", false);
    }
}
