//! The cost of events at DynamoDB, in the units that the embedded one reports, beside that of a plain store on the same engine.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use session_tracking::clock::{Clock, SystemClock};
use session_tracking::config::SessionConfig;
use session_tracking::event::{Delivery, Event};
use session_tracking::manager::{Outcome, SessionManager};
use session_tracking::output::MemoryOutput;
use session_tracking::session::{Millis, Visitor};
use session_tracking::storage::{Consumed, DynamoDbSessionStorage};

use crate::AnyError;
use crate::dynamodb::{EmbeddedDynamoDb, TABLE};
use crate::long_visit;
use crate::plain::PlainStore;
use crate::prices::{MILLION_READ_UNITS, MILLION_WRITE_UNITS, PRICES_OF, dollars_per_million};
use crate::shop::{Batch, Shop};
use crate::sizes::SizeRecordingStore;

/// Concurrent workers.
const WORKERS: usize = 8;
/// How often the close function runs, in milliseconds of the input's time.
const CLOSE_EVERY_MS: Millis = 60_000;

/// A clock that shows the input's time.
#[derive(Default)]
struct InputClock(AtomicI64);

impl Clock for &InputClock {
    fn now(&self) -> Millis {
        self.0.load(Ordering::Relaxed)
    }

    async fn sleep(&self, time: std::time::Duration) {
        SystemClock.sleep(time).await;
    }

    fn random(&self) -> u64 {
        SystemClock.random()
    }
}

/// The totals of a run.
pub struct Totals {
    /// Events that were applied.
    pub events: usize,
    /// Session ends that were emitted.
    pub sessions: usize,
    /// The number of visitors in each batch, summed over all batches.
    visitor_batches: usize,
    consumed: Arc<Consumed>,
    /// The bytes of each timeline that was written, sorted.
    sizes: Vec<usize>,
}

impl Totals {
    /// Returns the units of a session beyond one write for each visitor of a batch, in write units.
    fn units_beyond_batches(&self) -> f64 {
        let writes =
            self.consumed.table_write_units() + self.consumed.index_write_units() - self.visitor_batches as f64;
        (writes + self.consumed.read_units() * MILLION_READ_UNITS / MILLION_WRITE_UNITS) / self.sessions as f64
    }

    /// Returns the parts of [`Totals::units_beyond_batches`]: write units of the table, write units of the index, read units.
    fn parts_of_life(&self) -> [f64; 3] {
        let writes = self.consumed.table_write_units() - self.visitor_batches as f64;
        [writes, self.consumed.index_write_units(), self.consumed.read_units()]
            .map(|units| units / self.sessions as f64)
    }

    /// Returns the dollars for a million events.
    fn dollars(&self) -> f64 {
        let writes = self.consumed.table_write_units() + self.consumed.index_write_units();
        dollars_per_million(writes, self.consumed.read_units(), self.events)
    }

    /// Returns a percentile of the sizes of timelines, for example the median for 0.5.
    fn size(&self, share: f64) -> usize {
        self.sizes[((self.sizes.len() - 1) as f64 * share) as usize]
    }
}

/// Applies batches one after the other and runs the close function in between. With `is_cold`, each batch gets a new process
/// with an empty cache.
pub async fn run(batches: &[Batch], is_cold: bool) -> Result<Totals, AnyError> {
    let database = EmbeddedDynamoDb::start(0)?;
    let consumed = Arc::new(Consumed::default());
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let clock = InputClock::default();
    let client = database.client();
    let manager = || {
        let storage = DynamoDbSessionStorage::new(client.clone(), TABLE).counting(Arc::clone(&consumed));
        SessionManager::with_clock(
            SessionConfig::default(),
            SizeRecordingStore { storage, sizes: Arc::clone(&sizes) },
            &clock,
        )
    };
    let (mut current, output) = (manager(), MemoryOutput::default());
    let (mut events, mut visitor_batches, mut closed_at) = (0, 0, 0);
    for batch in batches {
        if batch.received_at - closed_at >= CLOSE_EVERY_MS {
            closed_at = batch.received_at;
            clock.0.store(closed_at, Ordering::Relaxed);
            current.cleanup(&output, Millis::MAX).await;
        }
        if is_cold {
            current = manager();
        }
        clock.0.store(batch.received_at, Ordering::Relaxed);
        visitor_batches += apply(&current, batch).await?;
        events += batch.events.len();
    }
    for _ in 0..2 {
        clock.0.fetch_add(2 * 86_400_000, Ordering::Relaxed);
        current.cleanup(&output, Millis::MAX).await;
    }
    let ends = output.take().iter().filter(|line| line.contains("\"event\":\"$session_end\"")).count();
    let mut sizes = std::mem::take(&mut *sizes.lock().map_err(|_| "poisoned")?);
    sizes.sort_unstable();
    Ok(Totals { events, sessions: ends, visitor_batches, consumed, sizes })
}

/// Applies a batch; returns how many visitors it has.
async fn apply<S, C>(manager: &SessionManager<S, C>, batch: &Batch) -> Result<usize, AnyError>
where
    S: session_tracking::storage::SessionStorage,
    C: Clock,
{
    let delivery = Delivery { received_at: batch.received_at, trusts_received_at: false };
    let parsed = batch.events.iter().map(|json| Event::parse(json.as_bytes(), delivery, manager.config()));
    let events = parsed.collect::<Result<Vec<Event<'_>>, _>>()?;
    let outcomes = manager.resolve(&events, Millis::MAX).await;
    if let Some(failed) = outcomes.iter().find(|outcome| matches!(outcome, Outcome::Failed(_))) {
        return Err(format!("an event failed: {failed:?}").into());
    }
    let visitors: std::collections::HashSet<Visitor> = events.iter().map(Event::visitor).collect();
    Ok(visitors.len())
}

/// Measures the table's write units for each visitor of a batch, the conflicts, and the visitors of all batches. Eight workers
/// race for skewed visitors. They apply some thousand events a second, and there are as many visitors as would send those.
async fn racing() -> Result<(f64, u64, usize), AnyError> {
    let mut shop = Shop::with(3, 20_000);
    let batches: Arc<Vec<Batch>> = Arc::new((0..400).map(|_| shop.skewed_batch(100)).collect());
    let database = EmbeddedDynamoDb::start(0)?;
    let (consumed, next) = (Arc::new(Consumed::default()), Arc::new(AtomicUsize::new(0)));
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let storage = DynamoDbSessionStorage::new(database.client(), TABLE).counting(Arc::clone(&consumed));
            let (batches, next) = (Arc::clone(&batches), Arc::clone(&next));
            tokio::spawn(async move {
                let clock = InputClock::default();
                let manager = SessionManager::with_clock(SessionConfig::default(), storage, &clock);
                let mut visitor_batches = 0;
                while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                    clock.0.store(batch.received_at, Ordering::Relaxed);
                    visitor_batches += apply(&manager, batch).await?;
                }
                Ok::<_, AnyError>(visitor_batches)
            })
        })
        .collect();
    let mut visitor_batches = 0;
    for worker in workers {
        visitor_batches += worker.await??;
    }
    Ok((consumed.table_write_units() / visitor_batches as f64, consumed.conflicts(), visitor_batches))
}

/// Returns the real traffic of the repository, in batches of 100.
pub fn real_traffic() -> Vec<Batch> {
    let events = include_str!("../../tests/data/weblog-events.ndjson");
    let lines: Vec<&str> = events.lines().collect();
    let received = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        let time = value.get("received_at").unwrap_or(&value["timestamp"]).as_str().unwrap_or_default();
        chrono::DateTime::parse_from_rfc3339(time).map_or(0, |time| time.timestamp_millis())
    };
    let mut newest = 0;
    let mut batch = |lines: &[&str]| {
        newest = lines.iter().map(|line| received(line)).max().unwrap_or(0).max(newest);
        Batch { received_at: newest, events: lines.iter().map(|&line| line.to_owned()).collect() }
    };
    lines.chunks(100).map(&mut batch).collect()
}

/// Returns batches of 100 events of the shop, with `per_visitor` events of each visitor in a batch.
fn shop(batches: usize, per_visitor: usize) -> Vec<Batch> {
    Shop::new(2).day(batches, per_visitor)
}

/// Returns the figures that `ci/gates` compares: units and sizes, which are the same on every machine.
pub async fn gates() -> Result<Vec<(&'static str, f64)>, AnyError> {
    let real = run(&real_traffic(), true).await?;
    let shop = run(&shop(100, 3), true).await?;
    let [early, late] = long_visit::units().await?;
    Ok(vec![
        ("real_item_p50", real.size(0.5) as f64),
        ("real_item_p99", real.size(0.99) as f64),
        ("real_life_units", real.units_beyond_batches()),
        ("shop_item_p50", shop.size(0.5) as f64),
        ("shop_item_p99", shop.size(0.99) as f64),
        ("shop_life_units", shop.units_beyond_batches()),
        ("shop_money", shop.dollars()),
        ("visit_early_units", early),
        ("visit_late_units", late),
    ])
}

/// Prints the rows of cost: what, figure, target.
pub async fn print() -> Result<(), AnyError> {
    let (units, conflicts, visitor_batches) = racing().await?;
    println!(
        "write units for each visitor of a batch, 8 workers ({conflicts} conflicts in {visitor_batches}) | {units:.3} | <= 1.03"
    );
    let [early, late] = long_visit::units().await?;
    println!("write units of a heartbeat at event 10 / 10,000 of a visit | {early:.3} / {late:.3} | <= 1.1");
    let sparse = Shop::new(2).sparse(60);
    for (name, batches, max_units) in
        [("real traffic", real_traffic(), 5), ("shop", shop(200, 3), 6), ("one event a session", sparse, 5)]
    {
        let totals = run(&batches, true).await?;
        let (median, p99) = (totals.size(0.5), totals.size(0.99));
        println!("timeline item, {name}, p50 and p99 | {median} and {p99} bytes | <= 1,024 and 2,048");
        println!(
            "units of a session's life beyond its batches, {name} | {:.2} | <= {max_units}",
            totals.units_beyond_batches()
        );
        let [table, index, reads] = totals.parts_of_life();
        println!("its parts, {name} | {table:.2} on the table, {index:.2} on the index, {reads:.2} read units | –");
    }
    for (per_visitor, target) in [(1, 2.3), (3, 4.8), (10, 7.8)] {
        let batches = shop(200, per_visitor);
        let (ours, warm) = (run(&batches, true).await?, run(&batches, false).await?);
        let plain = PlainStore::run(&batches).await?;
        println!(
            "cost, plain store over ours, {per_visitor} events of a visitor a batch (${:.2} over ${:.2}; warm ${:.2}; prices of {PRICES_OF}) | {:.2} | {target}",
            plain,
            ours.dollars(),
            warm.dollars(),
            plain / ours.dollars()
        );
    }
    let batches = Shop::new(2).sparse(60);
    let (ours, plain) = (run(&batches, true).await?.dollars(), PlainStore::run(&batches).await?);
    println!(
        "cost, plain store over ours, one event a session (${plain:.2} over ${ours:.2}) | {:.2} | –",
        plain / ours
    );
    Ok(())
}
