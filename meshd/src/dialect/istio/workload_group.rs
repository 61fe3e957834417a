//! WorkloadGroup.

use std::collections::BTreeMap;

use mesh_core::resource::workload::{Recognition, WorkloadEntry, WorkloadGroup};
use mesh_core::vocab::label::Labels;
use mesh_core::vocab::name::Text;

use super::probe::{PROBE, probe};
use super::workload::{self, Addressing};
use crate::dialect::field::{Field, Message, Note};

pub(crate) static SPEC: Message = Message {
    name: "spec of a WorkloadGroup",
    fields: &["metadata", "probe", "template"],
    later: &[],
    skipped: &[],
};

static METADATA: Message = Message {
    name: "metadata of the workloads of a group",
    fields: &["annotations", "labels"],
    later: &[],
    skipped: &[],
};

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] = &[
    Note::Holds(&SPEC, "metadata", &METADATA),
    Note::Holds(&SPEC, "probe", &PROBE),
    Note::Holds(&SPEC, "template", &workload::ENTRY),
];

const MOST_ANNOTATIONS: usize = 256;

/// Reads the spec of a WorkloadGroup.
pub(crate) fn group(field: &Field<'_>) -> Option<WorkloadGroup> {
    let spec = field.object(&SPEC)?;
    let metadata = spec.get("metadata").and_then(|field| field.object(&METADATA));
    let mut recognition = Recognition::default();
    let mut labels = Labels::default();
    let mut annotations: BTreeMap<Text, Text> = BTreeMap::new();
    if let Some(metadata) = metadata {
        labels = metadata.get("labels").map(|field| workload::labels(&field)).unwrap_or_default();
        annotations = metadata.get("annotations").map(|field| texts(&field)).unwrap_or_default();
        let said = metadata.get("annotations").map(|field| workload::recognition(&field));
        recognition = said.unwrap_or_default();
    }
    let probe = spec.get("probe").and_then(|field| probe(&field));
    let template =
        spec.require("template").and_then(|field| workload::endpoint(&field, Addressing::Template));
    let template = WorkloadEntry { recognition, ..template? };
    Some(WorkloadGroup { labels, annotations, template, probe })
}

fn texts(field: &Field<'_>) -> BTreeMap<Text, Text> {
    let pairs = field.map();
    if pairs.len() > MOST_ANNOTATIONS {
        field.fault(format!("found {} annotations, at most {MOST_ANNOTATIONS} are allowed", pairs.len()));
    }
    pairs.into_iter().filter_map(|(key, value)| Some((key.into(), value.text()?.into()))).collect()
}
