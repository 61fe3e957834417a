//! The weighted choice of a backend.

use crate::vocab::random::Random;

/// The index that wins, each with a chance proportional to its weight; `None` if there is nothing to choose.
/// A single entry ignores its weight (Istio: a lone destination gets everything, even with weight 0).
pub fn choose(weights: impl ExactSizeIterator<Item = u32> + Clone, random: &mut Random) -> Option<usize> {
    if weights.len() <= 1 {
        return (weights.len() == 1).then_some(0);
    }
    let total: u64 = weights.clone().map(u64::from).sum();
    if total == 0 {
        return None;
    }
    let mut left = random.below(total);
    for (index, weight) in weights.enumerate() {
        let weight = u64::from(weight);
        if left < weight {
            return Some(index);
        }
        left -= weight;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_follow_the_weights() {
        let weights = [90, 0, 10];
        let mut random = Random::seeded(9);
        let mut seen = [0u32; 3];
        for _ in 0..10_000 {
            seen[choose(weights.into_iter(), &mut random).unwrap()] += 1;
        }
        assert!((8_900..9_100).contains(&seen[0]) && seen[1] == 0, "{seen:?}");
    }

    #[test]
    fn one_entry_ignores_its_weight() {
        let mut random = Random::seeded(0);
        assert_eq!(choose([0].into_iter(), &mut random), Some(0));
        assert_eq!(choose([0, 0].into_iter(), &mut random), None);
        assert_eq!(choose([].into_iter(), &mut random), None);
    }
}
