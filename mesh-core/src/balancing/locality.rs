//! Which localities get traffic, and in which order (`localityLbSetting`, `zoneAwareLbSetting`).
//!
//! What was declared on several levels is settled into one [`Preference`] when a destination is compiled; where the
//! caller is comes in only when the preference is applied ([`arrange`](super::priority::arrange)).

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

/// The smallest cluster for zone-aware routing where none was written.
const MIN_CLUSTER_SIZE: u32 = 6;

/// What a destination prefers, after precedence. The default treats every endpoint alike.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Preference {
    /// Every endpoint alike.
    #[default]
    None,
    /// Shares by the caller's locality; localities that are not named get nothing.
    Shares(Vec<Distribute>),
    /// The nearest first, others when these fail.
    Order {
        /// By how many of these labels (`KEY` or `KEY=VALUE`) agree from the first on.
        labels: Vec<Text>,
        /// Then by region, zone and subzone, with the region that takes over for one: from, to. `None` does not
        /// look at localities.
        regions: Option<Vec<(Text, Text)>>,
    },
    /// By region, and inside the caller's by zone.
    Zones {
        /// Before regions, by how many of these labels agree.
        labels: Vec<Text>,
        /// Region that takes over for a region: from, to.
        regions: Vec<(Text, Text)>,
        /// Fewer endpoints in the region are shared by all zones.
        min_cluster_size: u32,
    },
}

impl Preference {
    /// What holds of a DestinationRule's setting, the labels that the service's `trafficDistribution` stands for,
    /// and the mesh's setting. The first that says anything decides alone. Where outliers are not detected nothing
    /// would ever fail over, so there is no order, but for the one that a service asks for.
    pub fn of(
        rule: Option<&LocalityPolicy>,
        distribution: Option<&[&str]>,
        mesh: Option<&LocalityPolicy>,
        outliers_detected: bool,
    ) -> Preference {
        if let Some(policy) = rule {
            return policy.preference(outliers_detected);
        }
        if let Some(labels) = distribution {
            let labels = labels.iter().map(|label| Text::from(*label)).collect();
            return Preference::Order { labels, regions: None };
        }
        mesh.unwrap_or(&LocalityPolicy::default()).preference(outliers_detected)
    }
}

impl LocalityPolicy {
    fn preference(&self, outliers_detected: bool) -> Preference {
        if self.enabled == Some(false) {
            return Preference::None;
        }
        if let Some(size) = self.zone_aware {
            return Preference::Zones {
                labels: self.failover_priority.clone(),
                regions: self.failover.clone(),
                min_cluster_size: if size == 0 { MIN_CLUSTER_SIZE } else { size },
            };
        }
        if !self.distribute.is_empty() {
            return Preference::Shares(self.distribute.clone());
        }
        if !outliers_detected {
            return Preference::None;
        }
        let by_labels = !self.failover_priority.is_empty();
        let regions = (!by_labels || !self.failover.is_empty()).then(|| self.failover.clone());
        Preference::Order { labels: self.failover_priority.clone(), regions }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_level_that_speaks_decides_and_order_needs_outliers_detected() {
        let failover =
            || LocalityPolicy { failover: vec![("a".into(), "b".into())], ..LocalityPolicy::default() };
        let labels = || LocalityPolicy { failover_priority: vec!["k".into()], ..LocalityPolicy::default() };
        let both = || LocalityPolicy { failover_priority: vec!["k".into()], ..failover() };
        let off = || LocalityPolicy { enabled: Some(false), ..failover() };
        let shares = || LocalityPolicy {
            distribute: vec![Distribute { from: "*".into(), to: vec![("a".into(), 100)] }],
            ..LocalityPolicy::default()
        };
        let zones = || LocalityPolicy { zone_aware: Some(3), ..failover() };
        let close: &[&str] = &["z"];
        // `-` none, `S` shares, `Z` zones, else labels and regions.
        let check = |rule: Option<LocalityPolicy>,
                     distribution: Option<&[&str]>,
                     mesh: Option<LocalityPolicy>,
                     expected: [&str; 2]| {
            for (outliers, expected) in [(false, expected[0]), (true, expected[1])] {
                let found = match Preference::of(rule.as_ref(), distribution, mesh.as_ref(), outliers) {
                    Preference::None => "-".to_owned(),
                    Preference::Shares(_) => "S".to_owned(),
                    Preference::Zones { min_cluster_size, .. } => format!("Z{min_cluster_size}"),
                    Preference::Order { labels, regions } => {
                        format!(
                            "{}/{}",
                            labels.join(","),
                            regions.map_or("no".to_owned(), |r| r.len().to_string())
                        )
                    }
                };
                assert_eq!(found, expected, "{rule:?} {distribution:?} {mesh:?} {outliers}");
            }
        };
        check(None, None, None, ["-", "/0"]);
        check(None, None, Some(off()), ["-", "-"]);
        check(None, None, Some(failover()), ["-", "/1"]);
        check(Some(LocalityPolicy::default()), None, Some(failover()), ["-", "/0"]);
        check(Some(off()), Some(close), Some(failover()), ["-", "-"]);
        check(Some(labels()), None, Some(shares()), ["-", "k/no"]);
        check(Some(both()), None, None, ["-", "k/1"]);
        check(Some(shares()), None, None, ["S", "S"]);
        check(None, Some(close), Some(shares()), ["z/no", "z/no"]);
        check(None, Some(close), Some(zones()), ["z/no", "z/no"]);
        check(Some(zones()), Some(close), None, ["Z3", "Z3"]);
        check(None, None, Some(zones()), ["Z3", "Z3"]);
    }
}
