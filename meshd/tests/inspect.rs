//! Resources looked at: get, describe, diff, through the binary.
#![allow(clippy::unwrap_used, reason = "a failed step of a test is a failed test")]

mod process;

use process::{Server, check};
use serde_json::Value;

const MESH: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews, labels: {team: a}}
spec: {selector: {app: reviews}, ports: [{name: http, port: 9080}]}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: reviews-1, labels: {app: reviews, version: v1}}
spec: {address: 10.0.0.1, serviceAccount: reviews}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec: {host: reviews, subsets: [{name: v1, labels: {version: v1}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, creationTimestamp: 2026-01-02T03:04:05Z}
spec:
  hosts: [reviews]
  http:
  - name: only
    match: [{uri: {prefix: \"/a: b\"}}]
    route: [{destination: {host: reviews, subset: v1}, weight: 100}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers}
spec:
  selector: {matchLabels: {app: reviews}}
  rules: [{to: [{operation: {methods: [GET], paths: [\"*\"]}}]}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: lonely}
spec: {selector: {matchLabels: {app: nobody}}}
";

const APPLY: [&str; 3] = ["apply", "-f", "-"];

fn mesh(dir: &tempfile::TempDir) -> Server {
    let server = Server::start(&dir.path().join("data"));
    check(&server.run(&APPLY, MESH), 0, "version 1\n", "");
    server
}

fn out(server: &Server, arguments: &[&str], input: &str) -> String {
    let output = server.run(arguments, input);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_get_prints_can_be_applied() {
    let dir = tempfile::tempdir().unwrap();
    let server = mesh(&dir);
    for kind in ["svc", "we", "dr", "vs", "ap", "pa"] {
        for format in ["yaml", "json"] {
            for arguments in [&["get", kind, "-o", format][..], &["get", kind, "-A", "-o", format]] {
                let text = out(&server, arguments, "");
                let applied = out(&server, &APPLY, &text);
                assert!(applied.ends_with(" unchanged\nversion 1\n"), "{arguments:?}: {applied}");
            }
        }
        let list: Value = serde_json::from_str(&out(&server, &["get", kind, "-o", "json"], "")).unwrap();
        let name = list[0]["metadata"]["name"].as_str().unwrap();
        let text = out(&server, &["get", kind, name, "-o", "yaml"], "");
        assert!(out(&server, &APPLY, &text).ends_with("unchanged\nversion 1\n"), "{text}");
        check(&server.run(&["get", kind, "-n", "other", "-o", "json"], ""), 0, "[]", "");
        check(&server.run(&["get", kind, "-o", "wide"], ""), 0, "VERSION", "");
    }
    let words = [
        "vs",
        "virtualservice",
        "VirtualServices",
        "dr",
        "se",
        "we",
        "wg",
        "gw",
        "pa",
        "ap",
        "ra",
        "svc",
        "sidecar",
        "telemetry",
        "proxyconfig",
        "ns",
        "sa",
        "secret",
        "cm",
        "ep",
        "endpointslice",
        "meshconfig",
    ];
    for word in words {
        check(&server.run(&["get", word], ""), 0, "NAME", "");
    }
}

#[test]
fn diff_shows_what_apply_would_change() {
    let dir = tempfile::tempdir().unwrap();
    let server = mesh(&dir);
    let diff = ["diff", "-f", "-"];
    let same = out(&server, &diff, MESH);
    assert_eq!(same.lines().filter(|line| line.ends_with(" unchanged")).count(), 6, "{same}");
    assert_eq!(same.lines().count(), 6, "{same}");
    // Another order of keys is the same resource.
    let reordered = "{kind: Service, spec: {ports: [{port: 9080, name: http}], selector: {app: reviews}}, apiVersion: v1, \
                     metadata: {labels: {team: a}, name: reviews}}";
    assert_eq!(out(&server, &diff, reordered), "service/default/reviews unchanged\n");
    assert!(out(&server, &APPLY, reordered).ends_with("unchanged\nversion 1\n"));
    let changed = reordered.replace("team: a", "team: b").replace("9080", "9081");
    let expected = "service/default/reviews configured\n\
                    --- service/default/reviews (version 1)\n\
                    +++ service/default/reviews (stdin:1)\n\
                    @@ -3,12 +3,12 @@\n metadata:\n   name: reviews\n   labels:\n-    team: a\n+    team: b\n   namespace: default\n \
                    spec:\n   selector:\n     app: reviews\n   ports:\n     - name: http\n-      port: 9080\n+      port: 9081\n";
    let text = out(&server, &diff, &changed);
    assert!(text.starts_with("service/default/reviews configured\n--- "), "{text}");
    for line in expected.lines().filter(|line| line.starts_with(['-', '+'])) {
        assert!(text.contains(&format!("{line}\n")), "{line} is not in {text}");
    }
    assert_eq!(text.lines().filter(|line| line.starts_with(['-', '+'])).count(), 6, "{text}");
    let fresh = "{kind: ServiceAccount, apiVersion: v1, metadata: {name: new}}\n";
    check(&server.run(&diff, fresh), 0, "serviceaccount/default/new created\n--- (not there)\n", "");
    let json: Value =
        serde_json::from_str(&out(&server, &["diff", "-o", "json", "-f", "-"], &changed)).unwrap();
    assert_eq!((&json[0]["result"], &json[0]["line"]), (&"configured".into(), &1.into()));
    check(
        &server.run(&["diff", "--exit-code", "-f", "-"], &changed),
        1,
        "-      port: 9080",
        "1 of 1 resources differ",
    );
    check(&server.run(&["diff", "--exit-code", "-f", "-"], reordered), 0, "unchanged", "");
    // What apply passes over is passed over.
    let secret = "---\n{kind: Pod, apiVersion: v1, metadata: {name: s}, spec: {containers: []}}\n";
    let with_secret = format!("{MESH}{secret}");
    assert_eq!(out(&server, &diff, &with_secret), same);
    check(
        &server.run(&["delete", "--dry-run", "-f", "-"], &with_secret),
        0,
        "lonely deleted (dry run)\nversion 1",
        "",
    );
    check(&server.run(&diff, "kind: Servce"), 1, "", "stdin:1");
    // What apply would say of it is said.
    let nowhere = MESH.replace("host: reviews, subset: v1", "host: reviewz");
    check(&server.run(&diff, &nowhere), 0, "virtualservice/default/reviews configured", "IST0101");
    check(&server.run(&["history", "-o", "json"], ""), 0, "\"version\": 1", "");
}

#[test]
fn describe_tells_who_refers_to_whom() {
    let dir = tempfile::tempdir().unwrap();
    let server = mesh(&dir);
    let has = |arguments: &[&str], lines: &[&str]| {
        let text = out(&server, &[&["describe"], arguments].concat(), "");
        for line in lines {
            assert!(text.lines().any(|found| found.trim() == *line), "{line:?} is not in\n{text}");
        }
    };
    has(
        &["vs", "reviews"],
        &[
            "http[0]: \"only\"; when uri prefix /a: b; to reviews subset v1 (weight 100)",
            "is for service/default/reviews (by the host reviews)  [spec.hosts[0]]",
            "routes to service/default/reviews (host reviews, subset v1, weight 100)  [spec.http[0].route[0].destination.host]",
            "uses a subset of destinationrule/default/reviews (subset v1)  [spec.http[0].route[0].destination.subset]",
        ],
    );
    has(
        &["svc/reviews"],
        &[
            "is served by workloadentry/default/reviews-1 (healthy, port 9080 at 9080)  [spec.selector]",
            "virtualservice/default/reviews is for it (by the host reviews)  [spec.hosts[0]]",
            "destinationrule/default/reviews is for it (by the host reviews)  [spec.host]",
            "authorizationpolicy/default/readers applies to it (by way of workloadentry/default/reviews-1)  [spec.selector]",
        ],
    );
    has(
        &["we", "reviews-1"],
        &[
            "runs as nothing that there is: serviceaccount/default/reviews  [spec.serviceAccount]",
            "service/default/reviews is served by it (healthy, port 9080 at 9080)  [spec.selector]",
            "authorizationpolicy/default/readers applies to it  [spec.selector]",
        ],
    );
    has(&["ap", "readers"], &["applies to workloadentry/default/reviews-1  [spec.selector]"]);
    has(
        &["pa", "lonely"],
        &["applies to nothing that there is: workloads with app=nobody  [spec.selector]", "Findings"],
    );
    let json: Value =
        serde_json::from_str(&out(&server, &["describe", "dr", "reviews", "-o", "json"], "")).unwrap();
    assert_eq!(json["resource"], "destinationrule/default/reviews");
    assert_eq!(json["referred_by"][0]["resource"], "virtualservice/default/reviews");
    check(&server.run(&["describe", "vs", "nobody"], ""), 1, "", "virtualservice/default/nobody not found");
    check(&server.run(&["describe", "vs"], ""), 2, "", "KIND NAME");
    check(&server.run(&["describe", "virtualsrvice", "x"], ""), 2, "", "did you mean virtualservice?");
}
