//! Outbound requests: host, rule, fault, split.

use std::sync::Arc;

use super::facts::OutboundRequest;
use super::plan::{Action, Forward, Plan};
use super::refusal::{Reason, Refusal};
use super::witness::Witness;
use crate::matching::authority::Authority;
use crate::matching::text::TextMatch;
use crate::resilience::fault::FaultVerdict;
use crate::routing::rule::{HttpRule, RuleAction};
use crate::routing::split;
use crate::snapshot::service::Service;
use crate::tables::Tables;
use crate::tables::names::lower;
use crate::tables::routes::{RouteTable, unowned};
use crate::vocab::name::Text;
use crate::vocab::random::Random;

/// Decides what becomes of a request.
pub fn outbound(
    tables: &Tables,
    facts: &OutboundRequest<'_>,
    random: &mut Random,
    witness: &mut impl Witness,
) -> Result<Plan, Refusal> {
    let selected = select(tables, facts, witness)?;
    let rule = selected.routes.http_rule(selected.rule);
    let action = match &rule.action {
        RuleAction::Redirect(redirect) => {
            let location = redirect.location(&facts.request, selected.uri());
            Action::Redirect { status: redirect.code, location }
        }
        RuleAction::DirectResponse(response) => {
            Action::Respond { status: response.status, body: response.body.clone() }
        }
        RuleAction::Route { backends, .. } => {
            let chosen = split::choose(backends.iter().map(|backend| backend.weight), random).unwrap_or(0);
            Action::Forward(forward(&selected, chosen, facts)?)
        }
    };
    let fault = match action {
        Action::Forward(_) => rule.fault.roll(random),
        Action::Redirect { .. } | Action::Respond { .. } => FaultVerdict::default(),
    };
    let Selected { service, routes, rule, matched } = selected;
    Ok(Plan { service, routes, rule, matched, fault, action })
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
}

/// Host, then first rule.
pub(crate) fn select(
    tables: &Tables,
    facts: &OutboundRequest<'_>,
    witness: &mut impl Witness,
) -> Result<Selected, Refusal> {
    let (service, routes) = host_routes(tables, facts, witness)?;
    for (index, rule) in routes.section.http.iter().enumerate() {
        if let Some(matched) = first_match(rule, index, facts, witness) {
            return Ok(Selected { service, routes: routes.clone(), rule: index, matched });
        }
    }
    let caller = facts.caller.as_ref();
    let foreign =
        |rule: &HttpRule| !rule.matches.is_empty() && rule.matches.iter().all(|m| !m.concerns(caller));
    if routes.fallback.is_some() && routes.section.http.iter().all(foreign) {
        witness.note(|| "every rule is for other callers, so the default route holds".to_owned());
        let rule = routes.section.http.len();
        return Ok(Selected { service, routes: routes.clone(), rule, matched: None });
    }
    witness.note(|| {
        "no rule matches, so the answer is 404; the service's default route is not used instead".to_owned()
    });
    Err(Refusal { reason: Reason::NoRoute, service, route: None })
}

fn host_routes<'t>(
    tables: &'t Tables,
    facts: &OutboundRequest<'_>,
    witness: &mut impl Witness,
) -> Result<(Option<Arc<Service>>, &'t Arc<RouteTable>), Refusal> {
    let sent = facts.request.authority;
    let host = Authority::parse(sent).map_or(sent, |authority| authority.host);
    let namespace = facts.caller.map(|caller| caller.namespace);
    let found = tables.service_named(host, namespace);
    if found.is_none()
        && let Some(routes) = unowned(&tables.unowned, &lower(host), facts.port)
    {
        witness.note(|| {
            format!("{host} is the host of {}", routes.section.origin.as_deref().unwrap_or("no resource"))
        });
        return Ok((None, routes));
    }
    let Some(index) = found.or(facts.owner) else {
        witness.note(|| format!("no service is called {host}"));
        return Err(Refusal::new(Reason::UnknownHost));
    };
    let table = &tables.services[index];
    let service = table.service.clone();
    match table.routes(facts.port) {
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

/// `Some(None)` for a rule without matches, `Some(Some(index))` for the match that holds, `None` if none does.
fn first_match(
    rule: &HttpRule,
    index: usize,
    facts: &OutboundRequest<'_>,
    witness: &mut impl Witness,
) -> Option<Option<usize>> {
    if rule.matches.is_empty() {
        witness.note(|| format!("rule {index} matches every request"));
        return Some(None);
    }
    for (number, condition) in rule.matches.iter().enumerate() {
        match condition.mismatch(&facts.request, facts.caller.as_ref()) {
            None => {
                witness.note(|| format!("rule {index} matches by its match {number}"));
                return Some(Some(number));
            }
            Some(mismatch) => {
                witness.note(|| {
                    format!(
                        "rule {index} match {number} does not hold: {}",
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
    let namespace = facts.caller.map(|caller| caller.namespace);
    let Some(destination) = selected.routes.http_destination(selected.rule, backend, namespace) else {
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
    })
}
