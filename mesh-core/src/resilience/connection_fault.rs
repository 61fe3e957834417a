//! Faults of connections on purpose, for game days (annotation `mesh.io/fault` of a DestinationRule). Each has an end that
//! stands in the snapshot, so that it ends by itself, whoever is away then.

use std::fmt;
use std::time::Duration;

use crate::vocab::random::Random;
use crate::vocab::ratio::Ratio;

/// What happens to a connection, or to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnectionFaultKind {
    /// It is reset once so many bytes have passed; at once for 0.
    Reset {
        /// Bytes, of both directions together.
        after: u64,
    },
    /// It is open and nothing passes.
    Blackhole,
    /// So many bytes a second pass, each way.
    Bandwidth(u64),
    /// What passes comes later, each way.
    Latency(Duration),
}

impl ConnectionFaultKind {
    /// The word in the annotation and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            ConnectionFaultKind::Reset { .. } => "reset",
            ConnectionFaultKind::Blackhole => "blackhole",
            ConnectionFaultKind::Bandwidth(_) => "bandwidth",
            ConnectionFaultKind::Latency(_) => "latency",
        }
    }

    /// The response flag of what it happened to: delayed, or ended.
    pub fn flag(self) -> &'static str {
        match self {
            ConnectionFaultKind::Reset { .. } | ConnectionFaultKind::Blackhole => "FI",
            ConnectionFaultKind::Bandwidth(_) | ConnectionFaultKind::Latency(_) => "DI",
        }
    }
}

impl fmt::Display for ConnectionFaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectionFaultKind::Reset { after: 0 } => write!(f, "are reset"),
            ConnectionFaultKind::Reset { after } => write!(f, "are reset after {after} bytes"),
            ConnectionFaultKind::Blackhole => write!(f, "lead nowhere"),
            ConnectionFaultKind::Bandwidth(bytes) => write!(f, "carry {bytes} bytes a second each way"),
            ConnectionFaultKind::Latency(time) => write!(f, "are slower by {time:?} each way"),
        }
    }
}

/// A fault of the connections to a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionFault {
    /// What happens.
    pub kind: ConnectionFaultKind,
    /// To which share of connections; of requests, where the traffic is HTTP.
    pub share: Ratio,
    /// When it is over, in seconds since 1970.
    pub until: u64,
}

/// What happens to one connection, and for how long at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Injected {
    /// What happens.
    pub kind: ConnectionFaultKind,
    /// What is left until the fault is over.
    pub left: Duration,
}

impl ConnectionFault {
    /// No fault lasts longer.
    pub const LONGEST: Duration = Duration::from_secs(3600);
    /// So much may the clocks of two hosts be apart.
    const APART: Duration = Duration::from_secs(60);

    /// How long it goes on, `now` being the time since 1970. An end that is further away than any may be is another
    /// clock's: such a fault would not end, so it does not begin.
    pub fn left(&self, now: Duration) -> Option<Duration> {
        let left = Duration::from_secs(self.until).checked_sub(now)?;
        (!left.is_zero() && left <= Self::LONGEST + Self::APART).then_some(left)
    }

    /// Whether it happens to a connection that begins now.
    pub fn roll(&self, now: Duration, random: &mut Random) -> Option<Injected> {
        let left = self.left(now)?;
        self.share.roll(random).then_some(Injected { kind: self.kind, left })
    }
}

/// One direction of a connection that carries so many bytes a second. What was not used is not saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    rate: u64,
    free: Duration,
}

impl Pace {
    /// So many bytes a second; `free` is what passes at once, on the same clock as later times.
    pub fn new(rate: u64, free: Duration) -> Pace {
        Pace { rate: rate.max(1), free }
    }

    /// So many bytes pass at a time: those of a twentieth of a second.
    pub fn piece(&self) -> usize {
        usize::try_from(self.rate / 20).unwrap_or(usize::MAX).clamp(1, 64 * 1024)
    }

    /// So many bytes begin to pass; says when they have.
    pub fn pass(&mut self, bytes: usize, now: Duration) -> Duration {
        let nanos = (bytes as u128 * 1_000_000_000).div_ceil(u128::from(self.rate));
        let time = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.free = self.free.max(now).saturating_add(time);
        self.free
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HALF: u32 = 500_000;

    fn fault(ppm: u32, until: u64) -> ConnectionFault {
        ConnectionFault { kind: ConnectionFaultKind::Blackhole, share: Ratio::from_ppm(ppm).unwrap(), until }
    }

    #[test]
    fn it_ends_by_itself() {
        let second = Duration::from_secs;
        for (until, now, left) in [
            (1000, second(900), Some(second(100))),
            (1000, Duration::from_millis(999_999), Some(Duration::from_millis(1))),
            (1000, second(1000), None),
            (1000, second(5000), None),
            (1000, second(0), Some(second(1000))),
            (3660, second(0), Some(second(3660))),
            (3661, second(0), None),
            (u64::MAX, second(0), None),
        ] {
            assert_eq!(fault(HALF, until).left(now), left, "{until} {now:?}");
        }
    }

    #[test]
    fn a_share_of_connections_meets_it() {
        let mut random = Random::seeded(2);
        let hit = |ppm, now| {
            let fault = fault(ppm, 1000);
            let mut random = Random::seeded(random.below(1 << 40));
            (0..2_000).filter(|_| fault.roll(Duration::from_secs(now), &mut random).is_some()).count()
        };
        let mut hit = hit;
        assert_eq!((hit(1_000_000, 900), hit(0, 900), hit(1_000_000, 1000)), (2_000, 0, 0));
        assert!((900..1100).contains(&hit(HALF, 900)));
    }

    proptest! {
        /// At every moment: no more than its time allows, and one piece. And never less than that where there is
        /// always something to carry.
        #[test]
        fn no_more_passes_than_may(rate in 1_u64..1_000_000, pieces in proptest::collection::vec(1_usize..10_000, 1..50)) {
            let start = Duration::from_secs(7);
            let mut pace = Pace::new(rate, start);
            let (mut now, mut passed) = (start, 0_u64);
            for piece in pieces {
                now = pace.pass(piece.min(pace.piece()), now);
                passed += piece.min(pace.piece()) as u64;
                let time = (now - start).as_secs_f64();
                let expected = passed as f64 / rate as f64;
                prop_assert!((time - expected).abs() < 0.001, "{time} {expected}");
            }
        }

        #[test]
        fn silence_is_not_saved(rate in 1_u64..1_000_000, silence in 0_u64..10_000) {
            let mut pace = Pace::new(rate, Duration::ZERO);
            let now = Duration::from_millis(silence);
            let piece = pace.piece();
            let free = pace.pass(piece, now);
            prop_assert!(free > now);
            prop_assert!(pace.pass(1, now) > free);
        }
    }
}
