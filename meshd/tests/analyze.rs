//! What is wrong, found through the binary: analyze and validate, of files and of the live mesh, and the limits.
#![allow(clippy::unwrap_used, reason = "a failed step of a test is a failed test")]

mod process;

use std::path::Path;

use process::{Server, check, run};
use serde_json::Value;

const GOOD: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec: {selector: {app: reviews}, ports: [{name: http, port: 9080}]}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: reviews-1, labels: {app: reviews, version: v1}}
spec: {address: 10.0.0.1, serviceAccount: reviews}
";

const BAD: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - route: [{destination: {host: reviewz}}]
";

fn offline(arguments: &[&str], input: &str) -> std::process::Output {
    run(Path::new("/nonexistent"), arguments, input)
}

fn codes(output: &std::process::Output) -> Vec<(String, String, u64)> {
    let list: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let text = |found: &Value, field: &str| found[field].as_str().unwrap().to_owned();
    list.as_array()
        .unwrap()
        .iter()
        .map(|found| (text(found, "code"), text(found, "resource"), found["line"].as_u64().unwrap()))
        .collect()
}

#[test]
fn files_are_analysed_without_a_server() {
    check(&offline(&["analyze", "-f", "-"], GOOD), 0, "No issues found.\n", "");
    let both = format!("{GOOD}---{BAD}");
    let at = both.lines().position(|line| line.contains("reviewz")).unwrap() + 1;
    let expected = format!("Error [IST0101] (VirtualService default/reviews stdin:{at}) ");
    check(&offline(&["analyze", "-f", "-"], &both), 1, &expected, "1 of 1 findings is an error");
    let output = offline(&["analyze", "-o", "json", "-f", "-"], &both);
    let expected = ("IST0101".to_owned(), "virtualservice/default/reviews".to_owned(), at as u64);
    assert_eq!(codes(&output), [expected]);
    // Of another namespace nothing is said.
    let prod = both.replace("metadata: {name", "metadata: {namespace: prod, name");
    check(&offline(&["analyze", "-n", "default", "-f", "-"], &prod), 0, "No issues", "");
    check(&offline(&["analyze", "-n", "prod", "-f", "-"], &prod), 1, "prod/reviews", "");
    check(&offline(&["analyze", "-n", "prod", "-f", "-"], &both), 1, "prod/reviews", "");
    check(&offline(&["analyze", "-A", "-f", "-"], &prod), 1, "prod/reviews", "");
    // Faults of one document do not hide those of others, and come in the order of lines.
    let misspelt = GOOD.replace("selector: {app: reviews}", "selectr: {app: reviews}");
    let output = offline(&["analyze", "-o", "json", "-f", "-"], &format!("{misspelt}---{BAD}"));
    let found = codes(&output);
    assert_eq!(found[0].0, "IST0106");
    assert!(found.iter().any(|(code, ..)| code == "IST0101"), "{found:?}");
    assert!(found.is_sorted_by_key(|(_, _, line)| *line), "{found:?}");
    // Kinds of Kubernetes tell of pods, or nothing.
    let deployment = "---\n{kind: Deployment, apiVersion: apps/v1, metadata: {name: d}}\n";
    let with_deployment = format!("{GOOD}{deployment}");
    check(&offline(&["analyze", "-f", "-"], &with_deployment), 0, "No issues found.\n", "");
    check(
        &offline(&["validate", "-f", "-"], &with_deployment),
        0,
        "",
        "apps/v1 Deployment means nothing here: skipped",
    );
    check(&offline(&["analyze", "--strict", "-f", "-"], &with_deployment), 1, "MSH0013", "");
    check(&offline(&["analyze", "-f", "/nonexistent.yaml"], ""), 1, "", "cannot be read");
}

#[test]
fn the_live_mesh_is_analysed() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"));
    check(&server.run(&["analyze"], ""), 0, "No issues found.\n", "");
    check(
        &server.run(&["apply", "-f", "-"], &format!("{GOOD}---{BAD}").replace("reviewz", "reviews")),
        0,
        "version 1",
        "",
    );
    check(&server.run(&["analyze"], ""), 0, "No issues found.\n", "");
    check(&server.run(&["delete", "svc", "reviews"], ""), 0, "version 2", "");
    let expected = "Error [IST0101] (VirtualService default/reviews) ";
    check(&server.run(&["analyze"], ""), 1, expected, "error");
    check(&server.run(&["analyze", "-n", "other"], ""), 0, "No issues", "");
    check(&server.run(&["analyze", "-n", "default", "-o", "json"], ""), 1, "\"IST0101\"", "");
    check(&server.run(&["describe", "vs", "reviews"], ""), 0, "IST0101", "");
    assert_eq!(server.end("-TERM"), Some(0));
    check(&run(&dir.path().join("data"), &["analyze"], ""), 3, "", "cannot reach meshd");
}

#[test]
fn a_mesh_config_is_read_in_all_its_forms() {
    let dir = tempfile::tempdir().unwrap();
    let settings = "rootNamespace: root\noutboundTrafficPolicy: {mode: REGISTRY_ONLY}\n";
    let indented: String = settings.lines().map(|line| format!("    {line}\n")).collect();
    let bare = settings.to_owned();
    let map = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |-\n{indented}"
    );
    for (name, text) in [("bare.yaml", bare), ("map.yaml", map)] {
        let file = dir.path().join(name);
        std::fs::write(&file, &text).unwrap();
        let file = file.to_str().unwrap();
        for verb in ["validate", "analyze"] {
            check(&offline(&[verb, "--mesh-config", file, "-f", "-"], GOOD), 0, "", "");
        }
        std::fs::write(file, text.replace("rootNamespace", "rootNamespce")).unwrap();
        for verb in ["validate", "analyze"] {
            let output = offline(&[verb, "--mesh-config", file, "-f", "-"], GOOD);
            let said = format!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
            assert_eq!(output.status.code(), Some(1), "{verb} {name}: {said}");
            assert!(said.contains("did you mean rootNamespace?"), "{said}");
        }
    }
    let missing = dir.path().join("missing.yaml");
    let arguments = ["analyze", "--mesh-config", missing.to_str().unwrap(), "-f", "-"];
    check(&offline(&arguments, GOOD), 1, "", "--mesh-config");
    let stranger = dir.path().join("stranger.yaml");
    std::fs::write(&stranger, GOOD).unwrap();
    let arguments = ["validate", "--mesh-config", stranger.to_str().unwrap(), "-f", "-"];
    check(&offline(&arguments, GOOD), 1, "", "takes a MeshConfig only");
}

#[test]
fn what_is_too_much_is_refused_in_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let huge = dir.path().join("huge.yaml");
    std::fs::File::create(&huge).unwrap().set_len((64 << 20) + 1).unwrap();
    check(&offline(&["validate", "-f", huge.to_str().unwrap()], ""), 1, "", "a file has at most 64 MiB");
    let deep = format!("a: {}1{}\n", "[".repeat(70), "]".repeat(70));
    check(&offline(&["validate", "-f", "-"], &deep), 1, "", "more than 64 levels");
}
