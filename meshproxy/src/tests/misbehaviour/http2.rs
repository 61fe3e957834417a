//! Upstreams that speak HTTP/2, straight behind the caller's proxy.

use mesh_core::resilience::retry::RetryPolicy;
use mesh_core::vocab::protocol::Protocol;

use super::upstream::Speaks;
use super::upstream::Step::{self, Asked, Behave, Close, Flood, Pause, Reset, Send};
use super::upstream::Upstream;
use super::{GONE, GOOD, LATE, LATE_CUT, NO_ANSWER, ONCE, Row, Scene, Seen, ask, row, seen};

/// An empty SETTINGS frame.
pub(super) const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `:status: 200` of the static table.
const OK: &[u8] = b"\x88";

/// The stream was given up.
const RESET: Seen = seen(503, "UR", "upstream_reset_before_response_started{remote_reset}", true);
/// The request was not taken.
const REFUSED: Seen =
    seen(503, "UR", "upstream_reset_before_response_started{remote_refused_stream_reset}", true);
const CUT: Seen = seen(200, "UPE", "upstream_reset_after_response_started{protocol_error}", false);
const CUT_RESET: Seen = seen(200, "UR", "upstream_reset_after_response_started{remote_reset}", false);
const CUT_GONE: Seen =
    seen(200, "UC", "upstream_reset_after_response_started{connection_termination}", false);

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// An answer as it should be.
pub(super) fn good(stream: u32) -> Vec<u8> {
    [frame(HEADERS, END_HEADERS, stream, OK), frame(DATA, END_STREAM, stream, b"good")].concat()
}

/// An answer as it should be to a request that has not ended, whose rest is not wanted.
pub(super) fn early() -> Vec<u8> {
    [frame(HEADERS, END_HEADERS, 1, OK), frame(DATA, END_STREAM, 1, b"enough"), reset(1, 0)].concat()
}

fn field(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).unwrap();
    [&[0, length(name)], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
}

fn head(block: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, 1, block)
}

fn only_head(block: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, block)
}

fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

fn goaway(last: u32, code: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat())
}

pub(super) fn setting(id: u16, value: u32) -> Vec<u8> {
    frame(4, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

/// Takes the request, sends this, and goes on well.
fn says(frames: &[Vec<u8>]) -> Vec<Step> {
    [says_only(frames), vec![Behave]].concat()
}

fn says_only(frames: &[Vec<u8>]) -> Vec<Step> {
    vec![Send(SETTINGS.to_vec()), Asked, Send(frames.concat())]
}

fn floods(frames: &[Vec<u8>], flood: Vec<u8>) -> Vec<Step> {
    [says_only(frames), vec![Flood(flood)]].concat()
}

/// Half an answer, then this.
fn half_then(steps: impl Into<Vec<Step>>) -> Vec<Step> {
    [says_only(&[head(OK), frame(DATA, 0, 1, b"abc")]), vec![Pause], steps.into()].concat()
}

fn breaks() -> Vec<Row> {
    let asked = || vec![Send(SETTINGS.to_vec()), Asked];
    vec![
        row("h2-good", says(&[good(1)]), GOOD),
        row("h2-closes-unanswered", [asked(), vec![Close]].concat(), GONE),
        row("h2-resets-unanswered", [asked(), vec![Reset]].concat(), GONE),
        row(
            "h2-closes-in-a-frame",
            [says_only(&[head(OK)[..5].to_vec()]), vec![Pause, Close]].concat(),
            GONE,
        ),
        row("h2-closes-in-the-body", half_then([Close]), CUT_GONE),
        row("h2-resets-in-the-body", half_then([Reset]), CUT_GONE),
        row("h2-cancel", says(&[reset(1, 8)]), Seen { again: true, ..RESET }),
        row("h2-internal-error", says(&[reset(1, 2)]), Seen { again: true, ..RESET }),
        row("h2-no-error", says(&[reset(1, 0)]), Seen { again: true, ..RESET }),
        row("h2-enhance-your-calm", says(&[reset(1, 11)]), Seen { again: true, ..RESET }),
        row("h2-protocol-error", says(&[reset(1, 1)]), Seen { again: true, ..NO_ANSWER }),
        row(
            "h2-cancel-in-the-body",
            half_then([Send(reset(1, 8)), Behave]),
            Seen { again: true, ..CUT_RESET },
        ),
        // The request was whole, so this does not say that the answer is.
        row(
            "h2-no-error-in-the-body",
            half_then([Send(reset(1, 0)), Behave]),
            Seen { again: true, ..CUT_RESET },
        ),
        row("h2-goes-after-this-one", says(&[goaway(1, 0), good(1)]), ONCE),
        row("h2-goes-and-closes", [says_only(&[goaway(1, 0)]), vec![Pause, Close]].concat(), GONE),
        row("h2-goes-in-error", [says_only(&[goaway(1, 2)]), vec![Pause, Close]].concat(), GONE),
        row("h2-silent", [asked(), vec![Behave]].concat(), Seen { again: true, ..LATE }),
        row("h2-silent-in-the-body", half_then([Behave]), Seen { again: true, ..LATE_CUT }),
        row("h2-no-streams-any-more", says(&[good(1), setting(3, 0)]), ONCE),
        // CVE-2021-32780.
        row("h2-goes-and-allows-none", says(&[goaway(1, 0), setting(3, 0), good(1)]), ONCE),
    ]
}

fn frames() -> Vec<Row> {
    let bad = |name, steps| row(name, steps, NO_ANSWER);
    vec![
        bad(
            "h2-speaks-http1",
            vec![Send(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n".to_vec()), Close],
        ),
        bad("h2-garbage", vec![Send(b"garbage garbage garbage garbage".to_vec()), Asked, Behave]),
        bad("h2-data-before-the-head", says(&[frame(DATA, END_STREAM, 1, b"x")])),
        bad("h2-data-on-an-idle-stream", says(&[frame(DATA, END_STREAM, 7, b"x")])),
        bad("h2-head-on-an-idle-stream", says(&[frame(HEADERS, 5, 7, OK)])),
        bad("h2-head-on-an-even-stream", says(&[frame(HEADERS, 5, 2, OK)])),
        bad("h2-data-on-stream-0", says(&[frame(DATA, 0, 0, b"x")])),
        bad("h2-reset-of-an-idle-stream", says(&[reset(7, 8)])),
        bad("h2-window-overflow", says(&[frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes())])),
        bad("h2-bad-initial-window", vec![Send(setting(4, 0x8000_0000)), Asked, Behave]),
        bad("h2-bad-frame-size", vec![Send(setting(5, 100)), Asked, Behave]),
        bad("h2-odd-settings", vec![Send(frame(4, 0, 0, b"12345")), Asked, Behave]),
        bad("h2-short-ping", says(&[frame(PING, 0, 0, b"123")])),
        bad("h2-push", says(&[frame(5, END_HEADERS, 1, b"\0\0\0\x02\x82\x84\x86")])),
        bad("h2-bad-index", says(&[only_head(b"\xff\xff\xff\x00")])),
        bad("h2-interrupted-head", says(&[frame(HEADERS, 0, 1, OK), frame(PING, 0, 0, b"12345678")])),
        row("h2-frame-too-large", says(&[head(OK), frame(DATA, 0, 1, &[b'a'; 70_000])]), CUT),
        row("h2-bad-padding", says(&[head(OK), frame(DATA, 8, 1, b"\xffab")]), CUT),
        row("h2-unknown-frame", says(&[frame(99, 0, 1, b"x"), good(1)]), GOOD),
        row("h2-initial-window-0", [vec![Send(setting(4, 0)), Asked, Send(good(1)), Behave]].concat(), GOOD),
    ]
}

fn heads() -> Vec<Row> {
    let answer = |name, block: &[&[u8]], seen| row(name, says(&[only_head(&block.concat())]), seen);
    // Some of these end a stream, some the connection.
    let bad = |name, block: &[&[u8]]| answer(name, block, Seen { again: true, ..NO_ANSWER });
    let worse = |name, block: &[&[u8]]| answer(name, block, NO_ANSWER);
    vec![
        bad("h2-no-status", &[&field("x-a", "1")]),
        worse("h2-status-letters", &[&field(":status", "abc")]),
        bad("h2-status-after-a-field", &[&field("x-a", "1"), OK]),
        worse("h2-unknown-pseudo-field", &[OK, &field(":x", "1")]),
        worse("h2-upper-case", &[OK, &field("X-A", "1")]),
        bad("h2-connection", &[OK, &field("connection", "close")]),
        bad("h2-transfer-encoding", &[OK, &field("transfer-encoding", "chunked")]),
        worse("h2-nul", &[OK, &field("x-a", "a\0b")]),
        worse("h2-crlf", &[OK, &field("x-a", "a\r\nb: c")]),
        bad("h2-length-letters", &[OK, &field("content-length", "abc")]),
        row("h2-early-hints", says(&[head(&field(":status", "103")), good(1)]), GOOD),
    ]
}

fn endless() -> Vec<Row> {
    vec![
        row(
            "h2-endless-head",
            floods(&[frame(HEADERS, 0, 1, OK)], frame(CONTINUATION, 0, 1, &field("x-a", "aaaa"))),
            NO_ANSWER,
        ),
        row("h2-endless-empty-data", floods(&[head(OK)], frame(DATA, 0, 1, b"")), CUT),
    ]
}

pub(super) fn http2(plan: &mut super::Plan) {
    plan.mesh = false;
    plan.protocol = Protocol::Http2;
}

#[tokio::test(flavor = "multi_thread")]
async fn straight_behind_the_caller_s_proxy() {
    for retry in [RetryPolicy::disabled(), RetryPolicy::default()] {
        let mut scene = Scene::start(http2, retry).await;
        let mut wrong = Vec::new();
        for row in [breaks(), frames(), heads(), endless()].concat() {
            wrong.extend(scene.play(&row, Speaks::Http2, [Some(row.seen), None]).await);
        }
        assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_taken_is_tried_again() {
    let refuses = says(&[reset(1, 7)]);
    let steps = [
        Send(SETTINGS.to_vec()),
        Asked,
        Send(reset(1, 7)),
        Asked,
        Send(reset(3, 7)),
        Asked,
        Send(reset(5, 7)),
        Behave,
    ];
    let told = |flags| Seen { flags, ..REFUSED };
    for (name, steps, retry, expected) in [
        ("h2-refused", refuses.clone(), RetryPolicy::disabled(), REFUSED),
        ("h2-refused-once", refuses, RetryPolicy::default(), GOOD),
        ("h2-refused-always", steps.to_vec(), RetryPolicy::default(), told("URX,UR")),
    ] {
        let mut scene = Scene::start(http2, retry).await;
        let upstream = Upstream::start(steps, Speaks::Http2, false).await;
        scene.point_at(upstream.address).await;
        let path = format!("/{name}");
        let answer = ask(&scene.mesh, &path).await;
        assert_eq!(answer.code, expected.code, "{name} {answer:?}");
        let (code, flags, details) = scene.logs[0].told(&format!("\"{path}\"")).await;
        assert_eq!((code, &*flags, &*details), (expected.code, expected.flags, expected.details), "{name}");
        assert_eq!(upstream.connections(), 1, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_gets_as_many_streams_as_it_allows() {
    let scene_of = |retry| Scene::start(http2, retry);
    let mut scene = scene_of(RetryPolicy::disabled()).await;
    // Allows one stream and answers nothing on it; the next request needs another connection.
    let steps = vec![Send(setting(3, 1)), Asked, Behave];
    let upstream = Upstream::start(steps, Speaks::Http2, false).await;
    scene.allow(upstream.address, super::TIMEOUT).await;
    let address = scene.mesh.a.explicit;
    let first = tokio::spawn(async move { super::ask_at(address, "/first").await });
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let second = ask(&scene.mesh, "/second").await;
    assert_eq!((second.code, upstream.connections()), (200, 2), "{second:?}");
    assert_eq!(first.await.unwrap().code, 504);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_away_each_time_is_asked_as_often_as_the_rule_says() {
    let go = || Send(goaway(0, 0));
    for (name, steps, expected, connections) in [
        ("/goes-when-asked", vec![Send(SETTINGS.to_vec()), Asked, go(), Pause, Close], "URX,UR", 3),
        ("/goes-at-once", vec![Send(SETTINGS.to_vec()), go(), Pause, Close], "URX,UR", 3),
        ("/closes-at-once", vec![Close], "UC", 1),
    ] {
        let mut scene = Scene::start(http2, RetryPolicy::default()).await;
        let upstream = Upstream::always(steps, Speaks::Http2).await;
        scene.point_at(upstream.address).await;
        let answer = ask(&scene.mesh, name).await;
        let (code, flags, details) = scene.logs[0].told(name).await;
        assert_eq!((answer.code, code, &*flags), (503, 503, expected), "{name} {details}");
        assert_eq!(upstream.connections(), connections, "{name}");
    }
}
