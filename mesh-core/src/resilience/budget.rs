//! How many retries a destination bears, whatever rules allow: a part of its requests, and a few a second besides, so that
//! a destination with few requests has some too. What fails because it has too much to do is not given more.
//!
//! Earned are parts of a retry, by requests and by time; spent are whole ones. Both only grow, so that an account is two
//! numbers, and what is saved is bounded by raising what was spent.

use std::time::Duration;

use super::pool::{PoolLimits, RetryBudget};
use crate::vocab::ratio::Ratio;

/// Parts of a retry.
const WHOLE: u64 = 1_000_000;

/// How retries are earned where no rule says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryRate {
    /// Retries for each request.
    pub share: Ratio,
    /// Retries a second besides.
    pub per_second: u32,
    /// So many are saved at most, and there at the beginning.
    pub saved: u32,
}

impl Default for RetryRate {
    /// One for five requests, ten a second, those of two seconds saved.
    fn default() -> RetryRate {
        RetryRate { share: RetryBudget::default().share, per_second: 10, saved: 20 }
    }
}

impl RetryRate {
    /// What so many requests and so much time have earned, in parts.
    pub fn earned(&self, requests: u64, elapsed: Duration) -> u64 {
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let by_time = micros.saturating_mul(u64::from(self.per_second));
        let by_requests = requests.saturating_mul(u64::from(self.share.ppm()));
        (u64::from(self.saved) * WHOLE).saturating_add(by_time).saturating_add(by_requests)
    }

    /// How many whole ones are left.
    pub fn left(&self, spent: u64, earned: u64) -> u64 {
        let saved = u64::from(self.saved) * WHOLE;
        earned.saturating_sub(spent.max(earned.saturating_sub(saved))) / WHOLE
    }

    /// Spends a whole one: what has been spent then, or `None` if there is none.
    pub fn spend(&self, spent: u64, earned: u64) -> Option<u64> {
        let spent = spent.max(earned.saturating_sub(u64::from(self.saved) * WHOLE));
        let next = spent.saturating_add(WHOLE);
        (next <= earned).then_some(next)
    }
}

/// The most retries that may be under way at once, with so many requests under way; `None` for any number. A rule's
/// `retryBudget` stands in the place of its `maxRetries`.
pub fn most_at_once(budget: Option<&RetryBudget>, limits: &PoolLimits, under_way: u64) -> Option<u64> {
    match budget {
        Some(budget) => {
            let share = under_way.saturating_mul(u64::from(budget.share.ppm())) / WHOLE;
            Some(share.max(u64::from(budget.min_concurrency)))
        }
        None => (limits.max_retries != u32::MAX).then_some(u64::from(limits.max_retries)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::resilience::pool::ConnectionPool;
    use crate::resilience::retry::{RetryCondition, RetryPolicy, Tried, Verdict};
    use crate::vocab::outcome::Outcome;
    use crate::vocab::random::Random;

    const RATE: RetryRate = RetryRate { share: Ratio::ZERO, per_second: 10, saved: 2 };

    /// An account that events happen to: `r` a request, `t` a tenth of a second, `?` a retry that is wanted.
    fn granted(rate: RetryRate, events: &str) -> String {
        let (mut requests, mut elapsed, mut spent) = (0, Duration::ZERO, 0);
        let mut granted = String::new();
        for event in events.chars() {
            match event {
                'r' => requests += 1,
                't' => elapsed += Duration::from_millis(100),
                _ => match rate.spend(spent, rate.earned(requests, elapsed)) {
                    Some(next) => {
                        spent = next;
                        granted.push('+');
                    }
                    None => granted.push('-'),
                },
            }
        }
        granted
    }

    #[test]
    fn retries_are_earned_by_requests_and_by_time() {
        let fifth = Ratio::from_percent(20.0).unwrap();
        let share = RetryRate { share: fifth, per_second: 0, saved: 2 };
        for (rate, events, expected) in [
            (RATE, "???", "++-"),
            (RATE, "??t??", "+++-"),
            (RATE, "tttttttt????", "++--"),
            (share, "??rrrr?r??", "++-+-"),
            (share, "rrrrrrrrrrrrrrrrrrrr???", "++-"),
            (RetryRate { per_second: 0, saved: 0, share: Ratio::ZERO }, "rrrttt?", "-"),
        ] {
            assert_eq!(granted(rate, events), expected, "{rate:?} {events}");
        }
    }

    #[test]
    fn a_rule_limits_retries_at_once() {
        let limits = |most| ConnectionPool { max_retries: most, ..ConnectionPool::default() }.limits(None);
        let budget = RetryBudget { share: Ratio::from_percent(25.0).unwrap(), min_concurrency: 3 };
        for (budget, most, under_way, expected) in [
            (None, None, 100, None),
            (None, Some(5), 100, Some(5)),
            (Some(&budget), Some(5), 100, Some(25)),
            (Some(&budget), None, 4, Some(3)),
            (Some(&budget), None, 0, Some(3)),
        ] {
            assert_eq!(most_at_once(budget, &limits(most), under_way), expected, "{budget:?} {under_way}");
        }
    }

    /// Proxies of a chain of calls whose last application fails half of the time; a rule of each tries 5xx three times.
    struct Chain {
        /// Requests and spent parts of each proxy.
        accounts: [(u64, u64); 4],
        now: Duration,
        random: Random,
        asked: u64,
    }

    impl Chain {
        /// Whether a call succeeds, and whether all was tried behind it.
        fn call(&mut self, hop: usize, nested: bool) -> (bool, bool) {
            if hop == self.accounts.len() {
                self.asked += 1;
                return (self.random.below(2) == 0, false);
            }
            let on = vec![RetryCondition::FiveXx];
            let (policy, rate) = (RetryPolicy { on, ..RetryPolicy::default() }, RetryRate::default());
            self.accounts[hop].0 += 1;
            let mut tries = 0;
            loop {
                tries += 1;
                let (succeeds, given_up) = self.call(hop + 1, nested || tries > 1);
                let status = if succeeds { 200 } else { 503 };
                let outcome = Outcome::Response { status, grpc_status: None, rate_limited: false };
                match policy.verdict(outcome, Tried { tries, repeatable: true, nested, given_up }) {
                    Verdict::Final => return (succeeds, given_up),
                    Verdict::Exhausted => return (false, true),
                    Verdict::Again { .. } => {
                        let (requests, spent) = self.accounts[hop];
                        let Some(spent) = rate.spend(spent, rate.earned(requests, self.now)) else {
                            return (false, true);
                        };
                        self.accounts[hop].1 = spent;
                    }
                }
            }
        }
    }

    #[test]
    fn a_chain_of_calls_does_not_multiply_retries() {
        let random = Random::seeded(4);
        let mut chain = Chain { accounts: [(0, 0); 4], now: Duration::ZERO, random, asked: 0 };
        const REQUESTS: u64 = 5_000;
        for _ in 0..REQUESTS {
            chain.call(0, false);
            chain.now += Duration::from_millis(2);
        }
        let most = REQUESTS * 13 / 10;
        assert!((REQUESTS..=most).contains(&chain.asked), "{} of {REQUESTS}", chain.asked);
    }

    proptest! {
        /// In every stretch of time: no more than what was saved at its beginning and what it earns.
        #[test]
        fn the_budget_is_never_exceeded(
            events in "[rt?]{0,200}",
            percent in 0_u32..=100,
            per_second in 0_u32..30,
            saved in 0_u32..20,
        ) {
            let share = Ratio::from_ppm(percent * 10_000).unwrap();
            let rate = RetryRate { share, per_second, saved };
            let granted = granted(rate, &events);
            let mut answers = granted.chars();
            let timeline: Vec<(char, bool)> =
                events.chars().map(|event| (event, event == '?' && answers.next() == Some('+'))).collect();
            for from in 0..timeline.len() {
                let (mut earned, mut taken) = (u64::from(saved) * WHOLE, 0);
                for (event, is_granted) in &timeline[from..] {
                    match event {
                        'r' => earned += u64::from(share.ppm()),
                        't' => earned += u64::from(per_second) * WHOLE / 10,
                        _ => taken += u64::from(*is_granted) * WHOLE,
                    }
                    prop_assert!(taken <= earned, "{timeline:?}");
                }
            }
        }
    }
}
