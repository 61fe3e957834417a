//! The story of a request.

use std::net::IpAddr;

use http::HeaderMap;

use super::captured::{self, Original};
use super::destination::{found, missing, note_destination};
use super::judgement::Judged;
use super::outcome::{conclude, fault, is_grpc, note_fault, note_split, refuse};
use super::{Explanation, LimitFound, MirrorFound, Question, RouteFound, addressed, declared_protocol};
use crate::decide::facts::OutboundRequest;
use crate::decide::limits::leaving;
use crate::decide::plan::{Forward, route_name};
use crate::decide::refusal::Reason;
use crate::decide::request::{Selected, forward, select};
use crate::decide::witness::{Remembering, Witness};
use crate::matching::request::{Request, forwarded_scheme};
use crate::resilience::hedge::Hedge;
use crate::resilience::timeout::request_timeout;
use crate::routing::cors::{CorsVerdict, Fields};
use crate::routing::format::Plain;
use crate::routing::header::{HeaderOperations, Values};
use crate::routing::mirror::shadow_authority;
use crate::routing::rule::{Backend, HttpRule, RuleAction};
use crate::tables::Tables;
use crate::vocab::protocol::Protocol;

/// Foretells what becomes of a request.
pub(super) fn explain(
    tables: &Tables,
    question: &Question<'_>,
    original: Option<&Original>,
    answer: &mut Explanation,
    witness: &mut Remembering,
) {
    let received = question.request.path;
    let Ok(normalized) = tables.normalization().apply(received) else {
        witness.note(|| format!("the path {received} is malformed, so the answer is 400"));
        answer.path = Some((received.to_owned(), None));
        (answer.action, answer.status) = ("blocked", Some(400));
        return;
    };
    answer.path = Some((received.to_owned(), Some(normalized.to_string())));
    answer.protocol = match declared_protocol(tables, question, original) {
        Some(Protocol::Auto) | None => "http".to_owned(),
        Some(protocol) => protocol.name().to_owned(),
    };
    let scheme = match question.request.scheme {
        "http" => forwarded_scheme(question.request.headers.get("x-forwarded-proto")),
        other => other,
    };
    let request = Request { path: &normalized, scheme, ..question.request };
    // A connection to a written address that is not captured has that address to go on to, so its service answers for its
    // own names only.
    let is_address = question.host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    let owner = addressed(tables, question, original).filter(|_| original.is_some() || !is_address);
    let facts = OutboundRequest {
        request,
        port: question.port,
        owner,
        listener: None,
        caller: Some(question.caller),
        source: None,
    };
    match select(tables, &facts, witness) {
        Ok(selected) => tell(tables, question, &facts, &selected, answer, witness),
        Err(refusal) => match original.and_then(Original::endpoint) {
            Some(place) if matches!(refusal.reason, Reason::UnknownHost | Reason::Blocked) => {
                captured::tell(tables, question, place, Some(&request), answer, witness);
            }
            _ => refuse(answer, &refusal, witness),
        },
    }
}

/// Tells what the selected rule does with a request.
pub(super) fn tell(
    tables: &Tables,
    question: &Question<'_>,
    facts: &OutboundRequest<'_>,
    selected: &Selected,
    answer: &mut Explanation,
    witness: &mut Remembering,
) {
    answer.service = selected.service.as_ref().map(|service| service.host.to_string());
    let rule = selected.rule();
    answer.route = Some(RouteFound {
        resource: rule.origin.resource.to_string(),
        rule: rule.origin.rule.map_or(0, |index| index as usize),
        matched: selected.matched.map(|index| rule.match_number(index)),
        name: route_name(rule, selected.matched),
    });
    let asking = leaving(&facts.request, question.identity, Some(question.caller.namespace), question.source);
    answer.limits = LimitFound::all(&rule.limits, None, &asking, "caller");
    answer.limits.iter().for_each(|limit| witness.note(|| limit.sentence()));
    match selected.cors(facts) {
        CorsVerdict::Unconcerned => {}
        CorsVerdict::Mark(fields) => {
            witness.note(|| format!("its answer is marked for the origin: {}", words(&fields)))
        }
        CorsVerdict::Answer(fields) => {
            witness.note(|| {
                format!("it is a preflight that the proxy answers itself (cors_response): {}", words(&fields))
            });
            (answer.action, answer.status, answer.fault) = ("direct_response", Some(200), rule.fault);
            note_fault(&rule.fault, witness);
            fault(answer, Some(&facts.request));
            return;
        }
    }
    note_headers("the answer", &rule.response_headers, witness);
    match &rule.action {
        RuleAction::Redirect(redirect) => {
            (answer.action, answer.status) = ("redirect", Some(redirect.code));
            answer.location = Some(redirect.location(&facts.request, facts.port, selected.uri()));
        }
        RuleAction::DirectResponse(response) => {
            (answer.action, answer.status) = ("direct_response", Some(response.status));
            witness.note(|| format!("the proxy answers itself, with {} bytes", response.body.len()));
        }
        RuleAction::Route { backends, .. } => {
            answer.action = if selected.routes.section.at.port == 0 { "passthrough" } else { "route" };
            send_on(tables, question, facts, selected, backends, answer, witness);
        }
    }
}

fn send_on(
    tables: &Tables,
    question: &Question<'_>,
    facts: &OutboundRequest<'_>,
    selected: &Selected,
    backends: &[Backend],
    answer: &mut Explanation,
    witness: &mut Remembering,
) {
    let rule = selected.rule();
    answer.timeout = timeout(rule, &facts.request);
    answer.retries = (rule.retry.attempts > 0).then(|| rule.retry.clone());
    answer.hedge = rule.retry.hedge.filter(|hedge| hedge.concerns(facts.request.method, false));
    note_hedge(rule, &answer.hedge, witness);
    answer.fault = rule.fault;
    note_fault(&rule.fault, witness);
    note_headers("the request", &rule.request_headers, witness);
    note_split(backends, "request", witness);
    let mut judged = Judged::default();
    for (index, backend) in backends.iter().enumerate() {
        let Ok(planned) = forward(selected, index, facts) else {
            witness.note(|| format!("{} does not exist, so its share gets 503", backend.cluster()));
            answer.destinations.push(missing(backend, backends.len()));
            continue;
        };
        let destination = &tables.destinations[planned.destination];
        answer.destinations.push(found(tables, question, backend, backends.len(), destination));
        note_destination(tables, question, destination, backend, backends.len(), witness);
        note_headers("this share", &backend.request_headers, witness);
        note_headers("the answer to this share", &backend.response_headers, witness);
        answer.rewrite_path = answer.rewrite_path.take().or_else(|| planned.path.clone());
        answer.rewrite_authority =
            answer.rewrite_authority.take().or_else(|| planned.authority.as_ref().map(ToString::to_string));
        let headers = arriving_headers(facts, backend, rule);
        let arriving = Request {
            path: planned.path.as_deref().unwrap_or(facts.request.path),
            authority: planned.authority.as_deref().unwrap_or(facts.request.authority),
            headers: &headers,
            ..facts.request
        };
        judged.judge(tables, question, destination, Some(&arriving), witness);
        if index == 0 {
            note_original(&planned, &facts.request, witness);
        }
    }
    tell_mirrors(facts, selected, answer, witness);
    conclude(answer, &judged, Some(&facts.request));
}

fn note_hedge(rule: &HttpRule, hedge: &Option<Hedge>, witness: &mut Remembering) {
    match (hedge, &rule.retry.hedge) {
        (Some(hedge), _) => witness.note(|| {
            let times = if hedge.most == 1 { "once".to_owned() } else { format!("up to {} times", hedge.most) };
            format!(
                "without an answer after {:?} it is sent to another endpoint too, {times}, and the first good answer counts",
                hedge.after
            )
        }),
        (None, Some(_)) => witness.note(|| {
            "it is not sent twice (mesh.io/hedge): its method is not idempotent".to_owned()
        }),
        (None, None) => {}
    }
}

fn timeout(rule: &HttpRule, request: &Request<'_>) -> Option<std::time::Duration> {
    let client = request.headers.get("grpc-timeout").filter(|_| is_grpc(request));
    request_timeout(rule.timeout, client.and_then(|value| value.to_str().ok()))
}

/// The header fields as the called workload gets them.
fn arriving_headers(facts: &OutboundRequest<'_>, backend: &Backend, rule: &HttpRule) -> HeaderMap {
    let request = &facts.request;
    let values = Known(request);
    let mut headers = request.headers.clone();
    for operations in [&backend.request_headers, &rule.request_headers] {
        operations.apply_to_request(&mut headers, &values);
    }
    headers
}

/// What is known beforehand of what variables stand for.
struct Known<'a>(&'a Request<'a>);

impl Values for Known<'_> {
    fn plain(&self, _: Plain) -> Option<String> {
        None
    }

    fn request(&self, name: &str) -> Option<String> {
        let request = self.0;
        match (name, request.query) {
            (":path", Some(query)) => Some(format!("{}?{query}", request.path)),
            (":path", None) => Some(request.path.to_owned()),
            (":method", _) => Some(request.method.to_owned()),
            (":authority" | "host", _) => Some(request.authority.to_owned()),
            (":scheme", _) => Some(request.scheme.to_owned()),
            _ => None,
        }
    }

    fn response(&self, _: &str) -> Option<String> {
        None
    }
}

fn note_headers(of: &str, operations: &HeaderOperations, witness: &mut Remembering) {
    if !operations.is_empty() {
        witness.note(|| format!("header fields of {of}: {operations}"));
    }
}

fn note_original(planned: &Forward, request: &Request<'_>, witness: &mut Remembering) {
    if let Some(path) = planned.original_path(request) {
        witness.note(|| {
            format!(
                "the path becomes {}; x-envoy-original-path says {path}",
                planned.path.as_deref().unwrap_or("")
            )
        });
    }
    if let (Some(new), Some(old)) = (&planned.authority, planned.original_authority(request)) {
        witness.note(|| format!("the authority becomes {new}; x-envoy-original-host says {old}"));
    }
}

fn tell_mirrors(
    facts: &OutboundRequest<'_>,
    selected: &Selected,
    answer: &mut Explanation,
    witness: &mut Remembering,
) {
    let view = facts.caller.and_then(|caller| caller.view);
    let authority = answer.rewrite_authority.as_deref().unwrap_or(facts.request.authority);
    let authority = shadow_authority(authority);
    for (index, mirror) in selected.rule().mirrors.iter().enumerate() {
        let exists = selected.routes.mirror_destination(selected.rule, index, view).is_some();
        witness.note(|| {
            let cluster = mirror.cluster();
            if exists {
                format!("{} of the requests are copied to {cluster} as {authority}", mirror.share)
            } else {
                format!("{cluster} does not exist, so nothing is copied to it")
            }
        });
        answer.mirrors.push(MirrorFound {
            host: mirror.host.to_string(),
            subset: mirror.subset.as_ref().map(ToString::to_string),
            port: mirror.port,
            cluster: mirror.cluster(),
            share: mirror.share,
            authority: authority.clone(),
            exists,
        });
    }
}

fn words(fields: &Fields) -> String {
    let words: Vec<_> = fields
        .iter()
        .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
        .collect();
    if words.is_empty() { "no fields".to_owned() } else { words.join("; ") }
}
