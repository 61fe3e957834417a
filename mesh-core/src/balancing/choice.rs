//! An algorithm laid out over the endpoints of a destination: made when these change, so that a request only looks up.

use super::balancer::{LoadBalancer, LoadView};
use super::hash::derived;
use super::maglev::Maglev;
use super::pace::{ANYWAY, burden};
use super::policy::{Algorithm, HashTable};
use super::ring::Ring;
use crate::vocab::random::Random;

/// How often something that cannot be used is passed over before all are looked at.
const STEPS: usize = 32;
/// How often another one is drawn where the second of two is the first again.
const REDRAWN: usize = 4;
/// Most turns after which weights come round.
const MOST_TURNS: u64 = 8192;

/// An endpoint that may be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its index in the destination.
    pub index: usize,
    /// Relative share, at least 1.
    pub weight: u32,
    /// Hash of what it is known by everywhere.
    pub key: u64,
}

/// The endpoints that may be chosen, and how one is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    algorithm: Algorithm,
    members: Vec<Member>,
    layout: Layout,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Layout {
    /// Every member has the same share.
    Even(LoadBalancer),
    /// Shares differ.
    Weighted {
        balancer: LoadBalancer,
        /// Members in the order of their turns; only for those that go in turn.
        turns: Vec<u32>,
        /// Where each member's part of all weights ends.
        ends: Vec<u64>,
    },
    Ring(Ring),
    Maglev(Maglev),
}

impl Choice {
    /// Lays an algorithm out over members.
    pub fn new(algorithm: &Algorithm, mut members: Vec<Member>) -> Choice {
        members.iter_mut().for_each(|member| member.weight = member.weight.max(1));
        let layout = match algorithm {
            // Nothing to choose from.
            _ if members.len() < 2 => Layout::Even(LoadBalancer::Random),
            Algorithm::ConsistentHash { table: HashTable::Ring(minimum), .. } => {
                Layout::Ring(Ring::new(&members, *minimum))
            }
            Algorithm::ConsistentHash { table: HashTable::Maglev(size), .. } => {
                Layout::Maglev(Maglev::new(&members, *size))
            }
            Algorithm::Simple(_) | Algorithm::Passthrough | Algorithm::Utilization(_) => {
                plain(algorithm.simple(), &members)
            }
        };
        Choice { algorithm: algorithm.clone(), members, layout }
    }

    /// The endpoints that may be chosen.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Whether it was made of just this, so that it need not be made again.
    pub fn is_of(&self, algorithm: &Algorithm, members: &[Member]) -> bool {
        self.algorithm == *algorithm && self.members == members
    }

    /// The endpoint that gets the next request; `None` if none is usable. By a hash, if the algorithm goes by one and
    /// there is one; where traffic goes to where it was sent, the hash is that of the one member that it may be. `turn` counts the requests of the destination.
    pub fn pick(
        &self,
        view: &impl LoadView,
        hash: Option<u64>,
        turn: impl FnOnce() -> u64,
        random: &mut Random,
    ) -> Option<usize> {
        if let (Algorithm::Passthrough, Some(hash)) = (&self.algorithm, hash) {
            let sent_to = self.members.iter().find(|member| member.key == hash)?;
            return view.usable(sent_to.index).then_some(sent_to.index);
        }
        match self.members.as_slice() {
            [] => return None,
            [only] => return view.usable(only.index).then_some(only.index),
            _ => {}
        }
        match &self.layout {
            Layout::Even(balancer) => {
                self.simple(*balancer, view, random, |_| Some((turn() % self.members.len() as u64) as usize))
            }
            Layout::Weighted { balancer, turns, .. } => self.simple(*balancer, view, random, |_| {
                turns.get((turn() % (turns.len() as u64).max(1)) as usize).map(|member| *member as usize)
            }),
            Layout::Ring(ring) => {
                let hash = hash.unwrap_or_else(|| random.bits());
                self.hashed(view, hash, |step| ring.member(hash, step))
            }
            Layout::Maglev(maglev) => {
                let hash = hash.unwrap_or_else(|| random.bits());
                self.hashed(view, hash, |step| maglev.member(hash, step))
            }
        }
    }

    fn simple(
        &self,
        balancer: LoadBalancer,
        view: &impl LoadView,
        random: &mut Random,
        in_turn: impl FnOnce(&Self) -> Option<usize>,
    ) -> Option<usize> {
        match balancer {
            LoadBalancer::RoundRobin => {
                let index = self.members[in_turn(self)?].index;
                // The turns of one that cannot be used now are shared by all others.
                if view.usable(index) { Some(index) } else { Some(self.at_random(view, random)?.index) }
            }
            LoadBalancer::Random => Some(self.at_random(view, random)?.index),
            LoadBalancer::LeastRequest => {
                let first = self.at_random(view, random)?;
                let mut second = self.at_random(view, random)?;
                for _ in 0..REDRAWN {
                    if second.index != first.index {
                        break;
                    }
                    second = self.at_random(view, random)?;
                }
                let slow = (view.slowness(first.index), view.slowness(second.index));
                // Now and then a slow one is taken as any other.
                let slow = if slow != (1, 1) && random.below(ANYWAY) == 0 { (1, 1) } else { slow };
                let load = |one: Member, slow: u32, other: Member| {
                    burden(view.active(one.index), slow) * u64::from(other.weight)
                };
                // Both were drawn by their weights: with nothing to do the first keeps them.
                let less = load(second, slow.1, first) < load(first, slow.0, second);
                Some(if less { second.index } else { first.index })
            }
        }
    }

    /// Follows a hash from member to member until one is usable. The keys of a member that is not go to many others.
    fn hashed(&self, view: &impl LoadView, hash: u64, member: impl Fn(usize) -> usize) -> Option<usize> {
        let usable = |member: &Member| view.usable(member.index);
        let followed = (0..STEPS).filter_map(|step| self.members.get(member(step)));
        let found = followed.copied().find(usable).or_else(|| {
            let usable = self.members.iter().copied().filter(usable);
            usable.max_by_key(|member| derived(hash, member.key))
        });
        found.map(|member| member.index)
    }

    /// A usable member by weight.
    fn at_random(&self, view: &impl LoadView, random: &mut Random) -> Option<Member> {
        for _ in 0..4 {
            let member = self.drawn(random)?;
            if view.usable(member.index) {
                return Some(member);
            }
        }
        let usable = || self.members.iter().filter(|member| view.usable(member.index));
        let total: u64 = usable().map(|member| u64::from(member.weight)).sum();
        let mut position = random.below(total);
        for member in usable() {
            if position < u64::from(member.weight) {
                return Some(*member);
            }
            position -= u64::from(member.weight);
        }
        None
    }

    fn drawn(&self, random: &mut Random) -> Option<Member> {
        let number = match &self.layout {
            Layout::Weighted { ends, .. } => {
                let position = random.below(ends.last().copied().unwrap_or(0));
                ends.partition_point(|end| *end <= position)
            }
            Layout::Even(_) | Layout::Ring(_) | Layout::Maglev(_) => {
                random.below(self.members.len() as u64) as usize
            }
        };
        self.members.get(number).copied()
    }
}

fn plain(balancer: LoadBalancer, members: &[Member]) -> Layout {
    let weight = members.first().map_or(1, |member| member.weight);
    if members.iter().all(|member| member.weight == weight) {
        return Layout::Even(balancer);
    }
    let mut end = 0;
    let ends = members.iter().map(|member| {
        end += u64::from(member.weight);
        end
    });
    let ends = ends.collect();
    let turns = if balancer == LoadBalancer::RoundRobin { turns(members) } else { Vec::new() };
    Layout::Weighted { balancer, turns, ends }
}

/// Turns in proportion to the weights, those of each member spread evenly over the whole.
fn turns(members: &[Member]) -> Vec<u32> {
    let common =
        members.iter().fold(0, |divisor, member| greatest_divisor(u64::from(member.weight), divisor));
    let total: u64 = members.iter().map(|member| u64::from(member.weight) / common).sum();
    let mut turns: Vec<(u64, u32)> = Vec::new();
    for (number, member) in members.iter().enumerate() {
        let weight = u64::from(member.weight) / common;
        let count = if total > MOST_TURNS { (weight * MOST_TURNS / total).max(1) } else { weight };
        // The middle of each of `count` equal parts.
        let place = |turn: u64| ((2 * turn + 1) << 32) / (2 * count);
        turns.extend((0..count).map(|turn| (place(turn), number as u32)));
    }
    turns.sort_unstable();
    turns.into_iter().map(|(_, member)| member).collect()
}

fn greatest_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a.max(1) } else { greatest_divisor(b, a % b) }
}

#[cfg(test)]
mod tests;
