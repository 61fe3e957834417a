//! Endpoints that fail are left alone, and come back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use mesh_core::resilience::outlier::OutlierDetection;
use mesh_core::resilience::retry::RetryPolicy;
use mesh_core::vocab::protocol::Protocol;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::harness::{Mesh, Plan, Shape, application, default_rule};
use super::streams::{connect, server_first};
use crate::live::ejection::{self, Ejected};

/// An application that answers 500 while it is told to, and how often it was asked.
#[derive(Clone)]
struct Moody {
    address: SocketAddr,
    bad: Arc<AtomicBool>,
    asked: Arc<AtomicU32>,
}

impl Moody {
    async fn start(bad: bool) -> Moody {
        let (bad, asked) = (Arc::new(AtomicBool::new(bad)), Arc::new(AtomicU32::new(0)));
        let (mood, count) = (Arc::clone(&bad), Arc::clone(&asked));
        let address = application("127.0.0.2", move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            let bad = mood.load(Ordering::SeqCst);
            async move {
                let mut response = Response::new(Full::new(Bytes::new()));
                if bad {
                    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                }
                response
            }
        })
        .await;
        Moody { address, bad, asked }
    }

    fn asked(&self) -> u32 {
        self.asked.swap(0, Ordering::SeqCst)
    }
}

fn quick(percent: u32) -> OutlierDetection {
    OutlierDetection {
        consecutive_5xx: 2,
        interval: Duration::from_millis(50),
        base_ejection_time: Duration::from_millis(300),
        max_ejection_percent: percent,
        ..OutlierDetection::default()
    }
}

fn watched(settings: OutlierDetection) -> Shape {
    Box::new(move |destination| destination.outlier_detection = Some(settings.clone()))
}

async fn start(settings: OutlierDetection, plan: Plan) -> (Mesh, watch::Receiver<Ejected>, Sweeper) {
    let mut rule = default_rule();
    rule.retry = RetryPolicy::disabled();
    let mesh = Mesh::start(Plan { shape: watched(settings), rules: Some(vec![rule]), ..plan }).await;
    let (tell, told) = watch::channel(Ejected::new());
    let sweeping = tokio::spawn(ejection::keep(Arc::clone(&mesh.a.shared.roots), tell));
    (mesh, told, Sweeper(sweeping.abort_handle()))
}

struct Sweeper(AbortHandle);

impl Drop for Sweeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn statuses(mesh: &Mesh, count: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        statuses.push(mesh.get("http://reviews:9080/").await.status.as_u16());
    }
    statuses
}

async fn told(told: &mut watch::Receiver<Ejected>, count: usize) {
    let waiting = told.wait_for(|ejected| ejected.len() == count);
    tokio::time::timeout(Duration::from_secs(5), waiting).await.expect("it is told in time").unwrap();
}

fn bad(statuses: &[u16]) -> usize {
    statuses.iter().filter(|status| **status == 500).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_fails_is_left_alone_and_comes_back() {
    for via_mesh in [true, false] {
        let (good, moody) = (Moody::start(false).await, Moody::start(true).await);
        let plan = Plan { mesh: via_mesh, ..Plan::new(&[good.address, moody.address]) };
        let (mut mesh, mut ejected, _sweeper) = start(quick(50), plan).await;
        let seen = statuses(&mesh, 30).await;
        assert_eq!(bad(&seen), 2, "{seen:?}");
        assert_eq!(moody.asked(), 2);
        told(&mut ejected, 1).await;
        let cause = ["cause=\"consecutive_5xx\""];
        assert_eq!(mesh.a.metric("mesh_proxy_ejections_total", &cause), 1);
        // What is known outlives the version.
        mesh.change(2, |plan| plan.policies.clear()).await;
        assert_eq!(bad(&statuses(&mesh, 10).await), 0);
        // It comes back, fails as often again, and stays away longer.
        told(&mut ejected, 0).await;
        let back = std::time::Instant::now();
        assert_eq!(bad(&statuses(&mesh, 30).await), 2);
        assert_eq!(moody.asked(), 2);
        told(&mut ejected, 1).await;
        told(&mut ejected, 0).await;
        assert!(back.elapsed() >= Duration::from_millis(600));
        moody.bad.store(false, Ordering::SeqCst);
        assert_eq!(bad(&statuses(&mesh, 30).await), 0);
        assert!(moody.asked() > 0);
        assert_eq!(mesh.a.metric("mesh_proxy_ejections_total", &cause), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_than_the_share_is_left_alone() {
    let bads = || async { [Moody::start(true).await.address, Moody::start(true).await.address] };
    let (mesh, mut ejected, _sweeper) = start(quick(10), Plan::new(&bads().await)).await;
    assert_eq!(statuses(&mesh, 20).await, [500; 20]);
    assert!(mesh.a.metric("mesh_proxy_ejections_refused_total", &["cluster=\"outbound|9080||"]) > 0);
    let lasting = OutlierDetection { base_ejection_time: Duration::from_secs(30), ..quick(50) };
    let (mesh, ..) = start(lasting, Plan::new(&bads().await)).await;
    assert_eq!(statuses(&mesh, 20).await, [500; 20]);
    assert_eq!(mesh.a.metric("mesh_proxy_ejections_total", &["cause"]), 1);
    assert!(ejected.borrow_and_update().is_empty());
    // All of them: nobody is left, unless health does not count below a share.
    let lasting = OutlierDetection { base_ejection_time: Duration::from_secs(30), ..quick(100) };
    let (mesh, mut ejected, _sweeper) = start(lasting.clone(), Plan::new(&bads().await)).await;
    let seen = statuses(&mesh, 20).await;
    assert_eq!((bad(&seen), seen.last()), (4, Some(&503)), "{seen:?}");
    let answer = mesh.get("http://reviews:9080/").await;
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (503, "no healthy upstream"));
    assert!(mesh.a.metric("istio_requests_total", &["response_flags=\"UH\""]) > 0);
    told(&mut ejected, 2).await;
    // Nobody watches any more.
    let mut mesh = mesh;
    mesh.change(2, |plan| plan.shape = Box::new(|_| {})).await;
    assert_eq!(statuses(&mesh, 4).await, [500; 4]);
    let live = mesh.a.shared.roots.load().destinations[0].clone();
    assert!(live.endpoints.iter().all(|endpoint| endpoint.is_usable()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_reached_counts_as_an_error_or_apart() {
    let dead: SocketAddr = "127.0.0.2:1".parse().unwrap();
    let split = OutlierDetection { split_local_origin: true, consecutive_local_origin: 3, ..quick(50) };
    let lasting = Duration::from_secs(30);
    for (settings, expected, cause) in [
        (quick(50), 2, "consecutive_5xx"),
        (split, 3, "consecutive_local_origin_failures"),
        (OutlierDetection { consecutive_gateway: 1, ..quick(50) }, 1, "consecutive_gateway_errors"),
    ] {
        let settings = OutlierDetection { base_ejection_time: lasting, ..settings };
        let good = Moody::start(false).await.address;
        let plan = Plan { mesh: false, ..Plan::new(&[dead, good]) };
        let (mesh, ..) = start(settings.clone(), plan).await;
        let seen = statuses(&mesh, 30).await;
        assert_eq!(seen.iter().filter(|status| **status == 503).count(), expected, "{seen:?}");
        assert_eq!(mesh.a.metric("mesh_proxy_ejections_total", &[cause]), 1, "{cause}");
        // Byte streams too.
        let applications = [dead, server_first().await];
        for via_mesh in [false, true] {
            let plan = Plan { protocol: Protocol::Tcp, mesh: via_mesh, ..Plan::new(&applications) };
            let (mesh, ..) = start(settings.clone(), plan).await;
            for _ in 0..30 {
                drop(connect(&mesh, "reviews:9080").await);
            }
            let ejections = mesh.a.metric("mesh_proxy_ejections_total", &[cause]);
            assert_eq!(ejections, 1, "{cause} {via_mesh}");
        }
    }
}

#[tokio::test]
async fn who_cannot_be_reached_is_left_alone_without_a_rule_too() {
    let well = Moody::start(false).await;
    let nobody = SocketAddr::new([127, 0, 0, 2].into(), 9);
    for mesh in [false, true] {
        let mut rule = default_rule();
        rule.retry = RetryPolicy::disabled();
        let plan = Plan::new(&[well.address, nobody]);
        let mesh = Mesh::start(Plan { rules: Some(vec![rule]), mesh, ..plan }).await;
        let began = tokio::time::Instant::now();
        let statuses = statuses(&mesh, 60).await;
        let failed = statuses.iter().filter(|status| **status != 200).count() as u64;
        // One, and one more in each second.
        assert!(failed >= 1 && failed <= 2 + began.elapsed().as_secs(), "{statuses:?}");
    }
}
