//! What needs no server: validate, and explain from files.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use mesh_core::resource::diagnostic::{Diagnostic, Severity};
use mesh_core::snapshot::Version;
use mesh_core::state::Settings;
use mesh_core::vocab::identity::TrustDomain;
use mesh_core::vocab::name::check_label;
use serde_json::Value;

use super::input::FileArgs;
use super::output::{self, Format};
use super::{CliError, OutputArgs};
use crate::admin::client::Client;
use crate::admin::explain as asking;
use crate::admin::view::{DiagnosticView, ExplainRequest};
use crate::dialect::{Batch, Input, Options, Parsed};

/// Flags of `validate`.
#[derive(Debug, Clone, clap::Args)]
pub struct ValidateArgs {
    /// What to check
    #[command(flatten)]
    pub files: FileArgs,
    /// Namespace of resources that name none
    #[arg(short, long, env = "MESHD_NAMESPACE")]
    pub namespace: Option<String>,
    /// Settings of the mesh
    #[command(flatten)]
    pub mesh_config: MeshConfigArgs,
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
        required_unless_present = "gateway"
    )]
    pub from: Option<String>,
    /// The caller is a client outside of the mesh that enters at this Gateway
    #[arg(long, env = "MESHD_GATEWAY", value_name = "NS/NAME")]
    pub gateway: Option<String>,
    /// The caller's connections are captured (`--capture transparent`): an address in the URL means whose it is
    #[arg(long, env = "MESHD_CAPTURED")]
    pub captured: bool,
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
    /// Settings of the mesh, with -f
    #[command(flatten)]
    pub mesh_config: MeshConfigArgs,
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

/// `--mesh-config`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct MeshConfigArgs {
    /// Istio's MeshConfig: bare, as a document, or in Istio's ConfigMap; one among the resources wins
    #[arg(long, env = "MESHD_MESH_CONFIG", value_name = "FILE")]
    pub mesh_config: Option<PathBuf>,
}

/// How files are read without a server.
pub(super) struct Reading<'a> {
    /// Refuse kinds that mean nothing here.
    pub(super) strict: bool,
    /// Namespace of resources that name none.
    pub(super) namespace: Option<&'a str>,
    /// Settings of the mesh.
    pub(super) mesh: &'a MeshConfigArgs,
}

impl Reading<'_> {
    /// Reads one file after another; only one of them is in memory.
    pub(super) fn read(&self, files: &FileArgs) -> Result<Parsed, CliError> {
        let mut options = Options { strict: self.strict, ..Options::default() };
        if let Some(namespace) = self.namespace {
            check_label(namespace).map_err(|error| CliError::Usage(format!("--namespace: {error}")))?;
            options.default_namespace = namespace.into();
        }
        let mut batch = Batch::new(&options);
        if let Some(path) = &self.mesh.mesh_config {
            let bytes = std::fs::read(path)
                .map_err(|error| CliError::Failed(format!("--mesh-config {}: {error}", path.display())))?;
            batch.mesh_config(&Input { file: &path.display().to_string(), bytes: &bytes });
        }
        files.each(|name, bytes| {
            batch.file(&Input { file: name, bytes: &bytes });
            Ok(())
        })?;
        Ok(batch.finish())
    }
}

/// Checks files, each resource on its own.
pub fn validate(args: &ValidateArgs) -> Result<(), CliError> {
    let format = args.output.output;
    let reading =
        Reading { strict: args.strict, namespace: args.namespace.as_deref(), mesh: &args.mesh_config };
    let parsed = reading.read(&args.files).map_err(|error| super::apply::findings(error, format))?;
    let mut findings: Vec<_> = parsed.diagnostics.iter().map(DiagnosticView::from).collect();
    let told_once = matches!(format, Format::Table | Format::Wide);
    findings.extend(if told_once {
        first_of_each(&parsed.pending)
    } else {
        parsed.pending.iter().map(pending).collect()
    });
    if matches!(format, Format::Json | Format::Yaml) {
        output::print_value(format, &findings)?;
    }
    if parsed.is_refused() {
        return Err(CliError::Findings(findings));
    }
    if matches!(format, Format::Table | Format::Wide) {
        super::apply::warn(&findings);
        let mut text = String::new();
        for document in &parsed.documents {
            text.push_str(&format!("{} valid\n", document.resource.meta.key));
        }
        output::print(&text)?;
    }
    Ok(())
}

/// The first place of each thing that `apply` would refuse, and how many more there are.
fn first_of_each(found: &[Diagnostic]) -> Vec<DiagnosticView> {
    let mut first: Vec<(DiagnosticView, usize)> = Vec::new();
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for one in found {
        match seen.get(one.message.as_str()) {
            Some(&index) => first[index].1 += 1,
            None => {
                seen.insert(&one.message, first.len());
                first.push((pending(one), 0));
            }
        }
    }
    let told = |(mut view, more): (DiagnosticView, usize)| {
        if more > 0 {
            view.message.push_str(&format!(" (and in {more} other places)"));
        }
        view
    };
    first.into_iter().map(told).collect()
}

/// What is valid, but would be refused by `apply`: no fault of the file.
fn pending(found: &Diagnostic) -> DiagnosticView {
    let message = format!("{}: apply refuses it", found.message);
    DiagnosticView { severity: Severity::Info.name().to_owned(), message, ..DiagnosticView::from(found) }
}

/// Asks for a decision, of the live mesh or of files.
pub async fn explain(
    client: impl FnOnce() -> Result<Client, CliError>,
    args: &ExplainArgs,
) -> Result<(), CliError> {
    let request = ExplainRequest {
        from: args.from.clone().unwrap_or_default(),
        gateway: args.gateway.clone().unwrap_or_default(),
        captured: args.captured,
        to: args.to.clone(),
        method: args.method.clone(),
        headers: args.header.clone(),
        labels: args.label.clone(),
    };
    let answer = if args.files.filename.is_empty() {
        if args.mesh_config.mesh_config.is_some() {
            return Err(CliError::Usage(
                "--mesh-config goes with -f; the live mesh has its own settings".to_owned(),
            ));
        }
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
    let reading = Reading { strict: false, namespace: None, mesh: &args.mesh_config };
    let parsed = reading.read(&args.files)?;
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
    let who = match &args.gateway {
        Some(gateway) => format!("through gateway {gateway}"),
        None => format!("from {}", args.from.as_deref().unwrap_or("")),
    };
    match args.to.starts_with("tcp://") {
        true => format!("{} {who}", args.to),
        false => format!("{} {} {who}", args.method, args.to),
    }
}
