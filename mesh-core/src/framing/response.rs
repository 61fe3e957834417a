//! The head of an HTTP/1 answer.

use super::body::Body;
use super::chars::is_text;
use super::fields::{Fields, Lines};
use super::refusal::Refusal;
use super::{Direction, LONGEST_TARGET, Sizes};

/// A status line; reason phrases say nothing.
const LONGEST_LINE: usize = LONGEST_TARGET;

/// What was asked, as far as the framing of the answer hangs on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Anything else.
    Plain,
    /// HEAD: the answer has no body.
    Head,
    /// CONNECT: with success the connection is a tunnel.
    Connect,
    /// To go on with another protocol.
    Upgrade,
}

/// A head that arrives.
#[derive(Debug, Clone, Copy, Default)]
pub struct ResponseHead {
    lines: Lines,
    fields: Fields,
    /// What the status line said: the status, and whether the version is HTTP/1.0.
    status: Option<(u16, bool)>,
    sizes: Sizes,
}

/// A head that is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response {
    /// Its length.
    pub length: usize,
    /// What follows it.
    pub then: Then,
}

/// What follows the head of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Another head: this one was interim.
    Head,
    /// The body.
    Body(Body),
    /// Another protocol.
    Tunnel,
}

impl ResponseHead {
    /// A head whose parts are at most so large.
    pub fn within(sizes: Sizes) -> ResponseHead {
        ResponseHead { sizes, ..ResponseHead::default() }
    }

    /// Judges what is there of the head: `bytes` begin with it and only ever grow. `None` if it is not whole yet.
    pub fn scan(&mut self, bytes: &[u8], asked: Asked) -> Result<Option<Response>, Refusal> {
        let (status, old) = match self.status {
            Some(status) => status,
            None => {
                // Who speaks something else is not waited for until its line is over.
                if bytes.iter().zip(b"HTTP/1.").any(|(found, expected)| found != expected) {
                    return Err(Refusal::StatusLine);
                }
                let Some(line) = self.lines.next(bytes, LONGEST_LINE, Refusal::StatusLine)? else {
                    return Ok(None);
                };
                self.fields.begin_at(self.lines.start);
                *self.status.insert(status_line(line)?)
            }
        };
        if !self.fields.scan(&mut self.lines, bytes, &self.sizes)? {
            return Ok(None);
        }
        let then = self.then(status, old, asked)?;
        Ok(Some(Response { length: self.lines.start, then }))
    }

    /// RFC 9112, section 6.3, in its order.
    fn then(&self, status: u16, old: bool, asked: Asked) -> Result<Then, Refusal> {
        let Fields { length, chunked, .. } = self.fields;
        if chunked && (old || status < 200 || status == 204) {
            return Err(Refusal::Unframed);
        }
        let tunnel = asked == Asked::Connect && (200..300).contains(&status);
        match status {
            101 if asked == Asked::Upgrade => return Ok(Then::Tunnel),
            101 => return Err(Refusal::Switched),
            100..200 => return Ok(Then::Head),
            _ if tunnel => return Ok(Then::Tunnel),
            // Servers that say `Content-Length: 0` with it are many.
            204 if length.is_some_and(|length| length > 0) => return Err(Refusal::Unframed),
            204 | 304 => return Ok(Then::Body(Body::Length(0))),
            _ if asked == Asked::Head => return Ok(Then::Body(Body::Length(0))),
            _ => {}
        }
        Ok(Then::Body(match length {
            _ if chunked => Body::chunked(Direction::Response, &self.sizes),
            Some(length) => Body::Length(length),
            None => Body::UntilClose,
        }))
    }
}

/// `HTTP-version SP status-code SP [ reason-phrase ]` (RFC 9112, section 4). The last space is left out by many.
fn status_line(line: &[u8]) -> Result<(u16, bool), Refusal> {
    let (version, rest) = line.split_at_checked(9).ok_or(Refusal::StatusLine)?;
    let old = match version {
        b"HTTP/1.1 " => false,
        b"HTTP/1.0 " => true,
        _ => return Err(Refusal::StatusLine),
    };
    let (code, reason) = rest.split_at_checked(3).ok_or(Refusal::StatusLine)?;
    if !code.iter().all(u8::is_ascii_digit) || !matches!(reason, [] | [b' ', ..]) || !is_text(reason) {
        return Err(Refusal::StatusLine);
    }
    let status = code.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    // RFC 9110, section 15: the first digit is one of five.
    if (100..600).contains(&status) { Ok((status, old)) } else { Err(Refusal::StatusLine) }
}
