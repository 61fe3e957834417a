//! Outbound requests: host, rule, fault, cross-origin, split.

use std::sync::Arc;

use super::affinity::Affinity;
use super::facts::OutboundRequest;
use super::plan::{Action, Forward, MirrorPlan, Plan};
use super::refusal::{Reason, Refusal};
use super::witness::Witness;
use crate::matching::authority::specificity;
use crate::matching::text::TextMatch;
use crate::message::authority::Authority;
use crate::resilience::fault::FaultVerdict;
use crate::routing::cors::{CorsVerdict, Fields};
use crate::routing::mirror::shadow_authority;
use crate::routing::rule::{HttpRule, RuleAction};
use crate::routing::split;
use crate::snapshot::service::Service;
use crate::snapshot::view::Outbound;
use crate::tables::Tables;
use crate::tables::names::lower;
use crate::tables::routes::RouteTable;
use crate::vocab::name::Text;
use crate::vocab::random::Random;

/// Decides what becomes of a request.
pub fn outbound(
    tables: &Tables,
    facts: &OutboundRequest<'_>,
    random: &mut Random,
    witness: &mut impl Witness,
) -> Result<Plan, Refusal> {
    let mut plan = act(select(tables, facts, witness)?, facts, random)?;
    if let Action::Forward(forward) = &mut plan.action {
        let destination = &tables.destinations[forward.destination];
        forward.affinity = Affinity::of_request(destination, facts, random);
    }
    Ok(plan)
}

/// The rule that a request gets, before dice are rolled.
#[derive(Debug)]
pub(crate) struct Selected {
    pub(crate) service: Option<Arc<Service>>,
    pub(crate) routes: Arc<RouteTable>,
    pub(crate) rule: usize,
    pub(crate) matched: Option<usize>,
}

impl Selected {
    pub(crate) fn rule(&self) -> &HttpRule {
        self.routes.http_rule(self.rule)
    }

    /// The path condition that held.
    pub(crate) fn uri(&self) -> Option<&TextMatch> {
        self.rule().matches.get(self.matched?)?.uri.as_ref()
    }

    /// What the rule says of a cross-origin request.
    pub(crate) fn cors(&self, facts: &OutboundRequest<'_>) -> CorsVerdict {
        let policy = self.rule().cors.as_ref();
        policy.map(|cors| cors.judge(facts.request.method, facts.request.headers)).unwrap_or_default()
    }
}

/// Carries a rule out: rolls the dice.
pub(crate) fn act(
    selected: Selected,
    facts: &OutboundRequest<'_>,
    random: &mut Random,
) -> Result<Plan, Refusal> {
    let rule = selected.routes.http_rule(selected.rule);
    let mut answer_fields = Fields::new();
    let action = match (selected.cors(facts), &rule.action) {
        (CorsVerdict::Answer(fields), _) => Action::Preflight { fields },
        (cors, action) => {
            if let CorsVerdict::Mark(fields) = cors {
                answer_fields = fields;
            }
            match action {
                RuleAction::Redirect(redirect) => {
                    let location = redirect.location(&facts.request, facts.port, selected.uri());
                    Action::Redirect { status: redirect.code, location }
                }
                RuleAction::DirectResponse(response) => {
                    Action::Respond { status: response.status, body: response.body.clone() }
                }
                RuleAction::Route { backends, .. } => {
                    let weights = backends.iter().map(|backend| backend.weight);
                    let chosen = split::choose(weights, random).unwrap_or(0);
                    match forward(&selected, chosen, facts) {
                        Ok(mut forward) => {
                            forward.mirrors = copies(&selected, &forward, facts, random);
                            Action::Forward(forward)
                        }
                        Err(refusal) => Action::Refuse { refusal: Box::new(refusal), backend: chosen },
                    }
                }
            }
        }
    };
    let fault = match action {
        Action::Forward(_) | Action::Preflight { .. } | Action::Refuse { .. } => rule.fault.roll(random),
        Action::Redirect { .. } | Action::Respond { .. } => FaultVerdict::default(),
    };
    let Selected { service, routes, rule, matched } = selected;
    let plan = Plan { service, routes, rule, matched, fault, action, answer_fields };
    let changed = plan.own_answer_changes().is_some();
    match plan.action {
        // Nothing comes before the refusal, and nothing is put on it.
        Action::Refuse { refusal, .. }
            if plan.fault == FaultVerdict::default() && plan.answer_fields.is_empty() && !changed =>
        {
            Err(*refusal)
        }
        action => Ok(Plan { action, ..plan }),
    }
}

/// Host, then first rule.
pub(crate) fn select(
    tables: &Tables,
    facts: &OutboundRequest<'_>,
    witness: &mut impl Witness,
) -> Result<Selected, Refusal> {
    let (service, routes) = host_routes(tables, facts, witness)?;
    match select_rule(routes, facts, witness) {
        Some((rule, matched)) => Ok(Selected { service, routes: routes.clone(), rule, matched }),
        None => Err(Refusal { reason: Reason::NoRoute, service, route: None }),
    }
}

/// The first rule of a list that matches, with the match that held.
pub(crate) fn select_rule<W: Witness>(
    routes: &RouteTable,
    facts: &OutboundRequest<'_>,
    witness: &mut W,
) -> Option<(usize, Option<usize>)> {
    let rules = &routes.section.http;
    let caller = facts.caller.as_ref();
    let found = if W::LISTENS {
        let mut rules = rules.iter().enumerate();
        rules.find_map(|(index, rule)| Some((index, first_match(rule, routes, facts, witness)?)))
    } else {
        routes.first_http(&facts.request, |condition| condition.mismatch(&facts.request, caller).is_none())
    };
    if found.is_some() {
        return found;
    }
    if routes.section.fallback.is_some() && routes.is_for_others(caller) {
        witness.note(|| "every rule is for other callers, so the default route holds".to_owned());
        return Some((rules.len(), None));
    }
    witness.note(|| {
        "no rule matches, so the answer is 404; the service's default route is not used instead".to_owned()
    });
    None
}

fn host_routes<'t>(
    tables: &'t Tables,
    facts: &OutboundRequest<'_>,
    witness: &mut impl Witness,
) -> Result<(Option<Arc<Service>>, &'t Arc<RouteTable>), Refusal> {
    let sent = facts.request.authority;
    let host = Authority::parse(sent).map_or(sent, |authority| authority.host);
    let caller = facts.caller.as_ref();
    let view = caller.and_then(|caller| caller.view);
    let named = tables.service_named(host, caller.map(|c| c.namespace));
    let found = seen(tables, named, facts, witness).filter(|index| {
        // Nothing says that a host outside the mesh has no other ports.
        let table = &tables.services[*index];
        let has_port = !table.service.external || table.routes_for(facts.port, view).is_some();
        if !has_port {
            witness.note(|| format!("{} has no port {}", table.service.host, facts.port));
        }
        has_port
    });
    if let Some(routes) = hidden_rules(tables, host, named.filter(|_| found.is_none()), facts)
        .or_else(|| unowned_rules(tables, host, found, facts))
    {
        witness.note(|| {
            format!("{host} is the host of {}", routes.section.origin.as_deref().unwrap_or("no resource"))
        });
        return Ok((None, routes));
    }
    let owner = || seen(tables, facts.owner.filter(|owner| Some(*owner) != named), facts, witness);
    let Some(index) = found.or_else(owner) else {
        return unknown(tables, host, facts, witness);
    };
    let table = &tables.services[index];
    let service = table.service.clone();
    match table.routes_for(facts.port, view) {
        Some(routes) => {
            witness.note(|| {
                let rules =
                    routes.section.origin.as_deref().unwrap_or("no VirtualService, so the default route");
                format!("{host} is {} ({}), ruled by {rules}", service.host, service.origin.resource)
            });
            Ok((Some(service), routes))
        }
        None => {
            witness.note(|| format!("{} has no port {}", service.host, facts.port));
            Err(Refusal { reason: Reason::NoRoute, service: Some(service), route: None })
        }
    }
}

/// The rules of a VirtualService whose host no service has. A service whose host is a wildcard stands behind one whose
/// host says more, and a name that is not a service's own host behind one that has this very host.
fn unowned_rules<'t>(
    tables: &'t Tables,
    host: &str,
    found: Option<usize>,
    facts: &OutboundRequest<'_>,
) -> Option<&'t Arc<RouteTable>> {
    let name = lower(host);
    let service = found.map(|index| &tables.services[index].service.host);
    let by_wildcard = service.is_none_or(|service| service.starts_with('*'));
    if !by_wildcard && !tables.unowned.names(&name) {
        return None;
    }
    let caller = facts.caller.as_ref();
    let view = caller.and_then(|caller| caller.view);
    let routes = tables.unowned.find(&name, facts.port, view, |rules| tables.sees_rules(caller, rules))?;
    let theirs = &routes.section.at.host;
    let says_more = |service: &Text| by_wildcard && specificity(theirs) > specificity(service);
    (**theirs == *name || service.is_none_or(says_more)).then_some(routes)
}

/// The rules of a view for the host of a service that it does not show.
fn hidden_rules<'t>(
    tables: &'t Tables,
    host: &str,
    service: Option<usize>,
    facts: &OutboundRequest<'_>,
) -> Option<&'t Arc<RouteTable>> {
    let view = facts.caller.as_ref()?.view?;
    let table = &tables.services[service?];
    let own = table.own_routes(facts.port, Some(view));
    own.filter(|_| *table.service.host == *lower(host))
}

/// The service, if the caller's view shows it.
fn seen(
    tables: &Tables,
    service: Option<usize>,
    facts: &OutboundRequest<'_>,
    witness: &mut impl Witness,
) -> Option<usize> {
    let index = tables.service_in_view(service?, facts.caller.as_ref().and_then(|caller| caller.view));
    let service = &tables.services[index].service;
    let hidden = tables
        .view(facts.caller.as_ref())
        .is_some_and(|view| !view.section.sees_at(facts.listener, service, facts.port));
    if hidden {
        witness.note(|| format!("{} is not visible to this caller", service.host));
    }
    (!hidden).then_some(index)
}

/// What becomes of a request for a host that the caller's view does not know.
fn unknown<'t>(
    tables: &'t Tables,
    host: &str,
    facts: &OutboundRequest<'_>,
    witness: &mut impl Witness,
) -> Result<(Option<Arc<Service>>, &'t Arc<RouteTable>), Refusal> {
    witness.note(|| match tables.stands_for(host, facts.caller.as_ref().map(|caller| caller.namespace)) {
        Some(target) => format!("{host} is another name of {target}, which is no service"),
        None => format!("{host} means no service to this caller on port {}", facts.port),
    });
    let Some(view) = tables.view(facts.caller.as_ref()) else {
        return Err(Refusal::new(Reason::UnknownHost));
    };
    match (&view.section.outbound, &view.egress) {
        (Outbound::Allow(_), Some(routes)) => {
            witness.note(|| "an egress proxy takes what is unknown".to_owned());
            Ok((None, routes))
        }
        (Outbound::Allow(_), None) => Err(Refusal::new(Reason::UnknownHost)),
        (Outbound::Refuse, _) => {
            witness.note(|| "unknown hosts are refused (REGISTRY_ONLY), route block_all".to_owned());
            Err(Refusal::new(Reason::Blocked))
        }
    }
}

/// `Some(None)` for a rule without matches, `Some(Some(index))` for the match that holds, `None` if none does.
fn first_match(
    rule: &HttpRule,
    routes: &RouteTable,
    facts: &OutboundRequest<'_>,
    witness: &mut impl Witness,
) -> Option<Option<usize>> {
    let title = || routes.section.title(&rule.origin);
    if rule.matches.is_empty() {
        witness.note(|| format!("{} matches every request", title()));
        return Some(None);
    }
    for (number, condition) in rule.matches.iter().enumerate() {
        match condition.mismatch(&facts.request, facts.caller.as_ref()) {
            None => {
                witness.note(|| format!("{} matches by its match {}", title(), rule.match_number(number)));
                return Some(Some(number));
            }
            Some(mismatch) => {
                witness.note(|| {
                    format!(
                        "{} match {} does not hold: {}",
                        title(),
                        rule.match_number(number),
                        condition.explain(mismatch, &facts.request)
                    )
                });
            }
        }
    }
    None
}

/// Where a backend of the selected rule leads, and as what the request goes there.
pub(crate) fn forward(
    selected: &Selected,
    backend: usize,
    facts: &OutboundRequest<'_>,
) -> Result<Forward, Refusal> {
    let rule = selected.rule();
    let RuleAction::Route { backends, rewrite } = &rule.action else {
        return Err(Refusal::new(Reason::NoRoute));
    };
    let chosen = &backends[backend];
    let view = facts.caller.and_then(|caller| caller.view);
    let Some(destination) = selected.routes.http_destination(selected.rule, backend, view) else {
        return Err(Refusal {
            reason: Reason::NoDestination { cluster: chosen.cluster() },
            service: selected.service.clone(),
            route: Some(rule.origin.clone()),
        });
    };
    let authority: Option<Text> = rewrite.authority.clone().or_else(|| chosen.authority.clone());
    Ok(Forward {
        destination,
        backend,
        path: rewrite.path(facts.request.path, selected.uri()),
        authority,
        timeout: rule.timeout,
        affinity: Affinity::default(),
        mirrors: Vec::new(),
    })
}

/// The copies that are sent this time. One whose destination does not exist is not sent.
fn copies(
    selected: &Selected,
    forward: &Forward,
    facts: &OutboundRequest<'_>,
    random: &mut Random,
) -> Vec<MirrorPlan> {
    let view = facts.caller.and_then(|caller| caller.view);
    let mirrors = selected.rule().mirrors.iter().enumerate();
    let mut copies = Vec::new();
    for (index, mirror) in mirrors {
        let destination = selected.routes.mirror_destination(selected.rule, index, view);
        if let (true, Some(destination)) = (mirror.share.roll(random), destination) {
            let authority = forward.authority.as_deref().unwrap_or(facts.request.authority);
            copies.push(MirrorPlan { destination, authority: shadow_authority(authority) });
        }
    }
    copies
}
