//! How the content of a message is framed: by one length, in chunks, or not at all. RFC 9112, section 6, without its
//! leniencies: what two readers could delimit in two ways is refused.

use http::header::{self, HeaderMap, HeaderValue};

use super::fields::Found;

/// What follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Nothing.
    Nothing,
    /// So many bytes.
    Length(u64),
    /// Content that ends when it ends.
    Open,
}

/// What is wrong with the framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unclear {
    Encoding,
    LengthAndEncoding,
    Length,
}

/// What the fields say. `None` where they say nothing.
pub(super) fn declared(headers: &HeaderMap, found: &Found) -> Result<Option<Framing>, Unclear> {
    match (found.encodings, found.lengths) {
        (0, 0) => Ok(None),
        (1.., 1..) => Err(Unclear::LengthAndEncoding),
        (1, 0) => match headers.get(header::TRANSFER_ENCODING) {
            Some(coding) if coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") => {
                Ok(Some(Framing::Open))
            }
            _ => Err(Unclear::Encoding),
        },
        (2.., 0) => Err(Unclear::Encoding),
        (0, 1) => {
            let length = headers.get(header::CONTENT_LENGTH).and_then(length).ok_or(Unclear::Length)?;
            Ok(Some(Framing::Length(length)))
        }
        (0, 2..) => Err(Unclear::Length),
    }
}

/// A length: digits and nothing else (RFC 9110, section 8.6).
fn length(value: &HeaderValue) -> Option<u64> {
    let bytes = value.as_bytes().trim_ascii();
    if !bytes.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// Leaves the one field that says it, in one spelling. What is sent in chunks the codec of the next connection says.
pub(super) fn rebuild(headers: &mut HeaderMap, found: &Found, framing: Framing) {
    if found.encodings > 0 {
        headers.remove(header::TRANSFER_ENCODING);
    }
    if found.lengths == 0 {
        return;
    }
    match framing {
        Framing::Length(length) => {
            let spelled = headers.get(header::CONTENT_LENGTH).map(HeaderValue::as_bytes);
            // As long as nothing stands before the first digit that counts, it is the one spelling.
            if spelled.is_some_and(|spelled| spelled.len() > 1 && spelled[0] == b'0') {
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            }
        }
        Framing::Nothing | Framing::Open => {
            headers.remove(header::CONTENT_LENGTH);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn one_length_or_chunks() {
        let check = |fields: &[(&'static str, &'static str)], expected| {
            let headers = map(fields);
            assert_eq!(declared(&headers, &Found::of(&headers)), expected, "{fields:?}");
        };
        let (length, coding) = ("content-length", "transfer-encoding");
        check(&[], Ok(None));
        check(&[(length, "3")], Ok(Some(Framing::Length(3))));
        check(&[(length, "007")], Ok(Some(Framing::Length(7))));
        check(&[(length, "18446744073709551615")], Ok(Some(Framing::Length(u64::MAX))));
        check(&[(coding, "Chunked")], Ok(Some(Framing::Open)));
        check(&[(coding, "chunked"), (length, "3")], Err(Unclear::LengthAndEncoding));
        check(&[(coding, "chunked"), (coding, "chunked")], Err(Unclear::Encoding));
        for bad in
            ["gzip, chunked", "chunked, chunked", "chunked;q=1", "identity", "xchunked", "chunked,", ""]
        {
            check(&[(coding, bad)], Err(Unclear::Encoding));
        }
        check(&[(length, "3"), (length, "3")], Err(Unclear::Length));
        for bad in
            ["", "3,3", "3, 3", "+5", "-1", "0x5", "5 5", "5.0", "18446744073709551616", "\u{b}5", "5;"]
        {
            let Ok(value) = HeaderValue::from_str(bad) else { continue };
            let headers: HeaderMap = [(header::CONTENT_LENGTH, value)].into_iter().collect();
            assert_eq!(declared(&headers, &Found::of(&headers)), Err(Unclear::Length), "{bad}");
        }
    }

    #[test]
    fn a_length_has_one_spelling() {
        for (sent, expected) in [("3", "3"), ("007", "7"), ("0", "0"), ("00", "0")] {
            let mut headers = map(&[("content-length", sent)]);
            let found = Found::of(&headers);
            let framing = declared(&headers, &found).unwrap().unwrap();
            rebuild(&mut headers, &found, framing);
            assert_eq!(headers["content-length"], expected);
        }
    }
}
