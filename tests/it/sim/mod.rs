//! A deterministic simulation of the whole service: workers, closers, sources that redeliver in other compositions, clocks that
//! differ, and faults at every step. See `docs/testing.md`.

mod check;
mod deletion;
mod end_requests;
mod engine;
mod erased;
mod erasures;
mod faulty;
mod source;
mod store;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use session_tracking::InMemorySessionStorage;

use store::Store;

/// The number of seeds that `cargo test` runs.
const SEEDS: u64 = 6_000;
/// One seed of this many runs on the real store over the embedded DynamoDB, and the others in memory: a world takes some hundred
/// times as long in DynamoDB. The number is odd, so that both threads get their share.
const DYNAMODB_EVERY: u64 = 199;
/// The number of threads. Each runs one seed at a time.
const THREADS: u64 = 2;

/// Returns an environment variable that sets up a run by hand.
#[allow(clippy::disallowed_methods, reason = "a test's own settings")]
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Returns the lines that a world's consumer has read in the end, in any order and some of them twice.
pub fn lines(seed: u64) -> Vec<serde_json::Value> {
    world::run(seed, Store::Memory(InMemorySessionStorage::new()), false)
}

/// `SIM_DYNAMODB_EVERY=1` runs every seed on the real store.
/// `SIM_SEEDS=1000000 cargo test --release --test it sim -- --nocapture` runs as many as asked and prints the rate.
#[test]
#[allow(clippy::disallowed_methods, reason = "the rate is of real time")]
fn sim() {
    let every = setting("SIM_DYNAMODB_EVERY").unwrap_or(DYNAMODB_EVERY).max(1);
    let run = |seed, is_verbose| {
        let store =
            if seed % every == 0 { Store::in_dynamodb(seed) } else { Store::Memory(InMemorySessionStorage::new()) };
        world::run(seed, store, is_verbose);
    };
    if let Some(seed) = setting("SIM_SEED") {
        return run(seed, true);
    }
    let (first, seeds) = (setting("SIM_FIRST").unwrap_or(0), setting("SIM_SEEDS").unwrap_or(SEEDS));
    let began = std::time::Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                for seed in (first + thread..first + seeds).step_by(THREADS as usize) {
                    if catch_unwind(AssertUnwindSafe(|| run(seed, false))).is_err() {
                        panic!("to reproduce: SIM_SEED={seed} cargo test --test it sim -- --nocapture");
                    }
                }
            });
        }
    });
    let [beyond, within] =
        world::AT_THE_EDGE.each_ref().map(|worlds| worlds.load(std::sync::atomic::Ordering::Relaxed));
    assert!(
        seeds < 1000 || within > seeds / 50 && beyond > seeds / 50,
        "of the worlds at the edge of the allowed lateness, {within} are within it and {beyond} beyond"
    );
    let [all, clean, exact, consumed] =
        erased::ERASED.each_ref().map(|visitors| visitors.load(std::sync::atomic::Ordering::Relaxed));
    let erased =
        format!("{all} visitors erased, {clean} for certain, {exact} with exact sessions, {consumed} at a consumer");
    assert!(seeds < 1000 || clean > seeds / 10 && exact > seeds / 10 && consumed > seeds / 100, "{erased}");
    println!("{erased}");
    println!("{seeds} seeds, {:.0} a second", seeds as f64 / began.elapsed().as_secs_f64());
}
