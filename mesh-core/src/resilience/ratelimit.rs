//! Buckets of a rate limit, as one number each: the moment at which a bucket is full again (the generic cell rate
//! algorithm, GCRA). Taking a token puts that moment off by the time that one token needs to come back.
//!
//! A bucket that has been full for long is a number in the past, and any number in the past is a full bucket: so nothing
//! runs while nothing comes, and one atomic number is all that threads share.
//!
//! Invariants, for one bucket and any order of events: in any span `t` at most `burst + t / spacing` requests pass, and
//! at most one more where a share of a limit is so small that its burst would be under one request.

use std::time::Duration;

/// All of a limit, as a share of it in parts per million.
pub const WHOLE: u32 = 1_000_000;

/// The shortest time between two requests: below it the rounding to whole nanoseconds would show.
pub const SHORTEST_SPACING: Duration = Duration::from_micros(1);
/// The longest time that a bucket may take to fill.
pub const LONGEST_FILL: Duration = Duration::from_secs(30 * 24 * 3600);

/// How fast tokens come back, and how many a bucket holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    requests: u32,
    interval: Duration,
    burst: u32,
}

/// Why a rate was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// Nothing would ever pass.
    #[error("requests, interval and burst must be more than 0")]
    Zero,
    /// More than the clock can tell apart.
    #[error("at most one request in a microsecond is allowed")]
    TooFast,
    /// Longer than anybody waits.
    #[error("a bucket must be full again within 30 days")]
    TooSlow,
}

/// How a bucket stands after a request was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Whether the request passes.
    pub admitted: bool,
    /// How many more would pass now.
    pub remaining: u32,
    /// When the next would pass; zero where one would now.
    pub retry_after: Duration,
    /// When the bucket is full again.
    pub full_in: Duration,
}

impl Rate {
    /// So many requests in an interval; the bucket holds `burst` of them.
    pub fn new(requests: u32, interval: Duration, burst: u32) -> Result<Rate, RateError> {
        if requests == 0 || interval.is_zero() || burst == 0 {
            return Err(RateError::Zero);
        }
        let rate = Rate { requests, interval, burst };
        if interval < SHORTEST_SPACING.saturating_mul(requests) {
            return Err(RateError::TooFast);
        }
        if u128::from(rate.spacing(WHOLE)) * u128::from(burst) > LONGEST_FILL.as_nanos() {
            return Err(RateError::TooSlow);
        }
        Ok(rate)
    }

    /// Requests per interval.
    pub fn requests(&self) -> u32 {
        self.requests
    }

    /// The interval.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// What a full bucket holds.
    pub fn burst(&self) -> u32 {
        self.burst
    }

    /// Nanoseconds in which one token comes back to the holder of a share. Rounded up: never more than the limit passes.
    pub fn spacing(&self, share: u32) -> u64 {
        let nanos = self.interval.as_nanos().saturating_mul(u128::from(WHOLE));
        let spacing = nanos.div_ceil(u128::from(self.requests) * u128::from(share.clamp(1, WHOLE)));
        u64::try_from(spacing).unwrap_or(u64::MAX)
    }

    /// How far in the future the moment may lie at which the bucket is full again. The same for every share, as tokens of
    /// a smaller one take longer and are fewer; but never less than one token.
    fn depth(&self, spacing: u64) -> u64 {
        self.spacing(WHOLE).saturating_mul(u64::from(self.burst)).max(spacing)
    }

    /// Takes a token of the bucket that is full again at `full_at`: when it is full again now, and how it stands. All
    /// times are nanoseconds of one clock. What a bucket owes is never more than it holds, so that a limit which was
    /// widened is wide at once.
    pub fn take(&self, share: u32, full_at: u64, now: u64) -> (u64, Standing) {
        if share == 0 {
            let standing = Standing {
                admitted: false,
                remaining: 0,
                retry_after: Duration::from_secs(1),
                full_in: Duration::from_secs(1),
            };
            return (full_at, standing);
        }
        let spacing = self.spacing(share);
        let depth = self.depth(spacing);
        let owed = full_at.saturating_sub(now).min(depth);
        let next = owed.saturating_add(spacing);
        let admitted = next <= depth;
        let owed = if admitted { next } else { owed };
        let remaining = depth.saturating_sub(owed) / spacing;
        let wait = owed.saturating_add(spacing).saturating_sub(depth);
        let standing = Standing {
            admitted,
            remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
            retry_after: Duration::from_nanos(wait),
            full_in: Duration::from_nanos(owed),
        };
        (now.saturating_add(owed), standing)
    }

    /// Puts a token back that was taken.
    pub fn give_back(&self, share: u32, full_at: u64) -> u64 {
        full_at.saturating_sub(self.spacing(share))
    }

    /// What so many requests in a time are of the limit, in parts per million.
    pub fn demand(&self, requests: u64, time: Duration) -> u32 {
        let allowed = time.as_nanos().saturating_mul(u128::from(self.requests)).max(1);
        let wanted = u128::from(requests).saturating_mul(self.interval.as_nanos());
        u32::try_from(wanted.saturating_mul(u128::from(WHOLE)) / allowed).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const MILLI: u64 = 1_000_000;

    fn rate(requests: u32, millis: u64, burst: u32) -> Rate {
        Rate::new(requests, Duration::from_millis(millis), burst).unwrap()
    }

    /// Requests at these milliseconds: `+` for one that passes, `-` for one that does not.
    #[track_caller]
    fn check(rate: Rate, share: u32, at: &[u64], expected: &str) {
        let mut full_at = 0;
        let passed = at.iter().map(|at| {
            let (next, standing) = rate.take(share, full_at, (1000 + at) * MILLI);
            full_at = next;
            if standing.admitted { '+' } else { '-' }
        });
        assert_eq!(passed.collect::<String>(), expected);
    }

    #[test]
    fn a_bucket_empties_and_fills_steadily() {
        let ten = rate(10, 1000, 3);
        check(ten, WHOLE, &[0, 0, 0, 0], "+++-");
        check(ten, WHOLE, &[0, 0, 0, 99, 100, 100, 200], "+++-+-+");
        check(ten, WHOLE, &[0, 0, 0, 900, 900, 900, 900], "++++++-");
        check(rate(1, 1000, 1), WHOLE, &[0, 999, 1000], "+-+");
    }

    #[test]
    fn a_share_has_that_part_of_rate_and_burst() {
        let ten = rate(10, 1000, 4);
        check(ten, WHOLE / 2, &[0, 0, 0, 200, 200], "++-+-");
        check(ten, WHOLE / 10, &[0, 0, 999, 1000], "+--+");
        check(ten, 0, &[0, 5000], "--");
    }

    #[test]
    fn what_is_told_of_a_bucket() {
        let ten = rate(10, 1000, 2);
        let (full_at, first) = ten.take(WHOLE, 0, MILLI);
        assert_eq!((first.remaining, first.retry_after, first.full_in.as_millis()), (1, Duration::ZERO, 100));
        let (full_at, second) = ten.take(WHOLE, full_at, MILLI);
        assert_eq!((second.remaining, second.retry_after.as_millis()), (0, 100));
        let (again, third) = ten.take(WHOLE, full_at, 51 * MILLI);
        assert_eq!((third.admitted, third.retry_after.as_millis(), again), (false, 50, full_at));
        let (_, fourth) = ten.take(WHOLE, ten.give_back(WHOLE, full_at), 51 * MILLI);
        assert!(fourth.admitted);
        assert_eq!(ten.demand(20, Duration::from_secs(1)), 2 * WHOLE);
    }

    #[test]
    fn a_limit_that_was_widened_is_wide_at_once() {
        let hourly = rate(1, 3_600_000, 1);
        let (full_at, _) = hourly.take(WHOLE, 0, MILLI);
        let (_, standing) = rate(100, 1000, 100).take(WHOLE, full_at, 12 * MILLI);
        assert_eq!((standing.admitted, standing.retry_after.as_millis()), (false, 10));
    }

    #[test]
    fn rates_that_cannot_be() {
        let check = |requests, interval, burst, expected| {
            assert_eq!(Rate::new(requests, interval, burst).err(), expected);
        };
        check(0, Duration::from_secs(1), 1, Some(RateError::Zero));
        check(1, Duration::ZERO, 1, Some(RateError::Zero));
        check(1, Duration::from_secs(1), 0, Some(RateError::Zero));
        check(1_000_000, Duration::from_secs(1), 1, None);
        check(1_000_001, Duration::from_secs(1), 1, Some(RateError::TooFast));
        check(1, Duration::from_secs(3600), 1000, Some(RateError::TooSlow));
    }

    proptest! {
        /// Against every span that begins and ends with a request which passed.
        #[test]
        fn no_span_has_more_than_the_burst_and_what_came_back(
            (requests, millis, burst) in (1_u32..50, 1_u64..2000, 1_u32..20),
            share in 1_u32..=WHOLE,
            gaps in vec(0_u64..300, 1..120),
        ) {
            let rate = rate(requests, millis, burst);
            let (mut full_at, mut now) = (0, 0);
            let mut passed: Vec<u64> = Vec::new();
            for gap in gaps {
                now += gap * MILLI / 3;
                let (next, standing) = rate.take(share, full_at, now);
                prop_assert!(next >= now || !standing.admitted);
                prop_assert_eq!(standing.admitted || !standing.retry_after.is_zero(), true);
                full_at = next;
                if standing.admitted {
                    passed.push(now);
                }
            }
            let part = u128::from(share) * u128::from(burst);
            let held = part.max(u128::from(WHOLE));
            for (first, from) in passed.iter().enumerate() {
                for (count, to) in passed[first..].iter().enumerate() {
                    let back = u128::from(to - from) * u128::from(requests) * u128::from(share);
                    let back = back / (u128::from(millis) * u128::from(MILLI));
                    // In parts per million of a request, one part for what rounding leaves.
                    prop_assert!((count as u128 + 1) * u128::from(WHOLE) <= held + back + 1);
                }
            }
        }

        /// The slow way: a bucket that is filled in small steps, whole nanoseconds apart from a token.
        #[test]
        fn it_is_a_token_bucket((spacing, burst) in (1_u64..50, 1_u32..10), gaps in vec(0_u64..120, 1..100)) {
            let rate = rate(1, spacing, burst);
            let (mut full_at, mut now) = (0, 1_u64);
            // When each token that is out comes back, in order: the slow bucket.
            let mut out: VecDeque<u64> = VecDeque::new();
            for gap in gaps {
                now += gap * MILLI;
                while out.front().is_some_and(|back| *back <= now) {
                    out.pop_front();
                }
                let expected = out.len() < burst as usize;
                if expected {
                    let after = out.back().copied().unwrap_or(now).max(now);
                    out.push_back(after + spacing * MILLI);
                }
                let (next, standing) = rate.take(WHOLE, full_at, now);
                prop_assert_eq!(standing.admitted, expected);
                prop_assert_eq!(standing.remaining as usize, burst as usize - out.len());
                full_at = next;
            }
        }
    }
}
