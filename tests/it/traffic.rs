//! The real traffic gives exactly the known sessions, in every field, however it is batched, shuffled and duplicated.

use session_tracking::config::SessionConfig;
use session_tracking::manager::SessionManager;
use session_tracking::storage::{InMemorySessionStorage, SessionStorage};

use crate::support::{FinalSession, ManualClock, Pump, Seeded, Sink, millis};

const EVENTS: &str = include_str!("../data/weblog-events.ndjson");
const SESSIONS: &str = include_str!("../data/weblog-sessions.ndjson");

/// Replays lines in batches through a store and compares the final sessions.
pub async fn replay<S: SessionStorage>(storage: S, lines: &[String], batch: usize) {
    let (clock, sink) = (ManualClock::default(), Sink::default());
    let manager = SessionManager::with_clock(SessionConfig::default(), storage, &clock);
    let mut pump = Pump::new(manager, &clock, &sink);
    for chunk in lines.chunks(batch) {
        let chunk: Vec<&str> = chunk.iter().map(String::as_str).collect();
        pump.apply_and_close(&chunk).await;
    }
    let sessions = pump.finish().await;
    let known: Vec<FinalSession> = SESSIONS.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (session, known) in sessions.iter().zip(&known) {
        assert_eq!(session, known, "batches of {batch}");
    }
    assert_eq!(sessions.len(), known.len());
}

/// Returns the traffic in order. An event is received at the newest event time so far.
pub fn in_order() -> Vec<String> {
    let mut newest = 0;
    EVENTS.lines().map(|line| with_received_at(line, &mut newest)).collect()
}

/// Returns the traffic with every event delayed by up to the allowed lateness, and every tenth event twice.
pub fn shuffled_with_duplicates(seed: u64) -> Vec<String> {
    let mut random = Seeded(seed);
    let lateness = SessionConfig::default().lateness.num_milliseconds() as usize;
    let mut lines: Vec<(i64, &str)> =
        EVENTS.lines().map(|line| (time(line) + random.below(lateness) as i64, line)).collect();
    let duplicates: Vec<_> =
        lines.iter().step_by(10).map(|(at, line)| (at + random.below(7_200_000) as i64, *line)).collect();
    lines.extend(duplicates);
    lines.sort_by_key(|(at, _)| *at);
    let mut newest = 0;
    lines.into_iter().map(|(_, line)| with_received_at(line, &mut newest)).collect()
}

fn time(line: &str) -> i64 {
    let event: serde_json::Value = serde_json::from_str(line).unwrap();
    millis(event["timestamp"].as_str().unwrap())
}

/// Adds a `received_at` to an event.
fn with_received_at(line: &str, newest: &mut i64) -> String {
    *newest = time(line).max(*newest);
    let received_at = session_tracking::session::datetime(*newest).to_rfc3339();
    line.replacen('{', &format!("{{\"received_at\":\"{received_at}\","), 1)
}

#[tokio::test]
async fn the_real_traffic_in_memory() {
    for batch in [1, 100, 1000] {
        replay(InMemorySessionStorage::new(), &in_order(), batch).await;
        replay(InMemorySessionStorage::new(), &shuffled_with_duplicates(batch as u64), batch).await;
    }
}
