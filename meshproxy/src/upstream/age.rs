//! How old the connections of a data thread become. Each has its own age by chance, so that they do not end together.

use std::cell::RefCell;
use std::time::Duration;

use mesh_core::resilience::age;
use mesh_core::vocab::random::Random;
use metrics::Counter;

/// How long one connection takes requests.
#[derive(Debug)]
pub struct Age {
    /// So long.
    pub most: Duration,
    /// Counts those that have got so old.
    pub retired: Counter,
}

/// Hands out ages.
#[derive(Debug)]
pub struct Ages {
    most: Option<Duration>,
    look: Duration,
    random: RefCell<Random>,
    retired: Counter,
}

impl Ages {
    /// Ages up to `most`, where there is a limit. Idle connections are looked at once in each `look`.
    pub fn new(most: Option<Duration>, look: Duration, retired: Counter) -> Ages {
        Ages { most, look, random: RefCell::new(Random::seeded(rand::random())), retired }
    }

    /// The age of a new connection that many exchanges share.
    pub fn age(&self) -> Option<Age> {
        let most = age::retirement(self.most?, &mut self.random.borrow_mut());
        Some(Age { most, retired: self.retired.clone() })
    }

    /// The age of one of which it is said how old it becomes.
    pub fn exactly(&self, most: Duration) -> Age {
        Age { most, retired: self.retired.clone() }
    }

    /// The last look at which a connection that is made now may serve another exchange.
    pub fn last_look(&self, now: u32) -> u32 {
        let Some(most) = self.most else { return u32::MAX };
        let age = age::retirement(most, &mut self.random.borrow_mut());
        let looks = age.as_millis() / self.look.as_millis().max(1);
        now.saturating_add(u32::try_from(looks).unwrap_or(u32::MAX))
    }

    /// So many have got too old.
    pub fn count(&self, connections: usize) {
        self.retired.increment(connections as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_counted_in_looks() {
        let ages = |most| Ages::new(most, Duration::from_secs(15), Counter::noop());
        assert_eq!(ages(None).last_look(7), u32::MAX);
        assert!(ages(None).age().is_none());
        assert!((39..=47).contains(&ages(Some(Duration::from_secs(600))).last_look(7)));
        assert_eq!(ages(Some(Duration::from_secs(1))).last_look(7), 7);
    }
}
