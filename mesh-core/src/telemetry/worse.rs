//! Since when it is worse: the last minute beside the minutes before it.
//!
//! The measure is the median minute of the hour before the last one. The last minute is worse if clearly more of it
//! failed (twice the usual share and one in a hundred more), or if it is clearly slower (p99 half as much again and
//! 5 ms more). The beginning is looked for backwards in steps of ten seconds, each beside the same measure, until a whole
//! minute of steps is as usual. What lasts for more than half of the hour becomes the usual.

/// Fewer requests in a minute say nothing.
const FEWEST: u64 = 20;
/// Fewer in a step of ten seconds say nothing of that step.
const FEWEST_OF_STEP: u64 = 3;
/// So many minutes must have been seen to know what is usual.
const FEWEST_MINUTES: usize = 2;
/// So many steps as usual end the search for the beginning: a minute.
const QUIET: usize = 6;
/// So much more must fail, in parts per million.
const FAILURES: u64 = 10_000;
/// So much slower it must be, in microseconds.
const SLOWER: u64 = 5_000;

/// What is known of a stretch of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stretch {
    /// Requests that ended in it.
    pub requests: u64,
    /// How many of them went well.
    pub successes: u64,
    /// 99 of 100 took no longer, in microseconds.
    pub p99: u64,
}

/// What has become worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Symptom {
    /// More requests fail.
    Failures,
    /// Requests take longer.
    Latency,
}

impl Symptom {
    /// As JSON names it.
    pub fn name(self) -> &'static str {
        match self {
            Symptom::Failures => "success_rate",
            Symptom::Latency => "p99",
        }
    }
}

/// That it is worse, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worse {
    /// What is.
    pub symptom: Symptom,
    /// Since how many steps of ten seconds, the newest included.
    pub steps: usize,
}

impl Stretch {
    fn failures(&self) -> u64 {
        let failed = self.requests.saturating_sub(self.successes);
        failed.saturating_mul(1_000_000).checked_div(self.requests).unwrap_or(0)
    }
}

/// What is usual.
#[derive(Debug, Clone, Copy)]
struct Usual {
    failures: u64,
    p99: u64,
}

impl Usual {
    fn of(minutes: &[Stretch]) -> Option<Usual> {
        let known = || minutes.iter().filter(|minute| minute.requests >= FEWEST);
        if known().count() < FEWEST_MINUTES {
            return None;
        }
        Some(Usual {
            failures: median(known().map(Stretch::failures)),
            p99: median(known().map(|minute| minute.p99)),
        })
    }

    fn is_exceeded(self, by: &Stretch, symptom: Symptom) -> bool {
        match symptom {
            Symptom::Failures => by.failures() >= self.failures * 2 + FAILURES,
            Symptom::Latency => by.p99 >= self.p99 + self.p99 / 2 + SLOWER,
        }
    }
}

fn median(values: impl Iterator<Item = u64>) -> u64 {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(0)
}

/// Judges an hour, the oldest first: minutes, of which the newest is the one that is asked about, and the same time in steps
/// of ten seconds. `None` where it is as usual, or too little is known.
pub fn worse(minutes: &[Stretch], steps: &[Stretch]) -> Option<Worse> {
    let (last, before) = minutes.split_last()?;
    if last.requests < FEWEST {
        return None;
    }
    let usual = Usual::of(before)?;
    let symptom =
        [Symptom::Failures, Symptom::Latency].into_iter().find(|one| usual.is_exceeded(last, *one))?;
    let mut began = 1;
    let mut quiet = 0;
    for (back, step) in steps.iter().rev().enumerate() {
        if step.requests < FEWEST_OF_STEP {
            continue;
        }
        if usual.is_exceeded(step, symptom) {
            (began, quiet) = (back + 1, 0);
        } else {
            quiet += 1;
        }
        if quiet >= QUIET {
            break;
        }
    }
    Some(Worse { symptom, steps: began })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Stretch = Stretch { requests: 100, successes: 100, p99: 8_000 };
    const BAD: Stretch = Stretch { requests: 100, successes: 90, p99: 8_000 };
    const SLOW: Stretch = Stretch { requests: 100, successes: 100, p99: 40_000 };
    const NONE: Stretch = Stretch { requests: 0, successes: 0, p99: 0 };

    /// Judges an hour that is given by its last steps; all before them are good.
    #[track_caller]
    fn check(tail: &[(Stretch, usize)], expected: Option<(Symptom, usize)>) {
        let tail: Vec<Stretch> = tail.iter().flat_map(|(one, count)| vec![*one; *count]).collect();
        let mut steps = vec![GOOD; 360 - tail.len()];
        steps.extend(tail);
        let sum = |six: &[Stretch]| Stretch {
            requests: six.iter().map(|s| s.requests).sum(),
            successes: six.iter().map(|s| s.successes).sum(),
            p99: six.iter().map(|s| s.p99).max().unwrap_or(0),
        };
        let minutes: Vec<Stretch> = steps.chunks(6).map(sum).collect();
        let found = worse(&minutes, &steps).map(|worse| (worse.symptom, worse.steps));
        assert_eq!(found, expected);
    }

    #[test]
    fn the_beginning_is_found() {
        use Symptom::{Failures, Latency};
        check(&[], None);
        check(&[(BAD, 6)], Some((Failures, 6)));
        check(&[(BAD, 2)], Some((Failures, 2)));
        check(&[(BAD, 60)], Some((Failures, 60)));
        // A few steps as usual, or without requests, lie between.
        check(&[(BAD, 3), (GOOD, 2), (BAD, 3)], Some((Failures, 8)));
        check(&[(BAD, 3), (NONE, 30), (BAD, 3)], Some((Failures, 36)));
        // A whole minute as usual: what was before is another story.
        check(&[(BAD, 3), (GOOD, 6), (BAD, 3)], Some((Failures, 3)));
        check(&[(SLOW, 6)], Some((Latency, 6)));
        // It is over.
        check(&[(BAD, 12), (GOOD, 6)], None);
        // Most of the hour: that is how it is now.
        check(&[(BAD, 240)], None);
    }

    #[test]
    fn little_says_nothing() {
        assert_eq!(worse(&[], &[]), None);
        assert_eq!(worse(&[BAD], &[BAD]), None);
        assert_eq!(worse(&[NONE, NONE, BAD], &[BAD]), None);
        let few = Stretch { requests: 10, successes: 0, p99: 1 };
        assert_eq!(worse(&[GOOD, GOOD, few], &[few]), None);
        // One in a hundred more, and double: less than that is noise.
        let some = |successes| Stretch { requests: 1000, successes, p99: 8_000 };
        assert_eq!(worse(&[GOOD, GOOD, some(991)], &[some(991)]), None);
        assert!(worse(&[GOOD, GOOD, some(989)], &[some(989)]).is_some());
        let usual = some(950);
        assert_eq!(worse(&[usual, usual, some(900)], &[some(900)]), None);
        assert!(worse(&[usual, usual, some(880)], &[some(880)]).is_some());
    }
}
