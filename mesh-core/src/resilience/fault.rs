//! Whether to delay or abort a request on purpose (VirtualService `fault`).

use std::time::Duration;

use crate::vocab::random::Random;
use crate::vocab::ratio::Ratio;

/// How an aborted request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AbortStatus {
    /// With this HTTP status.
    Http(u16),
    /// With this gRPC status.
    Grpc(u16),
}

/// What faults a rule injects. The default injects none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct FaultPolicy {
    /// Share of requests that wait, and how long.
    pub delay: Option<(Ratio, Duration)>,
    /// Share of requests that are aborted, and how.
    pub abort: Option<(Ratio, AbortStatus)>,
}

/// What shall happen to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FaultVerdict {
    /// Wait so long first.
    pub delay: Option<Duration>,
    /// Then answer so, and go no further.
    pub abort: Option<AbortStatus>,
}

impl FaultPolicy {
    /// Rolls for the delay and the abort independently, as Envoy does.
    pub fn roll(&self, random: &mut Random) -> FaultVerdict {
        let delay = self.delay.filter(|(share, _)| share.roll(random)).map(|(_, duration)| duration);
        let abort = self.abort.filter(|(share, _)| share.roll(random)).map(|(_, status)| status);
        FaultVerdict { delay, abort }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_and_abort_are_rolled_apart() {
        let half = Ratio::from_percent(50.0).unwrap();
        let policy = FaultPolicy {
            delay: Some((half, Duration::from_secs(1))),
            abort: Some((half, AbortStatus::Http(500))),
        };
        let mut random = Random::seeded(1);
        let mut seen = [[0u32; 2]; 2];
        for _ in 0..4_000 {
            let verdict = policy.roll(&mut random);
            seen[usize::from(verdict.delay.is_some())][usize::from(verdict.abort.is_some())] += 1;
        }
        assert!(seen.iter().flatten().all(|&count| (850..1150).contains(&count)), "{seen:?}");
    }
}
