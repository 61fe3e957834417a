//! Fields of which only one can be written.

use crate::dialect::field::Object;

/// Whether at most one of these fields is written; says so if it is not.
pub(super) fn at_most_one(object: &Object<'_>, keys: &[&'static str]) -> bool {
    let written: Vec<&str> = keys.iter().copied().filter(|key| object.has(key)).collect();
    if written.len() > 1 {
        object.field().fault(format!(
            "only one of {} can be set, found {}",
            keys.join(", "),
            written.join(" and ")
        ));
    }
    written.len() <= 1
}
