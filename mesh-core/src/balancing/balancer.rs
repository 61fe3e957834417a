//! The algorithms that know no key, and the view of load that they choose by.

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

/// The endpoints of a destination at this moment, by index.
pub trait LoadView {
    /// Requests in flight at an endpoint.
    fn active(&self, index: usize) -> u32;
    /// Whether an endpoint may be chosen now.
    fn usable(&self, index: usize) -> bool;
    /// Whether an endpoint may be chosen where so few are usable that it no longer matters who is.
    fn reachable(&self, index: usize) -> bool {
        self.usable(index)
    }
    /// How many times as long an endpoint takes as its neighbours usually do; 1 for all that are not slow.
    fn slowness(&self, _index: usize) -> u32 {
        1
    }
}

/// Chooses an endpoint for the next attempt of a request: one that was not tried and is not just being found out about,
/// then one that was not tried, then any. `choose` gets what to pass over, and whether to be patient with those that have
/// come back and are being tried.
pub fn for_attempt(
    tried: &[usize],
    mut choose: impl FnMut(&[usize], bool) -> Option<usize>,
) -> Option<usize> {
    let fresh = choose(tried, true).or_else(|| choose(tried, false));
    match fresh {
        None if !tried.is_empty() => choose(&[], false),
        fresh => fresh,
    }
}
