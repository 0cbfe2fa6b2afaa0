//! The real functions, killed at any moment. Their messages are redelivered in other compositions, and in the end the sessions
//! are the oracle's.

#[cfg(feature = "managed-instances")]
mod managed;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::{Either, join_all, select};
use session_tracking::clock::{Clock, SystemClock};
use session_tracking::config::SessionConfig;
use session_tracking::manager::{CLOSE_GRACE_MS, SessionManager};
use session_tracking::session::Millis;
use session_tracking::storage::DynamoDbSessionStorage;

use crate::binaries::{CLOSE, INGEST, variables};
use crate::dynamodb::{EmbeddedDynamoDb, TABLE};
use crate::fake_runtime::{Function, RuntimeEvent};
use crate::pipeline::{self, Event, Queue, Shape};
use crate::proxy::{Cut, Proxy};
use crate::support::{ManualClock, Seeded, Sink};

/// The number of ingest functions that are killed in one world, each during an invocation.
const KILLS: usize = 300;
/// The number of close functions that are killed.
const KILLS_OF_CLOSE: usize = 30;
/// The number of ingest functions that run at the same time.
const ENVIRONMENTS: usize = 3;
const TIMEOUT_S: Millis = 600;
/// The maximum number of messages in an invocation. It is small, so that many functions are killed before all messages are done.
const MAX_BATCH: usize = 2;
/// The allowed lateness. It is longer than all events take, so that none is late.
const LATENESS_S: Millis = 86_400;
/// Longer than a world takes, in milliseconds.
const WORLD_MS: Millis = 600_000;
/// The time limit of an invocation. None comes near it.
const TIME_LIMIT: Duration = Duration::from_secs(60);

struct World {
    endpoint: String,
    config: SessionConfig,
    queue: Queue,
    /// The lines of the functions' standard output.
    lines: Mutex<Vec<String>>,
    /// The close functions start once all events before this time are applied.
    closes_after: Millis,
    /// The number of ingest functions to kill.
    min_kills: usize,
    kills: AtomicUsize,
    kills_of_close: AtomicUsize,
    kills_at_a_cut: AtomicUsize,
    invocations: AtomicUsize,
}

/// Returns events of the last day. The close function uses the real clock. Sessions before `border` are over by now. The events
/// from `border` on are moved to be so recent that their sessions are not over; they are received while the close functions run.
fn events(seed: u64, border: Millis) -> Vec<Event> {
    let shape = Shape {
        seed,
        visitors: 260,
        max_events: 200,
        timeout: TIMEOUT_S * 1000,
        start: border - 8 * 3_600_000,
        disorder: 1_800_000,
    };
    let mut events = shape.events();
    for event in events.iter_mut().filter(|event| event.at >= border) {
        event.at += WORLD_MS;
        event.arrives_at += WORLD_MS;
    }
    events.sort_by_key(|event| event.arrives_at);
    events
}

impl World {
    fn new(seed: u64, endpoint: &str, min_kills: usize) -> Self {
        let now = SystemClock.now();
        let border = now - CLOSE_GRACE_MS - LATENESS_S * 1000;
        let mut events = events(seed, border);
        // The few events that would be received in the future are left out.
        events.retain(|event| event.arrives_at < now);
        let rules = serde_json::json!({ "timeout_seconds": TIMEOUT_S, "lateness_seconds": LATENESS_S });
        Self {
            endpoint: endpoint.to_owned(),
            config: SessionConfig::from_rules(rules).unwrap(),
            queue: Queue::new(seed, events, LATENESS_S * 1000),
            lines: Mutex::default(),
            closes_after: border + WORLD_MS,
            min_kills,
            kills: AtomicUsize::new(0),
            kills_of_close: AtomicUsize::new(0),
            kills_at_a_cut: AtomicUsize::new(0),
            invocations: AtomicUsize::new(0),
        }
    }

    async fn start(&self, binary: &str, endpoint: &str) -> Function {
        let (timeout, lateness) = (TIMEOUT_S.to_string(), LATENESS_S.to_string());
        let rules = [("TIMEOUT_SECONDS", timeout.as_str()), ("LATENESS_SECONDS", lateness.as_str())];
        Function::start(binary, &[variables(endpoint), rules.to_vec()].concat()).await
    }

    fn end(&self, function: Function) {
        let ended = function.kill();
        assert!(!ended.log.contains("panicked"), "{}", ended.log);
        self.lines.lock().unwrap().extend(ended.lines);
    }

    /// Runs ingest functions, one after the other, until all messages are done and enough functions were killed.
    async fn ingest(&self, seed: u64) {
        let mut random = Seeded(seed);
        let proxy = Proxy::start(&self.endpoint, Duration::ZERO).await;
        while !self.queue.is_done() || self.kills.load(Ordering::Relaxed) < self.min_kills {
            let Some(batch) = self.queue.take(MAX_BATCH) else {
                // The other functions have the remaining messages. Or all messages are done: then some are redelivered, until
                // enough functions were killed.
                if self.queue.is_done() {
                    self.queue.redeliver_some();
                }
                SystemClock.sleep(Duration::from_millis(1)).await;
                continue;
            };
            let mut function = self.start(INGEST, &proxy.endpoint).await;
            let mut next = Some(batch);
            // The function completes some invocations, although some of its requests to the database fail …
            for _ in 0..random.below(2) {
                let Some(batch) = next else { break };
                let cut = [Cut::Before, Cut::After][random.below(2)];
                let is_held = random.below(200) == 0;
                proxy.plan((random.below(3) == 0).then(|| (random.below(4), if is_held { Cut::Held } else { cut })));
                let answer = function.invoke(self.queue.payload(&batch), TIME_LIMIT).await;
                self.invocations.fetch_add(1, Ordering::Relaxed);
                self.queue.answered(batch, &answer);
                next = self.queue.take(MAX_BATCH);
            }
            // … and is killed during this one.
            if let Some(batch) = next {
                let payload = self.queue.payload(&batch);
                match self.kill_at_work(&mut function, &proxy, &mut random, payload, &self.kills).await {
                    Some(answer) => self.queue.answered(batch, &answer),
                    None => self.queue.unanswered(batch),
                }
            }
            self.end(function);
        }
    }

    /// Gives a function an invocation. Returns its answer, or `None` if it is to be killed now.
    async fn kill_at_work(
        &self,
        function: &mut Function,
        proxy: &Proxy,
        random: &mut Seeded,
        payload: String,
        kills: &AtomicUsize,
    ) -> Option<String> {
        let cut = (random.below(2) == 0).then(|| (random.below(4), [Cut::Before, Cut::After][random.below(2)]));
        // Up to 30 ms; usually less than an invocation takes.
        let max_us = 1 + random.below(30_000);
        let delay = Duration::from_micros(random.below(max_us) as u64);
        proxy.plan(cut);
        function.deliver(payload, TIME_LIMIT).await;
        self.invocations.fetch_add(1, Ordering::Relaxed);
        let moment = async {
            match cut {
                Some(_) => proxy.wait_for_cut().await,
                None => SystemClock.sleep(delay).await,
            }
        };
        match select(Box::pin(function.next_event()), Box::pin(moment)).await {
            Either::Left((RuntimeEvent::Answer(answer), _)) => Some(answer),
            Either::Left((event, _)) => panic!("{event:?}"),
            Either::Right(_) => {
                kills.fetch_add(1, Ordering::Relaxed);
                self.kills_at_a_cut.fetch_add(usize::from(cut.is_some()), Ordering::Relaxed);
                None
            }
        }
    }

    /// Runs close functions, one after the other, until enough of them were killed.
    async fn close(&self, seed: u64) {
        let mut random = Seeded(seed);
        let proxy = Proxy::start(&self.endpoint, Duration::ZERO).await;
        while self.queue.earliest().is_some_and(|at| at < self.closes_after) {
            SystemClock.sleep(Duration::from_millis(10)).await;
        }
        while self.kills_of_close.load(Ordering::Relaxed) < KILLS_OF_CLOSE {
            let mut function = self.start(CLOSE, &proxy.endpoint).await;
            self.kill_at_work(&mut function, &proxy, &mut random, "{}".to_owned(), &self.kills_of_close).await;
            self.end(function);
        }
    }

    /// Closes what is over by the real clock with the real function, and the rest with a clock that is ahead.
    async fn close_all(&self, database: &EmbeddedDynamoDb) {
        let mut function = self.start(CLOSE, &self.endpoint).await;
        while !function.invoke("{}".to_owned(), TIME_LIMIT).await.contains(r#""examined":0"#) {}
        self.end(function);
        let (clock, sink) = (ManualClock::default(), Sink::default());
        clock.set(SystemClock.now() + 2 * LATENESS_S * 1000);
        let storage = DynamoDbSessionStorage::new(database.client(), TABLE);
        let manager = SessionManager::with_clock(self.config.clone(), storage, &clock);
        while manager.cleanup(&&sink, Millis::MAX).await.examined > 0 {}
        self.lines.lock().unwrap().append(&mut sink.0.lock().unwrap());
    }
}

/// Runs a world in which this many ingest functions are killed. `ingest` runs one ingest function after the other, with the draws of
/// the seed that it is given.
async fn run(seed: u64, kills: usize, ingest: impl AsyncFn(&World, u64)) {
    let database = EmbeddedDynamoDb::start(0).unwrap();
    let world = World::new(seed, &database.endpoint, kills);
    let ingest = join_all((0..ENVIRONMENTS as u64).map(|n| ingest(&world, seed * 100 + n)));
    futures_util::join!(ingest, world.close(seed * 100 + 99));
    world.close_all(&database).await;
    let lines = world.lines.lock().unwrap();
    let sessions = pipeline::check(&world.queue.events, &world.config, &lines);
    let count = |of: &AtomicUsize| of.load(Ordering::Relaxed);
    println!(
        "{} events, {} sessions, {} invocations, {} ingest and {} close functions killed, {} of them at a cut request",
        world.queue.events.len(),
        sessions.len(),
        count(&world.invocations),
        count(&world.kills),
        count(&world.kills_of_close),
        count(&world.kills_at_a_cut),
    );
}

/// `CRASH_KILLS=3000 cargo test --test it crash -- --nocapture` kills as many as asked, in several worlds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::disallowed_methods, reason = "a test's own setting, and the time that it took")]
async fn killed_at_any_moment() {
    let asked = std::env::var("CRASH_KILLS").ok().and_then(|number| number.parse().ok()).unwrap_or(KILLS);
    let began = std::time::Instant::now();
    for world in 0..asked.div_ceil(KILLS) {
        run(1 + world as u64, KILLS.min(asked), World::ingest).await;
    }
    println!("{:.1} s", began.elapsed().as_secs_f64());
}
