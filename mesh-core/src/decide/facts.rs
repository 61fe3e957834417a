//! What is known when a decision is made.

use std::net::IpAddr;

use crate::matching::request::{Caller, Request};

/// A request of a workload of this host.
#[derive(Debug, Clone, Copy)]
pub struct OutboundRequest<'a> {
    /// The request; its path normalised.
    pub request: Request<'a>,
    /// The port it was addressed to: the listener's, or the authority's where the listener serves all.
    pub port: u16,
    /// The service whose address the client connected to, by index; `None` where the listener serves all.
    pub owner: Option<usize>,
    /// The entry of its Sidecar whose socket it came through, by index, where only that entry's hosts are reached.
    pub listener: Option<usize>,
    /// The workload that sends; `None` where it is not known.
    pub caller: Option<Caller<'a>>,
    /// The address of who sends, where it is known.
    pub source: Option<IpAddr>,
}

/// A byte stream of a workload of this host.
#[derive(Debug, Clone, Copy)]
pub struct OutboundStream<'a> {
    /// The service it was addressed to, by index.
    pub service: usize,
    /// The service port it was addressed to.
    pub port: u16,
    /// The address that the client meant, where it is known.
    pub destination: Option<IpAddr>,
    /// The server name that its TLS asks for, in lower case; `None` where it asks for none or is no TLS.
    pub sni: Option<&'a str>,
    /// The workload that sends; `None` where it is not known.
    pub caller: Option<Caller<'a>>,
    /// The address of who sends, where it is known.
    pub source: Option<IpAddr>,
}
