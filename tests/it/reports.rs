//! The 48 public bug reports of `tests/data/reports.jsonl`, through the real handler.
//!
//! A report's `input` is a list of events, or of payloads as a trigger hands them over. Events are sent in one request, and
//! again one request each, the closer at work in between: both have to come to the same. `expect` says what has to come out; it
//! names only what counts. Where the report's `decide` says something else than its `expect`, [`decided`] has what holds.

mod expect;
mod world;

use serde::Deserialize;
use serde_json::{Value, json};
use session_tracking::config::SessionConfig;

use expect::difference;
use world::World;

/// Reports that do not come out right yet, and what is missing. One that does come out right must not stand here.
const PENDING: &[(&str, &str)] = &[];

#[derive(Deserialize)]
struct Report {
    id: String,
    title: String,
    #[serde(default)]
    rules: Value,
    input: Value,
    expect: Value,
    /// Events a request, where it matters.
    batch: Option<usize>,
    decide: String,
}

fn reports() -> Vec<Report> {
    let lines = include_str!("../data/reports.jsonl").lines();
    lines.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// What holds where a report's `decide` is not its `expect`, or its `expect` is a sentence.
fn decided(id: &str) -> Option<Value> {
    let nobody = |_| json!({"status": 200, "session": null});
    Some(match id {
        "R002" => json!([{"again": [], "rejects": ["missing_distinct_id"]}]),
        "R005" => json!([{"array": [{"events": ["a"]}]}]),
        "R007" => json!([{"status": 200, "applied": ["a"]}]),
        "R016" => {
            json!([{"status": 200, "applied": ["a", "b"], "properties": {"b": {"$sanitized": true, "title": "sale \u{fffd}"}}}])
        }
        "R025" => json!({
            "sessions": [{"events": ["a", "b", "c"], "start": "2026-03-10T12:00:00.000Z"}],
            "flags": {"a": "unparseable", "b": "unparseable", "c": "unparseable"},
        }),
        "R027" => json!({
            "sessions": [{"events": ["s1", "s2"]}, {"events": ["m1", "m2"]}],
            "flags": {"s1": null, "s2": null, "m1": "ahead", "m2": "ahead"},
        }),
        "R024" => json!({
            "sessions": [{"events": ["a"], "start": "2026-03-10T15:33:09.000Z"}], "flags": {"a": "unparseable"},
        }),
        "R040" => (0..4).map(nobody).collect(),
        // Documented as it is: archived before it came again, `a` is counted again.
        "R045" => json!({"sessions": [{"event_count": 1}, {"event_count": 2}]}),
        // As it is: what the event's properties say wins over its URL.
        "R069" => json!({"sessions": [
            {"utm": {"source": "ad"}},
            {"utm": {"source": "ad"}, "referrer": "https://news.example/"},
        ]}),
        "R067" => json!([{"status": 200, "applied": ["a"]}, {"close_lines": 1}]),
        "R082" => json!({"sessions": [
            {"duration": 86_400, "page_views": 1},
            {"duration": 86_400, "page_views": 0},
            {"duration": 4_800, "page_views": 0},
        ]}),
        _ => return None,
    })
}

/// The inputs of reports that say them as a sentence.
fn generated(id: &str) -> Vec<Value> {
    let event = |uuid: String, name: &str, timestamp: &str, received_at: &str, url: String| {
        json!({"uuid": uuid, "event": name, "distinct_id": "u1", "timestamp": timestamp, "received_at": received_at,
            "properties": {"$current_url": url}})
    };
    let noon = "2026-03-10T12:00:00Z";
    match id {
        "R033" => (0..1200)
            .map(|n| {
                let url = format!("https://shop.test/{n}");
                event(format!("s{n:04}"), "$pageview", noon, "2026-03-10T12:00:01Z", url)
            })
            .collect(),
        "R082" => (0..=150)
            .map(|n| {
                let at = session_tracking::session::datetime(crate::support::millis(noon) + n * 1_200_000);
                let at = session_tracking::session::time_text(at);
                let name = if n == 0 { "$pageview" } else { "heartbeat" };
                event(format!("h{n:03}"), name, &at, &at, "https://shop.test/".to_owned())
            })
            .collect(),
        // One event is enough to see that it gets no session and costs no write.
        "R040" => ["undefined", "null", "00000000-0000-0000-0000-000000000000", "[object Object]"]
            .map(|id| {
                let body = json!({"uuid": "a", "event": "$pageview", "distinct_id": id}).to_string();
                let envelope = json!({"version": "2.0", "rawPath": "/events", "body": body, "requestContext":
                    {"http": {"method": "POST", "path": "/events"}, "timeEpoch": 1_773_144_000_000_i64}});
                Value::String(envelope.to_string())
            })
            .to_vec(),
        _ => panic!("{id} has no input"),
    }
}

impl Report {
    fn input(&self) -> Vec<Value> {
        self.input.as_array().cloned().unwrap_or_else(|| generated(&self.id))
    }

    /// How many events a request holds, in each way that the report is run.
    fn batches(&self, events: usize) -> Vec<usize> {
        self.batch.map_or_else(|| vec![events, 1], |batch| vec![batch])
    }

    /// What does not come out as it has to; none if all does.
    async fn fault(&self) -> Option<String> {
        let config = match SessionConfig::from_rules(self.rules.clone()) {
            Ok(config) => config,
            Err(error) => return Some(error.to_string()),
        };
        let expect = decided(&self.id).unwrap_or_else(|| self.expect.clone());
        let input = self.input();
        // Payloads are texts, and what happens between them.
        if input.first().is_some_and(Value::is_string) {
            return difference(&expect, &World::new(&config).payloads(&input).await);
        }
        for batch in self.batches(input.len()) {
            let found = World::new(&config).events(&input, batch).await;
            if let Some(fault) = difference(&expect, &found) {
                return Some(format!("{batch} events a request: {fault}"));
            }
        }
        None
    }
}

#[tokio::test]
async fn every_report_comes_out_as_decided() {
    let mut wrong = Vec::new();
    for report in reports() {
        let pending = PENDING.iter().find(|(id, _)| *id == report.id);
        match (report.fault().await, pending) {
            (None, None) | (Some(_), Some(_)) => {}
            (Some(fault), None) => {
                wrong.push(format!("{}: {}\n  {}\n  {fault}", report.id, report.title, report.decide));
            }
            (None, Some((id, _))) => wrong.push(format!("{id} comes out right: take it off PENDING")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn there_are_48_reports_and_pending_names_some_of_them() {
    let reports = reports();
    assert_eq!(reports.len(), 48);
    let is_known = |id: &str| reports.iter().any(|report| report.id == id);
    assert!(PENDING.iter().all(|(id, _)| is_known(id)));
}
