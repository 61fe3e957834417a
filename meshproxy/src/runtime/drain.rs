//! The graceful end: everybody hears of it, and the last one out is noticed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;

/// Tells that the process ends, and counts what is still open.
#[derive(Debug, Clone)]
pub struct Drain(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    ends: watch::Sender<bool>,
    open: AtomicUsize,
    closed: tokio::sync::Notify,
}

impl Default for Drain {
    fn default() -> Drain {
        Drain::new()
    }
}

impl Drain {
    /// Nothing ends yet.
    pub fn new() -> Drain {
        let shared = Shared {
            ends: watch::Sender::new(false),
            open: AtomicUsize::new(0),
            closed: tokio::sync::Notify::new(),
        };
        Drain(Arc::new(shared))
    }

    /// Begins the end.
    pub fn begin(&self) {
        self.0.ends.send_replace(true);
    }

    /// Whether it has begun.
    pub fn has_begun(&self) -> bool {
        *self.0.ends.borrow()
    }

    /// Resolves when the end begins.
    pub async fn begun(&self) {
        let mut ends = self.0.ends.subscribe();
        // The sender lives in `self`, so this cannot fail.
        drop(ends.wait_for(|ends| *ends).await);
    }

    /// Counts something open until it is dropped.
    pub fn hold(&self) -> Open {
        // Relaxed: only the count matters; nothing else is published by it.
        self.0.open.fetch_add(1, Ordering::Relaxed);
        Open(self.clone())
    }

    /// How much is open.
    pub fn open(&self) -> usize {
        self.0.open.load(Ordering::Relaxed)
    }

    /// Resolves when nothing is open any more, or after `limit`; says how much was left.
    pub async fn finished(&self, limit: Duration) -> usize {
        let empty = async {
            loop {
                let closed = self.0.closed.notified();
                if self.open() == 0 {
                    return;
                }
                closed.await;
            }
        };
        let _ = tokio::time::timeout(limit, empty).await;
        self.open()
    }
}

/// Something that is open.
#[derive(Debug)]
pub struct Open(Drain);

impl Drop for Open {
    fn drop(&mut self) {
        if self.0.0.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.0.closed.notify_waiters();
            self.0.0.closed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_last_one_out_is_noticed() {
        let drain = Drain::new();
        let open = drain.hold();
        assert_eq!(drain.finished(Duration::from_secs(1)).await, 1);
        drain.begin();
        drain.begun().await;
        drop(open);
        assert_eq!(drain.finished(Duration::from_secs(1)).await, 0);
    }
}
