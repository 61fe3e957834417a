//! RFC 9112 read slowly: whole messages only, each line copied out and each rule in a line of its own. Where the readers
//! are stricter than the RFC demands the line says so.

use proptest::prelude::*;

use super::{Verdict, agreed, request};

/// Length of the request at the beginning of these bytes; `Ok(None)` if it is not whole, `Err` if it is none.
fn reference(bytes: &[u8]) -> Result<Option<usize>, ()> {
    let mut at = 0;
    let Some(mut line) = next_line(bytes, &mut at)? else { return Ok(None) };
    // Section 2.2: at least one empty line is ignored; more are not here.
    if line.is_empty() {
        let Some(second) = next_line(bytes, &mut at)? else { return Ok(None) };
        line = second;
    }
    // Section 3: method SP request-target SP HTTP-version.
    let words: Vec<&str> = line.split(' ').collect();
    let [method, target, version] = words[..] else { return Err(()) };
    if !token(method) || target.is_empty() || !target.chars().all(|c| c > ' ' && c != '\x7f') {
        return Err(());
    }
    if !["HTTP/1.1", "HTTP/1.0"].contains(&version) {
        return Err(());
    }
    let mut lengths: Vec<String> = Vec::new();
    let mut encodings: Vec<String> = Vec::new();
    loop {
        // A head that is refused for one line is not looked at further, so framing is judged line by line.
        if lengths.len() > 1 || encodings.len() > 1 || !lengths.is_empty() && !encodings.is_empty() {
            return Err(());
        }
        // Section 6.3: a single number; a list is not mended here.
        if lengths.iter().any(|length| length.is_empty() || !length.chars().all(|c| c.is_ascii_digit())) {
            return Err(());
        }
        // Section 6.1: chunked, once; other codings are not implemented here.
        if encodings.iter().any(|encoding| !encoding.eq_ignore_ascii_case("chunked")) {
            return Err(());
        }
        let Some(line) = next_line(bytes, &mut at)? else { return Ok(None) };
        if line.is_empty() {
            break;
        }
        let (name, value) = field(&line)?;
        match name.as_str() {
            "content-length" => lengths.push(value),
            "transfer-encoding" => encodings.push(value),
            _ => {}
        }
    }
    // Section 6.1: HTTP/1.0 knows no Transfer-Encoding.
    if version == "HTTP/1.0" && !encodings.is_empty() {
        return Err(());
    }
    let length: usize = lengths.first().map_or(Ok(0), |length| length.parse()).map_err(|_| ())?;
    // RFC 9110, section 9.3.6: CONNECT has no content.
    if method == "CONNECT" && (length > 0 || !encodings.is_empty()) {
        return Err(());
    }
    if encodings.is_empty() {
        return Ok(if bytes.len() - at >= length { Some(at + length) } else { None });
    }
    // Section 7.1.
    loop {
        let Some(line) = next_line(bytes, &mut at)? else { return Ok(None) };
        let size = line.split(';').next().unwrap_or_default();
        if size.is_empty() || size.len() > 16 || !size.chars().all(|c| c.is_ascii_hexdigit()) {
            return Err(());
        }
        if line.chars().any(|c| c < ' ' && c != '\t' || c == '\x7f') {
            return Err(());
        }
        let size = u64::from_str_radix(size, 16).map_err(|_| ())? as usize;
        if size == 0 {
            break;
        }
        if bytes.len() - at < size {
            return Ok(None);
        }
        at += size;
        match bytes[at..] {
            [] | [b'\r'] => return Ok(None),
            [b'\r', b'\n', ..] => at += 2,
            _ => return Err(()),
        }
    }
    // Section 7.1.2.
    loop {
        let Some(line) = next_line(bytes, &mut at)? else { return Ok(None) };
        if line.is_empty() {
            return Ok(Some(at));
        }
        let (name, _) = field(&line)?;
        if ["content-length", "transfer-encoding", "host"].contains(&name.as_str()) {
            return Err(());
        }
    }
}

fn next_line(bytes: &[u8], at: &mut usize) -> Result<Option<String>, ()> {
    let Some(end) = bytes[*at..].iter().position(|byte| *byte == b'\n') else { return Ok(None) };
    let line = &bytes[*at..*at + end];
    *at += end + 1;
    // Section 2.2: CR LF only; a bare LF is not taken for it here, and a bare CR never.
    let Some(line) = line.strip_suffix(b"\r") else { return Err(()) };
    if line.contains(&b'\r') {
        return Err(());
    }
    Ok(Some(line.iter().map(|byte| char::from(*byte)).collect()))
}

fn field(line: &str) -> Result<(String, String), ()> {
    let (name, value) = line.split_once(':').ok_or(())?;
    let bad = value.chars().any(|c| c < ' ' && c != '\t' || c == '\x7f');
    if bad || !token(name) {
        return Err(());
    }
    Ok((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()))
}

fn token(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c))
}

/// Pieces of requests, good ones and bad ones, in any order.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let pieces: &[&[u8]] = &[
        b"GET / HTTP/1.1\r\n",
        b"POST /a?b HTTP/1.1\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n",
        b"GET / HTTP/1.0\r\n",
        b"Host: a\r\n",
        b"Content-Length: 3\r\n",
        b"Content-Length: 0\r\n",
        b"Content-Length: 3, 3\r\n",
        b"content-length:3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"transfer-encoding:\tCHUNKED \r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b"abc",
        b"3\r\nabc\r\n",
        b"3;x=y\r\nabc\r\n",
        b"03\r\n",
        b"0\r\n\r\n",
        b"0\r\n",
        b"X: y\r\n",
        b" folded\r\n",
        b"X : y\r\n",
        b":",
        b" ",
        b"\0",
        b"\xff",
    ];
    prop_oneof![
        20 => proptest::sample::select(pieces).prop_map(<[u8]>::to_vec),
        1 => proptest::collection::vec(any::<u8>(), 1..4),
    ]
}

/// What a request mostly looks like, so that bodies are reached.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let head = prop_oneof![Just(&b"POST / HTTP/1.1\r\n"[..]), Just(&b""[..])];
    let framing = prop_oneof![
        Just(&b"Transfer-Encoding: chunked\r\n\r\n"[..]),
        Just(&b"Content-Length: 3\r\n\r\n"[..]),
        Just(&b""[..]),
    ];
    (head, proptest::collection::vec(piece(), 0..3), framing, proptest::collection::vec(piece(), 0..8))
        .prop_map(|(head, fields, framing, rest)| [head, &fields.concat(), framing, &rest.concat()].concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn requests_are_read_as_the_rfc_says(bytes in bytes()) {
        let found = agreed(&bytes, request);
        match (reference(&bytes), found) {
            (Ok(Some(length)), Verdict::Whole(found)) => prop_assert_eq!(length, found),
            (Ok(None), Verdict::Partial) | (Err(()), Verdict::Refused(_)) => {}
            // What is bad in the middle of a line of the body is seen before the line has ended.
            (Ok(None), Verdict::Refused(_)) => {
                let ended = [&bytes[..], b"\r\n"].concat();
                let more = [&bytes[..], b"\n"].concat();
                prop_assert!(reference(&ended).is_err() || reference(&more).is_err(), "{:?}", found);
            }
            (reference, found) => prop_assert!(false, "{:?} but {:?}", reference, found),
        }
    }
}
