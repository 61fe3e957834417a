//! Jittered waiting between attempts, with a ceiling.

use std::time::Duration;

use rand::Rng;

const FIRST: Duration = Duration::from_millis(200);
const CEILING: Duration = Duration::from_secs(10);

/// How long to wait before the next attempt.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Backoff {
    /// A backoff before its first attempt.
    pub fn new() -> Backoff {
        Backoff { next: FIRST }
    }

    /// The next wait: between half of the step and the whole of it; the step doubles up to the ceiling.
    pub fn wait(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(CEILING);
        step.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// An attempt succeeded.
    pub fn reset(&mut self) {
        self.next = FIRST;
    }
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_ceiling_and_start_again() {
        let mut backoff = Backoff::new();
        let first = backoff.wait();
        assert!(first >= FIRST / 2 && first <= FIRST);
        for _ in 0..20 {
            assert!(backoff.wait() <= CEILING);
        }
        assert!(backoff.wait() >= CEILING / 2);
        backoff.reset();
        assert!(backoff.wait() <= FIRST);
    }
}
