//! Simulations in virtual time: proxies that decide as ours do, with everything that decides taken from the core, and a world
//! in which endpoints, zones and links fail. Each is one number: `SIMULATION_SEED` plays one again, `SIMULATION_SEEDS` says
//! how many are played.

mod caller;
mod mesh;
mod slow;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Plays with each seed and tells which one failed.
fn play(each: impl Fn(u64)) {
    let seeds = match number("SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..number("SIMULATION_SEEDS").unwrap_or(4) + 1,
    };
    for seed in seeds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| each(seed))) {
            eprintln!("failed with SIMULATION_SEED={seed}");
            resume_unwind(panic);
        }
    }
}

#[test]
fn what_fails_stays_a_small_failure() {
    play(|seed| {
        let told = mesh::run(seed);
        eprintln!("seed {seed}: {told}");
    });
}

#[test]
fn a_slow_endpoint_gets_next_to_nothing_and_then_its_share() {
    play(slow::run);
}
