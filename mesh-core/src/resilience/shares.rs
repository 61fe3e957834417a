//! Shares of one limit, handed out for a short time to those who count against it.
//!
//! Each holder says every second what it could use and what it holds. Its share follows from what all could use: a small
//! part is spread evenly, so that whoever was idle may begin; the rest goes to those who want it, the modest first; and
//! what nobody wants is spread again. Nobody is given what another still holds: so the sum of all shares never exceeds
//! the whole, and it moves from one to another within two reports.
//!
//! Who has not reported for the time of a lease holds nothing. After a start nobody is given more than it says it holds
//! until every lease from before has run out, and of a limit that is new nobody is until all have had time to report.

use std::collections::BTreeMap;
use std::time::Duration;

use super::ratelimit::WHOLE;
use crate::vocab::name::Text;

/// How long a share is good for.
pub const LEASE: Duration = Duration::from_secs(3);
/// All have reported a new limit after so long: less than the second after which they report again.
const FIRST: Duration = Duration::from_millis(800);
/// The part that is spread evenly, in parts per million.
const EVEN: u64 = 50_000;
/// What a holder uses may grow by so much, in per cent, before it reports again.
const GROWTH: u64 = 125;
/// Most limits and, of each, most holders.
const MOST_LIMITS: usize = 10_000;
const MOST_HOLDERS: usize = 10_000;

/// What a holder reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// What it could have used since its last report, in parts per million of the limit.
    pub demand: u32,
    /// The share that it holds now; 0 for none.
    pub held: u32,
}

/// What a holder is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// In parts per million of the limit.
    pub share: u32,
    /// How many count against the limit.
    pub holders: u32,
}

#[derive(Debug, Clone, Copy)]
struct Holder {
    demand: u64,
    /// The most that it may hold until it reports again.
    out: u64,
    until: Duration,
}

#[derive(Debug)]
struct Shared {
    /// When it was first reported.
    since: Duration,
    holders: BTreeMap<Text, Holder>,
}

/// All limits that are shared.
#[derive(Debug)]
pub struct Shares {
    limits: BTreeMap<Text, Shared>,
    /// Until then leases of a ledger before this one may be about.
    settled: Duration,
    swept: Duration,
}

impl Shares {
    /// A ledger that begins now, with leases about that it knows nothing of.
    pub fn new(now: Duration) -> Shares {
        Shares { limits: BTreeMap::new(), settled: now + LEASE, swept: now }
    }

    /// Takes a report; `None` where the ledger is full.
    pub fn report(&mut self, limit: &Text, who: &Text, report: Report, now: Duration) -> Option<Grant> {
        self.sweep(now);
        if !self.limits.contains_key(limit) && self.limits.len() >= MOST_LIMITS {
            return None;
        }
        let new = || Shared { since: now, holders: BTreeMap::new() };
        let Shared { since, holders } = self.limits.entry(limit.clone()).or_insert_with(new);
        let is_open = now >= self.settled.max(*since + FIRST);
        holders.retain(|_, holder| holder.until > now);
        if !holders.contains_key(who) && holders.len() >= MOST_HOLDERS {
            return None;
        }
        let said = u64::from(report.held.min(WHOLE));
        // Nobody holds more than it was given, but what was given by a ledger before.
        let held = match holders.get(who) {
            Some(known) => said.min(known.out),
            None if now < self.settled => said,
            None => 0,
        };
        let demand = u64::from(report.demand) * GROWTH / 100;
        holders.insert(who.clone(), Holder { demand, out: held, until: now + LEASE });
        let wanted = fair(holders, who);
        let taken: u64 = holders.iter().filter(|(other, _)| *other != who).map(|(_, other)| other.out).sum();
        let free = u64::from(WHOLE).saturating_sub(taken);
        let most = if is_open { free } else { free.min(held) };
        let share = wanted.min(most);
        if let Some(holder) = holders.get_mut(who) {
            // An answer that is lost leaves it with what it has.
            holder.out = held.max(share);
        }
        Some(Grant {
            share: u32::try_from(share).unwrap_or(WHOLE),
            holders: u32::try_from(holders.len()).unwrap_or(u32::MAX),
        })
    }

    /// How many limits are shared.
    pub fn limits(&self) -> usize {
        self.limits.len()
    }

    /// Forgets limits that nobody reports, once a lease.
    fn sweep(&mut self, now: Duration) {
        if now.saturating_sub(self.swept) < LEASE {
            return;
        }
        self.swept = now;
        self.limits.retain(|_, shared| {
            shared.holders.retain(|_, holder| holder.until > now);
            !shared.holders.is_empty()
        });
    }
}

/// What one of the holders should have.
fn fair(holders: &BTreeMap<Text, Holder>, who: &Text) -> u64 {
    let count = holders.len() as u64;
    let even = EVEN / count;
    let mut rest = u64::from(WHOLE) - EVEN;
    let mut demands: Vec<(u64, &Text)> =
        holders.iter().map(|(name, holder)| (holder.demand.saturating_sub(even), name)).collect();
    demands.sort_unstable();
    let (mut left, mut own) = (count, 0);
    for (demand, name) in demands {
        let given = demand.min(rest / left);
        rest -= given;
        left -= 1;
        if name == who {
            own = given;
        }
    }
    even + own + rest / count
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Holders that report once a second, each with a demand in per cent; what they hold at last, in per cent.
    fn settled(demands: &[u32]) -> Vec<u32> {
        let mut shares = Shares::new(Duration::ZERO);
        let limit = Text::from("limit");
        let mut held = vec![0; demands.len()];
        for second in 4..12 {
            for (index, demand) in demands.iter().enumerate() {
                let report = Report { demand: demand * 10_000, held: held[index] };
                let who = Text::from(index.to_string());
                held[index] = shares.report(&limit, &who, report, Duration::from_secs(second)).unwrap().share;
            }
            assert!(held.iter().sum::<u32>() <= WHOLE);
        }
        held.into_iter().map(|share| share / 10_000).collect()
    }

    #[test]
    fn shares_follow_what_is_wanted() {
        assert_eq!(settled(&[100]), [100]);
        assert_eq!(settled(&[0]), [100]);
        assert_eq!(settled(&[200, 0]), [97, 2]);
        assert_eq!(settled(&[0, 200]), [2, 97]);
        assert_eq!(settled(&[500, 500]), [50, 50]);
        assert_eq!(settled(&[0, 0]), [50, 50]);
        assert_eq!(settled(&[20, 200]), [25, 75]);
        assert_eq!(settled(&[20, 20]), [50, 50]);
    }

    #[test]
    fn who_comes_gets_a_share_when_the_others_have_let_go() {
        let mut shares = Shares::new(Duration::ZERO);
        let limit = Text::from("limit");
        let mut report = |who: &str, demand: u32, held: u32, second: u64| {
            let report = Report { demand, held };
            let grant = shares.report(&limit, &who.into(), report, Duration::from_secs(second)).unwrap();
            (grant.share, grant.holders)
        };
        // Others may be about to report it for the first time.
        assert_eq!(report("a", 0, 0, 4), (0, 1));
        assert_eq!(report("a", 0, 0, 5), (WHOLE, 1));
        assert_eq!(report("b", 0, 0, 5), (0, 2));
        assert_eq!(report("a", 0, WHOLE, 6), (WHOLE / 2, 2));
        // It may not have heard of that yet.
        assert_eq!(report("b", 0, 0, 6), (0, 2));
        assert_eq!(report("a", 0, WHOLE / 2, 7), (WHOLE / 2, 2));
        assert_eq!(report("b", 0, 0, 7), (WHOLE / 2, 2));
        assert_eq!(report("b", 0, WHOLE / 2, 9), (WHOLE / 2, 2));
        assert_eq!(report("b", 0, WHOLE / 2, 10), (WHOLE, 1), "a is gone");
    }

    #[test]
    fn after_a_start_nobody_is_given_more_than_it_has() {
        let mut shares = Shares::new(Duration::from_secs(10));
        let limit = Text::from("limit");
        let mut report = |held: u32, second: u64| {
            let report = Report { demand: WHOLE, held };
            shares.report(&limit, &"a".into(), report, Duration::from_secs(second)).unwrap().share
        };
        assert_eq!(report(300_000, 11), 300_000);
        assert_eq!(report(300_000, 12), 300_000);
        assert_eq!(report(300_000, 13), WHOLE);
    }

    proptest! {
        /// Reports come in any order and answers are lost: what is held at any time is never more than there is.
        #[test]
        fn the_sum_never_exceeds_the_whole(events in vec((0_usize..4, 0_u32..3_000_000, any::<bool>(), 0_u64..900), 1..200)) {
            let mut shares = Shares::new(Duration::ZERO);
            let limit = Text::from("limit");
            let mut now = LEASE;
            let mut held = [(0_u32, Duration::ZERO); 4];
            for (index, demand, lost, gap) in events {
                now += Duration::from_millis(gap);
                let (share, until) = held[index];
                let report = Report { demand, held: if until > now { share } else { 0 } };
                let who = Text::from(index.to_string());
                let grant = shares.report(&limit, &who, report, now).unwrap();
                if !lost {
                    held[index] = (grant.share, now + LEASE);
                }
                let sum: u32 = held.iter().filter(|(_, until)| *until > now).map(|(share, _)| share).sum();
                prop_assert!(sum <= WHOLE, "{sum}");
            }
        }
    }
}
