//! Runs the control plane.

use std::path::Path;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{CliError, output};
use crate::app::App;
use crate::config::ServeArgs;
use crate::telemetry::{LogFormat, Metrics, start_logging};

/// meshd's work is short and seldom; more threads only cost memory.
const THREADS: usize = 4;

/// Runs until a signal ends it.
pub fn serve(mut args: ServeArgs, format: LogFormat) -> Result<(), CliError> {
    start_logging(format, "info");
    keep_memory_private();
    raise_descriptor_limit();
    let failed = |error: std::io::Error| CliError::Failed(format!("cannot start: {error}"));
    // Kept to the end: the directory goes with it.
    let temporary = match args.dev {
        true => Some(tempfile::Builder::new().prefix("meshd-").tempdir().map_err(failed)?),
        false => None,
    };
    if let Some(directory) = &temporary {
        args.data_dir = directory.path().to_owned();
    }
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(THREADS);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .map_err(failed)?;
    runtime.block_on(run(args))
}

async fn run(args: ServeArgs) -> Result<(), CliError> {
    let on = |kind| signal(kind).map_err(|error| CliError::Failed(format!("cannot take signals: {error}")));
    let (mut terminate, mut interrupt) = (on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
    let mut hangup = on(SignalKind::hangup())?;
    let dev = args.dev;
    let start = App::start(args, Metrics::install());
    let mut app = tokio::select! {
        started = start => started.map_err(|error| CliError::Failed(error.to_string()))?,
        () = either(&mut terminate, &mut interrupt) => return Ok(()),
    };
    if dev {
        output::print(&first_steps(&app)?)?;
    }
    output::print(&format!("ready grpc={} http={} version={}\n", app.grpc, app.http, app.version))?;
    let outcome = loop {
        tokio::select! {
            () = either(&mut terminate, &mut interrupt) => break Ok(()),
            _ = hangup.recv() => app.reload().await,
            () = app.failed() => break Err(CliError::Failed("a part of meshd has failed; its log says which".to_owned())),
        }
    };
    tracing::info!("going down");
    app.stop().await;
    outcome
}

/// The keys of the authority are in memory: no core is dumped, and only root attaches a debugger.
fn keep_memory_private() {
    let private = rustix::process::DumpableBehavior::NotDumpable;
    if let Err(error) = rustix::process::set_dumpable_behavior(private) {
        tracing::warn!(%error, "cores with keys in them may be dumped");
    }
}

/// The soft limit is 1024 on most systems, for the sake of programs that use `select`.
fn raise_descriptor_limit() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files stays at {:?}", limit.current);
    }
}

async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

/// What `--dev` prints: where the server is, a token for this host, and what to type next.
fn first_steps(app: &App) -> Result<String, CliError> {
    let failed = |error: &dyn std::fmt::Display| CliError::Failed(error.to_string());
    let host =
        std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_ascii_lowercase();
    let node = if mesh_core::vocab::node::check_node_name(&host).is_ok() { host } else { "dev".to_owned() };
    let token = app.dev_token(&node).map_err(|error| failed(&error))?;
    let file = app.socket.with_file_name("dev.token");
    write_private(&file, &token).map_err(|error| failed(&error))?;
    Ok(format!(
        "export MESHD_SERVER=unix:{}\n{token}\nmeshproxy run --node {node} --control https://{} --token-file {} --service hello:8080\n",
        app.socket.display(),
        app.grpc,
        file.display()
    ))
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{text}")
}
