//! How long a node's registration lives without a word from it.
//!
//! ```text
//!  renew ──▶ alive until now + lease ──(no word)──▶ expired, named once
//! ```
//!
//! After a start every stored registration begins a full lease, and no shorter one than proxies may take to try again, so
//! that the first proxy to come back does not get a mesh without the others.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// The shortest first lease after a start: proxies that found meshd away for long try again every ten seconds.
const FIRST: Duration = Duration::from_secs(30);

/// The leases of all nodes.
#[derive(Debug)]
pub struct Leases {
    lease: Duration,
    ends: BTreeMap<String, Instant>,
}

impl Leases {
    /// No node yet; each lives so long without a word.
    pub fn new(lease: Duration) -> Leases {
        Leases { lease, ends: BTreeMap::new() }
    }

    /// A node that was there before a start, and may not know yet that we are back.
    pub fn begin(&mut self, node: &str, now: Instant) {
        self.ends.insert(node.to_owned(), now + self.lease.max(FIRST));
    }

    /// The node has spoken.
    pub fn renew(&mut self, node: &str, now: Instant) {
        match self.ends.get_mut(node) {
            Some(end) => *end = now + self.lease,
            None => {
                self.ends.insert(node.to_owned(), now + self.lease);
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

    const LEASE: Duration = Duration::from_secs(10);

    #[test]
    fn a_lease_ends_once_and_a_word_renews_it() {
        let start = Instant::now();
        let mut leases = Leases::new(LEASE);
        leases.renew("a", start);
        leases.renew("b", start);
        leases.renew("a", start + LEASE / 2);
        assert_eq!(leases.next(), Some(start + LEASE));
        assert_eq!(leases.expired(start + LEASE), ["b"]);
        assert!(leases.expired(start + LEASE).is_empty());
        assert_eq!(leases.expired(start + LEASE * 2), ["a"]);
        assert_eq!(leases.next(), None);
        leases.begin("c", start);
        assert!(leases.expired(start + FIRST - Duration::from_secs(1)).is_empty());
        leases.renew("c", start + FIRST / 2);
        assert_eq!(leases.expired(start + FIRST / 2 + LEASE), ["c"]);
    }
}
