//! What bounds retries: the budget of a destination, and what proxies along a chain of calls say.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use mesh_core::resilience::pool::{ConnectionPool, RetryBudget};
use mesh_core::resilience::retry::{RetryCondition, RetryPolicy};
use mesh_core::snapshot::destination::Destination;
use mesh_core::vocab::ratio::Ratio;

use super::harness::{Answer, Mesh, Plan, application, default_rule, echo, exchange};
use crate::live::chain::{Chain, Sign};

/// An application that always fails, and how often it was asked.
async fn failing() -> (SocketAddr, Arc<AtomicU32>) {
    let count = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&count);
    let answer = move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
        async {
            let mut answer = Response::new(Full::new(Bytes::from_static(b"no")));
            *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            answer
        }
    };
    (application("127.0.0.2", answer).await, count)
}

fn on_failure(applications: &[SocketAddr]) -> Plan {
    let mut rule = default_rule();
    let backoff = Duration::from_millis(1);
    rule.retry = RetryPolicy { on: vec![RetryCondition::FiveXx], backoff, ..RetryPolicy::default() };
    Plan { rules: Some(vec![rule]), ..Plan::new(applications) }
}

async fn ask(mesh: &Mesh, id: &str) -> Answer {
    let request = Request::get("http://reviews:9080/").header("x-request-id", id);
    mesh.send(request.body(Full::default()).unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_only_fails_is_not_asked_three_times_as_often() {
    let (failing, count) = failing().await;
    let mesh = Mesh::start(on_failure(&[failing])).await;
    let begun = Instant::now();
    for number in 0..200 {
        assert_eq!(ask(&mesh, &number.to_string()).await.status, 503);
    }
    // A fifth of the requests, ten a second, those of two seconds at the beginning; one more for a moment's rounding.
    let most = 200 + 40 + (begun.elapsed().as_millis() as u32).div_ceil(100) + 20 + 1;
    let asked = count.load(Ordering::Relaxed);
    assert!((255..=most).contains(&asked), "{asked}, at most {most}");
    let refused = mesh.a.metric("mesh_proxy_overflows_total", &["limit=\"retry_budget\""]);
    let flagged = mesh.a.metric("istio_requests_total", &["reporter=\"source\"", "response_flags=\"UO\""]);
    assert!(refused >= 100 && flagged == refused, "{refused} {flagged}");
    assert!(mesh.a.metric("istio_requests_total", &["response_flags=\"URX\""]) > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_has_its_own_limits_of_retries_at_once() {
    let (failing, count) = failing().await;
    let budget = RetryBudget { share: Ratio::from_percent(100.0).unwrap(), min_concurrency: 3 };
    let shape = move |destination: &mut Destination| destination.retry_budget = Some(budget);
    let mut mesh = Mesh::start(Plan { shape: Box::new(shape), ..on_failure(&[failing]) }).await;
    // One after another: each has its retries.
    for number in 0..60 {
        ask(&mesh, &number.to_string()).await;
    }
    assert_eq!(count.swap(0, Ordering::Relaxed), 180);
    let one = ConnectionPool { max_retries: Some(1), ..ConnectionPool::default() };
    mesh.change(2, |plan| plan.shape = Box::new(move |destination| destination.pool = one.limits(None)))
        .await;
    futures_all(20, |number| ask(&mesh, if number % 2 == 0 { "even" } else { "odd" })).await;
    assert!(count.load(Ordering::Relaxed) < 60);
    assert!(mesh.a.metric("mesh_proxy_overflows_total", &["limit=\"retries\""]) > 0);
}

async fn futures_all<F: Future<Output = Answer>>(count: usize, ask: impl Fn(usize) -> F) {
    futures_util::future::join_all((0..count).map(ask)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_never_came_to_an_application_goes_elsewhere_by_default() {
    let alive = echo("127.0.0.2").await;
    // Its proxy answers for it.
    let dead = "127.0.0.2:1".parse().unwrap();
    let mesh = Mesh::start(Plan::new(&[dead, alive])).await;
    for number in 0..60 {
        let answer = ask(&mesh, &number.to_string()).await;
        assert_eq!((answer.status.as_u16(), answer.header("x-mesh-failed")), (200, ""));
    }
    assert!(mesh.a.metric("istio_requests_total", &["response_flags=\"UO\""]) == 0);
    // With nobody else the answer is that of the proxy there, and its flags stay with it.
    let mesh = Mesh::start(Plan::new(&[dead])).await;
    let answer = ask(&mesh, "x").await;
    assert_eq!((answer.status.as_u16(), answer.header("x-mesh-failed")), (503, ""));
    assert_eq!(mesh.a.metric("istio_requests_total", &["response_flags=\"URX\""]), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_failure_is_retried_at_one_place_of_a_chain() {
    let (failing, count) = failing().await;
    let mesh = Mesh::start(on_failure(&[failing])).await;
    let (near, far) = (&mesh.a.shared.roots.chain, &mesh.b.shared.roots.chain);
    let id = |text: &str| Chain::id(text.as_bytes());
    // A retry says so to the proxy there, and that it was in vain to the one before.
    ask(&mesh, "first").await;
    assert_eq!(count.swap(0, Ordering::Relaxed), 3);
    assert!(far.knows(id("first"), Sign::Retried) && near.knows(id("first"), Sign::GivenUp));
    assert!(!near.knows(id("first"), Sign::Retried));
    // What came of a retry is not retried.
    near.note(id("second"), Sign::Retried);
    ask(&mesh, "second").await;
    assert_eq!(count.swap(0, Ordering::Relaxed), 1);
    assert!(far.knows(id("second"), Sign::Retried));
    // Nor is what others have given up.
    far.note(id("third"), Sign::GivenUp);
    let answer = ask(&mesh, "third").await;
    assert_eq!((count.swap(0, Ordering::Relaxed), answer.header("x-mesh-failed")), (1, ""));
    assert!(near.knows(id("third"), Sign::GivenUp));
    // An application's word for it counts nothing.
    let request = Request::get("http://reviews:9080/").header("x-mesh-retry", "1");
    exchange(mesh.a.explicit, request.body(Full::default()).unwrap()).await;
    assert_eq!(count.swap(0, Ordering::Relaxed), 3);
}
