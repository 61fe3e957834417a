//! Gateways: workloads that are not there (IST0101), ports that no Service opens (IST0162), servers that get in each
//! other's way (IST0145), certificates that are used twice (IST0138).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use super::facts::{Facts, INGRESS_PORTS, Workload};
use super::findings::{Findings, listed, pairs};
use crate::resource::diagnostic::Severity;
use crate::resource::gateway::{Gateway, HostNamespace, Server, ServerHost, ServerTls};
use crate::resource::service::{Port, TargetPort};
use crate::resource::{Resource, Spec};
use crate::vocab::label::Labels;
use crate::vocab::origin::Kind;

/// Most selectors of one group of servers that are compared with each other, and most others that one finding names.
const MOST_SELECTORS: usize = 200;
const MOST_OTHERS: usize = 5;

pub(super) fn check(facts: &Facts<'_>, findings: &mut Findings) {
    let gateways: Vec<(&Arc<Resource>, &Gateway)> = all(facts).collect();
    let mut openings = Openings::default();
    for (resource, gateway) in &gateways {
        workloads(facts, resource, gateway, &mut openings, findings);
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

/// The ports that the Services of a selector's workloads lead to; `None` where no Service is needed.
type Opening = Option<Rc<BTreeSet<u16>>>;

/// Openings so far, by selector, and the ports of each workload's Services by its place in memory.
#[derive(Default)]
struct Openings<'g> {
    by_selector: BTreeMap<&'g Labels, Opening>,
    by_workload: HashMap<usize, Rc<[u16]>>,
}

fn workloads<'g>(
    facts: &Facts<'_>,
    resource: &Arc<Resource>,
    gateway: &'g Gateway,
    openings: &mut Openings<'g>,
    findings: &mut Findings,
) {
    let selected = facts.gateway_workloads(&gateway.selector);
    if selected.is_empty() {
        let message = format!(
            "no workload has the labels {}: nothing listens for this Gateway; label the gateway's workload, or correct the selector",
            pairs(&gateway.selector)
        );
        findings.add("IST0101", Severity::Error, resource, "spec.selector", message);
        return;
    }
    let selector = &gateway.selector;
    let known = openings.by_selector.get(selector).cloned();
    let opening = known.unwrap_or_else(|| {
        let opening = opening(facts, selector, &selected, &mut openings.by_workload);
        openings.by_selector.insert(selector, opening.clone());
        opening
    });
    let Some(ports) = opening else { return };
    for (index, server) in gateway.servers.iter().enumerate() {
        if !ports.contains(&server.port) {
            let message = format!(
                "no Service of the workloads with the labels {} leads to port {}: it cannot be reached through their Service",
                pairs(selector),
                server.port
            );
            let field = format!("spec.servers[{index}].port");
            findings.add("IST0162", Severity::Warning, resource, field, message);
        }
    }
}

fn opening(
    facts: &Facts<'_>,
    selector: &Labels,
    selected: &[&Workload<'_>],
    by_workload: &mut HashMap<usize, Rc<[u16]>>,
) -> Opening {
    let by_default = facts.default_ingress(selector).is_some()
        || selected.iter().any(|workload| facts.is_behind_ingress(workload));
    let mut ports: BTreeSet<u16> = BTreeSet::new();
    if by_default {
        ports.extend(INGRESS_PORTS);
    }
    // A host needs no Service to be reached, a pod does.
    let mut counted = by_default;
    for workload in selected.iter().copied() {
        let opened = by_workload.entry(std::ptr::from_ref(workload).addr()).or_insert_with(|| {
            let services = facts.services_of(workload);
            let of_service = |service: &Arc<Resource>| match &service.spec {
                Spec::Service(service) => {
                    service.ports.iter().flat_map(|port| opened(port, workload)).collect()
                }
                _ => Vec::new(),
            };
            let opened: BTreeSet<u16> = services.into_iter().flat_map(of_service).collect();
            opened.into_iter().collect()
        });
        counted |= workload.pod.is_some() || !opened.is_empty();
        ports.extend(opened.iter());
    }
    counted.then(|| Rc::new(ports))
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
            let mut others: BTreeSet<usize> = members.iter().copied().take(MOST_OTHERS + 1).collect();
            for (other, theirs) in by_selector.iter().take(MOST_SELECTORS) {
                if other != selector && same_workloads(facts, selector, other) {
                    others.extend(theirs.iter().take(MOST_OTHERS));
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
    let names = listed(others.iter().map(|index| gateways[*index].0.meta.key.to_string()));
    let verb = if others.len() == 1 { "has" } else { "have" };
    format!("{names} {verb} {what}")
}

/// Different selectors mean the same workloads where one narrows the other and something is selected by both.
fn same_workloads(facts: &Facts<'_>, one: &Labels, other: &Labels) -> bool {
    // What the narrower one selects, the other selects as well.
    let narrower = if one.selects(other) { other } else { one };
    !one.is_empty()
        && !other.is_empty()
        && (one.selects(other) || other.selects(one))
        && !facts.gateway_workloads(narrower).is_empty()
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
                meant.flat_map(|(_, theirs)| theirs.iter().copied().take(MOST_OTHERS + 1)).collect();
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
