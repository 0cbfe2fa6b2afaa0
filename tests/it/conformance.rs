//! The scenarios of `tests/data/sessions.jsonl` and `sources.jsonl`, in arrangements that must not change the sessions: one event
//! at a time, all at once, and in random batches with duplicates.

use serde::Deserialize;
use serde_json::value::RawValue;
use session_tracking::config::SessionConfig;
use session_tracking::manager::SessionManager;
use session_tracking::storage::InMemorySessionStorage;

use crate::support::{FinalSession, ManualClock, Pump, Seeded, Sink};

#[derive(Deserialize)]
struct Scenario {
    id: String,
    title: String,
    rules: serde_json::Value,
    arrivals: Vec<Box<RawValue>>,
    sessions: Vec<FinalSession>,
}

fn scenarios() -> Vec<Scenario> {
    let files = [include_str!("../data/sessions.jsonl"), include_str!("../data/sources.jsonl")];
    files.into_iter().flat_map(str::lines).map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn sessions_of(config: &SessionConfig, batches: &[Vec<&str>]) -> Vec<FinalSession> {
    let (clock, sink) = (ManualClock::default(), Sink::default());
    let manager = SessionManager::with_clock(config.clone(), InMemorySessionStorage::new(), &clock);
    let mut pump = Pump::new(manager, &clock, &sink);
    for batch in batches {
        pump.apply(batch).await;
    }
    pump.finish().await
}

#[tokio::test]
async fn every_scenario_in_every_arrangement() {
    for scenario in scenarios() {
        let config = SessionConfig::from_rules(scenario.rules.clone()).unwrap();
        let events: Vec<&str> = scenario.arrivals.iter().map(|raw| raw.get()).collect();
        let one_by_one: Vec<Vec<&str>> = events.iter().map(|event| vec![*event]).collect();
        let mut arrangements = vec![one_by_one, vec![events.clone()]];
        let mut random = Seeded(scenario.arrivals.len() as u64);
        for _ in 0..20 {
            arrangements.push(random_batches(&events, &mut random));
        }
        for batches in arrangements {
            let sessions = sessions_of(&config, &batches).await;
            assert_eq!(sessions, scenario.sessions, "{}: {} {batches:#?}", scenario.id, scenario.title);
        }
    }
}

/// Returns the events in order, in batches of random sizes, some of them with duplicates of events sent so far.
fn random_batches<'a>(events: &[&'a str], random: &mut Seeded) -> Vec<Vec<&'a str>> {
    let mut batches: Vec<Vec<&str>> = Vec::new();
    let mut rest = events;
    while !rest.is_empty() {
        let (batch, after) = rest.split_at(1 + random.below(rest.len()));
        let mut batch = batch.to_vec();
        while random.below(3) == 0 {
            let sent = events.len() - after.len();
            batch.insert(random.below(batch.len() + 1), events[random.below(sent)]);
        }
        batches.push(batch);
        rest = after;
    }
    batches
}
