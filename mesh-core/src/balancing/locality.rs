//! Which localities get traffic, and in which order (`localityLbSetting`, `zoneAwareLbSetting`).

use crate::vocab::name::Text;

/// Where a locality's traffic goes instead of where it would: `from` is `region/zone/subzone` with `*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Distribute {
    /// Pattern of the caller's locality.
    pub from: Text,
    /// Patterns and shares that sum to 100.
    pub to: Vec<(Text, u32)>,
}

/// The settings. The default is what the mesh does without any: failover where outliers are detected.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct LocalityPolicy {
    /// `enabled`; default true.
    pub enabled: Option<bool>,
    /// Explicit shares.
    pub distribute: Vec<Distribute>,
    /// Region that takes over for a region: from, to.
    pub failover: Vec<(Text, Text)>,
    /// Ordered labels, `KEY` or `KEY=VALUE`.
    pub failover_priority: Vec<Text>,
    /// Zone-aware routing inside the region instead: the smallest cluster for it (default 6).
    pub zone_aware: Option<u32>,
}
