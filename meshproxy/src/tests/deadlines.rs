//! What holds for a request whatever retries it has: its time, and that it is not carried out twice unasked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use mesh_core::resilience::retry::{RetryCondition, RetryPolicy};
use mesh_core::routing::rule::HttpRule;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::harness::{Answer, Mesh, Plan, application, default_rule};

type Heard = Arc<Mutex<Vec<String>>>;

/// Answers with this status after a while, and tells what it was sent in these fields.
async fn told(status: u16, wait: Duration, fields: &'static [&'static str]) -> (SocketAddr, Heard) {
    let heard = Heard::default();
    let log = Arc::clone(&heard);
    let answer = move |request: Request<hyper::body::Incoming>| {
        let value = |name: &&str| {
            request.headers().get(*name).map_or("-", |value| value.to_str().unwrap()).to_owned()
        };
        log.lock().unwrap().push(fields.iter().map(value).collect::<Vec<_>>().join(" "));
        async move {
            tokio::time::sleep(wait).await;
            let mut answer = Response::new(Full::new(Bytes::from_static(b"answer")));
            *answer.status_mut() = StatusCode::from_u16(status).unwrap();
            answer
        }
    };
    (application("127.0.0.2", answer).await, heard)
}

fn ruled(applications: &[SocketAddr], change: impl FnOnce(&mut HttpRule)) -> Plan {
    let mut rule = default_rule();
    rule.retry = RetryPolicy {
        on: vec![RetryCondition::FiveXx],
        backoff: Duration::from_millis(1),
        ..RetryPolicy::default()
    };
    change(&mut rule);
    Plan { rules: Some(vec![rule]), ..Plan::new(applications) }
}

async fn ask(mesh: &Mesh, method: Method, fields: &[(&str, &str)]) -> Answer {
    let request = Request::builder().method(method).uri("http://reviews:9080/");
    let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    mesh.send(request.body(Full::default()).unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_try_is_told_its_number_and_what_is_left() {
    const FIELDS: &[&str] = &["x-envoy-attempt-count", "x-envoy-expected-rq-timeout-ms"];
    let (failing, heard) = told(503, Duration::from_millis(20), FIELDS).await;
    let mesh = Mesh::start(ruled(&[failing], |rule| rule.timeout = Some(Duration::from_secs(20)))).await;
    assert_eq!(ask(&mesh, Method::GET, &[]).await.status, 503);
    let heard = heard.lock().unwrap().clone();
    let split =
        |line: &String| line.split_once(' ').map(|(n, left)| (n.to_owned(), left.parse::<u64>().unwrap()));
    let tries: Vec<_> = heard.iter().filter_map(split).collect();
    let numbers: Vec<_> = tries.iter().map(|(number, _)| number.as_str()).collect();
    assert_eq!(numbers, ["1", "2", "3"]);
    let left: Vec<_> = tries.iter().map(|(_, left)| *left).collect();
    assert!(left[0] == 20_000 && left[1] < left[0] && left[2] < left[1], "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_try_begins_beyond_the_time_of_the_request() {
    let (failing, heard) = told(503, Duration::ZERO, &[]).await;
    let mesh = Mesh::start(ruled(&[failing], |rule| {
        rule.timeout = Some(Duration::from_millis(300));
        rule.retry.backoff = Duration::from_secs(3600);
    }))
    .await;
    let begun = Instant::now();
    // Its wait would end long after: the answer that there is goes back at once.
    assert_eq!(ask(&mesh, Method::GET, &[]).await.status, 503);
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(heard.lock().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_a_grpc_client_and_that_of_a_rule_are_told_apart() {
    let (slow, _) = told(200, Duration::from_secs(30), &[]).await;
    let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
    let with = |timeout| [grpc[0], grpc[1], ("grpc-timeout", timeout)];
    let mut mesh = Mesh::start(ruled(&[slow], |_| {})).await;
    let answer = ask(&mesh, Method::POST, &with("150m")).await;
    let status = |answer: &Answer| (answer.status.as_u16(), answer.header("grpc-status").to_owned());
    assert_eq!(status(&answer), (200, "4".to_owned()));
    mesh.change(2, |plan| plan.rules.as_mut().unwrap()[0].timeout = Some(Duration::from_millis(150))).await;
    let answer = ask(&mesh, Method::POST, &grpc).await;
    assert_eq!(status(&answer), (200, "14".to_owned()));
    assert_eq!(mesh.a.metric("istio_requests_total", &["response_flags=\"UT\"", "reporter=\"source\""]), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_applications_ask_of_retries_and_time_is_not_heeded() {
    let (failing, heard) = told(503, Duration::from_millis(60), &[]).await;
    let mesh = Mesh::start(ruled(&[failing], |rule| rule.retry = RetryPolicy::default())).await;
    let fields = [
        ("x-envoy-retry-on", "5xx"),
        ("x-envoy-max-retries", "3"),
        ("x-envoy-upstream-rq-timeout-ms", "5"),
        ("x-envoy-upstream-rq-per-try-timeout-ms", "5"),
    ];
    let answer = ask(&mesh, Method::GET, &fields).await;
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (503, "answer"));
    assert_eq!(heard.lock().unwrap().len(), 1);
}

/// Reads requests and ends their connections in the place of an answer; says how many it has read.
async fn breaking() -> (SocketAddr, Heard) {
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let heard = Heard::default();
    let log = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let log = Arc::clone(&log);
            tokio::spawn(async move {
                let mut head = vec![0; 4096];
                let length = stream.read(&mut head).await.unwrap_or(0);
                if length > 0 {
                    log.lock().unwrap().push(String::new());
                }
                drop(stream.shutdown().await);
            });
        }
    });
    (address, heard)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_have_been_carried_out_is_not_sent_again_unasked() {
    for is_mesh in [true, false] {
        for (on, method, expected) in [
            (RetryPolicy::DEFAULT_CONDITIONS.to_vec(), Method::GET, 1),
            (RetryPolicy::DEFAULT_CONDITIONS.to_vec(), Method::POST, 1),
            (vec![RetryCondition::FiveXx], Method::POST, 3),
        ] {
            let (breaking, heard) = breaking().await;
            let plan = Plan { mesh: is_mesh, ..ruled(&[breaking], |rule| rule.retry.on = on.clone()) };
            let mesh = Mesh::start(plan).await;
            let answer = ask(&mesh, method.clone(), &[]).await;
            assert_eq!(answer.status, 503);
            assert_eq!(heard.lock().unwrap().len(), expected, "{on:?} {method} {is_mesh}");
        }
    }
}
