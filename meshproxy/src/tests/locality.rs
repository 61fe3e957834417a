//! Localities: who gets traffic, in which order, and how much; endpoints that warm up.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use mesh_core::balancing::balancer::LoadBalancer;
use mesh_core::balancing::locality::{Distribute, Preference};
use mesh_core::balancing::policy::{Algorithm, Warmup};
use mesh_core::resilience::outlier::OutlierDetection;
use mesh_core::snapshot::destination::Destination;
use mesh_core::vocab::ratio::Ratio;
use tokio::time::Instant;

use super::harness::{Mesh, Plan, Shape, application};
use crate::live::keep;

/// Applications that answer with their number, with 503 while the flag of their number is up.
async fn numbered(fails: &[Arc<AtomicBool>]) -> Vec<SocketAddr> {
    let mut applications = Vec::new();
    for (number, fails) in fails.iter().enumerate() {
        let fails = Arc::clone(fails);
        let answer = move |_| {
            let mut answer = Response::new(Full::new(Bytes::from(number.to_string())));
            if fails.load(Ordering::Relaxed) {
                *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            }
            async move { answer }
        };
        applications.push(application("127.0.0.2", answer).await);
    }
    applications
}

fn flags(count: usize) -> Vec<Arc<AtomicBool>> {
    (0..count).map(|_| Arc::default()).collect()
}

/// Who answers so many requests, and how often.
async fn answers(mesh: &Mesh, count: usize) -> BTreeMap<String, usize> {
    let mut seen = BTreeMap::new();
    for _ in 0..count {
        let answer = mesh.get("http://reviews:9080/").await;
        *seen.entry(answer.body).or_default() += 1;
    }
    seen
}

/// Asks until only these answer.
async fn until_only(mesh: &Mesh, expected: &[&str]) {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let seen = answers(mesh, 12).await;
        if seen.keys().eq(expected) {
            return;
        }
        assert!(Instant::now() < end, "{seen:?}, wanted {expected:?}");
    }
}

fn nearest(change: impl Fn(&mut Destination) + Send + Sync + 'static) -> Shape {
    Box::new(move |destination| {
        destination.preference = Preference::Order { labels: Vec::new(), regions: Some(Vec::new()) };
        change(destination);
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_own_zone_comes_first_wherever_the_caller_is() {
    let applications = numbered(&flags(3)).await;
    let localities = vec!["r1/z1", "r1/z2", "r2/z1"];
    let shape = nearest(|_| {});
    let plan = Plan { shape, caller: "r1/z2", localities, ..Plan::new(&applications) };
    let mut mesh = Mesh::start(plan).await;
    assert_eq!(answers(&mesh, 10).await.into_keys().collect::<Vec<_>>(), ["1"]);
    // The host has moved; nothing else has changed.
    mesh.change(2, |plan| plan.caller = "r2/z9").await;
    assert_eq!(answers(&mesh, 10).await.into_keys().collect::<Vec<_>>(), ["2"]);
    // Who is nowhere prefers nobody that is somewhere.
    mesh.change(3, |plan| plan.caller = "").await;
    assert_eq!(answers(&mesh, 40).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_that_fails_gives_its_traffic_to_the_next() {
    let fails = flags(4);
    let applications = numbered(&fails).await;
    let shape = nearest(|destination| {
        destination.outlier_detection = Some(OutlierDetection {
            consecutive_5xx: 2,
            max_ejection_percent: 100,
            base_ejection_time: Duration::from_secs(60),
            ..OutlierDetection::default()
        });
    });
    let localities = vec!["r1/z1", "r1/z1", "r1/z2", "r1/z2"];
    let mesh = Mesh::start(Plan { shape, caller: "r1/z1", localities, ..Plan::new(&applications) }).await;
    let keeping = tokio::spawn(keep::keep(Arc::clone(&mesh.a.shared.roots)));
    assert_eq!(answers(&mesh, 20).await.into_keys().collect::<Vec<_>>(), ["0", "1"]);
    fails[0].store(true, Ordering::Relaxed);
    // Half of the zone is left: 70 % of the traffic stays.
    until_only(&mesh, &["1", "2", "3"]).await;
    let seen = answers(&mesh, 200).await;
    assert!((110..=170).contains(&seen["1"]), "{seen:?}");
    fails[1].store(true, Ordering::Relaxed);
    until_only(&mesh, &["2", "3"]).await;
    keeping.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn localities_get_their_shares() {
    let applications = numbered(&flags(4)).await;
    let shape: Shape = Box::new(|destination| {
        destination.preference = Preference::Shares(vec![Distribute {
            from: "r1/*".into(),
            to: vec![("r1/z1/*".into(), 80), ("r1/z2/*".into(), 20)],
        }]);
    });
    let localities = vec!["r1/z1", "r1/z2", "r1/z2", "r2/z1"];
    let mesh = Mesh::start(Plan { shape, caller: "r1/z1", localities, ..Plan::new(&applications) }).await;
    let seen = answers(&mesh, 300).await;
    assert!((215..=265).contains(&seen["0"]) && !seen.contains_key("3"), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_endpoint_gets_its_share_step_by_step() {
    let applications = numbered(&flags(3)).await;
    let shape: Shape = Box::new(|destination| {
        destination.load_balancer = Algorithm::Simple(LoadBalancer::RoundRobin);
        destination.warmup = Some(Warmup {
            duration: Duration::from_secs(3),
            minimum: Ratio::from_percent(10.0).unwrap(),
            aggression_thousandths: 1000,
        });
    });
    let mut mesh = Mesh::start(Plan { shape, ..Plan::new(&applications[..2]) }).await;
    let keeping = tokio::spawn(keep::keep(Arc::clone(&mesh.a.shared.roots)));
    let weight = |mesh: &Mesh, index| mesh.a.shared.roots.load().destinations[0].weight(index);
    let until = async |mesh: &Mesh, index, expected| {
        let end = Instant::now() + Duration::from_secs(20);
        while weight(mesh, index) != expected {
            assert!(Instant::now() < end, "{:?}", weight(mesh, index));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // All are new, so all are alike.
    let seen = answers(&mesh, 20).await;
    assert!(seen.values().all(|count| *count == 10), "{seen:?}");
    until(&mesh, 0, Some(1)).await;
    mesh.change(2, |plan| plan.applications = applications.clone()).await;
    let seen = answers(&mesh, 60).await;
    assert!(seen.get("2").copied().unwrap_or(0) < 12, "{seen:?}");
    until(&mesh, 2, Some(1)).await;
    let seen = answers(&mesh, 60).await;
    assert_eq!(seen["2"], 20, "{seen:?}");
    keeping.abort();
}
