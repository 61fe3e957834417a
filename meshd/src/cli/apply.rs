//! Resources: apply, delete, get, history.

use std::time::Duration;

use serde_json::{Value, json};

use super::input::FileArgs;
use super::output::{self, Format};
use super::{CliError, NamespaceArgs, OutputArgs, WaitFlag, fleet};
use crate::admin::client::{Client, ClientError};
use crate::admin::view::{
    AppliedView, ApplyRequest, DeleteRequest, HistoryView, ResourceView, RollbackRequest,
};
use crate::clock;
use crate::dialect::kind::group_of;
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

/// Flags of `get`.
#[derive(Debug, Clone, clap::Args)]
pub struct GetArgs {
    /// Kind: singular, plural or short (`vs`, `dr`, `se`, `we`, `pa`, `ap`, `svc`, `sa`, `ns`)
    pub kind: String,
    /// Name
    pub name: Option<String>,
    /// Which namespace
    #[command(flatten)]
    pub namespace: NamespaceArgs,
    /// How to print
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Flags of `rollback`.
#[derive(Debug, Clone, clap::Args)]
pub struct RollbackArgs {
    /// The version, as `history` shows it
    pub version: u64,
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
                request.keys.push(match kind {
                    Kind::Namespace => format!("{}/{name}", kind.singular()),
                    _ => format!("{}/{namespace}/{name}", kind.singular()),
                });
            }
        }
    }
    let deleted = client.post("/v1/delete", &request).await;
    finish(client, deleted, args.dry_run, args.wait.wait, args.output.output).await
}

/// Declares again what was declared at an earlier version.
pub async fn rollback(client: &Client, args: &RollbackArgs) -> Result<(), CliError> {
    let request = RollbackRequest { version: args.version, dry_run: args.dry_run };
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
    for warning in &applied.warnings {
        use std::io::Write;
        let _unwritable = writeln!(std::io::stderr(), "{warning}");
    }
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

/// A refusal with findings prints them on standard output where JSON or YAML was asked for.
pub fn findings(error: CliError, format: Format) -> CliError {
    if let (CliError::Findings(found), Format::Json | Format::Yaml) = (&error, format)
        && let Err(failed) = output::print_value(format, found)
    {
        return failed;
    }
    error
}

/// A kind by any of its names, perhaps with its group: `virtualservices.networking.istio.io`.
fn kind_of(word: &str) -> Result<Kind, CliError> {
    let (name, group) = word.split_once('.').map_or((word, None), |(name, group)| (name, Some(group)));
    let found = Kind::from_word(name).filter(|kind| group.is_none_or(|group| group == group_of(*kind)));
    found.ok_or_else(|| {
        let known: Vec<_> = Kind::ALL.into_iter().map(Kind::singular).collect();
        let nearest = known
            .iter()
            .map(|name| (strsim::damerau_levenshtein(name, &word.to_ascii_lowercase()), name))
            .min()
            .filter(|(distance, _)| *distance <= 3);
        let hint = nearest.map(|(_, name)| format!("; did you mean {name}?")).unwrap_or_default();
        CliError::Usage(format!("unknown kind {word:?}{hint} (known: {})", known.join(", ")))
    })
}

/// Shows resources.
pub async fn get(client: &Client, args: &GetArgs) -> Result<(), CliError> {
    let (kind, name) = match (args.kind.split_once('/'), &args.name) {
        (Some((kind, name)), None) => (kind, Some(name)),
        (_, name) => (args.kind.as_str(), name.as_deref()),
    };
    let kind = kind_of(kind)?;
    let mut path = format!("/v1/resources/{}", kind.singular());
    let namespaced = kind != Kind::Namespace;
    if let Some(namespace) = args.namespace.wanted().filter(|_| namespaced) {
        path.push_str(&format!("?namespace={}", fleet::encoded(namespace)));
    }
    let mut found: Vec<ResourceView> = client.get(&path).await?;
    let format = args.output.output;
    if let Some(name) = name {
        found.retain(|view| view.name == name);
        if found.is_empty() {
            let place = match args.namespace.wanted().filter(|_| namespaced) {
                Some(namespace) => format!("{}/{namespace}/{name}", kind.singular()),
                None => format!("{}/{name}", kind.singular()),
            };
            return Err(CliError::Failed(format!("{place} not found")));
        }
        if let ([one], Format::Json | Format::Yaml) = (found.as_slice(), format) {
            return output::print_value(format, &whole(one));
        }
    }
    if matches!(format, Format::Json | Format::Yaml) {
        return output::print_value(format, &found.iter().map(whole).collect::<Vec<_>>());
    }
    let mut columns = vec!["namespace", "name", "age"];
    if format == Format::Wide {
        columns.extend(["version", "owner"]);
    }
    let now = clock::now_seconds();
    output::print_list(format, &found, &columns, |view| {
        let mut row = vec![view.namespace.clone(), view.name.clone(), age(now - view.created)];
        if format == Format::Wide {
            row.extend([view.version.to_string(), view.owner.clone()]);
        }
        row
    })
}

fn whole(view: &ResourceView) -> Value {
    let mut resource = view.resource.clone();
    if let Some(object) = resource.as_object_mut()
        && let Some(metadata) = object.entry("metadata").or_insert_with(|| json!({})).as_object_mut()
    {
        metadata.insert("creationTimestamp".to_owned(), Value::from(clock::text(view.created)));
    }
    resource
}

fn age(seconds: i64) -> String {
    match seconds.max(0) {
        s @ 0..=119 => format!("{s}s"),
        s @ 120..=7199 => format!("{}m", s / 60),
        s @ 7200..=172_799 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86400),
    }
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
