//! The policies of a workload, arranged for judging: what asks somebody else, what is written down, what denies, what
//! allows. Requests and byte streams have programs of their own.

use std::sync::Arc;

use super::authorization::{
    AuthorizationPolicy, AuthorizationRule, Condition, Operation, PolicyAction, Source, Values,
};
use super::demand::Demand;
use super::index::RuleIndex;
use super::subject::Subject;

/// A rule that decided: indices into the judged policies and the policy's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decider {
    /// Index of the policy.
    pub policy: usize,
    /// Index of the rule in it.
    pub rule: usize,
}

/// The judgement over all policies of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Let through; by a rule, or because no policy allows anything in particular.
    Allow(Option<Decider>),
    /// Refused; by a rule, or because no ALLOW rule matched.
    Deny(Option<Decider>),
}

impl Verdict {
    /// Whether it may pass.
    pub fn is_allowed(self) -> bool {
        matches!(self, Verdict::Allow(_))
    }
}

/// What policies say beside the verdict: it changes nothing, and is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remarks {
    /// The AUDIT rule that is about it.
    pub audited: Option<Decider>,
    /// What the policies in dry run alone would say; `None` if there are none.
    pub rehearsed: Option<Verdict>,
}

/// What the CUSTOM policies want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum External {
    /// Nothing: none is about this.
    Nothing,
    /// The provider of that policy must be asked first.
    Ask(Decider),
    /// It is refused, because the mesh knows no such provider or the workload's policies name several.
    Refuse(Decider),
}

/// The policies of a workload, arranged for judging.
#[derive(Debug, Default)]
pub struct Program {
    policies: Vec<Arc<AuthorizationPolicy>>,
    requests: Stages,
    streams: Stages,
    /// Whether enforced CUSTOM policies name more than one provider: which to ask is not said, so none is.
    ambiguous: bool,
    /// Whether no policy is of action AUDIT or in dry run.
    is_silent: bool,
}

#[derive(Debug, Default)]
struct Stages {
    custom: Stage,
    audit: Stage,
    enforced: Pair,
    dry_run: Pair,
}

/// DENY and ALLOW.
#[derive(Debug, Default)]
struct Pair {
    deny: Stage,
    allow: Stage,
    /// Whether there is an ALLOW policy at all, so that one must match.
    restricted: bool,
}

/// The rules of one action in order.
#[derive(Debug, Default)]
struct Stage {
    entries: Vec<Entry>,
    index: RuleIndex,
}

#[derive(Debug)]
struct Entry {
    policy: u32,
    rule: u32,
    /// The rule as it stands for streams, where that differs from what is written.
    narrowed: Option<Box<AuthorizationRule>>,
}

impl Program {
    /// Arranges policies; where several rules of an action match, the first counts.
    pub fn new(policies: Vec<Arc<AuthorizationPolicy>>) -> Program {
        let requests = Stages::new(&policies, false);
        let streams = Stages::new(&policies, true);
        let custom =
            policies.iter().filter(|policy| policy.action == PolicyAction::Custom && !policy.dry_run);
        let mut names = custom.filter_map(|policy| policy.provider.as_ref().map(|provider| &provider.name));
        let first = names.next();
        let ambiguous = names.any(|name| Some(name) != first);
        let remarks =
            |policy: &Arc<AuthorizationPolicy>| policy.action == PolicyAction::Audit || policy.dry_run;
        let is_silent = !policies.iter().any(remarks);
        Program { policies, requests, streams, ambiguous, is_silent }
    }

    /// The policies, in the order that deciders index.
    pub fn policies(&self) -> &[Arc<AuthorizationPolicy>] {
        &self.policies
    }

    /// The policy of a decider.
    pub fn policy(&self, decider: Decider) -> &Arc<AuthorizationPolicy> {
        &self.policies[decider.policy]
    }

    /// What the CUSTOM policies want. Asked before tokens are looked at.
    pub fn external(&self, subject: &Subject<'_>) -> External {
        let Some(found) = self.stages(subject).custom.first(&self.policies, subject) else {
            return External::Nothing;
        };
        let authorizer = self.policies[found.policy].provider.as_ref().and_then(|p| p.authorizer.as_ref());
        match authorizer {
            Some(_) if self.ambiguous => External::Refuse(found),
            // Over HTTP nobody can be asked about a byte stream: Istio leaves such a policy out there.
            Some(authorizer) if subject.http.is_none() && !authorizer.grpc => External::Nothing,
            Some(_) => External::Ask(found),
            None => External::Refuse(found),
        }
    }

    /// Any DENY match refuses; then, if there is an ALLOW policy at all, one must match.
    pub fn judge(&self, subject: &Subject<'_>) -> Verdict {
        self.stages(subject).enforced.judge(&self.policies, subject)
    }

    /// What is to be written down; boxed, for it is rare that there is anything.
    pub fn remarks(&self, subject: &Subject<'_>) -> Option<Box<Remarks>> {
        if self.is_silent {
            return None;
        }
        let audited = self.stages(subject).audit.first(&self.policies, subject);
        // Beside a policy on requests only there may be nothing for streams to be judged by.
        let pair = &self.stages(subject).dry_run;
        let tried = pair.restricted || !pair.deny.entries.is_empty();
        let rehearsed = tried.then(|| pair.judge(&self.policies, subject));
        (audited.is_some() || rehearsed.is_some()).then(|| Box::new(Remarks { audited, rehearsed }))
    }

    /// Whether any enforced ALLOW policy restricts what may pass.
    pub fn is_restricted(&self) -> bool {
        self.requests.enforced.restricted
    }

    /// Whether any rule asks for the address of the caller or client.
    pub fn reads_addresses(&self) -> bool {
        let rules = self.policies.iter().flat_map(|policy| &policy.rules);
        let mut demands = rules.flat_map(AuthorizationRule::demands);
        demands.any(|demand| matches!(demand, Demand::SourceIp(_) | Demand::RemoteIp(_)))
    }

    fn stages(&self, subject: &Subject<'_>) -> &Stages {
        if subject.http.is_some() { &self.requests } else { &self.streams }
    }
}

impl Stages {
    fn new(policies: &[Arc<AuthorizationPolicy>], streams: bool) -> Stages {
        let stage = |action, dry_run| Stage::new(policies, action, dry_run, streams);
        let pair = |dry_run| Pair {
            deny: stage(PolicyAction::Deny, dry_run),
            allow: stage(PolicyAction::Allow, dry_run),
            restricted: policies
                .iter()
                .any(|policy| policy.action == PolicyAction::Allow && policy.dry_run == dry_run),
        };
        Stages {
            custom: stage(PolicyAction::Custom, false),
            audit: stage(PolicyAction::Audit, false),
            enforced: pair(false),
            dry_run: pair(true),
        }
    }
}

impl Pair {
    fn judge(&self, policies: &[Arc<AuthorizationPolicy>], subject: &Subject<'_>) -> Verdict {
        if let Some(decider) = self.deny.first(policies, subject) {
            return Verdict::Deny(Some(decider));
        }
        if !self.restricted {
            return Verdict::Allow(None);
        }
        match self.allow.first(policies, &subject.for_allow()) {
            Some(decider) => Verdict::Allow(Some(decider)),
            None => Verdict::Deny(None),
        }
    }
}

impl Stage {
    fn new(
        policies: &[Arc<AuthorizationPolicy>],
        action: PolicyAction,
        dry_run: bool,
        streams: bool,
    ) -> Stage {
        let mut entries = Vec::new();
        let wanted = policies.iter().enumerate();
        for (policy, declared) in wanted.filter(|(_, p)| p.action == action && p.dry_run == dry_run) {
            for (number, rule) in declared.rules.iter().enumerate() {
                let reads_http = streams && rule.demands().any(|demand| demand.reads_http());
                if reads_http && action == PolicyAction::Allow {
                    continue;
                }
                entries.push(Entry {
                    policy: u32::try_from(policy).unwrap_or(u32::MAX),
                    rule: u32::try_from(number).unwrap_or(u32::MAX),
                    narrowed: reads_http.then(|| Box::new(without_http(rule))),
                });
            }
        }
        let index = RuleIndex::new(entries.iter().map(|entry| entry.rule(policies)));
        Stage { entries, index }
    }

    fn first(&self, policies: &[Arc<AuthorizationPolicy>], subject: &Subject<'_>) -> Option<Decider> {
        if self.entries.is_empty() {
            return None;
        }
        let matches = |number: u32| self.entries[number as usize].rule(policies).holds(subject);
        let entry = &self.entries[self.index.first(subject, matches)? as usize];
        Some(Decider { policy: entry.policy as usize, rule: entry.rule as usize })
    }
}

impl Entry {
    fn rule<'a>(&'a self, policies: &'a [Arc<AuthorizationPolicy>]) -> &'a AuthorizationRule {
        self.narrowed.as_deref().unwrap_or_else(|| &policies[self.policy as usize].rules[self.rule as usize])
    }
}

/// What is left of a rule that refuses or writes down, on a byte stream: the demands that only a request can meet fall
/// away, so that it is about more (Istio, "TCP traffic").
fn without_http(rule: &AuthorizationRule) -> AuthorizationRule {
    let source = |source: &Source| Source { request_principals: Values::default(), ..source.clone() };
    let operation =
        |operation: &Operation| Operation { ports: operation.ports.clone(), ..Operation::default() };
    let stays = |condition: &&Condition| !Demand::reads_http(&condition.demand());
    AuthorizationRule {
        from: rule.from.iter().map(source).collect(),
        to: rule.to.iter().map(operation).collect(),
        when: rule.when.iter().filter(stays).cloned().collect(),
    }
}
