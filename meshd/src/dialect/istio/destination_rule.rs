//! DestinationRule.

use std::collections::HashSet;

use mesh_core::resource::destination_rule::{DestinationRule, Subset};
use mesh_core::resource::reach::{Export, ExportTo};
use mesh_core::vocab::name::Text;

use super::selector::{BY_MATCH_LABELS, by_match_labels};
use super::traffic_policy::{POLICY, traffic_policy};
use crate::dialect::export::export_to;
use crate::dialect::field::{Field, Message, Note};
use crate::dialect::node::quoted;
use crate::dialect::scalar;

pub(crate) static SPEC: Message = Message {
    name: "spec of a DestinationRule",
    fields: &["exportTo", "host", "subsets", "trafficPolicy", "workloadSelector"],
    later: &[],
    skipped: &[],
};

static SUBSET: Message =
    Message { name: "a subset", fields: &["labels", "name", "trafficPolicy"], later: &[], skipped: &[] };

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] = &[
    Note::Holds(&SPEC, "subsets[]", &SUBSET),
    Note::Holds(&SPEC, "trafficPolicy", &POLICY),
    Note::Holds(&SPEC, "workloadSelector", &BY_MATCH_LABELS),
    Note::Holds(&SUBSET, "trafficPolicy", &POLICY),
];

/// Reads the spec of a DestinationRule in the namespace `own`.
pub(crate) fn rule(field: &Field<'_>, own: &str) -> Option<DestinationRule> {
    let spec = field.object(&SPEC)?;
    let exported = spec.get("exportTo");
    let export = exported.as_ref().map(|field| export_to(field, own, false)).unwrap_or_default();
    let host = spec.require("host").and_then(|field| scalar::host(&field));
    let policy = spec.get("trafficPolicy").and_then(|field| traffic_policy(&field, own));
    let mut subsets: Vec<Subset> = Vec::new();
    let mut names: HashSet<Text> = HashSet::new();
    for item in spec.items("subsets") {
        let Some(subset) = subset(&item, own) else { continue };
        if !names.insert(subset.name.clone()) {
            item.fault(format!("the subset {} is there twice", quoted(&subset.name)));
        }
        subsets.push(subset);
    }
    let workload_selector = spec.get("workloadSelector").and_then(|field| by_match_labels(&field));
    if let (Some(field), true) = (exported, spec.has("workloadSelector"))
        && reaches_others(&export, own)
    {
        field.fault(
            "a rule with a workloadSelector is for callers of its own namespace only: exportTo can be ['.'] or left out",
        );
    }
    let policies = policy.iter().chain(subsets.iter().filter_map(|subset| subset.policy.as_ref()));
    let mut blocks = policies.flat_map(|policy| {
        std::iter::once(&policy.blocks).chain(policy.ports.iter().map(|(_, blocks)| blocks))
    });
    let has_credential = blocks.any(|blocks| blocks.tls.as_ref().is_some_and(|tls| tls.credential.is_some()));
    if has_credential && workload_selector.is_none() {
        field.warn(
            "credentialName is for gateways, and for the proxies that a workloadSelector of the rule selects; without one those of hosts connect in the clear",
        );
    }
    Some(DestinationRule { host: host?, policy, subsets, export_to: export, workload_selector, fault: None })
}

fn reaches_others(export: &ExportTo, own: &str) -> bool {
    let is_own = |entry: &Export| match entry {
        Export::Own => true,
        Export::Namespace(namespace) => **namespace == *own,
        Export::All | Export::Nobody => false,
    };
    !export.entries.iter().all(is_own)
}

fn subset(field: &Field<'_>, own: &str) -> Option<Subset> {
    let subset = field.object(&SUBSET)?;
    let labels = subset.get("labels").map(|field| scalar::labels(&field)).unwrap_or_default();
    let policy = subset.get("trafficPolicy").and_then(|field| traffic_policy(&field, own));
    let name = subset.require("name").and_then(|field| scalar::subset_name(&field))?;
    Some(Subset { name, labels, policy })
}
