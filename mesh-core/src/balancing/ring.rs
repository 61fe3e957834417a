//! A ring of hashes: each endpoint has many points on it, and a key belongs to the next point after its own hash.
//!
//! The points of an endpoint depend on nothing but itself, so that one which goes takes only its own keys with it.

use super::choice::Member;
use super::hash::derived;

/// Points of an endpoint of usual weight: shares differ by less than a tenth then, nearly always.
const POINTS: u64 = 2048;
/// With so many points in all, endpoints get fewer, unless the rule demands a larger ring.
const ENOUGH: u64 = 1 << 19;
/// No ring has more points, whatever the rule demands (Envoy's limit).
const MOST: u64 = 8 * 1024 * 1024;
/// Bits of a point that name the member; the others are its place.
const MEMBER_BITS: u32 = 20;

/// Points in the order of their places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ring {
    points: Vec<u64>,
}

impl Ring {
    /// Lays out members on a ring of at least `minimum` points.
    pub(super) fn new(members: &[Member], minimum: u64) -> Ring {
        let members = &members[..members.len().min(1 << MEMBER_BITS)];
        let count = (members.len() as u64).max(1);
        let weights: u64 = members.iter().map(|member| u64::from(member.weight)).sum();
        // Powers of two, because what changes with every endpoint that comes or goes would move keys of all others.
        let usual_weight = floor_power(weights / count);
        let mut each = POINTS.min(floor_power(ENOUGH / count));
        each = each.max(minimum.min(MOST).div_ceil(count).next_power_of_two());
        while each > 1 && each.saturating_mul(weights) / usual_weight > MOST {
            each /= 2;
        }
        let mut points = Vec::new();
        for (number, member) in members.iter().enumerate() {
            let own = (each * u64::from(member.weight) / usual_weight).max(1);
            let place = |point| derived(member.key, point) >> MEMBER_BITS << MEMBER_BITS;
            points.extend((0..own).map(|point| place(point) | number as u64));
        }
        points.sort_unstable();
        Ring { points }
    }

    /// The member at so many points after the one that a hash belongs to.
    pub(super) fn member(&self, hash: u64, step: usize) -> usize {
        if self.points.is_empty() {
            return 0;
        }
        let next = self.points.partition_point(|point| *point < hash);
        let point = self.points[(next + step) % self.points.len()];
        (point & ((1 << MEMBER_BITS) - 1)) as usize
    }
}

fn floor_power(number: u64) -> u64 {
    1 << number.max(1).ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balancing::hash::hash;

    /// The part of all keys that each of a hundred members gets, in hundredths of its even share: measured exactly, by
    /// the length of its arcs, and so for keys spread evenly over all hashes.
    fn shares(family: u32) -> Vec<f64> {
        let address = |index| format!("10.{family}.{}.{}:{}", index / 7, index, 8080 + family);
        let member = |index: usize| Member { index, weight: 1, key: hash(address(index).as_bytes()) };
        let members: Vec<Member> = (0..100).map(member).collect();
        let ring = Ring::new(&members, 1024);
        let mut shares = vec![0.0; members.len()];
        let mut before = ring.points.last().copied().unwrap_or(0);
        for point in &ring.points {
            let owner = (point & ((1 << MEMBER_BITS) - 1)) as usize;
            shares[owner] += point.wrapping_sub(before) as f64 / 2_f64.powi(64) * 1e4;
            before = *point;
        }
        shares
    }

    #[test]
    fn shares_differ_by_less_than_a_tenth_whatever_the_addresses() {
        for family in 0..6 {
            let shares = shares(family);
            let (least, most) =
                shares.iter().fold((f64::MAX, 0.0_f64), |(a, b), share| (a.min(*share), b.max(*share)));
            assert!(least > 90.0 && most < 110.0, "{family}: {least} to {most}");
        }
    }
}
