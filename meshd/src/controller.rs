//! The single writer: everything that changes the mesh passes through here, one after the other.
//!
//! ```text
//!  apply, --config ──▶ judge ──▶ store (version) ─┐
//!  announcements, health, leases ─────────────────┴─▶ mesh state ──▶ compile ──▶ Published ──▶ streams
//! ```
//!
//! A thread of its own does the work, for the store and the compiler block. Callers hold a [`Controller`], which
//! sends it commands and hands out what was published last. A command that fails has changed nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mesh_core::compile::Compiled;
use mesh_core::resource::diagnostic::Diagnostic;
use mesh_core::snapshot::Version;
use mesh_core::state::{MeshState, Settings};
use mesh_core::vocab::health::HostStanding;
use mesh_core::vocab::origin::ResourceKey;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::clock;
use crate::config::ServeArgs;
use crate::dialect::{self, Document, Input, Parsed};
use crate::identity::authority::Authority;
use crate::identity::members::Members;
use crate::registry::announcement::Announcement;
use crate::registry::fare::{Fares, Told};
use crate::registry::registrar::{Announced, Registrar, Reported};
use crate::source::directory::{self, ReadError, Watch};
use crate::store::{Store, StoreError, StoredDocument};

mod batch;
mod flapping;
mod writer;

pub(crate) use batch::{key_of, outcome, parse_key};
use writer::Writer;

/// Commands that wait for the writer; whoever sends more waits, too.
const QUEUE: usize = 256;
/// How often leases are looked at.
const TICK: Duration = Duration::from_millis(250);

/// The mesh as it is in force: what `get` shows and what proxies are sent.
#[derive(Clone)]
pub struct Published {
    /// Version and revision.
    pub version: Version,
    /// The mesh.
    pub state: Arc<MeshState>,
    /// Its sections.
    pub compiled: Arc<Compiled>,
    /// Declared resources as they were written, by key.
    pub documents: Arc<BTreeMap<String, StoredDocument>>,
    /// When it was published.
    pub at: tokio::time::Instant,
}

/// What of a node's announcement is not taken in, by node: one sentence each.
pub type Refused = BTreeMap<String, Vec<String>>;

/// What to change, and how.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Resources to create or replace.
    pub documents: Vec<Document>,
    /// Resources to remove.
    pub removals: Vec<ResourceKey>,
    /// Removing what is not there is no error.
    pub ignore_not_found: bool,
    /// Judge only.
    pub dry_run: bool,
    /// Who asks.
    pub author: String,
    /// The documents are all that `--config` declares, with the file of each; absent ones are removed.
    pub from_config: bool,
    /// The documents were there before, and are as old as they say.
    pub keeps_age: bool,
}

/// A way back to what was declared at an earlier version.
#[derive(Debug, Clone)]
pub struct Rollback {
    /// The earlier version.
    pub version: u64,
    /// Judge only.
    pub dry_run: bool,
    /// Who asks.
    pub author: String,
}

/// An accepted batch.
#[derive(Debug, Clone)]
pub struct Applied {
    /// The version that the mesh has now.
    pub version: u64,
    /// What happened to each resource, in the order of the batch.
    pub changes: Vec<(String, &'static str)>,
    /// What looks odd but was accepted.
    pub warnings: Vec<Diagnostic>,
}

/// Why a batch was refused. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// For what is in it.
    #[error("refused")]
    Findings(Vec<Diagnostic>),
    /// It could not be made durable.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// meshd is going down.
    #[error("meshd is going down")]
    Closed,
}

enum Command {
    Apply(Box<Batch>, oneshot::Sender<Result<Applied, ApplyError>>),
    Rollback(Rollback, oneshot::Sender<Result<Applied, ApplyError>>),
    Announce {
        node: String,
        announcement: Box<Announcement>,
        reply: oneshot::Sender<Announced>,
    },
    Report {
        node: String,
        reports: Vec<Reported>,
    },
    Renew {
        node: String,
        reply: oneshot::Sender<bool>,
    },
    Drain {
        node: String,
        drained: bool,
        reply: oneshot::Sender<Result<oneshot::Receiver<Version>, StoreError>>,
    },
    Depart {
        node: String,
        reply: oneshot::Sender<Version>,
    },
    Revoke(String),
    Reconsider(String),
    Tick,
    Stop(oneshot::Sender<()>),
}

/// Why the controller does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// `--config` cannot be read.
    #[error(transparent)]
    Config(#[from] ReadError),
    /// `--config` holds what cannot be accepted.
    #[error("--config is refused:\n{}", lines(.0))]
    Refused(Vec<Diagnostic>),
    /// The system refused a thread.
    #[error("cannot start the controller: {0}")]
    Thread(#[from] std::io::Error),
    /// It ended at once.
    #[error("the controller has ended; the log says why")]
    Ended,
}

fn lines(findings: &[Diagnostic]) -> String {
    findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// A handle of the writer.
#[derive(Clone)]
pub struct Controller {
    commands: mpsc::Sender<Command>,
    published: watch::Receiver<Arc<Published>>,
    refused: watch::Receiver<Refused>,
    fares: Arc<watch::Sender<Fares>>,
    config: Arc<[PathBuf]>,
    mesh_config: Option<Arc<Path>>,
    _ticking: Arc<AbortOnDropHandle<()>>,
}

impl Controller {
    /// Reads the store, takes in `--config`, compiles, and starts the writer's thread.
    pub async fn start(
        args: &ServeArgs,
        store: Arc<dyn Store>,
        authority: &Authority,
        members: Arc<Members>,
    ) -> Result<Controller, StartError> {
        let settings = Settings {
            trust_domain: args.trust_domain.clone(),
            root_namespace: args.root_namespace.as_str().into(),
        };
        let roots = authority.bundle().iter().map(|der| der.to_vec()).collect();
        let (commands, queue) = mpsc::channel(QUEUE);
        let writer = Writer::load(store, members, settings, roots, args)?;
        let published = writer.subscribe();
        let refused = writer.refused();
        std::thread::Builder::new().name("controller".to_owned()).spawn(move || writer.run(queue))?;
        let to = commands.clone();
        let ticking = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(TICK);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            loop {
                ticks.tick().await;
                if to.is_closed() {
                    return;
                }
                // A full queue ticks by itself.
                let _full = to.try_send(Command::Tick);
            }
        });
        let controller = Controller {
            commands,
            published,
            refused,
            fares: Arc::default(),
            config: args.config.clone().into(),
            mesh_config: args.mesh_config.as_deref().map(Arc::from),
            _ticking: Arc::new(AbortOnDropHandle::new(ticking)),
        };
        match controller.take_config().await {
            Ok(_) => Ok(controller),
            Err(ConfigError::Read(error)) => Err(error.into()),
            Err(ConfigError::Apply(ApplyError::Findings(findings))) => Err(StartError::Refused(findings)),
            Err(ConfigError::Apply(ApplyError::Store(error))) => Err(error.into()),
            Err(ConfigError::Apply(ApplyError::Closed)) => Err(StartError::Ended),
        }
    }

    /// How many commands wait for the writer.
    pub fn waiting(&self) -> usize {
        self.commands.max_capacity() - self.commands.capacity()
    }

    /// What is in force now.
    pub fn published(&self) -> Arc<Published> {
        self.published.borrow().clone()
    }

    /// Whether a node is gone. Whatever its connection looks like, it calls nobody.
    pub fn is_away(&self, node: &str) -> bool {
        let published = self.published.borrow();
        published.state.registration(node).is_some_and(|here| here.standing == HostStanding::Away)
    }

    /// What of a node's announcement is not taken in.
    pub fn refused(&self, node: &str) -> Vec<String> {
        self.refused.borrow().get(node).cloned().unwrap_or_default()
    }

    /// How workloads fare, as their nodes tell and the nodes of their callers.
    pub fn fares(&self) -> watch::Ref<'_, Fares> {
        self.fares.borrow()
    }

    /// Follows what is in force.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Published>> {
        self.published.clone()
    }

    /// Applies a batch, all or nothing; durable on return.
    pub async fn apply(&self, batch: Batch) -> Result<Applied, ApplyError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Apply(Box::new(batch), reply)).await;
        answer.await.unwrap_or(Err(ApplyError::Closed))
    }

    /// Declares again what was declared at an earlier version, as a new version; all or nothing, durable on return.
    pub async fn rollback(&self, rollback: Rollback) -> Result<Applied, ApplyError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Rollback(rollback, reply)).await;
        answer.await.unwrap_or(Err(ApplyError::Closed))
    }

    /// Takes the workloads of a node out of every caller's snapshot, or back in; durable on return. The version from which
    /// on it is so.
    pub async fn drain(&self, node: &str, drained: bool) -> Result<Version, ApplyError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Drain { node: node.to_owned(), drained, reply }).await;
        let version = answer.await.map_err(|_gone| ApplyError::Closed)??;
        version.await.map_err(|_gone| ApplyError::Closed)
    }

    /// Forgets a node that was thrown out.
    pub async fn revoke(&self, node: &str) {
        self.send(Command::Revoke(node.to_owned())).await;
    }

    /// Reads a node's announcement again: it is allowed more than before.
    pub async fn reconsider(&self, node: &str) {
        self.send(Command::Reconsider(node.to_owned())).await;
    }

    /// Reads `--config` again; what is wrong with it is logged, and what was in force stays.
    pub async fn reload(&self) {
        match self.take_config().await {
            Ok(Some(applied)) if !applied.changes.is_empty() => {
                tracing::info!(
                    version = applied.version,
                    changes = applied.changes.len(),
                    "configuration reloaded"
                );
            }
            Ok(_) => {}
            Err(ConfigError::Apply(ApplyError::Findings(findings))) => {
                for finding in findings {
                    tracing::error!(%finding, "--config is refused, what was in force stays");
                }
            }
            Err(error) => tracing::error!(%error, "--config was not taken in, what was in force stays"),
        }
    }

    /// Reloads `--config` whenever it changes.
    pub fn watch_config(&self, stop: CancellationToken) -> impl Future<Output = ()> + Send + 'static {
        let controller = self.clone();
        async move {
            let watched: Vec<PathBuf> = controller
                .config
                .iter()
                .map(PathBuf::as_path)
                .chain(controller.mesh_config.as_deref())
                .map(PathBuf::from)
                .collect();
            let mut watch = match Watch::start(&watched) {
                Ok(watch) => watch,
                Err(error) => {
                    tracing::error!(%error, "--config cannot be watched; send SIGHUP after a change");
                    return stop.cancelled().await;
                }
            };
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = watch.changed() => controller.reload().await,
                }
            }
        }
    }

    /// Resolves when the writer has ended.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let commands = self.commands.clone();
        async move { commands.closed().await }
    }

    /// Ends the writer after the commands that it has.
    pub async fn stop(&self) {
        let (reply, ended) = oneshot::channel();
        self.send(Command::Stop(reply)).await;
        let _gone = ended.await;
    }

    async fn take_config(&self) -> Result<Option<Applied>, ConfigError> {
        let paths = Arc::clone(&self.config);
        let mesh_config = self.mesh_config.clone();
        let read = tokio::task::spawn_blocking(move || -> Result<Parsed, ReadError> {
            let options = dialect::Options::to_apply();
            let mut batch = dialect::Batch::new(&options);
            for file in directory::read(&paths)? {
                batch.file(&Input { file: &file.name, bytes: &file.content });
            }
            if let Some(path) = mesh_config {
                let content = std::fs::read(&path).map_err(|source| ReadError {
                    flag: "--mesh-config",
                    path: path.to_path_buf(),
                    source,
                })?;
                batch.mesh_config(&Input { file: &path.display().to_string(), bytes: &content });
            }
            Ok(batch.finish())
        });
        let parsed = read.await.map_err(|_| ApplyError::Closed)??;
        if parsed.is_refused() {
            return Err(ApplyError::Findings(parsed.diagnostics).into());
        }
        for finding in &parsed.diagnostics {
            tracing::warn!(%finding, "--config");
        }
        let batch = Batch {
            documents: parsed.documents,
            removals: Vec::new(),
            ignore_not_found: true,
            dry_run: false,
            author: "--config".to_owned(),
            from_config: true,
            keeps_age: false,
        };
        Ok(Some(self.apply(batch).await?))
    }

    async fn send(&self, command: Command) {
        if self.commands.send(command).await.is_err() {
            tracing::debug!("the controller has ended");
        }
    }
}

#[tonic::async_trait]
impl Registrar for Controller {
    async fn announce(&self, node: &str, announcement: Announcement) -> Option<Announced> {
        let (reply, answer) = oneshot::channel();
        let announcement = Box::new(announcement);
        self.send(Command::Announce { node: node.to_owned(), announcement, reply }).await;
        answer.await.ok()
    }

    async fn report(&self, node: &str, reports: Vec<Reported>) {
        self.send(Command::Report { node: node.to_owned(), reports }).await;
    }

    async fn fare(&self, node: &str, told: Told, whole: bool) {
        self.fares.send_modify(|fares| fares.hear(node, told, whole, clock::now_seconds()));
    }

    async fn depart(&self, node: &str) -> Option<Version> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Depart { node: node.to_owned(), reply }).await;
        answer.await.ok()
    }

    async fn renew(&self, node: &str) -> bool {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Renew { node: node.to_owned(), reply }).await;
        // meshd is going down: the node need not hurry.
        answer.await.unwrap_or(true)
    }
}

#[derive(Debug, thiserror::Error)]
enum ConfigError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
}
