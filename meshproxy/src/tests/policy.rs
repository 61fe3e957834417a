//! Who may call: judged at the called host, by the certificate alone.

use mesh_core::matching::text::TextMatch;
use std::time::Duration;

use mesh_core::policy::authorization::{
    AuthorizationPolicy, AuthorizationRule, Condition, PolicyAction, Source, Values,
};
use mesh_core::policy::mtls::ClientTls;
use mesh_core::vocab::protocol::Protocol;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

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

/// A policy about callers that ask for such a server name.
fn about_name(action: PolicyAction, name: &str) -> AuthorizationPolicy {
    let names = Values { any: vec![TextMatch::policy(name)], none: vec![] };
    let rule = AuthorizationRule { when: vec![Condition::Sni(names)], ..AuthorizationRule::default() };
    AuthorizationPolicy { action, rules: vec![rule], ..allow("*") }
}

const NAME: &str = "outbound_.9080_._.reviews.default.svc.cluster.local";

#[tokio::test(flavor = "multi_thread")]
async fn the_server_name_is_what_istio_s_proxy_would_ask_for() {
    let mut mesh = Mesh::start(Plan::new(&[echo("127.0.0.2").await])).await;
    let mut version = 1;
    for (policy, status) in [
        (about_name(PolicyAction::Allow, NAME), 200),
        (about_name(PolicyAction::Allow, "outbound_.80_*"), 403),
        (about_name(PolicyAction::Deny, "*.default.svc.cluster.local"), 403),
        (about_name(PolicyAction::Deny, "*.other.svc.cluster.local"), 200),
    ] {
        version += 1;
        let shown = policy.rules[0].to_string();
        mesh.change(version, |plan| plan.policies = vec![policy]).await;
        // What the application says of it counts for nothing.
        let forged = http::Request::get("http://reviews:9080/")
            .header("x-mesh-hop", "127.0.0.2:80 http/1.1 1 ;sni=outbound_.80_._.x")
            .body(Default::default())
            .unwrap();
        assert_eq!(mesh.get("http://reviews:9080/").await.status, status, "{shown}");
        assert_eq!(mesh.send(forged).await.status, status, "{shown}");
    }
    // A rule of the caller may ask for another one. Servers see it in lower case.
    mesh.change(version + 1, |plan| {
        plan.policies = vec![about_name(PolicyAction::Allow, "my.name")];
        plan.shape = Box::new(|destination| {
            destination.tls = ClientTls::IstioMutual { sni: "My.Name".into(), subject_alt_names: Vec::new() };
        });
    })
    .await;
    assert_eq!(mesh.get("http://reviews:9080/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_judged_by_the_server_name_as_long_as_it_lasts() {
    let plan = Plan {
        protocol: Protocol::Tcp,
        policies: vec![about_name(PolicyAction::Allow, NAME)],
        ..Plan::new(&[echo("127.0.0.2").await])
    };
    let mut mesh = Mesh::start(plan).await;
    let mut stream = TcpStream::connect(mesh.a.explicit).await.unwrap();
    let mut read = [0; 1024];
    stream.write_all(b"CONNECT reviews:9080 HTTP/1.1\r\nhost: reviews:9080\r\n\r\n").await.unwrap();
    let count = stream.read(&mut read).await.unwrap();
    assert!(read[..count].starts_with(b"HTTP/1.1 200"), "{:?}", str::from_utf8(&read[..count]));
    let mut ask = async |stream: &mut TcpStream| {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: reviews\r\n\r\n").await.unwrap();
        timeout(Duration::from_secs(5), stream.read(&mut read)).await.unwrap().unwrap()
    };
    assert!(ask(&mut stream).await > 0, "it is let in");
    // Policies that still let it in do not end it, and one that does not ends it.
    mesh.change(2, |plan| plan.policies = vec![about_name(PolicyAction::Allow, "outbound_*")]).await;
    assert!(ask(&mut stream).await > 0, "it goes on");
    mesh.change(3, |plan| plan.policies = vec![about_name(PolicyAction::Deny, NAME)]).await;
    let ended = async { while stream.read(&mut [0; 1024]).await.is_ok_and(|count| count > 0) {} };
    timeout(Duration::from_secs(5), ended).await.expect("it is closed");
}
