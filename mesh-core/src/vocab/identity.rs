//! Trust domain and SPIFFE ID (SPIFFE-ID standard, sections 2 and 3).

use std::fmt;

use super::name::{Text, check_label, check_subdomain};

/// Why a SPIFFE ID was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not of the form `spiffe://DOMAIN/PATH`.
    #[error("{0:?} is not a SPIFFE ID")]
    Shape(String),
    /// Longer than 2048 bytes (SPIFFE-ID section 2.3).
    #[error("a SPIFFE ID has at most 2048 bytes")]
    TooLong,
}

/// The root of names: `cluster.local`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Text);

impl TrustDomain {
    /// Accepts lower-case letters, digits, `.`, `-` and `_`, at most 255 bytes.
    pub fn new(name: &str) -> Result<TrustDomain, IdentityError> {
        let fits = !name.is_empty() && name.len() <= 255;
        let shape = name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_'));
        if fits && shape { Ok(TrustDomain(name.into())) } else { Err(IdentityError::Shape(name.to_owned())) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How the certificates of one host are told from those of others: their serial numbers begin with it.
pub type Mark = [u8; 8];

/// A name in a trust domain, kept as its text `spiffe://DOMAIN/PATH`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    text: Text,
    domain_end: usize,
}

const SCHEME: &str = "spiffe://";

impl SpiffeId {
    /// Parses strictly: no query, fragment, userinfo, port, percent sign, empty, `.` or `..` segment.
    pub fn parse(text: &str) -> Result<SpiffeId, IdentityError> {
        if text.len() > 2048 {
            return Err(IdentityError::TooLong);
        }
        let shape = || IdentityError::Shape(text.to_owned());
        let rest = text.strip_prefix(SCHEME).ok_or_else(shape)?;
        let (domain, path) = rest.split_once('/').ok_or_else(shape)?;
        TrustDomain::new(domain).map_err(|_| shape())?;
        let segment = |s: &str| {
            !s.is_empty()
                && s != "."
                && s != ".."
                && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        };
        if !path.split('/').all(segment) {
            return Err(shape());
        }
        Ok(SpiffeId { text: text.into(), domain_end: SCHEME.len() + domain.len() })
    }

    /// The identity of a workload: `spiffe://TD/ns/NAMESPACE/sa/ACCOUNT`.
    pub fn workload(domain: &TrustDomain, namespace: &str, account: &str) -> Result<SpiffeId, IdentityError> {
        SpiffeId::parse(&format!("{SCHEME}{domain}/ns/{namespace}/sa/{account}"))
    }

    /// The identity of a host: `spiffe://TD/mesh/node/NAME`. Never valid as a workload peer.
    pub fn node(domain: &TrustDomain, name: &str) -> Result<SpiffeId, IdentityError> {
        SpiffeId::parse(&format!("{SCHEME}{domain}/mesh/node/{name}"))
    }

    /// The identity of the control plane: `spiffe://TD/mesh/control`. Never valid as a workload peer.
    pub fn control(domain: &TrustDomain) -> SpiffeId {
        let text = format!("{SCHEME}{domain}/mesh/control");
        SpiffeId { domain_end: SCHEME.len() + domain.as_str().len(), text: text.into() }
    }

    /// The whole text, scheme included.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The text shared, for keys and labels.
    pub fn text(&self) -> &Text {
        &self.text
    }

    /// The text without `spiffe://`: how AuthorizationPolicy principals are written.
    pub fn principal(&self) -> &str {
        &self.text[SCHEME.len()..]
    }

    /// The trust domain's name.
    pub fn trust_domain(&self) -> &str {
        &self.text[SCHEME.len()..self.domain_end]
    }

    /// The path without its leading slash.
    pub fn path(&self) -> &str {
        &self.text[self.domain_end + 1..]
    }

    /// Namespace and service account, if this is the identity of a workload.
    pub fn account(&self) -> Option<(&str, &str)> {
        let mut parts = self.path().split('/');
        let account = match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("ns"), Some(namespace), Some("sa"), Some(account)) => (namespace, account),
            _ => return None,
        };
        parts.next().is_none().then_some(account)
    }

    /// The node's name, if this is the identity of a node.
    pub fn node_name(&self) -> Option<&str> {
        self.path().strip_prefix("mesh/node/").filter(|name| !name.contains('/'))
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A namespace and a service account: what an operator allows a node to be, and what a workload is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Account {
    /// Namespace.
    pub namespace: Text,
    /// Name of the service account.
    pub name: Text,
}

impl Account {
    /// Parses `NS/NAME`; a bare `NAME` is in `default`.
    pub fn parse(text: &str) -> Result<Account, IdentityError> {
        let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
        let valid = check_label(namespace).is_ok() && check_subdomain(name).is_ok();
        if !valid {
            return Err(IdentityError::Shape(text.to_owned()));
        }
        Ok(Account { namespace: namespace.into(), name: name.into() })
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_workload_identity() {
        let id = SpiffeId::parse("spiffe://cluster.local/ns/default/sa/reviews").unwrap();
        assert_eq!(id.trust_domain(), "cluster.local");
        assert_eq!(id.principal(), "cluster.local/ns/default/sa/reviews");
        assert_eq!(id.account(), Some(("default", "reviews")));
        assert_eq!(id.node_name(), None);
    }

    #[test]
    fn malformed_ids_are_refused() {
        for bad in [
            "spiffe://td",
            "spiffe:///ns/a",
            "spiffe://td/",
            "spiffe://td/ns//sa",
            "spiffe://td/a%00",
            "spiffe://td/a?b",
            "spiffe://td/../a",
            "spiffe://TD/a",
            "spiffe://u@td/a",
            "spiffe://td:1/a",
            "https://td/a",
            "spiffe://td/a\0",
        ] {
            assert!(SpiffeId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nodes_and_control_are_not_workloads() {
        let domain = TrustDomain::new("cluster.local").unwrap();
        assert_eq!(SpiffeId::node(&domain, "h1").unwrap().account(), None);
        assert_eq!(SpiffeId::node(&domain, "h1").unwrap().node_name(), Some("h1"));
        assert_eq!(SpiffeId::control(&domain).account(), None);
    }
}
