//! A payload's time of receipt.

use serde_json::Value;
use session_tracking::event::time_of_json;
use session_tracking::session::Millis;

/// The times that are plausible: from 2000 to 2100.
const PLAUSIBLE: std::ops::Range<Millis> = 946_684_800_000..4_102_444_800_000;
/// How far ahead of now an event's own time may be to move time forward, in milliseconds: 23 hours, which is also the service's
/// limit.
const MAX_AHEAD_MS: Millis = 23 * 3_600_000;

/// Returns a payload's time of receipt: its envelope's time, else the latest `received_at` of its events. Without both, it is the
/// latest `sent_at` or `timestamp` of its events, if that is not far ahead of `now`.
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
    let latest = |name: &str| all.iter().filter_map(|event| time(&event[name])).max();
    let is_near = |at: &Millis| now.is_none_or(|now| *at <= now + MAX_AHEAD_MS);
    latest("received_at").or_else(|| latest("sent_at").or_else(|| latest("timestamp")).filter(is_near))
}

/// Returns the events of a body.
fn events(body: &Value) -> Vec<&Value> {
    match (body.as_array(), body["events"].as_array()) {
        (Some(events), _) | (None, Some(events)) => events.iter().collect(),
        (None, None) => vec![body],
    }
}

/// Returns a time in milliseconds, from a JSON number or string.
fn millis(value: &Value) -> Option<Millis> {
    let parsed = value.as_str().and_then(|digits| digits.parse().ok());
    value.as_i64().or(parsed).filter(|time| PLAUSIBLE.contains(time))
}

fn time(value: &Value) -> Option<Millis> {
    time_of_json(&value.to_string()).filter(|time| PLAUSIBLE.contains(time))
}
