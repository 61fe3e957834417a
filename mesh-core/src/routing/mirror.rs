//! Copies of requests that nobody waits for (VirtualService `mirror`, `mirrors`).

use crate::vocab::name::{Text, cluster_name};
use crate::vocab::ratio::Ratio;

/// Where copies go, and how many.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mirror {
    /// Fully qualified host.
    pub host: Text,
    /// Service port.
    pub port: u16,
    /// Subset of the host's DestinationRule.
    pub subset: Option<Text>,
    /// Share of requests that are copied; never zero.
    pub share: Ratio,
}

impl Mirror {
    /// The name of its destination in logs: `outbound|PORT|SUBSET|HOST`, whether it exists or not.
    pub fn cluster(&self) -> String {
        cluster_name(self.port, self.subset.as_deref(), &self.host)
    }
}

/// The authority of a copy: `-shadow` is put behind the host, before any port.
pub fn shadow_authority(authority: &str) -> String {
    let port = match authority.rfind(':') {
        // Within the brackets of an IPv6 address a colon begins no port.
        Some(at) if !authority[at..].contains(']') => at,
        _ => authority.len(),
    };
    format!("{}-shadow{}", &authority[..port], &authority[port..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_marked_before_the_port() {
        for (authority, expected) in [
            ("foo.com:81", "foo.com-shadow:81"),
            ("foo.com", "foo.com-shadow"),
            ("[::1]:80", "[::1]-shadow:80"),
            ("[::1]", "[::1]-shadow"),
        ] {
            assert_eq!(shadow_authority(authority), expected);
        }
    }
}
