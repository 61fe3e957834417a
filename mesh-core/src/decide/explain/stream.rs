//! The story of a byte stream.

use std::sync::Arc;

use super::destination::{found, missing, note_destination};
use super::judgement::Judged;
use super::{Explanation, Question, RouteFound, addressed, conclude, refuse};
use crate::decide::facts::OutboundStream;
use crate::decide::refusal::{Reason, Refusal};
use crate::decide::stream::outbound;
use crate::decide::witness::{Remembering, Witness};
use crate::snapshot::service::Service;
use crate::tables::Tables;
use crate::vocab::random::Random;

/// Foretells what becomes of a byte stream.
pub(super) fn explain(
    tables: &Tables,
    question: &Question<'_>,
    answer: &mut Explanation,
    witness: &mut Remembering,
) {
    answer.protocol = "tcp".to_owned();
    let Some(service) = addressed(tables, question) else {
        witness.note(|| format!("no service is called {}", question.host));
        return refuse(answer, &Refusal::new(Reason::UnknownHost), witness);
    };
    let declared: &Arc<Service> = &tables.services[service].service;
    answer.service = Some(declared.host.to_string());
    let facts =
        OutboundStream { service, port: question.port, destination: None, caller: Some(question.caller) };
    // The dice fall on one backend; the rule, which is what is asked for, is the same whatever they show.
    let mut random = Random::seeded(0);
    let (routes, rule) = match outbound(tables, &facts, &mut random, witness) {
        Ok(plan) => (plan.routes.clone(), plan.rule),
        Err(refusal) => match (&refusal.reason, tables.services[service].routes(question.port)) {
            (Reason::NoDestination { cluster }, Some(_)) => {
                witness.note(|| format!("{cluster} does not exist"));
                (answer.action, answer.status, answer.flags) = ("route", Some(503), "NC");
                return;
            }
            _ => return refuse(answer, &refusal, witness),
        },
    };
    let found_rule = routes.tcp_rule(rule);
    answer.action = "route";
    answer.route = Some(RouteFound {
        resource: found_rule.origin.resource.to_string(),
        rule: found_rule.origin.rule.map_or(0, |index| index as usize),
        matched: None,
        name: None,
    });
    let mut judged = Judged::default();
    for (index, backend) in found_rule.backends.iter().enumerate() {
        let of = found_rule.backends.len();
        match routes.tcp_destination(rule, index, Some(question.caller.namespace)) {
            Some(destination) => {
                let destination = &tables.destinations[destination];
                answer.destinations.push(found(backend, of, destination));
                note_destination(destination, backend, of, witness);
                judged.judge(tables, question, destination, None, witness);
            }
            None => answer.destinations.push(missing(backend, of)),
        }
    }
    conclude(answer, judged);
}
