//! Which ALLOW rule came nearest to matching, and what it lacked: for people.

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

/// The enforced ALLOW rule that lacked least; among equals one that lets the caller in, then the first.
pub fn nearest_miss<'p>(
    policies: impl Iterator<Item = &'p AuthorizationPolicy>,
    subject: &Subject<'_>,
) -> Option<Miss> {
    let allow = policies.enumerate().filter(|(_, p)| p.action == PolicyAction::Allow && !p.dry_run);
    let misses = allow.flat_map(|(policy, declared)| {
        declared
            .rules
            .iter()
            .enumerate()
            .map(move |(rule, written)| (policy, rule, Distance::of(written, subject)))
    });
    let (policy, rule, distance) =
        misses.min_by_key(|(_, _, distance)| (distance.lacking.len(), !distance.caller_passes))?;
    let reasons: Vec<String> = distance
        .lacking
        .iter()
        .map(|lack| lack.reason(subject))
        .filter(|reason| !reason.is_empty())
        .collect();
    Some(Miss { policy, rule, reason: reasons.join("; ") })
}

struct Distance<'r> {
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
        let from = least(rule.from.iter().map(|source: &Source| source.demands().to_vec()), subject);
        let caller_passes = from.is_empty();
        let mut lacking = from;
        lacking.extend(least(rule.to.iter().map(|o: &Operation| o.demands().to_vec()), subject));
        let when = rule.when.iter().map(Condition::demand).collect();
        lacking.extend(least(std::iter::once(when), subject));
        if subject.http.is_none() && rule.demands().any(|demand| demand.reads_http()) {
            lacking.retain(|lack| matches!(lack, Lack::Demand(demand) if !demand.reads_http()));
            lacking.insert(0, Lack::NotHttp);
        }
        Distance { lacking, caller_passes }
    }
}

/// What the alternative that lacks least lacks; nothing where there is no alternative.
fn least<'r>(alternatives: impl Iterator<Item = Vec<Demand<'r>>>, subject: &Subject<'_>) -> Vec<Lack<'r>> {
    let lacking = alternatives.map(|demands| {
        demands.into_iter().filter(|demand| !demand.holds(subject)).map(Lack::Demand).collect::<Vec<_>>()
    });
    lacking.min_by_key(Vec::len).unwrap_or_default()
}
