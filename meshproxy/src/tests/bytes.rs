//! Bytes on the wire, in both directions: what is refused and how, what goes on, and that connections stay of use or do
//! not. Each row has the section or the advisory that it comes from.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mesh_core::vocab::protocol::Protocol;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::harness::{Mesh, Plan, echo, grpc_echo};

/// An application on raw sockets: notes what it hears and answers each request with the same bytes. Ends a connection
/// after an answer that has no end of its own.
struct Recorder {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
    connections: Arc<Mutex<usize>>,
}

impl Recorder {
    async fn start(answer: impl Into<Vec<u8>>) -> Recorder {
        let answer: Arc<Vec<u8>> = Arc::new(answer.into());
        let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (heard, connections) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<Mutex<usize>>::default());
        let (notes, count) = (Arc::clone(&heard), Arc::clone(&connections));
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                *count.lock().unwrap() += 1;
                let (answer, notes) = (Arc::clone(&answer), Arc::clone(&notes));
                tokio::spawn(async move {
                    while let Some(request) = read_message(&mut stream).await {
                        notes.lock().unwrap().push(request);
                        if stream.write_all(&answer).await.is_err() {
                            return;
                        }
                        if answer.windows(5).any(|w| w == b"UNTIL") {
                            return;
                        }
                    }
                });
            }
        });
        Recorder { address, heard, connections }
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

/// One message with its body; `None` where the connection ends before.
async fn read_message(stream: &mut TcpStream) -> Option<String> {
    let mut message = Vec::new();
    while !message.ends_with(b"\r\n\r\n") {
        message.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8_lossy(&message).to_ascii_lowercase();
    if head.contains("transfer-encoding: chunked") {
        while !message.ends_with(b"\r\n0\r\n\r\n") && !message.ends_with(b"\r\n\r\n0\r\n\r\n") {
            message.push(stream.read_u8().await.ok()?);
        }
    } else if let Some((_, rest)) = head.split_once("content-length: ") {
        let length: usize = rest.split("\r\n").next()?.parse().ok()?;
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        message.extend(body);
    }
    Some(String::from_utf8_lossy(&message).into_owned())
}

/// Sends bytes and reads until the proxy closes, or is silent for a while.
async fn answers(to: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(to).await.unwrap();
    // The proxy may close before it has read everything.
    drop(stream.write_all(bytes).await);
    let mut heard = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        // The first answer may be long in coming where much else runs; a missing second one shows sooner.
        let patience = Duration::from_millis(if heard.is_empty() { 5_000 } else { 500 });
        let Ok(Ok(length @ 1..)) = tokio::time::timeout(patience, stream.read(&mut buffer)).await else {
            break;
        };
        heard.extend_from_slice(&buffer[..length]);
    }
    String::from_utf8_lossy(&heard).into_owned()
}

fn statuses(heard: &str) -> Vec<u16> {
    let lines = heard.split("HTTP/1.1 ").skip(1);
    lines.filter_map(|line| line.get(..3)?.parse().ok()).collect()
}

/// Connections whose bytes were refused count when they have ended.
async fn counted(mesh: &Mesh, label: &str, expected: usize) {
    let counted = async {
        while mesh.a.metric("mesh_proxy_bytes_refused_total", &[label]) < expected as u64 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), counted).await.expect("each is counted");
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const HEAD: &str = "POST http://reviews:9080/x HTTP/1.1\r\nhost: reviews:9080\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_can_be_read_in_two_ways_are_refused() {
    let recorder = Recorder::start(OK).await;
    let mesh = Mesh::start(Plan { mesh: false, ..Plan::new(&[recorder.address]) }).await;
    // The request that would be smuggled in.
    let next = "GET http://reviews:9080/smuggled HTTP/1.1\r\nhost: reviews:9080\r\n\r\n";
    let rows: &[(&str, String, u16)] = &[
        (
            "RFC9112-6.1",
            format!("{HEAD}transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n{next}"),
            400,
        ),
        (
            "RFC9112-6.1",
            format!("{HEAD}content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{next}"),
            400,
        ),
        ("RFC9112-6.3", format!("{HEAD}content-length: 3\r\ncontent-length: 3\r\n\r\nabc{next}"), 400),
        ("RFC9112-6.3", format!("{HEAD}content-length: 3, 3\r\n\r\nabc{next}"), 400),
        ("RUSTSEC-2021-0078", format!("{HEAD}content-length: +3\r\n\r\nabc{next}"), 400),
        ("CVE-2023-40225", format!("{HEAD}content-length:\r\n\r\n{next}"), 400),
        ("RFC9112-6.1", format!("{HEAD}transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n{next}"), 501),
        (
            "RUSTSEC-2021-0020",
            format!("{HEAD}transfer-encoding: chunked\r\ntransfer-encoding: x\r\n\r\n0\r\n\r\n"),
            501,
        ),
        ("RFC9112-5.1", format!("{HEAD}transfer-encoding : chunked\r\n\r\n0\r\n\r\n{next}"), 400),
        ("RFC9112-5.2", format!("{HEAD}x: a\r\n transfer-encoding: chunked\r\n\r\n{next}"), 400),
        ("RFC9112-2.2", format!("{HEAD}x: a\ny: b\r\n\r\n"), 400),
        ("RFC9112-2.2", format!("{HEAD}x: a\rb\r\n\r\n"), 400),
        ("CVE-2019-9900", format!("{HEAD}x: a\0b\r\n\r\n"), 400),
        ("CVE-2023-25725", format!("{HEAD}: x\r\ncontent-length: 3\r\n\r\nabc"), 400),
        ("RFC9112-2.2", format!("\r\n\r\n\r\n{HEAD}content-length: 0\r\n\r\n"), 400),
        ("RFC9112-2.3", next.replace("HTTP/1.1", "HTTP/2.0"), 505),
        ("RFC9112-2.3", next.replace("HTTP/1.1", "http/1.1"), 400),
        ("limit", next.replace("GET", &"G".repeat(40)), 400),
        ("limit", next.replace("/smuggled", &"/a".repeat(5000)), 414),
        ("limit", format!("{HEAD}x: {}\r\n\r\n", "y".repeat(17_000)), 431),
        ("limit", format!("{HEAD}{}\r\n", "x: y\r\n".repeat(120)), 431),
        ("CVE-2019-18801", format!("{HEAD}x: {}\r\n\r\n", "y".repeat(64 * 1024)), 431),
    ];
    for (id, bytes, expected) in rows {
        let heard = answers(mesh.a.explicit, bytes.as_bytes()).await;
        assert_eq!(statuses(&heard), [*expected], "{id}: {bytes:.200?}\n{heard}");
        assert!(heard.contains("connection: close"), "{id}: {heard}");
    }
    assert_eq!(recorder.heard(), [""; 0], "nothing of them may arrive");
    assert_eq!(mesh.a.metric("istio_requests_total", &["response_flags=\"DPE\""]), rows.len() as u64);
    counted(&mesh, "from=\"downstream\"", rows.len()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_go_wrong_break_their_request_off() {
    let next = "GET http://reviews:9080/smuggled HTTP/1.1\r\nhost: reviews:9080\r\n\r\n";
    let chunked = format!("{HEAD}transfer-encoding: chunked\r\n\r\n");
    let rows: &[(&str, String, u16)] = &[
        ("CVE-2025-55315", format!("3;a\nabc\r\n0\r\n\r\n{next}"), 400),
        ("CVE-2025-55315", format!("3;\rx\r\nabc\r\n0\r\n\r\n{next}"), 400),
        ("RFC9112-7.1", format!("3\r\nabcde\r\n0\r\n\r\n{next}"), 400),
        ("RFC9112-7.1", format!("0x3\r\nabc\r\n0\r\n\r\n{next}"), 400),
        ("RFC9112-7.1", "3\r\nabc\r\n3\r\nabc\n0\r\n\r\n".to_owned(), 400),
        ("RUSTSEC-2021-0079", "10000000000000003\r\nabc\r\n0\r\n\r\n".to_owned(), 400),
        ("CVE-2024-22019", format!("3;{}\r\nabc\r\n0\r\n\r\n", "e".repeat(64 * 1024)), 400),
        ("CVE-2023-39326", format!("{}0\r\n\r\n", "1;eeeeeeee\r\nx\r\n".repeat(2000)), 400),
        ("RFC9110-6.5.1", "3\r\nabc\r\n0\r\nhost: evil\r\n\r\n".to_owned(), 400),
        ("RFC9110-6.5.1", "3\r\nabc\r\n0\r\ncontent-length: 3\r\n\r\n".to_owned(), 400),
        ("limit", format!("3\r\nabc\r\n0\r\n{}\r\n", "x: y\r\n".repeat(40)), 431),
    ];
    for hop in [false, true] {
        let recorder = Recorder::start(OK).await;
        let mesh = Mesh::start(Plan { mesh: hop, ..Plan::new(&[recorder.address]) }).await;
        for (id, body, expected) in rows {
            let heard = answers(mesh.a.explicit, format!("{chunked}{body}").as_bytes()).await;
            assert_eq!(statuses(&heard), [*expected], "{id}: {body:.200?}\n{heard}");
        }
        assert_eq!(recorder.heard(), [""; 0], "none of them may be whole");
        assert_eq!(mesh.a.metric("istio_requests_total", &["response_flags=\"DPE\""]), rows.len() as u64);
        assert_eq!(mesh.get("http://reviews:9080/").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_behind_a_good_one() {
    let recorder = Recorder::start(OK).await;
    let mesh = Mesh::start(Plan { mesh: false, ..Plan::new(&[recorder.address]) }).await;
    let get = "GET http://reviews:9080/1 HTTP/1.1\r\nhost: reviews:9080\r\n\r\n";
    let bad = get.replace("host", "x : y\r\nhost");
    // In one write, and one after the other.
    let heard = answers(mesh.a.explicit, format!("{get}{bad}{get}").as_bytes()).await;
    assert_eq!(statuses(&heard), [200, 400], "{heard}");
    let mut stream = TcpStream::connect(mesh.a.explicit).await.unwrap();
    for (bytes, end) in [(get, "ok"), (get, "ok"), (&*bad, "Bad Request")] {
        stream.write_all(bytes.as_bytes()).await.unwrap();
        assert!(read_message(&mut stream).await.unwrap().ends_with(end));
    }
    assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0);
    assert_eq!(recorder.heard().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_legitimate_passes() {
    for mesh in [true, false] {
        let recorder = Recorder::start(OK).await;
        let mesh = Mesh::start(Plan { mesh, ..Plan::new(&[recorder.address]) }).await;
        let get = "GET http://reviews:9080/1 HTTP/1.1\r\nhost: reviews:9080\r\n\r\n";
        let chunked =
            format!("{HEAD}transfer-encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n");
        let length = format!("{HEAD}content-length: 3\r\n\r\nabc");
        // One behind the other on one connection, with the empty line that old clients put between.
        let all = format!("\r\n{get}{length}\r\n{chunked}{get}{length}{get}");
        let heard = answers(mesh.a.explicit, all.as_bytes()).await;
        assert_eq!(statuses(&heard), [200; 6], "{heard}");
        let lines: Vec<_> =
            recorder.heard().iter().map(|m| m.split(' ').next().unwrap().to_owned()).collect();
        assert_eq!(lines, ["GET", "POST", "POST", "GET", "POST", "GET"]);
        assert!(recorder.heard()[1].ends_with("abc"));
        // The same byte by byte.
        let mut stream = TcpStream::connect(mesh.a.explicit).await.unwrap();
        stream.set_nodelay(true).unwrap();
        for byte in format!("{chunked}{get}").bytes() {
            stream.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        for _ in 0..2 {
            assert!(read_message(&mut stream).await.unwrap().ends_with("ok"));
        }
        // A head of many reads, and a body that is larger than every buffer.
        let large = "y".repeat(1_000_000);
        let fields: String = (0..90).map(|n| format!("x-{n}: {}\r\n", "v".repeat(300))).collect();
        let bytes = format!("{HEAD}{fields}content-length: {}\r\n\r\n{large}{get}", large.len());
        let heard = answers(mesh.a.explicit, bytes.as_bytes()).await;
        assert_eq!(statuses(&heard), [200; 2], "{heard}");
        // Who waits for 100 gets it.
        let expects = format!("{HEAD}expect: 100-continue\r\ncontent-length: 3\r\n\r\nabc");
        let heard = answers(mesh.a.explicit, expects.as_bytes()).await;
        assert!(statuses(&heard).ends_with(&[200]), "{heard}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_wait_unread() {
    // CVE-2020-8661: answers to requests that nobody reads must not pile up.
    let recorder =
        Recorder::start(format!("HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n{}", "z".repeat(100_000)))
            .await;
    let mesh = Mesh::start(Plan { mesh: false, ..Plan::new(&[recorder.address]) }).await;
    let mut stream = TcpStream::connect(mesh.a.explicit).await.unwrap();
    let get = "GET http://reviews:9080/1 HTTP/1.1\r\nhost: reviews:9080\r\n\r\n".repeat(2000);
    drop(tokio::time::timeout(Duration::from_millis(500), stream.write_all(get.as_bytes())).await);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let asked = recorder.heard().len();
    assert!(asked < 200, "{asked} requests went on though no answer was read");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_can_be_read_in_two_ways_are_not_passed_on() {
    let rows: &[(&str, String)] = &[
        ("RFC9112-4", "HTTP/1.1 2OO OK\r\ncontent-length: 2\r\n\r\nok".into()),
        ("RFC9112-4", "HTTP/3.0 200 OK\r\ncontent-length: 2\r\n\r\nok".into()),
        ("RFC9112-4", "nonsense\r\n\r\n".into()),
        (
            "RFC9112-6.3",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".into(),
        ),
        ("RFC9112-6.3", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok".into()),
        ("RFC9112-6.3", "HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nok".into()),
        ("RFC9112-6.3", "HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\nok".into()),
        ("RFC9112-6.1", "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n".into()),
        ("RFC9112-6.1", "HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".into()),
        ("RFC9112-5.1", "HTTP/1.1 200 OK\r\ncontent-length : 2\r\n\r\nok".into()),
        ("RFC9112-5.2", "HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 2\r\n\r\nok".into()),
        ("RFC9112-2.2", "HTTP/1.1 200 OK\ncontent-length: 2\n\nok".into()),
        ("CVE-2019-9900", "HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 2\r\n\r\nok".into()),
        (
            "RFC9110-7.8",
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n".into(),
        ),
        ("RFC9110-15.2", "HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n".repeat(200) + OK),
        ("limit", format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(150))),
        ("limit", format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(100_000))),
    ];
    let get = "GET http://reviews:9080/1 HTTP/1.1\r\nhost: reviews:9080\r\n\r\n";
    for (id, answer) in rows {
        let recorder = Recorder::start(answer.as_str()).await;
        let mesh = Mesh::start(Plan { mesh: false, ..Plan::new(&[recorder.address]) }).await;
        let heard = answers(mesh.a.explicit, format!("{get}{get}").as_bytes()).await;
        assert_eq!(statuses(&heard), [502; 2], "{id}: {answer:.200?}\n{heard}");
        let asked = recorder.heard().len();
        assert_eq!(*recorder.connections.lock().unwrap(), asked, "{id}: a connection was used again");
        assert_eq!(mesh.a.metric("istio_requests_total", &["UPE"]), 2, "{id}");
        counted(&mesh, "from=\"upstream\"", 2).await;
        // The same where the other proxy hears it.
        let mesh = Mesh::start(Plan::new(&[recorder.address])).await;
        let heard = answers(mesh.a.explicit, get.as_bytes()).await;
        assert_eq!(statuses(&heard), [502], "{id}: {answer:.200?}\n{heard}");
        assert_eq!(mesh.b.metric("istio_requests_total", &["UPE"]), 1, "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_legitimate_pass() {
    let get = "GET http://reviews:9080/1 HTTP/1.1\r\nhost: reviews:9080\r\n\r\n";
    let head = get.replace("GET", "HEAD");
    let rows: &[(&str, &str, bool)] = &[
        (get, OK, true),
        (get, "HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nok", true),
        (get, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n", true),
        (get, "HTTP/1.1 200 OK\r\n\r\nUNTIL", false),
        (get, "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", false),
        (
            get,
            "HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            true,
        ),
        (&head, "HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n", true),
        (&head, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", true),
        (get, "HTTP/1.1 204 No Content\r\n\r\n", true),
        (get, "HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n", true),
        (get, "HTTP/1.1 304 Not Modified\r\ncontent-length: 500\r\n\r\n", true),
        // Surplus bytes: the answer is good, the connection is not.
        (
            get,
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
            false,
        ),
        (get, "HTTP/1.1 204 No Content\r\n\r\nevil", false),
        (&head, "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil", false),
    ];
    for (request, answer, reused) in rows {
        let recorder = Recorder::start(*answer).await;
        let mesh = Mesh::start(Plan { mesh: false, ..Plan::new(&[recorder.address]) }).await;
        for _ in 0..3 {
            let heard = answers(mesh.a.explicit, request.as_bytes()).await;
            let found = statuses(&heard);
            assert!(matches!(found[..], [200 | 204 | 304]), "{answer:?}\n{heard}");
            assert!(!heard.contains("evil"), "{answer:?}\n{heard}");
        }
        let connections = *recorder.connections.lock().unwrap();
        assert_eq!(connections, if *reused { 1 } else { 3 }, "{answer:?}");
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The code of the GOAWAY that a client hears who sends these frames again and again.
async fn flood(to: SocketAddr, frames: &[u8], times: usize) -> Option<u32> {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let start = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &[])].concat();
    stream.write_all(&start).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let frames = frames.repeat(times);
    let sending = tokio::spawn(async move {
        drop(write.write_all(&frames).await);
        write
    });
    let mut heard = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(Ok(length @ 1..)) =
        tokio::time::timeout(Duration::from_secs(1), read.read(&mut buffer)).await
    {
        heard.extend_from_slice(&buffer[..length]);
    }
    sending.abort();
    let mut at = 0;
    let mut code = None;
    while let Some(header) = heard.get(at..at + 9) {
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        if header[3] == 7 {
            code = Some(u32::from_be_bytes(heard[at + 13..at + 17].try_into().unwrap()));
        }
        at += 9 + length;
    }
    code
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_frames_end_with_goaway() {
    const ENHANCE_YOUR_CALM: u32 = 11;
    let mesh = Mesh::start(Plan::new(&[echo("127.0.0.2").await])).await;
    let rows: &[(&str, Vec<u8>)] = &[
        ("CVE-2019-9512", frame(6, 0, 0, &[0; 8])),
        ("CVE-2019-9515", frame(4, 0, 0, &[])),
        ("CVE-2019-9513", frame(2, 0, 1, &[0, 0, 0, 0, 5])),
        ("CVE-2019-9517", frame(8, 0, 0, &[0, 0, 0, 1])),
        ("CVE-2021-29258", frame(0x4d, 0, 0, b"metadata")),
    ];
    for (id, frames) in rows {
        assert_eq!(flood(mesh.a.explicit, frames, 200).await, None, "{id}: a few are no flood");
        assert_eq!(flood(mesh.a.explicit, frames, 20_000).await, Some(ENHANCE_YOUR_CALM), "{id}");
    }
    counted(&mesh, "reason=\"control_frames\"", rows.len()).await;
    // Who behaves is served meanwhile.
    assert_eq!(mesh.get("http://reviews:9080/").await.status, 200);
}

/// HEADERS that ask for `/` of reviews.
fn headers(flags: u8, stream: u32) -> Vec<u8> {
    let block = [&[0x82, 0x86, 0x84, 0x41, 12][..], b"reviews:9080"].concat();
    frame(1, flags, stream, &block)
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_streams_end_and_do_not_arrive() {
    let recorder = Recorder::start(OK).await;
    let mesh = Mesh::start(Plan { mesh: false, ..Plan::new(&[recorder.address]) }).await;
    let streams =
        |each: &dyn Fn(u32) -> Vec<u8>| -> Vec<u8> { (0..4000).flat_map(|n| each(2 * n + 1)).collect() };
    const OPEN: u8 = 4;
    const WHOLE: u8 = 5;
    let rows: &[(&str, Vec<u8>)] = &[
        ("CVE-2023-44487", streams(&|id| [headers(WHOLE, id), frame(3, 0, id, &[0, 0, 0, 8])].concat())),
        ("CVE-2025-8671", streams(&|id| [headers(WHOLE, id), frame(8, 0, id, &[0; 4])].concat())),
        ("CVE-2019-9514", streams(&|id| frame(1, WHOLE, id, &[0x82, 0x82, 0x86]))),
        ("CVE-2024-27919", [headers(1, 1), frame(9, 0, 1, &[]).repeat(20_000)].concat()),
        ("CVE-2024-30255", [headers(1, 1), frame(9, 0, 1, &[0; 16_000]).repeat(300)].concat()),
        ("CVE-2019-9518", [headers(OPEN, 1), frame(0, 0, 1, &[]).repeat(20_000)].concat()),
    ];
    for (id, frames) in rows {
        let before = recorder.heard().len();
        let code = flood(mesh.a.explicit, frames, 1).await;
        assert!(code.is_some_and(|code| code != 0), "{id}: {code:?}");
        let arrived = recorder.heard().len() - before;
        assert!(arrived <= 100, "{id}: {arrived} arrived");
    }
    assert_eq!(mesh.get("http://reviews:9080/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_messages_both_ways_are_no_flood() {
    // A stream like gRPC's: each message opens two windows again, and is small.
    let mesh = Mesh::start(Plan {
        mesh: true,
        protocol: Protocol::Grpc,
        ..Plan::new(&[grpc_echo("127.0.0.2").await])
    })
    .await;
    let stream = TcpStream::connect(mesh.a.explicit).await.unwrap();
    let builder = h2::client::Builder::new();
    let (mut sender, mut connection) = builder.handshake::<_, bytes::Bytes>(stream).await.unwrap();
    let mut pings = connection.ping_pong().unwrap();
    let driver = tokio::spawn(connection);
    let request = http::Request::post("http://reviews:9080/a.B/C")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let (response, mut upload) = sender.send_request(request, false).unwrap();
    let mut answer = response.await.unwrap().into_body();
    for n in 0..5_000 {
        upload.send_data(bytes::Bytes::from_static(b"\0\0\0\0\x02ab"), false).unwrap();
        let data = answer.data().await.unwrap().unwrap_or_else(|error| panic!("{n}: {error}"));
        answer.flow_control().release_capacity(data.len()).unwrap();
        if n % 2 == 0 {
            pings.ping(h2::Ping::opaque()).await.unwrap();
        }
    }
    driver.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_flood_are_left() {
    let interim = [&[0x08, 3][..], b"103"].concat();
    let rows: &[(&str, Vec<u8>)] = &[
        ("CVE-2019-9512", frame(6, 0, 0, &[0; 8])),
        ("CVE-2019-9515", frame(4, 0, 0, &[])),
        ("CVE-2019-9513", frame(2, 0, 1, &[0, 0, 0, 0, 5])),
        ("CVE-2019-9517", frame(8, 0, 0, &[0, 0, 0, 1])),
        ("RFC9110-15.2", frame(1, 4, 1, &interim)),
        ("RFC9113-5.5", frame(0x4d, 0, 0, b"metadata")),
    ];
    for (id, frames) in rows {
        let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = [frame(4, 0, 0, &[]), frames.repeat(20_000)].concat();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut heard = Vec::new();
                // Preface, settings, perhaps a window, and the head of the request.
                while !heard.windows(5).any(|w| w == [1, 5, 0, 0, 0]) {
                    if stream.read_buf(&mut heard).await.unwrap_or(0) == 0 {
                        break;
                    }
                }
                drop(stream.write_all(&answer).await);
                drop(stream.read(&mut [0; 1024]).await);
            }
        });
        let plan = Plan { mesh: false, protocol: Protocol::Http2, ..Plan::new(&[address]) };
        let mesh = Mesh::start(Plan { shape: Box::new(speak_http2), ..plan }).await;
        let answer = tokio::time::timeout(Duration::from_secs(10), mesh.get("http://reviews:9080/")).await;
        assert_eq!(answer.expect(id).status, 502, "{id}");
        counted(&mesh, "from=\"upstream\"", 1).await;
    }
}

fn speak_http2(destination: &mut mesh_core::snapshot::destination::Destination) {
    destination.upstream = mesh_core::vocab::protocol::UpstreamProtocol::Http2;
}
