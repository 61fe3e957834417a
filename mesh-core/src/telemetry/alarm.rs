//! When a service's success has clearly fallen, so that what was seen of its requests is worth keeping.

use std::time::Duration;

/// The time that is looked at as one.
pub const STEP: Duration = Duration::from_secs(10);
/// So many steps are what it was like before.
const BEFORE: usize = 6;
/// Fewer requests say nothing.
const FEWEST: u64 = 20;
/// A success of so many per cent is good enough.
const GOOD: u64 = 95;
/// It must have fallen by so many points.
const POINTS: u64 = 5;

/// Requests of a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// All that had an outcome.
    pub total: u64,
    /// Those that failed.
    pub failed: u64,
}

impl Tally {
    /// Adds another time.
    pub fn add(&mut self, other: Tally) {
        self.total = self.total.saturating_add(other.total);
        self.failed = self.failed.saturating_add(other.failed);
    }

    fn good(self) -> u64 {
        self.total.saturating_sub(self.failed)
    }

    /// Per cent that did not fail; 100 of nothing.
    pub fn success(self) -> f64 {
        if self.total == 0 { 100.0 } else { self.good() as f64 * 100.0 / self.total as f64 }
    }
}

/// A fall of success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fall {
    /// The minute before.
    pub before: Tally,
    /// The step that has just ended.
    pub now: Tally,
}

/// What is known of one service.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    past: [Tally; BEFORE],
    next: usize,
}

impl Watch {
    /// A step is over; says whether success has clearly fallen in it.
    pub fn step(&mut self, now: Tally) -> Option<Fall> {
        let mut before = Tally::default();
        self.past.iter().for_each(|one| before.add(*one));
        self.past[self.next % BEFORE] = now;
        self.next = (self.next + 1) % BEFORE;
        (enough(now) && enough(before) && is_bad(now) && has_fallen(before, now))
            .then_some(Fall { before, now })
    }

    /// Whether nothing was seen for so long that it can be forgotten.
    pub fn is_idle(&self) -> bool {
        self.past.iter().all(|one| one.total == 0)
    }
}

fn enough(tally: Tally) -> bool {
    tally.total >= FEWEST
}

fn is_bad(tally: Tally) -> bool {
    u128::from(tally.good()) * 100 < u128::from(tally.total) * u128::from(GOOD)
}

/// Whether `good / total` is so many points less than it was.
fn has_fallen(before: Tally, now: Tally) -> bool {
    let [good_then, all_then, good_now, all_now] =
        [before.good(), before.total, now.good(), now.total].map(u128::from);
    (good_then * all_now).saturating_sub(good_now * all_then) * 100 >= u128::from(POINTS) * all_then * all_now
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_has_clearly_fallen() {
        let of = |total, failed| Tally { total, failed };
        for (before, now, expected) in [
            (of(100, 0), of(100, 6), true),
            (of(100, 0), of(100, 5), false),
            (of(100, 0), of(19, 19), false),
            (of(19, 0), of(100, 100), false),
            (of(20, 0), of(20, 20), true),
            (of(1000, 80), of(1000, 100), false),
            (of(1000, 80), of(1000, 130), true),
            (of(100, 100), of(100, 100), false),
            (of(1 << 50, 0), of(1 << 50, 1 << 50), true),
            (of(0, 0), of(100, 100), false),
            (of(100, 50), of(0, 0), false),
        ] {
            let mut watch = Watch::default();
            assert_eq!(watch.step(before), None, "{before:?}");
            let fall = watch.step(now);
            assert_eq!(fall, expected.then_some(Fall { before, now }), "{before:?} {now:?}");
        }
    }

    #[test]
    fn the_minute_before_moves_on() {
        let mut watch = Watch::default();
        assert_eq!(watch.step(Tally { total: 100, failed: 0 }), None);
        for _ in 0..BEFORE {
            watch.step(Tally::default());
        }
        assert!(watch.is_idle());
        assert_eq!(watch.step(Tally { total: 100, failed: 100 }), None, "nothing to compare with");
    }
}
