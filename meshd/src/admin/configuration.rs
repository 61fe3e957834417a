//! Resources over the admin API.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use mesh_core::vocab::origin::{Kind, ResourceKey};
use serde::Deserialize;
use serde_json::Value;

use super::registered;
use super::server::{By, Refusal, Shared, blocking};
use super::view::{
    AppliedView, ApplyRequest, ChangeView, CompareView, ComparedView, DeleteRequest, DiagnosticView,
    FileView, HistoryView, ResourceView, RollbackRequest,
};
use crate::clock;
use crate::controller::{Applied, Batch, Published, Rollback, outcome, parse_key};
use crate::dialect::{Document, Input, Options, Parsed, parse};

fn read(files: &[FileView], options: Options, namespace: Option<&str>) -> Parsed {
    let inputs: Vec<_> =
        files.iter().map(|file| Input { file: &file.name, bytes: file.text.as_bytes() }).collect();
    let mut options = options;
    if let Some(namespace) = namespace {
        options.default_namespace = namespace.into();
    }
    parse(&inputs, &options)
}

fn views(parsed: &Parsed) -> Vec<DiagnosticView> {
    parsed.diagnostics.iter().map(DiagnosticView::from).collect()
}

fn answer(applied: Applied, mut warnings: Vec<DiagnosticView>) -> Json<AppliedView> {
    warnings.extend(applied.warnings.iter().map(DiagnosticView::from));
    let resources = applied.changes.into_iter();
    Json(AppliedView {
        version: applied.version,
        resources: resources
            .map(|(resource, result)| ChangeView { resource, result: result.to_owned() })
            .collect(),
        warnings,
    })
}

pub(super) async fn apply(
    State(state): Shared,
    axum::extract::ConnectInfo(operator): By,
    Json(request): Json<ApplyRequest>,
) -> Result<Json<AppliedView>, Refusal> {
    let dry_run = request.dry_run;
    let options = Options { strict: request.strict, ..Options::to_apply() };
    let parsed = blocking(move || read(&request.files, options, request.namespace.as_deref())).await?;
    let warnings = views(&parsed);
    if parsed.is_refused() {
        return Err(Refusal::findings(warnings));
    }
    if parsed.documents.is_empty() {
        let mut refusal = warnings;
        refusal.push(DiagnosticView {
            code: "MSH0003".to_owned(),
            severity: "error".to_owned(),
            resource: String::new(),
            file: String::new(),
            line: 0,
            field: String::new(),
            message: "no resource to apply in what was given".to_owned(),
        });
        return Err(Refusal::findings(refusal));
    }
    let batch = Batch {
        documents: parsed.documents,
        removals: Vec::new(),
        ignore_not_found: false,
        dry_run,
        author: operator.name,
        from_config: false,
        keeps_age: false,
    };
    Ok(answer(state.controller.apply(batch).await?, warnings))
}

/// What `apply` would do, without a word on whether it may.
pub(super) async fn compare(
    State(state): Shared,
    Json(request): Json<ApplyRequest>,
) -> Result<Json<CompareView>, Refusal> {
    let published = state.controller.published();
    let answer = blocking(move || {
        let options = Options { strict: request.strict, ..Options::default() };
        let parsed = read(&request.files, options, request.namespace.as_deref());
        if parsed.is_refused() {
            return Err(Refusal::findings(views(&parsed)));
        }
        let upserts: Vec<_> =
            parsed.documents.iter().map(|document| Arc::new(document.resource.clone())).collect();
        let mut findings = views(&parsed);
        findings.extend(parsed.pending.iter().map(DiagnosticView::from));
        findings.extend(published.state.check(&upserts).iter().map(DiagnosticView::from));
        let resources = parsed.documents.iter().map(|document| compared(document, &published)).collect();
        Ok(CompareView { resources, findings })
    });
    answer.await?.map(Json)
}

fn compared(document: &Document, published: &Published) -> ComparedView {
    let meta = &document.resource.meta;
    let resource = meta.key.to_string();
    let present = published.documents.get(&resource);
    let value = |json: &str| serde_json::from_str(json).unwrap_or_default();
    let mut before = present.map_or(Value::Null, |present| value(&present.json));
    let mut after = value(&document.json);
    if meta.key.kind == Kind::Secret {
        cover(&mut before, &mut after);
    }
    ComparedView {
        result: outcome(present, &document.json).to_owned(),
        resource,
        file: meta.place.file.to_string(),
        line: meta.place.line,
        version: present.map_or(0, |present| present.version),
        before,
        after,
    }
}

/// Covers what a Secret holds: only what changes is told.
fn cover(before: &mut Value, after: &mut Value) {
    for key in ["data", "stringData"] {
        let held = (before.get(key).cloned(), after.get(key).cloned());
        for (document, own, other, side) in
            [(&mut *before, &held.0, &held.1, "before"), (&mut *after, &held.1, &held.0, "after")]
        {
            let Some(Value::Object(entries)) = document.get_mut(key) else { continue };
            for (name, value) in entries {
                let of = |held: &Option<Value>| held.as_ref().and_then(|held| held.get(name)).cloned();
                *value = if of(own) == of(other) { "***".into() } else { format!("*** ({side})").into() };
            }
        }
    }
}

pub(super) async fn rollback(
    State(state): Shared,
    axum::extract::ConnectInfo(operator): By,
    Json(request): Json<RollbackRequest>,
) -> Result<Json<AppliedView>, Refusal> {
    let rollback = Rollback { version: request.version, dry_run: request.dry_run, author: operator.name };
    Ok(answer(state.controller.rollback(rollback).await?, Vec::new()))
}

pub(super) async fn delete(
    State(state): Shared,
    axum::extract::ConnectInfo(operator): By,
    Json(request): Json<DeleteRequest>,
) -> Result<Json<AppliedView>, Refusal> {
    let (dry_run, ignore_not_found) = (request.dry_run, request.ignore_not_found);
    let mut removals: Vec<ResourceKey> = Vec::new();
    for key in &request.keys {
        let key = parse_key(key).ok_or_else(|| Refusal::bad(format!("{key:?} names no resource")))?;
        removals.push(key);
    }
    // Also what could not be applied may be removed.
    let options = Options::default();
    let parsed = blocking(move || read(&request.files, options, request.namespace.as_deref())).await?;
    let warnings = views(&parsed);
    if parsed.is_refused() {
        return Err(Refusal::findings(warnings));
    }
    removals.extend(parsed.documents.iter().map(|document| document.resource.meta.key.clone()));
    let batch = Batch {
        documents: Vec::new(),
        removals,
        ignore_not_found,
        dry_run,
        author: operator.name,
        from_config: false,
        keeps_age: false,
    };
    Ok(answer(state.controller.apply(batch).await?, warnings))
}

#[derive(Debug, Deserialize)]
pub(super) struct Scope {
    pub(super) namespace: Option<String>,
}

impl Scope {
    pub(super) fn holds(&self, namespace: &str) -> bool {
        self.namespace.as_deref().is_none_or(|wanted| wanted == namespace)
    }
}

pub(super) async fn resources(
    State(state): Shared,
    Path(kind): Path<String>,
    Query(scope): Query<Scope>,
) -> Result<Json<Vec<ResourceView>>, Refusal> {
    let kind = Kind::from_word(&kind).ok_or_else(|| Refusal::bad(format!("unknown kind {kind:?}")))?;
    let published = state.controller.published();
    let mut found = Vec::new();
    for (text, document) in published.documents.iter() {
        let Some(key) = parse_key(text).filter(|key| key.kind == kind && scope.holds(&key.namespace)) else {
            continue;
        };
        found.push(ResourceView {
            key: text.clone(),
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            created: document.created / 1000,
            version: document.version,
            owner: document.owner.clone(),
            resource: serde_json::from_str(&document.json).map_err(|error| {
                Refusal::bad(format!("{text}: the stored document cannot be read: {error}"))
            })?,
        });
    }
    if kind == Kind::WorkloadEntry {
        found.extend(registered::of_groups(&published.state, &scope));
        found.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    }
    Ok(Json(found))
}

#[derive(Debug, Deserialize)]
pub(super) struct Limit {
    limit: Option<usize>,
}

pub(super) async fn history(
    State(state): Shared,
    Query(query): Query<Limit>,
) -> Result<Json<Vec<HistoryView>>, Refusal> {
    let store = Arc::clone(&state.store);
    let entries = blocking(move || store.history(query.limit.unwrap_or(50))).await??;
    let connected = state.roster.connected();
    let view = |entry: crate::store::HistoryEntry| HistoryView {
        version: entry.version,
        time: clock::text(entry.time),
        author: entry.author,
        changes: entry.changes,
        acknowledged: connected
            .iter()
            .filter(|(_, standing)| standing.acknowledged() >= entry.version)
            .count(),
        connected: connected.len(),
    };
    Ok(Json(entries.into_iter().map(view).collect()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_difference_shows_nothing_of_a_secret() {
        let mut before = json!({"type": "Opaque", "data": {"a": "b25l", "b": "dHdv"}});
        let mut after =
            json!({"type": "Opaque", "data": {"a": "b25l", "b": "dGhyZWU="}, "stringData": {"c": "plain"}});
        cover(&mut before, &mut after);
        assert_eq!(before, json!({"type": "Opaque", "data": {"a": "***", "b": "*** (before)"}}));
        let covered = json!({"a": "***", "b": "*** (after)"});
        assert_eq!(after, json!({"type": "Opaque", "data": covered, "stringData": {"c": "*** (after)"}}));
    }
}
