//! Upstreams that speak HTTP/1.1, straight behind the caller's proxy and as the application behind another.

use mesh_core::resilience::retry::RetryPolicy;

use super::upstream::Speaks;
use super::upstream::Step::{self, Asked, Behave, Close, Flood, Pause, Reset, Send};
use super::{CUT, GONE, GOOD, LATE, LATE_CUT, NO_ANSWER, ONCE, Row, Scene, Seen, row, seen};

/// The same as the caller's proxy sees it when the other one answers: an answer like any other.
fn passed_on(own: Seen) -> Seen {
    match own.whole {
        true => Seen { flags: "-", details: "via_upstream", ..own },
        false => seen(own.code, "UR", "upstream_reset_after_response_started{remote_reset}", false),
    }
}

/// Reads the request and sends this.
fn says(text: impl AsRef<[u8]>) -> Vec<Step> {
    vec![Asked, Send(text.as_ref().to_vec()), Behave]
}

/// The same, then something else.
fn says_then(text: impl AsRef<[u8]>, then: Step) -> Vec<Step> {
    vec![Asked, Send(text.as_ref().to_vec()), Pause, then]
}

/// A head of 200 with these fields, and a body.
fn answers(fields: &str, body: &str) -> Vec<Step> {
    says(format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}"))
}

fn status(line: &str) -> Vec<Step> {
    says(format!("{line}\r\ncontent-length: 4\r\n\r\ngood"))
}

fn chunked(body: &str) -> Vec<Step> {
    answers("transfer-encoding: chunked\r\n", body)
}

const WHOLE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood";
const SHORT: &str = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc";
const EVIL: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";

fn breaks() -> Vec<Row> {
    let in_chunk = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nA\r\nabc";
    let between = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n";
    let in_trailers = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-t: 1\r\n";
    let no_length = "HTTP/1.1 200 OK\r\n\r\nabc";
    vec![
        row("closes-at-once", [Close], GONE),
        row("resets-unread", [Pause, Reset], GONE),
        row("closes-unanswered", [Asked, Close], GONE),
        row("resets-unanswered", [Asked, Reset], GONE),
        row("closes-in-the-body", says_then(SHORT, Close), CUT),
        row("resets-in-the-body", says_then(SHORT, Reset), CUT),
        row("closes-before-the-body", says_then(&SHORT[..SHORT.len() - 3], Close), CUT),
        row("closes-in-a-chunk", says_then(in_chunk, Close), CUT),
        row("resets-in-a-chunk", says_then(in_chunk, Reset), CUT),
        row("closes-between-chunks", says_then(between, Close), CUT),
        row("closes-in-trailers", says_then(in_trailers, Close), CUT),
        row("ends-the-body-by-closing", says_then(no_length, Close), ONCE),
        // Envoy takes a reset for the end of such a body.
        row("ends-the-body-by-a-reset", says_then(no_length, Reset), CUT),
        row("closes-after-an-answer", says_then(WHOLE, Close), ONCE),
        row("closes-after-1xx", says_then("HTTP/1.1 103 Early Hints\r\n\r\n", Close), GONE),
    ]
}

fn status_lines() -> Vec<Row> {
    vec![
        row("garbage", says("\0\u{1}\u{2} garbage\r\n\r\n"), NO_ANSWER),
        row("no-version", status("200 OK"), NO_ANSWER),
        row("http09", says_then("<html>hello</html>", Close), NO_ANSWER),
        row("http2-in-http1", status("HTTP/2.0 200 OK"), NO_ANSWER),
        row("two-digits", status("HTTP/1.1 20 OK"), NO_ANSWER),
        // Envoy passes 2000 on.
        row("four-digits", status("HTTP/1.1 2000 OK"), NO_ANSWER),
        row("letters", status("HTTP/1.1 abc OK"), NO_ANSWER),
        row("status-0", status("HTTP/1.1 000 OK"), NO_ANSWER),
        row("status-99", status("HTTP/1.1 099 OK"), NO_ANSWER),
        // RFC 9110, section 15: no status. Envoy passes it on.
        row("status-600", status("HTTP/1.1 600 OK"), NO_ANSWER),
        row("no-reason", status("HTTP/1.1 200"), GOOD),
        row("nul-in-the-reason", status("HTTP/1.1 200 O\0K"), NO_ANSWER),
        row("http10", status("HTTP/1.0 200 OK"), ONCE),
        row("a-request", says("GET / HTTP/1.1\r\nhost: x\r\n\r\n"), NO_ANSWER),
        row("tls", says(b"\x15\x03\x01\x00\x02\x02\x16"), NO_ANSWER),
        row("http2-frames", says(super::http2::SETTINGS), NO_ANSWER),
        row("early-hints", says(format!("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n{WHOLE}")), GOOD),
        row("continue", says(format!("HTTP/1.1 100 Continue\r\n\r\n{WHOLE}")), GOOD),
        // Envoy passes 101 on, and what follows becomes a byte stream.
        row("unasked-101", says("HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: foo\r\n\r\n"), NO_ANSWER),
        row("bare-101", says("HTTP/1.1 101 Switching Protocols\r\n\r\n"), NO_ANSWER),
    ]
}

fn framing() -> Vec<Row> {
    let length = |value: &str| answers(&format!("content-length: {value}\r\n"), "good");
    vec![
        row("length-negative", length("-4"), NO_ANSWER),
        row("length-plus", length("+4"), NO_ANSWER),
        row("length-hex", length("0x4"), NO_ANSWER),
        row("length-empty", length(""), NO_ANSWER),
        row("length-letters", length("abc"), NO_ANSWER),
        row("length-overflow", length("99999999999999999999"), NO_ANSWER),
        row("lengths-in-a-list", length("4, 5"), NO_ANSWER),
        row("lengths-that-differ", length("4\r\ncontent-length: 5"), NO_ANSWER),
        row("204-with-a-body", says("HTTP/1.1 204 No Content\r\n\r\ngood"), Seen { code: 204, ..ONCE }),
        row("chunk-size-letters", chunked("xyz\r\ngood\r\n0\r\n\r\n"), CUT),
        row("chunk-size-overflow", chunked("fffffffffffffffff\r\ngood\r\n0\r\n\r\n"), CUT),
        row("chunk-size-negative", chunked("-4\r\ngood\r\n0\r\n\r\n"), CUT),
        row("chunk-size-missing", chunked("\r\ngood\r\n0\r\n\r\n"), CUT),
        row("chunk-without-end", chunked("4\r\ngoodXX0\r\n\r\n"), CUT),
        row("chunk-ends-with-lf", chunked("4\ngood\n0\n\n"), CUT),
        row(
            "bad-after-good",
            [says_then(chunked_head(), Send(b"zz\r\n".to_vec())), vec![Behave]].concat(),
            CUT,
        ),
        row("chunk-extension", chunked("4;a=b\r\ngood\r\n0\r\n\r\n"), GOOD),
    ]
}

fn chunked_head() -> &'static str {
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\ngood\r\n"
}

fn heads() -> Vec<Row> {
    let field = |text: &str| answers(&format!("{text}\r\ncontent-length: 4\r\n"), "good");
    let many: String = (0..300).map(|i| format!("x-{i}: 1\r\n")).collect();
    let endless = |piece: Vec<u8>| vec![Asked, Send(b"HTTP/1.1 200 OK\r\nx-a: ".to_vec()), Flood(piece)];
    vec![
        row("no-colon", field("nocolon"), NO_ANSWER),
        row("no-name", field(": x"), NO_ANSWER),
        row("space-in-name", field("x a: x"), NO_ANSWER),
        row("space-before-colon", field("x-a : x"), NO_ANSWER),
        row("nul-in-value", field("x-a: a\0b"), NO_ANSWER),
        row("control-in-value", field("x-a: a\u{1}b"), NO_ANSWER),
        row("many-fields", answers(&format!("{many}content-length: 4\r\n"), "good"), NO_ANSWER),
        row("endless-fields", endless(b"a\r\nx-a: ".to_vec()), NO_ANSWER),
        row("endless-field", endless(b"aaaaaaaaaaaaaaaa".to_vec()), NO_ANSWER),
    ]
}

fn surplus() -> Vec<Row> {
    let late = |text: &str| vec![Asked, Send(WHOLE.into()), Pause, Send(text.into()), Behave];
    vec![
        row("another-answer", says(format!("{WHOLE}{EVIL}")), ONCE),
        row("another-answer-later", late(EVIL), ONCE),
        row("garbage-after-an-answer", says(format!("{WHOLE}garbage")), ONCE),
        row(
            "timeout-after-an-answer",
            late("HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n"),
            ONCE,
        ),
        row("closing-announced", answers("content-length: 4\r\nconnection: close\r\n", "good"), ONCE),
    ]
}

fn silence() -> Vec<Row> {
    vec![
        row("silent", [Asked, Behave], LATE),
        row("silent-in-the-head", says("HTTP/1.1 200 OK\r\nx-a"), LATE),
        row("silent-in-the-body", says(SHORT), LATE_CUT),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn straight_behind_the_caller_s_proxy() {
    // What is retried by default is tried again nowhere here: the endpoint had the request.
    for retry in [RetryPolicy::disabled(), RetryPolicy::default()] {
        let mut scene = Scene::start(|plan| plan.mesh = false, retry).await;
        let mut wrong = Vec::new();
        for row in [breaks(), status_lines(), framing(), heads(), surplus(), silence()].concat() {
            wrong.extend(scene.play(&row, Speaks::Http1, [Some(row.seen), None]).await);
        }
        assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_another_proxy() {
    let mut scene = Scene::start(|_| {}, RetryPolicy::default()).await;
    let mut wrong = Vec::new();
    for row in [breaks(), status_lines(), framing(), heads(), surplus()].concat() {
        // Whether anything was sent before it closed is chance; if nothing was, the request is sent again.
        if row.name == "closes-at-once" {
            continue;
        }
        let told = [Some(passed_on(row.seen)), Some(row.seen)];
        wrong.extend(scene.play(&row, Speaks::Http1, told).await);
    }
    // The caller's proxy gives up, and the other one sees it go.
    let gone = seen(0, "DC", "downstream_remote_disconnect", false);
    for row in silence() {
        let told = [Some(row.seen), Some(Seen { code: if row.seen.whole { 0 } else { 200 }, ..gone })];
        wrong.extend(scene.play(&row, Speaks::Http1, told).await);
    }
    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
}
