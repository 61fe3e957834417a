//! `localityLbSetting` and `zoneAwareLbSetting`: which localities get traffic, and in which order.

use std::collections::{HashMap, HashSet};

use mesh_core::balancing::locality::{Distribute, LocalityPolicy};
use mesh_core::vocab::name::Text;

use crate::dialect::field::{Field, Message, Note, Object};
use crate::dialect::node::quoted;

pub(crate) static LOCALITY: Message = Message {
    name: "a localityLbSetting",
    fields: &["distribute", "enabled", "failover", "failoverPriority"],
    later: &[],
    skipped: &[],
};

pub(crate) static ZONE_AWARE: Message = Message {
    name: "a zoneAwareLbSetting",
    fields: &["enabled", "failover", "failoverPriority", "minClusterSize"],
    later: &[],
    skipped: &[],
};

static DISTRIBUTE: Message =
    Message { name: "an entry of distribute", fields: &["from", "to"], later: &[], skipped: &[] };

static FAILOVER: Message =
    Message { name: "an entry of failover", fields: &["from", "to"], later: &[], skipped: &[] };

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] = &[
    Note::Holds(&LOCALITY, "distribute[]", &DISTRIBUTE),
    Note::Holds(&LOCALITY, "failover[]", &FAILOVER),
    Note::Holds(&ZONE_AWARE, "failover[]", &FAILOVER),
];

const BESIDE_FAILOVER: &str = "cannot be combined with failover, which goes by regions already";

/// Labels that name a locality themselves, the region first.
const TOPOLOGY: [&str; 3] =
    ["topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone"];

/// Smallest cluster in which zones are looked at, where none is written.
const SMALLEST_CLUSTER: u32 = 6;

/// Reads `localityLbSetting`. `detects_outliers` is whether failing endpoints are noticed at all.
pub(crate) fn locality(field: &Field<'_>, detects_outliers: bool) -> Option<LocalityPolicy> {
    let object = field.object(&LOCALITY)?;
    let enabled = object.get("enabled").and_then(|field| field.boolean());
    let distribute = distribute(&object);
    let failover = failover(&object);
    let failover_priority = failover_priority(&object);
    if !distribute.is_empty() && !failover.is_empty() {
        field.fault("distribute and failover cannot both be set");
    }
    if !failover.is_empty() {
        refuse_topology(&object, &TOPOLOGY, BESIDE_FAILOVER);
    }
    warn_of_no_detection(field, &failover, &failover_priority, detects_outliers);
    Some(LocalityPolicy { enabled, distribute, failover, failover_priority, zone_aware: None })
}

/// Reads `zoneAwareLbSetting`; `None` if it is turned off.
pub(crate) fn zone_aware(field: &Field<'_>, detects_outliers: bool) -> Option<LocalityPolicy> {
    let object = field.object(&ZONE_AWARE)?;
    let enabled = object.get("enabled").and_then(|field| field.boolean());
    let smallest = object.get("minClusterSize").and_then(|field| field.integer(1..=i64::from(u32::MAX)));
    let failover = failover(&object);
    let failover_priority = failover_priority(&object);
    if !failover.is_empty() {
        refuse_topology(&object, &TOPOLOGY[..1], BESIDE_FAILOVER);
    }
    refuse_topology(&object, &TOPOLOGY[1..], "has no place here: zones are shared by load always");
    warn_of_no_detection(field, &failover, &failover_priority, detects_outliers);
    if enabled == Some(false) {
        return None;
    }
    let smallest = smallest.and_then(|size| u32::try_from(size).ok()).unwrap_or(SMALLEST_CLUSTER);
    Some(LocalityPolicy {
        enabled,
        distribute: Vec::new(),
        failover,
        failover_priority,
        zone_aware: Some(smallest),
    })
}

fn distribute(object: &Object<'_>) -> Vec<Distribute> {
    let mut froms = Taken::default();
    let mut all = Vec::new();
    for item in object.items("distribute") {
        let Some(entry) = item.object(&DISTRIBUTE) else { continue };
        let from = match entry.get("from") {
            Some(field) => field.text().inspect(|text| froms.take(text, &field)),
            None => {
                entry.missing("from", "the field from is missing");
                None
            }
        };
        let mut to: Vec<(Text, u32)> = Vec::new();
        let mut targets = Taken::default();
        let mut total: u64 = 0;
        let mut is_whole = true;
        for (locality, share) in entry.get("to").map(|field| field.map()).unwrap_or_default() {
            targets.take(locality, &share);
            match share.integer(1..=100).and_then(|share| u32::try_from(share).ok()) {
                Some(share) => {
                    total += u64::from(share);
                    to.push((locality.into(), share));
                }
                None => is_whole = false,
            }
        }
        if is_whole && total != 100 && !entry.is_misspelt("to") {
            item.fault(format!("the shares in to add up to {total}, wanted 100"));
        }
        if let Some(from) = from {
            all.push(Distribute { from: from.into(), to });
        }
    }
    all
}

fn failover(object: &Object<'_>) -> Vec<(Text, Text)> {
    let mut all = Vec::new();
    for item in object.items("failover") {
        let Some(entry) = item.object(&FAILOVER) else { continue };
        let mut sides = ["from", "to"].map(|key| {
            let Some(field) = entry.get(key) else { return Some("") };
            let text = field.text()?;
            if text.contains('/') {
                field.fault(format!(
                    "{} is no region: failover knows regions only, without '/'",
                    quoted(text)
                ));
                return None;
            }
            if text.contains('*') {
                field.fault(format!("{} is no region: failover takes no wildcard '*'", quoted(text)));
                return None;
            }
            Some(text)
        });
        let (Some(from), Some(to)) = (sides[0].take(), sides[1].take()) else { continue };
        if from == to {
            item.fault(format!(
                "a region cannot take over for itself: from and to are both {}",
                quoted(from)
            ));
        }
        all.push((from.into(), to.into()));
    }
    all
}

fn failover_priority(object: &Object<'_>) -> Vec<Text> {
    object.items("failoverPriority").iter().filter_map(|item| item.text().map(Text::from)).collect()
}

fn refuse_topology(object: &Object<'_>, labels: &[&str], why: &str) {
    for item in object.items("failoverPriority") {
        if let Some(label) = item.text().filter(|text| labels.contains(text)) {
            item.fault(format!("the label {label} {why}"));
        }
    }
}

fn warn_of_no_detection(
    field: &Field<'_>,
    failover: &[(Text, Text)],
    priority: &[Text],
    detects_outliers: bool,
) {
    let is_said = !failover.is_empty() || !priority.is_empty();
    if is_said && !detects_outliers {
        field.warn("failover has no effect without outlierDetection, which notices that endpoints fail");
    }
}

/// The localities of a list so far, to tell that a further one overlaps.
#[derive(Default)]
struct Taken<'a> {
    everything: bool,
    /// What is taken of each region: all of it, or some zones.
    regions: HashMap<&'a str, Part<'a>>,
}

enum Part<'a> {
    Whole,
    /// The zones, and what is taken of each: all of it, or some subzones.
    Zones(HashMap<&'a str, Option<HashSet<&'a str>>>),
}

impl<'a> Taken<'a> {
    /// Adds a locality, `REGION[/ZONE[/SUBZONE]]` of which the last part can be `*`; says so if it overlaps.
    fn take(&mut self, locality: &'a str, field: &Field<'_>) {
        let stars = locality.matches('*').count();
        if stars > 1 || (stars == 1 && !locality.ends_with('*')) {
            field.fault(format!("{}: '*' can only stand once, at the end", quoted(locality)));
            return;
        }
        let parts: Vec<&str> = locality.splitn(3, '/').collect();
        if parts.contains(&"") {
            field.fault(format!("{} must not have an empty region, zone or subzone", quoted(locality)));
            return;
        }
        if self.overlaps(&parts) {
            field.fault(format!("{} overlaps with a locality before it", quoted(locality)));
        }
        self.everything |= parts == ["*"];
    }

    fn overlaps(&mut self, parts: &[&'a str]) -> bool {
        let (Some(region), zone, subzone) = (parts.first(), parts.get(1), parts.get(2)) else { return false };
        if self.everything {
            return true;
        }
        let Some(zone) = zone else {
            return self.regions.insert(region, Part::Whole).is_some();
        };
        let part = self.regions.entry(region).or_insert_with(|| Part::Zones(HashMap::new()));
        let zones = match part {
            Part::Whole => return true,
            Part::Zones(zones) if zones.contains_key("*") => return true,
            Part::Zones(zones) => zones,
        };
        let Some(subzone) = subzone else { return zones.insert(zone, None).is_some() };
        match zones.entry(zone).or_insert_with(|| Some(HashSet::new())) {
            None => true,
            Some(subzones) => subzones.contains("*") || !subzones.insert(subzone),
        }
    }
}
