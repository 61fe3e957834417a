//! How long a connection takes new requests: old ones end, so that new endpoints and proxies get their share, and not all
//! at once.

use std::time::Duration;

use crate::vocab::random::Random;

/// Connections take new requests for so long where nothing else is said.
pub const MOST_AGE: Duration = Duration::from_secs(600);

/// The age at which one connection retires: at random in the last fifth of the most that it may reach.
pub fn retirement(most: Duration, random: &mut Random) -> Duration {
    most.mul_f64(0.8 + 0.2 * random.below(1000) as f64 / 1000.0)
}

/// The same where the other end has a limit of its own: it goes first, as it loses nothing by that.
pub fn later_retirement(most: Duration, random: &mut Random) -> Duration {
    retirement(most.saturating_mul(2), random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_retire_one_after_another() {
        let mut random = Random::seeded(1);
        let most = Duration::from_secs(100);
        let ages: Vec<Duration> = (0..100).map(|_| retirement(most, &mut random)).collect();
        assert!(ages.iter().all(|age| (most * 4 / 5..=most).contains(age)));
        let (first, last) = (ages.iter().min().unwrap(), ages.iter().max().unwrap());
        assert!(*last - *first > most / 10);
        assert!(later_retirement(most, &mut random) > most);
    }
}
