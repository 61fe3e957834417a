//! Resources, a question and the expected answer, through the real dialect, compiler, tables and decisions.

#![allow(clippy::unwrap_used, reason = "a test that cannot read its cases must fail")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mesh_core::snapshot::Version;
use mesh_core::state::Settings;
use mesh_core::vocab::identity::TrustDomain;
use meshd::admin::explain;
use meshd::admin::view::ExplainRequest;
use meshd::dialect::{Input, Options, parse};
use serde_json::Value;

fn scenarios() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let folders = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<_> = folders.filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

fn settings() -> Settings {
    Settings {
        trust_domain: TrustDomain::new("cluster.local").unwrap(),
        root_namespace: "istio-system".into(),
    }
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|item| item.as_str().unwrap().to_owned()).collect()
}

fn request(ask: &Value) -> ExplainRequest {
    let text = |key: &str| ask[key].as_str().unwrap_or_default().to_owned();
    ExplainRequest {
        captured: ask["captured"].as_bool().unwrap_or(false),
        from: text("from"),
        gateway: text("gateway"),
        to: text("to"),
        method: text("method"),
        headers: strings(&ask["headers"]),
        labels: strings(&ask["labels"]),
    }
}

/// Where the answer differs from what is expected: paths with both values.
fn differences(path: &str, expected: &Value, found: &Value, into: &mut Vec<String>) {
    match (expected, found) {
        (Value::Object(wanted), Value::Object(_)) => {
            for (key, value) in wanted {
                differences(&format!("{path}.{key}"), value, &found[key], into);
            }
        }
        (Value::Array(wanted), Value::Array(items)) if wanted.len() == items.len() => {
            for (index, (value, item)) in wanted.iter().zip(items).enumerate() {
                differences(&format!("{path}[{index}]"), value, item, into);
            }
        }
        (Value::Number(wanted), Value::Number(number)) if wanted.as_f64() == number.as_f64() => {}
        _ if expected == found => {}
        _ => into.push(format!("{path}: expected {expected}, found {found}")),
    }
}

#[test]
fn every_case_is_answered_as_expected() {
    let mut failures = Vec::new();
    let mut asked = 0;
    for folder in scenarios() {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let mesh = std::fs::read(folder.join("mesh.yaml")).unwrap();
        let parsed = parse(&[Input { file: "mesh.yaml", bytes: &mesh }], &Options::default());
        assert!(!parsed.is_refused(), "{name}: {:?}", parsed.diagnostics);
        let resources = parsed.documents.into_iter().map(|document| Arc::new(document.resource)).collect();
        let (state, compiled) = explain::offline(settings(), resources);
        let cases: Value =
            serde_json::from_slice(&std::fs::read(folder.join("cases.json")).unwrap()).unwrap();
        for case in cases.as_array().unwrap() {
            asked += 1;
            let answer = explain::answer(&state, &compiled, Version::default(), &request(&case["ask"]));
            let mut found = Vec::new();
            match &answer {
                Ok(answer) => differences("", &case["expect"], answer, &mut found),
                Err(error) => found.push(error.clone()),
            }
            failures.extend(found.into_iter().map(|what| format!("{name}, {}: {what}", case["name"])));
        }
    }
    assert!(failures.is_empty(), "{} of {asked} cases:\n{}", failures.len(), failures.join("\n"));
    assert!(asked > 20, "only {asked} cases were found");
}
