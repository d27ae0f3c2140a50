//! Sudden death under load, at random moments, again and again: what was acknowledged (with volatile caches: flushed) is there
//! afterwards, and nothing that was never written.
//!
//! `E2E_KILL_ROUNDS`, `E2E_POWER_ROUNDS` and `E2E_MOVE_ROUNDS` (in migrations) say how many rounds, `E2E_SEED` which ones, `E2E_LIFE_MS` how long a target lives under
//! load at most; the seed of each run is printed.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    time::Instant,
};

use e2e::{
    crash::{Death, Figures, Mortal},
    random::{Random, announce, number, seed},
};

/// Rounds on one stack, before a new one is made.
const ROUNDS_A_STACK: u64 = 25;

/// Makes a stack that dies.
type Make = fn(Death, usize, Random) -> Mortal;

/// Dies `rounds` times.
fn die(what: &str, death: Death, rounds: u64, make: Make) -> Figures {
    let (seed, start) = (seed(), Instant::now());
    announce(&format!("{what}: {rounds} rounds, E2E_SEED={seed}"));
    let mut random = Random::new(seed);
    let mut left = rounds;
    let mut figures = Figures::default();
    let lived = catch_unwind(AssertUnwindSafe(|| {
        while left > 0 {
            // Blocks of 512 bytes, where the caches tear log pages, every other time.
            let block_size = if death == Death::PowerCut && random.one_in(2) { 512 } else { 4096 };
            let mut mortal = make(death, block_size, random.fork());
            for _ in 0..left.min(ROUNDS_A_STACK) {
                mortal.round();
            }
            left -= left.min(ROUNDS_A_STACK);
            figures = figures.plus(mortal.end());
        }
    }));
    if let Err(panic) = lived {
        announce(&format!("{what}: FAILED with E2E_SEED={seed}"));
        resume_unwind(panic)
    }
    announce(&format!("{what}: {:.1} s, {figures:?}", start.elapsed().as_secs_f32()));
    figures
}

#[test]
fn acknowledged_writes_survive_kill_at_any_moment() {
    let rounds = number("E2E_KILL_ROUNDS", 100);
    let figures = die("kill -9", Death::Kill, rounds, Mortal::new);
    assert!(figures.deaths >= rounds && figures.remapped >= rounds, "too little happened: {figures:?}");
}

#[test]
fn flushed_writes_survive_power_cut_at_any_moment() {
    let rounds = number("E2E_POWER_ROUNDS", 50);
    let figures = die("power cut", Death::PowerCut, rounds, Mortal::new);
    let enough = figures.deaths >= rounds && figures.flushes >= rounds && figures.remapped >= rounds;
    assert!(enough, "too little happened: {figures:?}");
}

/// Rounds in which the set moves to its other spare are about as many as these.
fn die_while_moving(what: &str, death: Death) {
    let rounds = number("E2E_MOVE_ROUNDS", 30);
    let figures = die(what, death, rounds, Mortal::that_moves);
    let enough = figures.migrations >= rounds && figures.migrated > 0 && figures.migrated < figures.migrations;
    assert!(enough && figures.moved > 0, "too little happened: {figures:?}");
}

#[test]
fn acknowledged_writes_survive_kill_in_the_middle_of_migrations() {
    die_while_moving("kill -9 in migrations", Death::Kill);
}

#[test]
fn flushed_writes_survive_power_cut_in_the_middle_of_migrations() {
    die_while_moving("power cut in migrations", Death::PowerCut);
}
