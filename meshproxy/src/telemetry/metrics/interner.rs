//! Numbers in the place of values that are told again and again, within a bound.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::telemetry::labels::Numbered;

/// So many different peers and services are told apart at a time; what is beyond is told as `other`. Peers name
/// themselves, so there must be a bound.
pub(super) const MOST_PARTIES: usize = 8192;

/// Numbers of the values that are always there: nothing is known, and too many are.
const UNKNOWN: u32 = 0;
const OTHER: u32 = 1;

/// Gives equal values one number, up to a bound. A value that nobody holds any more and nobody asks for is forgotten;
/// its number is not given again.
pub(super) struct Interner<T> {
    numbers: HashMap<Arc<T>, u32, RandomState>,
    values: HashMap<u32, Known<T>, RandomState>,
    unknown: Arc<T>,
    next: u32,
    /// How often a value was told as `other`.
    pub(super) overflowed: u64,
}

struct Known<T> {
    value: Arc<T>,
    /// Looks at which nobody held it and nobody had asked for it.
    idle: u32,
}

impl<T: Eq + Hash> Interner<T> {
    pub(super) fn new(unknown: T, other: T) -> Interner<T> {
        let unknown = Arc::new(unknown);
        let mut interner = Interner {
            numbers: HashMap::default(),
            values: HashMap::default(),
            unknown: Arc::clone(&unknown),
            next: UNKNOWN,
            overflowed: 0,
        };
        interner.add(unknown);
        interner.add(Arc::new(other));
        interner
    }

    pub(super) fn number(&mut self, value: T) -> Numbered<T> {
        if let Some(number) = self.numbers.get(&value) {
            return self.numbered(*number);
        }
        if self.values.len() >= MOST_PARTIES || self.next == u32::MAX {
            self.overflowed += 1;
            return self.numbered(OTHER);
        }
        self.add(Arc::new(value))
    }

    fn add(&mut self, value: Arc<T>) -> Numbered<T> {
        let number = self.next;
        self.next += 1;
        self.numbers.insert(Arc::clone(&value), number);
        self.values.insert(number, Known { value: Arc::clone(&value), idle: 0 });
        Numbered { number, value }
    }

    pub(super) fn unknown(&mut self) -> Numbered<T> {
        self.numbered(UNKNOWN)
    }

    /// The value of a number; the unknown one where it was forgotten.
    pub(super) fn value(&mut self, number: u32) -> Arc<T> {
        self.numbered(number).value
    }

    fn numbered(&mut self, number: u32) -> Numbered<T> {
        match self.values.get_mut(&number) {
            Some(known) => {
                known.idle = 0;
                Numbered { number, value: Arc::clone(&known.value) }
            }
            None => Numbered { number: UNKNOWN, value: Arc::clone(&self.unknown) },
        }
    }

    /// Looks at all values; forgets those that nobody held or asked for at so many looks.
    pub(super) fn forget(&mut self, most_idle: u32) {
        let numbers = &mut self.numbers;
        self.values.retain(|number, known| {
            // The map of numbers and this one.
            let is_held = Arc::strong_count(&known.value) > 2 || *number <= OTHER;
            known.idle = if is_held { 0 } else { known.idle.saturating_add(1) };
            let stays = known.idle <= most_idle;
            if !stays {
                numbers.remove(&known.value);
            }
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_bounded_and_forgotten() {
        let mut interner = Interner::new("unknown".to_owned(), "other".to_owned());
        let held = interner.number("held".to_owned());
        assert_eq!(interner.number("held".to_owned()).number, held.number);
        for index in 0..MOST_PARTIES {
            interner.number(index.to_string());
        }
        assert_eq!(*interner.number("late".to_owned()).value, "other");
        assert!(interner.overflowed > 0);
        (0..3).for_each(|_| interner.forget(1));
        let late = interner.number("late".to_owned());
        assert_eq!(*late.value, "late");
        assert_eq!(*interner.value(held.number), "held");
        assert_eq!(*interner.value(held.number + 1), "unknown");
        assert_eq!(*interner.unknown().value, "unknown");
    }
}
