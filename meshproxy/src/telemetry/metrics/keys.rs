//! What tells one series of traffic from another.

use crate::telemetry::flags::Flags;

/// Which side of the hop speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reporter {
    /// The caller's proxy.
    Source,
    /// The proxy of the workload that is called.
    Destination,
}

impl Reporter {
    /// The label's value.
    pub fn name(self) -> &'static str {
        match self {
            Reporter::Source => "source",
            Reporter::Destination => "destination",
        }
    }
}

/// What tells one series of requests from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestKey {
    /// Who speaks.
    pub reporter: Reporter,
    /// Number of the calling party.
    pub source: u32,
    /// Number of the called party.
    pub destination: u32,
    /// Number of the service.
    pub service: u32,
    /// Status; 0 where no answer was given.
    pub code: u16,
    /// `grpc-status` of a gRPC request; `None` for plain HTTP.
    pub grpc_status: Option<u16>,
    /// Whether the request was gRPC.
    pub grpc: bool,
    /// Response flags.
    pub flags: Flags,
    /// Whether the connection was mutual TLS; only the destination says so.
    pub mutual_tls: bool,
}

/// What tells one series of byte streams from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamKey {
    /// Who speaks.
    pub reporter: Reporter,
    /// Number of the calling party.
    pub source: u32,
    /// Number of the called party.
    pub destination: u32,
    /// Number of the service.
    pub service: u32,
    /// Response flags.
    pub flags: Flags,
    /// Whether the connection was mutual TLS; only the destination says so.
    pub mutual_tls: bool,
}

/// What tells one series of messages from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageKey {
    /// Who speaks.
    pub reporter: Reporter,
    /// Number of the calling party.
    pub source: u32,
    /// Number of the called party.
    pub destination: u32,
    /// Number of the service.
    pub service: u32,
    /// Whether the connection was mutual TLS; only the destination says so.
    pub mutual_tls: bool,
}
