//! Captured connections, of which the original destination is known: whose it is on the way out, and which workload is
//! entered on the way in.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::inbound::{Admission, Inbound, admit_to, check_shown};
use super::refusal::Refusal;
use super::witness::Witness;
use crate::matching::request::Caller;
use crate::policy::mtls::MtlsMode;
use crate::tables::Tables;
use crate::tables::addresses::{Addresses, Place};
use crate::tables::workloads::HostedWorkload;
use crate::vocab::identity::SpiffeId;
use crate::vocab::protocol::Protocol;

/// Whose the original destination of an outbound connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Captured {
    /// A service's, by index: the address is its own, or lies in a network of it.
    Service(usize),
    /// A workload's: the connection is for this endpoint and no other.
    Endpoint(Place),
    /// Nobody's that the caller may see: it goes where it was sent if such traffic may, unless what the client says
    /// first tells a service.
    Elsewhere {
        /// Whether that is worth looking at. Otherwise nothing is waited for.
        look: bool,
    },
}

/// Whose an original destination is. `offset` is that of a loopback address in this host's net for services.
pub fn outbound(
    tables: &Tables,
    addresses: &Addresses,
    to: SocketAddr,
    offset: Option<u32>,
    caller: Option<Caller<'_>>,
) -> Captured {
    if let Some(service) = offset.and_then(|offset| addresses.at_offset(offset)) {
        return Captured::Service(service);
    }
    let to = SocketAddr::new(to.ip().to_canonical(), to.port());
    let text = to.ip().to_string();
    if let Some(service) = tables.service_named(&text, None) {
        return Captured::Service(service);
    }
    let view = tables.view(caller.as_ref());
    let sees = |place: &&Place| {
        let key = &tables.destinations[place.destination].policy.key;
        let service = tables.service(&key.host);
        service.is_some_and(|table| view.is_none_or(|view| view.section.sees(&table.service, key.port)))
    };
    // Of services that share it the one that has the very port: it is most likely meant.
    let is_same = |place: &&Place| tables.destinations[place.destination].policy.key.port == to.port();
    let places = || addresses.endpoints(to).iter().filter(sees);
    if let Some(place) = places().find(is_same).or_else(|| places().next()) {
        return Captured::Endpoint(*place);
    }
    match tables.service_addressed(&text, to.port(), None) {
        Some(service) => Captured::Service(service),
        None => Captured::Elsewhere { look: addresses.may_tell(to.port()) },
    }
}

/// The service that TLS to an address which is nobody's is for, by the server name that it asks for: one that declares
/// TLS on that port and no address of its own.
pub fn named(tables: &Tables, sni: &str, port: u16, caller: Option<Caller<'_>>) -> Option<usize> {
    let view = caller.and_then(|caller| caller.view);
    let index = tables.service_in_view(tables.service_named(sni, None)?, view);
    let service = &tables.services[index].service;
    let is_tls = service.ports.iter().any(|at| at.number == port && at.protocol.is_tls());
    let seen = tables.view(caller.as_ref()).is_none_or(|view| view.section.sees(service, port));
    (is_tls && seen && service.addresses.is_empty()).then_some(index)
}

/// The workloads of this host that a connection to an address and port may be for: the one that has them, else those
/// that have the port, else those that have the address, else all.
pub fn entered(tables: &Tables, to: SocketAddr) -> Vec<&Arc<HostedWorkload>> {
    if let Some(workload) = tables.workload_at(to) {
        return vec![workload];
    }
    let those = |which: &dyn Fn(&HostedWorkload) -> bool| -> Vec<&Arc<HostedWorkload>> {
        tables.workloads.values().filter(|workload| which(workload)).collect()
    };
    let by_port = those(&|workload| workload.port(to.port()).is_some());
    if !by_port.is_empty() {
        return by_port;
    }
    let by_address = those(&|workload| is_at(workload, to.ip()));
    if by_address.is_empty() { tables.workloads.values().collect() } else { by_address }
}

fn is_at(workload: &HostedWorkload, address: IpAddr) -> bool {
    workload.section.address == address
}

/// What a port accepts and speaks. Where it may be of several workloads it is as strict as the strictest, and nothing is
/// known of what it speaks; where it is of none anything is let in.
pub fn manner(entered: &[&Arc<HostedWorkload>], port: u16) -> (MtlsMode, Protocol) {
    let mut modes = entered.iter().map(|workload| workload.section.mtls.mode(port));
    let Some(first) = modes.next() else { return (MtlsMode::Disable, Protocol::Auto) };
    let mode = modes.fold(first, |all, mode| match (all, mode) {
        (MtlsMode::Strict, _) | (_, MtlsMode::Strict) => MtlsMode::Strict,
        (all, mode) if all == mode => all,
        _ => MtlsMode::Permissive,
    });
    let protocol = match entered {
        [only] => only.port(port).map_or(Protocol::Auto, |known| known.protocol),
        _ => Protocol::Auto,
    };
    (mode, protocol)
}

/// The identity that is shown to whoever comes in mutual TLS: that of all the workloads which it may be for, if they have
/// the same.
pub fn shown(entered: &[&Arc<HostedWorkload>]) -> Option<SpiffeId> {
    let mut identities = entered.iter().map(|workload| workload.section.identity.as_ref());
    let first = identities.next()??;
    identities.all(|other| other == Some(first)).then(|| first.clone())
}

/// Decides whether a connection or request may enter: every workload that it may be for must let it in. `None` where
/// there is no workload, so that nothing judges it.
pub fn admit(
    tables: &Tables,
    facts: &Inbound<'_>,
    witness: &mut impl Witness,
) -> Result<Option<Admission>, Refusal> {
    let mut admission: Option<Admission> = None;
    for workload in entered(tables, facts.to) {
        let admitted = admit_to(workload, facts, witness)?;
        admission.get_or_insert(admitted);
    }
    if let Some(admission) = &admission {
        check_shown(&admission.workload, facts, witness)?;
    }
    Ok(admission)
}
