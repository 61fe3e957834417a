//! Retries, timeouts, faults, and the graceful end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use mesh_core::resilience::fault::{AbortStatus, FaultPolicy};
use mesh_core::resilience::retry::{RetryCondition, RetryPolicy};
use mesh_core::routing::rule::HttpRule;
use mesh_core::vocab::ratio::Ratio;

use super::harness::{Mesh, Plan, application, default_rule, echo};

fn with_rule(applications: &[std::net::SocketAddr], change: impl FnOnce(&mut HttpRule)) -> Plan {
    let mut rule = default_rule();
    change(&mut rule);
    Plan { rules: Some(vec![rule]), ..Plan::new(applications) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_endpoint_is_retried_elsewhere() {
    let alive = echo("127.0.0.2").await;
    let dead = "127.0.0.2:1".parse().unwrap();
    // Straight to the endpoints: the hop would answer for the dead application.
    let mesh = Mesh::start(Plan { mesh: false, ..Plan::new(&[dead, alive]) }).await;
    for _ in 0..10 {
        assert_eq!(mesh.get("http://reviews:9080/").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_sent_again_with_the_next_attempt() {
    let count = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&count);
    let flaky = application("127.0.0.2", move |request: Request<hyper::body::Incoming>| {
        let first = counter.fetch_add(1, Ordering::Relaxed) == 0;
        async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let mut response = Response::new(Full::new(body));
            if first {
                *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
            }
            response
        }
    })
    .await;
    let retry = RetryPolicy { on: vec![RetryCondition::FiveXx], ..RetryPolicy::default() };
    let mesh = Mesh::start(with_rule(&[flaky], |rule| rule.retry = retry)).await;
    // A body is kept up to a bound; one beyond it is sent once, and the first answer counts.
    for (length, status, tries) in [(4, 200, 2), (900_000, 200, 2), (1_100_000, 503, 1)] {
        count.store(0, Ordering::Relaxed);
        let body = Bytes::from("x".repeat(length));
        let answer = mesh.send(Request::post("http://reviews:9080/").body(Full::new(body)).unwrap()).await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (status, length));
        assert_eq!(count.load(Ordering::Relaxed), tries);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_takes_too_long_gets_504() {
    let slow = application("127.0.0.2", |_| async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        Response::new(Full::default())
    })
    .await;
    let mesh = Mesh::start(with_rule(&[slow], |rule| rule.timeout = Some(Duration::from_millis(100)))).await;
    let answer = mesh.get("http://reviews:9080/").await;
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (504, "upstream request timeout"));
    assert_eq!(mesh.a.metric("istio_requests_total", &["response_flags=\"UT\""]), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_delay_and_abort() {
    let all = Ratio::from_percent(100.0).unwrap();
    let fault = FaultPolicy {
        delay: Some((all, Duration::from_millis(50))),
        abort: Some((all, AbortStatus::Http(500))),
    };
    let mesh = Mesh::start(with_rule(&[echo("127.0.0.2").await], |rule| rule.fault = fault)).await;
    let begun = std::time::Instant::now();
    let answer = mesh.get("http://reviews:9080/").await;
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (500, "fault filter abort"));
    assert!(begun.elapsed() >= Duration::from_millis(50));
    assert_eq!(mesh.a.metric("istio_requests_total", &["response_flags=\"DI,FI\""]), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_healthy_gets_503() {
    let mesh = Mesh::start(Plan::new(&[])).await;
    let answer = mesh.get("http://reviews:9080/").await;
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (503, "no healthy upstream"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_waits_for_what_is_under_way() {
    let slow = application("127.0.0.2", |_| async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        Response::new(Full::new(Bytes::from_static(b"done")))
    })
    .await;
    let mesh = Mesh::start(Plan::new(&[slow])).await;
    let (drain_a, drain_b) = (mesh.a.shared.drain.clone(), mesh.b.shared.drain.clone());
    let ending = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        drain_a.begin();
        drain_b.begin();
    };
    let (answer, ()) = tokio::join!(mesh.get("http://reviews:9080/"), ending);
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, "done"));
    assert_eq!(drain_a.finished(Duration::from_secs(5)).await, 0);
    assert_eq!(drain_b.finished(Duration::from_secs(5)).await, 0);
    mesh.a.listeners.end().await;
    mesh.b.listeners.end().await;
}
