//! How an attempt failed: one classification for retries, replies, metrics and the log.

use std::error::Error as _;
use std::io;

use mesh_core::vocab::outcome::Outcome;

use crate::live::breaker::Overflow;
use crate::net::guard;

/// Why there is no connection to an endpoint.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// It took too long.
    #[error("connection timeout")]
    Timeout,
    /// The network or the endpoint's host said no.
    #[error("delayed connect error: {text}")]
    Refused {
        /// What kind of no.
        kind: io::ErrorKind,
        /// What the kernel said.
        text: String,
    },
    /// The peer is not who was expected, or does not accept us.
    #[error("TLS error: {0}")]
    Tls(String),
    /// No HTTP connection came about.
    #[error("handshake error: {0}")]
    Handshake(String),
    /// It is not known who calls, or there is no valid document that would prove it.
    #[error("no identity to call with")]
    NoIdentity,
    /// It would lead back into this proxy.
    #[error("the address is a listener of this proxy")]
    Loop,
    /// There is no address to dial.
    #[error("no address")]
    NoAddress,
    /// There is as much under way as may be.
    #[error(transparent)]
    Overflow(#[from] Overflow),
    /// The name has no address.
    #[error("name resolution failed: {0}")]
    Resolve(String),
}

impl ConnectError {
    /// From what the kernel said.
    pub fn refused(error: &io::Error) -> ConnectError {
        match error.kind() {
            io::ErrorKind::TimedOut => ConnectError::Timeout,
            kind => ConnectError::Refused { kind, text: plain(error) },
        }
    }

    /// The classification.
    pub fn outcome(&self) -> Outcome {
        match self {
            ConnectError::Timeout => Outcome::ConnectTimeout,
            ConnectError::Overflow(Overflow) => Outcome::Overflow,
            ConnectError::Refused { .. }
            | ConnectError::Tls(_)
            | ConnectError::Handshake(_)
            | ConnectError::NoIdentity
            | ConnectError::Loop
            | ConnectError::NoAddress
            | ConnectError::Resolve(_) => Outcome::ConnectFailure,
        }
    }
}

/// The kernel's words without its number: `Connection refused`.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

/// Classifies what went wrong on an HTTP/1 connection that was there, before its answer.
pub fn outcome(error: &hyper::Error) -> Outcome {
    if error.is_parse() || is_malformed(error) || guard::cause(error).is_some() {
        return Outcome::ProtocolError;
    }
    Outcome::Reset { before_request: error.is_canceled() }
}

/// What TLS said of a connection that broke while it was in use: a server of TLS 1.3 refuses a client's certificate
/// when the client believes itself connected.
pub fn tls_fault(error: &hyper::Error) -> Option<String> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return is_tls(error).then(|| format!("TLS error: {error}"));
        }
        source = error.source();
    }
    None
}

fn is_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}

/// Whether a body is not framed as it says, rather than that its sender went away.
pub fn is_malformed(error: &hyper::Error) -> bool {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            // The end of TLS is that of the connection: nothing of what it carries was read.
            return !is_tls(error)
                && matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput);
        }
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.is_library();
        }
        source = error.source();
    }
    false
}

/// Classifies what went wrong on an HTTP/2 connection that was there.
pub fn http2_outcome(error: &h2::Error) -> Outcome {
    if error.reason() == Some(h2::Reason::REFUSED_STREAM) || (error.is_go_away() && error.is_remote()) {
        return Outcome::RefusedStream;
    }
    if error.is_library() {
        return Outcome::ProtocolError;
    }
    if error.is_reset() && error.is_remote() {
        return match error.reason() {
            Some(h2::Reason::PROTOCOL_ERROR) => Outcome::ProtocolError,
            _ => Outcome::RemoteReset,
        };
    }
    Outcome::Reset { before_request: false }
}
