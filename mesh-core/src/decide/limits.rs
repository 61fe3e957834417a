//! Which rate limits count a request, where they stand: before a workload, for what it has let in, and on a rule, for what
//! matched it.

use std::net::IpAddr;

use super::inbound::Inbound;
use crate::matching::request::Request;
use crate::routing::limit::Asking;
use crate::vocab::identity::SpiffeId;

/// A request that a workload has let in, as its rate limits see it: the caller is who its certificate says, and the
/// address is that of the direct peer. What a field says of clients, callers write.
pub fn entering<'a>(facts: &Inbound<'a>, request: &'a Request<'a>) -> Asking<'a> {
    Asking { request, peer: facts.peer, namespace: None, client: facts.source }
}

/// A request that has matched a rule, as the rule's rate limits see it: the caller is a workload of this host.
pub fn leaving<'a>(
    request: &'a Request<'a>,
    caller: Option<&'a SpiffeId>,
    namespace: Option<&'a str>,
    source: Option<IpAddr>,
) -> Asking<'a> {
    Asking { request, peer: caller, namespace, client: source }
}
