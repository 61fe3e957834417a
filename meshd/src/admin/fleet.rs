//! Proxies, hosts and tokens over the admin API.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use mesh_core::sync::publisher::SyncStatus;
use mesh_core::vocab::health::HostStanding;
use serde::Deserialize;
use serde_json::{Value, json};

use super::server::{AdminState, Refusal, Shared, blocking};
use super::view::{
    AllowRequest, DrainRequest, NewTokenView, NodeView, StatusView, SyncView, TokenRequestView, TokenView,
};
use crate::clock;
use crate::discovery::roster::Standing;
use crate::identity::token::{TokenRequest, checked_accounts, create};
use crate::store::{NodeRecord, TokenRecord};

pub(super) fn statuses(state: &AdminState) -> Vec<StatusView> {
    let members = state.members.all();
    let published = state.controller.published();
    let here = members.iter().filter(|node| !node.revoked);
    let status = |node: &Arc<NodeRecord>| {
        let refused = state.controller.refused(&node.name);
        let draining = published.state.is_draining(&node.name);
        status_of(node, state.roster.standing(&node.name).as_ref(), refused, draining)
    };
    here.map(status).collect()
}

fn status_of(
    node: &NodeRecord,
    standing: Option<&Standing>,
    refused: Vec<String>,
    draining: bool,
) -> StatusView {
    let sync = standing.map(|standing| &standing.sync);
    let connected = standing.is_some_and(|standing| standing.connected);
    let status = match sync {
        Some(sync) if connected || sync.status == SyncStatus::Rejected => sync.status,
        _ => SyncStatus::Stale,
    };
    let reason = match sync {
        Some(sync) if !sync.reason.is_empty() => sync.reason.clone(),
        _ if !connected => "not connected".to_owned(),
        _ if status == SyncStatus::Stale => "the newest version is on its way".to_owned(),
        _ => String::new(),
    };
    let faults = sync.map(|sync| sync.listener_faults.as_slice()).unwrap_or_default();
    StatusView {
        node: node.name.clone(),
        address: node.address.clone(),
        connected,
        sent: sync.and_then(|sync| sync.sent).map_or(0, |version| version.number),
        acknowledged: sync.and_then(|sync| sync.acknowledged).map_or(0, |version| version.number),
        state: status.name().to_owned(),
        reason,
        draining,
        certificate_expires: clock::text(node.certificate_expires),
        listener_faults: faults.iter().map(|fault| format!("{}: {}", fault.address, fault.reason)).collect(),
        refused,
    }
}

pub(super) async fn status(State(state): Shared) -> Json<Vec<StatusView>> {
    Json(statuses(&state))
}

#[derive(Debug, Deserialize)]
pub(super) struct Wait {
    version: Option<u64>,
    timeout_ms: u64,
}

pub(super) async fn wait(State(state): Shared, Query(wait): Query<Wait>) -> Json<SyncView> {
    // An hour is for ever to a command line.
    let timeout = Duration::from_millis(wait.timeout_ms).min(Duration::from_secs(3600));
    let behind = state.roster.in_step(wait.version, timeout).await;
    let version = wait.version.unwrap_or_else(|| state.controller.published().version.number);
    let lagging = statuses(&state).into_iter().filter(|view| behind.contains(&view.node)).collect();
    Json(SyncView { version, lagging })
}

pub(super) async fn create_token(
    State(state): Shared,
    Json(request): Json<TokenRequestView>,
) -> Result<Json<NewTokenView>, Refusal> {
    let request = TokenRequest {
        node: request.node,
        accounts: request.service_accounts,
        ttl: Duration::from_secs(request.ttl_seconds),
        uses: request.uses,
    };
    let (record, token) = create(&request, state.authority.pin(), clock::now_seconds())
        .map_err(|error| Refusal::bad(error.to_string()))?;
    let store = Arc::clone(&state.store);
    blocking(move || store.put_token(&record)).await??;
    tracing::info!(id = token.id, node = request.node, "join token made");
    Ok(Json(NewTokenView { id: token.id.clone(), token: token.to_string() }))
}

pub(super) async fn tokens(State(state): Shared) -> Result<Json<Vec<TokenView>>, Refusal> {
    let store = Arc::clone(&state.store);
    let tokens = blocking(move || store.tokens()).await??;
    let now = clock::now_seconds();
    Ok(Json(tokens.into_iter().map(|token| token_view(token, now)).collect()))
}

fn token_view(token: TokenRecord, now: i64) -> TokenView {
    let state = match token {
        _ if now >= token.expires => "expired",
        _ if token.used_by.len() >= token.uses as usize => "used",
        _ => "valid",
    };
    TokenView {
        id: token.id,
        node: token.node,
        service_accounts: token.accounts,
        created: clock::text(token.created),
        expires: clock::text(token.expires),
        uses: token.uses,
        used: token.used_by.len(),
        state: state.to_owned(),
    }
}

pub(super) async fn revoke_token(
    State(state): Shared,
    Path(id): Path<String>,
) -> Result<Json<Value>, Refusal> {
    let store = Arc::clone(&state.store);
    let name = id.clone();
    if !blocking(move || store.delete_token(&name)).await?? {
        return Err(Refusal::missing(format!("no token {id:?}; see `meshd token list`")));
    }
    tracing::info!(id, "join token revoked");
    Ok(Json(json!({ "id": id })))
}

fn node_view(state: &AdminState, node: &NodeRecord) -> NodeView {
    let published = state.controller.published();
    NodeView {
        node: node.name.clone(),
        address: node.address.clone(),
        service_accounts: node.accounts.clone(),
        joined: clock::text(node.joined),
        certificate_expires: clock::text(node.certificate_expires),
        revoked: node.revoked,
        connected: state.roster.standing(&node.name).is_some_and(|standing| standing.connected),
        drained: published
            .state
            .registration(&node.name)
            .is_some_and(|here| here.standing == HostStanding::Drained),
    }
}

pub(super) async fn nodes(State(state): Shared) -> Json<Vec<NodeView>> {
    Json(state.members.all().iter().map(|node| node_view(&state, node)).collect())
}

pub(super) async fn allow(
    State(state): Shared,
    Path(name): Path<String>,
    Json(request): Json<AllowRequest>,
) -> Result<Json<NodeView>, Refusal> {
    let accounts =
        checked_accounts(&request.service_accounts).map_err(|error| Refusal::bad(error.to_string()))?;
    let (members, owned) = (Arc::clone(&state.members), name.clone());
    let node = blocking(move || members.allow(&owned, &accounts)).await??;
    let node = node.ok_or_else(|| unknown(&name))?;
    state.controller.reconsider(&name).await;
    Ok(Json(node_view(&state, &node)))
}

pub(super) async fn revoke(
    State(state): Shared,
    Path(name): Path<String>,
) -> Result<Json<NodeView>, Refusal> {
    let (members, owned) = (Arc::clone(&state.members), name.clone());
    let node = blocking(move || members.revoke(&owned)).await??;
    let node = node.ok_or_else(|| unknown(&name))?;
    state.controller.revoke(&name).await;
    tracing::info!(node = name, "node revoked");
    Ok(Json(node_view(&state, &node)))
}

pub(super) async fn drain(
    State(state): Shared,
    Path(name): Path<String>,
    Json(request): Json<DrainRequest>,
) -> Result<Json<SyncView>, Refusal> {
    change_drain(&state, &name, true, &request).await
}

pub(super) async fn undrain(
    State(state): Shared,
    Path(name): Path<String>,
    Json(request): Json<DrainRequest>,
) -> Result<Json<SyncView>, Refusal> {
    change_drain(&state, &name, false, &request).await
}

/// Answers when every connected caller knows of it, or with those that do not when the time is over.
async fn change_drain(
    state: &AdminState,
    name: &str,
    drained: bool,
    request: &DrainRequest,
) -> Result<Json<SyncView>, Refusal> {
    if state.members.find(name).is_none_or(|node| node.revoked) {
        return Err(unknown(name));
    }
    let version = state.controller.drain(name, drained).await?;
    let is_there = |node: &str| !state.controller.is_away(node);
    let timeout = Duration::from_millis(request.timeout_ms).min(Duration::from_secs(3600));
    let behind = state.roster.in_force(version, timeout, is_there).await;
    let lagging = statuses(state).into_iter().filter(|view| behind.contains(&view.node)).collect();
    Ok(Json(SyncView { version: version.number, lagging }))
}

fn unknown(name: &str) -> Refusal {
    Refusal::missing(format!("no node {name:?} has joined; see `meshd node list`"))
}
