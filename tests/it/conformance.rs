//! The scenarios of `tests/data/sessions.jsonl` and `sources.jsonl`, in arrangements that must not change the sessions: one event
//! at a time, all at once, and in random batches with duplicates. A scenario that restates another system's test or document runs
//! under that system's profile, too.

use serde::Deserialize;
use serde_json::value::RawValue;
use session_tracking::config::{GivenRules, SessionConfig};
use session_tracking::manager::SessionManager;
use session_tracking::storage::InMemorySessionStorage;

use crate::support::{FinalSession, ManualClock, Pump, Seeded, Sink};

#[derive(Deserialize)]
struct Scenario {
    id: String,
    title: String,
    source: Option<String>,
    rules: serde_json::Value,
    arrivals: Vec<Box<RawValue>>,
    sessions: Vec<FinalSession>,
}

fn scenarios() -> Vec<Scenario> {
    let files = [include_str!("../data/sessions.jsonl"), include_str!("../data/sources.jsonl")];
    files.into_iter().flat_map(str::lines).map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub async fn sessions_of(config: &SessionConfig, batches: &[Vec<&str>]) -> Vec<FinalSession> {
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

/// The words by which a scenario's source names a system that has a profile.
const SYSTEMS: [(&str, &str); 8] = [
    ("GA4", "ga4"),
    ("Universal Analytics", "universal-analytics"),
    ("matomo", "matomo"),
    ("plausible", "plausible"),
    ("posthog", "posthog"),
    ("mixpanel", "mixpanel"),
    ("amplitude", "amplitude"),
    ("snowplow", "snowplow"),
];

/// The rules that a scenario needs beside those of the profile, from `tests/data/profiles.jsonl`.
#[derive(Deserialize)]
struct Extra {
    id: String,
    profile: String,
    rules: serde_json::Map<String, serde_json::Value>,
    why: String,
}

/// A scenario's own rules are left out. The profile alone gives its sessions, with a few listed exceptions.
#[tokio::test]
async fn scenarios_run_under_the_profile_of_their_source() {
    let lines = include_str!("../data/profiles.jsonl").lines();
    let mut extras: Vec<Extra> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut count = 0;
    for scenario in scenarios() {
        let source = scenario.source.unwrap_or_default().to_lowercase();
        let events: Vec<&str> = scenario.arrivals.iter().map(|raw| raw.get()).collect();
        for (_, profile) in SYSTEMS.into_iter().filter(|(word, _)| source.contains(&word.to_lowercase())) {
            let under = |rules: serde_json::Map<_, _>| {
                let rules = GivenRules::of_json(rules.into()).unwrap();
                GivenRules::of_profile(profile).unwrap().with(rules).read().unwrap()
            };
            let at = extras.iter().position(|extra| (&extra.id, extra.profile.as_str()) == (&scenario.id, profile));
            let extra = at.map(|at| extras.swap_remove(at));
            let rules = extra.as_ref().map(|extra| extra.rules.clone()).unwrap_or_default();
            let sessions = sessions_of(&under(rules.clone()), std::slice::from_ref(&events)).await;
            assert_eq!(sessions, scenario.sessions, "{} under {profile}", scenario.id);
            count += 1;
            for name in rules.keys() {
                let mut fewer = rules.clone();
                fewer.remove(name);
                let sessions = sessions_of(&under(fewer), std::slice::from_ref(&events)).await;
                let why = &extra.as_ref().unwrap().why;
                assert_ne!(sessions, scenario.sessions, "{} under {profile} needs no {name} ({why})", scenario.id);
            }
        }
    }
    assert!(extras.is_empty() && count > 40, "{count} scenarios, {} unused exceptions", extras.len());
}
