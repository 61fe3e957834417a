//! A second attempt beside one that has no answer yet.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use mesh_core::resilience::hedge::Hedge;
use mesh_core::resilience::pool::RetryBudget;
use mesh_core::resilience::retry::RetryPolicy;
use mesh_core::vocab::ratio::Ratio;

use super::harness::{Answer, Mesh, Plan, application, default_rule};
use crate::live::chain::{Chain, Sign};

/// Longer than any test waits.
const LONG: Duration = Duration::from_secs(30);

/// What an application has seen.
#[derive(Default)]
struct Seen {
    begun: AtomicU32,
    cancelled: AtomicU32,
}

/// Counts a request that is dropped before its answer.
struct Watch(Arc<Seen>, bool);

impl Watch {
    fn answered(&mut self) {
        self.1 = true;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.1 {
            self.0.cancelled.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Answers with its name and what it was sent, after a while.
async fn named(name: &'static str, wait: Duration, status: u16) -> (SocketAddr, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let told = Arc::clone(&seen);
    let answer = move |request: Request<hyper::body::Incoming>| {
        told.begun.fetch_add(1, Ordering::SeqCst);
        let mut watch = Watch(Arc::clone(&told), false);
        async move {
            let count = request.headers().get("x-envoy-attempt-count").cloned();
            let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            tokio::time::sleep(wait).await;
            watch.answered();
            let text =
                format!("{name} {} {}", count.as_ref().map_or("", |n| n.to_str().unwrap()), body.len());
            let mut answer = Response::new(Full::new(Bytes::from(text)));
            *answer.status_mut() = http::StatusCode::from_u16(status).unwrap();
            answer
        }
    };
    (application("127.0.0.2", answer).await, seen)
}

fn hedged(applications: &[SocketAddr], hedge: Hedge) -> Plan {
    let mut rule = default_rule();
    rule.retry = RetryPolicy { hedge: Some(hedge), ..RetryPolicy::default() };
    Plan { rules: Some(vec![rule]), ..Plan::new(applications) }
}

fn after(millis: u64) -> Hedge {
    Hedge { after: Duration::from_millis(millis), most: 1, any_method: false }
}

async fn ask(mesh: &Mesh, method: Method, length: usize) -> Answer {
    let request = Request::builder().method(method).uri("http://reviews:9080/");
    mesh.send(request.body(Full::new(Bytes::from(vec![b'x'; length]))).unwrap()).await
}

fn hedges(mesh: &Mesh, result: &str) -> u64 {
    mesh.a.metric("mesh_proxy_hedges_total", &[&format!("result=\"{result}\"")])
}

async fn soon(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_endpoint_costs_nobody_its_time() {
    for is_mesh in [true, false] {
        let ((slow, stuck), (quick, _)) =
            (named("slow", LONG, 200).await, named("quick", Duration::ZERO, 200).await);
        let mesh = Mesh::start(Plan { mesh: is_mesh, ..hedged(&[slow, quick], after(50)) }).await;
        for _ in 0..12 {
            let begun = Instant::now();
            let answer = ask(&mesh, Method::GET, 0).await;
            assert_eq!(answer.status, 200);
            assert!(answer.body.starts_with("quick"), "{}", answer.body);
            assert!(begun.elapsed() < LONG / 2);
        }
        let won = hedges(&mesh, "won");
        assert!(won > 0 && hedges(&mesh, "lost") == 0 && hedges(&mesh, "refused") == 0, "{won}");
        assert_eq!(u64::from(stuck.begun.load(Ordering::SeqCst)), won);
        // Whoever lost hears of it, and nobody else.
        soon("cancelled", || u64::from(stuck.cancelled.load(Ordering::SeqCst)) == won).await;
        let ok = mesh.a.metric("istio_requests_total", &["response_code=\"200\"", "response_flags=\"-\""]);
        assert_eq!(ok, 12);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_sent_twice_where_the_rule_says_so() {
    let ((slow, _), (quick, _)) = (named("slow", LONG, 200).await, named("quick", Duration::ZERO, 200).await);
    let every = Hedge { any_method: true, ..after(50) };
    let mesh = Mesh::start(hedged(&[slow, quick], every)).await;
    for length in [5, 300_000] {
        for method in [Method::POST, Method::PUT] {
            for _ in 0..4 {
                let answer = ask(&mesh, method.clone(), length).await;
                assert!(answer.body.starts_with("quick"), "{}", answer.body);
                assert!(answer.body.ends_with(&format!(" {length}")), "{}", answer.body);
            }
        }
    }
    assert!(hedges(&mesh, "won") > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_sent_twice() {
    let wait = Duration::from_millis(150);
    let (first, second) = (named("first", wait, 200).await, named("second", wait, 200).await);
    let begun = || first.1.begun.load(Ordering::SeqCst) + second.1.begun.load(Ordering::SeqCst);
    let mut mesh = Mesh::start(hedged(&[first.0, second.0], after(30))).await;
    // A method that may have been carried out.
    ask(&mesh, Method::POST, 3).await;
    assert_eq!(begun(), 1);
    // What comes of a retry of another proxy.
    mesh.a.shared.roots.chain.note(Chain::id(b"nested"), Sign::Retried);
    let nested = Request::get("http://reviews:9080/").header("x-request-id", "nested");
    mesh.send(nested.body(Full::default()).unwrap()).await;
    assert_eq!(begun(), 2);
    // An idempotent one is, and the first one counts if it is the first to answer.
    let answer = ask(&mesh, Method::GET, 0).await;
    assert_eq!((begun(), answer.status.as_u16()), (4, 200));
    soon("lost or won", || hedges(&mesh, "lost") + hedges(&mesh, "won") == 1).await;
    // Not where the destination bears no more.
    let none = RetryBudget { share: Ratio::ZERO, min_concurrency: 0 };
    mesh.change(2, |plan| plan.shape = Box::new(move |destination| destination.retry_budget = Some(none)))
        .await;
    ask(&mesh, Method::GET, 0).await;
    assert_eq!((begun(), hedges(&mesh, "refused")), (5, 1));
    // Nor where there is nobody else.
    mesh.change(3, |plan| {
        plan.shape = Box::new(|_| {});
        plan.applications.truncate(1);
    })
    .await;
    ask(&mesh, Method::GET, 0).await;
    assert_eq!((begun(), hedges(&mesh, "refused")), (6, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_the_request_holds_for_all_of_them() {
    let (first, second) = (named("first", LONG, 200).await, named("second", LONG, 200).await);
    let mut plan = hedged(&[first.0, second.0], after(30));
    plan.rules.as_mut().unwrap()[0].timeout = Some(Duration::from_millis(300));
    let mesh = Mesh::start(plan).await;
    let begun = Instant::now();
    let answer = ask(&mesh, Method::GET, 0).await;
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (504, "upstream request timeout"));
    assert!(begun.elapsed() < LONG / 2);
    assert_eq!(
        (hedges(&mesh, "lost"), mesh.a.metric("istio_requests_total", &["response_flags=\"UT\""])),
        (1, 1)
    );
    for seen in [&first.1, &second.1] {
        soon("cancelled", || seen.cancelled.load(Ordering::SeqCst) == 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_answer_waits_for_a_better_one() {
    let (bad, good) = (
        named("bad", Duration::from_millis(100), 500).await,
        named("good", Duration::from_millis(250), 200).await,
    );
    let mesh = Mesh::start(hedged(&[bad.0, good.0], after(20))).await;
    for _ in 0..8 {
        let answer = ask(&mesh, Method::GET, 0).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    // Where all are bad, that is the answer.
    let worse = named("worse", Duration::from_millis(120), 502).await;
    let mesh = Mesh::start(hedged(&[bad.0, worse.0], after(20))).await;
    let answer = ask(&mesh, Method::GET, 0).await;
    assert!([500, 502].contains(&answer.status.as_u16()));
}
