//! Bytes in, verdict out: a table of rules, each with the section or advisory that it comes from, and a reading of the
//! RFC that is slow and plain. However bytes are split, the verdict is the same.

mod answers;
mod reference;
mod requests;

use super::body::Body;
use super::refusal::Refusal;
use super::request::RequestHead;
use super::response::{Asked, ResponseHead, Then};

/// What became of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// A message of this length.
    Whole(usize),
    /// There must come more.
    Partial,
    /// An answer that ends with its connection.
    Open,
    /// Another protocol from here on.
    Tunnel(usize),
    /// Refused.
    Refused(Refusal),
}

/// Feeds bytes in pieces of this size.
fn request(bytes: &[u8], piece: usize) -> Verdict {
    let mut head = RequestHead::default();
    let mut arrived = 0;
    while arrived < bytes.len() {
        arrived = (arrived + piece).min(bytes.len());
        match head.scan(&bytes[..arrived]) {
            Err(refusal) => return Verdict::Refused(refusal),
            Ok(None) => {}
            Ok(Some(found)) => return rest(found.body, found.length, bytes, piece),
        }
    }
    Verdict::Partial
}

fn response(bytes: &[u8], asked: Asked, piece: usize) -> Verdict {
    let (mut begin, mut arrived) = (0, 0);
    let mut head = ResponseHead::default();
    let mut interim = 0;
    loop {
        match head.scan(&bytes[begin..arrived], asked) {
            Err(refusal) => return Verdict::Refused(refusal),
            Ok(None) if arrived == bytes.len() => return Verdict::Partial,
            Ok(None) => arrived = (arrived + piece).min(bytes.len()),
            Ok(Some(found)) => match found.then {
                Then::Head => {
                    interim += 1;
                    if interim > super::MOST_INTERIM {
                        return Verdict::Refused(Refusal::Interim);
                    }
                    begin += found.length;
                    arrived = arrived.max(begin);
                    head = ResponseHead::default();
                }
                Then::Tunnel => return Verdict::Tunnel(begin + found.length),
                Then::Body(body) => return rest(body, begin + found.length, bytes, piece),
            },
        }
    }
}

fn rest(mut body: Body, mut at: usize, bytes: &[u8], piece: usize) -> Verdict {
    if body == Body::UntilClose {
        return Verdict::Open;
    }
    while !body.is_over() {
        let end = (at + piece).min(bytes.len());
        if at == end {
            return Verdict::Partial;
        }
        match body.advance(&bytes[at..end]) {
            Err(refusal) => return Verdict::Refused(refusal),
            Ok(reached) => {
                at += reached.length;
                if reached.is_over {
                    break;
                }
            }
        }
    }
    Verdict::Whole(at)
}

/// The verdict, which must not hang on how bytes are split.
#[track_caller]
fn agreed(bytes: &[u8], read: impl Fn(&[u8], usize) -> Verdict) -> Verdict {
    let whole = read(bytes, bytes.len().max(1));
    for piece in [1, 2, 3, 7, 64, 1000] {
        assert_eq!(read(bytes, piece), whole, "pieces of {piece}: {:?}", String::from_utf8_lossy(bytes));
    }
    whole
}
