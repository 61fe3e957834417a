//! Spans are part of the one account of a request: of both proxies, beside their log lines and what `explain` says.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::agreement::{CASES, Case, RULES, Told, tell};
use super::protocols::python;
use super::resilience::comes;
use super::{Claim, Context, alone};
use crate::harness::lab::{Lab, host_address};
use crate::harness::process::Spec;

pub(super) fn claims() -> Vec<Claim> {
    vec![alone("agreement/spans", spans)]
}

const PATIENCE: Duration = Duration::from_secs(30);
/// The span of whoever calls the caller's proxy.
const PARENT: &str = "b7ad6b7169203331";
/// Kinds of spans.
const SERVER: u64 = 2;
const CLIENT: u64 = 3;

fn spans(context: &mut Context<'_>) -> anyhow::Result<()> {
    let Some(python) = python() else {
        context.report.skip("spans", "there are no Python helpers");
        return Ok(());
    };
    let lab = context.lab()?;
    let (at, file) = (host_address(2), lab.scratch.join("spans.json"));
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/otlp_receiver.py");
    let mut receiver = Spec::new("otlp-receiver", &python)
        .args([program.display().to_string(), file.display().to_string(), at.to_string()])
        .args(["4318", "4317"])
        .start(&lab.proxies[2].host, &lab.logs())?;
    receiver.wait_for_line("ready", PATIENCE)?;
    for proxy in &mut lab.proxies {
        proxy.within(["env".to_owned(), format!("OTEL_EXPORTER_OTLP_ENDPOINT=http://{at}:4318")]);
        proxy.running()?.terminate(PATIENCE)?;
        proxy.launch()?;
    }
    for proxy in &mut lab.proxies {
        proxy.wait_ready()?;
    }
    lab.wait_serving()?;
    lab.control.apply_text(RULES)?;
    let mut found = Vec::new();
    for (number, case) in CASES.iter().enumerate() {
        let differences = differences(lab, &file, case, number)?;
        let figure = if differences.is_empty() {
            format!("1 span and {}", case.attempts)
        } else {
            differences.join("; ")
        };
        found.push((case.what, differences.is_empty(), figure));
    }
    receiver.kill()?;
    for (what, holds, figure) in found {
        context.report.claim(format!("{what}: spans, log lines and explain agree"), holds, figure);
    }
    Ok(())
}

/// Makes the request within a trace and lists what does not agree.
fn differences(lab: &Lab, file: &PathBuf, case: &Case, number: usize) -> anyhow::Result<Vec<String>> {
    let trace = format!("0af7651916cd43dd8448eb211c80{number:04x}");
    let id = format!("spans-{number}");
    let parent = format!("00-{trace}-{PARENT}-01");
    let told = tell(lab, case, &[("x-request-id", &id), ("traceparent", &parent)])?;
    let of = |kind: u64| -> Vec<Value> {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let rows = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        rows.filter(|row| row["trace"] == *trace && row["kind"] == kind).collect()
    };
    comes(|| Ok(of(CLIENT).len() == 1 && of(SERVER).len() as u64 == case.attempts))?;
    let (clients, servers) = (of(CLIENT), of(SERVER));
    let mut differences = Vec::new();
    if clients.len() != 1 || servers.len() as u64 != case.attempts {
        differences.push(format!("{} client's and {} server's spans", clients.len(), servers.len()));
    }
    for client in &clients {
        compare(client, &told.lines[0], &told, &id, true, &mut differences);
        if client["parent"] != PARENT {
            differences.push(format!("parent {}", client["parent"]));
        }
        for server in servers.iter().filter(|server| server["parent"] != client["span"]) {
            differences.push(format!("parent of the server's span {}", server["parent"]));
        }
    }
    for server in &servers {
        compare(server, &told.lines[1], &told, &id, false, &mut differences);
    }
    Ok(differences)
}

fn compare(span: &Value, lines: &[Value], told: &Told, id: &str, outbound: bool, out: &mut Vec<String>) {
    let Some(line) = lines.first() else { return };
    let said = &span["attributes"];
    let explained = &told.explained;
    // A span has no status where there was no answer.
    let status = Some(&line["response_code"]).filter(|status| **status != 0).unwrap_or(&Value::Null);
    let mut pairs = vec![
        ("status", &said["http.response.status_code"], status),
        ("version", &said["mesh.snapshot_version"], &line["snapshot_version"]),
        ("version foreseen", &said["mesh.snapshot_version"], &explained["version"]),
        ("method", &said["http.request.method"], &line["method"]),
        ("flags", &said["response_flags"], &line["response_flags"]),
    ];
    if !line["upstream_cluster"].is_null() {
        pairs.push(("cluster", &said["upstream_cluster"], &line["upstream_cluster"]));
    }
    if outbound && !explained["route"]["resource"].is_null() {
        pairs.push(("rule", &said["mesh.rule"], &explained["route"]["resource"]));
        pairs.push(("index of the rule", &said["mesh.rule.index"], &explained["route"]["rule"]));
    }
    out.extend(
        pairs
            .into_iter()
            .filter(|(_, span, other)| span != other)
            .map(|(what, span, other)| format!("{what}: {span} and {other}")),
    );
    if said["guid:x-request-id"] != id {
        out.push(format!("id {}", said["guid:x-request-id"]));
    }
}
