//! Any bytes as what a client or a server of HTTP/1 sends, and as frames of HTTP/2: the verdict must not hang on how they
//! were split, and no reader may go beyond what it was given.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_core::framing::body::Body;
use mesh_core::framing::frames::{Allowance, Frames, Ledger};
use mesh_core::framing::refusal::Refusal;
use mesh_core::framing::request::RequestHead;
use mesh_core::framing::response::{Asked, ResponseHead, Then};

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, bytes) = input;
    let piece = usize::from(piece).max(1);
    assert_eq!(request(bytes, piece), request(bytes, usize::MAX));
    for asked in [Asked::Plain, Asked::Head, Asked::Connect, Asked::Upgrade] {
        assert_eq!(response(bytes, asked, piece), response(bytes, asked, usize::MAX));
    }
    frames(bytes, piece);
});

type Verdict = Result<Option<usize>, Refusal>;

fn request(bytes: &[u8], piece: usize) -> Verdict {
    let mut head = RequestHead::default();
    let mut arrived = 0;
    while arrived < bytes.len() {
        arrived = arrived.saturating_add(piece).min(bytes.len());
        if let Some(found) = head.scan(&bytes[..arrived])? {
            return rest(found.body, found.length, bytes, piece);
        }
    }
    Ok(None)
}

fn response(bytes: &[u8], asked: Asked, piece: usize) -> Verdict {
    let mut head = ResponseHead::default();
    let mut arrived = 0;
    while arrived < bytes.len() {
        arrived = arrived.saturating_add(piece).min(bytes.len());
        if let Some(found) = head.scan(&bytes[..arrived], asked)? {
            return match found.then {
                Then::Body(body) => rest(body, found.length, bytes, piece),
                Then::Head | Then::Tunnel => Ok(Some(found.length)),
            };
        }
    }
    Ok(None)
}

fn rest(mut body: Body, mut at: usize, bytes: &[u8], piece: usize) -> Verdict {
    assert!(at <= bytes.len());
    while !body.is_over() {
        let end = at.saturating_add(piece).min(bytes.len());
        if at == end {
            return Ok(None);
        }
        let reached = body.advance(&bytes[at..end])?;
        assert!(reached.length <= end - at && (reached.is_over || at + reached.length == end));
        at += reached.length;
        if reached.is_over {
            break;
        }
    }
    Ok(Some(at))
}

struct Still;

impl Ledger for Still {
    fn now(&self) -> u64 {
        0
    }

    fn written(&self) -> u64 {
        0
    }
}

fn frames(bytes: &[u8], piece: usize) {
    let allowance = Allowance { control: 3, resets: 2 };
    let mut whole = Frames::of_client(allowance).judging_trailers();
    let mut split = whole.clone();
    let stopped = whole.advance(bytes, &Still);
    if let Err(stop) = stopped {
        assert!(stop.at <= bytes.len());
    }
    let mut refused = None;
    for part in bytes.chunks(piece) {
        if let Err(stop) = split.advance(part, &Still) {
            assert!(stop.at <= part.len());
            refused = Some(stop.refusal);
            break;
        }
    }
    // A frame whose header came in pieces is refused with the next one.
    if let (Some(refused), Err(stop)) = (refused, stopped) {
        assert_eq!(refused, stop.refusal);
    }
    if stopped.is_ok() {
        assert_eq!(refused, None);
        assert_eq!(whole.pending(), split.pending());
    }
}
