//! meshproxy: commands and exit codes.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser};
use meshproxy::cli::{Cli, Command, Intercept, LogFormat, RunArgs};
use meshproxy::config::Config;
use meshproxy::intercept::nft::{self, NftError};
use meshproxy::intercept::rules;
use meshproxy::runtime::allocator::Allocator;
use meshproxy::{app, dns};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// Control, DNS, admin and export; the data threads are others.
const CONTROL_THREADS: usize = 2;
/// Table builds, files and the like.
const BLOCKING_THREADS: usize = 8;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(args) => run(*args),
        Command::Intercept(what) => intercept(&what),
        Command::DnsConfig(args) => print(&dns::snippet::snippet(args.dns)),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "meshproxy", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
    }
}

/// Installs, removes or shows the rules of transparent capture.
fn intercept(what: &Intercept) -> ExitCode {
    let done = |result: Result<(), NftError>, said: &str| match result {
        Ok(()) => print(said),
        Err(error) => failed(&error.into()),
    };
    match what {
        Intercept::Install(install) if install.dry_run => print(&install.rules().script()),
        Intercept::Install(install) => done(nft::install(&install.rules()), "installed\n"),
        Intercept::Remove { dry_run: true } => print(&rules::removal()),
        Intercept::Remove { dry_run: false } => done(nft::remove(), "removed\n"),
        Intercept::Show { .. } => match nft::find() {
            Ok(found) => print(&format!("{}{}\n", found.listing, found.interception.name())),
            Err(error) => failed(&error.into()),
        },
    }
}

/// A reader that went away is no failure of ours.
fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => failed(&error.into()),
        _ => ExitCode::SUCCESS,
    }
}

fn run(args: RunArgs) -> ExitCode {
    let config = match Config::from_args(args) {
        Ok(config) => config,
        Err(error) => {
            complain(&error.to_string());
            return ExitCode::from(2);
        }
    };
    log_to_stderr(config.log_format);
    keep_memory_private();
    let served = raise_descriptor_limit().and_then(|()| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(CONTROL_THREADS)
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_name("control")
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        let served = runtime.block_on(app::run(config));
        runtime.shutdown_timeout(std::time::Duration::from_secs(1));
        served
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    complain(&format!("{error:#}"));
    ExitCode::from(1)
}

fn complain(text: &str) {
    // Where stderr is gone, nobody can be told.
    drop(writeln!(std::io::stderr(), "meshproxy: {text}"));
}

fn log_to_stderr(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}

/// Keys are in memory: no core is dumped, and only root attaches a debugger.
fn keep_memory_private() {
    let private = rustix::process::DumpableBehavior::NotDumpable;
    if let Err(error) = rustix::process::set_dumpable_behavior(private) {
        tracing::warn!(%error, "cores with keys in them may be dumped");
    }
}

/// A proxy holds two descriptors for each connection that it carries.
fn raise_descriptor_limit() -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .context("cannot raise the limit of open files")
}
