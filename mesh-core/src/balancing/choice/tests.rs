use proptest::prelude::*;

use super::*;
use crate::balancing::hash::hash;
use crate::balancing::policy::HashKey;

/// Requests in flight, and whether it may be used.
struct View(Vec<(u32, bool)>);

impl LoadView for View {
    fn active(&self, index: usize) -> u32 {
        self.0[index].0
    }
    fn usable(&self, index: usize) -> bool {
        self.0[index].1
    }
}

fn members(weights: &[u32]) -> Vec<Member> {
    let member = |(index, weight): (usize, &u32)| Member {
        index,
        weight: *weight,
        key: hash(format!("10.0.{}.{}:9080", index / 200, index % 200).as_bytes()),
    };
    weights.iter().enumerate().map(member).collect()
}

fn simple(balancer: LoadBalancer, weights: &[u32]) -> Choice {
    Choice::new(&Algorithm::Simple(balancer), members(weights))
}

fn by_hash(table: HashTable) -> Algorithm {
    Algorithm::ConsistentHash { key: HashKey::SourceIp, table }
}

fn order(choice: &Choice, view: &View, count: u64) -> Vec<usize> {
    let mut random = Random::seeded(5);
    (0..count).filter_map(|turn| choice.pick(view, None, || turn, &mut random)).collect()
}

fn shares(choice: &Choice, view: &View, count: u64) -> Vec<usize> {
    let mut seen = vec![0; view.0.len()];
    order(choice, view, count).into_iter().for_each(|index| seen[index] += 1);
    seen
}

const ALL: [LoadBalancer; 3] = [LoadBalancer::RoundRobin, LoadBalancer::LeastRequest, LoadBalancer::Random];
const TABLES: [HashTable; 2] = [HashTable::Ring(1024), HashTable::Maglev(65_537)];

#[test]
fn equal_endpoints_share_equally_and_unusable_ones_get_nothing() {
    let view = View(vec![(0, true), (0, false), (0, true), (0, true)]);
    for balancer in ALL {
        let seen = shares(&simple(balancer, &[1, 1, 1, 1]), &view, 6_000);
        assert_eq!(seen[1], 0, "{balancer:?}");
        assert!([0, 2, 3].iter().all(|&i| (1_800..2_200).contains(&seen[i])), "{balancer:?} {seen:?}");
    }
}

#[test]
fn turns_are_exact_and_smooth() {
    let all = View(vec![(0, true); 3]);
    let in_turn = |weights: &[u32], count| order(&simple(LoadBalancer::RoundRobin, weights), &all, count);
    assert_eq!(in_turn(&[1, 1, 1], 6), [0, 1, 2, 0, 1, 2]);
    assert_eq!(in_turn(&[3, 1, 2], 6), [0, 2, 0, 1, 2, 0]);
    assert_eq!(in_turn(&[300, 100, 200], 6), [0, 2, 0, 1, 2, 0]);
    let seen = shares(&simple(LoadBalancer::RoundRobin, &[5, 1, 1]), &all, 700);
    assert_eq!(seen, [500, 100, 100]);
    // However unlike the weights are, everyone gets a turn and the table stays small.
    let seen = shares(&simple(LoadBalancer::RoundRobin, &[1_000_000, 1, 500_000]), &all, MOST_TURNS);
    assert!(seen[1] > 0 && (5_400..5_500).contains(&seen[0]), "{seen:?}");
}

#[test]
fn weights_count_for_all() {
    let view = View(vec![(0, true); 2]);
    for balancer in ALL {
        let seen = shares(&simple(balancer, &[1, 3]), &view, 6_000);
        assert!((1_350..1_650).contains(&seen[0]), "{balancer:?} {seen:?}");
    }
    for table in TABLES {
        let seen = shares(&Choice::new(&by_hash(table), members(&[1, 3])), &view, 6_000);
        assert!((1_300..1_700).contains(&seen[0]), "{table:?} {seen:?}");
    }
}

#[test]
fn least_request_avoids_the_busy_relative_to_their_weight() {
    let busy = |active: [u32; 2], weights: [u32; 2]| {
        let view = View(active.iter().map(|active| (*active, true)).collect());
        shares(&simple(LoadBalancer::LeastRequest, &weights), &view, 6_000)[0]
    };
    assert!(busy([50, 0], [1, 1]) < 1_000);
    // Three times the weight may have three times as much to do.
    assert!((4_300..4_700).contains(&busy([6, 2], [3, 1])));
    assert!(busy([9, 2], [3, 1]) < 4_000);
}

/// Requests in flight, and how slow it is.
struct Paced(Vec<(u32, u32)>);

impl LoadView for Paced {
    fn active(&self, index: usize) -> u32 {
        self.0[index].0
    }
    fn usable(&self, _: usize) -> bool {
        true
    }
    fn slowness(&self, index: usize) -> u32 {
        self.0[index].1
    }
}

#[test]
fn least_request_takes_a_slow_endpoint_for_a_busy_one() {
    let share = |load: &[(u32, u32)]| {
        let (choice, view) = (simple(LoadBalancer::LeastRequest, &vec![1; load.len()]), Paced(load.to_vec()));
        let mut random = Random::seeded(5);
        let picks = (0..10_000).filter(|_| choice.pick(&view, None, || 0, &mut random) == Some(0));
        picks.count()
    };
    let idle = [[(0, 10)].as_slice(), &[(0, 1); 9]].concat();
    // Now and then, so that it shows when it is not slow any more.
    assert!((10..90).contains(&share(&idle)), "{}", share(&idle));
    // With ten times as much to do the others are as busy.
    let busy = [[(0, 10)].as_slice(), &[(12, 1); 9]].concat();
    assert!(share(&busy) > 1_500, "{}", share(&busy));
    // Where all are alike nothing changes, and two are never one.
    assert!((900..1_100).contains(&share(&[(0, 1); 10])));
    assert!(share(&[(1, 1), (0, 1)]) < 700);
}

#[test]
fn nothing_usable_gives_nothing() {
    let algorithms = ALL.map(Algorithm::Simple).into_iter().chain(TABLES.map(by_hash));
    for algorithm in algorithms.chain([Algorithm::Passthrough]) {
        for count in [0, 1, 2] {
            let view = View(vec![(0, false); count]);
            let choice = Choice::new(&algorithm, members(&vec![1; count]));
            assert_eq!(choice.pick(&view, Some(7), || 0, &mut Random::seeded(0)), None, "{algorithm:?}");
        }
    }
}

/// Where each of many keys goes.
fn keys(choice: &Choice, view: &View) -> Vec<usize> {
    let mut random = Random::seeded(1);
    let pick = |key: u32| choice.pick(view, Some(hash(&key.to_le_bytes())), || 0, &mut random);
    (0..20_000).filter_map(pick).collect()
}

/// Of the keys that were not its own: less than one in fifty.
#[test]
fn one_of_a_hundred_that_goes_moves_few_other_keys() {
    let all = View(vec![(0, true); 100]);
    for table in TABLES.into_iter().chain([HashTable::Ring(1_000_000)]) {
        let before = keys(&Choice::new(&by_hash(table), members(&[1; 100])), &all);
        for gone in [0, 17, 99] {
            let mut left = members(&[1; 100]);
            left.remove(gone);
            let after = keys(&Choice::new(&by_hash(table), left), &all);
            let others = before.iter().zip(&after).filter(|(before, _)| **before != gone);
            let moved = others.clone().filter(|(before, after)| before != after).count();
            assert!(moved * 50 < others.count(), "{table:?} {gone}: {moved}");
            assert!(!after.contains(&gone));
        }
    }
}

#[test]
fn the_order_in_which_endpoints_are_listed_means_nothing() {
    let view = View(vec![(0, true); 40]);
    for table in TABLES.into_iter().chain([HashTable::Ring(1), HashTable::Maglev(101)]) {
        let weights: Vec<u32> = (0..40).map(|number| number % 3 + 1).collect();
        let mut listed = members(&weights);
        let before = keys(&Choice::new(&by_hash(table), listed.clone()), &view);
        listed.reverse();
        assert!(keys(&Choice::new(&by_hash(table), listed), &view) == before, "{table:?}");
    }
}

/// A million keys, of which each endpoint would have ten thousand if they were shared quite evenly.
#[test]
fn the_spread_over_a_hundred_is_within_a_tenth() {
    let view = View(vec![(0, true); 100]);
    for table in TABLES {
        let choice = Choice::new(&by_hash(table), members(&[1; 100]));
        let mut random = Random::seeded(9);
        let mut seen = vec![0_u32; 100];
        for _ in 0..1_000_000 {
            seen[choice.pick(&view, Some(random.bits()), || 0, &mut Random::seeded(0)).unwrap()] += 1;
        }
        let (least, most) = (seen.iter().min().unwrap(), seen.iter().max().unwrap());
        assert!(*least > 9_000 && *most < 11_000, "{table:?}: {least} to {most}");
    }
}

#[test]
fn the_keys_of_an_unusable_endpoint_move_alone_and_to_many() {
    let mut view = View(vec![(0, true); 20]);
    for table in TABLES {
        let choice = Choice::new(&by_hash(table), members(&[1; 20]));
        let before = keys(&choice, &view);
        view.0[3].1 = false;
        let after = keys(&choice, &view);
        view.0[3].1 = true;
        let mut taken: Vec<usize> = Vec::new();
        for (before, after) in before.iter().zip(&after) {
            if *before == 3 {
                taken.push(*after);
            } else {
                assert_eq!(before, after);
            }
        }
        taken.sort_unstable();
        taken.dedup();
        assert!(taken.len() >= 15 && !taken.contains(&3), "{table:?} {taken:?}");
    }
}

#[test]
fn traffic_that_goes_where_it_was_sent_finds_that_endpoint_only() {
    let members = members(&[1; 5]);
    let choice = Choice::new(&Algorithm::Passthrough, members.clone());
    let mut view = View(vec![(0, true); 5]);
    let pick = |view: &View, hash| choice.pick(view, hash, || 0, &mut Random::seeded(3));
    assert_eq!(pick(&view, Some(members[3].key)), Some(3));
    assert_eq!(pick(&view, Some(1)), None);
    assert!(pick(&view, None).is_some());
    view.0[3].1 = false;
    assert_eq!(pick(&view, Some(members[3].key)), None);
}

#[test]
fn a_table_of_no_prime_size_is_the_usual_one() {
    let choice = |size| Choice::new(&by_hash(HashTable::Maglev(size)), members(&[1; 3])).layout;
    for size in [0, 1, 4, 65_536, 5_000_011, u64::MAX] {
        assert!(choice(size) == choice(65_537), "{size}");
    }
    assert!(choice(101) != choice(65_537));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_the_members_one_that_is_usable_is_found(
        weights in prop::collection::vec(1_u32..1_000, 1..40),
        unusable in prop::collection::vec(any::<bool>(), 40),
        hash in any::<Option<u64>>(),
        which in 0_usize..6,
    ) {
        let algorithm = match which {
            0 => by_hash(HashTable::Ring(1)),
            1 => by_hash(HashTable::Maglev(101)),
            2 => Algorithm::Passthrough,
            simple => Algorithm::Simple(ALL[simple - 3]),
        };
        let choice = Choice::new(&algorithm, members(&weights));
        let view = View(unusable.iter().map(|unusable| (0, !unusable)).collect());
        let hash = hash.filter(|_| which != 2);
        let any = (0..weights.len()).any(|index| view.usable(index));
        let found = choice.pick(&view, hash, || 3, &mut Random::seeded(2));
        prop_assert_eq!(found.is_some(), any);
        prop_assert!(found.is_none_or(|index| view.usable(index)));
        // The same key finds the same endpoint, whoever asks.
        if hash.is_some() && which < 2 {
            prop_assert_eq!(found, choice.pick(&view, hash, || 9, &mut Random::seeded(8)));
        }
    }
}
