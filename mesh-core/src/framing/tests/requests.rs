//! Requests, rule by rule.

use super::super::refusal::Refusal;
use super::{Verdict, agreed, request};

/// The request as bytes; `expected` is `None` where it is whole.
#[track_caller]
fn check(id: &str, bytes: impl AsRef<[u8]>, expected: Option<Refusal>) {
    let bytes = bytes.as_ref();
    let expected = expected.map_or(Verdict::Whole(bytes.len()), Verdict::Refused);
    assert_eq!(agreed(bytes, request), expected, "{id}: {:?}", String::from_utf8_lossy(bytes));
}

#[track_caller]
fn field(id: &str, line: impl AsRef<[u8]>, expected: Option<Refusal>) {
    check(id, [b"GET / HTTP/1.1\r\nHost: a\r\n", line.as_ref(), b"\r\n\r\n"].concat(), expected);
}

#[track_caller]
fn framed(id: &str, lines: &str, body: &str, expected: Option<Refusal>) {
    check(id, format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n{body}"), expected);
}

#[track_caller]
fn chunks(id: &str, body: impl AsRef<[u8]>, expected: Option<Refusal>) {
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    check(id, [&head[..], body.as_ref()].concat(), expected);
}

#[test]
fn request_lines() {
    let line = |id, line: &str, expected| check(id, format!("{line}\r\nHost: a\r\n\r\n"), expected);
    line("RFC9112-3", "GET / HTTP/1.1", None);
    line("RFC9112-3", "GET / HTTP/1.0", None);
    line("RFC9112-3.2.2", "GET http://a/b?c HTTP/1.1", None);
    line("RFC9112-3.2.4", "OPTIONS * HTTP/1.1", None);
    line("RFC9112-3.2.3", "CONNECT a:80 HTTP/1.1", None);
    line("RFC9110-9.1", "M-SEARCH * HTTP/1.1", None);
    line("RFC9112-2.3", "GET / HTTP/1.2", Some(Refusal::Version));
    line("RFC9112-2.3", "GET / HTTP/2.0", Some(Refusal::Version));
    for bad in [
        "GET / http/1.1",
        "GET / HTTP/1.1 ",
        "GET /",
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        " GET / HTTP/1.1",
        "GET\t/\tHTTP/1.1",
        "GET / HTTP/1.10",
        "GET / HTTP/11",
        "GET / HTTP/+1.1",
        "GET / HTTX/1.1",
        "G@T / HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET /\x7f HTTP/1.1",
        "GET /\0 HTTP/1.1",
        "/ HTTP/1.1",
    ] {
        line("RFC9112-3", bad, Some(Refusal::RequestLine));
    }
    line("RFC9112-2.2", "GET /\rHTTP/1.1 HTTP/1.1", Some(Refusal::LineEnd));
    // TLS, without any line end.
    check("RFC9112-3", b"\x16\x03\x01\x02\x00\x01", Some(Refusal::RequestLine));
    line("limit", &format!("{} / HTTP/1.1", "M".repeat(32)), None);
    line("limit", &format!("{} / HTTP/1.1", "M".repeat(33)), Some(Refusal::Method));
    line("limit", &format!("GET /{} HTTP/1.1", "a".repeat(8191)), None);
    line("limit", &format!("GET /{} HTTP/1.1", "a".repeat(8192)), Some(Refusal::Target));
    line("CVE-2019-18801", &format!("GET /{} HTTP/1.1", "a".repeat(64 * 1024)), Some(Refusal::Target));
}

#[test]
fn lines_end_with_cr_lf() {
    check("RFC9112-2.2", "GET / HTTP/1.1\nHost: a\n\n", Some(Refusal::LineEnd));
    check("RFC9112-2.2", "GET / HTTP/1.1\r\nHost: a\n\r\n", Some(Refusal::LineEnd));
    check("RFC9112-2.2", "GET / HTTP/1.1\r\nHost: a\r\n\n", Some(Refusal::LineEnd));
    check("RFC9112-2.2", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", None);
    check("RFC9112-2.2", "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Some(Refusal::EmptyLines));
    check("RFC9112-2.2", "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Some(Refusal::LineEnd));
    field("RFC9112-2.2", "X: a\rb", Some(Refusal::LineEnd));
    field("RFC9112-2.2", "X\r: b", Some(Refusal::LineEnd));
    field("RFC9112-2.2", "X: a\r\r\nY: b", Some(Refusal::LineEnd));
}

#[test]
fn field_lines() {
    field("RFC9110-5.5", "X: \t a\tb \t", None);
    field("RFC9110-5.5", "X:", None);
    field("RFC9110-5.5", b"X: \xc3\xa9\xff", None);
    field("RFC9110-5.6.2", "x!#$%&'*+-.^_`|~9: a", None);
    field("RFC9112-5.2", "X: a\r\n b", Some(Refusal::Field));
    field("RFC9112-5.2", "X: a\r\n\tb", Some(Refusal::Field));
    field("RFC9112-5.1", "X : a", Some(Refusal::Field));
    field("RFC9112-5.1", "X\t: a", Some(Refusal::Field));
    field("CVE-2023-25725", ": a", Some(Refusal::Field));
    field("RFC9112-5", "no colon", Some(Refusal::Field));
    field("RFC9110-5.6.2", "X(: a", Some(Refusal::Field));
    field("RFC9110-5.6.2", b"X\xe9: a", Some(Refusal::Field));
    field("CVE-2019-9900", "X: a\0b", Some(Refusal::Field));
    field("RFC9110-5.5", "X: a\x0bb", Some(Refusal::Field));
    field("RFC9110-5.5", "X: a\x7fb", Some(Refusal::Field));
    check("RFC9112-2.2", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", Some(Refusal::Field));
    field("CVE-2021-40346", format!("{}: a", "n".repeat(300)), None);
    field("limit", format!("X: {}", "a".repeat(16 * 1024 - 3)), None);
    field("limit", format!("X: {}", "a".repeat(16 * 1024 - 2)), Some(Refusal::Fields));
    field("limit", ["X: a"; 99].join("\r\n"), None);
    field("limit", ["X: a"; 100].join("\r\n"), Some(Refusal::FieldCount));
    field("limit", [format!("X: {}", "a".repeat(10_000)).as_str(); 3].join("\r\n"), None);
    field("limit", [format!("X: {}", "a".repeat(10_000)).as_str(); 4].join("\r\n"), Some(Refusal::Fields));
}

#[test]
fn content_length() {
    framed("RFC9110-8.6", "Content-Length: 3", "abc", None);
    framed("RFC9110-8.6", "content-length:\t003 ", "abc", None);
    framed("RFC9110-8.6", "Content-Length: 0", "", None);
    for bad in
        ["+3", "-3", "0x3", "3 3", "3,3", "3, 3", "3.0", "3;", "", " ", "\"3\"", "٣", "9999999999999999999"]
    {
        framed("RUSTSEC-2021-0078", &format!("Content-Length: {bad}"), "abc", Some(Refusal::ContentLength));
    }
    framed("RFC9112-6.3", "Content-Length: 3\r\nContent-Length: 3", "abc", Some(Refusal::ContentLength));
    framed("RFC9112-6.3", "Content-Length: 3\r\nContent-Length: 4", "abc", Some(Refusal::ContentLength));
    framed("RFC9112-6.3", "Content-Length: 0\r\nContent-Length: 0", "", Some(Refusal::ContentLength));
    check("RFC9110-9.3.6", "CONNECT a:80 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", Some(Refusal::Unframed));
    assert_eq!(agreed(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab", request), Verdict::Partial);
    // What follows is the next message's.
    let two = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n\r\n";
    assert_eq!(agreed(two, request), Verdict::Whole(two.len() - 18));
}

#[test]
fn transfer_encoding() {
    const EMPTY: &str = "0\r\n\r\n";
    framed("RFC9112-6.1", "Transfer-Encoding: chunked", EMPTY, None);
    framed("RFC9112-6.1", "transfer-encoding:\t ChunkeD\t", EMPTY, None);
    for bad in [
        "gzip, chunked",
        "chunked, chunked",
        "chunked, identity",
        "identity",
        "xchunked",
        "chunked;q=1",
        "",
        ",chunked",
        "chunked,",
        "\"chunked\"",
        "chun ked",
    ] {
        framed("RFC9112-6.1", &format!("Transfer-Encoding: {bad}"), EMPTY, Some(Refusal::Encoding));
    }
    framed(
        "RUSTSEC-2021-0020",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        EMPTY,
        Some(Refusal::Encoding),
    );
    framed("RFC9112-6.1", "Transfer-Encoding: chunked\x0b", EMPTY, Some(Refusal::Field));
    framed("RFC9112-6.1", "Transfer-Encoding : chunked", EMPTY, Some(Refusal::Field));
    for both in [
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Content-Length: 0\r\nX: y\r\nTransfer-Encoding: chunked",
    ] {
        framed("RFC9112-6.1", both, EMPTY, Some(Refusal::LengthAndEncoding));
    }
    check(
        "RFC9112-6.1",
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Some(Refusal::Unframed),
    );
    check(
        "RFC9110-9.3.6",
        "CONNECT a:1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Some(Refusal::Unframed),
    );
}

#[test]
fn chunked_bodies() {
    chunks("RFC9112-7.1", "3\r\nabc\r\n0\r\n\r\n", None);
    chunks("RFC9112-7.1", "0000000A\r\n0123456789\r\n1\r\n\n\r\n00\r\n\r\n", None);
    for bad in [
        "0x3\r\nabc\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        " 3\r\nabc\r\n0\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "3_\r\nabc\r\n0\r\n\r\n",
        "\r\n0\r\n\r\n",
        ";a\r\nabc\r\n0\r\n\r\n",
        "g\r\n",
        "-1\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "3\rabc\r\n0\r\n\r\n",
        "3\r\nabc\r\r\n0\r\n\r\n",
    ] {
        chunks("RFC9112-7.1", bad, Some(Refusal::Chunk));
    }
    chunks("RUSTSEC-2021-0079", "10000000000000000\r\n", Some(Refusal::Chunk));
    chunks("RUSTSEC-2021-0079", "ffffffffffffffff\r\n", Some(Refusal::Chunk));
    chunks("RUSTSEC-2021-0079", "00000000000000003\r\nabc\r\n0\r\n\r\n", Some(Refusal::Chunk));
    assert_eq!(
        agreed(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3ffffffffffffff\r\nabc", request),
        Verdict::Partial
    );
}

#[test]
fn chunk_extensions() {
    chunks("RFC9112-7.1.1", "3;a=b;c=\"d e\"\r\nabc\r\n0;x\r\n\r\n", None);
    chunks("CVE-2025-55315", "3;a\nabc\r\n0\r\n\r\n", Some(Refusal::Chunk));
    chunks("CVE-2025-55315", "3;a\rb\r\nabc\r\n0\r\n\r\n", Some(Refusal::Chunk));
    chunks("CVE-2025-55315", "3;\nxx\r\n4c\r\n0\r\n\r\n", Some(Refusal::Chunk));
    chunks("RFC9112-7.1.1", "3;a\0\r\nabc\r\n0\r\n\r\n", Some(Refusal::Chunk));
    chunks("limit", format!("3;{}\r\nabc\r\n0\r\n\r\n", "e".repeat(255)), None);
    chunks("CVE-2024-22019", format!("3;{}\r\nabc\r\n0\r\n\r\n", "e".repeat(256)), Some(Refusal::Extensions));
    let small = |count: usize| format!("{}0\r\n\r\n", format!("1;{}\r\nx\r\n", "e".repeat(63)).repeat(count));
    chunks("CVE-2023-39326", small(64), None);
    chunks("CVE-2023-39326", small(65), Some(Refusal::Extensions));
}

#[test]
fn trailers() {
    let trailers = |id, lines: &str, expected| chunks(id, format!("0\r\n{lines}\r\n"), expected);
    trailers("RFC9112-7.1.2", "Checksum: abc\r\nX:\r\n", None);
    trailers("RFC9112-7.1.2", "grpc-status: 0\r\n", None);
    for name in [
        "Content-Length",
        "Transfer-Encoding",
        "Host",
        "trailer",
        "TE",
        "connection",
        "Authorization",
        "cookie",
    ] {
        trailers("RFC9110-6.5.1", &format!("{name}: 1\r\n"), Some(Refusal::Trailer));
    }
    for bad in
        ["a\r\n", "a : b\r\n", " a: b\r\n", ": b\r\n", "a: b\n", "a: b\rc\r\n", "a: \0\r\n", "a: b\r\n c\r\n"]
    {
        trailers("RFC9112-5", bad, Some(Refusal::Trailer));
    }
    trailers("limit", &"x: y\r\n".repeat(32), None);
    trailers("limit", &"x: y\r\n".repeat(33), Some(Refusal::Trailers));
    trailers("limit", &format!("x: {}\r\n", "y".repeat(8_200)), Some(Refusal::Trailers));
}
