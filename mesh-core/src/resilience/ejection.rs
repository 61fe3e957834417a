//! What follows when an endpoint has failed too often in a row: how long it is left alone, how many may be at once, and
//! when so few are left that all are used again. The arithmetic is Envoy's.

use std::time::Duration;

use super::outlier::{OutlierDetection, Signal};

/// No endpoint is left alone for longer, unless its first time is longer already (Envoy's `max_ejection_time`).
const LONGEST: Duration = Duration::from_secs(300);

/// What an endpoint's past amounts to. Times count from any fixed moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct History {
    /// How many times the base time it is left alone for; forgiven one by one while it behaves.
    multiplier: u32,
    standing: Standing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Standing {
    /// It was never ejected, or that is forgotten.
    #[default]
    Good,
    /// Left alone since then.
    Ejected(Duration),
    /// Back since then.
    Returned(Duration),
}

/// What a sweep has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swept {
    /// Nothing changes for traffic.
    Same,
    /// It gets traffic again.
    Returned,
}

impl History {
    /// Ejects the endpoint. Returns for how long, to which comes the time until the next sweep.
    pub fn eject(&mut self, now: Duration, settings: &OutlierDetection) -> Duration {
        let (base, longest) = times(settings);
        if base.saturating_mul(self.multiplier) < longest.saturating_add(base) {
            self.multiplier = self.multiplier.saturating_add(1);
        }
        self.standing = Standing::Ejected(now);
        base.saturating_mul(self.multiplier).min(longest)
    }

    /// Looks whether its time is over, or, if it has been back for an interval, forgives one ejection.
    pub fn sweep(&mut self, now: Duration, settings: &OutlierDetection) -> Swept {
        match self.standing {
            Standing::Good => {}
            Standing::Ejected(since) => {
                let (base, longest) = times(settings);
                if now.saturating_sub(since) >= base.saturating_mul(self.multiplier).min(longest) {
                    self.standing = Standing::Returned(now);
                    return Swept::Returned;
                }
            }
            Standing::Returned(since) => {
                if now.saturating_sub(since) >= settings.interval {
                    self.multiplier = self.multiplier.saturating_sub(1);
                }
                if self.multiplier == 0 {
                    self.standing = Standing::Good;
                }
            }
        }
        Swept::Same
    }

    /// How many times in a row it was ejected, those that were forgiven taken off.
    pub fn multiplier(&self) -> u32 {
        self.multiplier
    }
}

/// When an endpoint has come back, one request tries it and others go elsewhere; if that has no answer after this, another
/// one tries it too.
const PROBE: Duration = Duration::from_secs(1);
/// So often that time doubles.
const PROBE_DOUBLINGS: u32 = 3;

/// Whether an endpoint that has come back is known to work. As one number, so that it may be kept in an atomic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Probation(u64);

impl Probation {
    /// It is back, and nobody has tried it since.
    pub fn begun() -> Probation {
        Probation(1)
    }

    /// As a number; 0 if there is none.
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// From such a number.
    pub fn from_bits(bits: u64) -> Probation {
        Probation(bits)
    }

    /// Whether something is still to be found out.
    pub fn lasts(self) -> bool {
        self.0 != 0
    }

    /// A request is sent to it.
    pub fn chosen(self, now: Duration) -> Probation {
        let stamp = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        if self.lasts() { Probation(stamp.max(2)) } else { self }
    }

    /// An attempt has ended so. One that went well ends it; else whoever comes next tries it again.
    pub fn after(self, signal: Signal) -> Probation {
        match signal {
            Signal::Nothing => self,
            Signal::Well => Probation::default(),
            Signal::Failed { .. } | Signal::Unreached if self.lasts() => Probation::begun(),
            Signal::Failed { .. } | Signal::Unreached => self,
        }
    }

    /// Whether a request is finding out: others had better go elsewhere.
    /// That is given up after `patience` ([`probe_patience`]).
    pub fn holds_others_back(self, now: Duration, patience: Duration) -> bool {
        self.0 > 1 && now.saturating_sub(Duration::from_nanos(self.0)) < patience
    }
}

/// How long others go elsewhere while one request tries an endpoint that so many in a row have not reached: twice as long
/// each time, and no longer than eight seconds.
pub fn probe_patience(unreached: u32) -> Duration {
    PROBE * (1 << unreached.saturating_sub(1).min(PROBE_DOUBLINGS))
}

fn times(settings: &OutlierDetection) -> (Duration, Duration) {
    (settings.base_ejection_time, LONGEST.max(settings.base_ejection_time))
}

/// Whether one more of `endpoints` may be ejected when so many are. There is no endpoint too many in a small pool: with
/// ten per cent and nine endpoints none ever is.
pub fn may_eject(settings: &OutlierDetection, ejected: usize, endpoints: usize) -> bool {
    let share = (ejected as u64 + 1).saturating_mul(100);
    share <= u64::from(settings.max_ejection_percent.min(100)).saturating_mul(endpoints as u64)
}

/// Whether so few are left that health does not count any more, and all get traffic.
pub fn is_panic(settings: &OutlierDetection, healthy: usize, endpoints: usize) -> bool {
    (healthy as u64).saturating_mul(100)
        < u64::from(settings.min_health_percent.min(100)).saturating_mul(endpoints as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::outlier::Streaks;
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn time_grows_with_every_ejection_and_is_forgiven_sweep_by_sweep() {
        let settings = OutlierDetection::default();
        let mut history = History::default();
        let mut now = seconds(0);
        for expected in [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300] {
            assert_eq!(history.eject(now, &settings), seconds(expected));
            assert_eq!(
                history.sweep(now + seconds(expected) - Duration::from_millis(1), &settings),
                Swept::Same
            );
            now += seconds(expected);
            assert_eq!(history.sweep(now, &settings), Swept::Returned);
        }
        // No more than what the longest time takes was counted.
        assert_eq!(history.multiplier(), 11);
        // Back for less than an interval: nothing is forgiven.
        history.sweep(now + seconds(9), &settings);
        assert_eq!(history.multiplier(), 11);
        for left in (0..11).rev() {
            now += settings.interval;
            assert_eq!(history.sweep(now, &settings), Swept::Same);
            assert_eq!(history.multiplier(), left);
        }
        assert_eq!(history, History::default());
        let long = OutlierDetection { base_ejection_time: seconds(1000), ..settings };
        assert_eq!(history.eject(now, &long), seconds(1000));
        history.sweep(now + seconds(1000), &long);
        assert_eq!(history.eject(now, &long), seconds(1000));
    }

    /// Plays one second a letter, with a sweep at every tenth: `!` as many errors as are too many, `.` nothing. Tells of each
    /// second whether the endpoint is left alone then (`x`) or not (`-`), and what is not forgiven at the end.
    fn play(settings: &OutlierDetection, seconds: &str) -> (String, u32) {
        let (mut history, mut ejected, mut told) = (History::default(), false, String::new());
        for (second, event) in seconds.chars().enumerate() {
            let now = Duration::from_secs(second as u64);
            if second > 0 && (second as u64).is_multiple_of(settings.interval.as_secs()) {
                ejected &= history.sweep(now, settings) == Swept::Same;
            }
            // One that is left alone already is not ejected once more.
            if event == '!' && !ejected && may_eject(settings, 0, 10) {
                history.eject(now, settings);
                ejected = true;
            }
            told.push(if ejected { 'x' } else { '-' });
        }
        (told, history.multiplier())
    }

    #[test]
    fn release_is_in_a_sweep_only_and_one_ejection_a_sweep_is_forgiven() {
        let settings = OutlierDetection {
            interval: seconds(5),
            base_ejection_time: seconds(7),
            ..OutlierDetection::default()
        };
        for (events, expected, left) in [
            // Until 8, which the sweep of 10 sees.
            ("-!.............", "-xxxxxxxxx-----", 1),
            ("-!.......!......", "-xxxxxxxxx------", 0),
            // Back since 10; the sweep of 15 forgives, the next ejection is a first one again.
            ("-!..............!.........", "-xxxxxxxxx------xxxxxxxxx-", 1),
            // Again at once: twice the time, until 25.
            ("-!.........!..............", "-xxxxxxxxx-xxxxxxxxxxxxxx-", 2),
            // Forgiven at 30 and 35.
            ("-!.........!.......................", "-xxxxxxxxx-xxxxxxxxxxxxxx----------", 1),
            ("-!.........!........................", "-xxxxxxxxx-xxxxxxxxxxxxxx-----------", 0),
        ] {
            assert_eq!(play(&settings, events), (expected.to_owned(), left), "{events}");
        }
    }

    #[test]
    fn few_endpoints_are_never_ejected_by_ten_per_cent() {
        let check = |percent, ejected, endpoints, expected| {
            let settings = OutlierDetection { max_ejection_percent: percent, ..OutlierDetection::default() };
            assert_eq!(may_eject(&settings, ejected, endpoints), expected, "{percent} {ejected}/{endpoints}");
        };
        check(10, 0, 9, false);
        check(10, 0, 10, true);
        check(10, 1, 10, false);
        check(50, 0, 2, true);
        check(49, 0, 2, false);
        check(100, 0, 1, true);
        check(99, 0, 1, false);
        check(34, 0, 3, true);
        check(34, 1, 3, false);
        check(100, 2, 3, true);
        check(100, 0, 0, false);
    }

    #[test]
    fn panic_begins_below_the_least_share() {
        let check = |least, healthy, endpoints, expected| {
            let settings = OutlierDetection { min_health_percent: least, ..OutlierDetection::default() };
            assert_eq!(is_panic(&settings, healthy, endpoints), expected, "{least} {healthy}/{endpoints}");
        };
        check(0, 0, 3, false);
        check(50, 1, 2, false);
        check(50, 1, 3, true);
        check(100, 2, 3, true);
        check(100, 3, 3, false);
    }

    #[test]
    fn one_request_tries_what_has_come_back() {
        let failed = Signal::Failed { gateway: false };
        let none = Probation::default();
        assert_eq!((none.chosen(seconds(1)), none.after(failed)), (none, none));
        let begun = Probation::begun();
        assert!(!begun.holds_others_back(seconds(1), probe_patience(0)));
        let tried = begun.chosen(seconds(5));
        assert_eq!(Probation::from_bits(tried.to_bits()), tried);
        for (now, expected) in [(5_000, true), (5_999, true), (6_000, false)] {
            assert_eq!(
                tried.holds_others_back(Duration::from_millis(now), probe_patience(1)),
                expected,
                "{now}"
            );
        }
        let patience: Vec<u64> = (0..7).map(|unreached| probe_patience(unreached).as_secs()).collect();
        assert_eq!(patience, [1, 1, 2, 4, 8, 8, 8]);
        assert_eq!(tried.after(Signal::Nothing), tried);
        assert_eq!((tried.after(failed), tried.after(Signal::Unreached)), (begun, begun));
        assert_eq!(tried.after(Signal::Well), none);
    }

    proptest! {
        /// Whatever endpoints answer and whenever it is swept: no more than the share is ever ejected at once, nobody
        /// stays longer than the longest time and a sweep, and whoever behaves is forgotten in the end.
        #[test]
        fn no_more_than_the_share_is_ejected(
            endpoints in 1_usize..12,
            percent in 0_u32..=100,
            events in prop::collection::vec((0_usize..12, any::<bool>(), 0_u64..20), 0..200),
        ) {
            let settings = OutlierDetection {
                consecutive_5xx: 2,
                max_ejection_percent: percent,
                ..OutlierDetection::default()
            };
            let mut hosts = vec![(Streaks::default(), History::default(), None::<Duration>); endpoints];
            let (mut now, mut swept) = (Duration::ZERO, Duration::ZERO);
            for (index, well, pause) in events {
                now += seconds(pause);
                while swept + settings.interval <= now {
                    swept += settings.interval;
                    for (streaks, history, since) in &mut hosts {
                        if history.sweep(swept, &settings) == Swept::Returned {
                            (*streaks, *since) = (Streaks::default(), None);
                        }
                    }
                }
                let ejected = hosts.iter().filter(|host| host.2.is_some()).count();
                let (streaks, history, since) = &mut hosts[index % endpoints];
                let signal = if well { Signal::Well } else { Signal::Failed { gateway: false } };
                let (next, reached) = streaks.after(signal, &settings);
                *streaks = next;
                if !reached.is_nothing() && since.is_none() && may_eject(&settings, ejected, endpoints) {
                    let time = history.eject(now, &settings);
                    prop_assert!(time >= settings.base_ejection_time && time <= LONGEST);
                    *since = Some(now);
                }
                let ejected = hosts.iter().filter(|host| host.2.is_some()).count();
                prop_assert!(ejected * 100 <= percent as usize * endpoints);
                for (_, _, since) in &hosts {
                    prop_assert!(since.is_none_or(|since| now - since < LONGEST + settings.interval));
                }
            }
            for step in 1..1000 {
                for (_, history, _) in &mut hosts {
                    history.sweep(now + settings.interval * step, &settings);
                }
            }
            prop_assert!(hosts.iter().all(|(_, history, _)| *history == History::default()));
        }
    }
}
