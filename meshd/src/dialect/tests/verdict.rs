//! What admission says of one spec, whether or not it is carried out yet.

use super::*;

fn judge(kind: &str, spec: &str) -> Parsed {
    parse(&[Input { file: "x.yaml", bytes: resource(kind, spec).as_bytes() }], &Options::default())
}

/// The spec, which is accepted without a word.
#[track_caller]
pub(super) fn accepted(kind: &str, spec: &str) -> Spec {
    let mut parsed = judge(kind, spec);
    assert!(parsed.diagnostics.is_empty(), "{}\n{spec}", show(&parsed));
    parsed.documents.remove(0).resource.spec
}

/// Checks that a spec is accepted with exactly one warning, in these words.
#[track_caller]
pub(super) fn warned(kind: &str, spec: &str, words: &str) {
    let parsed = judge(kind, spec);
    let found = &parsed.diagnostics;
    let is_warned =
        found.len() == 1 && found[0].severity == Severity::Warning && found[0].message.contains(words);
    assert!(is_warned, "{}\nwanted: {words}\n{spec}", show(&parsed));
    assert_eq!(parsed.documents.len(), 1, "{spec}");
}

/// Checks that a spec is refused with exactly one error: at this field, in these words.
#[track_caller]
pub(super) fn denied(kind: &str, spec: &str, field: &str, words: &str) {
    let parsed = judge(kind, spec);
    let found: Vec<_> = parsed.diagnostics.iter().filter(|d| d.severity == Severity::Error).collect();
    assert_eq!(found.len(), 1, "{}\n{spec}", show(&parsed));
    assert_eq!(found[0].field, field, "{}", found[0]);
    assert!(found[0].message.contains(words), "{}\nwanted: {words}", found[0]);
    assert!(found[0].line > 0 && found[0].column > 0, "{}", found[0]);
}
