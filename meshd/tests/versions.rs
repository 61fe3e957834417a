//! Versions: history and the way back, through the binary.
#![allow(clippy::unwrap_used, reason = "a failed step of a test is a failed test")]

mod process;

use process::{Server, check};
use serde_json::Value;

fn account(name: &str, label: &str) -> String {
    format!(
        "{{kind: ServiceAccount, apiVersion: v1, metadata: {{name: {name}, labels: {{l: '{label}'}}}}}}\n---\n"
    )
}

const APPLY: [&str; 3] = ["apply", "-f", "-"];

fn json(server: &Server, arguments: &[&str]) -> Value {
    let output = server.run(&[arguments, &["-o", "json"]].concat(), "");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn what_was_declared_is_declared_again() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data);
    check(&server.run(&["rollback", "1"], ""), 1, "", "there is no version 1: nothing was ever applied");
    check(&server.run(&APPLY, &(account("a", "1") + &account("b", "1"))), 0, "version 1", "");
    check(&server.run(&APPLY, &(account("a", "2") + &account("c", "1"))), 0, "version 2", "");
    check(&server.run(&["delete", "sa", "b"], ""), 0, "version 3", "");
    let dry = "serviceaccount/default/a configured (dry run)\nserviceaccount/default/b created (dry run)\n\
               serviceaccount/default/c deleted (dry run)\nversion 3 (dry run)\n";
    check(&server.run(&["rollback", "--dry-run", "1"], ""), 0, dry, "");
    // A restart forgets nothing.
    assert_eq!(server.end("-TERM"), Some(0));
    let server = Server::start(&data);
    let created = json(&server, &["get", "sa", "a"])["metadata"]["creationTimestamp"].clone();
    check(
        &server.run(&["rollback", "1", "--wait"], ""),
        0,
        "serviceaccount/default/c deleted\nversion 4\n",
        "",
    );
    let list = json(&server, &["get", "sa"]);
    let shown: Vec<String> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|one| format!("{}={}", one["metadata"]["name"], one["metadata"]["labels"]["l"]))
        .collect();
    assert_eq!(shown, [r#""a"="1""#, r#""b"="1""#]);
    assert_eq!(json(&server, &["get", "sa", "a"])["metadata"]["creationTimestamp"], created);
    // Nothing is different any more, so there is no new version.
    check(&server.run(&["rollback", "1"], ""), 0, "version 4\n", "");
    check(&server.run(&["rollback", "9"], ""), 1, "", "there is no version 9: kept are 1 to 4");
    let history = json(&server, &["history"]);
    let newest = history[0].as_object().unwrap();
    let names: Vec<&str> = newest.keys().map(String::as_str).collect();
    assert_eq!(names, ["version", "time", "author", "changes", "acknowledged", "connected"]);
    assert_eq!(newest["version"], 4);
    assert_eq!(newest["changes"].as_array().unwrap().len(), 3);
    assert_eq!(history.as_array().unwrap().len(), 4);
    // The way back can be gone back, too.
    check(&server.run(&["rollback", "3"], ""), 0, "version 5\n", "");
    check(&server.run(&["get", "sa", "b"], ""), 1, "", "serviceaccount/default/b not found");
}

#[test]
fn what_is_not_kept_cannot_be_gone_back_to() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(&dir.path().join("data"), &["--keep-versions", "1"]);
    for label in ["1", "2", "3"] {
        check(&server.run(&APPLY, &account("a", label)), 0, "", "");
    }
    let message = "the resources of version 1 are no longer kept: kept are 2 to 3";
    check(&server.run(&["rollback", "1"], ""), 1, "", message);
    check(&server.run(&["rollback", "2"], ""), 0, "serviceaccount/default/a configured\nversion 4", "");
}

#[test]
fn config_is_not_rolled_back() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.yaml");
    std::fs::write(&config, account("owned", "1")).unwrap();
    let data = dir.path().join("data");
    let start = || Server::start_with(&data, &["--config", config.to_str().unwrap()]);
    let server = start();
    check(&server.run(&APPLY, &account("a", "1")), 0, "version 2", "");
    // What config owns and has not changed does not stand in the way.
    check(&server.run(&["rollback", "1"], ""), 0, "serviceaccount/default/a deleted\nversion 3", "");
    assert_eq!(server.end("-TERM"), Some(0));
    std::fs::write(&config, account("owned", "2")).unwrap();
    let server = start();
    let message = format!(
        "serviceaccount/default/owned: differs from version 2 and belongs to --config {}",
        config.display()
    );
    check(&server.run(&["rollback", "2"], ""), 1, "", &message);
    // All or nothing.
    check(&server.run(&["get", "sa", "a"], ""), 1, "", "not found");
}

#[test]
fn a_way_back_is_judged_like_any_batch() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"));
    let service = "{kind: Service, apiVersion: v1, metadata: {name: s}, spec: {ports: [{port: 80}]}}\n";
    let route = "{kind: VirtualService, apiVersion: networking.istio.io/v1, metadata: {name: r}, spec: {hosts: [x.example], \
                 http: [{route: [{destination: {host: s}}]}]}}\n";
    check(&server.run(&APPLY, service), 0, "version 1", "");
    check(&server.run(&APPLY, route), 0, "version 2", "");
    check(&server.run(&["delete", "vs/r", "svc/s"], ""), 0, "version 3", "");
    check(
        &server.run(&["rollback", "2"], ""),
        0,
        "service/default/s created\nvirtualservice/default/r created\nversion 4",
        "",
    );
}
