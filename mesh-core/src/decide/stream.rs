//! Outbound byte streams: rule, split.

use super::facts::OutboundStream;
use super::plan::StreamPlan;
use super::refusal::{Reason, Refusal};
use super::witness::Witness;
use crate::routing::rule::{StreamMatch, TcpRule};
use crate::routing::split;
use crate::tables::Tables;
use crate::vocab::random::Random;

/// Decides where a byte stream goes.
pub fn outbound(
    tables: &Tables,
    facts: &OutboundStream<'_>,
    random: &mut Random,
    witness: &mut impl Witness,
) -> Result<StreamPlan, Refusal> {
    let Some(table) = tables.services.get(facts.service) else {
        return Err(Refusal::new(Reason::UnknownHost));
    };
    let service = table.service.clone();
    let no_route = || Refusal { reason: Reason::NoRoute, service: Some(service.clone()), route: None };
    let routes = table.routes(facts.port).ok_or_else(no_route)?;
    let rules = &routes.section.tcp;
    let caller = facts.caller.as_ref();
    let foreign =
        |rule: &TcpRule| !rule.matches.is_empty() && rule.matches.iter().all(|m| !m.concerns(caller));
    let matching = rules.iter().position(|rule| {
        rule.matches.is_empty() || rule.matches.iter().any(|condition| holds(condition, facts))
    });
    let otherwise = || (routes.fallback.is_some() && rules.iter().all(foreign)).then_some(rules.len());
    let Some(rule) = matching.or_else(otherwise) else {
        witness.note(|| "no rule for byte streams matches".to_owned());
        return Err(no_route());
    };
    witness.note(|| format!("rule {rule} for byte streams matches"));
    let backends = &routes.tcp_rule(rule).backends;
    let chosen = split::choose(backends.iter().map(|backend| backend.weight), random).unwrap_or(0);
    let namespace = facts.caller.map(|caller| caller.namespace);
    match routes.tcp_destination(rule, chosen, namespace) {
        Some(destination) => Ok(StreamPlan { service, routes: routes.clone(), rule, destination }),
        None => Err(Refusal {
            reason: Reason::NoDestination { cluster: backends[chosen].cluster() },
            service: Some(service),
            route: Some(routes.tcp_rule(rule).origin.clone()),
        }),
    }
}

fn holds(condition: &StreamMatch, facts: &OutboundStream<'_>) -> bool {
    let subnets = &condition.destination_subnets;
    let network =
        subnets.is_empty() || facts.destination.is_some_and(|ip| subnets.iter().any(|net| net.contains(&ip)));
    network && condition.concerns(facts.caller.as_ref())
}
