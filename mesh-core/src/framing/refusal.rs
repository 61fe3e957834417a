//! Why bytes are refused: one name each, from which status, details and metric label follow.

use std::fmt;

/// What is wrong with the bytes of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Refusal {
    /// Empty lines before a message, more than the one that is put up with (RFC 9112, section 2.2).
    EmptyLines = 1,
    /// A line that does not end with CR LF, or a CR within one (RFC 9112, section 2.2).
    LineEnd,
    /// A request line that is none (RFC 9112, section 3).
    RequestLine,
    /// A version that is not spoken (RFC 9112, section 2.3).
    Version,
    /// A method longer than any (RFC 9112, section 3).
    Method,
    /// A target that is too long (RFC 9112, section 3).
    Target,
    /// A field line that is none (RFC 9112, section 5).
    Field,
    /// Too long fields.
    Fields,
    /// A Content-Length that is no number, or more than one (RFC 9112, section 6.3).
    ContentLength,
    /// Content-Length together with Transfer-Encoding (RFC 9112, section 6.1).
    LengthAndEncoding,
    /// A Transfer-Encoding other than `chunked`, once (RFC 9112, section 6.1).
    Encoding,
    /// Framing on a message that has none (RFC 9110, section 8.6; RFC 9112, section 6.1).
    Unframed,
    /// A chunk that does not begin or end as it must (RFC 9112, section 7.1).
    Chunk,
    /// Too much in the extensions of chunks (RFC 9112, section 7.1.1).
    Extensions,
    /// A trailer field that is none or must not be one (RFC 9110, section 6.5.1).
    Trailer,
    /// Too many trailer fields, or too long ones.
    Trailers,
    /// A status line that is none (RFC 9112, section 4).
    StatusLine,
    /// Too many interim answers.
    Interim,
    /// An upgrade that nobody asked for (RFC 9110, section 7.8).
    Switched,
    /// Bytes that answer nothing (RFC 9112, section 9.2).
    Surplus,
    /// Too many frames of HTTP/2 that carry nothing.
    Control,
    /// Too many streams of HTTP/2 that were given up.
    Resets,
    /// A header block of HTTP/2 that is too long.
    HeaderBlock,
    /// A head, a preface or a frame that does not come to its end.
    SlowHead,
    /// A body of which nothing comes.
    SlowBody,
    /// Too many fields.
    FieldCount,
}

impl Refusal {
    /// All of them, in the order of their numbers.
    pub const ALL: [Refusal; 26] = [
        Refusal::EmptyLines,
        Refusal::LineEnd,
        Refusal::RequestLine,
        Refusal::Version,
        Refusal::Method,
        Refusal::Target,
        Refusal::Field,
        Refusal::Fields,
        Refusal::ContentLength,
        Refusal::LengthAndEncoding,
        Refusal::Encoding,
        Refusal::Unframed,
        Refusal::Chunk,
        Refusal::Extensions,
        Refusal::Trailer,
        Refusal::Trailers,
        Refusal::StatusLine,
        Refusal::Interim,
        Refusal::Switched,
        Refusal::Surplus,
        Refusal::Control,
        Refusal::Resets,
        Refusal::HeaderBlock,
        Refusal::SlowHead,
        Refusal::SlowBody,
        Refusal::FieldCount,
    ];

    /// The one with this number.
    pub fn numbered(number: u8) -> Option<Refusal> {
        Refusal::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }

    /// Its number, from 1.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// Label of metrics, and what the log of connections says.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::EmptyLines => "empty_lines",
            Refusal::LineEnd => "line_end",
            Refusal::RequestLine => "request_line",
            Refusal::Version => "version",
            Refusal::Method => "method",
            Refusal::Target => "target",
            Refusal::Field => "field",
            Refusal::Fields => "fields",
            Refusal::ContentLength => "content_length",
            Refusal::LengthAndEncoding => "length_and_encoding",
            Refusal::Encoding => "transfer_encoding",
            Refusal::Unframed => "unframed",
            Refusal::Chunk => "chunk",
            Refusal::Extensions => "chunk_extensions",
            Refusal::Trailer => "trailer",
            Refusal::Trailers => "trailers",
            Refusal::StatusLine => "status_line",
            Refusal::Interim => "interim_answers",
            Refusal::Switched => "unasked_upgrade",
            Refusal::Surplus => "surplus",
            Refusal::Control => "control_frames",
            Refusal::Resets => "resets",
            Refusal::HeaderBlock => "header_block",
            Refusal::SlowHead => "slow_head",
            Refusal::SlowBody => "slow_body",
            Refusal::FieldCount => "field_count",
        }
    }

    /// Status of the answer to a request that is refused for it.
    pub fn status(self) -> u16 {
        match self {
            Refusal::Version => 505,
            Refusal::Encoding => 501,
            Refusal::Target => 414,
            Refusal::Fields | Refusal::FieldCount | Refusal::Trailers | Refusal::HeaderBlock => 431,
            Refusal::SlowHead | Refusal::SlowBody => 408,
            Refusal::EmptyLines
            | Refusal::LineEnd
            | Refusal::RequestLine
            | Refusal::Method
            | Refusal::Field
            | Refusal::ContentLength
            | Refusal::LengthAndEncoding
            | Refusal::Unframed
            | Refusal::Chunk
            | Refusal::Extensions
            | Refusal::Trailer
            | Refusal::StatusLine
            | Refusal::Interim
            | Refusal::Switched
            | Refusal::Surplus
            | Refusal::Control
            | Refusal::Resets => 400,
        }
    }

    /// Response code details of that answer, Envoy's where it has a word for it.
    pub fn details(self) -> &'static str {
        match self {
            Refusal::Fields => "http1.headers_too_large",
            Refusal::FieldCount => "http1.too_many_headers",
            Refusal::Target => "http1.uri_too_long",
            Refusal::LengthAndEncoding => "http1.content_length_and_chunked_not_allowed",
            Refusal::Encoding => "http1.invalid_transfer_encoding",
            Refusal::Trailers => "http1.trailers_too_large",
            Refusal::SlowHead => "request_header_timeout",
            Refusal::SlowBody => "stream_idle_timeout",
            Refusal::EmptyLines
            | Refusal::LineEnd
            | Refusal::RequestLine
            | Refusal::Version
            | Refusal::Method
            | Refusal::Field
            | Refusal::ContentLength
            | Refusal::Unframed
            | Refusal::Chunk
            | Refusal::Extensions
            | Refusal::Trailer
            | Refusal::StatusLine
            | Refusal::Interim
            | Refusal::Switched
            | Refusal::Surplus
            | Refusal::Control
            | Refusal::Resets
            | Refusal::HeaderBlock => "http1.codec_error",
        }
    }

    /// What the client reads.
    pub fn body(self) -> &'static str {
        match self.status() {
            408 => "Request Timeout",
            414 => "URI Too Long",
            431 => "Request Header Fields Too Large",
            501 => "Not Implemented",
            505 => "HTTP Version Not Supported",
            _ => "Bad Request",
        }
    }

    /// Response flag of that answer.
    pub fn flag(self) -> &'static str {
        match self {
            Refusal::SlowBody => "SI",
            _ => "DPE",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lead_back() {
        for (index, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(refusal.number()), index + 1);
            assert_eq!(Refusal::numbered(refusal.number()), Some(refusal));
        }
        assert_eq!(Refusal::numbered(0), None);
        assert_eq!(Refusal::numbered(200), None);
    }
}
