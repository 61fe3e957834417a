//! Outbound byte streams, TLS that is passed on among them: rule, split.

use super::affinity::Affinity;
use super::facts::OutboundStream;
use super::plan::StreamPlan;
use super::refusal::{Reason, Refusal};
use super::witness::Witness;
use crate::matching::authority::host_matches;
use crate::matching::request::Caller;
use crate::routing::rule::{StreamMatch, TcpRule};
use crate::routing::split;
use crate::snapshot::view::Outbound;
use crate::tables::Tables;
use crate::tables::routes::{RouteTable, StreamKind};
use crate::vocab::name::Text;
use crate::vocab::random::Random;

/// Decides where a byte stream goes.
pub fn outbound(
    tables: &Tables,
    facts: &OutboundStream<'_>,
    random: &mut Random,
    witness: &mut impl Witness,
) -> Result<StreamPlan, Refusal> {
    let selected = select(tables, facts, witness)?;
    let SelectedStream { service, routes, kind, rule, .. } = selected;
    let backends = &routes.stream_rule(kind, rule).backends;
    let chosen = split::choose(backends.iter().map(|backend| backend.weight), random).unwrap_or(0);
    let view = facts.caller.and_then(|caller| caller.view);
    match routes.stream_destination(kind, rule, chosen, view) {
        Some(destination) => Ok(StreamPlan {
            service: service.cloned(),
            routes: routes.clone(),
            kind,
            rule,
            destination,
            hash: Affinity::of_stream(&tables.destinations[destination], facts),
        }),
        None => Err(Refusal {
            reason: Reason::NoDestination { cluster: backends[chosen].cluster() },
            service: service.cloned(),
            route: Some(routes.stream_rule(kind, rule).origin.clone()),
        }),
    }
}

/// The service that a connection to a host or an address is for, by index, as its caller sees the mesh. Where there is
/// none: what becomes of it.
pub fn addressed(
    tables: &Tables,
    host: &str,
    port: u16,
    caller: Option<Caller<'_>>,
) -> Result<usize, Refusal> {
    let namespace = caller.map(|caller| caller.namespace);
    let view = caller.and_then(|caller| caller.view);
    let found = tables.service_addressed(host, port, namespace);
    let sees = |index: &usize| {
        let service = &tables.services[tables.service_in_view(*index, view)].service;
        tables.view(caller.as_ref()).is_none_or(|view| view.section.sees(service, port))
            || tables.has_rules_in(*index, port, view)
    };
    let facts =
        OutboundStream { service: usize::MAX, port, destination: None, sni: None, caller, source: None };
    // Nothing says that a host outside the mesh has no other ports.
    let has_port = |index: &usize| {
        let table = &tables.services[tables.service_in_view(*index, view)];
        !table.service.external || table.routes_for(port, view).is_some()
    };
    found.filter(sees).filter(has_port).ok_or_else(|| unknown(tables, &facts))
}

/// The rule that a stream gets, before dice are rolled.
#[derive(Debug)]
pub(crate) struct SelectedStream<'t> {
    /// `None` for what is unknown to the caller and goes to its egress proxy.
    pub(crate) service: Option<&'t std::sync::Arc<crate::snapshot::service::Service>>,
    pub(crate) routes: &'t std::sync::Arc<RouteTable>,
    pub(crate) kind: StreamKind,
    pub(crate) rule: usize,
    pub(crate) matched: Option<usize>,
}

/// Service, then first rule; an egress proxy for what is unknown.
pub(crate) fn select<'t>(
    tables: &'t Tables,
    facts: &OutboundStream<'_>,
    witness: &mut impl Witness,
) -> Result<SelectedStream<'t>, Refusal> {
    let found = select_known(tables, facts, witness);
    match (&found, tables.egress_proxy(facts.caller.as_ref())) {
        (Err(Refusal { reason: Reason::UnknownHost, .. }), Some(routes)) => {
            witness.note(|| "an egress proxy takes what is unknown".to_owned());
            Ok(SelectedStream { service: None, routes, kind: StreamKind::Tcp, rule: 0, matched: None })
        }
        _ => found,
    }
}

fn select_known<'t>(
    tables: &'t Tables,
    facts: &OutboundStream<'_>,
    witness: &mut impl Witness,
) -> Result<SelectedStream<'t>, Refusal> {
    let caller_view = facts.caller.as_ref().and_then(|caller| caller.view);
    let Some(table) = tables.services.get(tables.service_in_view(facts.service, caller_view)) else {
        return Err(unknown(tables, facts));
    };
    let service = &table.service;
    let view = tables.view(facts.caller.as_ref());
    if view.is_some_and(|view| !view.section.sees(service, facts.port)) {
        witness.note(|| format!("{} is not visible to this caller", service.host));
        return Err(unknown(tables, facts));
    }
    let Some(routes) = table.routes_for(facts.port, caller_view) else {
        witness.note(|| format!("{} has no port {}", service.host, facts.port));
        if service.external {
            return Err(unknown(tables, facts));
        }
        return Err(Refusal { reason: Reason::NoRoute, service: Some(service.clone()), route: None });
    };
    let opaque = service.ports.iter().any(|port| port.number == facts.port && port.protocol.is_tls());
    let kind = if opaque { StreamKind::Tls } else { StreamKind::Tcp };
    match select_rule(routes, kind, facts, witness) {
        Some((rule, matched)) => Ok(SelectedStream { service: Some(service), routes, kind, rule, matched }),
        // No filter chain of the listener matches, so what is outside the registry's knowledge decides.
        None => Err(Refusal { service: Some(service.clone()), ..unknown(tables, facts) }),
    }
}

/// The rule of a list that a stream gets: the first that matches; of TLS the first of those whose match has the most
/// specific server name, as filter chains are chosen. With the match that holds.
pub(crate) fn select_rule(
    routes: &RouteTable,
    kind: StreamKind,
    facts: &OutboundStream<'_>,
    witness: &mut impl Witness,
) -> Option<(usize, Option<usize>)> {
    let rules = routes.stream_rules(kind);
    let what = match kind {
        StreamKind::Tcp => "byte streams",
        StreamKind::Tls => "TLS",
    };
    let mut best: Option<(usize, usize, Option<usize>)> = None;
    for (index, rule) in rules.iter().enumerate() {
        let Some((rank, matched)) = rank(rule, routes, what, facts, witness) else { continue };
        if best.is_none_or(|(most, ..)| rank > most) {
            best = Some((rank, index, matched));
        }
        if kind == StreamKind::Tcp {
            break;
        }
    }
    if let Some((_, index, matched)) = best {
        return Some((index, matched));
    }
    let caller = facts.caller.as_ref();
    let foreign =
        |rule: &TcpRule| !rule.matches.is_empty() && rule.matches.iter().all(|m| !m.concerns(caller));
    if routes.section.fallback.is_some() && rules.iter().all(foreign) {
        witness.note(|| "every rule is for other callers, so the default route holds".to_owned());
        return Some((rules.len(), None));
    }
    witness.note(|| format!("no rule for {what} matches"));
    None
}

/// What becomes of a stream that nothing in the caller's view is for.
pub(crate) fn unknown(tables: &Tables, facts: &OutboundStream<'_>) -> Refusal {
    let outbound = tables.view(facts.caller.as_ref()).map(|view| &view.section.outbound);
    Refusal::new(match outbound {
        Some(Outbound::Refuse) => Reason::BlackHole,
        Some(Outbound::Allow(_)) | None => Reason::UnknownHost,
    })
}

/// How specific the server name is by which a rule matches, with the match; `None` if it does not match.
fn rank(
    rule: &TcpRule,
    routes: &RouteTable,
    what: &str,
    facts: &OutboundStream<'_>,
    witness: &mut impl Witness,
) -> Option<(usize, Option<usize>)> {
    let title = || routes.section.title(&rule.origin);
    if rule.matches.is_empty() {
        witness.note(|| format!("{} matches everything", title()));
        return Some((0, None));
    }
    let mut most: Option<(usize, Option<usize>)> = None;
    for (number, condition) in rule.matches.iter().enumerate() {
        match lacks(condition, facts) {
            None => {
                witness.note(|| {
                    let number = rule.match_number(number);
                    format!("{} for {what} matches by its match {number}", title())
                });
                let rank = specificity_of(&condition.sni_hosts, facts);
                if most.is_none_or(|(most, _)| rank > most) {
                    most = Some((rank, Some(number)));
                }
            }
            Some(lack) => {
                witness.note(|| {
                    format!("{} match {} does not hold: {lack}", title(), rule.match_number(number))
                });
            }
        }
    }
    most
}

/// A name in full is more than any wildcard, a long wildcard more than a short one.
fn specificity_of(names: &[Text], facts: &OutboundStream<'_>) -> usize {
    let Some(sni) = facts.sni else { return 0 };
    let held = names.iter().filter(|name| host_matches(name, sni));
    held.map(|name| if name.starts_with('*') { name.len() } else { usize::MAX }).max().unwrap_or(0)
}

/// What a condition lacks; `None` if it holds.
fn lacks(condition: &StreamMatch, facts: &OutboundStream<'_>) -> Option<&'static str> {
    let (names, subnets) = (&condition.sni_hosts, &condition.destination_subnets);
    let named = || facts.sni.is_some_and(|sni| names.iter().any(|host| host_matches(host, sni)));
    let within = || facts.destination.is_some_and(|ip| subnets.iter().any(|net| net.contains(&ip)));
    if !condition.concerns(facts.caller.as_ref()) {
        return Some("the caller's labels or namespace differ");
    }
    if !names.is_empty() && !named() {
        return Some("another server name is asked for");
    }
    (!subnets.is_empty() && !within()).then_some("the address is in no network of it")
}
