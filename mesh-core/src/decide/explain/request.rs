//! The story of a request.

use super::destination::{found, missing, note_destination};
use super::judgement::Judged;
use super::{Explanation, Question, RouteFound, addressed, conclude, declared_protocol, refuse};
use crate::decide::facts::OutboundRequest;
use crate::decide::request::{Selected, forward, select};
use crate::decide::witness::{Remembering, Witness};
use crate::matching::path::normalize;
use crate::matching::request::Request;
use crate::resilience::fault::{AbortStatus, FaultPolicy};
use crate::routing::header::HeaderChanges;
use crate::routing::rule::{Backend, RuleAction};
use crate::tables::Tables;
use crate::vocab::protocol::Protocol;

/// Foretells what becomes of a request.
pub(super) fn explain(
    tables: &Tables,
    question: &Question<'_>,
    answer: &mut Explanation,
    witness: &mut Remembering,
) {
    let received = question.request.path;
    let Ok(normalized) = normalize(received) else {
        witness.note(|| format!("the path {received} is malformed, so the answer is 400"));
        (answer.action, answer.status) = ("blocked", Some(400));
        return;
    };
    answer.path = Some((received.to_owned(), normalized.to_string()));
    answer.protocol = match declared_protocol(tables, question) {
        Some(Protocol::Auto) | None => "http".to_owned(),
        Some(protocol) => protocol.name().to_owned(),
    };
    let request = Request { path: &normalized, ..question.request };
    let owner = addressed(tables, question);
    let facts = OutboundRequest { request, port: question.port, owner, caller: Some(question.caller) };
    let selected = match select(tables, &facts, witness) {
        Ok(selected) => selected,
        Err(refusal) => return refuse(answer, &refusal, witness),
    };
    answer.service = selected.service.as_ref().map(|service| service.host.to_string());
    let rule = selected.rule();
    answer.route = Some(RouteFound {
        resource: rule.origin.resource.to_string(),
        rule: rule.origin.rule.map_or(0, |index| index as usize),
        matched: selected.matched,
        name: route_name(&selected),
    });
    match &rule.action {
        RuleAction::Redirect(redirect) => {
            (answer.action, answer.status) = ("redirect", Some(redirect.code));
            answer.location = Some(redirect.location(&request, selected.uri()));
        }
        RuleAction::DirectResponse(response) => {
            (answer.action, answer.status) = ("direct_response", Some(response.status));
        }
        RuleAction::Route { backends, .. } => {
            answer.action = "route";
            answer.timeout = rule.timeout;
            answer.retries = (rule.retry.attempts > 0).then(|| rule.retry.clone());
            answer.fault = rule.fault;
            note_fault(&rule.fault, witness);
            explain_backends(tables, question, &facts, &selected, backends, answer, witness);
        }
    }
}

fn route_name(selected: &Selected) -> Option<String> {
    let rule = selected.rule();
    let matched =
        selected.matched.and_then(|index| rule.matches.get(index)).and_then(|found| found.name.as_deref());
    match (rule.name.as_deref(), matched) {
        (Some(rule), Some(matched)) => Some(format!("{rule}.{matched}")),
        (rule, matched) => rule.or(matched).map(str::to_owned),
    }
}

fn note_fault(fault: &FaultPolicy, witness: &mut Remembering) {
    if let Some((share, duration)) = fault.delay {
        witness.note(|| format!("{share} of the requests wait {duration:?} first"));
    }
    if let Some((share, status)) = fault.abort {
        witness.note(|| match status {
            AbortStatus::Http(status) => {
                format!("{share} of the requests are answered with {status} at once")
            }
            AbortStatus::Grpc(status) => {
                format!("{share} of the requests are answered with gRPC status {status} at once")
            }
        });
    }
}

fn explain_backends(
    tables: &Tables,
    question: &Question<'_>,
    facts: &OutboundRequest<'_>,
    selected: &Selected,
    backends: &[Backend],
    answer: &mut Explanation,
    witness: &mut Remembering,
) {
    let mut judged = Judged::default();
    for (index, backend) in backends.iter().enumerate() {
        let Ok(planned) = forward(selected, index, facts) else {
            witness.note(|| format!("{} does not exist", backend.cluster()));
            answer.destinations.push(missing(backend, backends.len()));
            continue;
        };
        let destination = &tables.destinations[planned.destination];
        answer.destinations.push(found(tables, question, backend, backends.len(), destination));
        note_destination(tables, question, destination, backend, backends.len(), witness);
        answer.rewrite_path = answer.rewrite_path.take().or_else(|| planned.path.clone());
        answer.rewrite_authority =
            answer.rewrite_authority.take().or_else(|| planned.authority.as_ref().map(ToString::to_string));
        let mut headers = facts.request.headers.clone();
        let changes: [&HeaderChanges; 2] = [&backend.request_headers, &selected.rule().request_headers];
        changes.iter().for_each(|change| change.apply(&mut headers));
        let arriving = Request {
            path: planned.path.as_deref().unwrap_or(facts.request.path),
            authority: planned.authority.as_deref().unwrap_or(facts.request.authority),
            headers: &headers,
            ..facts.request
        };
        judged.judge(tables, question, destination, Some(&arriving), witness);
    }
    conclude(answer, judged);
}
