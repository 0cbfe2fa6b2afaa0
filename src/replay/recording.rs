//! Takes the recorded events out of an event, and checks and masks them.
//!
//! What is left of the event is small. It is resolved like any other event, as a passive one, so that it tells its session.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Map, Value};
use xxhash_rust::xxh3::Xxh3;

use super::bounds::{MAX_CONTAINERS, MAX_LEVELS, containers, has_levels};
use super::mask::Mask;
use super::{Inputs, ReplayEventType, chunk, rrweb};
use crate::event::{RejectCode, Rejection, time_of_json, without_half_pairs};
use crate::session::{Millis, datetime, rfc3339};

/// The names of events with recorded events, each with the property that holds them: our own, and PostHog's.
const CARRIERS: [(&str, &str); 2] = [("$replay", "$replay_events"), ("$snapshot", "$snapshot_data")];
/// Limit of the bytes of one recorded event: 2 MB. An answer can hold one whatever has to be escaped in it. A whole page with its
/// style sheets has some 100 KB to 1 MB.
pub const MAX_RECORDED_BYTES: usize = 2 * 1024 * 1024;
/// Limit of the recorded events of one event.
pub const MAX_RECORDED_EVENTS: usize = 10_000;
/// Limit of the bytes to which the recorded events of a request or of a queue's message are decompressed: 8 MB. What is not compressed
/// is bounded by the body.
const MAX_DECOMPRESSED_BYTES: usize = 8 * 1024 * 1024;
/// Limit of the stretches of ten minutes ([`chunk::MAX_SPAN_MS`]) that the recorded events of a request or message may have, beyond the
/// first one of each event: a day. Each is an object of its own, whose price is that of several writes of the table.
const MAX_MORE_STRETCHES: usize = 144;
/// The end of the times that a recorded event can have: the year 10000.
const TIME_END: Millis = 253_402_300_800_000;

/// A recorded event, checked and masked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// When it happened, by the recorder's clock.
    pub stated_at: Millis,
    /// Its kind.
    pub event_type: ReplayEventType,
    /// What the recorder wrote, as JSON.
    pub data: String,
}

/// The recorded events of one event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recording {
    /// The events, in the order in which they were sent.
    pub events: Vec<Recorded>,
}

impl Recording {
    /// Returns what stands in the event instead of the recorded events.
    fn summary(&self) -> String {
        let mut hash = Xxh3::new();
        for event in &self.events {
            hash.update(&event.stated_at.to_le_bytes());
            hash.update(event.data.as_bytes());
        }
        let bytes: usize = self.events.iter().map(|event| event.data.len()).sum();
        format!("{{\"count\":{},\"bytes\":{bytes},\"hash\":\"{:032x}\"}}", self.events.len(), hash.digest128())
    }
}

/// What the recorded events of a request may still cost.
#[derive(Debug)]
pub struct Budget {
    /// The bytes to which they are decompressed.
    bytes: usize,
    /// The stretches of time beyond the first one of each event.
    stretches: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { bytes: MAX_DECOMPRESSED_BYTES, stretches: MAX_MORE_STRETCHES }
    }
}

/// An event without its recorded events.
#[derive(Debug)]
pub struct TakenOut {
    /// The event's JSON. Instead of the recorded events, it has their number, their bytes and their hash.
    pub json: String,
    /// The recorded events; `None` if the event has been through the service before. Or why they cannot be used.
    pub recording: Result<Option<Recording>, Rejection>,
}

/// Returns whether an event can carry recorded events, by what it contains. It need not be valid.
pub fn may_carry(event: &[u8]) -> bool {
    CARRIERS.iter().any(|(name, _)| memchr::memmem::find(event, name.as_bytes()).is_some())
}

/// Takes the recorded events out of an event. Returns `None` if it is no event that carries some.
pub fn take_out(event: &str, budget: &mut Budget, inputs: Inputs) -> Option<TakenOut> {
    if !may_carry(event.as_bytes()) {
        return None;
    }
    let fields = members(event)?;
    let name: String = serde_json::from_str(fields.get("event")?.get()).ok()?;
    let property = CARRIERS.into_iter().find(|(carrier, _)| *carrier == name)?.1;
    let recorded = fields.get("properties").and_then(|raw| members(raw.get())?.get(property).copied());
    let recording = match recorded.map(RawValue::get) {
        None | Some("null") => Err(invalid(format!("the event has no `{property}`; set that property to an array"))),
        // An annotated event that is sent again.
        Some(json) if json.starts_with('{') => Ok(None),
        Some(json) => recording(property, json, budget, inputs).map(Some),
    };
    let mut edits = Vec::new();
    if let Some(recorded) = recorded.filter(|_| !matches!(recording, Ok(None))) {
        let summary = recording.as_ref().map_or(None, Option::as_ref).map_or("null".to_owned(), Recording::summary);
        edits.push((recorded.get(), summary));
    }
    let first = recording.as_ref().ok().and_then(|recording| Some(recording.as_ref()?.events.first()?.stated_at));
    let mut json = String::new();
    if let Some(first) = first {
        let time = format!("\"{}\"", rfc3339(datetime(first)));
        match fields.get("timestamp") {
            None => json = format!("{{\"timestamp\":{time},"),
            Some(null) if null.get() == "null" => edits.push((null.get(), time)),
            Some(_) => {}
        }
    }
    let from = if json.is_empty() { 0 } else { event.find('{')? + 1 };
    edit(event, from, edits, &mut json);
    Some(TakenOut { json, recording })
}

/// Returns the members of an object. Of two members with one name, the last one counts; an event with two is rejected later.
fn members(object: &str) -> Option<BTreeMap<String, &RawValue>> {
    serde_json::from_str(object).ok()
}

/// Writes `text` from `from` on, with other text instead of these parts of it.
pub(crate) fn edit(text: &str, mut from: usize, mut edits: Vec<(&str, String)>, out: &mut String) {
    edits.sort_by_key(|(part, _)| part.as_ptr().addr());
    for (part, replacement) in edits {
        let start = part.as_ptr().addr() - text.as_ptr().addr();
        out.push_str(&text[from..start]);
        out.push_str(&replacement);
        from = start + part.len();
    }
    out.push_str(&text[from..]);
}

/// Reads the array of recorded events.
fn recording(property: &str, json: &str, budget: &mut Budget, inputs: Inputs) -> Result<Recording, Rejection> {
    let elements: Vec<&RawValue> = serde_json::from_str(json)
        .map_err(|_| invalid(format!("`{property}` is not an array; send the recorded events as one")))?;
    if elements.is_empty() || elements.len() > MAX_RECORDED_EVENTS {
        let message = format!("`{property}` has no event, or more than {MAX_RECORDED_EVENTS}; send 1 to that many");
        return Err(invalid(message));
    }
    let mut mask = (inputs == Inputs::Mask).then(Mask::default);
    let read = |(index, element): (usize, &&RawValue)| {
        let element = element.get();
        if element.len() > MAX_RECORDED_BYTES {
            return Err(too_large(property, index));
        }
        let element = without_half_pairs(element);
        recorded(&element, budget, mask.as_mut()).map_err(|fault| match fault {
            Fault::TooLarge => too_large(property, index),
            Fault::Invalid(what) => invalid(format!("`{property}[{index}]` {what}")),
        })
    };
    let events: Vec<Recorded> = elements.iter().enumerate().map(read).collect::<Result<_, _>>()?;
    let more = chunk::stretches(events.iter().map(|event| event.stated_at).collect()).saturating_sub(1);
    budget.stretches = budget.stretches.checked_sub(more).ok_or_else(|| {
        invalid(format!(
            "the events of `{property}` are too far apart: those of a request have at most {MAX_MORE_STRETCHES} stretches of ten \
             minutes; send what belongs together"
        ))
    })?;
    Ok(Recording { events })
}

/// What is wrong with a recorded event that cannot be parsed.
const NOT_JSON: &str = "is not JSON, or is nested deeper than 128 levels; correct or leave it out";

/// What is wrong with a recorded event that would take too much memory.
const TOO_MANY_CONTAINERS: &str = "has more than 100000 objects and arrays; record less of the page";

/// Why a recorded event cannot be used.
enum Fault {
    TooLarge,
    Invalid(&'static str),
}

/// Checks and masks a recorded event: one of rrweb, or one with `timestamp`, `event_type` and `data`.
fn recorded(json: &str, budget: &mut Budget, mask: Option<&mut Mask>) -> Result<Recorded, Fault> {
    let containers_left = MAX_CONTAINERS.checked_sub(containers(json)).ok_or(Fault::Invalid(TOO_MANY_CONTAINERS))?;
    let mut value: Value = serde_json::from_str(json).map_err(|_| Fault::Invalid(NOT_JSON))?;
    let event =
        value.as_object_mut().ok_or(Fault::Invalid("is not an object; send an event of rrweb or of our format"))?;
    let stated_at = event
        .get("timestamp")
        .and_then(|time| time_of_json(&time.to_string()))
        .filter(|at| (0..TIME_END).contains(at))
        .ok_or(Fault::Invalid(
            "has no `timestamp` that is a time; set it, in milliseconds since 1970 or as RFC 3339",
        ))?;
    let (event_type, mut data) = match event.get("type").and_then(Value::as_u64) {
        Some(kind) => {
            decompress(event, budget, containers_left)?;
            let event_type = rrweb::event_type(kind, event.get("data").unwrap_or(&Value::Null));
            // What was decompressed was parsed by itself.
            if !has_levels(&value, MAX_LEVELS) {
                return Err(Fault::Invalid(NOT_JSON));
            }
            (event_type, value)
        }
        None => {
            let kind = event.get("event_type").cloned().unwrap_or_default();
            let kind = serde_json::from_value(kind).map_err(|_| {
                Fault::Invalid(
                    "has neither rrweb's `type` nor an `event_type`; set it to dom, mouse, scroll, input, viewport or custom",
                )
            })?;
            (kind, event.remove("data").unwrap_or_default())
        }
    };
    if let Some(mask) = mask {
        mask.event(event_type, &mut data);
    }
    let data = data.to_string();
    if data.len() > MAX_RECORDED_BYTES {
        return Err(Fault::TooLarge);
    }
    Ok(Recorded { stated_at, event_type, data })
}

/// Decompresses what the recorder compressed in an event, within what the request may still cost.
fn decompress(event: &mut Map<String, Value>, budget: &mut Budget, containers_left: usize) -> Result<(), Fault> {
    let max_bytes = MAX_RECORDED_BYTES.min(budget.bytes);
    let decompressed = rrweb::decompress(event, max_bytes, containers_left);
    // What is too large has cost as much as the limit.
    budget.bytes -= decompressed.unwrap_or(max_bytes);
    decompressed.map(|_| ()).ok_or(Fault::Invalid(
        "is compressed (`cv`), and damaged, too large, or of more than 100000 objects and arrays; send it as rrweb wrote it, in \
         another request, or record less of the page",
    ))
}

fn invalid(message: String) -> Rejection {
    Rejection::new(RejectCode::InvalidReplay, message)
}

fn too_large(property: &str, index: usize) -> Rejection {
    let message = format!("`{property}[{index}]` has more than {MAX_RECORDED_BYTES} bytes; record less of the page");
    Rejection::new(RejectCode::TooLarge, message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn taken_out(event: &str) -> TakenOut {
        take_out(event, &mut Budget::default(), Inputs::Mask).unwrap()
    }

    /// Every byte but the recorded events stays, and the event gets the time of its first recorded event if it states none.
    #[test]
    fn the_rest_of_the_event_stays_as_it_is() {
        let recorded = r#"[{"timestamp":1773144000000,"event_type":"dom","data":1}]"#;
        let hash = "{\"count\":1,\"bytes\":1,\"hash\":\"";
        for (event, start, end) in [
            (
                r#"{"event":"$replay", "properties":{"a" : 1.0,"$replay_events":DATA}}"#,
                r#"{"timestamp":"2026-03-10T12:00:00.000Z","event":"$replay", "properties":{"a" : 1.0,"$replay_events":"#,
                "}}",
            ),
            (
                r#"{"timestamp" :null,"event":"$replay","properties":{"$replay_events":DATA}}"#,
                r#"{"timestamp" :"2026-03-10T12:00:00.000Z","event":"$replay","properties":{"$replay_events":"#,
                "}}",
            ),
            (
                r#" { "properties":{"$snapshot_data": DATA },"event":"$snapshot","timestamp":"x"} "#,
                r#" { "properties":{"$snapshot_data": "#,
                r#" },"event":"$snapshot","timestamp":"x"} "#,
            ),
        ] {
            let TakenOut { json, recording } = taken_out(&event.replace("DATA", recorded));
            assert_eq!(recording.unwrap().unwrap().events.len(), 1);
            let summary =
                json.strip_prefix(start).and_then(|rest| rest.strip_suffix(end)).unwrap_or_else(|| panic!("{json}"));
            assert!(summary.starts_with(hash) && summary.len() == hash.len() + 34, "{summary}");
        }
    }

    #[test]
    fn other_events_are_left_alone() {
        for event in [
            "",
            "7",
            r#"{"event":"$pageview","a":"$replay"}"#,
            r#"{"event":7,"x":"$snapshot"}"#,
            r#"{"event":"$replay""#,
        ] {
            assert!(take_out(event, &mut Budget::default(), Inputs::Mask).is_none(), "{event}");
        }
    }

    /// Two recordings of one moment are two events, although what is left of them is alike.
    #[test]
    fn the_hash_tells_recordings_apart() {
        let of = |data: &str| {
            let recorded = json!([{"timestamp": 1, "event_type": "dom", "data": data}]);
            taken_out(&json!({"event": "$replay", "properties": {"$replay_events": recorded}}).to_string()).json
        };
        assert_ne!(of("a"), of("b"));
        assert_eq!(of("a"), of("a"));
    }

    /// A bomb that is refused has cost time, too.
    #[test]
    fn what_is_refused_is_charged() {
        let mut budget = Budget::default();
        let event = json!({"event": "$snapshot", "properties": {"$snapshot_data": [{"type": 2, "cv": "x", "timestamp": 1, "data": "damage"}]}});
        for _ in 0..10 {
            let taken_out = take_out(&event.to_string(), &mut budget, Inputs::Mask).unwrap();
            assert_eq!(taken_out.recording.unwrap_err().code, RejectCode::InvalidReplay);
        }
        assert_eq!(budget.bytes, 0);
    }
}
