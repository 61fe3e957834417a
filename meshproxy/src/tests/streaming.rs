//! Bodies and times of streams: who cancels is heard, and whose time runs when.

use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use mesh_core::vocab::protocol::Protocol;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::harness::{Mesh, Plan, default_rule, echo, grpc_echo};

/// An HTTP/2 connection to the HTTP proxy of `a`.
async fn client(mesh: &Mesh) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(mesh.a.explicit).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client
}

fn grpc(timeout: Option<&str>) -> Request<()> {
    let request = Request::post("http://reviews:9080/").header("te", "trailers");
    let request = request.header("content-type", "application/grpc");
    match timeout {
        Some(timeout) => request.header("grpc-timeout", timeout).body(()).unwrap(),
        None => request.body(()).unwrap(),
    }
}

/// Answers nothing and reads nothing, but tells of each stream that begins and ends.
async fn deaf() -> (std::net::SocketAddr, mpsc::Receiver<&'static str>) {
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tell = tell.clone();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let tell = tell.clone();
                    let _told = tell.try_send("begun");
                    tokio::spawn(async move {
                        let unread = request.into_body();
                        let _reason = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
                        drop(unread);
                        let _told = tell.try_send("cancelled");
                    });
                }
            });
        }
    });
    (address, told)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cancels_in_the_middle_of_an_upload_that_stalls_is_heard_upstream() {
    for mesh in [true, false] {
        let (address, mut told) = deaf().await;
        let mesh = Mesh::start(Plan { protocol: Protocol::Grpc, mesh, ..Plan::new(&[address]) }).await;
        let mut client = client(&mesh).await;
        let (answer, mut upload) = client.send_request(grpc(None), false).unwrap();
        upload.send_data(Bytes::from(vec![0; 4 << 20]), false).unwrap();
        assert_eq!(told.recv().await, Some("begun"));
        // All windows on the way fill.
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop((answer, upload));
        let cancelled = tokio::time::timeout(Duration::from_secs(5), told.recv()).await;
        assert_eq!(cancelled, Ok(Some("cancelled")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_s_timeout_runs_from_the_end_of_the_request() {
    let mut rule = default_rule();
    rule.timeout = Some(Duration::from_millis(300));
    let plan = Plan { protocol: Protocol::Grpc, ..Plan::new(&[grpc_echo("127.0.0.2").await]) };
    let mesh = Mesh::start(Plan { rules: Some(vec![rule]), ..plan }).await;
    let mut client = client(&mesh).await;
    let (answer, mut upload) = client.send_request(grpc(None), false).unwrap();
    let mut answer = answer.await.unwrap().into_body();
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        upload.send_data("more".into(), false).unwrap();
        assert_eq!(answer.data().await.unwrap().unwrap(), "more");
    }
    upload.send_data("last".into(), true).unwrap();
    assert_eq!(answer.data().await.unwrap().unwrap(), "last");
    assert!(answer.trailers().await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn timeouts_hold_once_the_request_is_whole() {
    let (slow, own) = ("upstream request timeout", "downstream duration timeout");
    let ms = Duration::from_millis;
    for (route, sent, status, message) in [
        (Some(ms(300)), None, "14", slow),
        (Some(ms(300)), Some("1S"), "14", slow),
        (Some(ms(2000)), Some("100m"), "14", slow),
        (None, Some("100m"), "4", own),
    ] {
        let rule = mesh_core::routing::rule::HttpRule { timeout: route, ..default_rule() };
        let plan = Plan { protocol: Protocol::Grpc, ..Plan::new(&[deaf().await.0]) };
        let mesh = Mesh::start(Plan { rules: Some(vec![rule]), ..plan }).await;
        let began = Instant::now();
        let (answer, mut upload) = client(&mesh).await.send_request(grpc(sent), false).unwrap();
        upload.send_data("all".into(), true).unwrap();
        let answer = answer.await.unwrap();
        let told = (&answer.headers()["grpc-status"], &answer.headers()["grpc-message"]);
        assert_eq!(told, (&status.parse().unwrap(), &message.parse().unwrap()), "{route:?} {sent:?}");
        assert!(began.elapsed() < ms(1900));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn timeouts_hold_while_there_is_no_connection_for_the_body() {
    // Accepts and says nothing, so that TLS towards it never begins.
    let silent = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let server = Plan::new(&[silent.local_addr().unwrap()]);
    let rule =
        mesh_core::routing::rule::HttpRule { timeout: Some(Duration::from_millis(300)), ..default_rule() };
    let mut mesh = Mesh::start(Plan { rules: Some(vec![rule]), ..server }).await;
    // The hop to the other proxy leads there, too.
    mesh.b.inbound = silent.local_addr().unwrap();
    mesh.change(2, |_| {}).await;
    let began = Instant::now();
    let request = Request::post("http://reviews:9080/").body("small".into()).unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(5), mesh.send(request)).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (504, "upstream request timeout"));
    assert!(began.elapsed() < Duration::from_millis(1500));
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_are_told_how_much_time_there_is() {
    let check = async |route: Option<u64>, sent: Option<&str>, expected: Option<&str>| {
        let mut rule = default_rule();
        rule.timeout = route.map(Duration::from_secs);
        let plan = Plan { protocol: Protocol::Grpc, ..Plan::new(&[echo("127.0.0.2").await]) };
        let mesh = Mesh::start(Plan { rules: Some(vec![rule]), ..plan }).await;
        let (answer, _) = client(&mesh).await.send_request(grpc(sent), true).unwrap();
        let heard = answer.await.unwrap().into_body().data().await.unwrap().unwrap();
        let heard = String::from_utf8(heard.to_vec()).unwrap();
        let told = heard.lines().find_map(|line| line.strip_prefix("grpc-timeout: "));
        assert_eq!(told, expected, "{heard}");
    };
    check(None, None, None).await;
    check(None, Some("7S"), Some("7000m")).await;
    check(Some(2), Some("7S"), Some("2000m")).await;
    check(Some(2), None, Some("2000m")).await;
}

/// Takes three requests a connection, then says so with GOAWAY and skips what comes, as nginx does.
async fn takes_three() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let frame = |kind: u8, flags: u8, id: u32, payload: &[u8]| {
                    let length = (payload.len() as u32).to_be_bytes();
                    [&length[1..], &[kind, flags], &id.to_be_bytes(), payload].concat()
                };
                stream.read_exact(&mut [0; 24]).await?;
                stream.write_all(&frame(4, 0, 0, &[])).await?;
                // Requests may end in another order than they began: those before the last one are taken too.
                let (mut answered, mut last) = (0, 0);
                loop {
                    let mut head = [0; 9];
                    stream.read_exact(&mut head).await?;
                    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                    let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
                    stream.read_exact(&mut vec![0; length as usize]).await?;
                    match (head[3], head[4] & 1) {
                        (4, 0) => stream.write_all(&frame(4, 1, 0, &[])).await?,
                        // The end of a request: HEADERS or DATA with END_STREAM.
                        (0 | 1, 1) if answered < 3 || id < last => {
                            answered += 1;
                            let status_200 = [0x88];
                            stream.write_all(&frame(1, 4, id, &status_200)).await?;
                            stream.write_all(&frame(0, 1, id, b"taken")).await?;
                            last = last.max(id);
                            if answered == 3 {
                                let told = [last.to_be_bytes(), [0; 4]].concat();
                                stream.write_all(&frame(7, 0, 0, &told)).await?;
                            }
                        }
                        _ => {}
                    }
                }
                #[allow(unreachable_code, reason = "names the type of the errors above")]
                std::io::Result::Ok(())
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_connection_that_ends_has_not_taken_is_sent_on_another() {
    let address = takes_three().await;
    for mesh in [true, false] {
        let mut rule = default_rule();
        rule.retry = mesh_core::resilience::retry::RetryPolicy::disabled();
        let plan = Plan { protocol: Protocol::Grpc, mesh, ..Plan::new(&[address]) };
        let mesh = Mesh::start(Plan { rules: Some(vec![rule]), ..plan }).await;
        let mut client = client(&mesh).await;
        let mut answers = Vec::new();
        for _ in 0..12 {
            let (answer, mut upload) = client.send_request(grpc(None), false).unwrap();
            upload.send_data("abc".into(), true).unwrap();
            answers.push(answer);
        }
        for answer in answers {
            let answer = answer.await.unwrap();
            assert!(!answer.headers().contains_key("grpc-status"), "{:?}", answer.headers());
            assert_eq!(answer.into_body().data().await.unwrap().unwrap(), "taken");
        }
    }
}
