//! Live traffic over the admin API: `stat`, `edges`, `routes`, `top`.

mod edges;
mod routes;
mod select;
mod stat;
pub mod view;

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use mesh_core::state::MeshState;

use self::select::Selection;
use self::view::{EdgeView, RouteView, StatView, TopView, TrafficQuery};
use super::server::{AdminState, Refusal, Shared, blocking};
use crate::controller::Published;
use crate::traffic::ledger::Ledger;

/// What a question is answered from.
struct Facts {
    published: Arc<Published>,
    ledger: Arc<Ledger>,
    selection: Selection,
}

impl Facts {
    fn mesh(&self) -> &MeshState {
        &self.published.state
    }
}

async fn answer<T: Send + 'static>(
    state: Arc<AdminState>,
    query: TrafficQuery,
    work: fn(&Facts) -> Vec<T>,
) -> Result<Json<Vec<T>>, Refusal> {
    blocking(move || {
        let published = state.controller.published();
        let ledger = Arc::clone(&state.traffic);
        let selection = Selection::new(&query, &published.state, &ledger)?;
        Ok(Json(work(&Facts { published, ledger, selection })))
    })
    .await?
}

pub(super) async fn stat(
    State(state): Shared,
    Query(query): Query<TrafficQuery>,
) -> Result<Json<Vec<StatView>>, Refusal> {
    answer(state, query, stat::stat).await
}

pub(super) async fn edges(
    State(state): Shared,
    Query(query): Query<TrafficQuery>,
) -> Result<Json<Vec<EdgeView>>, Refusal> {
    answer(state, query, edges::edges).await
}

pub(super) async fn top(
    State(state): Shared,
    Query(query): Query<TrafficQuery>,
) -> Result<Json<Vec<TopView>>, Refusal> {
    answer(state, query, edges::top).await
}

pub(super) async fn routes(
    State(state): Shared,
    Query(query): Query<TrafficQuery>,
) -> Result<Json<Vec<RouteView>>, Refusal> {
    answer(state, query, routes::routes).await
}
