//! Which ALLOW rule came nearest to matching, and what it lacked: for people.

use std::cmp::Reverse;

use super::authorization::{
    AuthorizationPolicy, AuthorizationRule, Condition, Operation, PolicyAction, Source,
};
use super::demand::Demand;
use super::subject::Subject;

/// A rule that did not match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Miss {
    /// Index of the policy among those that were looked at.
    pub policy: usize,
    /// Index of the rule in it.
    pub rule: usize,
    /// What it lacked: `method is POST, allowed: GET`.
    pub reason: String,
}

/// The enforced ALLOW rule that came nearest: most of what it demands is met, then least is lacking; among equals one
/// that lets the caller in, then the first.
pub fn nearest_miss<'p>(
    policies: impl Iterator<Item = &'p AuthorizationPolicy>,
    subject: &Subject<'_>,
) -> Option<Miss> {
    let subject = &subject.for_allow();
    let allow = policies.enumerate().filter(|(_, p)| p.action == PolicyAction::Allow && !p.dry_run);
    let misses = allow.flat_map(|(policy, declared)| {
        declared
            .rules
            .iter()
            .enumerate()
            .map(move |(rule, written)| (policy, rule, Distance::of(written, subject)))
    });
    let (policy, rule, distance) = misses.min_by_key(|(_, _, distance)| {
        (Reverse(distance.met), distance.lacking.len(), !distance.caller_passes)
    })?;
    let reasons: Vec<String> = distance
        .lacking
        .iter()
        .map(|lack| lack.reason(subject))
        .filter(|reason| !reason.is_empty())
        .collect();
    Some(Miss { policy, rule, reason: reasons.join("; ") })
}

/// By what a rule holds: what it demands and what of that there is. Of alternatives the first that holds. Empty where it
/// holds for everything, also where all it demands falls away because this is no request.
pub fn met(rule: &AuthorizationRule, subject: &Subject<'_>) -> String {
    let counts = |demand: &Demand<'_>| !demand.is_empty() && (subject.http.is_some() || !demand.reads_http());
    let first = |alternatives: Vec<Vec<Demand<'_>>>| {
        let alternatives = alternatives.into_iter().map(|demands| {
            let counted: Vec<_> = demands.into_iter().filter(&counts).collect();
            let holds = counted.iter().all(|demand| demand.holds(subject));
            (holds, counted.iter().map(|demand| demand.met(subject)).collect::<Vec<_>>())
        });
        alternatives.into_iter().find(|(holds, _)| *holds).map(|(_, told)| told).unwrap_or_default()
    };
    let from = first(rule.from.iter().map(|source| source.demands().to_vec()).collect());
    let to = first(rule.to.iter().map(|operation| operation.demands().to_vec()).collect());
    let when = first(vec![rule.when.iter().map(Condition::demand).collect()]);
    [from, to, when].concat().join("; ")
}

#[derive(Default)]
struct Distance<'r> {
    /// How many demands are met.
    met: usize,
    lacking: Vec<Lack<'r>>,
    caller_passes: bool,
}

enum Lack<'r> {
    Demand(Demand<'r>),
    NotHttp,
}

impl Lack<'_> {
    fn reason(&self, subject: &Subject<'_>) -> String {
        match self {
            Lack::Demand(demand) => demand.lacking(subject),
            Lack::NotHttp => "the rule reads HTTP fields and this is not HTTP".to_owned(),
        }
    }
}

impl<'r> Distance<'r> {
    fn of(rule: &'r AuthorizationRule, subject: &Subject<'_>) -> Distance<'r> {
        let from = nearest(rule.from.iter().map(|source: &Source| source.demands().to_vec()), subject);
        let to = nearest(rule.to.iter().map(|operation: &Operation| operation.demands().to_vec()), subject);
        let when = rule.when.iter().map(Condition::demand).collect();
        let when = nearest(std::iter::once(when), subject);
        let caller_passes = from.lacking.is_empty();
        let met = from.met + to.met + when.met;
        let mut lacking = from.lacking;
        lacking.extend(to.lacking.into_iter().chain(when.lacking));
        if subject.http.is_none() && rule.demands().any(|demand| demand.reads_http()) {
            lacking.retain(|lack| matches!(lack, Lack::Demand(demand) if !demand.reads_http()));
            lacking.insert(0, Lack::NotHttp);
        }
        Distance { met, lacking, caller_passes }
    }
}

/// The alternative that lacks nothing, else the one that came nearest.
fn nearest<'r>(alternatives: impl Iterator<Item = Vec<Demand<'r>>>, subject: &Subject<'_>) -> Distance<'r> {
    let distances = alternatives.map(|demands| {
        let said = demands.into_iter().filter(|demand| !demand.is_empty());
        let (met, lacking): (Vec<_>, Vec<_>) = said.partition(|demand| demand.holds(subject));
        let lacking = lacking.into_iter().map(Lack::Demand).collect();
        Distance { met: met.len(), lacking, caller_passes: true }
    });
    let key = |distance: &Distance<'_>| {
        (!distance.lacking.is_empty(), Reverse(distance.met), distance.lacking.len())
    };
    distances.min_by_key(key).unwrap_or_default()
}
