//! Answers, rule by rule.

use super::super::refusal::Refusal;
use super::super::response::Asked;
use super::{Verdict, agreed, response};

#[track_caller]
fn check(id: &str, asked: Asked, bytes: &str, expected: Verdict) {
    let found = agreed(bytes.as_bytes(), |bytes, piece| response(bytes, asked, piece));
    assert_eq!(found, expected, "{id}: {bytes:?}");
}

#[track_caller]
fn whole(id: &str, asked: Asked, bytes: &str) {
    check(id, asked, bytes, Verdict::Whole(bytes.len()));
}

#[track_caller]
fn refused(id: &str, bytes: &str, refusal: Refusal) {
    check(id, Asked::Plain, bytes, Verdict::Refused(refusal));
}

#[test]
fn status_lines() {
    let line = |line: &str| format!("{line}\r\nContent-Length: 0\r\n\r\n");
    for good in
        ["HTTP/1.1 200 OK", "HTTP/1.0 200 OK", "HTTP/1.1 200 ", "HTTP/1.1 200", "HTTP/1.1 599 \u{e9} x"]
    {
        whole("RFC9112-4", Asked::Plain, &line(good));
    }
    for bad in [
        "http/1.1 200 OK",
        "HTTP/1.2 200 OK",
        "HTTP/2.0 200 OK",
        "HTTP/1.1  200 OK",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 +20 OK",
        "HTTP/1.1 099 OK",
        "HTTP/1.1 600 OK",
        "HTTP/1.1 200OK",
        "HTTP/1.1200 OK",
        "",
        " HTTP/1.1 200 OK",
        "HTTP/1.1 200 O\0K",
        "ICY 200 OK",
        "<html>",
    ] {
        refused("RFC9112-4", &line(bad), Refusal::StatusLine);
    }
    refused("RFC9112-4", "SSH-2.0-x", Refusal::StatusLine);
    refused("RFC9112-2.2", "HTTP/1.1 200 OK\nContent-Length: 0\n\n", Refusal::LineEnd);
}

#[test]
fn framing() {
    whole("RFC9112-6.3", Asked::Plain, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc");
    whole(
        "RFC9112-6.3",
        Asked::Plain,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: y\r\n\r\n",
    );
    check("RFC9112-6.3", Asked::Plain, "HTTP/1.1 200 OK\r\n\r\nabc", Verdict::Open);
    check("RFC9112-6.3", Asked::Plain, "HTTP/1.0 200 OK\r\n\r\nabc", Verdict::Open);
    whole("RFC9112-6.3", Asked::Head, "HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\n");
    whole("RFC9112-6.3", Asked::Head, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    whole("RFC9110-15.4.5", Asked::Plain, "HTTP/1.1 304 Not Modified\r\nContent-Length: 300\r\n\r\n");
    whole("RFC9110-15.3.5", Asked::Plain, "HTTP/1.1 204 No Content\r\n\r\n");
    whole("RFC9110-15.3.5", Asked::Plain, "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n");
    refused("RFC9110-8.6", "HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc", Refusal::Unframed);
    refused(
        "RFC9112-6.1",
        "HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refusal::Unframed,
    );
    refused(
        "RFC9112-6.1",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refusal::Unframed,
    );
    let framed = |lines: &str| format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    refused(
        "RFC9112-6.3",
        &framed("Content-Length: 3\r\nTransfer-Encoding: chunked"),
        Refusal::LengthAndEncoding,
    );
    refused("RFC9112-6.3", &framed("Content-Length: 3\r\nContent-Length: 3"), Refusal::ContentLength);
    refused("RFC9112-6.3", &framed("Content-Length: 3\r\nContent-Length: 4"), Refusal::ContentLength);
    refused("RFC9112-6.3", &framed("Content-Length: 3, 3"), Refusal::ContentLength);
    refused("RFC9112-6.3", &framed("Transfer-Encoding: gzip, chunked"), Refusal::Encoding);
    refused("RFC9112-6.3", &framed("Transfer-Encoding: identity"), Refusal::Encoding);
    refused("RFC9112-5.2", &framed("X: a\r\n b: c"), Refusal::Field);
    refused("RFC9112-5.1", &framed("X : a"), Refusal::Field);
    refused("limit", &framed(&["X: y"; 101].join("\r\n")), Refusal::FieldCount);
    refused("limit", &framed(&format!("X: {}", "y".repeat(20_000))), Refusal::Fields);
}

#[test]
fn interim_answers_and_tunnels() {
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
    let last = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    whole("RFC9110-15.2", Asked::Plain, &format!("{}{last}", interim.repeat(16)));
    refused("RFC9110-15.2", &format!("{}{last}", interim.repeat(17)), Refusal::Interim);
    refused("RFC9112-6.1", "HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked\r\n\r\n", Refusal::Unframed);
    let switched = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
    refused("RFC9110-7.8", switched, Refusal::Switched);
    check("RFC9110-7.8", Asked::Upgrade, switched, Verdict::Tunnel(switched.len()));
    whole("CVE-2024-23326", Asked::Upgrade, last);
    check("RFC9110-9.3.6", Asked::Connect, last, Verdict::Tunnel(last.len()));
    whole("RFC9110-9.3.6", Asked::Connect, "HTTP/1.1 502 Bad\r\nContent-Length: 3\r\n\r\nabc");
}
