use proptest::prelude::*;

use super::*;
use crate::balancing::balancer::LoadBalancer;
use crate::balancing::hash::hash;
use crate::balancing::policy::{HashKey, HashTable};
use crate::balancing::zones::Zones;

const EVEN: Algorithm = Algorithm::Simple(LoadBalancer::LeastRequest);

/// What may be done with each endpoint, and which were tried.
struct View(Vec<Condition>, Vec<usize>);

impl LoadView for View {
    fn active(&self, _: usize) -> u32 {
        0
    }
    fn usable(&self, index: usize) -> bool {
        self.0[index] == Condition::Usable && !self.1.contains(&index)
    }
    fn reachable(&self, index: usize) -> bool {
        self.0[index] != Condition::Out && !self.1.contains(&index)
    }
}

/// Endpoints by a text: words of a locality, letters `u`sable, `e`jected, `o`ut; priorities apart by `|`.
fn candidates(text: &str) -> Vec<Candidate> {
    let mut all = Vec::new();
    for (priority, words) in text.split('|').enumerate() {
        for (locality, word) in words.split_whitespace().enumerate() {
            for letter in word.chars() {
                let condition = match letter {
                    'u' => Condition::Usable,
                    'e' => Condition::Ejected,
                    _ => Condition::Out,
                };
                let index = all.len();
                let standing = Standing { priority: priority as u32, weight: 1 };
                let key = hash(format!("10.0.0.{index}:80").as_bytes());
                all.push(Candidate { index, key, standing, weight: 1, locality, condition });
            }
        }
    }
    all
}

fn view(candidates: &[Candidate]) -> View {
    View(candidates.iter().map(|candidate| candidate.condition).collect(), Vec::new())
}

fn manner(algorithm: &Algorithm) -> Manner<'_> {
    Manner { algorithm, localities: Localities::Together, panic_percent: 0 }
}

/// Share of each endpoint in percent, rounded.
fn shares(layers: &Layers, view: &View) -> Vec<u64> {
    let mut random = Random::seeded(11);
    let mut seen = vec![0; view.0.len()];
    for turn in 0..20_000 {
        if let Some(index) = layers.pick(view, None, || turn, &mut random) {
            seen[index] += 1;
        }
    }
    seen.iter().map(|count| (count + 100) / 200).collect()
}

#[test]
fn traffic_spills_to_the_next_priority_by_health() {
    let check = |text: &str, expected: &[u64]| {
        let candidates = candidates(text);
        let layers = Layers::new(manner(&EVEN), &candidates, None);
        let found = shares(&layers, &view(&candidates));
        let near = found.iter().zip(expected).all(|(found, expected)| found.abs_diff(*expected) <= 1);
        assert!(near && found.len() == expected.len(), "{text}: {found:?}");
    };
    check("uu|uu", &[50, 50, 0, 0]);
    check("uuue|u", &[33, 33, 33, 0, 0]);
    check("ue|u", &[70, 0, 30]);
    check("ue|ue", &[70, 0, 30, 0]);
    check("uo|u", &[70, 0, 30]);
    check("ee|uu|uu", &[0, 0, 50, 50, 0, 0]);
    check("ee|oo|uu", &[0, 0, 0, 0, 50, 50]);
    check("ee|oo", &[0, 0, 0, 0]);
    check("", &[]);
}

#[test]
fn panic_forgets_who_was_ejected_but_not_whose_checks_fail() {
    let check = |text: &str, panic_percent: u32, expected: &[u64]| {
        let candidates = candidates(text);
        let layers = Layers::new(Manner { panic_percent, ..manner(&EVEN) }, &candidates, None);
        let found = shares(&layers, &view(&candidates));
        let near = found.iter().zip(expected).all(|(found, expected)| found.abs_diff(*expected) <= 1);
        assert!(near, "{text} {panic_percent}: {found:?}");
    };
    check("ueeo", 50, &[33, 33, 33, 0]);
    check("ueeo", 20, &[100, 0, 0, 0]);
    check("eeee", 1, &[25, 25, 25, 25]);
    check("eeee", 0, &[0, 0, 0, 0]);
    check("ee|uu", 50, &[0, 0, 50, 50]);
    check("ee|eeeeee", 50, &[13, 13, 13, 13, 13, 13, 13, 13]);
}

#[test]
fn shares_of_localities_are_kept_whatever_their_size() {
    let manner = Manner { localities: Localities::Shares, ..manner(&EVEN) };
    let check = |text: &str, weights: &[u32], expected: &[u64]| {
        let mut candidates = candidates(text);
        for (candidate, weight) in candidates.iter_mut().zip(weights) {
            candidate.standing.weight = *weight;
        }
        let layers = Layers::new(manner, &candidates, None);
        let found = shares(&layers, &view(&candidates));
        let near = found.iter().zip(expected).all(|(found, expected)| found.abs_diff(*expected) <= 1);
        assert!(near, "{text}: {found:?}");
    };
    check("uu u", &[40, 40, 20], &[40, 40, 20]);
    // 80 to 20 while at least 72 % of each is usable.
    check("uuue u", &[20, 20, 20, 20, 20], &[27, 27, 27, 0, 20]);
    // Half of it is 70 % of its share: 56 to 20.
    check("ue u", &[40, 40, 20], &[74, 0, 26]);
    check("ee u", &[40, 40, 20], &[0, 0, 100]);
    // No share, no traffic, even if nobody else is there.
    check("ee u", &[50, 50, 0], &[0, 0, 0]);
}

#[test]
fn traffic_stays_in_the_own_zone_while_that_has_its_part_of_the_endpoints() {
    let check = |text: &str, callers: &[u64], expected: &[u64]| {
        let candidates = candidates(text);
        let localities = Localities::Zones(Zones { own: 0, callers, least: 4 });
        let layers = Layers::new(Manner { localities, ..manner(&EVEN) }, &candidates, None);
        let found = shares(&layers, &view(&candidates));
        let near = found.iter().zip(expected).all(|(found, expected)| found.abs_diff(*expected) <= 1);
        assert!(near, "{text}: {found:?}");
    };
    check("uu uu", &[1, 1], &[50, 50, 0, 0]);
    check("uu uu", &[2, 1], &[37, 37, 13, 13]);
    check("u uu", &[1, 1], &[33, 33, 33]);
    check("ee uu", &[1, 1], &[0, 0, 50, 50]);
    check("uue uue", &[1, 1], &[50, 50, 0, 0, 0, 0]);
    // Another region is only asked when this one fails.
    check("uu uu|uuuu", &[1, 1], &[50, 50, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn other_zones_help_out_until_endpoints_are_laid_out_anew() {
    let candidates = candidates("uu uu");
    let localities = Localities::Zones(Zones { own: 0, callers: &[1, 1], least: 4 });
    let layers = Layers::new(Manner { localities, ..manner(&EVEN) }, &candidates, None);
    let mut view = view(&candidates);
    view.1.extend([0, 1]);
    assert!(layers.pick(&view, None, || 0, &mut Random::seeded(1)).is_some_and(|index| index >= 2));
}

#[test]
fn who_was_tried_is_passed_over_into_the_next_priority() {
    let candidates = candidates("u|u");
    let layers = Layers::new(manner(&EVEN), &candidates, None);
    let mut view = view(&candidates);
    let mut random = Random::seeded(1);
    assert_eq!(layers.pick(&view, None, || 0, &mut random), Some(0));
    view.1.push(0);
    assert_eq!(layers.pick(&view, None, || 0, &mut random), Some(1));
}

#[test]
fn a_key_stays_with_its_priority_and_its_endpoint() {
    let ring = Algorithm::ConsistentHash { key: HashKey::SourceIp, table: HashTable::Ring(1024) };
    let candidates = candidates("uue|uu");
    let layers = Layers::new(manner(&ring), &candidates, None);
    let view = view(&candidates);
    let mut random = Random::seeded(1);
    let mut of_first = 0;
    for number in 0..1_000_u32 {
        let key = Some(hash(&number.to_be_bytes()));
        let found = layers.pick(&view, key, || 0, &mut random);
        assert_eq!(layers.pick(&view, key, || 0, &mut random), found);
        of_first += u32::from(found.is_some_and(|index| index < 3));
    }
    // 66 % are healthy: 92 % of the keys.
    assert!((900..950).contains(&of_first), "{of_first}");
}

#[test]
fn what_does_not_change_is_kept() {
    let ring = Algorithm::ConsistentHash { key: HashKey::SourceIp, table: HashTable::Maglev(65_537) };
    let (before, after) = (candidates("uu|uu"), candidates("ue|uu"));
    let first = Layers::new(manner(&ring), &before, None);
    let next = Layers::new(manner(&ring), &after, Some(&first));
    assert_ne!(first, next);
    assert!(first.choices().zip(next.choices()).all(|(a, b)| Arc::ptr_eq(a, b)));
}

proptest! {
    /// Whoever is found may be used, and somebody is found whenever anybody with a share may be.
    #[test]
    fn somebody_usable_is_found(
        text in "[ueo]{0,4}( [ueo]{1,4})?(\\|[ueo]{0,4}){0,2}",
        by_locality in 0..3,
        panic_percent in 0_u32..=100,
        seed: u64,
    ) {
        let candidates = candidates(&text);
        let zones = Zones { own: 0, callers: &[2, 1], least: 1 };
        let localities = match by_locality {
            0 => Localities::Together,
            1 => Localities::Shares,
            _ => Localities::Zones(zones),
        };
        let manner = Manner { localities, panic_percent, ..manner(&EVEN) };
        let layers = Layers::new(manner, &candidates, None);
        let total: u64 = layers.loads().map(|load| load.percent).sum();
        prop_assert!(total == 100 || total == 0, "{total}");
        let view = view(&candidates);
        let found = layers.pick(&view, None, || seed, &mut Random::seeded(seed));
        let usable = |condition: Condition| condition == Condition::Usable;
        match found {
            Some(index) if panic_percent == 0 => prop_assert!(usable(view.0[index])),
            Some(index) => prop_assert!(view.0[index] != Condition::Out),
            None => prop_assert!(!view.0.iter().any(|condition| usable(*condition))),
        }
    }
}
