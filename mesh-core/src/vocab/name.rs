//! Validated names and the keys made of them.

use std::fmt;
use std::sync::Arc;

/// A shared, immutable piece of text: what names are made of.
pub type Text = Arc<str>;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing at all.
    #[error("name is empty")]
    Empty,
    /// Longer than the standard allows.
    #[error("{} is longer than {limit} characters", cut(name))]
    TooLong {
        /// The name as given.
        name: String,
        /// The longest that is allowed.
        limit: usize,
    },
    /// A character, or a place for one, that the standard does not allow.
    #[error(
        "{} must consist of lower-case letters, digits, '-' and '.', and start and end with a letter or digit",
        cut(.0)
    )]
    Shape(String),
}

/// Most characters of a wrong name that are repeated.
const LONGEST_QUOTE: usize = 80;

/// The name in quotes, cut if it is long: anything may stand where a name is wanted.
fn cut(name: &str) -> String {
    match name.char_indices().nth(LONGEST_QUOTE) {
        Some((end, _)) => format!("{:?}...", &name[..end]),
        None => format!("{name:?}"),
    }
}

/// Checks an RFC 1123 label: at most 63 of `a-z0-9-`, no leading or trailing hyphen.
pub fn check_label(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > 63 {
        return Err(NameError::TooLong { name: name.to_owned(), limit: 63 });
    }
    let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = name.as_bytes();
    let inner = bytes.iter().all(|&b| edge(b) || b == b'-');
    if inner && edge(bytes[0]) && edge(bytes[bytes.len() - 1]) {
        return Ok(());
    }
    Err(NameError::Shape(name.to_owned()))
}

/// Checks an RFC 1123 subdomain: labels joined by dots, at most 253 characters. The names of resources.
pub fn check_subdomain(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > 253 {
        return Err(NameError::TooLong { name: name.to_owned(), limit: 253 });
    }
    for label in name.split('.') {
        check_label(label).map_err(|_| NameError::Shape(name.to_owned()))?;
    }
    Ok(())
}

/// Whether `pattern` (a host or a wildcard) holds `host`. `*.foo.com` does not hold `foo.com`.
pub fn covers(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => host.ends_with(suffix),
        None => pattern == host,
    }
}

/// A service port of a host: what a client addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServicePort {
    /// Fully qualified host name, lower case.
    pub host: Text,
    /// Port number of the service.
    pub port: u16,
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// `outbound|PORT|SUBSET|HOST`: the name that Istio and Envoy give a destination in logs and metrics.
pub fn cluster_name(port: u16, subset: Option<&str>, host: &str) -> String {
    format!("outbound|{port}|{}|{host}", subset.unwrap_or(""))
}

/// Names a destination: a service port, a subset of it or none, and the view of the clients it is meant for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DestinationKey {
    /// Fully qualified host name, lower case.
    pub host: Text,
    /// Port number of the service.
    pub port: u16,
    /// Subset of a DestinationRule.
    pub subset: Option<Text>,
    /// The view whose callers use it, because they find other DestinationRules than the rest. `None` serves
    /// all others.
    pub scope: Option<Text>,
}

impl DestinationKey {
    /// The name that Istio and Envoy give it in logs and metrics: `outbound|PORT|SUBSET|HOST`.
    pub fn cluster(&self) -> String {
        cluster_name(self.port, self.subset.as_deref(), &self.host)
    }

    /// The server name by which Istio's proxies ask one another for it: `outbound_.PORT_.SUBSET_.HOST`.
    pub fn server_name(&self) -> String {
        format!("outbound_.{}_.{}_.{}", self.port, self.subset.as_deref().unwrap_or(""), self.host)
    }
}

impl fmt::Display for DestinationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cluster())?;
        match &self.scope {
            Some(namespace) => write!(f, "@{namespace}"),
            None => Ok(()),
        }
    }
}

/// Names a workload.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkloadKey {
    /// Its namespace.
    pub namespace: Text,
    /// Its name, unique in the namespace.
    pub name: Text,
}

impl fmt::Display for WorkloadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_rfc_1123() {
        for good in ["a", "reviews", "reviews-v1", "0", "a.b-c.d"] {
            assert!(check_subdomain(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a..b", ".a", "a/b", &"a".repeat(64)] {
            assert!(check_subdomain(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_wrong_name_is_repeated_in_part() {
        for wrong in ["é".repeat(10_000), "a".repeat(10_000)] {
            let said = check_label(&wrong).expect_err("wrong").to_string();
            assert!(said.len() < 400, "{said}");
        }
    }

    #[test]
    fn cluster_names_are_istio_s() {
        let key = DestinationKey {
            host: "reviews.default.svc.cluster.local".into(),
            port: 9080,
            subset: Some("v1".into()),
            scope: None,
        };
        assert_eq!(key.cluster(), "outbound|9080|v1|reviews.default.svc.cluster.local");
        assert_eq!(key.server_name(), "outbound_.9080_.v1_.reviews.default.svc.cluster.local");
        let whole = DestinationKey { subset: None, ..key };
        assert_eq!(whole.server_name(), "outbound_.9080_._.reviews.default.svc.cluster.local");
    }
}
