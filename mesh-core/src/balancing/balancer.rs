//! One enum of algorithms, one `pick` over a view of load.

use crate::vocab::random::Random;

/// How an endpoint is chosen (DestinationRule `loadBalancer.simple`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum LoadBalancer {
    /// In turn.
    RoundRobin,
    /// The less busy of two chosen at random. The default.
    #[default]
    LeastRequest,
    /// At random.
    Random,
}

impl LoadBalancer {
    /// The name in a DestinationRule.
    pub fn name(self) -> &'static str {
        match self {
            LoadBalancer::RoundRobin => "ROUND_ROBIN",
            LoadBalancer::LeastRequest => "LEAST_REQUEST",
            LoadBalancer::Random => "RANDOM",
        }
    }
}

/// The endpoints of a destination as a balancer sees them.
pub trait LoadView {
    /// How many there are.
    fn len(&self) -> usize;
    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Relative share of an endpoint; at least 1.
    fn weight(&self, index: usize) -> u32;
    /// Requests in flight at an endpoint.
    fn active(&self, index: usize) -> u32;
    /// Whether an endpoint may be chosen now.
    fn usable(&self, index: usize) -> bool;
}

/// How often a random pick that cannot be used is made again before all are looked at.
const RANDOM_TRIES: u32 = 4;

impl LoadBalancer {
    /// The endpoint that gets the next request; `None` if none is usable. `turn` is the destination's cursor,
    /// one higher for each request.
    pub fn pick(self, view: &impl LoadView, turn: u64, random: &mut Random) -> Option<usize> {
        match view.len() {
            0 => return None,
            1 => return view.usable(0).then_some(0),
            _ => {}
        }
        match self {
            LoadBalancer::RoundRobin => in_turn(view, turn),
            LoadBalancer::Random => at_random(view, random),
            LoadBalancer::LeastRequest => {
                let first = at_random(view, random)?;
                let second = at_random(view, random)?;
                Some(if load(view, second) < load(view, first) { second } else { first })
            }
        }
    }
}

/// Requests in flight relative to the weight, in fixed point.
fn load(view: &impl LoadView, index: usize) -> u64 {
    (u64::from(view.active(index)) + 1) * 1_000 / u64::from(view.weight(index).max(1))
}

fn total_weight(view: &impl LoadView) -> u64 {
    (0..view.len()).filter(|&i| view.usable(i)).map(|i| u64::from(view.weight(i).max(1))).sum()
}

fn at_weight(view: &impl LoadView, mut position: u64) -> Option<usize> {
    for index in (0..view.len()).filter(|&i| view.usable(i)) {
        let weight = u64::from(view.weight(index).max(1));
        if position < weight {
            return Some(index);
        }
        position -= weight;
    }
    None
}

fn at_random(view: &impl LoadView, random: &mut Random) -> Option<usize> {
    let len = view.len() as u64;
    let first_weight = view.weight(0);
    // Equal weights, the common case, need no sum over all endpoints.
    for _ in 0..RANDOM_TRIES {
        let index = random.below(len) as usize;
        if view.weight(index) != first_weight {
            break;
        }
        if view.usable(index) && equal_weights(view) {
            return Some(index);
        }
    }
    match total_weight(view) {
        0 => None,
        total => at_weight(view, random.below(total)),
    }
}

fn equal_weights(view: &impl LoadView) -> bool {
    (1..view.len()).all(|i| view.weight(i) == view.weight(0))
}

/// Steps through the weights by the golden ratio: each endpoint gets its share exactly in the long run and
/// its turns are spread evenly; with equal weights it is the plain order.
fn in_turn(view: &impl LoadView, turn: u64) -> Option<usize> {
    let total = total_weight(view);
    if total == 0 {
        return None;
    }
    if equal_weights(view) {
        let usable = (0..view.len()).filter(|&i| view.usable(i));
        let count = usable.clone().count() as u64;
        return usable.clone().nth((turn % count) as usize);
    }
    let fraction = turn.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    at_weight(view, ((u128::from(fraction) * u128::from(total)) >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct View(Vec<(u32, u32, bool)>);

    impl LoadView for View {
        fn len(&self) -> usize {
            self.0.len()
        }
        fn weight(&self, index: usize) -> u32 {
            self.0[index].0
        }
        fn active(&self, index: usize) -> u32 {
            self.0[index].1
        }
        fn usable(&self, index: usize) -> bool {
            self.0[index].2
        }
    }

    fn shares(balancer: LoadBalancer, view: &View) -> Vec<u32> {
        let mut random = Random::seeded(5);
        let mut seen = vec![0; view.0.len()];
        for turn in 0..6_000 {
            if let Some(index) = balancer.pick(view, turn, &mut random) {
                seen[index] += 1;
            }
        }
        seen
    }

    const ALL: [LoadBalancer; 3] =
        [LoadBalancer::RoundRobin, LoadBalancer::LeastRequest, LoadBalancer::Random];

    #[test]
    fn equal_endpoints_share_equally_and_unusable_ones_get_nothing() {
        let view = View(vec![(1, 0, true), (1, 0, false), (1, 0, true), (1, 0, true)]);
        for balancer in ALL {
            let seen = shares(balancer, &view);
            assert_eq!(seen[1], 0, "{balancer:?}");
            assert!([0, 2, 3].iter().all(|&i| (1_800..2_200).contains(&seen[i])), "{balancer:?} {seen:?}");
        }
    }

    #[test]
    fn weights_count() {
        let view = View(vec![(1, 0, true), (3, 0, true)]);
        for balancer in [LoadBalancer::RoundRobin, LoadBalancer::Random] {
            let seen = shares(balancer, &view);
            assert!((1_350..1_650).contains(&seen[0]), "{balancer:?} {seen:?}");
        }
    }

    #[test]
    fn least_request_avoids_the_busy() {
        let view = View(vec![(1, 50, true), (1, 0, true)]);
        let seen = shares(LoadBalancer::LeastRequest, &view);
        assert!((1_300..1_700).contains(&seen[0]), "{seen:?}");
    }

    #[test]
    fn nothing_usable_gives_nothing() {
        for balancer in ALL {
            assert_eq!(balancer.pick(&View(vec![]), 0, &mut Random::seeded(0)), None);
            assert_eq!(balancer.pick(&View(vec![(1, 0, false)]), 0, &mut Random::seeded(0)), None);
            assert_eq!(
                balancer.pick(&View(vec![(1, 0, false), (1, 0, false)]), 0, &mut Random::seeded(0)),
                None
            );
        }
    }
}
