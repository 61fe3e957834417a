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
}
