//! What is known of an exchange or byte stream at its end: the one source of metrics, logs, spans and samples.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use mesh_core::telemetry::success::Ending;
use mesh_core::telemetry::tap::Told;
use mesh_core::vocab::origin::Origin;
use tokio::time::Instant;

use super::flags::Flags;
use super::metrics::{MessageKey, Reporter, RequestKey, StreamKey};
use super::tap::Tapped;
use super::trace::{Earlier, Traced};

/// Flags of exchanges that the upstream or the proxy broke off.
const BROKEN_OFF: [&str; 14] =
    ["UC", "UR", "UT", "UF", "UPE", "LR", "DPE", "OM", "UH", "NR", "NC", "RL", "SI", "DT"];

/// What policies have written down: it changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remarked {
    /// The AUDIT rule, `ns[NS]-policy[NAME]-rule[I]`.
    pub audited: Option<String>,
    /// What the policies in dry run say: `denied` or `allowed`, and by which rule.
    pub rehearsed: Option<String>,
}

/// What is told of an exchange or byte stream. Empty texts and `None` are unknown.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Which side speaks.
    pub reporter: Reporter,
    /// Whether the caller's connection is mutual TLS; only the destination says so.
    pub mutual_tls: bool,
    /// Number of the calling party ([`super::metrics::SeriesCache::party`]).
    pub source: u32,
    /// Number of the called party.
    pub destination: u32,
    /// Number of the service ([`super::metrics::SeriesCache::service`]).
    pub service: u32,
    /// Whether it is gRPC.
    pub grpc: bool,
    /// `grpc-status` of a gRPC request.
    pub grpc_status: Option<u16>,
    /// When it began.
    pub started: Instant,
    /// How long it took.
    pub duration: Duration,
    /// Method; empty for a byte stream.
    pub method: &'a str,
    /// Path and query as sent.
    pub path: &'a str,
    /// `HTTP/1.1`; empty for a byte stream.
    pub protocol: &'a str,
    /// Status; 0 where no answer was given.
    pub code: u16,
    /// Response flags.
    pub flags: Flags,
    /// `via_upstream`, `route_not_found`, ...
    pub details: &'a str,
    /// Why the connection was ended, where it was.
    pub termination: &'a str,
    /// Why TLS or the connection upstream failed.
    pub transport_failure: &'a str,
    /// The server name that the client's TLS asks for.
    pub server_name: &'a str,
    /// Bytes of the request, head included.
    pub request_bytes: u64,
    /// Bytes of the answer, head included.
    pub response_bytes: u64,
    /// Attempts upstream, those beside others included; 0 where nothing was sent.
    pub attempts: u32,
    /// Those of them that ran beside others and came too late.
    pub beside: u32,
    /// Whether it went, or was to go, to the proxy of its endpoint over mutual TLS.
    pub mesh_hop: bool,
    /// The connection that it came on: lives as long as that.
    pub connection: Option<&'a Rc<str>>,
    /// Where the rule was declared that decided.
    pub origin: Option<&'a Origin>,
    /// Body bytes from the client.
    pub received: u64,
    /// Body bytes to the client.
    pub sent: u64,
    /// From the request's end to the answer's head.
    pub service_time: Option<Duration>,
    /// Header field of that name.
    pub forwarded_for: Option<&'a HeaderValue>,
    /// Header field of that name.
    pub user_agent: Option<&'a HeaderValue>,
    /// Header field of that name.
    pub request_id: Option<&'a HeaderValue>,
    /// Authority as sent.
    pub authority: &'a str,
    /// The endpoint.
    pub upstream_host: Option<SocketAddr>,
    /// `outbound|PORT|SUBSET|HOST`, `inbound|PORT||`.
    pub cluster: &'a str,
    /// Where it was accepted.
    pub local: SocketAddr,
    /// Who connected.
    pub remote: SocketAddr,
    /// Both as [`super::line::addresses`] gives them, made once for a connection.
    pub addresses: &'a str,
    /// Name of the route.
    pub route: &'a str,
    /// What policies have written down of it.
    pub remarked: Option<&'a Remarked>,
    /// Scheme that the client used; empty for a byte stream.
    pub scheme: &'a str,
    /// Version of the snapshot that decided.
    pub version: u64,
    /// Fields of the request, where an expression asks for any.
    pub request_headers: Option<&'a HeaderMap>,
    /// Fields of the answer, where an expression asks for any.
    pub response_headers: Option<&'a HeaderMap>,
    /// Who else tells of it.
    pub told: Told,
    /// Header field `traceparent`.
    pub trace: Option<&'a HeaderValue>,
    /// What taps have seen of the request's fields.
    pub tapped: Option<&'a Tapped>,
    /// From where it was sent on.
    pub upstream_local: Option<SocketAddr>,
    /// Number of the client's connection.
    pub connection_number: u64,
    /// The trace that it has a span in, where one is told to a collector.
    pub trace_id: Option<[u8; 16]>,
    /// The span.
    pub span_id: Option<[u8; 8]>,
    /// Its context, where requests are traced, sampled or not.
    pub traced: Option<&'a Traced>,
    /// Attempts before the last.
    pub earlier: &'a [Earlier],
}

impl Entry<'_> {
    /// Whether it went well, as rates of success count it.
    pub fn is_success(&self) -> bool {
        let broken_off = !self.flags.is_empty() && BROKEN_OFF.iter().any(|flag| self.flags.contains(flag));
        let Entry { code, grpc, grpc_status, details, .. } = *self;
        Ending { code, grpc, grpc_status, details, broken_off }.is_success()
    }

    /// Number of the party that the proxy speaks for.
    pub fn own(&self) -> u32 {
        match self.reporter {
            Reporter::Source => self.source,
            Reporter::Destination => self.destination,
        }
    }

    /// What tells its series from others.
    pub fn key(&self) -> RequestKey {
        RequestKey {
            reporter: self.reporter,
            source: self.source,
            destination: self.destination,
            service: self.service,
            code: self.code,
            grpc_status: if self.grpc { self.grpc_status.or(told_by(self.code)) } else { None },
            grpc: self.grpc,
            flags: self.flags,
            mutual_tls: self.mutual_tls,
        }
    }

    /// The same for a byte stream.
    pub fn stream_key(&self) -> StreamKey {
        StreamKey {
            reporter: self.reporter,
            source: self.source,
            destination: self.destination,
            service: self.service,
            flags: self.flags,
            mutual_tls: self.mutual_tls,
        }
    }

    /// The same for its messages.
    pub fn message_key(&self) -> MessageKey {
        MessageKey {
            reporter: self.reporter,
            source: self.source,
            destination: self.destination,
            service: self.service,
            mutual_tls: self.mutual_tls,
        }
    }
}

/// What the status of an answer without `grpc-status` means to a client of gRPC; nothing where there is no answer.
fn told_by(code: u16) -> Option<u16> {
    match code {
        0 => None,
        400 => Some(13),
        401 => Some(16),
        403 => Some(7),
        404 => Some(12),
        429 | 502..=504 => Some(14),
        _ => Some(2),
    }
}

/// An exchange of which nothing is known yet, for tests.
#[cfg(test)]
pub(crate) fn sample<'a>(started: Instant, local: SocketAddr, remote: SocketAddr) -> Entry<'a> {
    Entry {
        reporter: Reporter::Source,
        mutual_tls: false,
        source: 0,
        destination: 0,
        service: 0,
        grpc: false,
        grpc_status: None,
        started,
        duration: Duration::ZERO,
        method: "",
        path: "",
        protocol: "",
        code: 0,
        flags: Flags::NONE,
        details: "",
        termination: "",
        transport_failure: "",
        server_name: "",
        request_bytes: 0,
        response_bytes: 0,
        attempts: 0,
        beside: 0,
        mesh_hop: false,
        connection: None,
        origin: None,
        received: 0,
        sent: 0,
        service_time: None,
        forwarded_for: None,
        user_agent: None,
        request_id: None,
        authority: "",
        upstream_host: None,
        cluster: "",
        local,
        remote,
        addresses: "",
        route: "",
        remarked: None,
        scheme: "",
        version: 0,
        told: Told::Nowhere,
        trace: None,
        tapped: None,
        request_headers: None,
        response_headers: None,
        upstream_local: None,
        connection_number: 0,
        trace_id: None,
        span_id: None,
        traced: None,
        earlier: &[],
    }
}
