//! Zone-aware routing: how much of a caller's traffic stays in its own zone (`zoneAwareLbSetting`).
//!
//! As much as possible stays there, while every endpoint of the region gets nearly as many requests as any other: that
//! depends on how the callers' own service is spread over the zones (Envoy's zone-aware routing).

/// Parts are counted in this many.
const WHOLE: u64 = 10_000;

/// A caller among the zones of a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Zones<'a> {
    /// Number of the caller's zone.
    pub own: usize,
    /// How many workloads of the caller's own service each zone has, itself included.
    pub callers: &'a [u64],
    /// Fewer endpoints are shared by all zones (`minClusterSize`).
    pub least: u32,
}

impl Zones<'_> {
    /// The share of each zone by how many of its endpoints are usable. `None` where zones make no difference: too few
    /// endpoints, none in the caller's zone, or none in any other.
    pub fn shares(&self, usable: &[u64]) -> Option<Vec<u64>> {
        let all: u64 = usable.iter().sum();
        let callers: u64 = self.callers.iter().sum();
        let own = usable.get(self.own).copied().unwrap_or(0);
        let own_callers = self.callers.get(self.own).copied().unwrap_or(0);
        let others = usable.iter().filter(|count| **count > 0).count() > 1;
        if own == 0 || own_callers == 0 || !others || all < u64::from(self.least.max(1)) {
            return None;
        }
        let endpoints_in = |zone: usize| usable[zone] * WHOLE / all;
        let callers_in = |zone: usize| self.callers.get(zone).map_or(0, |count| count * WHOLE / callers);
        let mut shares = vec![0; usable.len()];
        let (here, wanted) = (endpoints_in(self.own), callers_in(self.own));
        if here >= wanted {
            shares[self.own] = 1;
            return Some(shares);
        }
        // Zones that have more of the endpoints than of the callers take what is too much for the own one.
        let room = |zone: usize| endpoints_in(zone).saturating_sub(callers_in(zone));
        let rooms: u64 = (0..usable.len()).map(room).sum();
        if rooms == 0 {
            return None;
        }
        let kept = here * WHOLE / wanted;
        for (zone, share) in shares.iter_mut().enumerate() {
            *share = if zone == self.own { kept * rooms } else { (WHOLE - kept) * room(zone) };
        }
        Some(shares)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn percent(shares: &[u64]) -> Vec<u64> {
        let sum: u64 = shares.iter().sum();
        shares.iter().map(|share| (share * 100 + sum / 2) / sum.max(1)).collect()
    }

    #[test]
    fn as_much_as_possible_stays_at_home() {
        let check = |callers: &[u64], usable: &[u64], least: u32, expected: Option<&[u64]>| {
            let found = Zones { own: 0, callers, least }.shares(usable);
            assert_eq!(found.as_deref().map(percent).as_deref(), expected, "{callers:?} {usable:?} {least}");
        };
        check(&[1, 1], &[3, 3], 6, Some(&[100, 0]));
        check(&[1, 1], &[3, 2], 6, None);
        check(&[1, 1], &[3, 2], 5, Some(&[100, 0]));
        check(&[1, 3], &[3, 3], 6, Some(&[100, 0]));
        // Two thirds of the callers find half of the endpoints: three of four requests stay.
        check(&[2, 1], &[3, 3], 6, Some(&[75, 25]));
        check(&[2, 1, 0], &[4, 2, 2], 6, Some(&[75, 0, 25]));
        check(&[1], &[2, 4, 2], 6, Some(&[25, 50, 25]));
        check(&[1, 1], &[0, 6], 6, None);
        check(&[1, 1], &[6, 0], 6, None);
        check(&[0, 1], &[3, 3], 6, None);
        check(&[], &[3, 3], 6, None);
    }

    proptest! {
        /// Where all callers ask as often, no endpoint gets more than a few percent above the mean.
        #[test]
        fn endpoints_get_the_same(callers in prop::collection::vec(1_u64..20, 2..5), seed in prop::collection::vec(1_u64..20, 5)) {
            let usable = &seed[..callers.len()];
            let (all, total): (u64, u64) = (usable.iter().sum(), callers.iter().sum());
            let mut load = vec![0.0; usable.len()];
            for own in 0..callers.len() {
                let zones = Zones { own, callers: &callers, least: 1 };
                // The own zone has endpoints here, so that only rounding leaves nothing to give away.
                let Some(shares) = zones.shares(usable) else { return Ok(()) };
                let sum: u64 = shares.iter().sum();
                for (zone, share) in shares.iter().enumerate() {
                    load[zone] += *share as f64 / sum as f64 * callers[own] as f64 / total as f64;
                }
            }
            for (load, usable) in load.iter().zip(usable) {
                let mean = *usable as f64 / all as f64;
                prop_assert!(*load <= mean * 1.02 + 0.001, "{load} of {mean}");
            }
        }
    }
}
