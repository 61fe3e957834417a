//! Fractions as integers, so that configuration is `Eq` and `Hash`.

use std::fmt;

use super::random::Random;

/// Parts per million, 0 to 1,000,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Ratio(u32);

impl Ratio {
    /// Nothing.
    pub const ZERO: Ratio = Ratio(0);
    /// All.
    pub const ONE: Ratio = Ratio(1_000_000);

    /// From parts per million; `None` above a million.
    pub fn from_ppm(ppm: u32) -> Option<Ratio> {
        (ppm <= 1_000_000).then_some(Ratio(ppm))
    }

    /// From a percentage of 0 to 100, truncated to parts per million as Envoy does.
    pub fn from_percent(percent: f64) -> Option<Ratio> {
        if !(0.0..=100.0).contains(&percent) {
            return None;
        }
        // In range by the check above, so the cast only truncates the fraction.
        Some(Ratio((percent * 10_000.0 + 1e-6) as u32))
    }

    /// Parts per million.
    pub fn ppm(self) -> u32 {
        self.0
    }

    /// The same as a percentage.
    pub fn percent(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }

    /// Rolls the dice: true with this probability.
    pub fn roll(self, random: &mut Random) -> bool {
        match self {
            Ratio::ZERO => false,
            Ratio::ONE => true,
            Ratio(ppm) => random.below(1_000_000) < u64::from(ppm),
        }
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.percent())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_truncate_to_one_ppm() {
        for (percent, ppm) in
            [(0.0, 0), (100.0, 1_000_000), (0.0001, 1), (33.3, 333_000), (0.1, 1_000), (0.00005, 0)]
        {
            assert_eq!(Ratio::from_percent(percent).unwrap().ppm(), ppm, "{percent}");
        }
        assert_eq!(Ratio::from_percent(100.1), None);
        assert_eq!(Ratio::from_percent(f64::NAN), None);
    }
}
