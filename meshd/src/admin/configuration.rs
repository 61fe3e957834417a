//! Resources over the admin API.

use axum::Json;
use axum::extract::{Path, Query, State};
use mesh_core::vocab::origin::{Kind, ResourceKey};
use serde::Deserialize;

use super::server::{By, Refusal, Shared, blocking};
use super::view::{
    AppliedView, ApplyRequest, ChangeView, DeleteRequest, DiagnosticView, FileView, HistoryView,
    ResourceView, RollbackRequest,
};
use crate::clock;
use crate::controller::{Applied, Batch, Rollback, parse_key};
use crate::dialect::{Input, Options, Parsed, parse};

fn read(files: &[FileView], strict: bool, namespace: Option<&str>) -> Parsed {
    let inputs: Vec<_> =
        files.iter().map(|file| Input { file: &file.name, bytes: file.text.as_bytes() }).collect();
    let mut options = Options { strict, ..Options::to_apply() };
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
    let parsed = blocking(move || read(&request.files, request.strict, request.namespace.as_deref())).await?;
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
    let parsed = blocking(move || read(&request.files, false, request.namespace.as_deref())).await?;
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
    let store = std::sync::Arc::clone(&state.store);
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
