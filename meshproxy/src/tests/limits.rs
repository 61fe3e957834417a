//! Limits and times as operators set them: each has its status, its flag and its metric, and nobody else notices.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use mesh_core::resilience::pressure::Yielding;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::harness::{Mesh, Plan, application, echo};
use crate::http::server::PANIC;
use crate::net::limits::Limits;

/// Whatever a test waits for comes sooner.
const PATIENCE: Duration = Duration::from_secs(20);
/// A limit of time that is soon over.
const SOON: Duration = Duration::from_millis(300);

/// Waits until the metrics of a proxy have a line with these words and at least so large a number.
async fn counted(metrics: &crate::telemetry::metrics::Metrics, words: &[&str], least: f64) {
    let find = async {
        loop {
            let text = metrics.render();
            let mut lines = text.lines().filter(|line| !line.starts_with('#'));
            let line = lines.find(|line| words.iter().all(|word| line.contains(word)));
            let value = line.and_then(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
            if value.is_some_and(|value| value >= least) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, find).await.unwrap_or_else(|_| panic!("{words:?}: {}", metrics.render()));
}

async fn read_all(stream: &mut TcpStream) -> String {
    let mut heard = Vec::new();
    drop(tokio::time::timeout(PATIENCE, stream.read_to_end(&mut heard)).await.expect("it is closed"));
    String::from_utf8_lossy(&heard).into_owned()
}

async fn status(mesh: &Mesh, bytes: &str) -> u16 {
    let mut stream = TcpStream::connect(mesh.a.explicit).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let heard = read_all(&mut stream).await;
    heard.get(9..12).and_then(|code| code.parse().ok()).unwrap_or(0)
}

async fn over_http2(mesh: &Mesh) -> h2::client::SendRequest<Bytes> {
    let stream = TcpStream::connect(mesh.a.explicit).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender.ready().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_are_what_the_operator_says() {
    let mut limits = Limits::default();
    limits.sizes.method = 4;
    limits.sizes.target = 100;
    limits.sizes.fields = 6;
    limits.sizes.field = 64;
    limits.sizes.list = 256;
    limits.sizes.extension = 8;
    limits.sizes.extensions = 12;
    limits.sizes.trailers = 2;
    limits.sizes.trailer_list = 64;
    let mesh = Mesh::start(Plan { limits, ..Plan::new(&[echo("127.0.0.2").await]) }).await;
    let request = |line: &str, fields: &str, rest: &str| {
        format!("{line} HTTP/1.1\r\nhost: reviews:9080\r\nconnection: close\r\n{fields}\r\n{rest}")
    };
    let get = |fields: &str| request("GET http://reviews:9080/", fields, "");
    let post = |rest: &str| request("POST http://reviews:9080/", "transfer-encoding: chunked\r\n", rest);
    let many = |count: usize| -> String { (0..count).map(|n| format!("x-{n}: y\r\n")).collect() };
    let rows: &[(&str, String, u16)] = &[
        ("method", request("OPTIONS http://reviews:9080/", "", ""), 400),
        ("target", request(&format!("GET http://reviews:9080/{}", "a".repeat(100)), "", ""), 414),
        ("field_count", get(&many(5)), 431),
        ("fields", get(&format!("x: {}\r\n", "y".repeat(64))), 431),
        ("chunk_extensions", post("1;aaaaaaaaa\r\nx\r\n0\r\n\r\n"), 400),
        ("trailers", post("1\r\nx\r\n0\r\na: 1\r\nb: 2\r\nc: 3\r\n\r\n"), 431),
    ];
    for (reason, bytes, expected) in rows {
        assert_eq!(status(&mesh, bytes).await, *expected, "{reason}");
        let label = format!("reason=\"{reason}\"");
        counted(&mesh.a.shared.metrics, &["bytes_refused_total", "from=\"downstream\"", &label], 1.0).await;
    }
    for good in [get(&many(4)), post("1;aaaaaaa\r\nx\r\n0\r\na: 1\r\n\r\n")] {
        assert_eq!(status(&mesh, &good).await, 200, "{good}");
    }
    // The same over HTTP/2, where the codec would have let it pass.
    let mut sender = over_http2(&mesh).await;
    let large = Request::get("http://reviews:9080/").header("x", "y".repeat(100)).body(()).unwrap();
    let (answer, _) = sender.send_request(large, true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 431);
    counted(&mesh.a.shared.metrics, &["bytes_refused_total", "downstream", "reason=\"fields\""], 2.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_proxies_add_does_not_count() {
    let app = application("127.0.0.2", |_| async {
        let mut answer = http::Response::builder();
        // hyper adds a date and a length.
        for n in 0..38 {
            answer = answer.header(format!("x-{n}"), "y");
        }
        answer.body(http_body_util::Full::new(Bytes::new())).unwrap()
    })
    .await;
    let mut limits = Limits::default();
    limits.sizes.fields = 40;
    let mesh = Mesh::start(Plan { limits, ..Plan::new(&[app]) }).await;
    let fields: String = (0..38).map(|n| format!("x-{n}: y\r\n")).collect();
    let head = "GET http://reviews:9080/ HTTP/1.1\r\nhost: reviews:9080\r\nconnection: close\r\n";
    assert_eq!(status(&mesh, &format!("{head}{fields}\r\n")).await, 200);
    assert_eq!(status(&mesh, &format!("{head}x: y\r\n{fields}\r\n")).await, 431);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_http2_must_go_on() {
    let mut limits = Limits::default();
    limits.patience.body = SOON;
    let mesh = Mesh::start(Plan { limits, ..Plan::new(&[echo("127.0.0.2").await]) }).await;
    let mut sender = over_http2(&mesh).await;
    let begin = |content: &str| {
        Request::post("http://reviews:9080/").header("content-type", content).body(()).unwrap()
    };
    let (silent, mut part) = sender.send_request(begin("text/plain"), false).unwrap();
    part.send_data(Bytes::from_static(b"part"), false).unwrap();
    let (steady, mut parts) = sender.send_request(begin("text/plain"), false).unwrap();
    let (patient, mut late) = sender.send_request(begin("application/grpc"), false).unwrap();
    for _ in 0..8 {
        tokio::time::sleep(SOON / 4).await;
        parts.send_data(Bytes::from_static(b"x"), false).unwrap();
    }
    let silent = tokio::time::timeout(PATIENCE, silent).await.unwrap().unwrap();
    assert_eq!(silent.status(), 408);
    parts.send_data(Bytes::new(), true).unwrap();
    assert_eq!(steady.await.unwrap().status(), 200);
    late.send_data(Bytes::new(), true).unwrap();
    assert_eq!(patient.await.unwrap().status(), 200);
    counted(&mesh.a.shared.metrics, &["bytes_refused_total", "reason=\"slow_body\""], 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_drips_is_none() {
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                drop(stream.read(&mut [0; 1024]).await);
                let head = "HTTP/1.1 200 OK\r\nx-a: ".bytes().chain(std::iter::repeat(b'a'));
                for byte in head {
                    if stream.write_all(&[byte]).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(SOON / 10).await;
                }
            });
        }
    });
    let mut limits = Limits::default();
    limits.patience.head = SOON;
    let mesh = Mesh::start(Plan { limits, mesh: false, ..Plan::new(&[address]) }).await;
    let answer = tokio::time::timeout(PATIENCE, mesh.get("http://reviews:9080/")).await.unwrap();
    assert_eq!(answer.status, 502);
    counted(&mesh.a.shared.metrics, &["bytes_refused_total", "upstream", "reason=\"slow_head\""], 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_is_not_waited_for() {
    let mut limits = Limits::default();
    limits.patience.first_byte = SOON;
    limits.patience.handshake = SOON;
    limits.patience.head = SOON;
    limits.patience.ping_every = SOON;
    limits.patience.ping_within = SOON;
    let mesh = Mesh::start(Plan { limits, ..Plan::new(&[echo("127.0.0.2").await]) }).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let rows: &[(&str, std::net::SocketAddr, &[u8])] = &[
        ("no first byte", mesh.a.explicit, b""),
        ("no handshake", mesh.a.inbound, b""),
        ("half a handshake", mesh.a.inbound, b"\x16\x03\x01\x02\0\x01"),
        ("half a head", mesh.a.explicit, b"GET http://reviews:9080/ HTTP/1.1\r\nhost:"),
        ("half a preface", mesh.a.explicit, &preface[..16]),
        ("half a frame", mesh.a.explicit, &preface[..28]),
        ("half a header block", mesh.a.explicit, &[&preface[..], b"\0\0\x01\x01\0\0\0\0\x01\x82"].concat()),
        ("no answer to a ping", mesh.a.explicit, preface),
    ];
    for (name, to, bytes) in rows {
        let begun = tokio::time::Instant::now();
        let mut stream = TcpStream::connect(to).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        read_all(&mut stream).await;
        assert!(begun.elapsed() >= SOON / 2, "{name}: at once");
    }
    counted(&mesh.a.shared.metrics, &["handshake_failures_total"], 2.0).await;
    assert_eq!(mesh.get("http://reviews:9080/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_short_of_something_gives_way() {
    let mesh = Mesh::start(Plan::new(&[echo("127.0.0.2").await])).await;
    let (a, b) = (&mesh.a.shared, &mesh.b.shared);
    let none = Yielding::default();
    let streams = Yielding { streams: true, ..none };
    let connections = Yielding { connections: true, ..none };
    assert_eq!(mesh.get("http://reviews:9080/").await.status, 200);
    for (proxy, reason) in [(a, "memory"), (b, "descriptors")] {
        match reason {
            "memory" => proxy.pressure.set(streams, none),
            _ => proxy.pressure.set(none, streams),
        }
        let answer = mesh.get("http://reviews:9080/").await;
        assert_eq!((answer.status.as_u16(), &*answer.body), (503, "envoy overloaded"), "{reason}");
        let label = format!("reason=\"{reason}\"");
        counted(&proxy.metrics, &["streams_shed_total", &label], 1.0).await;
        counted(&proxy.metrics, &["istio_requests_total", "response_flags=\"OM\""], 1.0).await;
        proxy.pressure.set(none, none);
        assert_eq!(mesh.get("http://reviews:9080/").await.status, 200, "{reason}");
    }
    let mut idle = over_http2(&mesh).await;
    let (answer, _) =
        idle.send_request(Request::get("http://reviews:9080/").body(()).unwrap(), true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
    a.pressure.set(connections, none);
    let mut refused = TcpStream::connect(mesh.a.explicit).await.unwrap();
    assert_eq!(read_all(&mut refused).await, "");
    counted(&a.metrics, &["connections_shed_total", "reason=\"memory\""], 1.0).await;
    // Who is there already is served.
    let mut idle = idle.ready().await.unwrap();
    let (answer, _) =
        idle.send_request(Request::get("http://reviews:9080/").body(()).unwrap(), true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
    a.pressure.set(none, Yielding { idle: true, ..none });
    let gone = async {
        while idle.clone().ready().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("idle connections go");
    counted(&a.metrics, &["connections_shed_total", "reason=\"idle\""], 1.0).await;
    a.pressure.set(none, none);
    assert_eq!(mesh.get("http://reviews:9080/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_busiest_goes_when_memory_is_used_up() {
    let app = application("127.0.0.2", |_| std::future::pending()).await;
    let mesh = Mesh::start(Plan::new(&[app])).await;
    let (mut quiet, mut busy) = (over_http2(&mesh).await, over_http2(&mesh).await);
    let ask = |sender: &mut h2::client::SendRequest<Bytes>| {
        sender.send_request(Request::get("http://reviews:9080/").body(()).unwrap(), true).unwrap().0
    };
    let one = ask(&mut quiet);
    let many: Vec<_> = (0..20).map(|_| ask(&mut busy)).collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let pressure = &mesh.a.shared.pressure;
    pressure.set(Yielding { busy: true, ..Yielding::default() }, Yielding::default());
    for answer in many {
        tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap_err();
    }
    pressure.set(Yielding::default(), Yielding::default());
    counted(&mesh.a.shared.metrics, &["connections_shed_total", "reason=\"busy\""], 1.0).await;
    drop(one);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_identity_has_so_many_connections() {
    let release = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let held = std::sync::Arc::clone(&release);
    let app = application("127.0.0.2", move |_| {
        let held = std::sync::Arc::clone(&held);
        async move {
            drop(held.acquire().await);
            http::Response::new(http_body_util::Full::new(Bytes::new()))
        }
    })
    .await;
    let limits = Limits { of_identity: 1, ..Limits::default() };
    let mesh = std::sync::Arc::new(Mesh::start(Plan { limits, ..Plan::new(&[app]) }).await);
    let asked: Vec<_> = (0..110)
        .map(|_| {
            let mesh = std::sync::Arc::clone(&mesh);
            tokio::spawn(async move { mesh.get("http://reviews:9080/").await.status.as_u16() })
        })
        .collect();
    // A connection has a hundred streams; the others would need another one, which there is not.
    counted(&mesh.b.shared.metrics, &["connections_shed_total", "reason=\"identity\""], 1.0).await;
    release.add_permits(1_000);
    let mut served = 0;
    for answer in asked {
        let status = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
        assert!(matches!(status, 200 | 503), "{status}");
        served += usize::from(status == 200);
    }
    assert!((90..110).contains(&served), "{served} were served");
    assert_eq!(mesh.get("http://reviews:9080/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_costs_its_connection_and_is_counted() {
    let mesh = Mesh::start(Plan::new(&[echo("127.0.0.2").await])).await;
    let mut sender = over_http2(&mesh).await;
    let (beside, mut rest) =
        sender.send_request(Request::post("http://reviews:9080/").body(()).unwrap(), false).unwrap();
    let bad = format!("GET http://reviews:9080/ HTTP/1.1\r\nhost: reviews:9080\r\n{PANIC}: 1\r\n\r\n");
    assert_eq!(status(&mesh, &bad).await, 0, "the connection is closed");
    counted(&mesh.a.shared.metrics, &["mesh_proxy_panics_total"], 1.0).await;
    // In HTTP/2 it costs one stream.
    let bad = Request::get("http://reviews:9080/").header(PANIC, "1").body(()).unwrap();
    let (answer, _) = sender.send_request(bad, true).unwrap();
    tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap_err();
    counted(&mesh.a.shared.metrics, &["mesh_proxy_panics_total"], 2.0).await;
    rest.send_data(Bytes::from_static(b"x"), true).unwrap();
    assert_eq!(beside.await.unwrap().status(), 200);
    assert_eq!(mesh.get("http://reviews:9080/").await.status, 200);
    let open = async {
        while mesh.a.shared.drain.open() > 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, open).await.expect("its place is free again");
}
