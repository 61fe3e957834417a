//! One endpoint of many, by every algorithm.

use std::hint::black_box;

use mesh_core::balancing::balancer::{LoadBalancer, LoadView};
use mesh_core::balancing::choice::{Choice, Member};
use mesh_core::balancing::policy::{Algorithm, HashKey, HashTable};
use mesh_core::vocab::random::Random;

use super::Run;

/// Spreads numbers over all bits.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// All usable, with some load.
struct Busy;

impl LoadView for Busy {
    fn active(&self, index: usize) -> u32 {
        (index % 7) as u32
    }

    fn usable(&self, _: usize) -> bool {
        true
    }
}

fn pick(algorithm: &Algorithm, size: usize, weight: fn(usize) -> u32) -> Run {
    let member =
        |index: usize| Member { index, weight: weight(index), key: (index as u64 + 1).wrapping_mul(GOLDEN) };
    let choice = Choice::new(algorithm, (0..size).map(member).collect());
    let mut random = Random::seeded(1);
    let (mut turn, mut hash) = (0, 0u64);
    Box::new(move || {
        turn += 1;
        hash = hash.wrapping_add(GOLDEN);
        black_box(choice.pick(&Busy, Some(black_box(hash)), || turn, &mut random));
    })
}

fn even(_: usize) -> u32 {
    1
}

fn hashed(table: HashTable) -> Algorithm {
    Algorithm::ConsistentHash { key: HashKey::SourceIp, table }
}

pub(crate) fn in_turn(size: usize) -> Run {
    pick(&Algorithm::Simple(LoadBalancer::RoundRobin), size, even)
}

pub(crate) fn in_turn_weighted(size: usize) -> Run {
    pick(&Algorithm::Simple(LoadBalancer::RoundRobin), size, |index| 1 + index as u32 % 5)
}

pub(crate) fn less_busy(size: usize) -> Run {
    pick(&Algorithm::Simple(LoadBalancer::LeastRequest), size, even)
}

pub(crate) fn at_random(size: usize) -> Run {
    pick(&Algorithm::Simple(LoadBalancer::Random), size, even)
}

pub(crate) fn ring(size: usize) -> Run {
    pick(&hashed(HashTable::Ring(1024)), size, even)
}

pub(crate) fn maglev(size: usize) -> Run {
    pick(&hashed(HashTable::Maglev(65_537)), size, even)
}
