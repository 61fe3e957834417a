//! The admin API on its Unix socket, and the public port: `/healthz`, `/readyz`, `/metrics`.
//!
//! Access to the socket is the file's mode; who is there may do everything. The public port changes nothing and
//! shows nothing of the configuration.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::serve::IncomingStream;
use mesh_core::telemetry::exposition::Form;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

use super::view::{DiagnosticView, RefusalView};
use super::{analysis, catalogue, check, configuration, describe, fleet, tap, traffic};
use crate::controller::{ApplyError, Controller};
use crate::discovery::roster::Roster;
use crate::identity::authority::Authority;
use crate::identity::members::Members;
use crate::store::{Store, StoreError};
use crate::tap::hub::Hub;
use crate::telemetry::Metrics;
use crate::traffic::ledger::Ledger;

/// JSON escapes at most double an honest batch.
const LARGEST_BODY: usize = 2 * (crate::cli::input::LARGEST as usize) + (1 << 20);

/// Everything that the API shows and changes.
pub struct AdminState {
    /// Configuration.
    pub controller: Controller,
    /// Joined hosts.
    pub members: Arc<Members>,
    /// Connected proxies.
    pub roster: Arc<Roster>,
    /// What survives.
    pub store: Arc<dyn Store>,
    /// Certificates.
    pub authority: Arc<Authority>,
    /// Who asks for single exchanges.
    pub taps: Arc<Hub>,
    /// Ends what is shown as it comes.
    pub stop: CancellationToken,
    /// What is counted.
    pub metrics: Metrics,
    /// Live traffic.
    pub traffic: Arc<Ledger>,
    /// The data directory.
    pub data_dir: PathBuf,
}

pub(super) type Shared = State<Arc<AdminState>>;

/// An answer that is a refusal.
pub(super) struct Refusal(StatusCode, RefusalView);

impl Refusal {
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Refusal {
        Refusal(status, RefusalView { error: error.into(), diagnostics: Vec::new() })
    }

    pub(super) fn bad(error: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, error)
    }

    pub(super) fn missing(error: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, error)
    }

    pub(super) fn findings(diagnostics: Vec<DiagnosticView>) -> Refusal {
        let error = "refused; nothing was changed".to_owned();
        Refusal(StatusCode::UNPROCESSABLE_ENTITY, RefusalView { error, diagnostics })
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Refusal {
        Refusal::new(StatusCode::INSUFFICIENT_STORAGE, error.to_string())
    }
}

impl From<ApplyError> for Refusal {
    fn from(error: ApplyError) -> Refusal {
        match error {
            ApplyError::Findings(found) => {
                Refusal::findings(found.iter().map(DiagnosticView::from).collect())
            }
            ApplyError::Store(error) => error.into(),
            ApplyError::Closed => Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, axum::Json(self.1)).into_response()
    }
}

/// Runs what blocks away from the runtime's threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|_| {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the request failed inside meshd; its log says why")
    })
}

/// Who is at the other end of the socket.
#[derive(Debug, Clone)]
pub(super) struct Operator {
    /// Name of the user, or its number.
    pub(super) name: String,
}

impl Connected<IncomingStream<'_, UnixListener>> for Operator {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Operator {
        let uid = stream.io().peer_cred().map(|credentials| credentials.uid());
        Operator { name: uid.map_or_else(|_| "unknown".to_owned(), user_name) }
    }
}

fn user_name(uid: u32) -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let number = uid.to_string();
    let found = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then(|| name.to_owned())
    });
    found.unwrap_or(number)
}

pub(super) type By = ConnectInfo<Operator>;

/// Serves the admin API.
pub async fn serve_socket(listener: UnixListener, state: Arc<AdminState>, stop: CancellationToken) {
    let router = Router::new()
        .route("/v1/apply", post(configuration::apply))
        .route("/v1/delete", post(configuration::delete))
        .route("/v1/rollback", post(configuration::rollback))
        .route("/v1/resources/{kind}", get(configuration::resources))
        .route("/v1/analyze", get(analysis::analyze))
        .route("/v1/describe/{kind}/{namespace}/{name}", get(describe::describe))
        .route("/v1/diff", post(configuration::compare))
        .route("/v1/history", get(configuration::history))
        .route("/v1/explain", post(catalogue::explain))
        .route("/v1/services", get(catalogue::services))
        .route("/v1/workloads", get(catalogue::workloads))
        .route("/v1/health", get(catalogue::health))
        .route("/v1/proxies/{node}", get(catalogue::proxy))
        .route("/v1/status", get(fleet::status))
        .route("/v1/wait", get(fleet::wait))
        .route("/v1/tokens", get(fleet::tokens).post(fleet::create_token))
        .route("/v1/tokens/{id}", delete(fleet::revoke_token))
        .route("/v1/nodes", get(fleet::nodes))
        .route("/v1/nodes/{node}/allow", post(fleet::allow))
        .route("/v1/nodes/{node}/revoke", post(fleet::revoke))
        .route("/v1/nodes/{node}/drain", post(fleet::drain))
        .route("/v1/nodes/{node}/undrain", post(fleet::undrain))
        .route("/v1/check", get(check::check))
        .route("/v1/traffic/stat", get(traffic::stat))
        .route("/v1/traffic/edges", get(traffic::edges))
        .route("/v1/traffic/routes", get(traffic::routes))
        .route("/v1/traffic/top", get(traffic::top))
        .route("/v1/tap", post(tap::tap))
        .fallback(|| async {
            Refusal::missing("this meshd does not know that command; is it of an older version?")
        })
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .with_state(state)
        .into_make_service_with_connect_info::<Operator>();
    let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!(%error, "the admin API failed");
    }
}

async fn metrics(State(state): Shared, headers: HeaderMap) -> ([(HeaderName, &'static str); 1], String) {
    let accept: Vec<&str> =
        headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let form = Form::asked(&accept.join(","));
    let text = state.metrics.render(form, |page| state.figures(page));
    ([(header::CONTENT_TYPE, form.content_type())], text)
}

/// Serves what everybody may see.
pub async fn serve_public(listener: TcpListener, state: Arc<AdminState>, stop: CancellationToken) {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(|| async { "ok\n" }))
        .route("/metrics", get(metrics))
        .route(
            "/",
            get(|| async {
                "meshd. See /healthz, /readyz and /metrics, and `meshd status` on the control node.\n"
            }),
        )
        .layer(DefaultBodyLimit::max(1 << 10))
        .with_state(state);
    let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!(%error, "the public port failed");
    }
}
