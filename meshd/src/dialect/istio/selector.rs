//! Selectors of workloads: `workloadSelector` with `labels` (ServiceEntry, Sidecar) or with `matchLabels`
//! (DestinationRule), and `selector` of a ProxyConfig.

use mesh_core::vocab::label::Labels;

use crate::dialect::field::{Field, Message};
use crate::dialect::node::{Value, quoted};

/// A selector with `labels`.
pub(crate) static BY_LABELS: Message =
    Message { name: "a workloadSelector", fields: &["labels"], later: &[], skipped: &[] };

/// A selector with `matchLabels`.
pub(crate) static BY_MATCH_LABELS: Message =
    Message { name: "a selector", fields: &["matchLabels"], later: &[], skipped: &[] };

/// Longest value that a selector's label can have.
const LONGEST_VALUE: usize = 63;
const MOST_LABELS: usize = 256;
const MOST_MATCH_LABELS: usize = 4096;

/// Reads a selector with `labels`; one without labels selects everything.
pub(super) fn by_labels(field: &Field<'_>) -> Option<Labels> {
    read(field, &BY_LABELS, "labels", MOST_LABELS)
}

/// Reads a selector with `matchLabels`; one without labels selects everything.
pub(super) fn by_match_labels(field: &Field<'_>) -> Option<Labels> {
    read(field, &BY_MATCH_LABELS, "matchLabels", MOST_MATCH_LABELS)
}

fn read(field: &Field<'_>, message: &'static Message, key: &'static str, most: usize) -> Option<Labels> {
    let selector = field.object(message)?;
    let list = selector.get(key);
    let is_empty = match list.as_ref().map(Field::value) {
        Some(Value::Map(entries)) => entries.is_empty(),
        Some(_) => false,
        None => selector.is_empty(),
    };
    if is_empty {
        field.warn("a selector without labels selects every workload");
    }
    Some(list.map(|list| labels(&list, most)).unwrap_or_default())
}

fn labels(field: &Field<'_>, most: usize) -> Labels {
    let mut labels = Labels::default();
    let pairs = field.map();
    if pairs.len() > most {
        field.fault(format!("found {} labels, at most {most} are allowed", pairs.len()));
    }
    for (key, value) in pairs {
        let Some(text) = value.text() else { continue };
        if key.is_empty() {
            value.fault("a selector takes no empty key");
        } else if key.contains('*') || text.contains('*') {
            value.fault("a selector takes no wildcard '*'");
        } else if text.chars().count() > LONGEST_VALUE {
            value.fault(format!("{} is longer than {LONGEST_VALUE} characters", quoted(text)));
        } else {
            labels.set(key, text);
        }
    }
    labels
}
