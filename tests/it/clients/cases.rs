//! Single requests with the events that have to come out: `tests/data/dialects.jsonl`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::World;
use super::request::{Payload, Recorded};
use crate::support::ManualClock;

/// 2026-03-10T12:00:00Z, when every request is received.
const NOON: i64 = 1_773_144_000_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    title: String,
    #[serde(default = "post")]
    method: String,
    path: String,
    #[serde(default)]
    query: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// The body: a string as it is, anything else as JSON.
    #[serde(default)]
    body: Value,
    #[serde(default = "ok")]
    status: u64,
    /// Values of the answer's body, by JSON pointer.
    #[serde(default)]
    answer: BTreeMap<String, Value>,
    /// Values of each event that comes out, by name or JSON pointer. Null is a value that is missing.
    #[serde(default)]
    events: Vec<BTreeMap<String, Value>>,
    /// The codes of the rejected events.
    #[serde(default)]
    rejected: Vec<String>,
}

fn post() -> String {
    "POST".to_owned()
}

fn ok() -> u64 {
    200
}

/// Returns a value by its name or JSON pointer.
fn value_at<'v>(value: &'v Value, name: &str) -> &'v Value {
    let pointer = if name.starts_with('/') || name.is_empty() { name.to_owned() } else { format!("/{name}") };
    value.pointer(&pointer).unwrap_or(&Value::Null)
}

#[tokio::test]
async fn every_request_gives_the_events_that_it_should() {
    for line in include_str!("../../data/dialects.jsonl").lines() {
        let case: Case = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let title = &case.title;
        let body = match &case.body {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            json => json.to_string(),
        };
        let request = Recorded { headers: case.headers, ..Recorded::new(&case.method, &case.path, &case.query, body) };
        let clock = ManualClock::default();
        let world = World::new(&clock);
        let answer = world.send(&request, Payload::Two, NOON).await;
        assert_eq!(answer["statusCode"], case.status, "{title}: {answer}");
        let parsed: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap_or_default();
        for (pointer, wanted) in &case.answer {
            assert_eq!(value_at(&parsed, pointer), wanted, "{title}: {pointer} of {parsed}");
        }
        let rejects = world.ingest.rejects.take();
        let rejects: Vec<Value> = rejects.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let codes: Vec<&str> = rejects.iter().map(|line| line["code"].as_str().unwrap()).collect();
        assert_eq!(codes, case.rejected, "{title}: {rejects:?}");
        let events = world.lines();
        assert_eq!(events.len(), case.events.len(), "{title}: {events:?}");
        for (event, wanted) in events.iter().zip(&case.events) {
            for (name, wanted) in wanted {
                assert_eq!(value_at(event, name), wanted, "{title}: {name} of {event}");
            }
        }
    }
}
