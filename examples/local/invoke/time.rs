//! When a payload was received, by what it says.

use serde_json::Value;
use session_tracking::event::time_of_json;
use session_tracking::session::Millis;

/// The times that are believed: from 2000 to 2100.
const BELIEVED: std::ops::Range<Millis> = 946_684_800_000..4_102_444_800_000;
/// How far ahead of now an event's own time may lie and still move time on, in milliseconds: 23 hours, as far as the service
/// believes it.
const MAX_AHEAD_MS: Millis = 23 * 3_600_000;

/// Returns the time of receipt that a payload says: its envelope's; else the greatest of its events. Events that say no
/// receipt happened when they were received, as long as that is not far ahead of `now`.
pub fn received_at(payload: &str, now: Option<Millis>) -> Option<Millis> {
    let payload: Value = serde_json::from_str(payload).ok()?;
    let context = &payload["requestContext"];
    let records = payload["Records"].as_array().into_iter().flatten();
    let sent = records.clone().filter_map(|record| millis(&record["attributes"]["SentTimestamp"])).max();
    let envelope = millis(&context["timeEpoch"]).or_else(|| millis(&context["requestTimeEpoch"])).or(sent);
    let scheduled = || payload.get("detail-type").and_then(|_| time(&payload["time"]));
    if let Some(stated) = envelope.or_else(scheduled) {
        return Some(stated);
    }
    // An envelope without a time: the events are in its body or its records' bodies.
    let bodies = records.map(|record| &record["body"]).chain(payload.get("body"));
    let bodies: Vec<Value> = bodies.filter_map(|body| serde_json::from_str(body.as_str()?).ok()).collect();
    let all: Vec<&Value> = bodies.iter().chain([&payload]).flat_map(events).collect();
    let of = |name: &str| all.iter().filter_map(|event| time(&event[name])).max();
    let is_near = |at: &Millis| now.is_none_or(|now| *at <= now + MAX_AHEAD_MS);
    of("received_at").or_else(|| of("sent_at").or_else(|| of("timestamp")).filter(is_near))
}

/// Returns the events of a body.
fn events(body: &Value) -> Vec<&Value> {
    match (body.as_array(), body["events"].as_array()) {
        (Some(events), _) | (None, Some(events)) => events.iter().collect(),
        (None, None) => vec![body],
    }
}

/// Returns a number of milliseconds, as a number or as text.
fn millis(value: &Value) -> Option<Millis> {
    let text = value.as_str().and_then(|text| text.parse().ok());
    value.as_i64().or(text).filter(|time| BELIEVED.contains(time))
}

fn time(value: &Value) -> Option<Millis> {
    time_of_json(&value.to_string()).filter(|time| BELIEVED.contains(time))
}
