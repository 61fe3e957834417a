//! A preference applied: the priority and the share of each endpoint for one caller.

use std::collections::BTreeSet;

use super::locality::{Distribute, Preference};
use crate::vocab::label::Labels;
use crate::vocab::locality::Locality;
use crate::vocab::name::Text;

/// Where somebody is: a caller or an endpoint.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Region, zone, subzone.
    pub locality: &'a Locality,
    /// Labels.
    pub labels: &'a Labels,
    /// Network.
    pub network: Option<&'a str>,
    /// Host that it runs on.
    pub node: Option<&'a str>,
}

/// What an endpoint gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// 0 comes first; numbered without gaps.
    pub priority: u32,
    /// Share among those of its priority; 0 for no traffic at all.
    pub weight: u32,
}

impl Place<'_> {
    /// Whether nothing at all is known.
    pub fn is_unknown(&self) -> bool {
        *self.locality == Locality::default()
            && self.labels.is_empty()
            && self.network.is_none()
            && self.node.is_none()
    }

    /// The value of a label, those included that follow from where it is. Empty where it has none.
    fn label(&self, key: &str) -> &str {
        let known = match key {
            "topology.istio.io/network" => self.network,
            "topology.kubernetes.io/region" => self.locality.region.as_deref(),
            "topology.kubernetes.io/zone" => self.locality.zone.as_deref(),
            "topology.istio.io/subzone" => self.locality.subzone.as_deref(),
            "kubernetes.io/hostname" => self.node,
            _ => None,
        };
        known.or_else(|| self.labels.value(key)).unwrap_or("")
    }

    fn region(&self) -> &str {
        self.locality.region.as_deref().unwrap_or("")
    }
}

/// The standing of each endpoint (its place and its weight) for a caller.
pub fn arrange(preference: &Preference, caller: &Place<'_>, endpoints: &[(Place<'_>, u32)]) -> Vec<Standing> {
    let weights = endpoints.iter().map(|(_, weight)| (*weight).max(1));
    let priorities: Vec<u32> = match preference {
        Preference::None => return weights.map(|weight| Standing { priority: 0, weight }).collect(),
        Preference::Shares(distribute) => return shares(distribute, caller, endpoints),
        Preference::Order { labels, regions } => {
            let places = endpoints.iter().map(|(place, _)| place);
            places
                .map(|place| {
                    let by_label = by_labels(labels, caller, place);
                    let by_region = regions.as_ref().map_or(0, |regions| distance(caller, place, regions));
                    by_label * 5 + by_region
                })
                .collect()
        }
        Preference::Zones { labels, regions, .. } => {
            let places = endpoints.iter().map(|(place, _)| place);
            places
                .map(|place| by_labels(labels, caller, place) * 3 + by_region(caller, place, regions))
                .collect()
        }
    };
    let found: BTreeSet<u32> = priorities.iter().copied().collect();
    let number = |priority: &u32| found.range(..priority).count() as u32;
    weights.zip(&priorities).map(|(weight, p)| Standing { priority: number(p), weight }).collect()
}

/// How many of the labels remain from the first on that does not agree. Two that lack a label agree. A caller of
/// whom nothing is known prefers nobody.
fn by_labels(labels: &[Text], caller: &Place<'_>, endpoint: &Place<'_>) -> u32 {
    if caller.is_unknown() {
        return 0;
    }
    let differs = labels.iter().position(|label| {
        let (key, wanted) = match label.split_once('=') {
            Some((key, value)) => (key, value),
            None => (&**label, caller.label(label)),
        };
        endpoint.label(key) != wanted
    });
    differs.map_or(0, |index| (labels.len() - index) as u32)
}

/// 0 in the same subzone, 1 zone, 2 region, 3 elsewhere; 4 elsewhere where another region takes over.
fn distance(caller: &Place<'_>, endpoint: &Place<'_>, regions: &[(Text, Text)]) -> u32 {
    let (own, there) = (caller.locality, endpoint.locality);
    if own.region != there.region {
        let takes_over = regions.iter().find(|(from, _)| **from == *caller.region());
        return if takes_over.is_some_and(|(_, to)| **to != *endpoint.region()) { 4 } else { 3 };
    }
    match (own.zone == there.zone, own.subzone == there.subzone) {
        (true, true) => 0,
        (true, false) => 1,
        (false, _) => 2,
    }
}

/// 0 in the same region, 1 in the one that takes over, 2 in others.
fn by_region(caller: &Place<'_>, endpoint: &Place<'_>, regions: &[(Text, Text)]) -> u32 {
    if caller.region() == endpoint.region() {
        return 0;
    }
    let takes_over =
        regions.iter().any(|(from, to)| **from == *caller.region() && **to == *endpoint.region());
    if takes_over { 1 } else { 2 }
}

/// Whether a locality falls under `region/zone/subzone`, `*` and missing parts standing for any.
pub fn locality_matches(pattern: &str, locality: &Locality) -> bool {
    let parts = [&locality.region, &locality.zone, &locality.subzone];
    let mut wanted = pattern.splitn(3, '/');
    let region = wanted.next().unwrap_or("");
    let passes = |wanted: &str, part: &Option<Text>| wanted == "*" || wanted == part.as_deref().unwrap_or("");
    passes(region, parts[0])
        && wanted.zip(&parts[1..]).all(|(wanted, part)| wanted.is_empty() || passes(wanted, part))
}

/// Each locality's share is divided among its endpoints by their weights, exactly.
fn shares(distribute: &[Distribute], caller: &Place<'_>, endpoints: &[(Place<'_>, u32)]) -> Vec<Standing> {
    let weight = |index: usize| u128::from(endpoints[index].1.max(1));
    let Some(chosen) = distribute.iter().find(|entry| locality_matches(&entry.from, caller.locality)) else {
        let weights = (0..endpoints.len()).map(weight);
        return weights.map(|weight| Standing { priority: 0, weight: weight as u32 }).collect();
    };
    let target = |place: &Place<'_>| {
        chosen.to.iter().position(|(pattern, _)| locality_matches(pattern, place.locality))
    };
    let targets: Vec<Option<usize>> = endpoints.iter().map(|(place, _)| target(place)).collect();
    let mut totals = vec![0u128; chosen.to.len()];
    for (index, target) in targets.iter().enumerate() {
        if let Some(target) = target {
            totals[*target] += weight(index);
        }
    }
    let common = totals.iter().filter(|total| **total > 0).fold(1u128, |common, total| lcm(common, *total));
    let exact = |(index, target): (usize, &Option<usize>)| match target {
        Some(target) => u128::from(chosen.to[*target].1) * weight(index) * (common / totals[*target]),
        None => 0,
    };
    let exact: Vec<u128> = targets.iter().enumerate().map(exact).collect();
    in_percent(&exact).into_iter().map(|weight| Standing { priority: 0, weight }).collect()
}

/// The same proportions in the smallest whole numbers whose sum is a multiple of 100.
fn in_percent(exact: &[u128]) -> Vec<u32> {
    let divisor = exact.iter().fold(0, |divisor, weight| gcd(divisor, *weight)).max(1);
    let sum: u128 = exact.iter().map(|weight| weight / divisor).sum();
    let factor = 100 / gcd(sum, 100);
    // Far more endpoints of odd weights than a mesh has: proportions are then rounded, never to nothing.
    let excess =
        exact.iter().max().map_or(1, |most| (most / divisor * factor).div_ceil(u128::from(u32::MAX))).max(1);
    let scaled = |weight: &u128| {
        let scaled = weight / divisor * factor / excess;
        u32::try_from(if *weight > 0 { scaled.max(1) } else { 0 }).unwrap_or(u32::MAX)
    };
    exact.iter().map(scaled).collect()
}

fn gcd(a: u128, b: u128) -> u128 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The least common multiple; `a` again where it would leave all bounds, so that shares are rounded instead.
fn lcm(a: u128, b: u128) -> u128 {
    let product = (a / gcd(a, b)).checked_mul(b);
    product.filter(|product| *product < 1 << 80).unwrap_or(a.max(b))
}

/// How healthy a priority must look before less than all of it is used: 140 % of its healthy share, at most 100.
const OVERPROVISIONING_PERCENT: u64 = 140;

/// The share of traffic in percent that each priority gets, given how many endpoints it has and how many of these
/// are healthy. A priority keeps everything until less than 72 % of it is healthy; what remains spills down.
pub fn spill(priorities: &[(u64, u64)]) -> Vec<u64> {
    let health = |&(healthy, all): &(u64, u64)| match all {
        0 => 0,
        _ => (healthy.min(all) * OVERPROVISIONING_PERCENT / all).min(100),
    };
    let health: Vec<u64> = priorities.iter().map(health).collect();
    let total = health.iter().sum::<u64>().min(100);
    if total == 0 {
        return vec![0; priorities.len()];
    }
    let mut left = 100;
    let mut loads: Vec<u64> = Vec::with_capacity(health.len());
    for health in &health {
        let load = (health * 100 / total).min(left);
        left -= load;
        loads.push(load);
    }
    // What rounding left goes to the first that gets anything.
    if let Some(first) = loads.iter_mut().find(|load| **load > 0) {
        *first += left;
    }
    loads
}

/// What a priority gets of the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// In percent.
    pub percent: u64,
    /// Whether too little of it is healthy for health to count: all of it gets traffic.
    pub panics: bool,
}

/// The same as [`spill`] with the threshold of panic, in percent of healthy endpoints. While the priorities together are
/// well enough none of them panics. Where all of them do, traffic is divided by the number of their endpoints.
pub fn loads(priorities: &[(u64, u64)], panic_percent: u64) -> Vec<Load> {
    let health =
        |&(healthy, all): &(u64, u64)| (healthy.min(all) * OVERPROVISIONING_PERCENT).checked_div(all);
    let total: u64 = priorities.iter().map(|counts| health(counts).unwrap_or(0).min(100)).sum();
    let panics = |&(healthy, all): &(u64, u64)| total < 100 && healthy * 100 < all * panic_percent;
    if !priorities.is_empty() && priorities.iter().all(panics) {
        let all: u64 = priorities.iter().map(|(_, all)| all).sum();
        let mut shares: Vec<u64> = priorities.iter().map(|(_, own)| own * 100 / all.max(1)).collect();
        let left = 100 - shares.iter().sum::<u64>();
        if let Some(first) = shares.iter_mut().find(|share| **share > 0) {
            *first += left;
        }
        return shares.into_iter().map(|percent| Load { percent, panics: true }).collect();
    }
    let shares = spill(priorities).into_iter().zip(priorities);
    shares.map(|(percent, counts)| Load { percent, panics: panics(counts) }).collect()
}

/// What is left of the share of a locality of which so many endpoints of all are usable.
pub fn available(share: u64, usable: u64, all: u64) -> u64 {
    // In hundredths of a share, so that small ones shrink too.
    let whole = share.saturating_mul(100);
    let health = usable.min(all) * OVERPROVISIONING_PERCENT;
    if health >= all * 100 { whole } else { share.saturating_mul(health).checked_div(all).unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: [&str; 6] = ["r1/z1/s1", "r1/z1/s2", "r1/z2/s1", "r2/z1/s1", "r3/z1/s1", ""];

    fn text(texts: &[&str]) -> Vec<Text> {
        texts.iter().map(|text| Text::from(*text)).collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(Text, Text)> {
        pairs.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect()
    }

    fn at<'a>(locality: &'a Locality, labels: &'a Labels) -> Place<'a> {
        Place { locality, labels, network: None, node: None }
    }

    /// Priorities of endpoints at these localities for a caller in the first of them.
    fn priorities(preference: &Preference, caller: &str, localities: &[&str]) -> Vec<u32> {
        let labels: Labels = [("app", "x")].into_iter().collect();
        let caller = Locality::parse(caller);
        let caller = Place { locality: &caller, labels: &labels, network: None, node: None };
        let localities: Vec<_> = localities.iter().map(|text| Locality::parse(text)).collect();
        let none = Labels::default();
        let endpoints: Vec<_> = localities
            .iter()
            .map(|locality| (Place { locality, labels: &none, network: None, node: None }, 1))
            .collect();
        arrange(preference, &caller, &endpoints).iter().map(|standing| standing.priority).collect()
    }

    fn by_locality(regions: &[(&str, &str)]) -> Preference {
        Preference::Order { labels: Vec::new(), regions: Some(pairs(regions)) }
    }

    #[test]
    fn the_nearest_come_first_and_priorities_have_no_gaps() {
        let check = |preference: &Preference, caller: &str, localities: &[&str], expected: &[u32]| {
            assert_eq!(priorities(preference, caller, localities), expected, "{preference:?} {caller}");
        };
        check(&by_locality(&[]), "r1/z1/s1", &HERE, &[0, 1, 2, 3, 3, 3]);
        check(&by_locality(&[]), "r1/z1/s1", &["r1/z2", "r2/z1"], &[0, 1]);
        check(&by_locality(&[]), "r1/z1/s1", &["r2/z1", "r3/z1"], &[0, 0]);
        check(&by_locality(&[("r1", "r3")]), "r1/z1/s1", &HERE, &[0, 1, 2, 4, 3, 4]);
        check(&by_locality(&[("r2", "r3")]), "r1/z1/s1", &HERE, &[0, 1, 2, 3, 3, 3]);
        check(&by_locality(&[]), "", &["r1/z1", ""], &[1, 0]);
        check(&Preference::None, "r1/z1/s1", &HERE, &[0; 6]);
        let zones = |regions: &[(&str, &str)]| Preference::Zones {
            labels: Vec::new(),
            regions: pairs(regions),
            min_cluster_size: 6,
        };
        check(&zones(&[]), "r1/z1/s1", &HERE, &[0, 0, 0, 1, 1, 1]);
        check(&zones(&[("r1", "r3")]), "r1/z1/s1", &HERE, &[0, 0, 0, 2, 1, 2]);
        let labels = |labels: &[&str], regions| Preference::Order { labels: text(labels), regions };
        let zone = ["topology.kubernetes.io/region", "topology.kubernetes.io/zone"];
        check(&labels(&zone, None), "r1/z1/s1", &HERE, &[0, 0, 1, 2, 2, 2]);
        check(&labels(&zone, Some(Vec::new())), "r1/z1/s1", &HERE, &[0, 1, 2, 3, 3, 3]);
        check(&labels(&["topology.kubernetes.io/region=r2"], None), "r1/z1/s1", &HERE, &[1, 1, 1, 0, 1, 1]);
    }

    #[test]
    fn labels_are_compared_in_order_up_to_the_first_that_differs() {
        let labels =
            |text: &str| -> Labels { text.split(',').filter_map(|pair| pair.split_once('=')).collect() };
        let nowhere = Locality::default();
        let own = labels("version=v1,rack=a");
        let [both, rack, version, none] =
            [labels("version=v1,rack=a"), labels("rack=a"), labels("version=v1"), Labels::default()];
        let check = |order: &[&str], caller: &Labels, expected: &[u32]| {
            let endpoints: Vec<_> =
                [&both, &rack, &version, &none].into_iter().map(|l| (at(&nowhere, l), 1)).collect();
            let order = Preference::Order { labels: text(order), regions: None };
            let found = arrange(&order, &at(&nowhere, caller), &endpoints);
            let found: Vec<_> = found.iter().map(|standing| standing.priority).collect();
            assert_eq!(found, expected, "{order:?}");
        };
        check(&["version", "rack"], &own, &[0, 2, 1, 2]);
        check(&["rack", "version"], &own, &[0, 1, 2, 2]);
        check(&["version=v1"], &own, &[0, 1, 0, 1]);
        check(&["nothing"], &own, &[0, 0, 0, 0]);
        check(&["version"], &none, &[0, 0, 0, 0]);
        let special = Preference::Order {
            labels: text(&["topology.istio.io/network", "kubernetes.io/hostname"]),
            regions: None,
        };
        let endpoints = [(Some("n1"), Some("h1")), (Some("n1"), Some("h2")), (Some("n2"), Some("h1"))];
        let endpoints = endpoints.map(|(network, node)| (Place { network, node, ..at(&nowhere, &none) }, 1));
        let found = arrange(&special, &endpoints[0].0, &endpoints);
        assert_eq!(found.iter().map(|standing| standing.priority).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn distribution_gives_each_locality_its_share_and_others_nothing() {
        let check = |from: &[(&str, &[(&str, u32)])], endpoints: &[(&str, u32)], expected: &[u32]| {
            let distribute = from.iter().map(|(from, to)| Distribute {
                from: (*from).into(),
                to: to.iter().map(|(to, share)| ((*to).into(), *share)).collect(),
            });
            let distribute = Preference::Shares(distribute.collect());
            let own = Locality::parse("r1/z1/s1");
            let none = Labels::default();
            let localities: Vec<_> =
                endpoints.iter().map(|(text, weight)| (Locality::parse(text), *weight)).collect();
            let endpoints: Vec<_> =
                localities.iter().map(|(locality, weight)| (at(locality, &none), *weight)).collect();
            let found = arrange(&distribute, &at(&own, &none), &endpoints);
            assert!(found.iter().all(|standing| standing.priority == 0));
            assert_eq!(found.iter().map(|s| s.weight).collect::<Vec<_>>(), expected, "{from:?}");
        };
        let zones: &[(&str, u32)] = &[("r1/z1/*", 80), ("r1/z2/*", 20)];
        let endpoints: &[(&str, u32)] = &[("r1/z1", 1), ("r1/z1", 1), ("r1/z2", 1), ("r2/z1", 1)];
        check(&[("r1/z1/*", zones)], endpoints, &[40, 40, 20, 0]);
        check(&[("r1/*", zones)], endpoints, &[40, 40, 20, 0]);
        check(&[("*", zones)], endpoints, &[40, 40, 20, 0]);
        check(&[("r2/*", zones)], endpoints, &[1, 1, 1, 1]);
        check(&[("r2/*", &[("r2/*", 100)]), ("r1/*", &[("r2/*", 100)])], endpoints, &[0, 0, 0, 100]);
        check(&[("r1/*", &[("r1/*", 100)])], &[("r1/z1", 1), ("r1/z2", 3)], &[25, 75]);
        check(&[("r1/*", &[("r1/z1", 50), ("r9/*", 50)])], &[("r1/z1", 1)], &[100]);
    }

    #[test]
    fn a_priority_keeps_all_until_72_percent() {
        let check = |priorities: &[(u64, u64)], expected: &[u64]| {
            assert_eq!(spill(priorities), expected, "{priorities:?}");
        };
        check(&[(10, 10), (10, 10)], &[100, 0]);
        check(&[(72, 100), (1, 1)], &[100, 0]);
        check(&[(5, 10), (10, 10)], &[70, 30]);
        check(&[(0, 10), (10, 10)], &[0, 100]);
        check(&[(1, 10), (1, 10)], &[50, 50]);
        check(&[(0, 10), (0, 0)], &[0, 0]);
        check(&[], &[]);
    }

    #[test]
    fn too_few_healthy_ones_count_as_all() {
        // `!` marks a priority that panics.
        let check = |priorities: &[(u64, u64)], threshold: u64, expected: &str| {
            let found = loads(priorities, threshold);
            let text = |load: &Load| format!("{}{}", load.percent, if load.panics { "!" } else { "" });
            let text: Vec<String> = found.iter().map(text).collect();
            assert_eq!(text.join(" "), expected, "{priorities:?} {threshold}");
        };
        check(&[(10, 10)], 50, "100");
        check(&[(5, 10)], 50, "100");
        check(&[(4, 10)], 50, "100!");
        check(&[(0, 10)], 50, "100!");
        check(&[(0, 10)], 0, "0");
        // What is left is enough elsewhere.
        check(&[(0, 10), (10, 10)], 50, "0 100");
        check(&[(4, 10), (8, 10)], 50, "56 44");
        // Together they are not well enough, and one of them is worse than the threshold.
        check(&[(1, 10), (5, 10)], 40, "17! 83");
        check(&[(1, 10), (1, 30)], 50, "25! 75!");
        check(&[], 50, "");
    }

    #[test]
    fn a_locality_keeps_its_share_until_72_percent() {
        for (share, usable, all, expected) in
            [(80, 10, 10, 8000), (80, 8, 10, 8000), (80, 5, 10, 5600), (80, 0, 10, 0), (80, 0, 0, 8000)]
        {
            assert_eq!(available(share, usable, all), expected, "{share} {usable} {all}");
        }
    }
}
