//! What needs no server: validate, and explain from files.

use std::sync::Arc;

use mesh_core::resource::diagnostic::Severity;
use mesh_core::snapshot::Version;
use mesh_core::state::Settings;
use mesh_core::vocab::identity::TrustDomain;
use serde_json::Value;

use super::input::FileArgs;
use super::output::{self, Format};
use super::{CliError, OutputArgs};
use crate::admin::client::Client;
use crate::admin::explain as asking;
use crate::admin::view::{DiagnosticView, ExplainRequest, FileView};
use crate::dialect::{Input, Options, Parsed, parse};

/// Flags of `validate`.
#[derive(Debug, Clone, clap::Args)]
pub struct ValidateArgs {
    /// What to check
    #[command(flatten)]
    pub files: FileArgs,
    /// Refuse kinds that mean nothing here instead of skipping them
    #[arg(long, env = "MESHD_STRICT", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub strict: bool,
    /// How to print
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Flags of `explain`.
#[derive(Debug, Clone, clap::Args)]
pub struct ExplainArgs {
    /// Who calls: `NS/SERVICEACCOUNT`, perhaps on one node
    #[arg(
        long,
        env = "MESHD_FROM",
        value_name = "NS/SERVICEACCOUNT[@NODE]",
        required_unless_present = "gateway",
        default_value = "",
        hide_default_value = true
    )]
    pub from: String,
    /// Who calls instead is a client outside of the mesh that enters at this Gateway
    #[arg(
        long,
        env = "MESHD_GATEWAY",
        value_name = "NS/NAME",
        conflicts_with = "from",
        default_value = "",
        hide_default_value = true
    )]
    pub gateway: String,
    /// What is called
    #[arg(long, env = "MESHD_TO", value_name = "URL")]
    pub to: String,
    /// Method
    #[arg(short = 'X', long = "method", env = "MESHD_METHOD", default_value = "GET")]
    pub method: String,
    /// Header field (repeatable)
    #[arg(short = 'H', long = "header", env = "MESHD_HEADER", value_name = "K: V")]
    pub header: Vec<String>,
    /// Label of the caller (repeatable)
    #[arg(long, env = "MESHD_LABEL", value_name = "K=V", value_delimiter = ',')]
    pub label: Vec<String>,
    /// Answer from these files alone, without a server
    #[command(flatten)]
    pub files: FileArgs,
    /// Trust domain, with -f
    #[arg(long, env = "MESHD_TRUST_DOMAIN", default_value = "cluster.local")]
    pub trust_domain: String,
    /// Namespace whose policies hold for the whole mesh, with -f
    #[arg(long, env = "MESHD_ROOT_NAMESPACE", default_value = "istio-system")]
    pub root_namespace: String,
    /// How to print
    #[command(flatten)]
    pub output: OutputArgs,
}

fn read(files: &[FileView], strict: bool) -> Parsed {
    let inputs: Vec<_> =
        files.iter().map(|file| Input { file: &file.name, bytes: file.text.as_bytes() }).collect();
    parse(&inputs, &Options { strict, ..Options::default() })
}

/// Checks files, each resource on its own.
pub fn validate(args: &ValidateArgs) -> Result<(), CliError> {
    let format = args.output.output;
    let files = args.files.read().map_err(|error| super::apply::findings(error, format))?;
    let parsed = read(&files, args.strict);
    let findings: Vec<_> = parsed.diagnostics.iter().map(DiagnosticView::from).collect();
    if matches!(format, Format::Json | Format::Yaml) {
        output::print_value(format, &findings)?;
    }
    if parsed.is_refused() {
        return Err(CliError::Findings(findings));
    }
    if matches!(format, Format::Table | Format::Wide) {
        use std::io::Write;
        for finding in &findings {
            let _unwritable = writeln!(std::io::stderr(), "{finding}");
        }
        let mut text = String::new();
        for document in &parsed.documents {
            text.push_str(&format!("{} valid\n", document.resource.meta.key));
        }
        output::print(&text)?;
    }
    Ok(())
}

/// Asks for a decision, of the live mesh or of files.
pub async fn explain(
    client: impl FnOnce() -> Result<Client, CliError>,
    args: &ExplainArgs,
) -> Result<(), CliError> {
    let request = ExplainRequest {
        from: args.from.clone(),
        gateway: args.gateway.clone(),
        to: args.to.clone(),
        method: args.method.clone(),
        headers: args.header.clone(),
        labels: args.label.clone(),
    };
    let answer = if args.files.filename.is_empty() {
        client()?.post("/v1/explain", &request).await?
    } else {
        from_files(args, &request)?
    };
    match args.output.output {
        Format::Json | Format::Yaml => output::print_value(args.output.output, &answer),
        Format::Table | Format::Wide => output::print(&super::story::story(&asked(args), &answer)),
    }
}

fn from_files(args: &ExplainArgs, request: &ExplainRequest) -> Result<Value, CliError> {
    let files = args.files.read()?;
    let parsed = read(&files, false);
    if parsed.is_refused() {
        let errors = parsed.diagnostics.iter().filter(|found| found.severity == Severity::Error);
        return Err(CliError::Findings(errors.map(DiagnosticView::from).collect()));
    }
    let settings = Settings {
        trust_domain: TrustDomain::new(&args.trust_domain)
            .map_err(|error| CliError::Usage(format!("--trust-domain: {error}")))?,
        root_namespace: args.root_namespace.as_str().into(),
    };
    let resources = parsed.documents.into_iter().map(|document| Arc::new(document.resource)).collect();
    let (state, compiled) = asking::offline(settings, resources);
    asking::answer(&state, &compiled, Version::default(), request).map_err(CliError::Failed)
}

/// The question in words.
fn asked(args: &ExplainArgs) -> String {
    let who = match args.gateway.as_str() {
        "" => format!("from {}", args.from),
        gateway => format!("through gateway {gateway}"),
    };
    match args.to.starts_with("tcp://") {
        true => format!("{} {who}", args.to),
        false => format!("{} {} {who}", args.method, args.to),
    }
}
