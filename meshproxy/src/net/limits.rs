//! How much of everything a proxy takes, and how long it waits: defaults that are right for a laptop and a fleet, and
//! flags for who knows better.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What operators tune.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Accepted connections.
    pub connections: usize,
    /// Connections of one proven identity.
    pub of_identity: usize,
    /// Times of clients.
    pub patience: Patience,
}

/// How long a client of this host may stand still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// In the middle of a head, a preface or a frame.
    pub head: Duration,
    /// In the middle of a body, while the client is waited for. Streams of HTTP/2 may be silent as long as they like.
    pub body: Duration,
    /// Without a request, in HTTP/1.
    pub idle: Duration,
    /// Without a request, in HTTP/2.
    pub idle_http2: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { connections: 10_000, of_identity: 1_000, patience: Patience::default() }
    }
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            head: Duration::from_secs(10),
            body: Duration::from_secs(60),
            idle: Duration::from_secs(60),
            idle_http2: Duration::from_secs(300),
        }
    }
}

/// Connections by proven identity. Asked once a connection.
#[derive(Debug, Default)]
pub struct Identities(Mutex<HashMap<Arc<str>, usize>>);

/// One of the connections that an identity may have; given back when it is dropped.
#[derive(Debug)]
pub struct Counted {
    all: Arc<Identities>,
    identity: Arc<str>,
}

impl Identities {
    /// A place for another connection of this identity. `None` if it has `most`.
    pub fn enter(self: &Arc<Identities>, identity: &str, most: usize) -> Option<Counted> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let identity = match counts.get_key_value(identity) {
            Some((_, count)) if *count >= most => return None,
            Some((identity, _)) => Arc::clone(identity),
            None => identity.into(),
        };
        *counts.entry(Arc::clone(&identity)).or_default() += 1;
        drop(counts);
        Some(Counted { all: Arc::clone(self), identity })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.identity) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.identity);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_has_so_many_places() {
        let all = Arc::new(Identities::default());
        let first = all.enter("a", 2).unwrap();
        let second = all.enter("a", 2).unwrap();
        assert!(all.enter("a", 2).is_none());
        assert!(all.enter("b", 2).is_some());
        drop(first);
        assert!(all.enter("a", 2).is_some());
        drop(second);
        assert!(all.0.lock().unwrap().is_empty());
    }
}
