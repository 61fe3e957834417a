use std::time::Duration;

use mesh_core::resource::rate_limit::{RateLimit, TargetKind};
use mesh_core::routing::limit::Tell;

use super::*;

fn document(spec: &str) -> String {
    format!("apiVersion: mesh.io/v1alpha1\nkind: RateLimit\nmetadata: {{name: a}}\nspec: {spec}\n")
}

#[track_caller]
fn limit(spec: &str) -> RateLimit {
    let Spec::RateLimit(read) = specs(&document(spec)).remove(0) else { panic!() };
    read
}

#[test]
fn every_field() {
    let read = limit(
        "{targetRefs: [{kind: Service, name: reviews, sectionName: http}, \
         {group: networking.istio.io, kind: VirtualService, name: reviews}], scope: mesh, status: 503, \
         responseHeaders: All, dryRun: true, limits: [{name: per-user, requests: 100, interval: 1m, burst: 20, \
         key: [{sourcePrincipal: true}, {header: X-User}, {sourceNamespace: true}, {sourceAddress: true}, {method: true}, {path: true}], \
         match: {methods: [GET, 'P*'], paths: [/api/*], headers: {x-tier: gold}}}, {name: all, requests: 7, interval: 500ms}]}",
    );
    let kinds: Vec<_> = read.targets.iter().map(|target| (target.kind, target.section.as_deref())).collect();
    assert_eq!(kinds, [(TargetKind::Service, Some("http")), (TargetKind::VirtualService, None)]);
    let terms = &read.terms;
    assert_eq!((terms.shared, terms.status, terms.tell, terms.dry_run), (true, 503, Tell::All, true));
    let [user, all] = terms.limits.as_slice() else { panic!() };
    let rate = |limit: &mesh_core::routing::limit::Limit| {
        (limit.rate.requests(), limit.rate.interval(), limit.rate.burst())
    };
    assert_eq!(rate(user), (100, Duration::from_secs(60), 20));
    assert_eq!(rate(all), (7, Duration::from_millis(500), 7));
    let key: Vec<String> = user.key.iter().map(ToString::to_string).collect();
    let expected = ["sourcePrincipal", "header x-user", "sourceNamespace", "sourceAddress", "method", "path"];
    assert_eq!(key, expected);
    assert_eq!((user.counts.methods.len(), user.counts.paths.len(), user.counts.headers.len()), (2, 1, 1));
}

#[test]
fn what_is_not_written_has_a_default() {
    let read = limit("{selector: {matchLabels: {app: a}}, limits: [{name: a, requests: 1, interval: 1s}]}");
    let terms = &read.terms;
    assert_eq!((terms.shared, terms.status, terms.tell, terms.dry_run), (false, 429, Tell::Refused, false));
    assert!(read.targets.is_empty() && read.selector.is_some());
}

#[test]
fn what_is_refused() {
    let one = "{name: a, requests: 1, interval: 1s}";
    for (spec, field, words) in [
        ("{}".to_owned(), "spec", "limits is missing"),
        ("{limits: []}".to_owned(), "spec.limits", "at least one limit"),
        (format!("{{limits: [{one}], scop: mesh}}"), "spec.scop", "scope"),
        (format!("{{limits: [{one}], scope: global}}"), "spec.scope", "local, mesh"),
        (format!("{{limits: [{one}], status: 200}}"), "spec.status", "400"),
        (format!("{{limits: [{one}, {one}]}}"), "spec.limits[1].name", "taken"),
        (
            format!("{{limits: [{one}], targetRef: {{kind: Gateway, name: a}}}}"),
            "spec.targetRef.kind",
            "Service",
        ),
        (
            format!("{{limits: [{one}], targetRef: {{kind: Service, name: a, namespace: b}}}}"),
            "spec.targetRef.namespace",
            "another namespace",
        ),
        (
            format!(
                "{{limits: [{one}], selector: {{matchLabels: {{a: b}}}}, targetRef: {{kind: Service, name: a}}}}"
            ),
            "spec",
            "only one of",
        ),
        ("{limits: [{name: a, requests: 0, interval: 1s}]}".to_owned(), "spec.limits[0].requests", "1"),
        ("{limits: [{name: a, requests: 1, interval: 48h}]}".to_owned(), "spec.limits[0].interval", "24h"),
        ("{limits: [{name: a, requests: 1}]}".to_owned(), "spec.limits[0]", "interval is missing"),
        (
            "{limits: [{name: a, requests: 2000000, interval: 1s}]}".to_owned(),
            "spec.limits[0]",
            "microsecond",
        ),
        (
            "{limits: [{name: a, requests: 1, interval: 1s, key: [{}]}]}".to_owned(),
            "spec.limits[0].key[0]",
            "exactly one of",
        ),
        (
            "{limits: [{name: a, requests: 1, interval: 1s, key: [{header: 'a b'}]}]}".to_owned(),
            "spec.limits[0].key[0].header",
            "no name of a header field",
        ),
        (
            "{limits: [{name: a, requests: 1, interval: 1s, key: [{path: false}]}]}".to_owned(),
            "spec.limits[0].key[0].path",
            "can only be true",
        ),
    ] {
        refused(&document(&spec), field, words);
    }
    refused(&document("{}").replace("v1alpha1", "v1"), "apiVersion", "v1alpha1");
    let filter =
        "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {name: a}\nspec: {}\n";
    refused(filter, "kind", "RateLimit of mesh.io/v1alpha1");
}
