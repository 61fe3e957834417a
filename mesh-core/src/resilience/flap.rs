//! Flap damping: who falls again and again is kept out for a growing time after it is back.
//!
//! ```text
//!            fall (counted)                rise
//!   up ───────────────────────▶ down ───────────────▶ up, held until now + hold(falls) ──▶ up
//!
//!   falls are forgotten once nothing has changed for the calm time, which begins when it is held no more
//! ```
//!
//! The first falls cost nothing: what is restarted or deployed is back at once. From then on the time doubles with each
//! fall, up to a longest one, so that nothing is kept out for ever. Times count from any fixed moment.

use std::time::Duration;

/// How flapping is damped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlapDamping {
    /// Falls that cost nothing.
    pub free: u32,
    /// How long it is kept out after the first fall that counts; zero turns damping off.
    pub hold: Duration,
    /// No longer than this.
    pub longest: Duration,
    /// Falls are forgotten when nothing has changed for so long.
    pub calm: Duration,
}

impl Default for FlapDamping {
    fn default() -> FlapDamping {
        FlapDamping {
            free: 2,
            hold: Duration::from_secs(10),
            longest: Duration::from_secs(300),
            calm: Duration::from_secs(60),
        }
    }
}

impl FlapDamping {
    /// How long one is kept out that comes back after so many falls.
    pub fn hold_after(&self, falls: u32) -> Duration {
        let Some(doublings) = falls.checked_sub(self.free.saturating_add(1)) else { return Duration::ZERO };
        let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
        self.hold.saturating_mul(factor).min(self.longest)
    }
}

/// What the past of one that falls and rises amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flaps {
    falls: u32,
    is_up: bool,
    /// Since when it is what it is.
    since: Duration,
}

impl Flaps {
    /// One that is up and never fell.
    pub fn new(now: Duration) -> Flaps {
        Flaps { falls: 0, is_up: true, since: now }
    }

    /// It has fallen; a second word of the same fall changes nothing.
    pub fn fall(&mut self, now: Duration, damping: &FlapDamping) {
        if !self.is_up {
            return;
        }
        let falls = if self.is_calm(now, damping) { 0 } else { self.falls };
        *self = Flaps { falls: falls.saturating_add(1), is_up: false, since: now };
    }

    /// It is back.
    pub fn rise(&mut self, now: Duration, damping: &FlapDamping) {
        if self.is_up {
            return;
        }
        let falls = if self.is_calm(now, damping) { 0 } else { self.falls };
        *self = Flaps { falls, is_up: true, since: now };
    }

    /// Falls that are not forgotten.
    pub fn falls(&self) -> u32 {
        self.falls
    }

    /// Until when it is kept out although it is up; `None` if it is not.
    pub fn held_until(&self, now: Duration, damping: &FlapDamping) -> Option<Duration> {
        let until = self.since.saturating_add(damping.hold_after(self.falls));
        (self.is_up && now < until).then_some(until)
    }

    /// Whether its past is of no account any more.
    pub fn is_calm(&self, now: Duration, damping: &FlapDamping) -> bool {
        let hold = if self.is_up { damping.hold_after(self.falls) } else { Duration::ZERO };
        self.falls == 0 || now.saturating_sub(self.since) >= hold.saturating_add(damping.calm)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_time_doubles_up_to_the_longest() {
        let damping = FlapDamping::default();
        let holds = [(0, 0), (1, 0), (2, 0), (3, 10), (4, 20), (5, 40), (7, 160), (8, 300), (400, 300)];
        for (falls, expected) in holds {
            assert_eq!(damping.hold_after(falls), seconds(expected), "{falls} falls");
        }
        let off = FlapDamping { hold: Duration::ZERO, ..damping };
        assert_eq!(off.hold_after(9), Duration::ZERO);
    }

    /// Each event is `(second, is_up)`; then whether it is kept out at a second, and until when.
    #[track_caller]
    fn check(events: &[(u64, bool)], at: u64, expected: Option<u64>) {
        let damping = FlapDamping::default();
        let mut flaps = Flaps::new(Duration::ZERO);
        for &(second, is_up) in events {
            match is_up {
                true => flaps.rise(seconds(second), &damping),
                false => flaps.fall(seconds(second), &damping),
            }
        }
        assert_eq!(flaps.held_until(seconds(at), &damping), expected.map(seconds), "{events:?} at {at}");
    }

    #[test]
    fn who_falls_again_and_again_is_kept_out_for_longer_and_longer() {
        let two = [(10, false), (12, true), (20, false), (22, true)];
        check(&two[..2], 12, None);
        check(&two, 22, None);
        let three = [&two[..], &[(30, false), (32, true)]].concat();
        check(&three, 32, Some(42));
        check(&three, 41, Some(42));
        check(&three, 42, None);
        let four = [&three[..], &[(50, false), (50, false), (51, true)]].concat();
        check(&four, 60, Some(71));
        // It fell while it was kept out.
        let five = [&four[..], &[(60, false), (61, true), (61, true)]].concat();
        check(&five, 62, Some(101));
        // One that is down is not held: it is out anyhow.
        check(&[&four[..], &[(60, false)]].concat(), 61, None);
    }

    #[test]
    fn what_lies_back_is_forgotten() {
        let three = [(0, false), (1, true), (2, false), (3, true), (4, false), (5, true)];
        // Held to 15, calm to 75.
        check(&[&three[..], &[(74, false), (75, true)]].concat(), 75, Some(95));
        check(&[&three[..], &[(75, false), (76, true)]].concat(), 76, None);
        // It was down for long: no flapping, either.
        check(&[&three[..5], &[(70, true)]].concat(), 70, None);
    }

    proptest! {
        #[test]
        fn nobody_is_kept_out_for_longer_than_the_longest_time(
            steps in proptest::collection::vec((0u64..200, any::<bool>()), 0..60),
            hold in 0u64..100,
            longest in 0u64..400,
        ) {
            let damping = FlapDamping { hold: seconds(hold), longest: seconds(longest), ..FlapDamping::default() };
            let mut flaps = Flaps::new(Duration::ZERO);
            let (mut now, mut fallen) = (0, 0);
            for (after, is_up) in steps {
                now += after;
                let before = flaps;
                match is_up {
                    true => flaps.rise(seconds(now), &damping),
                    false => flaps.fall(seconds(now), &damping),
                }
                fallen += u32::from(before != flaps && !is_up);
                prop_assert!(flaps.falls() <= fallen);
                match flaps.held_until(seconds(now), &damping) {
                    Some(until) => {
                        prop_assert!(is_up && flaps.falls() > damping.free);
                        prop_assert!(until <= seconds(now + longest));
                        prop_assert_eq!(flaps.held_until(until, &damping), None);
                    }
                    None => prop_assert!(
                        !is_up || flaps == before || damping.hold_after(flaps.falls()) == Duration::ZERO
                    ),
                }
                // Left alone it is forgotten.
                let later = seconds(now) + damping.longest + damping.calm;
                prop_assert!(flaps.is_calm(later, &damping));
            }
        }

        #[test]
        fn one_more_fall_is_never_a_shorter_time(falls in 0u32..100, hold in 0u64..1000, longest in 0u64..1000) {
            let damping = FlapDamping { hold: seconds(hold), longest: seconds(longest), ..FlapDamping::default() };
            prop_assert!(damping.hold_after(falls) <= damping.hold_after(falls + 1));
        }
    }
}
