//! ServiceEntries: TCP that no address tells apart (IST0134), several that contradict each other (IST0177); and what
//! Istio no longer wants (IST0002).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::facts::Facts;
use super::findings::{Findings, listed};
use crate::resource::diagnostic::Severity;
use crate::resource::reach::Export;
use crate::resource::{Resource, Spec};
use crate::vocab::name::Text;
use crate::vocab::origin::Kind;
use crate::vocab::protocol::Protocol;

/// Exported to everybody.
const ALL: &str = "*";

/// What ServiceEntries say of a port, by scope, host and number.
type Declared<'a> = BTreeMap<(Text, Text, u16), Vec<(Protocol, &'a Arc<Resource>)>>;

pub(super) fn check(facts: &Facts<'_>, findings: &mut Findings) {
    let assigns_addresses = facts.mesh.is_some_and(|mesh| mesh.auto_addresses);
    let mut declared: Declared<'_> = BTreeMap::new();
    for resource in facts.of(Kind::ServiceEntry).iter().copied() {
        let Spec::ServiceEntry(entry) = &resource.spec else { continue };
        if entry.addresses.is_empty() && entry.networks.is_empty() && !assigns_addresses {
            addresses_wanted(resource, entry, findings);
        }
        for scope in scopes(&entry.export_to.entries, &resource.meta.key.namespace) {
            for host in &entry.hosts {
                for port in &entry.ports {
                    let key = (scope.clone(), host.clone(), port.number);
                    declared.entry(key).or_default().push((port.protocol, resource));
                }
            }
        }
    }
    protocols_agree(&declared, findings);
    for resource in facts.of(Kind::Sidecar) {
        let Spec::Sidecar(sidecar) = &resource.spec else { continue };
        if sidecar.outbound.as_ref().is_some_and(|outbound| outbound.egress_proxy.is_some()) {
            let message = "outboundTrafficPolicy.egressProxy is deprecated in Istio; route the hosts with a VirtualService instead";
            let field = "spec.outboundTrafficPolicy.egressProxy";
            findings.add("IST0002", Severity::Warning, resource, field, message);
        }
    }
}

fn addresses_wanted(
    resource: &Arc<Resource>,
    entry: &crate::resource::service::ServiceEntry,
    findings: &mut Findings,
) {
    for (index, port) in entry.ports.iter().enumerate() {
        if matches!(port.protocol, Protocol::Tcp | Protocol::Auto) {
            let message = format!(
                "port {} speaks TCP and the ServiceEntry has no addresses: its traffic is told from that of other hosts by address only; write addresses, or name the protocol",
                port.number
            );
            findings.add("IST0134", Severity::Warning, resource, format!("spec.ports[{index}]"), message);
        }
    }
}

fn scopes(entries: &[Export], own: &Text) -> BTreeSet<Text> {
    if entries.is_empty() || entries.contains(&Export::All) {
        return [Text::from(ALL)].into();
    }
    let scope = |entry: &Export| match entry {
        Export::Own => Some(own.clone()),
        Export::Namespace(namespace) => Some(namespace.clone()),
        Export::All | Export::Nobody => None,
    };
    entries.iter().filter_map(scope).collect()
}

fn protocols_agree(declared: &Declared<'_>, findings: &mut Findings) {
    let mut reported: BTreeSet<String> = BTreeSet::new();
    for ((scope, host, port), list) in declared {
        let mut list = list.clone();
        if &**scope != ALL {
            list.extend(declared.get(&(ALL.into(), host.clone(), *port)).into_iter().flatten().copied());
        }
        let protocols: BTreeSet<&str> = list.iter().map(|(protocol, _)| protocol.name()).collect();
        if protocols.len() < 2 {
            continue;
        }
        let names: BTreeSet<String> =
            list.iter().map(|(_, resource)| resource.meta.key.to_string()).collect();
        let names = listed(names.into_iter());
        let protocols = protocols.into_iter().collect::<Vec<_>>().join(", ");
        for (_, resource) in &list {
            if reported.insert(resource.meta.key.to_string()) {
                let message = format!(
                    "{names} declare {host} port {port} with different protocols ({protocols}); use one"
                );
                findings.add("IST0177", Severity::Warning, resource, "spec.ports", message);
            }
        }
    }
}
