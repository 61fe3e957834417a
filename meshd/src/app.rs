//! Composes meshd, starts it, and ends it.
//!
//! Everything that can be refused is refused before the first port is open: data directory, store, authority,
//! `--config`. Tasks are owned by [`App`]; ending it ends them.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mesh_core::snapshot::Version;
use mesh_core::vocab::name::WorkloadKey;
use mesh_proto::convert::message::LARGEST_MESSAGE;
use mesh_proto::generated::discovery_server::DiscoveryServer;
use mesh_proto::generated::identity_server::IdentityServer;
use mesh_proto::generated::registry_server::RegistryServer;
use mesh_proto::generated::tap_server::TapServer;
use mesh_proto::generated::traffic_reports_server::TrafficReportsServer;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::server::{self, AdminState};
use crate::config::{ServeArgs, advertised};
use crate::controller::{Controller, StartError as ControllerError};
use crate::discovery::roster::Roster;
use crate::discovery::service::DiscoveryService;
use crate::identity::authority::{Authority, AuthorityError, Brought};
use crate::identity::members::Members;
use crate::identity::service::IdentityService;
use crate::identity::tls::{ServerTls, TlsError};
use crate::identity::token::{self, ALL_ACCOUNTS, TokenRequest};
use crate::registry::limits::Ledger as Shares;
use crate::registry::registrar::Callers;
use crate::registry::service::RegistryService;
use crate::store::{self, Store, StoreError};
use crate::tap::hub::Hub;
use crate::tap::service::TapService;
use crate::telemetry::{self, Metrics};
use crate::traffic::ingest::Owners;
use crate::traffic::ledger::Ledger;
use crate::traffic::service::TelemetryService;
use crate::{clock, grpc};

/// How long calls that are under way may go on after SIGTERM.
const DRAIN: Duration = Duration::from_secs(5);
/// How long the token of `--dev` is good.
const DEV_TOKEN: Duration = Duration::from_secs(24 * 3600);
/// The largest report of traffic: 5000 cells.
const LARGEST_REPORT: usize = 8 << 20;
/// The largest registration: the workloads of one host, read by the single writer.
const LARGEST_REGISTRATION: usize = 1 << 20;

/// Why meshd does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error("--data-dir {}: {source}{}", path.display(), permission_hint(source))]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A port or socket cannot be had.
    #[error("cannot listen on {address} ({flag}): {}", listen_reason(source))]
    Listen {
        /// The address.
        address: String,
        /// The flag that names it.
        flag: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The authority.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Configuration.
    #[error(transparent)]
    Controller(#[from] ControllerError),
}

/// Measures how long versions take until every connected proxy runs them.
async fn convergence(controller: Controller, roster: Arc<Roster>) {
    const PATIENCE: Duration = Duration::from_secs(60);
    let mut published = controller.subscribe();
    let mut known = published.borrow_and_update().version.number;
    while published.changed().await.is_ok() {
        let (version, at) = {
            let newest = published.borrow_and_update();
            (newest.version.number, newest.at)
        };
        if version == known {
            continue;
        }
        known = version;
        let behind = roster.in_step(Some(version), PATIENCE).await;
        telemetry::converged(behind.is_empty().then(|| at.elapsed().as_secs_f64()));
    }
    // The writer has gone, and meshd goes with it.
    std::future::pending().await
}

fn permission_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            " (run as a user who may write there, or choose another directory)"
        }
        io::ErrorKind::ReadOnlyFilesystem => " (the file system is mounted read-only)",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => " (free some space)",
        _ => "",
    }
}

fn listen_reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "the port is in use; stop the program that has it, or choose another".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "no permission; ports below 1024 need root or CAP_NET_BIND_SERVICE".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => "this host does not have that address".to_owned(),
        _ => error.to_string(),
    }
}

/// A running meshd.
pub struct App {
    /// Where proxies reach it.
    pub grpc: SocketAddr,
    /// Metrics and readiness.
    pub http: SocketAddr,
    /// The admin socket.
    pub socket: PathBuf,
    /// The version that it started with.
    pub version: u64,
    /// Its parts, for commands of this process.
    pub admin: Arc<AdminState>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    streams: TaskTracker,
}

impl App {
    /// Starts meshd; returns when it serves.
    pub async fn start(args: ServeArgs, metrics: Metrics) -> Result<App, StartError> {
        let data_dir = prepare(&args.data_dir)?;
        let grpc_listener = listen(&args.grpc_addr, "--grpc-addr").await?;
        let http_listener = listen(&args.http_addr, "--http-addr").await?;
        let local = |listener: &TcpListener, address: &str, flag| {
            listener.local_addr().map_err(|source| StartError::Listen {
                address: address.to_owned(),
                flag,
                source,
            })
        };
        let grpc = local(&grpc_listener, &args.grpc_addr, "--grpc-addr")?;
        let http = local(&http_listener, &args.http_addr, "--http-addr")?;

        let store = store::open(&args.store, &data_dir, args.keep_versions)?;
        let authority = Arc::new(open_authority(&args, &data_dir)?);
        let members = Arc::new(Members::load(Arc::clone(&store))?);
        let names = advertised(&args.advertise, grpc);
        let tls = Arc::new(ServerTls::new(Arc::clone(&authority), names, args.workload_cert_ttl)?);
        let roster = Arc::new(Roster::default());
        let controller =
            Controller::start(&args, Arc::clone(&store), &authority, Arc::clone(&members)).await?;
        let version = controller.published().version.number;

        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let streams = TaskTracker::new();
        let traffic = Arc::new(Ledger::new(args.traffic_series as usize));
        let taps = Arc::new(Hub::default());
        let parts =
            Parts { streams: streams.clone(), authority, members, roster, controller, store, traffic, taps };
        spawn_grpc(&mut tasks, grpc_listener, Arc::clone(&tls), &parts, &args, &stop);
        tasks.spawn({
            let stop = stop.clone();
            async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tls.keep_fresh() => {}
                }
            }
        });
        tasks.spawn({
            let (stop, ended) = (stop.clone(), parts.controller.ended());
            async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = ended => {}
                }
            }
        });
        tasks.spawn({
            let (stop, metrics) = (stop.clone(), metrics.clone());
            let measured = convergence(parts.controller.clone(), Arc::clone(&parts.roster));
            async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = metrics.keep() => {}
                    () = measured => {}
                }
            }
        });
        let socket = data_dir.join("admin.sock");
        let admin_listener = listen_unix(&socket)?;
        let admin = Arc::new(AdminState {
            controller: parts.controller.clone(),
            members: parts.members,
            roster: parts.roster,
            store: parts.store,
            authority: parts.authority,
            taps: parts.taps,
            stop: stop.clone(),
            metrics,
            traffic: parts.traffic,
            data_dir,
        });
        tasks.spawn(server::serve_socket(admin_listener, Arc::clone(&admin), stop.clone()));
        tasks.spawn(server::serve_public(http_listener, Arc::clone(&admin), stop.clone()));
        if !args.config.is_empty() || args.mesh_config.is_some() {
            tasks.spawn(parts.controller.watch_config(stop.clone()));
        }
        Ok(App { grpc, http, socket, version, admin, stop, tasks, streams })
    }

    /// Makes a token that lets one node be anything: for `--dev`.
    pub fn dev_token(&self, node: &str) -> Result<String, String> {
        let request = TokenRequest {
            node: node.to_owned(),
            accounts: vec![ALL_ACCOUNTS.to_owned()],
            ttl: DEV_TOKEN,
            uses: 100,
        };
        let (record, token) = token::create(&request, self.admin.authority.pin(), clock::now_seconds())
            .map_err(|error| error.to_string())?;
        self.admin.store.put_token(&record).map_err(|error| error.to_string())?;
        Ok(token.to_string())
    }

    /// Reads `--config` again.
    pub async fn reload(&self) {
        self.admin.controller.reload().await;
    }

    /// Resolves when something that must not end has ended.
    pub async fn failed(&mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a part of meshd has failed");
                return;
            }
            if !self.stop.is_cancelled() {
                tracing::error!("a part of meshd has ended");
                return;
            }
        }
    }

    /// Ends it: takes no more calls, lets those under way finish, then goes.
    pub async fn stop(mut self) {
        self.stop.cancel();
        self.streams.close();
        let all = async {
            while self.tasks.join_next().await.is_some() {}
            self.streams.wait().await;
        };
        if tokio::time::timeout(DRAIN, all).await.is_err() {
            tracing::warn!("some calls did not end in time and were cut off");
        }
        self.tasks.shutdown().await;
        self.admin.controller.stop().await;
        let _gone = std::fs::remove_file(&self.socket);
    }
}

/// Those who call workloads: the proxies that are connected.
struct Connected {
    roster: Arc<Roster>,
    controller: Controller,
}

#[tonic::async_trait]
impl Callers for Connected {
    async fn run(&self, version: Version, but: &str, patience: Duration) {
        let counts = |node: &str| node != but && !self.controller.is_away(node);
        let behind = self.roster.in_force(version, patience, counts).await;
        if !behind.is_empty() {
            tracing::warn!(node = but, ?behind, "its proxy ends although some callers may not know of it");
        }
    }
}

/// Whose workloads are whose, as the newest state says.
struct Owned(Controller);

impl Owners for Owned {
    fn owns(&self, node: &str, namespace: &str, workload: &str) -> bool {
        let key = WorkloadKey { namespace: namespace.into(), name: workload.into() };
        let published = self.0.published();
        published.state.workload(&key).is_some_and(|known| known.node.as_deref() == Some(node))
    }
}

struct Parts {
    streams: TaskTracker,
    authority: Arc<Authority>,
    members: Arc<Members>,
    roster: Arc<Roster>,
    controller: Controller,
    store: Arc<dyn Store>,
    traffic: Arc<Ledger>,
    taps: Arc<Hub>,
}

fn spawn_grpc(
    tasks: &mut JoinSet<()>,
    listener: TcpListener,
    tls: Arc<ServerTls>,
    parts: &Parts,
    args: &ServeArgs,
    stop: &CancellationToken,
) {
    let identity = IdentityService {
        authority: Arc::clone(&parts.authority),
        members: Arc::clone(&parts.members),
        ttl: args.workload_cert_ttl,
    };
    let registry = RegistryService {
        domain: parts.authority.domain().clone(),
        members: Arc::clone(&parts.members),
        registrar: Arc::new(parts.controller.clone()),
        callers: Arc::new(Connected {
            roster: Arc::clone(&parts.roster),
            controller: parts.controller.clone(),
        }),
        lease: args.lease,
        shares: Shares::default(),
        stop: stop.clone(),
        streams: parts.streams.clone(),
    };
    let discovery = DiscoveryService {
        domain: parts.authority.domain().clone(),
        members: Arc::clone(&parts.members),
        controller: parts.controller.clone(),
        roster: Arc::clone(&parts.roster),
        fanout: Arc::default(),
        stop: stop.clone(),
        streams: parts.streams.clone(),
    };
    let telemetry = TelemetryService {
        domain: parts.authority.domain().clone(),
        members: Arc::clone(&parts.members),
        owners: Arc::new(Owned(parts.controller.clone())),
        ledger: Arc::clone(&parts.traffic),
    };
    let taps = TapService {
        domain: parts.authority.domain().clone(),
        members: Arc::clone(&parts.members),
        hub: Arc::clone(&parts.taps),
        stop: stop.clone(),
        streams: parts.streams.clone(),
    };
    let (ready, incoming) = mpsc::channel(64);
    tasks.spawn(grpc::accept(listener, tls, ready, stop.clone()));
    let stop = stop.clone();
    tasks.spawn(async move {
        let served = tonic::transport::Server::builder()
            .max_concurrent_streams(64)
            .http2_keepalive_interval(Some(Duration::from_secs(15)))
            .http2_keepalive_timeout(Some(Duration::from_secs(10)))
            .http2_max_header_list_size(16 << 10)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(8 << 20)
            .add_service(IdentityServer::new(identity).max_decoding_message_size(64 << 10))
            .add_service(RegistryServer::new(registry).max_decoding_message_size(LARGEST_REGISTRATION))
            .add_service(TrafficReportsServer::new(telemetry).max_decoding_message_size(LARGEST_REPORT))
            .add_service(DiscoveryServer::new(discovery).max_decoding_message_size(LARGEST_MESSAGE))
            .add_service(TapServer::new(taps).max_decoding_message_size(LARGEST_MESSAGE))
            .serve_with_incoming_shutdown(ReceiverStream::new(incoming), stop.cancelled())
            .await;
        if let Err(error) = served {
            tracing::error!(%error, "the gRPC server failed");
        }
    });
}

fn open_authority(args: &ServeArgs, data_dir: &Path) -> Result<Authority, AuthorityError> {
    match (&args.ca_cert, &args.ca_key) {
        (Some(certificate), Some(key)) => {
            let brought = Brought { certificate, key, chain: args.ca_chain.as_deref() };
            Authority::bring(&brought, &args.trust_domain)
        }
        _ => Authority::open(&data_dir.join("ca"), &args.trust_domain),
    }
}

fn prepare(path: &Path) -> Result<PathBuf, StartError> {
    let at = |source| StartError::DataDir { path: path.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(at)?;
    std::fs::canonicalize(path).map_err(at)
}

async fn listen(address: &str, flag: &'static str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen {
        address: address.to_owned(),
        flag,
        source,
    })
}

fn listen_unix(path: &Path) -> Result<UnixListener, StartError> {
    let at = |source| StartError::Listen {
        address: format!("unix:{}", path.display()),
        flag: "--data-dir",
        source,
    };
    // The store is locked by now, so a socket that is there was left by a meshd that is gone.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(at)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(at)?;
    Ok(listener)
}
