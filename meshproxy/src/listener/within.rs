//! What shall be open in the network namespaces that workloads of this host live in: the HTTP proxy, the addresses of
//! services, and what a Sidecar asks for, as in our own.

use std::collections::BTreeMap;

use mesh_core::snapshot::view::Bind;
use mesh_core::vocab::name::Text;

use super::sockets::Settings;
use crate::capture::{Purpose, Wanted, bound, explicit, loopback};
use crate::live::root::{ListenerFault, Root};
use crate::netns::{Id, Netns};

/// A namespace: another one of the same name is another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Within {
    /// Its name.
    pub(super) name: Text,
    id: Id,
}

/// The sockets, and a fault for each namespace that cannot be entered.
pub(super) fn wanted(
    settings: &Settings,
    root: &Root,
) -> (BTreeMap<(Within, Bind), Purpose>, Vec<ListenerFault>) {
    let mut wanted = BTreeMap::new();
    let mut faults = Vec::new();
    for name in root.tables.network_namespaces() {
        match Netns::named(name).look() {
            Ok(id) => {
                for Wanted { address, purpose } in sockets(settings, root, name) {
                    let within = Within { name: name.clone(), id };
                    wanted.entry((within, address)).or_insert(purpose);
                }
            }
            Err(error) => faults.push(ListenerFault {
                address: Bind::Ip(settings.inbound),
                purpose: format!("network namespace {name}").into(),
                reason: error.to_string(),
                holder: None,
            }),
        }
    }
    (wanted, faults)
}

fn sockets(settings: &Settings, root: &Root, name: &Text) -> Vec<Wanted> {
    let tables = &root.tables;
    let fixed = explicit::wanted(settings.inbound, settings.explicit);
    // The mesh port is one of the host.
    let fixed = fixed.into_iter().filter(|wanted| wanted.purpose != Purpose::Inbound);
    let services = settings.loopback.into_iter().flat_map(|net| {
        let services = tables.services.iter().enumerate().filter(|(index, _)| tables.is_seen_here(*index));
        services.flat_map(move |(_, table)| loopback::wanted(net, &table.service))
    });
    let lives_here = |view: &Text| {
        let sections = tables.workloads.values().map(|workload| &workload.section);
        let mut here = sections.filter(|section| section.recognition.netns.as_ref() == Some(name));
        here.any(|section| section.view.as_ref() == Some(view))
    };
    // A path is the same in every network namespace, and is open already.
    let bound = bound::wanted(tables).into_iter().filter(|wanted| {
        let holds = matches!(&wanted.purpose, Purpose::Bound(bound) if lives_here(&bound.view));
        holds && wanted.address.ip().is_some()
    });
    fixed.chain(services).chain(bound).collect()
}

/// A fault with the namespace that it is in.
pub(super) fn told(name: &Text, fault: ListenerFault) -> ListenerFault {
    ListenerFault { purpose: format!("{} in network namespace {name}", fault.purpose).into(), ..fault }
}
