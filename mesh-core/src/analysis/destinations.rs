//! Destinations of VirtualServices: hosts, ports and subsets that do not exist (IST0101), a port that is left open
//! (IST0112), subsets that ingress traffic passes by (IST0140).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::facts::{Facts, KnownHost};
use super::findings::Findings;
use crate::resource::diagnostic::Severity;
use crate::resource::virtual_service::{HttpAction, RouteDestination, VirtualService};
use crate::resource::{Resource, Spec};
use crate::state::hosts;
use crate::vocab::name::Text;
use crate::vocab::origin::Kind;

pub(super) fn check(facts: &Facts<'_>, findings: &mut Findings) {
    let subsets = subsets(facts);
    let with_subsets = subset_routes(facts);
    for resource in facts.of(Kind::VirtualService) {
        let Spec::VirtualService(rules) = &resource.spec else { continue };
        for (field, destination) in all(rules) {
            destination_exists(facts, resource, rules, &field, destination, &subsets, findings);
        }
        ingress_passes_by(resource, rules, &with_subsets, findings);
    }
}

/// Every destination of a VirtualService with its field.
pub(super) fn all(rules: &VirtualService) -> Vec<(String, &RouteDestination)> {
    let mut all = Vec::new();
    for (index, route) in rules.http.iter().enumerate() {
        if let HttpAction::Route { destinations, .. } = &route.action {
            all.extend(destinations.iter().enumerate().map(|(at, destination)| {
                (format!("spec.http[{index}].route[{at}].destination"), destination)
            }));
        }
        all.extend(route.mirrors.iter().enumerate().map(|(at, mirror)| {
            let field = if route.mirrors.len() == 1 {
                format!("spec.http[{index}].mirror")
            } else {
                format!("spec.http[{index}].mirrors[{at}].destination")
            };
            (field, &mirror.destination)
        }));
    }
    let streams = rules.tcp.iter().enumerate().map(|(index, route)| ("tcp", index, &route.destinations));
    let tls = rules.tls.iter().enumerate().map(|(index, route)| ("tls", index, &route.destinations));
    for (list, index, destinations) in streams.chain(tls) {
        all.extend(
            destinations.iter().enumerate().map(|(at, destination)| {
                (format!("spec.{list}[{index}].route[{at}].destination"), destination)
            }),
        );
    }
    all
}

fn destination_exists(
    facts: &Facts<'_>,
    resource: &Arc<Resource>,
    rules: &VirtualService,
    field: &str,
    destination: &RouteDestination,
    subsets: &HashMap<Text, HashSet<Text>>,
    findings: &mut Findings,
) {
    let namespace = &resource.meta.key.namespace;
    let Some(known) = facts.destination(&destination.host, namespace, &rules.export_to) else {
        let message = unknown_host(facts, &destination.host, namespace, findings);
        findings.add("IST0101", Severity::Error, resource, format!("{field}.host"), message);
        // Of a host that nobody has at all, a missing subset is not worth a word.
        if subsets.contains_key(&hosts::resolve(&destination.host, namespace)) {
            subset_exists(resource, field, destination, subsets, findings);
        }
        return;
    };
    port_exists(resource, known, field, destination, findings);
    subset_exists(resource, field, destination, subsets, findings);
}

fn subset_exists(
    resource: &Arc<Resource>,
    field: &str,
    destination: &RouteDestination,
    subsets: &HashMap<Text, HashSet<Text>>,
    findings: &mut Findings,
) {
    let Some(subset) = &destination.subset else { return };
    let host = hosts::resolve(&destination.host, &resource.meta.key.namespace);
    let defined = subsets.get(&host);
    if defined.is_none_or(|names| !names.contains(subset)) {
        let hint = findings.hint(subset, defined.into_iter().flatten().map(|name| &**name));
        let message = format!(
            "no DestinationRule defines the subset {:?} of {host}{hint}; define it, or leave the subset out",
            &**subset
        );
        findings.add("IST0101", Severity::Error, resource, format!("{field}.subset"), message);
    }
}

/// That a host is nobody's, or nobody's that is seen from here.
pub(super) fn unknown_host(
    facts: &Facts<'_>,
    written: &Text,
    namespace: &Text,
    findings: &mut Findings,
) -> String {
    let host = hosts::resolve(written, namespace);
    if let Some(hidden) = facts.held(&host).first() {
        return format!(
            "{} declares the host {host}, but does not export it to here; add this namespace to its exportTo",
            hidden.source.meta.key
        );
    }
    let hint = findings.hint(written, facts.host_names(namespace).into_iter());
    format!(
        "no service has the host {:?}{hint}; declare a Service or ServiceEntry, or correct the name",
        &**written
    )
}

fn port_exists(
    resource: &Arc<Resource>,
    known: &KnownHost<'_>,
    field: &str,
    destination: &RouteDestination,
    findings: &mut Findings,
) {
    let numbers = || {
        let numbers: Vec<String> = known.ports.iter().map(|port| port.number.to_string()).collect();
        numbers.join(", ")
    };
    match destination.port {
        Some(port) if !known.ports.iter().any(|known| known.number == port) => {
            let message = format!("{} has no port {port}, only {}", known.host, numbers());
            findings.add("IST0101", Severity::Error, resource, format!("{field}.port.number"), message);
        }
        None if known.ports.len() > 1 => {
            let message =
                format!("{} has the ports {}: say in port.number which is meant", known.host, numbers());
            findings.add("IST0112", Severity::Error, resource, field, message);
        }
        Some(_) | None => {}
    }
}

/// The subsets that DestinationRules define, by resolved host.
fn subsets(facts: &Facts<'_>) -> HashMap<Text, HashSet<Text>> {
    let mut subsets: HashMap<Text, HashSet<Text>> = HashMap::new();
    for resource in facts.of(Kind::DestinationRule) {
        let Spec::DestinationRule(rule) = &resource.spec else { continue };
        let host = hosts::resolve(&rule.host, &resource.meta.key.namespace);
        let names = rule.subsets.iter().map(|subset| subset.name.clone());
        subsets.entry(host).or_default().extend(names);
    }
    subsets
}

/// VirtualServices that route one of their own hosts to a subset, by that host as it is written.
fn subset_routes<'a>(facts: &Facts<'a>) -> HashMap<&'a Text, Vec<&'a Arc<Resource>>> {
    let mut routes: HashMap<&Text, Vec<&Arc<Resource>>> = HashMap::new();
    for resource in facts.of(Kind::VirtualService).iter().copied() {
        let Spec::VirtualService(rules) = &resource.spec else { continue };
        for route in &rules.http {
            let HttpAction::Route { destinations, .. } = &route.action else { continue };
            for destination in destinations.iter().filter(|to| to.subset.is_some()) {
                let list = routes.entry(&destination.host).or_default();
                let is_listed = list.iter().any(|other| other.meta.key == resource.meta.key);
                if rules.hosts.contains(&destination.host) && !is_listed {
                    list.push(resource);
                }
            }
        }
    }
    routes
}

/// A gateway routes to the service itself: rules that a VirtualService of the mesh has for it are not asked.
fn ingress_passes_by(
    resource: &Arc<Resource>,
    rules: &VirtualService,
    with_subsets: &HashMap<&Text, Vec<&Arc<Resource>>>,
    findings: &mut Findings,
) {
    if rules.gateways.is_empty() {
        return;
    }
    for (index, route) in rules.http.iter().enumerate() {
        let HttpAction::Route { destinations, .. } = &route.action else { continue };
        for (at, destination) in destinations.iter().enumerate().filter(|(_, to)| to.subset.is_none()) {
            for other in with_subsets.get(&destination.host).into_iter().flatten() {
                let message = format!(
                    "requests of the gateway go to {} without a subset: the rules of {} do not hold for them; name the subset here as well",
                    destination.host, other.meta.key
                );
                let field = format!("spec.http[{index}].route[{at}].destination.host");
                findings.add("IST0140", Severity::Warning, resource, field, message);
            }
        }
    }
}
