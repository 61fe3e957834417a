//! Judges a batch against what is in force: what each document means, and whether it may.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mesh_core::resource::Resource;
use mesh_core::resource::diagnostic::{Diagnostic, Severity};
use mesh_core::state::Change as StateChange;
use mesh_core::vocab::origin::{Kind, ResourceKey};

use super::{Batch, Rollback};
use crate::dialect::kind::is_namespaced;
use crate::dialect::{Document, YOUNGEST};
use crate::store::{Change, Past, StoredDocument};

/// Code of what contradicts what is in force.
const CONFLICT: &str = "MSH0002";

/// What a batch amounts to.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// For the store.
    pub(super) store: Vec<Change>,
    /// For the mesh state.
    pub(super) state: StateChange,
    /// Key and `created`, `configured`, `unchanged` or `deleted`, in the order of the batch.
    pub(super) results: Vec<(String, &'static str)>,
    /// Keys that change.
    pub(super) touched: BTreeSet<String>,
}

/// Compares a batch with the documents in force. Fails with every contradiction at once.
pub(super) fn plan(
    batch: &Batch,
    documents: &BTreeMap<String, StoredDocument>,
    now: i64,
) -> Result<Plan, Vec<Diagnostic>> {
    let mut plan = Plan::default();
    let mut findings = Vec::new();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for document in &batch.documents {
        let meta = &document.resource.meta;
        let key = meta.key.to_string();
        seen.insert(key.clone());
        let owner = if batch.from_config { meta.place.file.to_string() } else { String::new() };
        let present = documents.get(&key);
        if let Some(present) = present.filter(|present| !batch.from_config && !present.owner.is_empty()) {
            let file = &present.owner;
            findings
                .push(finding(&document.resource, format!("belongs to --config {file}; change it there")));
            continue;
        }
        let result = outcome(present, &document.json);
        plan.results.push((key.clone(), result));
        let same_owner = present.is_some_and(|present| present.owner == owner);
        if result == "unchanged" && same_owner {
            continue;
        }
        let keeps_age = batch.keeps_age || (batch.from_config && document.resource.meta.created == YOUNGEST);
        let known = i64::try_from(document.resource.meta.created).ok().filter(|_| keeps_age);
        let created = present.map(|present| present.created).into_iter().chain(known).min().unwrap_or(now);
        let mut resource = document.resource.clone();
        resource.meta.created = u64::try_from(created).unwrap_or(0);
        plan.state.upserts.push(Arc::new(resource));
        plan.touched.insert(key.clone());
        plan.store.push(Change::Put { key, json: document.json.to_string(), created, owner });
    }
    let config_left = documents
        .values()
        .filter(|document| batch.from_config && !document.owner.is_empty() && !seen.contains(&document.key));
    let removals: Vec<String> = batch
        .removals
        .iter()
        .map(ToString::to_string)
        .chain(config_left.map(|document| document.key.clone()))
        .collect();
    for key in removals {
        match documents.get(&key) {
            None if batch.ignore_not_found => plan.results.push((key, "not found")),
            None => findings.push(unplaced(&key, "not found".to_owned())),
            Some(present) if !batch.from_config && !present.owner.is_empty() => {
                findings
                    .push(unplaced(&key, format!("belongs to --config {}; remove it there", present.owner)));
            }
            Some(_) if plan.touched.contains(&key) => {}
            Some(_) => {
                plan.state.removals.extend(parse_key(&key));
                plan.touched.insert(key.clone());
                plan.store.push(Change::Delete { key: key.clone() });
                plan.results.push((key, "deleted"));
            }
        }
    }
    if batch.from_config {
        plan.results.retain(|(_, result)| *result != "unchanged");
    }
    if findings.is_empty() { Ok(plan) } else { Err(findings) }
}

/// What becomes of a document beside the one in force. The order of keys is no difference.
pub(crate) fn outcome(present: Option<&StoredDocument>, json: &str) -> &'static str {
    let value = |json: &str| serde_json::from_str::<serde_json::Value>(json).ok();
    match present {
        None => "created",
        Some(present) if *present.json == *json || value(&present.json) == value(json) => "unchanged",
        Some(_) => "configured",
    }
}

/// What brings the mesh back to what it was at an earlier version. Fails with everything that stands against it
/// at once.
pub(super) fn back(
    rollback: &Rollback,
    past: Past,
    documents: &BTreeMap<String, StoredDocument>,
) -> Result<Batch, Vec<Diagnostic>> {
    let version = rollback.version;
    let before = match past {
        Past::Kept(before) => before,
        other => return Err(vec![unplaced("", unreachable_version(version, &other))]),
    };
    let mut findings = Vec::new();
    let mut batch = Batch {
        documents: Vec::new(),
        removals: Vec::new(),
        ignore_not_found: true,
        dry_run: rollback.dry_run,
        author: rollback.author.clone(),
        from_config: false,
        keeps_age: true,
    };
    for (key, then) in before {
        let now = documents.get(&key);
        let same = match (now, &then) {
            (Some(now), Some(then)) => now.json == then.json && now.owner == then.owner,
            (None, None) => true,
            _ => false,
        };
        if same {
            continue;
        }
        let owner_now = now.map(|now| now.owner.as_str()).filter(|owner| !owner.is_empty());
        let owner_then = then.as_ref().map(|then| then.owner.as_str()).filter(|owner| !owner.is_empty());
        match (owner_now, owner_then) {
            (Some(file), _) => {
                let message =
                    format!("differs from version {version} and belongs to --config {file}; change it there");
                findings.push(unplaced(&key, message));
                continue;
            }
            (None, Some(file)) => {
                let message = format!("belonged to --config {file} in version {version}; put it back there");
                findings.push(unplaced(&key, message));
                continue;
            }
            (None, None) => {}
        }
        let Some(then) = then else {
            batch.removals.extend(parse_key(&key));
            continue;
        };
        match Document::from_json(&then.json, u64::try_from(then.created).unwrap_or(0)) {
            Ok(document) => batch.documents.push(document),
            Err(reasons) => {
                for reason in reasons {
                    let message = format!("as it was in version {version}: {}", reason.message);
                    findings.push(Diagnostic { resource: key.as_str().into(), message, ..reason });
                }
            }
        }
    }
    if findings.is_empty() { Ok(batch) } else { Err(findings) }
}

fn unreachable_version(version: u64, past: &Past) -> String {
    let kept = |oldest: u64, newest: u64| match oldest.max(1) {
        _ if newest == 0 => "nothing was ever applied".to_owned(),
        oldest if oldest == newest => format!("only {newest} is kept, the present one"),
        oldest => format!("kept are {oldest} to {newest}"),
    };
    match past {
        Past::Unknown { oldest, newest } => {
            format!("there is no version {version}: {}", kept(*oldest, *newest))
        }
        Past::Gone { oldest, newest, unrecorded: true } => format!(
            "version {version} was made by a meshd that did not keep what it replaced, so it cannot be brought back: {}",
            kept(*oldest, *newest)
        ),
        Past::Gone { oldest, newest, unrecorded: false } => format!(
            "the resources of version {version} are no longer kept: {} (see `meshd serve --keep-versions`)",
            kept(*oldest, *newest)
        ),
        Past::Kept(_) => String::new(),
    }
}

fn finding(resource: &Resource, message: String) -> Diagnostic {
    let meta = &resource.meta;
    Diagnostic {
        code: CONFLICT,
        severity: Severity::Error,
        resource: meta.key.to_string().into(),
        file: meta.place.file.clone(),
        line: meta.place.line,
        column: 0,
        field: String::new(),
        message,
    }
}

fn unplaced(key: &str, message: String) -> Diagnostic {
    Diagnostic {
        code: CONFLICT,
        severity: Severity::Error,
        resource: key.into(),
        file: "".into(),
        line: 0,
        column: 0,
        field: String::new(),
        message,
    }
}

/// The key behind `virtualservice/default/reviews`.
pub(crate) fn parse_key(text: &str) -> Option<ResourceKey> {
    let (kind, rest) = text.split_once('/')?;
    let kind = Kind::from_word(kind)?;
    let (namespace, name) = if is_namespaced(kind) { rest.split_once('/')? } else { ("", rest) };
    Some(ResourceKey { kind, namespace: namespace.into(), name: name.into() })
}

/// The key of a name in a namespace, which is not looked at for kinds that are in none.
pub(crate) fn key_of(kind: Kind, namespace: &str, name: &str) -> ResourceKey {
    let namespace = if is_namespaced(kind) { namespace } else { "" };
    ResourceKey { kind, namespace: namespace.into(), name: name.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::{Document, Input, Options, parse};

    fn document(name: &str, label: &str, file: &str) -> Document {
        let text = format!(
            "{{apiVersion: v1, kind: ServiceAccount, metadata: {{name: {name}, labels: {{l: '{label}'}}}}}}"
        );
        let parsed = parse(&[Input { file, bytes: text.as_bytes() }], &Options::default());
        parsed.documents.into_iter().next().expect("one document")
    }

    fn stored(name: &str, label: &str, owner: &str) -> (String, StoredDocument) {
        let key = format!("serviceaccount/default/{name}");
        let json = document(name, label, "").json.to_string();
        let document =
            StoredDocument { key: key.clone(), json, created: 7, version: 1, owner: owner.to_owned() };
        (key, document)
    }

    fn batch(documents: Vec<Document>, from_config: bool) -> Batch {
        Batch {
            documents,
            removals: Vec::new(),
            ignore_not_found: false,
            dry_run: false,
            author: String::new(),
            from_config,
            keeps_age: false,
        }
    }

    #[test]
    fn created_configured_unchanged() {
        let documents = BTreeMap::from([stored("a", "1", ""), stored("b", "1", "")]);
        let given = vec![document("a", "1", "x"), document("b", "2", "x"), document("c", "1", "x")];
        let plan = plan(&batch(given, false), &documents, 9).unwrap();
        let results: Vec<_> = plan.results.iter().map(|(_, result)| *result).collect();
        assert_eq!(results, ["unchanged", "configured", "created"]);
        let created: Vec<_> = plan.state.upserts.iter().map(|resource| resource.meta.created).collect();
        assert_eq!(created, [7, 9], "age is kept over changes");
    }

    #[test]
    fn contradictions_come_all_at_once() {
        let documents = BTreeMap::from([stored("owned", "1", "conf.yaml")]);
        let mut batch = batch(vec![document("owned", "2", "x"), document("a", "1", "x")], false);
        batch.removals = parse_key("serviceaccount/default/missing").into_iter().collect();
        let findings = plan(&batch, &documents, 9).unwrap_err();
        let messages: Vec<_> = findings.iter().map(|finding| finding.message.as_str()).collect();
        assert_eq!(messages, ["belongs to --config conf.yaml; change it there", "not found"]);
    }

    fn go_back(
        past: Past,
        now: &[(String, StoredDocument)],
    ) -> Result<Vec<(String, &'static str)>, Vec<String>> {
        let documents: BTreeMap<_, _> = now.iter().cloned().collect();
        let rollback = Rollback { version: 3, dry_run: false, author: String::new() };
        let batch = back(&rollback, past, &documents);
        let planned = batch.and_then(|batch| plan(&batch, &documents, 9)).map(|plan| {
            let ages = plan.state.upserts.iter().map(|resource| resource.meta.created);
            assert!(ages.into_iter().all(|age| age == 7), "the age of then");
            plan.results
        });
        planned.map_err(|found| found.into_iter().map(|finding| finding.message).collect())
    }

    #[test]
    fn back_is_what_was_different() {
        let (key, then) = stored("gone", "1", "");
        let (changed, before) = stored("changed", "1", "");
        let past = Past::Kept(BTreeMap::from([
            (key.clone(), Some(then)),
            (changed.clone(), Some(before)),
            ("serviceaccount/default/new".to_owned(), None),
            ("serviceaccount/default/never".to_owned(), None),
        ]));
        let now = [stored("changed", "2", ""), stored("new", "1", "")];
        let expected =
            [(changed, "configured"), (key, "created"), ("serviceaccount/default/new".into(), "deleted")];
        assert_eq!(go_back(past, &now).unwrap(), expected);
    }

    #[test]
    fn back_stops_at_what_config_owns() {
        let past = Past::Kept(BTreeMap::from(
            [stored("a", "1", "f.yaml"), stored("b", "1", ""), stored("c", "1", "g")]
                .map(|(key, then)| (key, Some(then))),
        ));
        let now = [stored("a", "2", "f.yaml"), stored("b", "2", "f.yaml"), stored("c", "1", "g")];
        let message = "differs from version 3 and belongs to --config f.yaml; change it there";
        assert_eq!(go_back(past.clone(), &now).unwrap_err(), [message, message]);
        let message = |file: &str| format!("belonged to --config {file} in version 3; put it back there");
        assert_eq!(go_back(past, &[]).unwrap_err(), [message("f.yaml"), message("g")]);
    }

    #[test]
    fn versions_that_are_not_kept_are_told_from_those_that_never_were() {
        for (past, expected) in [
            (Past::Unknown { oldest: 0, newest: 0 }, "there is no version 3: nothing was ever applied"),
            (Past::Unknown { oldest: 0, newest: 2 }, "there is no version 3: kept are 1 to 2"),
            (
                Past::Gone { oldest: 5, newest: 5, unrecorded: false },
                "the resources of version 3 are no longer kept: only 5 is kept, the present one (see `meshd serve --keep-versions`)",
            ),
            (
                Past::Gone { oldest: 5, newest: 9, unrecorded: true },
                "version 3 was made by a meshd that did not keep what it replaced, so it cannot be brought back: kept are 5 to 9",
            ),
        ] {
            assert_eq!(go_back(past, &[]).unwrap_err(), [expected]);
        }
    }

    #[test]
    fn config_is_all_that_it_declares() {
        let documents =
            BTreeMap::from([stored("gone", "1", "f"), stored("kept", "1", "f"), stored("applied", "1", "")]);
        let plan = plan(&batch(vec![document("kept", "1", "f")], true), &documents, 9).unwrap();
        assert_eq!(plan.results, [("serviceaccount/default/gone".to_owned(), "deleted")]);
    }
}
