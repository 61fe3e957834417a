//! Upstreams that answer before they were asked whole, and upstreams that do not take what they are sent.

use std::time::Duration;

use mesh_core::resilience::retry::RetryPolicy;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::http2::{SETTINGS, early, http2, setting};
use super::upstream::Step::{Asked, Behave, Close, Idle, Pause, Send};
use super::upstream::{ENDLESS, Speaks, Step, Upstream};
use super::{Raw, Scene};

/// Sends a request with a body of which only a part comes.
async fn begin(scene: &Scene, length: usize, part: usize) -> TcpStream {
    let mut stream = TcpStream::connect(scene.mesh.a.explicit).await.unwrap();
    let head = format!(
        "POST http://reviews:9080/early HTTP/1.1\r\nhost: reviews:9080\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![b'x'; part]).await.unwrap();
    stream
}

/// The answer up to its end, while the request goes on being sent.
async fn answer(stream: &mut TcpStream, expected: &str) -> Raw {
    use tokio::io::AsyncReadExt as _;
    let mut bytes = Vec::new();
    let read = async {
        while !String::from_utf8_lossy(&bytes).contains(expected) {
            if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                break;
            }
        }
    };
    drop(tokio::time::timeout(super::PATIENCE, read).await);
    Raw::read(&bytes)
}

/// An answer that is whole counts, though the rest of the request was not wanted.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_comes_early_is_passed_on() {
    let too_large =
        b"HTTP/1.1 413 Content Too Large\r\nconnection: close\r\ncontent-length: 8\r\n\r\ntoo much";
    let http1: Vec<Step> = vec![Asked, Send(too_large.to_vec()), Pause, Close];
    let two: Vec<Step> = vec![Send(SETTINGS.to_vec()), Asked, Send(early()), Behave];
    for (steps, speaks, code, body) in
        [(http1, Speaks::Http1, 413, "too much"), (two, Speaks::Http2, 200, "enough")]
    {
        for mesh in [false, true] {
            let change = |plan: &mut super::Plan| {
                if speaks == Speaks::Http2 {
                    http2(plan);
                }
                plan.mesh = mesh;
            };
            let mut scene = Scene::start(change, RetryPolicy::default()).await;
            let upstream = Upstream::start(steps.clone(), speaks, false).await;
            scene.point_at(upstream.address).await;
            let mut stream = begin(&scene, 1 << 20, 1000).await;
            let answer = answer(&mut stream, body).await;
            assert_eq!(answer.code, code, "{speaks:?} {mesh} {answer:?}");
            assert!(answer.text.contains(body), "{speaks:?} {mesh} {answer:?}");
        }
    }
}

/// A body that nobody takes is not heaped up.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_not_taken_holds_its_client_back() {
    // HTTP/1.1 that is not read any further, and HTTP/2 whose streams have no window.
    let unread: Vec<Step> = vec![Asked, Idle];
    let closed: Vec<Step> = vec![Send(setting(4, 0)), Asked, Behave];
    for (steps, speaks) in [(unread, Speaks::Http1), (closed, Speaks::Http2)] {
        for mesh in [false, true] {
            let change = |plan: &mut super::Plan| {
                if speaks == Speaks::Http2 {
                    http2(plan);
                }
                plan.mesh = mesh;
            };
            let mut scene = Scene::start(change, RetryPolicy::default()).await;
            let upstream = Upstream::start(steps.clone(), speaks, false).await;
            scene.point_at(upstream.address).await;
            let mut stream = begin(&scene, ENDLESS, 1000).await;
            let piece = vec![b'x'; 64 << 10];
            let mut sent = 0;
            let stalled = Duration::from_millis(300);
            while let Ok(Ok(length @ 1..)) = tokio::time::timeout(stalled, stream.write(&piece)).await {
                sent += length;
                assert!(sent < ENDLESS / 4, "{speaks:?} {mesh}: it never ends");
            }
        }
    }
}
