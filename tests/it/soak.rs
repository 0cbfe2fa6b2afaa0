//! The functions' binaries under steady load, while their table is away for a while: nothing is lost, and memory stays flat.
//!
//! `cargo test` runs five seconds with the binaries that it builds. `docs/operations.md` reports a minute with those that ship:
//! `SOAK_SECONDS=60 SOAK_BINARIES=target/lambda cargo test --test it soak -- --nocapture`.

mod queue;
mod traffic;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::Value;
use session_tracking::clock::{Clock, SystemClock};
use session_tracking::config::SessionConfig;

use crate::binaries::{CLOSE, INGEST, variables};
use crate::consumer::Consumer;
use crate::dynamodb::EmbeddedDynamoDb;
use crate::fake_runtime::{Exited, Function, RuntimeEvent};
use crate::oracle;
use crate::proxy::Proxy;
use crate::support::FinalSession;
use queue::Queue;
use traffic::{EVENTS_A_SECOND, LATENESS_S, Traffic};

/// Functions that take messages at the same time.
const ENVIRONMENTS: usize = 4;
/// Messages of an invocation: a hundred events.
const BATCH: usize = 10;
/// The time limit of an invocation, as deployed.
const TIME_LIMIT: Duration = Duration::from_secs(30);
/// The maximum by which a process may grow after the first third of the load, in kilobytes.
const MAX_GROWTH_KB: u64 = 16 * 1024;
/// The maximum memory of a process, in kilobytes: a third of what the template gives it.
const MAX_KB: u64 = 80 * 1024;

/// The peaks of memory of all processes, and when they were seen.
struct Peaks {
    /// The highest after a third of the load.
    early_kb: u64,
    last_kb: u64,
}

/// Returns the peak of a process's memory, in kilobytes.
fn peak_kb(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

struct World {
    queue: Queue,
    invocations: AtomicUsize,
    /// When the load ends, and when a third of it has come.
    began: Instant,
    third: Duration,
}

impl World {
    /// Runs an ingest function until all messages are done. Returns its peaks and what it wrote.
    async fn ingest(&self, binary: &str, variables: &[(&str, &str)]) -> (Peaks, Exited) {
        let mut function = Function::start(binary, variables).await;
        let mut peaks = Peaks { early_kb: 0, last_kb: 0 };
        while !self.queue.is_done() {
            let Some(batch) = self.queue.take(BATCH, self.began.elapsed()) else {
                SystemClock.sleep(Duration::from_millis(5)).await;
                continue;
            };
            let answer = function.invoke(Queue::payload(&batch), TIME_LIMIT).await;
            self.invocations.fetch_add(1, Ordering::Relaxed);
            self.queue.answered(batch, &answer, self.began.elapsed());
            peaks.last_kb = peak_kb(function.id());
            if self.began.elapsed() < self.third {
                peaks.early_kb = peaks.last_kb;
            }
        }
        (peaks, function.kill())
    }
}

/// Takes the table away for a part of the load, and in the end for a moment of closing.
async fn outage(proxy: &Proxy, load: Duration) {
    SystemClock.sleep(load.mul_f64(0.4)).await;
    proxy.set_down(true);
    SystemClock.sleep(load.mul_f64(0.2)).await;
    proxy.set_down(false);
}

/// Closes all sessions. The table is away during one of the runs. Returns the lines that were emitted.
async fn close(binary: &str, variables: &[(&str, &str)], proxy: &Proxy) -> Vec<String> {
    let mut function = Function::start(binary, variables).await;
    proxy.set_down(true);
    function.deliver("{}".to_owned(), TIME_LIMIT).await;
    let event = function.next_event().await;
    assert!(matches!(event, RuntimeEvent::Error(_)), "a run that can list nothing fails: {event:?}");
    proxy.set_down(false);
    while !function.invoke("{}".to_owned(), TIME_LIMIT).await.contains(r#""examined":0"#) {}
    function.kill().lines
}

/// Checks that a consumer of these lines has the oracle's sessions.
fn check(traffic: &Traffic, config: &SessionConfig, lines: &[String]) -> usize {
    let emitted: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let consumer = Consumer::read(&emitted);
    assert_eq!(consumer.events.len(), traffic.events.len(), "events are lost");
    let sessions = consumer.sessions();
    let expected: Vec<FinalSession> =
        oracle::sessions(&traffic.oracle(), config).into_iter().map(FinalSession::from).collect();
    assert_eq!(sessions.len(), expected.len());
    sessions.iter().zip(&expected).for_each(|(session, expected)| assert_eq!(session, expected));
    sessions.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::disallowed_methods, reason = "the load is of real time, and its length a setting of the test")]
async fn nothing_is_lost_under_load_while_the_table_goes_away() {
    let setting = |name: &str| std::env::var(name).ok();
    let seconds = setting("SOAK_SECONDS").map_or(5, |seconds| seconds.parse().unwrap());
    let binary = |own: &str, name: &str| {
        setting("SOAK_BINARIES").map_or(own.to_owned(), |folder| format!("{folder}/{name}/bootstrap"))
    };
    let database = EmbeddedDynamoDb::start(0).unwrap();
    let proxy = Proxy::start(&database.endpoint, Duration::ZERO).await;
    let lateness = LATENESS_S.to_string();
    let variables = [variables(&proxy.endpoint), vec![("LATENESS_SECONDS", lateness.as_str())]].concat();
    let rules = serde_json::json!({ "lateness_seconds": LATENESS_S });
    let config = SessionConfig::from_rules(rules).unwrap();

    let traffic = Traffic::of(seconds);
    let load = Duration::from_secs(seconds as u64);
    let queue = Queue::new(traffic.messages());
    let world = World { queue, invocations: AtomicUsize::new(0), began: Instant::now(), third: load / 3 };
    let ingest = binary(INGEST, "ingest");
    let functions = join_all((0..ENVIRONMENTS).map(|_| world.ingest(&ingest, &variables)));
    let (functions, ()) = futures_util::join!(functions, outage(&proxy, load));
    let took = world.began.elapsed();

    let (peaks, ended): (Vec<Peaks>, Vec<Exited>) = functions.into_iter().unzip();
    assert!(ended.iter().all(|ended| !ended.log.contains("panicked")));
    let mut lines: Vec<String> = ended.into_iter().flat_map(|ended| ended.lines).collect();
    lines.append(&mut close(&binary(CLOSE, "close"), &variables, &proxy).await);
    let sessions = check(&traffic, &config, &lines);
    let highest = |of: fn(&Peaks) -> u64| peaks.iter().map(of).max().unwrap();
    let (early, last) = (highest(|peaks| peaks.early_kb), highest(|peaks| peaks.last_kb));
    println!(
        "{} events at {EVENTS_A_SECOND} a second, {sessions} sessions, all as expected; {} invocations of {ENVIRONMENTS} functions; \
         the table away for {:.0} s, {} messages redelivered, everything applied {:.1} s after the load; \
         peak memory {:.1} MB after a third, {:.1} MB in the end",
        traffic.events.len(),
        world.invocations.load(Ordering::Relaxed),
        load.as_secs_f64() * 0.2,
        world.queue.redelivered(),
        took.saturating_sub(load).as_secs_f64(),
        early as f64 / 1024.0,
        last as f64 / 1024.0,
    );
    assert!(world.queue.redelivered() > 0);
    assert!(early > 0 && last <= (early + MAX_GROWTH_KB).min(MAX_KB), "memory grows: {early} kB, then {last} kB");
}
