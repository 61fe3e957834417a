//! The endpoints of a destination as one caller finds them: priorities with their shares of its traffic, in each the
//! algorithm laid out over its members. Made anew when endpoints, their health or their weights change, so that a request
//! only looks up.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::balancer::LoadView;
use super::choice::{Choice, Member};
use super::hash::derived;
use super::policy::Algorithm;
use super::priority::{Load, Standing, available, loads};
use super::zones::Zones;
use crate::vocab::random::Random;

/// Makes another hash of a key's for the priority, so that a priority does not get keys of one part of a ring only.
const PRIORITY: u64 = 0x7072_696f_7269_7479;

/// What may be done with an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It may get traffic.
    Usable,
    /// It is left alone for a while, unless too few others are usable.
    Ejected,
    /// It gets nothing: its checks fail, or nothing leads there.
    Out,
}

/// An endpoint that a caller may reach.
#[derive(Debug, Clone, Copy)]
pub struct Candidate {
    /// Its index in the destination.
    pub index: usize,
    /// Hash of what it is known by everywhere.
    pub key: u64,
    /// Its priority, and its share in that.
    pub standing: Standing,
    /// Its weight among its neighbours at this moment, where that is not its share: it warms up, or reports its load.
    pub weight: u32,
    /// Number of its locality.
    pub locality: usize,
    /// What may be done with it.
    pub condition: Condition,
}

/// What localities mean inside a priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Localities<'a> {
    /// Nothing: one of all members is chosen.
    Together,
    /// They have shares of their own, which neither load nor weights shift.
    Shares,
    /// Those of the first priority take what the caller's own has no room for.
    Zones(Zones<'a>),
}

/// What the layers of a destination follow.
#[derive(Debug, Clone, Copy)]
pub struct Manner<'a> {
    /// How one of the members is chosen.
    pub algorithm: &'a Algorithm,
    /// What localities mean inside a priority.
    pub localities: Localities<'a>,
    /// Where less of a priority is usable than so many percent, it is no longer told who is (`minHealthPercent`).
    pub panic_percent: u32,
}

/// The priorities, the first one first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layers {
    layers: Vec<Layer>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Layer {
    load: Load,
    /// Whether a locality without a share may still help out when those with one have nobody.
    helps_out: bool,
    /// Localities where these have shares; one of all members else.
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    /// Where its part of all shares ends.
    end: u64,
    choice: Arc<Choice>,
}

impl Layers {
    /// Lays candidates out. What is as it was `before` is taken from there: large tables of hashes are made when their
    /// members change only.
    pub fn new(manner: Manner<'_>, candidates: &[Candidate], before: Option<&Layers>) -> Layers {
        let mut priorities: BTreeMap<u32, Vec<&Candidate>> = BTreeMap::new();
        for candidate in candidates.iter().filter(|candidate| candidate.standing.weight > 0) {
            priorities.entry(candidate.standing.priority).or_default().push(candidate);
        }
        let counts: Vec<(u64, u64)> = priorities.values().map(|all| counts(all)).collect();
        let loads = loads(&counts, u64::from(manner.panic_percent));
        let known: Vec<&Arc<Choice>> = before.map(|before| before.choices().collect()).unwrap_or_default();
        let layer = |(priority, (members, load)): (usize, (&Vec<&Candidate>, Load))| {
            let zones = matches!(manner.localities, Localities::Zones(_));
            let localities = if zones && priority > 0 { Localities::Together } else { manner.localities };
            let manner = Manner { localities, ..manner };
            Layer { parts: parts(manner, members, load.panics, &known), helps_out: zones, load }
        };
        Layers { layers: priorities.values().zip(loads).enumerate().map(layer).collect() }
    }

    /// The endpoint that gets the next request; `None` if none is usable. First the priority by its share, then one of
    /// it; where it has none that is usable now, one of another priority. By a hash, if the algorithm goes by one and
    /// there is one: it leads to the same priority too. `turn` counts the requests of the destination.
    pub fn pick(
        &self,
        view: &impl LoadView,
        hash: Option<u64>,
        turn: impl Fn() -> u64,
        random: &mut Random,
    ) -> Option<usize> {
        if let [only] = self.layers.as_slice() {
            return only.pick(view, hash, &turn, random);
        }
        let mut position = match hash {
            Some(hash) => derived(hash, PRIORITY) % 100,
            None => random.below(100),
        };
        let first = self.layers.iter().position(|layer| {
            let is_here = position < layer.load.percent;
            position = position.saturating_sub(layer.load.percent);
            is_here
        });
        let found = first.and_then(|first| self.layers.get(first)?.pick(view, hash, &turn, random));
        found.or_else(|| {
            let others = self.layers.iter().enumerate().filter(|(index, _)| Some(*index) != first);
            others.map(|(_, layer)| layer).find_map(|layer| layer.pick(view, hash, &turn, random))
        })
    }

    /// Who may be chosen.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.choices().flat_map(|choice| choice.members())
    }

    /// The share of each priority in percent, and whether it is no longer told who of it is usable.
    pub fn loads(&self) -> impl Iterator<Item = Load> {
        self.layers.iter().map(|layer| layer.load)
    }

    /// Whether it depends on who is usable at the moment: which priority gets how much, or which locality.
    pub fn follows_health(&self, manner: Manner<'_>) -> bool {
        let zones = matches!(manner.localities, Localities::Zones(_));
        zones
            || manner.panic_percent > 0
            || self.layers.len() > 1
            || self.layers.iter().any(|l| l.parts.len() > 1)
    }

    fn choices(&self) -> impl Iterator<Item = &Arc<Choice>> {
        self.layers.iter().flat_map(|layer| &layer.parts).map(|part| &part.choice)
    }
}

impl Layer {
    fn pick(
        &self,
        view: &impl LoadView,
        hash: Option<u64>,
        turn: &impl Fn() -> u64,
        random: &mut Random,
    ) -> Option<usize> {
        if self.load.panics {
            return self.pick_of(&Panicking(view), hash, turn, random);
        }
        self.pick_of(view, hash, turn, random)
    }

    fn pick_of(
        &self,
        view: &impl LoadView,
        hash: Option<u64>,
        turn: &impl Fn() -> u64,
        random: &mut Random,
    ) -> Option<usize> {
        if let [only] = self.parts.as_slice() {
            return only.choice.pick(view, hash, turn, random);
        }
        let position = random.below(self.parts.last()?.end);
        let first = self.parts.partition_point(|part| part.end <= position);
        let found = self.parts.get(first).and_then(|part| part.choice.pick(view, hash, turn, random));
        found.or_else(|| {
            // Between a change of health and the next layout: those that have a share at all.
            let mut begin = 0;
            let has_share = self.parts.iter().filter(|part| {
                let share = part.end - begin;
                begin = part.end;
                share > 0 || self.helps_out
            });
            has_share.collect::<Vec<_>>().into_iter().find_map(|p| p.choice.pick(view, hash, turn, random))
        })
    }
}

/// Endpoints where so few are usable that it no longer matters who is.
struct Panicking<'a, V>(&'a V);

impl<V: LoadView> LoadView for Panicking<'_, V> {
    fn active(&self, index: usize) -> u32 {
        self.0.active(index)
    }

    fn usable(&self, index: usize) -> bool {
        self.0.reachable(index)
    }

    fn slowness(&self, index: usize) -> u32 {
        self.0.slowness(index)
    }
}

/// How many are usable, and how many there are.
fn counts(candidates: &[&Candidate]) -> (u64, u64) {
    let usable = candidates.iter().filter(|candidate| candidate.condition == Condition::Usable).count();
    (usable as u64, candidates.len() as u64)
}

fn parts(manner: Manner<'_>, candidates: &[&Candidate], panics: bool, known: &[&Arc<Choice>]) -> Vec<Part> {
    let hashed = matches!(manner.algorithm, Algorithm::ConsistentHash { .. });
    let together = || vec![Part { end: 1, choice: choice(manner.algorithm, candidates, known) }];
    let zones = match manner.localities {
        _ if hashed => return together(),
        Localities::Together => return together(),
        Localities::Shares => None,
        Localities::Zones(_) if panics => return together(),
        Localities::Zones(zones) => match zones.shares(&usable_by_locality(candidates)) {
            Some(shares) => Some(shares),
            None => return together(),
        },
    };
    let mut localities: BTreeMap<usize, Vec<&Candidate>> = BTreeMap::new();
    for candidate in candidates {
        localities.entry(candidate.locality).or_default().push(candidate);
    }
    let mut end = 0;
    let part = |(locality, members): (&usize, &Vec<&Candidate>)| {
        let share: u64 = members.iter().map(|member| u64::from(member.standing.weight)).sum();
        let (usable, all) = counts(members);
        end += match &zones {
            Some(shares) => shares.get(*locality).copied().unwrap_or(0),
            None if panics => share,
            None => available(share, usable, all),
        };
        Part { end, choice: choice(manner.algorithm, members, known) }
    };
    localities.iter().map(part).collect()
}

/// How many may be used, by the number of their locality.
fn usable_by_locality(candidates: &[&Candidate]) -> Vec<u64> {
    let most = candidates.iter().map(|candidate| candidate.locality).max().unwrap_or(0);
    let mut usable = vec![0; most + 1];
    for candidate in candidates.iter().filter(|candidate| candidate.condition == Condition::Usable) {
        usable[candidate.locality] += 1;
    }
    usable
}

fn choice(algorithm: &Algorithm, candidates: &[&Candidate], known: &[&Arc<Choice>]) -> Arc<Choice> {
    let reachable = candidates.iter().filter(|candidate| candidate.condition != Condition::Out);
    let member = |candidate: &&Candidate| Member {
        index: candidate.index,
        weight: candidate.weight.max(1),
        key: candidate.key,
    };
    let members: Vec<Member> = reachable.map(member).collect();
    match known.iter().find(|choice| choice.is_of(algorithm, &members)) {
        Some(same) => Arc::clone(same),
        None => Arc::new(Choice::new(algorithm, members)),
    }
}

#[cfg(test)]
mod tests;
