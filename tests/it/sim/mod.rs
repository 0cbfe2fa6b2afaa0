//! A deterministic simulation of the whole service: workers, closers, sources that deliver again in other compositions, clocks
//! that differ, and faults at every step. See `docs/testing.md`.

mod calls;
mod check;
mod engine;
mod faulty;
mod source;
mod store;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use session_tracking::InMemorySessionStorage;

use store::Store;

/// Seeds that `cargo test` runs.
const SEEDS: u64 = 20_000;
/// One seed of so many runs on the real store over the embedded DynamoDB, the others in memory: a world takes some hundred times
/// as long there. Odd, so that both threads get their share.
const DYNAMODB_EVERY: u64 = 199;
/// Threads, one seed each at a time: the machine's two cores.
const THREADS: u64 = 2;

/// A setting of a run by hand.
#[allow(clippy::disallowed_methods, reason = "a test's own settings")]
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Returns the lines that a world's consumer has read in the end: in any order, some of them twice.
pub fn lines(seed: u64) -> Vec<serde_json::Value> {
    world::run(seed, Store::Memory(InMemorySessionStorage::new()), false)
}

/// `SIM_DYNAMODB_EVERY=1` runs every seed on the real store.
/// `SIM_SEEDS=1000000 cargo test --release --test it sim -- --nocapture` runs as many as asked and says the rate.
#[test]
#[allow(clippy::disallowed_methods, reason = "the rate is of real time")]
fn sim() {
    let every = setting("SIM_DYNAMODB_EVERY").unwrap_or(DYNAMODB_EVERY).max(1);
    let run = |seed, is_loud| {
        let store =
            if seed % every == 0 { Store::in_dynamodb(seed) } else { Store::Memory(InMemorySessionStorage::new()) };
        world::run(seed, store, is_loud);
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
                        panic!("to repeat: SIM_SEED={seed} cargo test --test it sim -- --nocapture");
                    }
                }
            });
        }
    });
    let [short, enough] = world::AT_THE_EDGE.each_ref().map(|worlds| worlds.load(std::sync::atomic::Ordering::Relaxed));
    assert!(
        seeds < 1000 || enough > seeds / 50 && short > seeds / 50,
        "{enough} worlds at the edge, {short} beyond it"
    );
    println!("{seeds} seeds, {:.0} a second", seeds as f64 / began.elapsed().as_secs_f64());
}
