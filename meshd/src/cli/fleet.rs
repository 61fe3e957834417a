//! Proxies and what they carry: status, wait, services, workloads, health, proxy config, check.

use std::time::Duration;

use serde_json::Value;

use super::output::{self, Format};
use super::{CliError, OutputArgs, ReadArgs};
use crate::admin::client::Client;
use crate::admin::view::{
    CheckView, DrainRequest, HealthView, ServiceView, StatusView, SyncView, WorkloadView,
};
use crate::config::duration;

/// Flags of `wait`.
#[derive(Debug, Clone, clap::Args)]
pub struct WaitArgs {
    /// Until all connected proxies are SYNCED
    #[arg(long, required = true, env = "MESHD_SYNCED", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub synced: bool,
    /// At most this long
    #[arg(long, env = "MESHD_TIMEOUT", default_value = "30s", value_parser = duration)]
    pub timeout: Duration,
}

/// `drain NODE`, `undrain NODE`.
#[derive(Debug, Clone, clap::Args)]
pub struct DrainArgs {
    /// The node
    pub node: String,
    /// Wait for callers at most this long
    #[arg(long, env = "MESHD_TIMEOUT", default_value = "30s", value_parser = duration)]
    pub timeout: Duration,
}

/// `proxy ...`.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum ProxyCommand {
    /// Show what a proxy runs
    Config(ProxyConfigArgs),
}

/// Flags of `proxy config`.
#[derive(Debug, Clone, clap::Args)]
pub struct ProxyConfigArgs {
    /// The node
    pub node: String,
    /// One part of it
    #[arg(value_enum)]
    pub part: Option<Part>,
    /// How to print
    #[command(flatten)]
    pub output: OutputArgs,
}

/// A part of what a proxy runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Workloads of the node and the sockets that it could not open
    Listeners,
    /// Services
    Services,
    /// Rules
    Routes,
    /// Endpoints
    Endpoints,
    /// Authorization policies
    Policies,
    /// Identities and trust bundle
    Secrets,
}

impl Part {
    /// The word on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Part::Listeners => "listeners",
            Part::Services => "services",
            Part::Routes => "routes",
            Part::Endpoints => "endpoints",
            Part::Policies => "policies",
            Part::Secrets => "secrets",
        }
    }
}

/// A value for a path or query.
pub fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Shows the proxies.
pub async fn status(client: &Client, format: Format) -> Result<(), CliError> {
    let proxies: Vec<StatusView> = client.get("/v1/status").await?;
    let mut columns = vec!["node", "address", "connected", "sent", "acknowledged", "state", "reason"];
    if format == Format::Wide {
        columns.push("certificate expires");
    }
    output::print_list(format, &proxies, &columns, |proxy| {
        let draining = if proxy.draining { "draining" } else { "" };
        let mut reason = vec![draining.to_owned(), proxy.reason.clone()];
        reason.extend(proxy.listener_faults.iter().chain(&proxy.refused).cloned());
        reason.retain(|part| !part.is_empty());
        let mut row = vec![
            proxy.node.clone(),
            proxy.address.clone(),
            if proxy.connected { "yes" } else { "no" }.to_owned(),
            proxy.sent.to_string(),
            proxy.acknowledged.to_string(),
            proxy.state.clone(),
            reason.join("; "),
        ];
        if format == Format::Wide {
            row.push(proxy.certificate_expires.clone());
        }
        row
    })
}

/// `wait --synced`.
pub async fn wait(client: &Client, args: &WaitArgs) -> Result<(), CliError> {
    wait_for(client, None, args.timeout).await
}

/// Waits until every connected proxy has acknowledged a version, or the newest of all.
pub async fn wait_for(client: &Client, version: Option<u64>, timeout: Duration) -> Result<(), CliError> {
    let mut path = format!("/v1/wait?timeout_ms={}", timeout.as_millis());
    if let Some(version) = version {
        path.push_str(&format!("&version={version}"));
    }
    let answer: SyncView = client.get(&path).await?;
    if answer.lagging.is_empty() {
        return Ok(());
    }
    let after = humantime::format_duration(timeout);
    let what = match version {
        Some(version) => format!("version {version} is applied, but after {after} not acknowledged by"),
        None => format!("after {after} not in step:"),
    };
    Err(CliError::Failed(format!("{what} {}", lagging(&answer))))
}

/// The proxies that do not run what was waited for.
fn lagging(answer: &SyncView) -> String {
    let one = |proxy: &StatusView| {
        let reason = if proxy.reason.is_empty() { String::new() } else { format!(": {}", proxy.reason) };
        format!("{} ({}, acknowledged {}{reason})", proxy.node, proxy.state, proxy.acknowledged)
    };
    answer.lagging.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Takes a host's workloads out of every caller's snapshot, or lets them back, and waits until the callers know.
pub async fn drain(client: &Client, args: &DrainArgs, drained: bool) -> Result<(), CliError> {
    let (node, timeout) = (&args.node, args.timeout);
    let (verb, done) = if drained { ("drain", "drained") } else { ("undrain", "undrained") };
    let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    let path = format!("/v1/nodes/{}/{verb}", encoded(node));
    let answer: SyncView = client.post(&path, &DrainRequest { timeout_ms }).await?;
    if answer.lagging.is_empty() {
        return output::print(&format!("node {node} {done}\n"));
    }
    let (after, behind) = (humantime::format_duration(timeout), lagging(&answer));
    Err(CliError::Failed(format!("node {node} is {done}, but after {after} not acknowledged by {behind}")))
}

fn scope(path: &str, args: &ReadArgs) -> String {
    match args.namespace.wanted() {
        Some(namespace) => format!("{path}?namespace={}", encoded(namespace)),
        None => path.to_owned(),
    }
}

/// Shows services.
pub async fn services(client: &Client, args: &ReadArgs) -> Result<(), CliError> {
    let services: Vec<ServiceView> = client.get(&scope("/v1/services", args)).await?;
    let format = args.output.output;
    let columns = ["namespace", "name", "host", "ports", "address", "healthy"];
    output::print_list(format, &services, &columns, |service| {
        let ports: Vec<_> =
            service.ports.iter().map(|port| format!("{}/{}", port.port, port.protocol)).collect();
        vec![
            service.namespace.clone(),
            service.name.clone(),
            service.host.clone(),
            ports.join(","),
            service.address.clone(),
            format!("{}/{}", service.healthy, service.workloads),
        ]
    })
}

/// Shows workloads.
pub async fn workloads(client: &Client, args: &ReadArgs) -> Result<(), CliError> {
    let workloads: Vec<WorkloadView> = client.get(&scope("/v1/workloads", args)).await?;
    let format = args.output.output;
    let mut columns = vec!["namespace", "name", "node", "address", "service account", "services", "health"];
    if format == Format::Wide {
        columns.extend(["labels", "reason"]);
    }
    output::print_list(format, &workloads, &columns, |workload| {
        let mut row = vec![
            workload.namespace.clone(),
            workload.name.clone(),
            workload.node.clone(),
            workload.address.clone(),
            workload.service_account.clone(),
            workload.services.join(","),
            workload.health.clone(),
        ];
        if format == Format::Wide {
            let labels: Vec<_> =
                workload.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            row.extend([labels.join(","), workload.reason.clone()]);
        }
        row
    })
}

/// Shows how workloads fare.
pub async fn health(client: &Client, args: &ReadArgs) -> Result<(), CliError> {
    let workloads: Vec<HealthView> = client.get(&scope("/v1/health", args)).await?;
    let columns = ["namespace", "workload", "check", "health", "since", "reason", "ejected by"];
    output::print_list(args.output.output, &workloads, &columns, |workload| {
        vec![
            workload.namespace.clone(),
            workload.workload.clone(),
            workload.check.clone(),
            workload.health.clone(),
            workload.since.clone(),
            workload.reason.clone(),
            workload.ejected_by.join(","),
        ]
    })
}

/// Shows what a proxy runs.
pub async fn proxy(client: &Client, command: &ProxyCommand) -> Result<(), CliError> {
    let ProxyCommand::Config(args) = command;
    let mut path = format!("/v1/proxies/{}", encoded(&args.node));
    if let Some(part) = args.part {
        path.push_str(&format!("?part={}", part.name()));
    }
    let config: Value = client.get(&path).await?;
    match args.output.output {
        Format::Json => output::print_value(Format::Json, &config),
        // The parts differ too much for columns; YAML is the readable form of all of them.
        Format::Table | Format::Wide | Format::Yaml => output::print_value(Format::Yaml, &config),
    }
}

/// Checks the installation.
pub async fn check(client: &Client, format: Format) -> Result<(), CliError> {
    let checks: Vec<CheckView> = client.get("/v1/check").await?;
    match format {
        Format::Json | Format::Yaml => output::print_value(format, &checks)?,
        Format::Table | Format::Wide => {
            let mut text = String::new();
            for check in &checks {
                let mark = if check.ok { "ok  " } else { "FAIL" };
                text.push_str(&format!("{mark} {}: {}\n", check.check, check.detail));
                if !check.hint.is_empty() {
                    text.push_str(&format!("     hint: {}\n", check.hint));
                }
            }
            output::print(&text)?;
        }
    }
    let failed = checks.iter().filter(|check| !check.ok).count();
    if failed > 0 {
        return Err(CliError::Failed(format!("{failed} of {} checks failed", checks.len())));
    }
    Ok(())
}
