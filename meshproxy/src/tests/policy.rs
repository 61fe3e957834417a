//! Who may call: judged at the called host, by the certificate alone.

use mesh_core::matching::text::TextMatch;
use mesh_core::policy::authorization::{
    AuthorizationPolicy, AuthorizationRule, PolicyAction, Source, Values,
};
use mesh_core::vocab::protocol::Protocol;

use super::harness::{Mesh, Plan, echo};

pub(super) fn allow(principal: &str) -> AuthorizationPolicy {
    let principals = Values { any: vec![TextMatch::policy(principal)], none: vec![] };
    AuthorizationPolicy {
        namespace: "default".into(),
        name: "only".into(),
        action: PolicyAction::Allow,
        provider: None,
        dry_run: false,
        rules: vec![AuthorizationRule {
            from: vec![Source { principals, ..Source::default() }],
            ..AuthorizationRule::default()
        }],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_no_rule_allows_gets_403() {
    let mut mesh = Mesh::start(Plan {
        policies: vec![allow("cluster.local/ns/default/sa/a")],
        ..Plan::new(&[echo("127.0.0.2").await])
    })
    .await;
    assert_eq!(mesh.get("http://reviews:9080/").await.status, 200);
    mesh.change(2, |plan| plan.policies = vec![allow("cluster.local/ns/default/sa/z")]).await;
    let answer = mesh.get("http://reviews:9080/").await;
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (403, "RBAC: access denied"));
    assert_eq!(mesh.b.metric("istio_requests_total", &["response_code=\"403\"", "reporter=\"dest"]), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_is_refused_as_trailers_only() {
    let mesh = Mesh::start(Plan {
        protocol: Protocol::Grpc,
        policies: vec![allow("nobody")],
        ..Plan::new(&[echo("127.0.0.2").await])
    })
    .await;
    let request = http::Request::post("http://reviews:9080/s/m")
        .header("content-type", "application/grpc")
        .body(Default::default())
        .unwrap();
    let answer = mesh.send(request).await;
    assert_eq!((answer.status.as_u16(), answer.header("grpc-status")), (200, "7"));
    assert_eq!(answer.header("grpc-message"), "RBAC: access denied");
}
