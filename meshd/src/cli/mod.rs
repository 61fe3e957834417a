//! The commands of meshd: the tree, where they find the server, and the exit codes.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};

use crate::admin::client::{Client, ClientError};
use crate::admin::view::{DiagnosticView, RefusalView};
use crate::config::{ServeArgs, duration};
use crate::telemetry::LogFormat;

pub mod analyze;
pub mod apply;
pub mod compare;
pub mod credentials;
mod difference;
pub mod fleet;
pub mod input;
pub mod inspect;
pub mod offline;
pub mod output;
pub mod serve;
mod story;
pub mod tap;
pub mod traffic;

use output::Format;

/// The control plane of the mesh, and the operator's commands for it
#[derive(Debug, Parser)]
#[command(name = "meshd", version, propagate_version = true, max_term_width = 110)]
pub struct Cli {
    /// How log lines (standard error) look
    #[arg(long, global = true, env = "MESHD_LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// Admin socket of meshd [default: unix:./meshd-data/admin.sock]
    #[arg(long, global = true, env = "MESHD_SERVER", value_name = "unix:PATH")]
    pub server: Option<String>,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// Everything meshd does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the control plane
    Serve(Box<ServeArgs>),
    /// Create or change resources, all or none
    Apply(apply::ApplyArgs),
    /// Remove resources, all or none
    Delete(apply::DeleteArgs),
    /// Show resources as they were declared
    Get(inspect::GetArgs),
    /// Show a resource in words: what it says, whom it refers to, who refers to it, what is wrong with it
    Describe(inspect::DescribeArgs),
    /// Show what `apply` would change, line by line
    Diff(compare::DiffArgs),
    /// Check files without a server, each resource on its own
    Validate(offline::ValidateArgs),
    /// Find what is wrong across resources, of files or of the live mesh
    Analyze(analyze::AnalyzeArgs),
    /// Show the decision that the data plane would take for a request, step by step
    Explain(offline::ExplainArgs),
    /// Show the proxies and what they run
    Status(OutputArgs),
    /// Wait until proxies are in step
    Wait(fleet::WaitArgs),
    /// Make, list and revoke join tokens
    #[command(subcommand)]
    Token(credentials::TokenCommand),
    /// Show the services of the mesh
    Services(ReadArgs),
    /// Show the workloads of the mesh, where they run and how they fare
    Workloads(ReadArgs),
    /// Show how workloads fare: what their checks say, and whose callers leave them alone
    Health(ReadArgs),
    /// Show live traffic by service and subset: success rate, requests a second, latency, connections
    Stat(traffic::StatArgs),
    /// Show who calls whom, under which identities, and whether over mutual TLS
    Edges(traffic::TrafficArgs),
    /// Show what becomes of the requests of each rule: effective and actual success, retries, shares of destinations
    Routes(traffic::TrafficArgs),
    /// Show the busiest calls, live
    Top(traffic::TrafficArgs),
    /// Show what a proxy runs
    #[command(subcommand)]
    Proxy(fleet::ProxyCommand),
    /// Take a host's workloads out of every caller's snapshot, and wait until all connected callers know
    Drain(fleet::DrainArgs),
    /// Let the workloads of a drained host have traffic again, and wait until all connected callers know
    Undrain(fleet::DrainArgs),
    /// Show the joined hosts and what they may be
    #[command(subcommand)]
    Node(credentials::NodeCommand),
    /// Show single requests: as they end, or what proxies remember of them
    Tap(Box<tap::TapArgs>),
    /// Check the installation
    Check(OutputArgs),
    /// Show the accepted configuration versions
    History(apply::HistoryArgs),
    /// Go back to an earlier version: what was declared then is declared again, as a new version
    Rollback(apply::RollbackArgs),
    /// Print a completion script
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// How to print.
#[derive(Debug, Clone, clap::Args)]
pub struct OutputArgs {
    /// Output format
    #[arg(short, long, value_enum, env = "MESHD_OUTPUT", default_value = "table")]
    pub output: Format,
}

/// Which namespace.
#[derive(Debug, Clone, clap::Args)]
pub struct NamespaceArgs {
    /// Namespace
    #[arg(short, long, env = "MESHD_NAMESPACE", default_value = "default")]
    pub namespace: String,
    /// All namespaces
    #[arg(short = 'A', long, env = "MESHD_ALL_NAMESPACES", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub all_namespaces: bool,
}

impl NamespaceArgs {
    /// The namespace to read, `None` for all.
    pub fn wanted(&self) -> Option<&str> {
        (!self.all_namespaces).then_some(self.namespace.as_str())
    }
}

/// What the reading commands of one namespace share.
#[derive(Debug, Clone, clap::Args)]
pub struct ReadArgs {
    /// Which namespace
    #[command(flatten)]
    pub namespace: NamespaceArgs,
    /// How to print
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `--wait[=DURATION]`.
#[derive(Debug, Clone, clap::Args)]
pub struct WaitFlag {
    /// Wait until every connected proxy has acknowledged the version
    #[arg(long, env = "MESHD_WAIT", value_name = "TIMEOUT", num_args = 0..=1, require_equals = true, default_missing_value = "30s", value_parser = duration)]
    pub wait: Option<Duration>,
}

/// How a command ends when it does not succeed.
#[derive(Debug)]
pub enum CliError {
    /// Refused or failed; the text says why. Exit code 1.
    Failed(String),
    /// Refused for these findings. Exit code 1.
    Findings(Vec<DiagnosticView>),
    /// Asked in a way that means nothing. Exit code 2.
    Usage(String),
    /// The server cannot be reached. Exit code 3.
    Unreachable(String),
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> CliError {
        match error {
            ClientError::Address(_) | ClientError::Remote(_) => CliError::Usage(error.to_string()),
            ClientError::Unreachable { .. } => CliError::Unreachable(error.to_string()),
            ClientError::Refused(RefusalView { diagnostics, .. }) if !diagnostics.is_empty() => {
                CliError::Findings(diagnostics)
            }
            ClientError::Refused(_) | ClientError::Odd(..) => CliError::Failed(error.to_string()),
        }
    }
}

/// Runs meshd with these arguments.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors: standard output and 0. All else is wrong usage: 2.
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            let _unwritable = error.print();
            return ExitCode::from(code);
        }
    };
    let (code, text) = match execute(cli) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(CliError::Failed(text)) => (1, text),
        Err(CliError::Findings(findings)) => {
            (1, findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        }
        Err(CliError::Usage(text)) => (2, text),
        Err(CliError::Unreachable(text)) => (3, text),
    };
    if !text.is_empty() {
        use std::io::Write;
        let prefix = if code == 1 && (text.starts_with("error") || text.contains(": error ")) {
            ""
        } else {
            "error: "
        };
        let _unwritable = writeln!(std::io::stderr(), "{prefix}{text}");
    }
    ExitCode::from(code)
}

fn execute(cli: Cli) -> Result<(), CliError> {
    if let Command::Serve(args) = cli.command {
        return serve::serve(*args, cli.log_format);
    }
    crate::telemetry::start_logging(cli.log_format, "warn");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::Failed(format!("cannot start: {error}")))?;
    let client = || Client::new(&server(cli.server.as_deref())).map_err(CliError::from);
    runtime.block_on(async {
        match cli.command {
            Command::Apply(args) => apply::apply(&client()?, &args).await,
            Command::Delete(args) => apply::delete(&client()?, &args).await,
            Command::Get(args) => inspect::get(&client()?, &args).await,
            Command::Describe(args) => inspect::describe(&client()?, &args).await,
            Command::Diff(args) => compare::diff(&client()?, &args).await,
            Command::History(args) => apply::history(&client()?, &args).await,
            Command::Rollback(args) => apply::rollback(&client()?, &args).await,
            Command::Validate(args) => offline::validate(&args),
            Command::Analyze(args) => analyze::analyze(client, &args).await,
            Command::Explain(args) => offline::explain(client, &args).await,
            Command::Status(args) => fleet::status(&client()?, args.output).await,
            Command::Wait(args) => fleet::wait(&client()?, &args).await,
            Command::Services(args) => fleet::services(&client()?, &args).await,
            Command::Workloads(args) => fleet::workloads(&client()?, &args).await,
            Command::Health(args) => fleet::health(&client()?, &args).await,
            Command::Stat(args) => traffic::stat(&client()?, &args).await,
            Command::Edges(args) => traffic::edges(&client()?, &args).await,
            Command::Routes(args) => traffic::routes(&client()?, &args).await,
            Command::Top(args) => traffic::top(&client()?, &args).await,
            Command::Proxy(command) => fleet::proxy(&client()?, &command).await,
            Command::Drain(args) => fleet::drain(&client()?, &args, true).await,
            Command::Undrain(args) => fleet::drain(&client()?, &args, false).await,
            Command::Check(args) => fleet::check(&client()?, args.output).await,
            Command::Tap(args) => tap::tap(&client()?, &args).await,
            Command::Token(command) => credentials::token(&client()?, &command).await,
            Command::Node(command) => credentials::node(&client()?, &command).await,
            Command::Completions { shell } => completions(shell),
            Command::Serve(_) => Ok(()),
        }
    })
}

fn server(given: Option<&str>) -> String {
    match given {
        Some(given) => given.to_owned(),
        None => "unix:./meshd-data/admin.sock".to_owned(),
    }
}

fn completions(shell: clap_complete::Shell) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "meshd", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn wait_takes_its_time_or_the_default() {
        let wait = |arguments: &[&str]| {
            let all = ["meshd", "apply", "-f", "x.yaml"].iter().chain(arguments);
            match Cli::try_parse_from(all).unwrap().command {
                Command::Apply(args) => args.wait.wait,
                _ => None,
            }
        };
        assert_eq!(wait(&[]), None);
        assert_eq!(wait(&["--wait"]), Some(Duration::from_secs(30)));
        assert_eq!(wait(&["--wait=5s"]), Some(Duration::from_secs(5)));
    }

    #[test]
    fn every_flag_has_an_environment_variable() {
        fn walk(command: &clap::Command) {
            for argument in command.get_arguments() {
                let builtin = ["help", "version"].contains(&argument.get_id().as_str());
                if argument.get_long().is_some() && !builtin {
                    assert!(argument.get_env().is_some(), "{} {}", command.get_name(), argument.get_id());
                }
            }
            command.get_subcommands().for_each(walk);
        }
        walk(&Cli::command());
    }
}
