//! Clients that break off, and clients that send what is no request: told as such, cancelled upstream, and nothing that
//! could be read in two ways goes on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use mesh_core::resilience::retry::RetryPolicy;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use self::Act::{Close, Fin, Read, Reset, Say, Wait};
use super::{PATIENCE, Raw, Scene, read};

/// What a client does.
#[derive(Debug, Clone)]
enum Act {
    /// Sends bytes.
    Say(Vec<u8>),
    /// Waits until the application has been asked.
    Wait,
    /// Says that it sends no more, and reads.
    Fin,
    /// Reads to the end.
    Read,
    /// Closes.
    Close,
    /// Closes with a reset.
    Reset,
}

/// Status, flags and details of a line of the log.
type Told = (u16, &'static str, &'static str);

/// What the log tells of a client that is gone.
const LEFT: Told = (0, "DC", "downstream_remote_disconnect");
/// What it tells of bytes that are no request.
const MALFORMED: Told = (400, "DPE", "http1.codec_error");

/// An application that reads and never answers, and notes who went away.
#[derive(Debug, Default)]
struct Application {
    asked: AtomicUsize,
    left: AtomicUsize,
    heard: std::sync::Mutex<Vec<u8>>,
}

impl Application {
    async fn start() -> (SocketAddr, Arc<Application>) {
        let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let application = Arc::new(Application::default());
        let shared = Arc::clone(&application);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    let mut bytes = vec![0; 4096];
                    while let Ok(length @ 1..) = stream.read(&mut bytes).await {
                        let mut heard = shared.heard.lock().unwrap();
                        heard.extend_from_slice(&bytes[..length]);
                        let heads = heard.windows(4).filter(|bytes| *bytes == b"\r\n\r\n").count();
                        shared.asked.store(heads, Ordering::Relaxed);
                    }
                    shared.left.fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        (address, application)
    }

    fn heard(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock().unwrap()).into_owned()
    }

    async fn until(&self, what: &AtomicUsize, count: usize) -> bool {
        let reached = async {
            while what.load(Ordering::Relaxed) < count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.is_ok()
    }
}

async fn act(to: SocketAddr, acts: &[Act], application: &Application) -> Raw {
    let mut stream = TcpStream::connect(to).await.unwrap();
    for act in acts {
        match act {
            // Whoever was refused already may find the connection closed.
            Say(bytes) => drop(stream.write_all(bytes).await),
            Wait => assert!(application.until(&application.asked, 1).await),
            Fin => {
                stream.shutdown().await.unwrap();
                return read(&mut stream).await;
            }
            Read => return read(&mut stream).await,
            Close => break,
            Reset => stream.set_zero_linger().unwrap(),
        }
    }
    Raw::read(b"")
}

fn get(fields: &str) -> Act {
    Say(format!("GET http://reviews:9080/bad HTTP/1.1\r\nhost: reviews:9080\r\n{fields}\r\n").into_bytes())
}

fn post(fields: &str, body: &str) -> Act {
    let head = "POST http://reviews:9080/bad HTTP/1.1\r\nhost: reviews:9080\r\n";
    Say(format!("{head}{fields}\r\n{body}").into_bytes())
}

fn say(text: &str) -> Act {
    Say(text.as_bytes().to_vec())
}

/// Clients whose request reaches the application before it goes wrong.
fn begun() -> Vec<(&'static str, Vec<Act>, Told)> {
    let short = || post("content-length: 10\r\n", "abc");
    let chunks = |body: &str| post("transfer-encoding: chunked\r\n", body);
    vec![
        ("closes waiting", vec![get(""), Wait, Close], LEFT),
        ("resets waiting", vec![get(""), Wait, Reset], LEFT),
        ("ends waiting", vec![get(""), Wait, Fin], LEFT),
        ("closes in the body", vec![short(), Wait, Close], LEFT),
        ("resets in the body", vec![short(), Wait, Reset], LEFT),
        ("ends in the body", vec![short(), Wait, Fin], LEFT),
        ("ends in a chunk", vec![chunks("A\r\nab"), Wait, Fin], LEFT),
        ("closes between chunks", vec![chunks("2\r\nab\r\n"), Wait, Close], LEFT),
        ("a bad chunk later", vec![chunks("2\r\nab\r\n"), Wait, say("zz\r\n"), Read], MALFORMED),
        ("a chunk without its end", vec![chunks("2\r\nab\r\n"), Wait, say("2\r\nabXX"), Read], MALFORMED),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_not_ended_is_cancelled_upstream() {
    for mesh in [false, true] {
        let mut scene = Scene::start(|plan| plan.mesh = mesh, RetryPolicy::default()).await;
        scene.mesh.change(2, |plan| plan.rules = None).await;
        scene.version = 2;
        for (name, acts, told) in begun() {
            let (address, application) = Application::start().await;
            scene.point_at(address).await;
            scene.logs.iter().for_each(super::Log::clear);
            let answer = act(scene.mesh.a.explicit, &acts, &application).await;
            assert!(matches!(answer.code, 0 | 400), "{name}: {answer:?}");
            assert!(application.until(&application.left, 1).await, "{name}: still connected");
            let (code, flags, details) = scene.logs[0].told("\"/bad\"").await;
            assert_eq!((code, &*flags, &*details), told, "{name} {mesh}");
            if mesh {
                assert_eq!(scene.logs[1].told("\"/bad\"").await.1, "DC", "{name}");
            }
            // Nobody could take what came for a whole request.
            let heard = application.heard();
            let (head, body) = heard.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(" /bad ") && !body.contains("0\r\n\r\n"), "{name}: {heard}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_is_refused_and_told() {
    let mut scene = Scene::start(|plan| plan.mesh = false, RetryPolicy::default()).await;
    let (address, application) = Application::start().await;
    scene.point_at(address).await;
    let long = "a".repeat(100_000);
    let many: String = (0..300).map(|i| format!("x-{i}: 1\r\n")).collect();
    let large = (431, "DPE", "http1.headers_too_large");
    let rows = [
        ("garbage", say("\0\u{1}garbage\r\n\r\n"), MALFORMED),
        ("tls", Say(b"\x16\x03\x01\x00\x05hello".to_vec()), MALFORMED),
        ("half a line", say("GET\r\n\r\n"), MALFORMED),
        (
            "a bad method",
            say("G@T http://reviews:9080/bad HTTP/1.1\r\nhost: reviews:9080\r\n\r\n"),
            MALFORMED,
        ),
        (
            "a bad version",
            say("GET http://reviews:9080/bad HTTP/7.1\r\nhost: reviews:9080\r\n\r\n"),
            (505, "DPE", "http1.codec_error"),
        ),
        ("a bad name", get("x a: 1\r\n"), MALFORMED),
        ("no name", get(": 1\r\n"), MALFORMED),
        ("a NUL", get("x-a: a\0b\r\n"), MALFORMED),
        ("a folded field", get("x-a: a\r\n b\r\n"), MALFORMED),
        ("a bad length", post("content-length: +2\r\n", "ok"), MALFORMED),
        ("two lengths", post("content-length: 2\r\ncontent-length: 3\r\n", "ok"), MALFORMED),
        ("a long field", get(&format!("x-a: {long}\r\n")), large),
        ("many fields", get(&many), (431, "DPE", "http1.too_many_headers")),
    ];
    for (name, say, told) in rows {
        scene.logs[0].clear();
        let answer = act(scene.mesh.a.explicit, &[say, Read], &application).await;
        assert_eq!(answer.code, told.0, "{name} {answer:?}");
        let (code, flags, details) = scene.logs[0].told("response_code").await;
        assert_eq!((code, &*flags, &*details), told, "{name}");
    }
    scene.logs[0].clear();
    act(scene.mesh.a.explicit, &[say("GET http://reviews:9080/bad HTTP/1.1\r\nho"), Fin], &application).await;
    let (code, flags, details) = scene.logs[0].told("response_code").await;
    assert_eq!((code, &*flags, &*details), LEFT);
    assert_eq!(application.heard(), "");
    let labels = ["response_code=\"400\"", "response_flags=\"DPE\""];
    assert!(scene.mesh.a.metric("istio_requests_total", &labels) >= 10);
    assert!(scene.mesh.a.metric("mesh_proxy_bytes_refused_total", &["from=\"downstream\""]) >= 13);
}

/// Rapid resets (CVE-2023-44487): cut off, and requests beside them are answered.
#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_reset_at_once_end_the_connection() {
    let mut scene = Scene::start(|plan| plan.mesh = false, RetryPolicy::default()).await;
    let application = super::super::harness::echo("127.0.0.2").await;
    scene.point_at(application).await;
    let stream = TcpStream::connect(scene.mesh.a.explicit).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut sent = 0;
    let flood = async {
        let mut client = client;
        while sent < 20_000 {
            let Ok(ready) = client.ready().await else { break };
            client = ready;
            let request = Request::get("http://reviews:9080/").body(()).unwrap();
            let Ok((_, mut stream)) = client.send_request(request, false) else { break };
            stream.send_data(Bytes::new(), false).ok();
            stream.send_reset(h2::Reason::CANCEL);
            sent += 1;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, flood).await.is_ok());
    assert!(sent < 20_000, "nothing ended it");
    assert_eq!(super::ask(&scene.mesh, "/beside").await.code, 200);
    driver.abort();
}
