//! Why a message is refused, and what is answered then.

use http::StatusCode;

/// Why a request is refused before anything is decided about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Fault {
    /// Older than HTTP/1.1.
    #[error("HTTP before 1.1")]
    Version,
    /// CONNECT where no tunnel is meant.
    #[error("the method is CONNECT and no tunnel is meant")]
    Method,
    /// Longer than any method is.
    #[error("the method is too long")]
    MethodLength,
    /// Neither a path nor a whole URI, or `*` without OPTIONS.
    #[error("the target is neither a path nor a whole URI")]
    Target,
    /// Longer than [`crate::framing::LONGEST_TARGET`].
    #[error("the target is too long")]
    TargetLength,
    /// Neither http nor https.
    #[error("the scheme is neither http nor https")]
    Scheme,
    /// The path has no unambiguous form.
    #[error("the path has no unambiguous form")]
    Path,
    /// It does not say for whom it is.
    #[error("neither the target nor a Host field names a host")]
    HostMissing,
    /// More than one Host, or one that is not `host[:port]`.
    #[error("the host is not exactly one host[:port]")]
    Host,
    /// Too many fields, or too large ones.
    #[error("the fields are too many or too large")]
    Fields,
    /// Transfer-Encoding is anything but `chunked`, once.
    #[error("the transfer encoding is unknown")]
    Encoding,
    /// Both Transfer-Encoding and Content-Length.
    #[error("both a transfer encoding and a length")]
    LengthAndEncoding,
    /// Content-Length twice, a list, no number, or not what follows.
    #[error("the length is not one number, or not that of the content")]
    Length,
    /// Content where the method has none, or before an upgrade.
    #[error("there must be no content")]
    Content,
    /// The content ends, or goes on, other than its framing says.
    #[error("the content is not framed as it says")]
    Body,
    /// A field of an HTTP/1 connection in HTTP/2.
    #[error("a field of an HTTP/1 connection in HTTP/2")]
    Connection,
    /// Expects what nobody knows.
    #[error("the expectation is unknown")]
    Expectation,
}

impl Fault {
    /// Every one.
    pub const ALL: [Fault; 17] = [
        Fault::Version,
        Fault::Method,
        Fault::MethodLength,
        Fault::Target,
        Fault::TargetLength,
        Fault::Scheme,
        Fault::Path,
        Fault::HostMissing,
        Fault::Host,
        Fault::Fields,
        Fault::Encoding,
        Fault::LengthAndEncoding,
        Fault::Length,
        Fault::Content,
        Fault::Body,
        Fault::Connection,
        Fault::Expectation,
    ];

    /// Status of the answer.
    pub fn status(self) -> StatusCode {
        match self {
            Fault::Version => StatusCode::UPGRADE_REQUIRED,
            Fault::TargetLength => StatusCode::URI_TOO_LONG,
            Fault::Fields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Fault::MethodLength | Fault::Encoding => StatusCode::NOT_IMPLEMENTED,
            Fault::Expectation => StatusCode::EXPECTATION_FAILED,
            Fault::Method
            | Fault::Target
            | Fault::Scheme
            | Fault::Path
            | Fault::HostMissing
            | Fault::Host
            | Fault::LengthAndEncoding
            | Fault::Length
            | Fault::Content
            | Fault::Body
            | Fault::Connection => StatusCode::BAD_REQUEST,
        }
    }

    /// Label of metrics; the same word as for bytes that are refused for it.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Version => "version",
            Fault::Method => "connect",
            Fault::MethodLength => "method",
            Fault::Target | Fault::TargetLength => "target",
            Fault::Scheme => "scheme",
            Fault::Path => "path",
            Fault::HostMissing | Fault::Host => "host",
            Fault::Fields => "fields",
            Fault::Encoding => "transfer_encoding",
            Fault::LengthAndEncoding => "length_and_encoding",
            Fault::Length => "content_length",
            Fault::Content => "content",
            Fault::Body => "body",
            Fault::Connection => "connection_fields",
            Fault::Expectation => "expectation",
        }
    }

    /// Response flag.
    pub fn flag(self) -> &'static str {
        if self.is_of_codec() { "DPE" } else { "-" }
    }

    /// Details for the log; Envoy's, where it has the case.
    pub fn details(self) -> &'static str {
        match self {
            Fault::Version => "low_version",
            Fault::Method | Fault::MethodLength | Fault::Length | Fault::Body => "http1.codec_error",
            Fault::Target => "http1.invalid_url",
            Fault::Content => "http1.body_disallowed",
            Fault::TargetLength => "http1.uri_too_long",
            Fault::Scheme => "invalid_scheme",
            Fault::Path => "path_normalization_failed",
            Fault::HostMissing => "missing_host_header",
            Fault::Host => "invalid_host_header",
            Fault::Fields => "http1.headers_too_large",
            Fault::Encoding => "http1.invalid_transfer_encoding",
            Fault::LengthAndEncoding => "http1.content_length_and_chunked_not_allowed",
            Fault::Connection => "http2.violation.of.messaging.rule",
            Fault::Expectation => "unknown_expectation",
        }
    }

    /// What the client reads: the reason phrase where the codec would have refused it.
    pub fn body(self) -> &'static str {
        if self.is_of_codec() { self.status().canonical_reason().unwrap_or("") } else { "" }
    }

    fn is_of_codec(self) -> bool {
        match self {
            Fault::Scheme | Fault::Path | Fault::HostMissing | Fault::Host | Fault::Expectation => false,
            Fault::Version
            | Fault::Method
            | Fault::MethodLength
            | Fault::Target
            | Fault::TargetLength
            | Fault::Fields
            | Fault::Encoding
            | Fault::LengthAndEncoding
            | Fault::Length
            | Fault::Content
            | Fault::Body
            | Fault::Connection => true,
        }
    }
}

/// Why the answer of an upstream cannot be passed on. The client gets 502, and the connection is not used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unusable {
    /// 101 that nobody asked for.
    #[error("101 that nobody asked for")]
    Unsolicited,
    /// A status outside of 200 to 599.
    #[error("no status of a final answer")]
    Status,
    /// Too many fields, or too large ones.
    #[error("the fields are too many or too large")]
    Fields,
    /// Transfer-Encoding is anything but `chunked`, once.
    #[error("the transfer encoding is unknown")]
    Encoding,
    /// Both Transfer-Encoding and Content-Length.
    #[error("both a transfer encoding and a length")]
    LengthAndEncoding,
    /// Content-Length twice, a list, no number, or not what follows.
    #[error("the length is not one number, or not that of the content")]
    Length,
    /// A field of an HTTP/1 connection in HTTP/2.
    #[error("a field of an HTTP/1 connection in HTTP/2")]
    Connection,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_says_what_the_client_and_the_log_read() {
        for fault in Fault::ALL {
            let (status, flag) = (fault.status(), fault.flag());
            assert!(status.is_client_error() || status == StatusCode::NOT_IMPLEMENTED, "{fault:?}");
            assert!(!fault.details().is_empty() && !fault.details().contains(' '), "{fault:?}");
            assert_eq!(fault.body().is_empty(), flag == "-", "{fault:?}");
        }
        let told = |fault: Fault| (fault.status().as_u16(), fault.flag(), fault.details(), fault.body());
        assert_eq!(told(Fault::Version), (426, "DPE", "low_version", "Upgrade Required"));
        assert_eq!(told(Fault::Path), (400, "-", "path_normalization_failed", ""));
        assert_eq!(
            told(Fault::Fields),
            (431, "DPE", "http1.headers_too_large", "Request Header Fields Too Large")
        );
    }
}
