//! How long a node's registration lives without a word from it.
//!
//! ```text
//!  renew ──▶ alive until now + lease ──(no word)──▶ expired, named once
//! ```
//!
//! After a start every stored registration begins a full lease, so that the first proxy to come back does not get a
//! mesh without the others.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// How long a registration lives. Long enough for a proxy to restart or meshd to be replaced, short enough for a dead
/// host to leave the mesh before anyone asks.
pub const LEASE: Duration = Duration::from_secs(30);

/// The leases of all nodes.
#[derive(Debug, Default)]
pub struct Leases {
    ends: BTreeMap<String, Instant>,
}

impl Leases {
    /// The node has spoken.
    pub fn renew(&mut self, node: &str, now: Instant) {
        match self.ends.get_mut(node) {
            Some(end) => *end = now + LEASE,
            None => {
                self.ends.insert(node.to_owned(), now + LEASE);
            }
        }
    }

    /// The node is gone for good.
    pub fn forget(&mut self, node: &str) {
        self.ends.remove(node);
    }

    /// Nodes whose lease has run out; each is named once.
    pub fn expired(&mut self, now: Instant) -> Vec<String> {
        let gone: Vec<String> =
            self.ends.iter().filter(|(_, end)| **end <= now).map(|(node, _)| node.clone()).collect();
        for node in &gone {
            self.ends.remove(node);
        }
        gone
    }

    /// When the next lease runs out.
    pub fn next(&self) -> Option<Instant> {
        self.ends.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_once_and_a_word_renews_it() {
        let start = Instant::now();
        let mut leases = Leases::default();
        leases.renew("a", start);
        leases.renew("b", start);
        leases.renew("a", start + LEASE / 2);
        assert_eq!(leases.next(), Some(start + LEASE));
        assert_eq!(leases.expired(start + LEASE), ["b"]);
        assert!(leases.expired(start + LEASE).is_empty());
        assert_eq!(leases.expired(start + LEASE * 2), ["a"]);
        assert_eq!(leases.next(), None);
    }
}
