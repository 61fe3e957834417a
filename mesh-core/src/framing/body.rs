//! The body of an HTTP/1 message.

use super::chunked::Chunked;
use super::refusal::Refusal;
use super::{Direction, Sizes};

/// What is still to come of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunked),
    /// Everything until the connection ends.
    UntilClose,
}

/// How far a body goes in what was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// So many bytes are its.
    pub length: usize,
    /// Whether it is over.
    pub is_over: bool,
}

impl Body {
    /// A body in chunks.
    pub fn chunked(direction: Direction, sizes: &Sizes) -> Body {
        Body::Chunked(Chunked::new(direction, sizes))
    }

    /// Whether nothing is to come.
    pub fn is_over(&self) -> bool {
        matches!(self, Body::Length(0))
    }

    /// Goes on through what was read.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<Reached, Refusal> {
        match self {
            Body::Length(left) => {
                let length = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left -= length as u64;
                Ok(Reached { length, is_over: *left == 0 })
            }
            Body::Chunked(chunked) => chunked.advance(bytes),
            Body::UntilClose => Ok(Reached { length: bytes.len(), is_over: false }),
        }
    }
}
