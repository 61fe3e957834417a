//! Short names, wildcards, and resources by the host they are for.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::resource::Resource;
use crate::vocab::name::Text;

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

/// Whether `pattern` (a host or a wildcard) holds `host`. `*.foo.com` does not hold `foo.com`.
pub fn covers(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => host.ends_with(suffix),
        None => pattern == host,
    }
}

/// Resources by resolved host, each list by precedence.
#[derive(Debug, Clone, Default)]
pub struct HostTable {
    exact: BTreeMap<Text, Vec<Arc<Resource>>>,
    wildcard: BTreeMap<Text, Vec<Arc<Resource>>>,
}

impl HostTable {
    /// Adds a resource for a resolved host.
    pub(crate) fn add(&mut self, host: Text, resource: &Arc<Resource>) {
        let table = if is_wildcard(&host) { &mut self.wildcard } else { &mut self.exact };
        let list = table.entry(host).or_default();
        let place = list.partition_point(|other| other.meta.precedence() < resource.meta.precedence());
        if list.get(place).is_none_or(|other| other.meta.key != resource.meta.key) {
            list.insert(place, resource.clone());
        }
    }

    /// The resources for the most specific pattern that holds `host`: itself, else the longest wildcard.
    pub fn most_specific(&self, host: &str) -> &[Arc<Resource>] {
        if let Some(list) = self.exact.get(host) {
            return list;
        }
        let covering = self.wildcard.iter().filter(|(pattern, _)| covers(pattern, host));
        covering.max_by_key(|(pattern, _)| pattern.len()).map_or(&[], |(_, list)| list)
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
