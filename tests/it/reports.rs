//! The 48 public bug reports of `tests/data/reports.jsonl`, through the real handler.
//!
//! A report's `input` is a list of events, or of payloads as a trigger receives them. Events are sent in one request, and, to
//! another service, in one request each while the closer runs in between. Both must give the expected result. `expect` holds
//! that result, as far as it matters. If the report's `decide` differs from its `expect`, [`decided`] holds the result.

mod expect;
mod world;

use serde::Deserialize;
use serde_json::{Value, json};
use session_tracking::config::SessionConfig;

use expect::difference;
use world::World;

/// Reports that do not pass yet, and what is missing. A report that passes must not be listed.
const PENDING: &[(&str, &str)] = &[];

#[derive(Deserialize)]
struct Report {
    id: String,
    title: String,
    #[serde(default)]
    rules: Value,
    input: Value,
    expect: Value,
    /// The number of events in a request, if it matters.
    batch: Option<usize>,
    decide: String,
}

fn reports() -> Vec<Report> {
    let lines = include_str!("../data/reports.jsonl").lines();
    lines.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Returns the expected result of a report whose `decide` differs from its `expect`, or whose `expect` is a sentence.
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
        // Current behavior: the campaign in the event's properties takes precedence over the one in its URL.
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

/// Returns the input of a report that describes it in a sentence.
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
                let at = session_tracking::session::rfc3339(at);
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

    /// Returns the batch sizes with which the report is run.
    fn batches(&self, events: usize) -> Vec<usize> {
        self.batch.map_or_else(|| vec![events, 1], |batch| vec![batch])
    }

    /// Returns how the result differs from the expected one; `None` if the report passes.
    async fn failure(&self) -> Option<String> {
        let config = match SessionConfig::from_rules(self.rules.clone()) {
            Ok(config) => config,
            Err(error) => return Some(error.to_string()),
        };
        let expect = decided(&self.id).unwrap_or_else(|| self.expect.clone());
        let input = self.input();
        // Payloads are strings. An object between them runs the closer.
        if input.first().is_some_and(Value::is_string) {
            return difference(&expect, &World::new(&config).payloads(&input).await);
        }
        for batch in self.batches(input.len()) {
            let found = World::new(&config).events(&input, batch).await;
            if let Some(failure) = difference(&expect, &found) {
                return Some(format!("{batch} events a request: {failure}"));
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
        match (report.failure().await, pending) {
            (None, None) | (Some(_), Some(_)) => {}
            (Some(failure), None) => {
                wrong.push(format!("{}: {}\n  {}\n  {failure}", report.id, report.title, report.decide));
            }
            (None, Some((id, _))) => wrong.push(format!("{id} passes: remove it from PENDING")),
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
