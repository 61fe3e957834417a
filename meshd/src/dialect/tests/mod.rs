//! What is refused and with which words; what is read and as what.

use super::*;
use mesh_core::resource::Spec;

mod annotations;
mod authorization_policy;
mod destination_rule;
mod fuzz;
mod gateway;
mod http_conduct;
mod http_rule;
mod kubernetes;
mod mesh_config;
mod peer_authentication;
mod rate_limit;
mod request_authentication;
mod samples;
mod service_entry;
mod sidecar;
mod telemetry;
mod verdict;
mod virtual_service;
mod workload;
mod yaml;

fn read(text: &str) -> Parsed {
    parse(&[Input { file: "x.yaml", bytes: text.as_bytes() }], &Options::to_apply())
}

/// The specs of documents without a fault.
#[track_caller]
fn specs(text: &str) -> Vec<Spec> {
    let parsed = read(text);
    assert!(parsed.diagnostics.is_empty(), "{}", show(&parsed));
    parsed.documents.into_iter().map(|document| document.resource.spec).collect()
}

fn show(parsed: &Parsed) -> String {
    parsed.diagnostics.iter().map(|d| format!("{d} (column {})\n", d.column)).collect()
}

/// Checks that exactly one fault is found: at this field, with these words.
#[track_caller]
fn refused(text: &str, field: &str, words: &str) {
    let parsed = read(text);
    let found: Vec<_> = parsed.diagnostics.iter().filter(|d| d.severity == Severity::Error).collect();
    assert_eq!(found.len(), 1, "{}\n{text}", show(&parsed));
    assert_eq!(found[0].field, field, "{}", found[0]);
    assert!(found[0].message.contains(words), "{}\nwanted: {words}", found[0]);
    assert!(parsed.is_refused());
}

/// Reads what is not to be carried out, but analysed.
fn offline(text: &str) -> Parsed {
    parse(&[Input { file: "x.yaml", bytes: text.as_bytes() }], &Options::default())
}

/// The specs of documents without a fault and without a warning that are not to be carried out.
#[track_caller]
fn offline_specs(text: &str) -> Vec<Spec> {
    let parsed = offline(text);
    assert!(parsed.diagnostics.is_empty(), "{}", show(&parsed));
    parsed.documents.into_iter().map(|document| document.resource.spec).collect()
}

/// Checks that a text is accepted, with a warning that has these words; without one if there are none.
#[track_caller]
fn accepted(text: &str, warning: &str) {
    let parsed = offline(text);
    assert!(!parsed.is_refused(), "{}\n{text}", show(&parsed));
    let warned =
        parsed.diagnostics.iter().any(|found| !warning.is_empty() && found.message.contains(warning));
    assert_eq!(warned, !parsed.diagnostics.is_empty(), "{}\n{text}\nwanted: {warning}", show(&parsed));
}

/// Checks that exactly one fault is found in what is not to be carried out: at this field, with these words.
#[track_caller]
fn faulty(text: &str, field: &str, words: &str) {
    let parsed = offline(text);
    let found: Vec<_> = parsed.diagnostics.iter().filter(|d| d.severity == Severity::Error).collect();
    assert_eq!(found.len(), 1, "{}\n{text}", show(&parsed));
    assert_eq!(found[0].field, field, "{}", found[0]);
    assert!(found[0].message.contains(words), "{}\nwanted: {words}", found[0]);
}

/// A resource of a kind with this spec, in flow or block notation.
fn resource(kind: &str, spec: &str) -> String {
    let group = if kind.ends_with("Authentication") || kind.ends_with("Policy") {
        "security.istio.io/v1"
    } else if kind == "Telemetry" {
        "telemetry.istio.io/v1"
    } else if kind == "Service" {
        "v1"
    } else {
        "networking.istio.io/v1"
    };
    format!("apiVersion: {group}\nkind: {kind}\nmetadata:\n  name: a\nspec: {spec}\n")
}
