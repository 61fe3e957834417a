//! What `connectionPool` limits: connections, what waits, what is under way, and how long connections live.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mesh_core::resilience::pool::ConnectionPool;
use mesh_core::vocab::protocol::Protocol;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::harness::{Answer, Mesh, Plan, Shape, application};
use super::streams::{connect, server_first};

fn limited(pool: ConnectionPool) -> Shape {
    Box::new(move |destination| destination.pool = pool.limits(None))
}

async fn slow() -> SocketAddr {
    application("127.0.0.2", |_| async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        Response::new(Full::new(Bytes::from_static(b"done")))
    })
    .await
}

async fn at_once(mesh: &Mesh, count: usize) -> Vec<Answer> {
    futures_util::future::join_all((0..count).map(|_| mesh.get("http://reviews:9080/"))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_is_answered_at_once() {
    let one = ConnectionPool {
        max_connections: Some(1),
        max_pending_requests: Some(1),
        ..ConnectionPool::default()
    };
    let two = ConnectionPool { max_requests: Some(2), ..ConnectionPool::default() };
    for (pool, served, via_mesh) in [(one, 2, true), (one, 2, false), (two, 2, true), (two, 2, false)] {
        let plan = Plan { shape: limited(pool), mesh: via_mesh, ..Plan::new(&[slow().await]) };
        let mesh = Mesh::start(plan).await;
        // Connections are made: that alone has requests wait.
        assert_eq!(mesh.get("http://reviews:9080/").await.status, 200);
        for round in 1..3 {
            let answers = at_once(&mesh, 5).await;
            let refused: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 503).collect();
            assert_eq!((answers.len() - refused.len(), refused.len()), (served, 5 - served), "{answers:?}");
            for answer in refused {
                assert_eq!(answer.header("x-envoy-overloaded"), "true");
                assert_eq!(
                    answer.body,
                    "upstream connect error or disconnect/reset before headers. reset reason: overflow"
                );
            }
            let flagged = mesh.a.metric("istio_requests_total", &["response_flags=\"UO\""]);
            assert_eq!(flagged, 3 * round);
            assert!(
                mesh.a.metric("mesh_proxy_overflows_total", &["cluster=\"outbound|9080||reviews"]) >= flagged
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_change_while_requests_are_under_way() {
    let pool = ConnectionPool { max_requests: Some(1), ..ConnectionPool::default() };
    let mut mesh = Mesh::start(Plan { shape: limited(pool), ..Plan::new(&[slow().await]) }).await;
    let to = mesh.a.explicit;
    let request = || http::Request::get("http://reviews:9080/").body(Full::default()).unwrap();
    let first = tokio::spawn(super::harness::exchange(to, request()));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(mesh.get("http://reviews:9080/").await.status, 503);
    // One of two is under way still.
    let pool = ConnectionPool { max_requests: Some(2), ..ConnectionPool::default() };
    mesh.change(2, |plan| plan.shape = limited(pool)).await;
    let statuses: Vec<u16> = at_once(&mesh, 2).await.iter().map(|answer| answer.status.as_u16()).collect();
    assert!(statuses.contains(&200) && statuses.contains(&503), "{statuses:?}");
    assert_eq!(first.await.unwrap().status, 200);
}

/// Counts its connections: those that there were, and those that are open.
async fn counted() -> (SocketAddr, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (made, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (Arc::clone(&made), Arc::clone(&open));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            made.fetch_add(1, Ordering::SeqCst);
            open.fetch_add(1, Ordering::SeqCst);
            let open = Arc::clone(&open);
            tokio::spawn(async move {
                let service = service_fn(|_| async {
                    Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from("x")))
                });
                drop(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await,
                );
                open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    (address, counts.0, counts.1)
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let reached = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(5), reached).await.is_ok(), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_take_so_many_requests_and_live_so_long() {
    for via_mesh in [false, true] {
        let started = |pool: ConnectionPool| async move {
            let (address, made, open) = counted().await;
            // The proxy of the workload carries its own rule out, the caller's the same where there is no other.
            let plan = Plan { shape: limited(pool), pool, mesh: via_mesh, ..Plan::new(&[address]) };
            (Mesh::start(plan).await, made, open)
        };
        let two = ConnectionPool { max_requests_per_connection: Some(2), ..ConnectionPool::default() };
        let (mesh, made, _) = started(two).await;
        for _ in 0..6 {
            assert_eq!(mesh.get("http://reviews:9080/").await.status, 200);
        }
        assert_eq!(made.load(Ordering::SeqCst), 3, "{via_mesh}");
        let idle = ConnectionPool {
            http_idle_timeout: Some(Duration::from_millis(400)),
            ..ConnectionPool::default()
        };
        let aged = ConnectionPool {
            max_connection_duration: Some(Duration::from_millis(400)),
            ..ConnectionPool::default()
        };
        for pool in [idle, aged] {
            let (mesh, made, open) = started(pool).await;
            for _ in 0..2 {
                assert_eq!(mesh.get("http://reviews:9080/").await.status, 200);
            }
            assert_eq!(made.load(Ordering::SeqCst), 1, "{via_mesh} {pool:?}");
            until("it is closed", || open.load(Ordering::SeqCst) == 0).await;
            assert_eq!(mesh.get("http://reviews:9080/").await.status, 200);
            assert_eq!(made.load(Ordering::SeqCst), 2);
        }
        let usual = ConnectionPool::default();
        let (mesh, made, open) = started(usual).await;
        for _ in 0..4 {
            assert_eq!(mesh.get("http://reviews:9080/").await.status, 200);
        }
        assert_eq!((made.load(Ordering::SeqCst), open.load(Ordering::SeqCst)), (1, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_of_a_workload_limits_all_callers_together() {
    let pool = ConnectionPool { max_requests: Some(1), ..ConnectionPool::default() };
    let mesh = Mesh::start(Plan { pool, ..Plan::new(&[slow().await]) }).await;
    let answers = at_once(&mesh, 3).await;
    let refused: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 503).collect();
    assert_eq!(refused.len(), 2, "{answers:?}");
    assert!(refused.iter().all(|answer| answer.header("x-envoy-overloaded") == "true"));
    assert_eq!(mesh.b.metric("istio_requests_total", &["response_flags=\"UO\""]), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_limited_and_end_with_their_time() {
    for via_mesh in [true, false] {
        let pool = ConnectionPool { max_connections: Some(1), ..ConnectionPool::default() };
        let plan =
            |pool| Plan { protocol: Protocol::Tcp, shape: limited(pool), mesh: via_mesh, ..Plan::new(&[]) };
        let mesh = Mesh::start(Plan { applications: vec![server_first().await], ..plan(pool) }).await;
        let (mut first, _) = connect(&mesh, "reviews:9080").await;
        let mut greeting = [0; 6];
        first.read_exact(&mut greeting).await.unwrap();
        let (mut second, _) = connect(&mesh, "reviews:9080").await;
        let mut heard = String::new();
        drop(second.read_to_string(&mut heard).await);
        assert_eq!(heard, "");
        let flagged = || mesh.a.metric("istio_tcp_connections_closed_total", &["response_flags=\"UO\""]);
        until("the refusal is counted", || flagged() == 1).await;
        drop(first);
        until("the place is free", || {
            mesh.a.metric("istio_tcp_connections_closed_total", &["response_flags=\"-\""]) == 1
        })
        .await;
        let (mut third, _) = connect(&mesh, "reviews:9080").await;
        third.read_exact(&mut greeting).await.unwrap();

        let short = Duration::from_millis(200);
        let aged = ConnectionPool { max_connection_duration: Some(short), ..ConnectionPool::default() };
        let idle = ConnectionPool { tcp_idle_timeout: Some(short), ..ConnectionPool::default() };
        for pool in [aged, idle] {
            let mesh = Mesh::start(Plan { applications: vec![server_first().await], ..plan(pool) }).await;
            let (mut stream, _) = connect(&mesh, "reviews:9080").await;
            stream.write_all(b"x").await.unwrap();
            let ended = tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut heard)).await;
            assert!(ended.is_ok(), "{pool:?}");
            until("the end is counted", || {
                mesh.a.metric("istio_tcp_connections_closed_total", &["source"]) == 1
            })
            .await;
        }
    }
}

/// An application that answers whatever it reads, and how many connections are open to it.
async fn counting() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let (address, open) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&open);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let count = Arc::clone(&count);
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut bytes = [0; 4096];
                while stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                    if stream.write_all(answer).await.is_err() {
                        break;
                    }
                }
                count.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    (address, open)
}

#[tokio::test]
async fn connections_to_an_endpoint_that_has_gone_are_closed() {
    let ((one, at_one), (other, at_other)) = (counting().await, counting().await);
    let mut mesh = Mesh::start(Plan { mesh: false, ..Plan::new(&[one, other]) }).await;
    for _ in 0..20 {
        assert_eq!(mesh.get("http://reviews:9080/").await.status, 200);
    }
    let open = |count: &AtomicUsize| count.load(Ordering::SeqCst);
    assert!(open(&at_one) > 0 && open(&at_other) > 0);
    mesh.change(2, |plan| plan.applications = vec![other]).await;
    tokio::time::timeout(Duration::from_secs(20), async {
        while open(&at_one) > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    assert!(open(&at_other) > 0);
}
