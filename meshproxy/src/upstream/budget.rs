//! How much of requests' bodies one data thread may keep: for another attempt, and for copies that are behind.

use std::cell::Cell;
use std::rc::Rc;

use metrics::Counter;

/// So many bytes of all bodies together are kept where memory is not scarce; beyond that a body is not kept, so not sent
/// again.
pub const MOST: usize = 64 * 1024 * 1024;

/// What is kept by one data thread.
#[derive(Debug)]
pub struct Budget {
    used: Cell<usize>,
    most: usize,
    refused: Counter,
}

/// A part of a budget; given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    budget: Rc<Budget>,
    taken: Cell<usize>,
}

impl Budget {
    /// A budget of `most` bytes, of which nothing is used; `refused` counts what did not fit.
    pub fn new(most: usize, refused: Counter) -> Rc<Budget> {
        Rc::new(Budget { used: Cell::new(0), most, refused })
    }

    /// A share with nothing in it.
    pub fn share(self: &Rc<Budget>) -> Share {
        Share { budget: Rc::clone(self), taken: Cell::new(0) }
    }
}

impl Share {
    /// Takes so many bytes more; `false` if they do not fit.
    pub fn take(&self, bytes: usize) -> bool {
        let used = self.budget.used.get().saturating_add(bytes);
        if used > self.budget.most {
            self.budget.refused.increment(1);
            return false;
        }
        self.budget.used.set(used);
        self.taken.set(self.taken.get() + bytes);
        true
    }

    /// Gives so many bytes back.
    pub fn give(&self, bytes: usize) {
        let given = bytes.min(self.taken.get());
        self.taken.set(self.taken.get() - given);
        self.budget.used.set(self.budget.used.get() - given);
    }

    /// What is in it.
    pub fn taken(&self) -> usize {
        self.taken.get()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give(self.taken.get());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_given_back() {
        let budget = Rc::new(Budget { used: Cell::new(0), most: 10, refused: Counter::noop() });
        let (one, other) = (budget.share(), budget.share());
        assert!(one.take(6) && !other.take(5) && other.take(4));
        one.give(2);
        assert!(other.take(2) && !other.take(1));
        drop(one);
        assert!(other.take(4));
        drop(other);
        assert_eq!(budget.used.get(), 0);
    }
}
