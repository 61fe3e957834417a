//! The head of an HTTP/1 request.

use super::Sizes;
use super::body::Body;
use super::chars::{is_token, is_visible};
use super::fields::{Fields, Lines};
use super::refusal::Refusal;

/// A head that arrives.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestHead {
    lines: Lines,
    fields: Fields,
    stage: Stage,
    sizes: Sizes,
}

#[derive(Debug, Clone, Copy, Default)]
enum Stage {
    /// Nothing is there yet.
    #[default]
    Start,
    /// One empty line was there.
    Begun,
    /// The request line was there.
    Fields {
        /// Whether it asks for a tunnel.
        connect: bool,
        /// Whether its version knows no Transfer-Encoding.
        old: bool,
    },
}

/// A head that is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Its length.
    pub length: usize,
    /// What follows it.
    pub body: Body,
}

impl RequestHead {
    /// A head whose parts are at most so large.
    pub fn within(sizes: Sizes) -> RequestHead {
        RequestHead { sizes, ..RequestHead::default() }
    }

    /// Judges what is there of the head: `bytes` begin with it and only ever grow. `None` if it is not whole yet.
    pub fn scan(&mut self, bytes: &[u8]) -> Result<Option<Request>, Refusal> {
        // Method, target, version, two spaces.
        let longest = usize::from(self.sizes.method) + self.sizes.target as usize + 10;
        loop {
            let (connect, old) = match self.stage {
                Stage::Start | Stage::Begun => {
                    // Who speaks something else hears so at once, not when its line is over.
                    let first = bytes.get(self.lines.start);
                    if first.is_some_and(|byte| !matches!(byte, b'\r' | b'\n') && !is_token(&[*byte])) {
                        return Err(Refusal::RequestLine);
                    }
                    let Some(line) = self.lines.next(bytes, longest, Refusal::Target)? else {
                        return Ok(None);
                    };
                    self.stage = match (self.stage, line.is_empty()) {
                        (Stage::Start, true) => Stage::Begun,
                        (_, true) => return Err(Refusal::EmptyLines),
                        (_, false) => request_line(line, &self.sizes)?,
                    };
                    self.fields.begin_at(self.lines.start);
                    continue;
                }
                Stage::Fields { connect, old } => (connect, old),
            };
            if !self.fields.scan(&mut self.lines, bytes, &self.sizes)? {
                return Ok(None);
            }
            let body = match (self.fields.chunked, self.fields.length) {
                (true, _) if old => return Err(Refusal::Unframed),
                (true, _) => Body::chunked(super::Direction::Request, &self.sizes),
                (false, Some(length)) => Body::Length(length),
                (false, None) => Body::Length(0),
            };
            if connect && body != Body::Length(0) {
                return Err(Refusal::Unframed);
            }
            return Ok(Some(Request { length: self.lines.start, body }));
        }
    }
}

/// `method SP request-target SP HTTP-version` (RFC 9112, section 3), single spaces.
fn request_line(line: &[u8], sizes: &Sizes) -> Result<Stage, Refusal> {
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(no_request_line(line));
    };
    if !is_token(method) || !is_visible(target) {
        return Err(no_request_line(line));
    }
    if method.len() > usize::from(sizes.method) {
        return Err(Refusal::Method);
    }
    if target.len() > sizes.target as usize {
        return Err(Refusal::Target);
    }
    let old = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            return Err(Refusal::Version);
        }
        _ => return Err(no_request_line(line)),
    };
    Ok(Stage::Fields { connect: method == b"CONNECT", old })
}

/// A CR that ends no line is told apart.
fn no_request_line(line: &[u8]) -> Refusal {
    if line.contains(&b'\r') { Refusal::LineEnd } else { Refusal::RequestLine }
}
