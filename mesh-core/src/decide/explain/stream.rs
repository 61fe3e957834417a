//! The story of a byte stream, TLS that is passed on among them.

use std::net::IpAddr;

use super::captured::{self, Original};
use super::destination::{found, missing, note_destination};
use super::judgement::Judged;
use super::outcome::{conclude, note_split, refuse};
use super::{Explanation, Question, RouteFound, addressed, declared_protocol};
use crate::decide::facts::OutboundStream;
use crate::decide::stream::select;
use crate::decide::witness::{Remembering, Witness};
use crate::snapshot::service::Service;
use crate::tables::Tables;
use crate::tables::routes::{RouteTable, StreamKind};
use crate::vocab::protocol::Protocol;

/// Foretells what becomes of a byte stream. A refused one is closed without a word, so there is no status.
pub(super) fn explain(
    tables: &Tables,
    question: &Question<'_>,
    original: Option<&Original>,
    answer: &mut Explanation,
    witness: &mut Remembering,
) {
    answer.protocol = match declared_protocol(tables, question, original) {
        Some(protocol) if protocol.is_tls() => protocol.name().to_owned(),
        None | Some(Protocol::Auto) if question.request.scheme == "https" => "tls".to_owned(),
        _ => "tcp".to_owned(),
    };
    if let Some(place) = original.and_then(Original::endpoint) {
        return captured::tell(tables, question, place, None, answer, witness);
    }
    // A client of TLS asks for the name that it connects to.
    let sni = question.host.to_ascii_lowercase();
    let service = addressed(tables, question, original);
    let facts = OutboundStream {
        service: service.unwrap_or(usize::MAX),
        port: question.port,
        destination: question.host.parse().ok().or_else(|| address(&tables.services[service?].service)),
        sni: Some(&sni),
        caller: Some(question.caller),
        source: None,
    };
    if service.is_none() && original.is_none() {
        witness.note(|| format!("no service is called {}", question.host));
    }
    match select(tables, &facts, witness) {
        Ok(selected) => {
            answer.service = selected.service.map(|service| service.host.to_string());
            let rule = (selected.kind, selected.rule, selected.matched);
            tell(tables, question, selected.routes, rule, answer, witness);
            if selected.service.is_none() {
                answer.action = "passthrough";
            }
        }
        Err(refusal) => refuse(answer, &refusal, witness),
    }
    answer.status = None;
}

/// The address that a client finds for a service's name.
fn address(service: &Service) -> Option<IpAddr> {
    service.addresses.first().copied().or(service.auto_address)
}

/// Tells what the selected rule does with a stream.
pub(super) fn tell(
    tables: &Tables,
    question: &Question<'_>,
    routes: &RouteTable,
    (kind, rule, matched): (StreamKind, usize, Option<usize>),
    answer: &mut Explanation,
    witness: &mut Remembering,
) {
    let selected = routes.stream_rule(kind, rule);
    answer.action = "route";
    answer.route = Some(RouteFound {
        resource: selected.origin.resource.to_string(),
        rule: selected.origin.rule.map_or(0, |index| index as usize),
        matched: matched.map(|index| selected.match_number(index)),
        name: None,
    });
    let mut judged = Judged::default();
    let of = selected.backends.len();
    note_split(&selected.backends, "connection", witness);
    for (index, backend) in selected.backends.iter().enumerate() {
        match routes.stream_destination(kind, rule, index, question.caller.view) {
            Some(destination) => {
                let destination = &tables.destinations[destination];
                answer.destinations.push(found(tables, question, backend, of, destination));
                note_destination(tables, question, destination, backend, of, witness);
                judged.judge(tables, question, destination, None, witness);
            }
            None => {
                witness.note(|| format!("{} does not exist, so its share is closed", backend.cluster()));
                answer.destinations.push(missing(backend, of));
            }
        }
    }
    conclude(answer, &judged, None);
}
