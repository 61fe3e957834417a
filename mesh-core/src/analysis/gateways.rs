//! Gateways: workloads that are not there (IST0101), ports that no Service opens (IST0162), servers that get in each
//! other's way (IST0145), certificates that are used twice (IST0138).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::facts::{Facts, INGRESS_PORTS, Workload};
use super::findings::{Findings, pairs};
use crate::resource::diagnostic::Severity;
use crate::resource::gateway::{Gateway, HostNamespace, Server, ServerHost, ServerTls};
use crate::resource::service::{Port, TargetPort};
use crate::resource::{Resource, Spec};
use crate::vocab::label::Labels;
use crate::vocab::origin::Kind;

/// Most selectors of one group of servers that are compared with each other, and most names that one message has.
const MOST_SELECTORS: usize = 200;
const MOST_NAMES: usize = 5;

pub(super) fn check(facts: &Facts<'_>, findings: &mut Findings) {
    let gateways: Vec<(&Arc<Resource>, &Gateway)> = all(facts).collect();
    for (resource, gateway) in &gateways {
        workloads(facts, resource, gateway, findings);
    }
    conflicts(facts, &gateways, findings);
    certificates(&gateways, findings);
}

pub(super) fn all<'a>(facts: &Facts<'a>) -> impl Iterator<Item = (&'a Arc<Resource>, &'a Gateway)> {
    facts.of(Kind::Gateway).iter().copied().filter_map(|resource| match &resource.spec {
        Spec::Gateway(gateway) => Some((resource, gateway)),
        _ => None,
    })
}

fn workloads(facts: &Facts<'_>, resource: &Arc<Resource>, gateway: &Gateway, findings: &mut Findings) {
    let selected = facts.gateway_workloads(&gateway.selector);
    if selected.is_empty() {
        let message = format!(
            "no workload has the labels {}: nothing listens for this Gateway; label the gateway's workload, or correct the selector",
            pairs(&gateway.selector)
        );
        findings.add("IST0101", Severity::Error, resource, "spec.selector", message);
        return;
    }
    let by_default = facts.default_ingress(&gateway.selector).is_some()
        || selected.iter().any(|workload| facts.is_behind_ingress(workload));
    let mut ports: BTreeSet<u16> = BTreeSet::new();
    if by_default {
        ports.extend(INGRESS_PORTS);
    }
    // A host needs no Service to be reached, a pod does.
    let mut counted = by_default;
    for workload in &selected {
        let services = facts.services_of(workload);
        counted |= workload.pod.is_some() || !services.is_empty();
        for service in services {
            if let Spec::Service(service) = &service.spec {
                ports.extend(service.ports.iter().flat_map(|port| opened(port, workload)));
            }
        }
    }
    if !counted {
        return;
    }
    for (index, server) in gateway.servers.iter().enumerate() {
        if !ports.contains(&server.port) {
            let message = format!(
                "no Service of the workloads with the labels {} leads to port {}: it cannot be reached through their Service",
                pairs(&gateway.selector),
                server.port
            );
            let field = format!("spec.servers[{index}].port");
            findings.add("IST0162", Severity::Warning, resource, field, message);
        }
    }
}

/// The ports of a server that a Service's port opens: its own, which the gateway translates, and the target.
fn opened(port: &Port, workload: &Workload<'_>) -> Vec<u16> {
    let mut opened = vec![port.number];
    match &port.target {
        TargetPort::Same => {}
        TargetPort::Number(number) => opened.push(*number),
        TargetPort::Name(name) => {
            let named = workload.pod.into_iter().flat_map(|pod| &pod.ports);
            opened.extend(named.filter(|(of, _)| of == name).map(|(_, number)| number));
        }
    }
    opened
}

/// What two servers must not share: port, `bind`, whose VirtualServices, host.
type Place<'g> = (u16, Option<&'g str>, Option<&'g str>, &'g str);

/// Servers of different Gateways on the same workloads and place.
fn conflicts(facts: &Facts<'_>, gateways: &[(&Arc<Resource>, &Gateway)], findings: &mut Findings) {
    let mut places: BTreeMap<Place<'_>, BTreeMap<&Labels, BTreeSet<usize>>> = BTreeMap::new();
    for (index, (resource, gateway)) in gateways.iter().enumerate() {
        for server in &gateway.servers {
            for host in &server.hosts {
                let place = (server.port, server.bind.as_deref(), scope(resource, host), &*host.host);
                places.entry(place).or_default().entry(&gateway.selector).or_default().insert(index);
            }
        }
    }
    // By Gateway and server, so that it is said once however many hosts they share.
    let mut found: BTreeMap<(usize, usize), BTreeSet<usize>> = BTreeMap::new();
    for (place, by_selector) in &places {
        for (selector, members) in by_selector.iter().take(MOST_SELECTORS) {
            let mut others: BTreeSet<usize> = members.iter().copied().take(MOST_NAMES + 1).collect();
            for (other, theirs) in by_selector.iter().take(MOST_SELECTORS) {
                if other != selector && same_workloads(facts, selector, other) {
                    others.extend(theirs.iter().take(MOST_NAMES));
                }
            }
            if others.len() < 2 {
                continue;
            }
            for index in members {
                let (resource, gateway) = gateways[*index];
                let is_here = |server: &Server| {
                    let mut hosts = server.hosts.iter();
                    (server.port, server.bind.as_deref()) == (place.0, place.1)
                        && hosts.any(|host| (scope(resource, host), &*host.host) == (place.2, place.3))
                };
                let at = gateway.servers.iter().position(is_here).unwrap_or(0);
                let names = found.entry((*index, at)).or_default();
                names.extend(others.iter().filter(|other| *other != index));
            }
        }
    }
    for ((index, at), others) in found {
        let (resource, gateway) = gateways[index];
        let message = format!(
            "{} for the same workloads ({}) on port {}, with a host that this server has as well; give each host to one Gateway",
            have(&others, gateways, "a server"),
            pairs(&gateway.selector),
            gateway.servers.get(at).map_or(0, |server| server.port),
        );
        findings.add("IST0145", Severity::Error, resource, format!("spec.servers[{at}]"), message);
    }
}

/// `A, B and 3 more have WHAT`.
fn have(others: &BTreeSet<usize>, gateways: &[(&Arc<Resource>, &Gateway)], what: &str) -> String {
    let names: Vec<String> =
        others.iter().take(MOST_NAMES).map(|index| gateways[*index].0.meta.key.to_string()).collect();
    let verb = if others.len() == 1 { "has" } else { "have" };
    let more = if others.len() > MOST_NAMES { " and more" } else { "" };
    format!("{}{more} {verb} {what}", names.join(", "))
}

/// Different selectors mean the same workloads where one narrows the other and something is selected by both.
fn same_workloads(facts: &Facts<'_>, one: &Labels, other: &Labels) -> bool {
    !one.is_empty()
        && !other.is_empty()
        && (one.selects(other) || other.selects(one))
        && facts.has_both(one, other)
}

fn scope<'h>(resource: &'h Resource, host: &'h ServerHost) -> Option<&'h str> {
    match &host.namespace {
        HostNamespace::All => None,
        HostNamespace::Own => Some(&resource.meta.key.namespace),
        HostNamespace::Named(namespace) => Some(namespace),
    }
}

/// A browser that has a connection to one Gateway with a certificate may use it for hosts of the other.
fn certificates(gateways: &[(&Arc<Resource>, &Gateway)], findings: &mut Findings) {
    let mut users: BTreeMap<(&str, &str), BTreeMap<&Labels, BTreeSet<usize>>> = BTreeMap::new();
    for (index, (_, gateway)) in gateways.iter().enumerate() {
        for certificate in gateway.servers.iter().filter_map(|server| certificate(server.tls.as_ref()?)) {
            users.entry(certificate).or_default().entry(&gateway.selector).or_default().insert(index);
        }
    }
    let mut found: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for by_selector in users.values() {
        for (selector, members) in by_selector.iter().take(MOST_SELECTORS) {
            let meant = by_selector.iter().take(MOST_SELECTORS);
            let meant = meant.filter(|(other, _)| selector.selects(other));
            let others: BTreeSet<usize> =
                meant.flat_map(|(_, theirs)| theirs.iter().copied().take(MOST_NAMES + 1)).collect();
            for index in members.iter().filter(|_| others.len() > 1) {
                let names = found.entry(*index).or_default();
                names.extend(others.iter().filter(|other| *other != index));
            }
        }
    }
    for (index, others) in found {
        let message = format!(
            "{}: clients that reuse an HTTP/2 connection get 404 for hosts of the other; put the hosts into one Gateway, or give each its own certificate",
            have(&others, gateways, "the same certificate")
        );
        findings.add("IST0138", Severity::Warning, gateways[index].0, "spec.servers", message);
    }
}

/// What tells certificates apart: the name of the credential, or the files of certificate and key.
fn certificate(tls: &ServerTls) -> Option<(&str, &str)> {
    if let Some(credential) = tls.credentials.first() {
        return Some((credential, ""));
    }
    let files = tls.files.first()?;
    (!files.certificate.is_empty() && !files.key.is_empty()).then_some((&*files.certificate, &*files.key))
}
