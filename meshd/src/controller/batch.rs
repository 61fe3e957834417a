//! Judges a batch against what is in force: what each document means, and whether it may.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mesh_core::resource::Resource;
use mesh_core::resource::diagnostic::{Diagnostic, Severity};
use mesh_core::state::Change as StateChange;
use mesh_core::vocab::origin::{Kind, ResourceKey};

use super::Batch;
use crate::store::{Change, StoredDocument};

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
        let json = document.json.to_string();
        let owner = if batch.from_config { meta.place.file.to_string() } else { String::new() };
        let present = documents.get(&key);
        if let Some(present) = present.filter(|present| !batch.from_config && !present.owner.is_empty()) {
            let file = &present.owner;
            findings
                .push(finding(&document.resource, format!("belongs to --config {file}; change it there")));
            continue;
        }
        let result = match present {
            None => "created",
            Some(present) if present.json == json => "unchanged",
            Some(_) => "configured",
        };
        plan.results.push((key.clone(), result));
        let same_owner = present.is_some_and(|present| present.owner == owner);
        if result == "unchanged" && same_owner {
            continue;
        }
        let created = present.map_or(now, |present| present.created);
        let mut resource = document.resource.clone();
        resource.meta.created = u64::try_from(created).unwrap_or(0);
        plan.state.upserts.push(Arc::new(resource));
        plan.touched.insert(key.clone());
        plan.store.push(Change::Put { key, json, created, owner });
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
    let (namespace, name) = match kind {
        Kind::Namespace => ("", rest),
        _ => rest.split_once('/')?,
    };
    Some(ResourceKey { kind, namespace: namespace.into(), name: name.into() })
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

    #[test]
    fn config_is_all_that_it_declares() {
        let documents =
            BTreeMap::from([stored("gone", "1", "f"), stored("kept", "1", "f"), stored("applied", "1", "")]);
        let plan = plan(&batch(vec![document("kept", "1", "f")], true), &documents, 9).unwrap();
        assert_eq!(plan.results, [("serviceaccount/default/gone".to_owned(), "deleted")]);
    }
}
