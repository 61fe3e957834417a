//! Metrics that are read off when somebody asks: what is in force, and what is taken of what is limited.

use std::collections::BTreeMap;

use mesh_core::telemetry::exposition::{Family, Page, label};

use super::dump::Certificate;
use crate::live::destination::LiveDestination;
use crate::live::root::Root;
use crate::telemetry::metrics::{Metrics, names};

/// Adds them to the others.
pub(super) fn add(page: &mut Page, metrics: &Metrics, root: &Root, certificates: &[Certificate]) {
    let version = &root.tables.version;
    for (family, value) in
        [(&names::SNAPSHOT_VERSION, version.number), (&names::SNAPSHOT_REVISION, version.revision)]
    {
        page.family(family);
        page.gauge("", value as f64);
    }
    page.family(&names::CERTIFICATE_EXPIRY);
    for certificate in certificates {
        page.gauge(&labels(&[("identity", &certificate.identity)]), certificate.not_after as f64);
    }
    let most = metrics.most_series();
    let taken = |one: &LiveDestination| {
        let taken = one.breaker.iter().flat_map(|breaker| breaker.taken());
        taken.map(|(what, taken)| (what.name(), u64::from(taken))).collect()
    };
    add_each(page, &names::BREAKER_TAKEN, most, root, taken);
    let under_way = |one: &LiveDestination| {
        one.retry_account().map(|(under_way, _)| ("", u64::from(under_way))).into_iter().collect()
    };
    add_each(page, &names::RETRIES_UNDER_WAY, most, root, under_way);
    let left = |one: &LiveDestination| one.retry_account().map(|(_, left)| ("", left)).into_iter().collect();
    add_each(page, &names::RETRY_BUDGET, most, root, left);
}

/// A figure of each destination. The same one may be there for several kinds of callers.
fn add_each(
    page: &mut Page,
    family: &'static Family,
    most: usize,
    root: &Root,
    figures: impl Fn(&LiveDestination) -> Vec<(&'static str, u64)>,
) {
    let mut found: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for one in &root.destinations {
        for (limit, figure) in figures(one) {
            let known = found.entry((&one.destination.cluster, limit)).or_default();
            *known = figure.max(*known);
        }
    }
    page.family(family);
    for ((cluster, limit), figure) in found.into_iter().take(most) {
        let labels = match limit {
            "" => labels(&[("cluster", cluster)]),
            limit => labels(&[("cluster", cluster), ("limit", limit)]),
        };
        page.gauge(&labels, figure as f64);
    }
}

fn labels(pairs: &[(&str, &str)]) -> String {
    let mut out = String::new();
    pairs.iter().for_each(|(name, value)| label(name, value, &mut out));
    out
}
