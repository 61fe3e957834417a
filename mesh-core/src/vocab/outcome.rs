//! How an attempt ended: one classification for retries, ejection, health and telemetry.

/// What became of one attempt at an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The endpoint answered with this status; gRPC status if the headers carried one.
    Response {
        /// HTTP status.
        status: u16,
        /// `grpc-status` of a headers-only answer.
        grpc_status: Option<u16>,
        /// Whether it says that there were too many requests (`x-envoy-ratelimited`).
        rate_limited: bool,
    },
    /// No connection: refused, unreachable, TLS failed.
    ConnectFailure,
    /// No connection within the connect timeout.
    ConnectTimeout,
    /// The stream was refused before it was processed (REFUSED_STREAM, GOAWAY).
    RefusedStream,
    /// The connection or stream broke before an answer.
    Reset {
        /// Whether nothing of the request had been sent.
        before_request: bool,
    },
    /// The endpoint gave the stream up (RST_STREAM).
    RemoteReset,
    /// The attempt's own deadline passed.
    AttemptTimeout,
    /// The whole request's deadline passed.
    RequestTimeout,
    /// A breaker had no permit.
    Overflow,
    /// What the endpoint sent is not the protocol.
    ProtocolError,
}

impl Outcome {
    /// Envoy's response flag of the reply that the client gets when this outcome is final; empty for a response.
    pub fn flag(self) -> &'static str {
        match self {
            Outcome::Response { .. } => "",
            Outcome::ConnectFailure | Outcome::ConnectTimeout => "UF",
            Outcome::RefusedStream | Outcome::RemoteReset => "UR",
            Outcome::Reset { .. } => "UC",
            Outcome::AttemptTimeout | Outcome::RequestTimeout => "UT",
            Outcome::Overflow => "UO",
            Outcome::ProtocolError => "UPE",
        }
    }

    /// Status of the reply that the client gets when this outcome is final.
    pub fn status(self) -> u16 {
        match self {
            Outcome::Response { status, .. } => status,
            Outcome::AttemptTimeout | Outcome::RequestTimeout => 504,
            Outcome::ProtocolError => 502,
            Outcome::ConnectFailure
            | Outcome::ConnectTimeout
            | Outcome::RefusedStream
            | Outcome::Reset { .. }
            | Outcome::RemoteReset
            | Outcome::Overflow => 503,
        }
    }

    /// Envoy's reset reason, as it stands in the body and the details of a reply.
    pub fn reason(self) -> &'static str {
        match self {
            Outcome::Response { .. } => "",
            Outcome::ConnectFailure => "remote connection failure",
            Outcome::ConnectTimeout => "connection timeout",
            Outcome::RefusedStream => "remote refused stream reset",
            Outcome::Reset { .. } => "connection termination",
            Outcome::RemoteReset => "remote reset",
            Outcome::AttemptTimeout => "per try timeout",
            Outcome::RequestTimeout => "response timeout",
            Outcome::Overflow => "overflow",
            Outcome::ProtocolError => "protocol error",
        }
    }

    /// Whether no application has seen anything of the request: sending it elsewhere cannot do anything twice.
    pub fn never_arrived(self) -> bool {
        match self {
            Outcome::ConnectFailure
            | Outcome::ConnectTimeout
            | Outcome::RefusedStream
            | Outcome::Reset { before_request: true } => true,
            Outcome::Response { .. }
            | Outcome::Reset { before_request: false }
            | Outcome::RemoteReset
            | Outcome::AttemptTimeout
            | Outcome::RequestTimeout
            | Outcome::Overflow
            | Outcome::ProtocolError => false,
        }
    }

    /// Whether this counts as a failure of the endpoint.
    pub fn is_failure(self) -> bool {
        match self {
            Outcome::Response { status, .. } => status >= 500,
            Outcome::Overflow => false,
            Outcome::ConnectFailure
            | Outcome::ConnectTimeout
            | Outcome::RefusedStream
            | Outcome::Reset { .. }
            | Outcome::RemoteReset
            | Outcome::AttemptTimeout
            | Outcome::RequestTimeout
            | Outcome::ProtocolError => true,
        }
    }
}
