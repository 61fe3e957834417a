//! Endpoints that answer much more slowly than their neighbours. `LEAST_REQUEST` goes by requests under way, which show it
//! only when there are many: where most endpoints have nothing to do, the slow one is asked as often as any. So a slow
//! endpoint counts as if it had more to do, as many times as it is slower. Who is about as fast as the others counts as
//! in Envoy, and being faster earns nothing: an endpoint that fails at once attracts no traffic.

use std::time::Duration;

/// Of the first answers the quickest counts: they may have waited for a connection.
const FIRST: u32 = 4;
/// What one answer weighs in the average: an eighth.
const WEIGHT: i64 = 8;
/// What it weighs if it is quicker than those of a slow endpoint were: a half.
const FORGIVING: i64 = 2;
/// One answer counts as at most so many times what was usual: alone it makes nobody slow.
const MOST: u32 = 16;
/// What is known of an endpoint is forgotten when it has not answered for so many tenths of a second: it is asked again.
const FORGOTTEN: u32 = 200;
/// Slow is who takes at least so many times as long as usual.
const TIMES: u32 = 4;
/// And longer by at least so many microseconds: what is less may be the way there.
const LONGER: u32 = 5_000;
/// Nobody counts as slower than this.
const SLOWEST: u32 = 100;
/// With fewer than three there is no telling who is slow and who is quick.
pub const FEWEST: usize = 3;
/// How often it is looked who is slow, at most.
pub const LOOK: Duration = Duration::from_millis(100);
/// Once in so many times a slow one is taken as any other, so that it shows when it is not slow any more.
pub(super) const ANYWAY: u64 = 50;

/// How long an endpoint takes to answer. As one number, so that it may be kept in an atomic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pace {
    micros: u32,
    /// Answers so far, up to those that are the first ones.
    answers: u32,
    /// When the last one came, in tenths of a second.
    at: u32,
}

impl Pace {
    /// As a number; 0 if nothing is known.
    pub fn to_bits(self) -> u64 {
        u64::from(self.micros) | u64::from(self.answers) << 32 | u64::from(self.at & AT) << 36
    }

    /// From such a number.
    pub fn from_bits(bits: u64) -> Pace {
        Pace { micros: bits as u32, answers: (bits >> 32) as u32 & 15, at: (bits >> 36) as u32 & AT }
    }

    /// After one more answer. Who counts as slow (`is_slow`) has it forgiven sooner than it was found out.
    pub fn after(self, took: Duration, is_slow: bool, now: Duration) -> Pace {
        let took = u32::try_from(took.as_micros()).unwrap_or(u32::MAX).max(1);
        let (known, answers) = match self.answers {
            0 => (took, 0),
            // Two answers tell again, and the quicker of them counts.
            _ if self.is_forgotten(now) => (took, FIRST - 2),
            answers => (self.micros, answers),
        };
        let micros = if answers < FIRST {
            took.min(known)
        } else {
            let took = took.min(known.saturating_mul(MOST));
            let weight = if is_slow && took < known { FORGIVING } else { WEIGHT };
            let step = (i64::from(took) - i64::from(known)) / weight;
            u32::try_from(i64::from(known) + step).unwrap_or(u32::MAX)
        };
        Pace { micros, answers: (answers + 1).min(FIRST), at: tenths(now) }
    }

    /// What it takes, in microseconds; `None` while too little is known, or no more.
    pub fn micros(self, now: Duration) -> Option<u32> {
        (self.answers >= FIRST && !self.is_forgotten(now)).then_some(self.micros)
    }

    fn is_forgotten(self, now: Duration) -> bool {
        tenths(now).wrapping_sub(self.at) & AT >= FORGOTTEN
    }
}

/// Bits of a time.
const AT: u32 = (1 << 28) - 1;

fn tenths(time: Duration) -> u32 {
    (time.as_millis() / 100) as u32 & AT
}

/// What is usual among neighbours: the one in the middle. `None` while too few are known.
pub fn usual(known: &mut [u32]) -> Option<u32> {
    if known.len() < FEWEST {
        return None;
    }
    let middle = known.len() / 2;
    Some(*known.select_nth_unstable(middle).1)
}

/// How many times as much as it has to do an endpoint counts as having to do; 1 for all that are not slow.
pub fn slowness(own: u32, usual: u32) -> u32 {
    let usual = usual.max(1);
    if own.saturating_sub(usual) < LONGER || own / usual < TIMES { 1 } else { (own / usual).min(SLOWEST) }
}

/// What an endpoint has to do with so many requests under way, if it is so slow. With nothing to do too a slow one comes
/// after those that are not.
pub(super) fn burden(active: u32, slowness: u32) -> u64 {
    (u64::from(active) + 1) * u64::from(slowness.max(1)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn after(answers: &[u64]) -> u32 {
        let pace = answers.iter().fold(Pace::default(), |pace: Pace, took| {
            let next = pace.after(millis(*took), false, millis(0));
            assert_eq!(Pace::from_bits(next.to_bits()), next);
            next
        });
        pace.micros(millis(0)).unwrap_or(0) / 1000
    }

    #[test]
    fn an_average_follows_what_is_usual_and_not_one_answer() {
        for (answers, expected) in [
            (&[][..], 0),
            (&[5, 5, 5], 0),
            (&[90, 5, 6, 7], 5),
            (&[5, 5, 5, 5, 5_000], 14),
            (&[5, 5, 5, 5, 50, 50, 50, 50], 23),
            (&[50, 50, 50, 50, 5, 5, 5, 5, 5, 5, 5, 5], 20),
        ] {
            assert_eq!(after(answers), expected, "{answers:?}");
        }
    }

    #[test]
    fn what_is_not_heard_of_is_forgotten() {
        let pace = Pace { micros: 64_000, answers: FIRST, at: 0 };
        let at = |seconds| pace.micros(Duration::from_secs(seconds));
        assert_eq!([at(0), at(19), at(20), at(1_000)], [Some(64_000), Some(64_000), None, None]);
        let again = pace.after(millis(30), false, millis(30_000));
        assert_eq!(again.micros(millis(30_000)), None);
        assert_eq!(again.after(millis(5), false, millis(30_000)).micros(millis(30_000)), Some(5_000));
    }

    #[test]
    fn slowness_is_forgiven_sooner_than_found_out() {
        let slow = Pace { micros: 50_000, answers: FIRST, at: 0 };
        let after = |took| slow.after(millis(took), true, millis(0)).micros;
        assert_eq!([after(5), after(58)], [27_500, 51_000]);
    }

    #[test]
    fn slow_is_who_stands_out_by_far() {
        for (known, expected) in
            [(&[][..], None), (&[1, 9], None), (&[9, 1, 5], Some(5)), (&[1, 9, 5, 7], Some(7))]
        {
            assert_eq!(usual(&mut known.to_vec()), expected);
        }
        for (own, usual, expected) in [
            (5, 5, 1),
            (19_000, 5_000, 1),
            (20_000, 5_000, 4),
            (50_000, 5_000, 10),
            (4_000, 10, 1),
            (u32::MAX, 0, 100),
        ] {
            assert_eq!(slowness(own, usual), expected, "{own} {usual}");
        }
        for (active, slowness, expected) in [(0, 1, 0), (7, 1, 7), (0, 10, 9), (1, 10, 19)] {
            assert_eq!(burden(active, slowness), expected);
        }
    }
}
