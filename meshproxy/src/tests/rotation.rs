//! Keys and bundles change under traffic: nothing fails, and what was made with the old ones takes nothing new.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::harness::{A, B, Mesh, OTHER, Plan, echo};
use crate::identity::tls::tests::TestCa;

#[tokio::test(flavor = "multi_thread")]
async fn renewed_documents_cost_no_request() {
    let mesh = Arc::new(Mesh::start(Plan::new(&[echo("127.0.0.2").await])).await);
    let stop = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn({
        let (mesh, stop) = (Arc::clone(&mesh), Arc::clone(&stop));
        async move {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                let answer = mesh.get("http://reviews:9080/").await;
                assert_eq!(answer.status, 200, "{answer:?}");
                count += 1;
            }
            count
        }
    });
    for _ in 0..10 {
        mesh.a.shared.svids.install(mesh.ca.svid(A));
        mesh.b.shared.svids.install(mesh.ca.svid(B));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    stop.store(true, Ordering::Relaxed);
    assert!(load.await.unwrap() > 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_bundle_is_obeyed_at_once() {
    let mesh = Mesh::start(Plan::new(&[echo("127.0.0.2").await])).await;
    assert_eq!(mesh.get("http://reviews:9080/").await.status, 200);
    // The connection that is there was made under the old bundle: it takes no new request.
    mesh.a.shared.svids.trust(TestCa::new().trust());
    assert_eq!(mesh.get("http://reviews:9080/").await.status, 503);
    mesh.a.shared.svids.trust(mesh.ca.trust());
    assert_eq!(mesh.get("http://reviews:9080/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_document_nobody_calls() {
    let mesh = Mesh::start(Plan::new(&[echo("127.0.0.2").await])).await;
    mesh.a.shared.svids.retain(|_| false);
    mesh.a.shared.svids.install(mesh.ca.svid(OTHER));
    assert_eq!(mesh.get("http://reviews:9080/").await.status, 503);
}

/// The server's side: what a peer proved under the old bundle does not count on.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_the_bundle_does_not_know_any_more_is_let_go() {
    let mesh = Mesh::start(Plan::new(&[echo("127.0.0.2").await])).await;
    assert_eq!(mesh.get("http://reviews:9080/").await.status, 200);
    let retired = || mesh.b.metric("mesh_proxy_connections_retired_total", &["side=\"mesh\""]);
    // Another name for the domain: it is still of the mesh.
    let aliases = vec![mesh_core::vocab::identity::TrustDomain::new("old.example").unwrap()];
    mesh.b.shared.svids.trust(mesh.ca.trust().with_aliases(aliases));
    assert_eq!(mesh.get("http://reviews:9080/").await.status, 200);
    assert_eq!(retired(), 0);
    mesh.b.shared.svids.trust(TestCa::new().trust());
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while retired() != 1 {
        assert!(std::time::Instant::now() < end, "{}", mesh.b.shared.metrics.render());
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(mesh.get("http://reviews:9080/").await.status, 503);
    mesh.b.shared.svids.trust(mesh.ca.trust());
    assert_eq!(mesh.get("http://reviews:9080/").await.status, 200);
}
