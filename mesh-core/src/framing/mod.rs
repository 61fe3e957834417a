//! How messages lie on the wire: where a head and a body begin and end, judged on the bytes themselves, before any
//! library has made a message of them. What the libraries mend in silence or hide is refused here, so that nobody behind
//! this proxy can read the same bytes in another way.
//!
//! State machines that are fed with what a read brought, however it was split, and that keep no bytes: what they say
//! depends on the bytes alone. They judge framing and size; what a message *means* is judged elsewhere.

pub mod body;
mod chars;
pub mod chunked;
mod fields;
pub mod frames;
mod names;
pub mod refusal;
pub mod request;
pub mod response;

#[cfg(test)]
mod tests;

/// Field lines of a head, with their line ends.
pub const LONGEST_LIST: usize = 32 * 1024;
/// Field lines of a head.
pub const MOST_FIELDS: usize = 100;
/// One field line.
pub const LONGEST_FIELD: usize = 16 * 1024;
/// Target of a request.
pub const LONGEST_TARGET: usize = 8 * 1024;
/// Method of a request.
pub const LONGEST_METHOD: usize = 32;
/// Extensions of one chunk.
pub const LONGEST_EXTENSION: usize = 256;
/// Extensions of all chunks of a message.
pub const MOST_EXTENSIONS: usize = 4 * 1024;
/// Trailer fields of a message, with their line ends.
pub const LONGEST_TRAILERS: usize = 8 * 1024;
/// Trailer fields of a message.
pub const MOST_TRAILERS: usize = 32;
/// Interim answers before the final one.
pub const MOST_INTERIM: u8 = 16;

/// How large the parts of a message may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Field lines of a head, with their line ends.
    pub list: u32,
    /// Field lines of a head.
    pub fields: u32,
    /// One field line.
    pub field: u32,
    /// Target of a request.
    pub target: u32,
    /// Method of a request.
    pub method: u8,
    /// Extensions of one chunk.
    pub extension: u16,
    /// Extensions of all chunks of a message.
    pub extensions: u16,
    /// Trailer fields of a message, with their line ends.
    pub trailer_list: u16,
    /// Trailer fields of a message.
    pub trailers: u8,
}

impl Sizes {
    /// Right for nearly everybody.
    pub const DEFAULT: Sizes = Sizes {
        list: LONGEST_LIST as u32,
        fields: MOST_FIELDS as u32,
        field: LONGEST_FIELD as u32,
        target: LONGEST_TARGET as u32,
        method: LONGEST_METHOD as u8,
        extension: LONGEST_EXTENSION as u16,
        extensions: MOST_EXTENSIONS as u16,
        trailer_list: LONGEST_TRAILERS as u16,
        trailers: MOST_TRAILERS as u8,
    };
}

impl Default for Sizes {
    fn default() -> Sizes {
        Sizes::DEFAULT
    }
}

/// Which way a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From a client.
    Request,
    /// From a server.
    Response,
}
