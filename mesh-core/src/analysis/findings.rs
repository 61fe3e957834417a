//! Collecting findings.

use crate::resource::Resource;
use crate::resource::diagnostic::{Diagnostic, Severity};
use crate::vocab::label::Labels;

/// Most findings of one analysis that are worth showing.
const MOST: usize = 10_000;

/// Most names that one analysis looks up the nearest for; the rest would be more of the same.
const MOST_HINTS: usize = 200;

/// Findings so far.
#[derive(Default)]
pub(super) struct Findings {
    found: Vec<Diagnostic>,
    hints: usize,
}

impl Findings {
    /// Something about a resource. Said once, however often it is found.
    pub(super) fn add(
        &mut self,
        code: &'static str,
        severity: Severity,
        resource: &Resource,
        field: impl Into<String>,
        message: impl Into<String>,
    ) {
        self.about(code, severity, &resource.meta.key.to_string(), field.into(), message.into());
    }

    /// Something about what is named `kind/namespace/name`.
    pub(super) fn about(
        &mut self,
        code: &'static str,
        severity: Severity,
        resource: &str,
        field: String,
        message: String,
    ) {
        if self.found.len() < MOST {
            let (file, line, column) = ("".into(), 0, 0);
            let resource = resource.into();
            self.found.push(Diagnostic { code, severity, resource, file, line, column, field, message });
        }
    }

    /// ` (did you mean "X"?)` for the candidate that is written most like `wanted`, if any is much like it.
    pub(super) fn hint<'n>(&mut self, wanted: &str, candidates: impl Iterator<Item = &'n str>) -> String {
        self.hints += 1;
        if self.hints > MOST_HINTS {
            return String::new();
        }
        let limit = (wanted.len() / 3).max(1);
        let near = candidates
            .filter(|name| name.len().abs_diff(wanted.len()) <= limit && *name != wanted)
            .take(1_000)
            .map(|name| (strsim::damerau_levenshtein(wanted, name), name))
            .filter(|(distance, _)| *distance <= limit);
        near.min().map_or_else(String::new, |(_, name)| format!(" (did you mean {name:?}?)"))
    }

    pub(super) fn into_sorted(mut self) -> Vec<Diagnostic> {
        self.found.sort_by(|a, b| {
            (&a.resource, a.code, &a.field, &a.message).cmp(&(&b.resource, b.code, &b.field, &b.message))
        });
        self.found.dedup();
        self.found
    }
}

/// Most names that one message lists.
const MOST_NAMES: usize = 5;

/// `A, B and 3 more`.
pub(super) fn listed(names: impl Iterator<Item = String>) -> String {
    let mut names = names.fuse();
    let first: Vec<String> = names.by_ref().take(MOST_NAMES).collect();
    match names.count() {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// `app=a,version=v1`.
pub(super) fn pairs(labels: &Labels) -> String {
    let pairs: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(",")
}
