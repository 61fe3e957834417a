//! The binary as scripts and people meet it: exit codes, what is printed where, and what survives a SIGKILL.
#![allow(clippy::unwrap_used, reason = "a failed step of a test is a failed test")]

mod process;

use std::path::Path;
use std::process::Stdio;

use process::{Server, check, run, serve};

fn service(port: usize) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: reviews}}\n\
         spec: {{selector: {{app: reviews}}, ports: [{{name: http, port: {port}}}]}}\n"
    )
}

#[test]
fn apply_get_delete() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"));
    let apply = ["apply", "-f", "-"];
    check(&server.run(&apply, &service(9080)), 0, "service/default/reviews created\nversion 1\n", "");
    check(&server.run(&apply, &service(9080)), 0, "service/default/reviews unchanged\nversion 1\n", "");
    check(
        &server.run(&["apply", "--dry-run", "-f", "-"], &service(1)),
        0,
        "configured (dry run)\nversion 1",
        "",
    );
    check(&server.run(&["apply", "--wait", "-f", "-"], &service(9081)), 0, "configured\nversion 2\n", "");
    check(&server.run(&["get", "svc", "reviews", "-o", "yaml"], ""), 0, "port: 9081", "");
    for words in [&["get", "svc/reviews"][..], &["get", "VirtualServices.networking.istio.io"]] {
        check(&server.run(words, ""), 0, "NAMESPACE", "");
    }
    check(&server.run(&["get", "virtualservice.security.istio.io"], ""), 2, "", "unknown kind");
    check(&server.run(&["delete", "svc/nothing"], ""), 1, "", "service/default/nothing: not found");
    check(&server.run(&["services", "-o", "json"], ""), 0, "\"127.64.0.2\"", "");
    check(
        &server.run(&["delete", "service", "reviews"], ""),
        0,
        "service/default/reviews deleted\nversion 3\n",
        "",
    );
    check(&server.run(&["delete", "service", "reviews"], ""), 1, "", "service/default/reviews: not found");
    check(&server.run(&["history", "-o", "json"], ""), 0, "service/default/reviews configured", "");
    check(&server.run(&["check"], ""), 0, "ok   store: version 3", "");
    assert_eq!(server.end("-TERM"), Some(0));
}

#[test]
fn a_refused_batch_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"));
    let refused = |text: &str, message: &str| {
        let whole = format!("{}---\n{text}", service(9080));
        check(&server.run(&["apply", "-f", "-"], &whole), 1, "", message);
        check(&server.run(&["get", "svc", "-o", "json"], ""), 0, "[]", "");
    };
    let rule = |destination: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: r}}\nspec:\n  \
             hosts: [reviews]\n  http:\n  - route:\n    - destination: {{{destination}}}\n"
        )
    };
    refused(&rule("hots: reviews"), "did you mean host?");
    refused(&rule("host: nowhere"), "nowhere");
    refused(&service(9080), "declared twice");
    refused("a: [", "stdin:");
    refused(
        "kind: EnvoyFilter\napiVersion: networking.istio.io/v1alpha3\nmetadata: {name: x}",
        "EnvoyFilter",
    );
}

#[test]
fn exit_codes_tell_who_is_at_fault() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = dir.path().join("nobody");
    check(&run(&nobody, &["status"], ""), 3, "", "cannot reach meshd");
    check(&run(&nobody, &["stauts"], ""), 2, "", "status");
    check(&run(&nobody, &["get", "pod"], ""), 2, "", "unknown kind");
    check(&run(&nobody, &["--version"], ""), 0, "meshd ", "");
    check(&run(&nobody, &["completions", "bash"], ""), 0, "meshd", "");
    check(&run(&nobody, &["validate", "-f", "-"], &service(80)), 0, "service/default/reviews valid", "");
    check(&run(&nobody, &["validate", "-o", "json", "-f", "-"], "kind: X"), 1, "\"severity\": \"error\"", "");
    let question =
        ["explain", "--from", "default/page", "--to", "http://reviews:9080/", "-o", "json", "-f", "-"];
    check(
        &run(&nobody, &question, &service(9080)),
        0,
        "\"service\": \"reviews.default.svc.cluster.local\"",
        "",
    );
}

#[test]
fn what_stands_in_the_way_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"));
    let fails = |data_dir: &Path, grpc: &str, message: &str| {
        let output = serve(data_dir, grpc).stdout(Stdio::null()).stderr(Stdio::piped()).output().unwrap();
        check(&output, 1, "", message);
    };
    fails(&server.data_dir, "127.0.0.1:0", "in use by another meshd");
    fails(&dir.path().join("other"), &server.grpc, "the port is in use");
    let broken = dir.path().join("broken");
    std::fs::create_dir(&broken).unwrap();
    std::fs::write(broken.join("mesh.redb"), "garbage").unwrap();
    fails(&broken, "127.0.0.1:0", "is damaged");
    fails(Path::new("/dev/null/data"), "127.0.0.1:0", "--data-dir /dev/null/data");
}

#[test]
fn what_was_acknowledged_survives_sigkill() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let mut acknowledged = 0;
    for round in 1..=5 {
        let server = Server::start(&data_dir);
        assert!(server.version >= acknowledged, "version {} after {acknowledged}", server.version);
        for step in 0..round {
            let output = server.run(&["apply", "-f", "-"], &service(1000 * round + step));
            let text = String::from_utf8(output.stdout).unwrap();
            acknowledged =
                text.lines().find_map(|line| line.strip_prefix("version ")).unwrap().parse().unwrap();
        }
        assert_eq!(server.end("-KILL"), None);
    }
    let server = Server::start(&data_dir);
    assert_eq!(server.version, acknowledged);
    check(&server.run(&["get", "svc", "-o", "json"], ""), 0, "5004", "");
}
