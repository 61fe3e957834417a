//! `analyze`: what is wrong across resources, of files or of the live mesh.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use mesh_core::resource::diagnostic::{Diagnostic, Severity};
use mesh_core::resource::kubernetes::PodTemplate;
use mesh_core::vocab::origin::Kind;

use super::input::FileArgs;
use super::offline::{MeshConfigArgs, Reading};
use super::output::{self, Format};
use super::{CliError, OutputArgs, fleet};
use crate::admin::analysis;
use crate::admin::client::Client;
use crate::admin::view::DiagnosticView;
use crate::dialect::{Document, Parsed, SKIPPED};

/// Flags of `analyze`.
#[derive(Debug, Clone, clap::Args)]
pub struct AnalyzeArgs {
    /// What to analyse, without a server; without it the live mesh is
    #[command(flatten)]
    pub files: FileArgs,
    /// Only findings of this namespace, which with -f is also that of resources that name none
    #[arg(short, long, env = "MESHD_NAMESPACE")]
    pub namespace: Option<String>,
    /// Findings of all namespaces, which is the default
    #[arg(short = 'A', long, env = "MESHD_ALL_NAMESPACES", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub all_namespaces: bool,
    /// Settings of the mesh
    #[command(flatten)]
    pub mesh_config: MeshConfigArgs,
    /// Namespace whose policies hold for the whole mesh, with -f
    #[arg(long, env = "MESHD_ROOT_NAMESPACE", default_value = "istio-system")]
    pub root_namespace: String,
    /// Refuse kinds that mean nothing here instead of skipping them
    #[arg(long, env = "MESHD_STRICT", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub strict: bool,
    /// How to print
    #[command(flatten)]
    pub output: OutputArgs,
}

impl AnalyzeArgs {
    /// The namespace whose findings are wanted, `None` for all.
    fn wanted(&self) -> Option<&str> {
        self.namespace.as_deref().filter(|_| !self.all_namespaces)
    }
}

/// Finds what is wrong, and fails if any of it is an error.
pub async fn analyze(
    client: impl FnOnce() -> Result<Client, CliError>,
    args: &AnalyzeArgs,
) -> Result<(), CliError> {
    let format = args.output.output;
    let mut findings = if args.files.filename.is_empty() {
        if args.mesh_config.mesh_config.is_some() {
            return Err(CliError::Usage(
                "--mesh-config goes with -f; the live mesh has its own settings".to_owned(),
            ));
        }
        let path = match args.wanted() {
            Some(namespace) => format!("/v1/analyze?namespace={}", fleet::encoded(namespace)),
            None => "/v1/analyze".to_owned(),
        };
        client()?.get(&path).await?
    } else {
        of_files(args).map_err(|error| super::apply::findings(error, format))?
    };
    findings.sort_by(|a, b| {
        (&a.file, a.line, &a.resource, &a.code).cmp(&(&b.file, b.line, &b.resource, &b.code))
    });
    match format {
        Format::Json | Format::Yaml => output::print_value(format, &findings)?,
        Format::Table | Format::Wide if findings.is_empty() => output::print("No issues found.\n")?,
        Format::Table | Format::Wide => {
            output::print(&findings.iter().map(line).collect::<String>())?;
        }
    }
    let errors = findings.iter().filter(|finding| finding.severity == "error").count();
    match errors {
        0 => Ok(()),
        1 => Err(CliError::Failed(format!("1 of {} findings is an error", findings.len()))),
        errors => Err(CliError::Failed(format!("{errors} of {} findings are errors", findings.len()))),
    }
}

fn of_files(args: &AnalyzeArgs) -> Result<Vec<DiagnosticView>, CliError> {
    let reading =
        Reading { strict: args.strict, namespace: args.namespace.as_deref(), mesh: &args.mesh_config };
    let parsed = reading.read(&args.files)?;
    let resources: Vec<_> = documents(&parsed).map(|document| Arc::new(document.resource.clone())).collect();
    let mut findings = analysis::across(&resources, &parsed.pods, &args.root_namespace);
    drop(resources);
    place(&mut findings, &parsed);
    // What is skipped has been looked at for its pods; only who refuses it wants to hear of it.
    let said = |found: &&Diagnostic| found.code != SKIPPED || found.severity == Severity::Error;
    let all = parsed.diagnostics.iter().filter(said).chain(&findings);
    Ok(all.filter(|finding| in_scope(args, &finding.resource)).map(DiagnosticView::from).collect())
}

/// What can be analysed: also what is refused, as far as it could be read.
fn documents(parsed: &Parsed) -> impl Iterator<Item = &Document> {
    parsed.documents.iter().chain(&parsed.faulty)
}

/// Adds file and line.
fn place(findings: &mut [Diagnostic], parsed: &Parsed) {
    let named: HashSet<&str> = findings.iter().map(|finding| &*finding.resource).collect();
    let documents: HashMap<String, &Document> = documents(parsed)
        .map(|document| (document.resource.meta.key.to_string(), document))
        .filter(|(key, _)| named.contains(key.as_str()))
        .collect();
    for finding in findings {
        if let Some(document) = documents.get(&*finding.resource) {
            finding.file = document.resource.meta.place.file.clone();
            (finding.line, finding.column) = document.locate(&finding.field);
            continue;
        }
        let name =
            |pod: &PodTemplate| format!("{}/{}/{}", pod.kind.to_ascii_lowercase(), pod.namespace, pod.name);
        if let Some(pod) = parsed.pods.iter().find(|pod| name(pod) == *finding.resource) {
            finding.file = pod.place.file.clone();
            finding.line = pod.place.line;
        }
    }
}

/// Whether a finding is of the namespace that is asked for; what is in none always is.
fn in_scope(args: &AnalyzeArgs, resource: &str) -> bool {
    let Some(wanted) = args.wanted() else { return true };
    match resource.split('/').collect::<Vec<_>>().as_slice() {
        [_, namespace, _] => *namespace == wanted,
        _ => true,
    }
}

/// `Error [IST0101] (VirtualService default/reviews x.yaml:12) spec.hosts[0]: message`, as `istioctl analyze`.
fn line(finding: &DiagnosticView) -> String {
    let level = match finding.severity.as_str() {
        "error" => "Error",
        "warning" => "Warning",
        _ => "Info",
    };
    let mut place = match finding.resource.split_once('/') {
        Some((kind, name)) => {
            format!("{} {name}", Kind::from_word(kind).map_or(kind, |kind| kind.name()))
        }
        None => finding.resource.clone(),
    };
    if !finding.file.is_empty() {
        place = format!("{place} {}", finding.file);
        if finding.line > 0 {
            place = format!("{place}:{}", finding.line);
        }
    }
    let place = match place.trim() {
        "" => String::new(),
        place => format!(" ({place})"),
    };
    let field = if finding.field.is_empty() { String::new() } else { format!("{}: ", finding.field) };
    format!("{level} [{}]{place} {field}{}\n", finding.code, finding.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_look_like_istio_s() {
        let finding = |resource: &str, file: &str, number: u32, field: &str| DiagnosticView {
            code: "IST0101".to_owned(),
            severity: "error".to_owned(),
            resource: resource.to_owned(),
            file: file.to_owned(),
            line: number,
            field: field.to_owned(),
            message: "no".to_owned(),
        };
        assert_eq!(
            line(&finding("virtualservice/default/r", "x.yaml", 12, "spec.hosts[0]")),
            "Error [IST0101] (VirtualService default/r x.yaml:12) spec.hosts[0]: no\n"
        );
        assert_eq!(line(&finding("namespace/n", "", 0, "")), "Error [IST0101] (Namespace n) no\n");
        assert_eq!(line(&finding("", "", 0, "")), "Error [IST0101] no\n");
    }
}
