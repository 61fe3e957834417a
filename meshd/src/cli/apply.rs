//! Changes of what is declared: apply, delete, rollback, history.

use std::time::Duration;

use super::input::FileArgs;
use super::inspect::kind_of;
use super::output::{self, Format};
use super::{CliError, OutputArgs, WaitFlag, fleet};
use crate::admin::client::{Client, ClientError};
use crate::admin::view::{
    AppliedView, ApplyRequest, DeleteRequest, DiagnosticView, HistoryView, RollbackRequest,
};
use crate::dialect::kind::is_namespaced;
use mesh_core::vocab::origin::Kind;

/// Flags of `apply`.
#[derive(Debug, Clone, clap::Args)]
pub struct ApplyArgs {
    /// What to apply
    #[command(flatten)]
    pub files: FileArgs,
    /// Namespace of resources that name none
    #[arg(short, long, env = "MESHD_NAMESPACE")]
    pub namespace: Option<String>,
    /// Judge only, change nothing
    #[arg(long, env = "MESHD_DRY_RUN", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub dry_run: bool,
    /// Refuse kinds that mean nothing here instead of skipping them
    #[arg(long, env = "MESHD_STRICT", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub strict: bool,
    /// Whether to wait
    #[command(flatten)]
    pub wait: WaitFlag,
    /// How to print
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Flags of `delete`.
#[derive(Debug, Clone, clap::Args)]
pub struct DeleteArgs {
    /// Kind and names: `vs reviews`
    #[arg(value_name = "KIND NAME", num_args = 0.., conflicts_with = "filename")]
    pub what: Vec<String>,
    /// Or the files that name the resources
    #[command(flatten)]
    pub files: FileArgs,
    /// Namespace
    #[arg(short, long, env = "MESHD_NAMESPACE")]
    pub namespace: Option<String>,
    /// Judge only, change nothing
    #[arg(long, env = "MESHD_DRY_RUN", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub dry_run: bool,
    /// Do not mind what is not there
    #[arg(long, env = "MESHD_IGNORE_NOT_FOUND", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub ignore_not_found: bool,
    /// Whether to wait
    #[command(flatten)]
    pub wait: WaitFlag,
    /// How to print
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Flags of `rollback`.
#[derive(Debug, Clone, clap::Args)]
pub struct RollbackArgs {
    /// The version, as `history` shows it
    #[arg(value_name = "VERSION")]
    pub to: u64,
    /// Judge only, change nothing
    #[arg(long, env = "MESHD_DRY_RUN", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub dry_run: bool,
    /// Whether to wait
    #[command(flatten)]
    pub wait: WaitFlag,
    /// How to print
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Flags of `history`.
#[derive(Debug, Clone, clap::Args)]
pub struct HistoryArgs {
    /// How many versions at most, newest first
    #[arg(long, env = "MESHD_LIMIT", default_value = "50")]
    pub limit: usize,
    /// How to print
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Creates or changes resources.
pub async fn apply(client: &Client, args: &ApplyArgs) -> Result<(), CliError> {
    let files = args.files.read().map_err(|error| findings(error, args.output.output))?;
    let request =
        ApplyRequest { files, dry_run: args.dry_run, strict: args.strict, namespace: args.namespace.clone() };
    let applied = client.post("/v1/apply", &request).await;
    finish(client, applied, args.dry_run, args.wait.wait, args.output.output).await
}

/// Removes resources.
pub async fn delete(client: &Client, args: &DeleteArgs) -> Result<(), CliError> {
    let mut request = DeleteRequest {
        dry_run: args.dry_run,
        ignore_not_found: args.ignore_not_found,
        namespace: args.namespace.clone(),
        ..DeleteRequest::default()
    };
    match args.what.as_slice() {
        [] => request.files = args.files.read().map_err(|error| findings(error, args.output.output))?,
        words => {
            let namespace = args.namespace.as_deref().unwrap_or("default");
            for (kind, name) in named(words)? {
                request.keys.push(match is_namespaced(kind) {
                    false => format!("{}/{name}", kind.singular()),
                    true => format!("{}/{namespace}/{name}", kind.singular()),
                });
            }
        }
    }
    let deleted = client.post("/v1/delete", &request).await;
    finish(client, deleted, args.dry_run, args.wait.wait, args.output.output).await
}

/// Declares again what was declared at an earlier version.
pub async fn rollback(client: &Client, args: &RollbackArgs) -> Result<(), CliError> {
    let request = RollbackRequest { version: args.to, dry_run: args.dry_run };
    let applied = client.post("/v1/rollback", &request).await;
    finish(client, applied, args.dry_run, args.wait.wait, args.output.output).await
}

/// `KIND NAME...`, or `KIND/NAME...`.
fn named(words: &[String]) -> Result<Vec<(Kind, &str)>, CliError> {
    let usage = || CliError::Usage("delete takes KIND NAME..., KIND/NAME..., or -f PATH".to_owned());
    if words.iter().all(|word| word.contains('/')) {
        let pairs = words.iter().filter_map(|word| word.split_once('/'));
        return pairs.map(|(kind, name)| Ok((kind_of(kind)?, name))).collect();
    }
    match words {
        [kind, names @ ..] if !names.is_empty() && names.iter().all(|name| !name.contains('/')) => {
            let kind = kind_of(kind)?;
            Ok(names.iter().map(|name| (kind, name.as_str())).collect())
        }
        _ => Err(usage()),
    }
}

async fn finish(
    client: &Client,
    answer: Result<AppliedView, ClientError>,
    dry_run: bool,
    wait: Option<Duration>,
    format: Format,
) -> Result<(), CliError> {
    let applied = answer.map_err(|error| findings(error.into(), format))?;
    warn(&applied.warnings);
    match format {
        Format::Json | Format::Yaml => output::print_value(format, &applied)?,
        Format::Table | Format::Wide => {
            let note = if dry_run { " (dry run)" } else { "" };
            let mut text = String::new();
            for change in &applied.resources {
                text.push_str(&format!("{} {}{note}\n", change.resource, change.result));
            }
            text.push_str(&format!("version {}{note}\n", applied.version));
            output::print(&text)?;
        }
    }
    match wait {
        Some(timeout) if !dry_run => fleet::wait_for(client, Some(applied.version), timeout).await,
        _ => Ok(()),
    }
}

/// Findings that stop nothing, on standard error.
pub fn warn(findings: &[DiagnosticView]) {
    use std::io::Write;
    for finding in findings {
        let _unwritable = writeln!(std::io::stderr(), "{finding}");
    }
}

/// A refusal with findings prints them on standard output where JSON or YAML was asked for.
pub fn findings(error: CliError, format: Format) -> CliError {
    if let (CliError::Findings(found), Format::Json | Format::Yaml) = (&error, format)
        && let Err(failed) = output::print_value(format, found)
    {
        return failed;
    }
    error
}

/// Shows accepted versions.
pub async fn history(client: &Client, args: &HistoryArgs) -> Result<(), CliError> {
    let found: Vec<HistoryView> = client.get(&format!("/v1/history?limit={}", args.limit)).await?;
    output::print_list(
        args.output.output,
        &found,
        &["version", "time", "author", "proxies", "changes"],
        |entry| {
            let changes = match entry.changes.as_slice() {
                [] => String::new(),
                [one] => one.clone(),
                [first, rest @ ..] if args.output.output != Format::Wide => {
                    format!("{first} (and {} more)", rest.len())
                }
                all => all.join(", "),
            };
            vec![
                entry.version.to_string(),
                entry.time.clone(),
                entry.author.clone(),
                format!("{}/{}", entry.acknowledged, entry.connected),
                changes,
            ]
        },
    )
}
