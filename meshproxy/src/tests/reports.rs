//! Endpoints that report their load, and the shares that follow.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use mesh_core::balancing::policy::Algorithm;
use mesh_core::balancing::utilization::Utilization;
use mesh_core::snapshot::destination::Destination;
use mesh_core::vocab::protocol::Protocol;
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::harness::{Mesh, Plan, application};
use crate::live::keep;

/// From half a second after the first report to a second after the last.
fn by_reports(connect: u64) -> Box<dyn Fn(&mut Destination) + Send + Sync> {
    Box::new(move |destination| {
        destination.connect_timeout = Duration::from_secs(connect);
        destination.load_balancer = Algorithm::Utilization(Utilization {
            metrics: vec!["named_metrics.queue".into()],
            stabilization: Duration::from_millis(500),
            expiration: Duration::from_secs(1),
            update: Duration::from_millis(100),
            ..Utilization::default()
        });
    })
}

/// Answers with its number, and reports while the flag is up.
async fn reporting(number: u32, report: &'static str, reports: Arc<AtomicBool>) -> SocketAddr {
    application("127.0.0.2", move |_| {
        let reports = reports.load(Ordering::Relaxed);
        async move {
            let mut answer = Response::new(Full::new(Bytes::from(number.to_string())));
            if reports {
                answer.headers_mut().insert("endpoint-load-metrics", report.parse().unwrap());
            }
            answer
        }
    })
    .await
}

/// How many of so many requests the first endpoint gets.
async fn first_of(mesh: &Mesh, requests: usize) -> usize {
    let mut first = 0;
    for _ in 0..requests {
        let request = Request::get("http://reviews:9080/").header("te", "trailers");
        let answer = mesh.send(request.body(Full::default()).unwrap()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        first += usize::from(answer.body == "0");
    }
    first
}

/// Asks until the first endpoint gets that many of twenty.
async fn until(mesh: &Mesh, expected: usize) {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let first = first_of(mesh, 20).await;
        if first == expected {
            return;
        }
        assert!(Instant::now() < end, "{first} of 20, not {expected}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_room_gets_more_until_it_is_silent() {
    let reports = Arc::new(AtomicBool::new(true));
    let applications = [
        reporting(0, "TEXT application_utilization=0.2,rps_fractional=10", Arc::clone(&reports)).await,
        reporting(1, r#"JSON {"cpuUtilization": 0.8, "rpsFractional": 10}"#, Arc::clone(&reports)).await,
    ];
    let mut mesh = Mesh::start(Plan { shape: by_reports(2), ..Plan::new(&applications) }).await;
    let keeping = tokio::spawn(keep::keep(Arc::clone(&mesh.a.shared.roots)));
    assert_eq!(first_of(&mesh, 2).await, 1);
    let answer = mesh.get("http://reviews:9080/").await;
    assert!(answer.headers.contains_key("endpoint-load-metrics"), "{answer:?}");
    until(&mesh, 16).await;
    // What was reported outlives a change of the destination.
    mesh.change(2, |plan| plan.shape = by_reports(3)).await;
    assert_eq!(first_of(&mesh, 10).await, 8);
    let (heard, shares) = (
        mesh.a.metric("mesh_proxy_load_reports_total", &["result=\"ok\""]),
        [0, 1].map(|index| mesh.a.shared.roots.load().destinations[0].reported_share(index)),
    );
    assert!(heard > 20, "{heard}");
    assert_eq!(shares, [Some(1000), Some(250)]);
    reports.store(false, Ordering::Relaxed);
    until(&mesh, 10).await;
    keeping.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_that_say_nothing_change_nothing() {
    let on = || Arc::new(AtomicBool::new(true));
    let applications = [
        reporting(0, "TEXT application_utilization=0.2", on()).await,
        reporting(1, "TEXT cpu=0.8", on()).await,
    ];
    let mesh = Mesh::start(Plan { mesh: false, shape: by_reports(2), ..Plan::new(&applications) }).await;
    let keeping = tokio::spawn(keep::keep(Arc::clone(&mesh.a.shared.roots)));
    assert_eq!(first_of(&mesh, 10).await, 5);
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(first_of(&mesh, 10).await, 5);
    for result in ["lacking", "unreadable"] {
        let label = format!("result=\"{result}\"");
        assert_eq!(mesh.a.metric("mesh_proxy_load_reports_total", &[&label]), 10, "{result}");
    }
    keeping.abort();
}

/// An application over HTTP/2 that answers with its number and reports in its trailers.
async fn in_trailers(number: u32, report: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let mut reply = respond.send_response(Response::new(()), false).unwrap();
                    reply.send_data(Bytes::from(number.to_string()), false).unwrap();
                    let mut trailers = HeaderMap::new();
                    trailers.insert("endpoint-load-metrics-bin", report.parse().unwrap());
                    trailers.insert("grpc-status", "0".parse().unwrap());
                    reply.send_trailers(trailers).unwrap();
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_report_as_well() {
    // rps_fractional 100 and cpu_utilization 0.5; rps_fractional 100 and named_metrics.queue 2.
    let applications = [
        in_trailers(0, "CQAAAAAAAOA/MQAAAAAAAFlA").await,
        in_trailers(1, "MQAAAAAAAFlAQhAKBXF1ZXVlEQAAAAAAAABA").await,
    ];
    let plan = Plan { protocol: Protocol::Grpc, shape: by_reports(2), ..Plan::new(&applications) };
    let mesh = Mesh::start(plan).await;
    let keeping = tokio::spawn(keep::keep(Arc::clone(&mesh.a.shared.roots)));
    until(&mesh, 16).await;
    keeping.abort();
}
