//! Numbers in the place of values that are told again and again, within a bound.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::telemetry::labels::Numbered;

/// So many different peers and services are told apart; later ones count as unknown. Peers name themselves, so there
/// must be a bound.
pub(super) const MOST_PARTIES: usize = 8192;

/// Gives equal values one number, up to a bound; beyond it everything is the first value.
pub(super) struct Interner<T> {
    numbers: HashMap<Arc<T>, u32, RandomState>,
    pub(super) values: Vec<Arc<T>>,
}

impl<T> Default for Interner<T> {
    fn default() -> Interner<T> {
        Interner { numbers: HashMap::default(), values: Vec::new() }
    }
}

impl<T: Eq + Hash> Interner<T> {
    pub(super) fn number(&mut self, value: T) -> Numbered<T> {
        if let Some((known, number)) = self.numbers.get_key_value(&value) {
            return Numbered { number: *number, value: Arc::clone(known) };
        }
        if self.values.len() >= MOST_PARTIES {
            return self.first();
        }
        let number = self.values.len() as u32;
        let value = Arc::new(value);
        self.values.push(Arc::clone(&value));
        self.numbers.insert(Arc::clone(&value), number);
        Numbered { number, value }
    }

    pub(super) fn first(&self) -> Numbered<T> {
        Numbered { number: 0, value: self.value(0) }
    }

    pub(super) fn value(&self, number: u32) -> Arc<T> {
        Arc::clone(self.values.get(number as usize).unwrap_or(&self.values[0]))
    }
}
