//! Late and backdated events, in numbers: random histories such as phones, wrong clocks and slow pipelines cause go through the
//! real manager. The result is compared with the oracle, which sorts all events and folds them once.
//!
//! - [`histories`]: the events of a history, and when they are received.
//! - [`run`]: runs one history, with a closer each minute and a consumer by the rules of `docs/output.md`, and scores it.
//!
//! `LATE_HISTORIES=160 cargo test --release --test it late_table -- --nocapture` runs 160 histories of each scenario and prints
//! the table.

mod histories;
mod run;

use histories::{Maker, SCENARIOS, Scenario};
use run::{Score, run};
use session_tracking::config::SessionConfig;

/// The number of histories of each scenario that `cargo test` runs.
const HISTORIES: u64 = 12;

/// The minimum values of each scenario, in percent: sessions that equal the oracle's, and sources that are kept. If all sessions
/// must be equal, each end must be emitted once.
const MIN_PERCENT: [(f64, f64); SCENARIOS.len()] = [
    (100.0, 100.0),
    (100.0, 100.0),
    (100.0, 100.0),
    (100.0, 100.0),
    // A closed visit of another device is over, so events around it are late.
    (90.0, 97.0),
    (100.0, 100.0),
    (100.0, 100.0),
    (100.0, 100.0),
    // A live session with many events is finalized in part.
    (90.0, 97.0),
    (100.0, 100.0),
    // The hold does not last for hours.
    (83.0, 95.0),
    (100.0, 100.0),
    (100.0, 100.0),
    (100.0, 100.0),
    (100.0, 100.0),
    (90.0, 97.0),
    (92.0, 97.0),
    (100.0, 100.0),
    // An event can be received after the hold of the event before it has ended.
    (99.0, 99.0),
    (85.0, 95.0),
];

/// How many ends are emitted at most for each delivery of a session's events.
const MAX_ENDS: f64 = 1.1;

#[test]
#[allow(clippy::disallowed_methods, reason = "a test's own setting")]
fn late_table() {
    let histories = std::env::var("LATE_HISTORIES").ok().and_then(|number| number.parse().ok()).unwrap_or(HISTORIES);
    println!(
        "{:52} {:>7} {:>7} {:>14} {:>10} {:>13} {:>9}",
        "scenario", "equal", "source", "ends a session", "deliveries", "counted once", "converged"
    );
    let mut failed = Vec::new();
    for ((name, scenario), (equal, source)) in SCENARIOS.into_iter().zip(MIN_PERCENT) {
        let score = scores(scenario, histories);
        let percent = |count: usize, all: usize| if all == 0 { 100.0 } else { 100.0 * count as f64 / all as f64 };
        let (is_equal, keeps) = (percent(score.equal, score.sessions), percent(score.kept, score.sources));
        let a_session = |ends: usize| ends as f64 / score.sessions as f64;
        let (ends, deliveries) = (a_session(score.ends), a_session(score.deliveries));
        let (once, converged) =
            (percent(score.counted_once, score.histories), percent(score.converged, score.histories));
        println!("{name:52} {is_equal:7.1} {keeps:7.1} {ends:14.2} {deliveries:10.2} {once:13.1} {converged:9.1}");
        let is_exact = equal == 100.0;
        if is_equal < equal
            || keeps < source
            || once < 100.0
            || converged < 100.0
            || is_exact && ends > 1.001
            || ends > deliveries * MAX_ENDS
        {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}

/// Runs the histories of a scenario, on all cores.
fn scores(scenario: Scenario, histories: u64) -> Score {
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    let share = |first: u64| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let config = SessionConfig::default();
        let one = |seed: u64| runtime.block_on(run(&Maker::make(seed, scenario), &config));
        (first..histories).step_by(threads as usize).map(one).fold(Score::default(), Score::add)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|thread| scope.spawn(move || share(thread))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).fold(Score::default(), Score::add)
    })
}
