//! Gateways: workloads that are not there (IST0101), ports that no Service opens (IST0162), servers that get in each
//! other's way (IST0145), certificates that are used twice (IST0138).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::facts::{Facts, Workload};
use super::findings::{Findings, pairs};
use super::mesh_hosts::overlap;
use crate::resource::diagnostic::Severity;
use crate::resource::gateway::{Gateway, HostNamespace, Server, ServerHost, ServerTls};
use crate::resource::service::TargetPort;
use crate::resource::{Resource, Spec};
use crate::vocab::label::Labels;
use crate::vocab::origin::Kind;

/// Istio's own ingress gateway, which files for Istio take for granted: its label and the ports of its Service.
const INGRESS: (&str, &str) = ("istio", "ingressgateway");
const INGRESS_PORTS: [u16; 4] = [80, 443, 15443, 31400];

pub(super) fn check(facts: &Facts<'_>, findings: &mut Findings) {
    let gateways: Vec<(&Arc<Resource>, &Gateway)> = all(facts).collect();
    for (resource, gateway) in &gateways {
        workloads(facts, resource, gateway, findings);
    }
    conflicts(&gateways, findings);
    certificates(&gateways, findings);
}

pub(super) fn all<'a>(facts: &Facts<'a>) -> impl Iterator<Item = (&'a Arc<Resource>, &'a Gateway)> {
    facts.of(Kind::Gateway).iter().copied().filter_map(|resource| match &resource.spec {
        Spec::Gateway(gateway) => Some((resource, gateway)),
        _ => None,
    })
}

/// Whether a selector means Istio's own ingress gateway.
pub(super) fn selects_default(selector: &Labels) -> bool {
    let mut labels = Labels::default();
    labels.set(INGRESS.0, INGRESS.1);
    selector.selects(&labels)
}

fn workloads(facts: &Facts<'_>, resource: &Arc<Resource>, gateway: &Gateway, findings: &mut Findings) {
    let selected: Vec<&Workload<'_>> =
        facts.workloads.iter().filter(|workload| gateway.selector.selects(&workload.labels)).collect();
    let by_default = selects_default(&gateway.selector);
    if selected.is_empty() && !by_default {
        let message = format!(
            "no workload has the labels {}: nothing listens for this Gateway; label the gateway's workload, or correct the selector",
            pairs(&gateway.selector)
        );
        findings.add("IST0101", Severity::Error, resource, "spec.selector", message);
        return;
    }
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
                ports.extend(service.ports.iter().map(|port| match port.target {
                    TargetPort::Number(number) => number,
                    TargetPort::Same | TargetPort::Name(_) => port.number,
                }));
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
            findings.add(
                "IST0162",
                Severity::Warning,
                resource,
                format!("spec.servers[{index}].port"),
                message,
            );
        }
    }
}

/// Servers of different Gateways on the same workloads, port and host.
fn conflicts(gateways: &[(&Arc<Resource>, &Gateway)], findings: &mut Findings) {
    let mut by_port: BTreeMap<u16, Vec<(usize, &Server)>> = BTreeMap::new();
    for (index, (_, gateway)) in gateways.iter().enumerate() {
        for server in &gateway.servers {
            by_port.entry(server.port).or_default().push((index, server));
        }
    }
    for (port, servers) in &by_port {
        for (index, server) in servers {
            let (resource, gateway) = gateways[*index];
            let others = servers.iter().filter(|(other, candidate)| {
                let (other_resource, other) = gateways[*other];
                other_resource.meta.key != resource.meta.key
                    && same_workloads(&gateway.selector, &other.selector)
                    && hosts_meet(resource, server, other_resource, candidate)
            });
            let names: BTreeSet<String> =
                others.map(|(other, _)| gateways[*other].0.meta.key.to_string()).collect();
            if names.is_empty() {
                continue;
            }
            let at = gateway.servers.iter().position(|own| std::ptr::eq(own, *server)).unwrap_or(0);
            let names: Vec<String> = names.into_iter().collect();
            let message = format!(
                "{} has a server for the same workloads ({}), port {port} and hosts; give each host to one Gateway",
                names.join(" and "),
                pairs(&gateway.selector)
            );
            findings.add("IST0145", Severity::Error, resource, format!("spec.servers[{at}]"), message);
        }
    }
}

fn same_workloads(one: &Labels, other: &Labels) -> bool {
    one == other || (!one.is_empty() && !other.is_empty() && (one.selects(other) || other.selects(one)))
}

fn hosts_meet(resource: &Resource, server: &Server, other: &Resource, candidate: &Server) -> bool {
    server.hosts.iter().any(|host| {
        candidate.hosts.iter().any(|theirs| {
            overlap(&host.host, &theirs.host)
                && (host.namespace == HostNamespace::All && &*host.host == "*"
                    || scope(resource, host) == scope(other, theirs))
        })
    })
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
    for (resource, gateway) in gateways {
        let tls = |gateway: &Gateway| -> Vec<ServerTls> {
            gateway.servers.iter().filter_map(|server| server.tls.clone()).collect()
        };
        let own = tls(gateway);
        if own.is_empty() {
            continue;
        }
        for (other, candidate) in gateways {
            let same = other.meta.key != resource.meta.key
                && (gateway.selector.is_empty() || gateway.selector.selects(&candidate.selector))
                && tls(candidate).iter().any(|theirs| own.iter().any(|own| same_certificate(own, theirs)));
            if same {
                let message = format!(
                    "{} uses the same certificate: clients that reuse an HTTP/2 connection get 404 for hosts of the other; put the hosts into one Gateway, or give each its own certificate",
                    other.meta.key
                );
                findings.add("IST0138", Severity::Warning, resource, "spec.servers", message);
            }
        }
    }
}

fn same_certificate(one: &ServerTls, other: &ServerTls) -> bool {
    match (one.credentials.first(), other.credentials.first()) {
        (Some(a), Some(b)) => a == b,
        (None, None) => {
            let files = |tls: &ServerTls| {
                tls.files.first().map(|files| (files.certificate.clone(), files.key.clone()))
            };
            files(one)
                .is_some_and(|pair| !pair.0.is_empty() && !pair.1.is_empty() && files(other) == Some(pair))
        }
        (Some(_), None) | (None, Some(_)) => false,
    }
}
