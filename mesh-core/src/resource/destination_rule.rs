//! DestinationRule.

use crate::balancing::balancer::LoadBalancer;
use crate::policy::mtls::ClientTls;
use crate::vocab::label::Labels;
use crate::vocab::name::Text;

/// The blocks of a traffic policy; `None` where a block was not written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrafficBlocks {
    /// `loadBalancer.simple`.
    pub load_balancer: Option<LoadBalancer>,
    /// `tls.mode`.
    pub tls: Option<ClientTls>,
}

/// `trafficPolicy` at the top or of a subset.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrafficPolicy {
    /// Its blocks.
    pub blocks: TrafficBlocks,
    /// `portLevelSettings` by service port. An entry is the whole policy of its port: blocks that it leaves
    /// out take their defaults, not the level's.
    pub ports: Vec<(u16, TrafficBlocks)>,
}

/// One entry of `subsets`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subset {
    /// Name.
    pub name: Text,
    /// Labels of its endpoints; none selects all.
    pub labels: Labels,
    /// Its policy, over the top level's.
    pub policy: Option<TrafficPolicy>,
}

/// Policies and subsets of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestinationRule {
    /// Host as written, lower case; a short name is resolved against the namespace when compiled.
    pub host: Text,
    /// Policy of all traffic to the host.
    pub policy: Option<TrafficPolicy>,
    /// Subsets.
    pub subsets: Vec<Subset>,
}
