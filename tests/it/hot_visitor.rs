//! A hot visitor, in virtual time: its writers take turns, and none of them gives up.
//! `cargo test --test it hot_visitor -- --nocapture` prints how many attempts they need.
#![allow(clippy::disallowed_methods, reason = "time is virtual here")]

use std::time::Duration;

use futures_util::future::join_all;
use session_tracking::clock::Clock;
use session_tracking::config::SessionConfig;
use session_tracking::event::{Delivery, Event};
use session_tracking::manager::{Outcome, SessionManager};
use session_tracking::session::Millis;
use session_tracking::storage::SessionError;
use tokio::time::Instant;

use crate::closing::{SlowStorage, VirtualClock};

/// The time limit of an invocation (`template.yaml`).
const INVOCATION_MS: Millis = 30_000;

/// Writers of one visitor. Each is a process of its own, and applies batches one after the other.
#[derive(Clone, Copy)]
struct World {
    writers: usize,
    /// The mean time of a call of the store. Calls take 60 % to 140 % of it.
    call_ms: u64,
    batches: usize,
}

/// What became of the batches of a world.
#[derive(Default)]
struct Totals {
    batches: usize,
    /// The batches that met a conflict in each attempt, and those that ran out of time.
    contention: usize,
    out_of_time: usize,
    writes: usize,
    reads: usize,
    /// How long each batch took that was applied, in milliseconds.
    took_ms: Vec<u128>,
}

impl Totals {
    fn failed(&self) -> usize {
        self.contention + self.out_of_time
    }

    fn a_batch(&self, count: usize) -> f64 {
        count as f64 / self.batches as f64
    }
}

/// Runs a world with each of these seeds.
fn run(world: World, seeds: u64) -> Totals {
    let mut totals = Totals::default();
    for seed in 0..seeds {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(run_seed(world, seed, &mut totals));
    }
    totals.took_ms.sort_unstable();
    let at = |share: f64| totals.took_ms[((totals.took_ms.len() - 1) as f64 * share) as usize];
    println!(
        "{:>2} writers, {:>2} batches each, {:>2} ms a call: failed {:>4.1} %, writes {:.2}, reads {:.2}, {} ms, p99 {} ms",
        world.writers,
        world.batches,
        world.call_ms,
        100.0 * totals.a_batch(totals.failed()),
        totals.a_batch(totals.writes),
        totals.a_batch(totals.reads),
        at(0.5),
        at(0.99),
    );
    totals
}

async fn run_seed(world: World, seed: u64, totals: &mut Totals) {
    let clock = VirtualClock::new(seed);
    let mut store = SlowStorage::new(seed);
    store.call = Duration::from_millis(world.call_ms * 6 / 10);
    store.jitter_ms = world.call_ms as usize * 8 / 10;
    let writers = (0..world.writers).map(|writer| write(world, writer, &store, &clock));
    let outcomes: Vec<(Outcome, Duration)> = join_all(writers).await.into_iter().flatten().collect();
    let mut applied = 0;
    for (outcome, took) in outcomes {
        totals.batches += 1;
        match outcome {
            Outcome::Placed(_) => {
                applied += 1;
                totals.took_ms.push(took.as_millis());
            }
            Outcome::Failed(SessionError::Contention) => totals.contention += 1,
            Outcome::Failed(SessionError::Deadline) => totals.out_of_time += 1,
            Outcome::Failed(error) => panic!("{error}"),
        }
    }
    let (reads, writes) = store.calls();
    (totals.reads, totals.writes) = (totals.reads + reads, totals.writes + writes);
    let session = SessionManager::with_clock(SessionConfig::default(), &store, &clock).get_by_user("hot").await;
    assert_eq!(session.unwrap().event_count, applied, "each event that was applied is counted once");
}

/// Sends a writer's batches, and returns the outcome of each and how long it took.
async fn write(world: World, writer: usize, store: &SlowStorage, clock: &VirtualClock) -> Vec<(Outcome, Duration)> {
    let manager = SessionManager::with_clock(SessionConfig::default(), store, clock);
    let mut outcomes = Vec::new();
    for batch in 0..world.batches {
        let (now, began) = (clock.now(), Instant::now());
        let json = format!(r#"{{"uuid":"{writer}-{batch}","event":"$pageview","distinct_id":"hot"}}"#);
        let delivery = Delivery { received_at: now, trusts_received_at: false };
        let event = Event::parse(json.as_bytes(), delivery, manager.config()).unwrap();
        let outcome = manager.resolve(&[event], now + INVOCATION_MS).await.pop().unwrap();
        outcomes.push((outcome, began.elapsed()));
    }
    outcomes
}

/// Runs worlds of 2, 8 and 32 writers, on a store of 5 ms and of 50 ms a call.
fn worlds(batches: usize, seeds: u64) -> Vec<(World, Totals)> {
    let worlds = [5, 50].into_iter().flat_map(|call_ms| [2, 8, 32].map(|writers| World { writers, call_ms, batches }));
    worlds.map(|world| (world, run(world, seeds))).collect()
}

/// Writers that come at the same time all succeed, as many as have to.
#[test]
fn writers_at_once_all_succeed() {
    assert!(worlds(1, 20).iter().all(|(_, totals)| totals.failed() == 0));
}

/// So do writers of which each begins its next batch as soon as one is answered. One write of a visitor fits into the time of a call,
/// so 32 writers want thirty times what the slow store can take. Some of them give up there, late and rarely.
#[test]
fn writers_in_a_loop_take_turns() {
    for (world, totals) in worlds(10, 2) {
        let is_too_much = world.writers * world.call_ms as usize > 1_000;
        let max = if is_too_much { totals.batches / 30 } else { 0 };
        assert!(totals.failed() <= max, "{} of {} failed", totals.failed(), totals.batches);
    }
}
