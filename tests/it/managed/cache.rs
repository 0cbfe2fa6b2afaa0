//! What the shared cache of timelines is worth: the same traffic, once in processes of one invocation at a time, as on Lambda, and
//! once in an eighth as many processes of eight at once. Time is virtual, so the same seed gives the same counts.
//! `cargo test --features managed-instances --test it managed::cache -- --nocapture` prints the table of
//! `docs/managed-instances.md`.
#![allow(clippy::disallowed_methods, reason = "time is virtual here")]

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use session_tracking::clock::Clock;
use session_tracking::config::SessionConfig;
use session_tracking::event::{Delivery, Event};
use session_tracking::manager::{Counted, Outcome, SessionManager};
use session_tracking::session::{Millis, Visitor, datetime, rfc3339};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::closing::{SlowStorage, VirtualClock};
use crate::seeded::Seeded;
use crate::shop::{Batch, Shop};

/// Invocations that a process has at once, by the template's default.
const AT_ONCE: usize = 8;
/// Each row is the sum of as many runs.
const SEEDS: u64 = 3;
/// The first batches of a run, for each invocation at once. They are not counted: a new process has written no timeline.
const WARM_UP: usize = 8;
/// The batches of a run that are counted.
const COUNTED: usize = 100;
/// Visitors in a batch, each with one event. A visit has 20 events, so for one of 20 visitors it is the first one.
const VISITORS: usize = 34;
/// Concurrent visits for each invocation at once. They take turns, so invocations at once have different visitors.
const VISITS: usize = 50;
/// The mean time between two batches, in microseconds, times the number of invocations at once. A read and a write take some
/// 16 ms, so half of the invocations are busy.
const GAP_US: usize = 32_000;

/// A run's traffic, and the processes that have it.
#[derive(Clone, Copy)]
struct World {
    processes: usize,
    /// Invocations that each of them has at once.
    at_once: usize,
    /// Visitors who are in every batch, with one event.
    hot: usize,
    seed: u64,
}

impl World {
    fn invocations(self) -> usize {
        self.processes * self.at_once
    }
}

/// A batch, and the virtual time at which it comes.
struct Arrival {
    at: Duration,
    batch: Batch,
}

/// Returns the shop's batches, at random times. They are the same for as many invocations, in whatever processes.
fn traffic(world: World) -> Vec<Arrival> {
    let visits = VISITS * world.invocations();
    let mut shop = Shop::with(world.seed, visits);
    // The first visit has had one event, the next one two, and so on, so that visits begin and end all the time.
    for visit in 0..visits {
        let events = 1 + visit % 20;
        shop.batch(events, events);
    }
    let (mut random, mut at) = (Seeded(world.seed), Duration::ZERO);
    let mut arrival = |number| {
        let mut batch = shop.batch(VISITORS, 1);
        let time = rfc3339(datetime(batch.received_at));
        batch.events.extend((0..world.hot).map(|hot| {
            format!(r#"{{"uuid":"{number}-{hot}","event":"x","distinct_id":"hot-{hot}","timestamp":"{time}"}}"#)
        }));
        // The gaps of a Poisson process.
        let uniform = (random.below(1 << 32) + 1) as f64 / (1_u64 << 32) as f64;
        at += Duration::from_micros((-uniform.ln() * (GAP_US / world.invocations()) as f64) as u64);
        Arrival { at, batch }
    };
    (0..WARM_UP * world.invocations() + COUNTED).map(&mut arrival).collect()
}

/// A clock that shows the time of the newest batch. Waiting takes virtual time.
#[derive(Clone, Copy)]
struct ShopClock<'a> {
    now: &'a AtomicI64,
    time: &'a VirtualClock,
}

impl Clock for ShopClock<'_> {
    fn now(&self) -> Millis {
        self.now.load(Ordering::Relaxed)
    }

    async fn sleep(&self, time: Duration) {
        self.time.sleep(time).await;
    }

    fn random(&self) -> u64 {
        self.time.random()
    }
}

type Manager<'a> = SessionManager<&'a SlowStorage, ShopClock<'a>>;

/// What was counted in invocations.
#[derive(Default)]
struct Totals {
    invocations: usize,
    /// The number of visitors in each batch, summed.
    visitors: usize,
    /// Those whose cached timeline was written, and those whose cached timeline was stale.
    right: u64,
    wrong: u64,
    conflicts: u64,
    reads: usize,
    writes: usize,
    /// Events that another delivery has to apply.
    failed: usize,
}

impl Totals {
    fn add(&mut self, other: &Self) {
        self.invocations += other.invocations;
        self.visitors += other.visitors;
        (self.right, self.wrong) = (self.right + other.right, self.wrong + other.wrong);
        self.conflicts += other.conflicts;
        (self.reads, self.writes) = (self.reads + other.reads, self.writes + other.writes);
        self.failed += other.failed;
    }

    /// Returns the shares of the visitors of a batch whose cached timeline was right, and was wrong, in percent.
    fn taken(&self) -> [f64; 2] {
        [self.right, self.wrong].map(|count| 100.0 * count as f64 / self.visitors as f64)
    }

    /// Returns the conflicts in a thousand writes.
    fn conflicts(&self) -> f64 {
        1_000.0 * self.conflicts as f64 / self.writes as f64
    }

    /// Returns the calls to the table of an invocation.
    fn calls(&self) -> f64 {
        (self.reads + self.writes) as f64 / self.invocations as f64
    }

    /// Returns the conditional writes for each visitor of a batch, those that met a conflict included.
    fn writes(&self) -> f64 {
        self.writes as f64 / self.visitors as f64
    }

    /// Returns a row of the document's table.
    fn row(&self, traffic: &str, world: World) -> String {
        let [right, wrong] = self.taken();
        format!(
            "| {traffic} | {} × {} | {right:.0} / {wrong:.1} / {:.0} % | {:.0} | {:.1} | {:.2} |",
            world.processes,
            world.at_once,
            100.0 - right - wrong,
            self.conflicts(),
            self.calls(),
            self.writes(),
        )
    }
}

/// Runs a world, and returns what its invocations counted after the warm-up.
async fn run(world: World) -> Totals {
    let (now, time) = (AtomicI64::new(0), VirtualClock::new(world.seed));
    // Calls take 5 to 9 ms.
    let mut store = SlowStorage::new(world.seed);
    store.jitter_ms = 4;
    let clock = ShopClock { now: &now, time: &time };
    let process = |_| SessionManager::with_clock(SessionConfig::default(), &store, clock);
    let processes: Vec<Manager<'_>> = (0..world.processes).map(process).collect();
    let arrivals = traffic(world);
    let stores: Vec<SlowStorage> =
        (1..).map(|number| store.another(world.seed + number)).take(arrivals.len()).collect();
    // Each invocation at once is a slot. A batch gets one that is idle, by chance, and waits if there is none.
    let idle: RefCell<Vec<usize>> = RefCell::new((0..world.invocations()).collect());
    let (slots, began) = (Semaphore::new(world.invocations()), Instant::now());
    let deliver = async |arrival: &Arrival, store| {
        tokio::time::sleep_until(began + arrival.at).await;
        let _slot = slots.acquire().await.unwrap();
        let slot = {
            let mut idle = idle.borrow_mut();
            let chance = clock.random() as usize % idle.len();
            idle.swap_remove(chance)
        };
        let totals = invoke(&processes[slot / world.at_once], store, &arrival.batch).await;
        idle.borrow_mut().push(slot);
        totals
    };
    let counted = join_all(arrivals.iter().zip(&stores).map(|(arrival, store)| deliver(arrival, store))).await;
    let mut totals = Totals::default();
    counted.iter().skip(WARM_UP * world.invocations()).for_each(|invocation| totals.add(invocation));
    totals
}

/// Applies a batch in an invocation of a process, and returns what the invocation counted.
async fn invoke<'a>(process: &Manager<'a>, store: &'a SlowStorage, batch: &Batch) -> Totals {
    let manager = process.for_invocation(store);
    manager.clock().now.fetch_max(batch.received_at, Ordering::Relaxed);
    let delivery = Delivery { received_at: batch.received_at, trusts_received_at: false };
    let jsons = batch.events.iter().map(String::as_bytes);
    let events: Vec<Event<'_>> = jsons.map(|json| Event::parse(json, delivery, manager.config()).unwrap()).collect();
    let visitors = events.iter().map(Event::visitor).collect::<HashSet<Visitor>>().len();
    let outcomes = manager.resolve(&events, Millis::MAX).await;
    let (reads, writes) = store.calls();
    assert!(writes >= visitors, "{writes} writes for {visitors} visitors, each with new events");
    let Counted { conflicts, speculative_right: right, speculative_wrong: wrong, .. } = manager.take_counted();
    let failed = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Failed(_))).count();
    Totals { invocations: 1, visitors, right, wrong, conflicts, reads, writes, failed }
}

/// Returns the sums of a world's runs with each seed.
fn sums(world: World) -> Totals {
    let mut totals = Totals::default();
    for seed in 1..=SEEDS {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        totals.add(&runtime.block_on(run(World { seed, ..world })));
    }
    totals
}

/// Compares processes of one invocation at a time with an eighth as many that share the cache. In one process, at least
/// `min_right` percent of the visitors have to be written without a read.
fn compare(traffic: &str, hot: usize, min_right: f64) {
    let document = std::fs::read_to_string("docs/managed-instances.md").unwrap();
    let mut rows = Vec::new();
    for invocations in [AT_ONCE, 3 * AT_ONCE] {
        let [alone, shared] = [1, AT_ONCE].map(|at_once| {
            let world = World { processes: invocations / at_once, at_once, hot, seed: 0 };
            let totals = sums(world);
            assert_eq!(totals.failed, 0);
            rows.push(totals.row(traffic, world));
            totals
        });
        assert!(invocations > AT_ONCE || shared.taken()[0] > min_right, "sharing lost hits: {:?}", shared.taken());
        assert!(shared.writes() < alone.writes() + 0.02);
    }
    println!("{}", rows.join("\n"));
    rows.iter().for_each(|row| assert!(document.contains(row), "not in the document: {row}"));
}

#[test]
fn ordinary_visitors_are_written_without_a_read() {
    compare("ordinary", 0, 90.0);
}

/// The three are read again and again. The others are written without a read all the same.
#[test]
fn hot_visitors_do_not_stop_the_use_of_the_cache() {
    compare("three visitors in every batch", 3, 80.0);
}
