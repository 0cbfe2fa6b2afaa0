//! Bad bodies through the real handler, each with its expected response: `tests/data/bad-input.jsonl`.
//!
//! A bad event must affect no other event. It is rejected with a code from a closed set and a message that does not quote the
//! body. Bad bodies contain a marker, so that a quote is noticed.

mod body;

use std::collections::BTreeSet;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use session_tracking::config::SessionConfig;
use session_tracking::event::{Delivery, Event, RejectCode};
use session_tracking::manager::SessionManager;
use session_tracking::output::MemoryOutput;
use session_tracking::session::Millis;
use session_tracking::storage::InMemorySessionStorage;
use session_tracking::trigger::Ingest;

use crate::support::ManualClock;
use body::Body;

/// 2026-03-10T12:00:00Z.
const NOON: Millis = 1_773_144_000_000;
const MARKER: &str = "SECRET123";
const NOTHING_USABLE: &str = "nothing_usable";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    id: String,
    title: String,
    #[serde(default)]
    body: Body,
    /// The JSON of the envelope's `body`, if it is not a string.
    body_json: Option<String>,
    content_type: Option<String>,
    content_encoding: Option<String>,
    /// Whether the envelope declares the body as base64. Bodies that are not UTF-8 are always encoded.
    #[serde(default)]
    is_base64: bool,
    #[serde(default)]
    in_array: Neighbours,
    #[serde(default)]
    in_lines: Neighbours,
    #[serde(rename = "verdict")]
    expected: Response,
}

/// What happens to good events around a bad one.
#[derive(Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Neighbours {
    /// They are applied, and the bad event is rejected as it is alone.
    #[default]
    Unharmed,
    /// They are applied, and the bad event is taken for several.
    Splits,
    /// They are applied, and so is the bad event, which is valid here.
    IsFine,
    /// The events after it are rejected with it, because its end cannot be found.
    LosesTheRest,
}

/// The parts of a response that are compared.
#[derive(Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Response {
    status: u64,
    error: Option<String>,
    /// The number of events that are applied.
    events: usize,
    rejected: Vec<Rejected>,
    /// Values of the first annotated event, by JSON pointer; null for a missing one.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    out: serde_json::Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
struct Rejected {
    index: usize,
    code: String,
}

impl Case {
    /// Returns the payload of an HTTP API for a request with this body.
    fn envelope(&self, body: &[u8]) -> String {
        let string = std::str::from_utf8(body).ok().map(|string| serde_json::to_string(string).unwrap());
        let (json, is_base64) = match (&self.body_json, string) {
            (Some(json), _) => (json.clone(), false),
            (None, Some(string)) => (string, self.is_base64),
            (None, None) => (format!("\"{}\"", BASE64_STANDARD.encode(body)), true),
        };
        let headers = json!({"content-type": self.content_type, "Content-Encoding": self.content_encoding});
        format!(
            r#"{{"version":"2.0","rawPath":"/events","headers":{headers},"body":{json},"isBase64Encoded":{is_base64},
            "requestContext":{{"http":{{"method":"POST"}},"timeEpoch":{NOON}}}}}"#
        )
    }

    /// Returns whether the body is exactly one bad event.
    fn is_one_bad_event(&self) -> bool {
        let is_string = !self.is_base64 && self.body_json.is_none() && !matches!(self.body, Body::Gzip { .. });
        let is_plain = is_string && self.content_encoding.is_none();
        is_plain && self.expected.error.as_deref() == Some(NOTHING_USABLE) && self.expected.rejected.len() == 1
    }
}

/// An answer of the handler.
struct Answer {
    status: u64,
    /// The body as it was sent.
    raw_body: String,
    body: AnswerBody,
}

#[derive(Deserialize)]
struct AnswerBody {
    error: Option<AnswerError>,
    /// Unparsed, because they may contain numbers that fit in no type.
    events: Vec<Box<RawValue>>,
    rejected: Vec<AnswerError>,
}

#[derive(Deserialize)]
struct AnswerError {
    #[serde(default)]
    index: usize,
    code: String,
    message: String,
}

impl Answer {
    /// Returns the parts of the answer that are compared with `expected`.
    fn response(&self, expected: &Response) -> Response {
        let first = self.body.events.first();
        let value_at = |pointer: &str| {
            let event: Value = serde_json::from_str(first.unwrap().get()).unwrap();
            event.pointer(pointer).cloned().unwrap_or_default()
        };
        let rejected = self.body.rejected.iter();
        Response {
            status: self.status,
            error: self.body.error.as_ref().map(|error| error.code.clone()),
            events: self.body.events.len(),
            rejected: rejected.map(|error| Rejected { index: error.index, code: error.code.clone() }).collect(),
            out: expected.out.keys().map(|pointer| (pointer.clone(), value_at(pointer))).collect(),
        }
    }

    /// Returns how many of the good events around a bad one are applied.
    fn applied_neighbours(&self) -> usize {
        self.body.events.iter().filter(|event| event.get().contains(r#""distinct_id":"neighbour""#)).count()
    }

    /// Checks what holds for every answer: messages quote nothing, and annotated events are valid events.
    fn check(&self, id: &str) {
        let errors = self.body.rejected.iter().chain(&self.body.error);
        for AnswerError { code, message, .. } in errors {
            assert!(!message.contains(MARKER), "{id}: {message}");
            assert!((20..200).contains(&message.len()) && !message.contains('\n'), "{id}: {code}: {message}");
        }
        let is_quoted = self.body.events.is_empty() && self.raw_body.contains(MARKER);
        assert!(!is_quoted, "{id}: {}", self.raw_body);
        let delivery = Delivery { received_at: NOON, trusts_received_at: false };
        for event in &self.body.events {
            let parsed = Event::parse(event.get().as_bytes(), delivery, &SessionConfig::default());
            // With the added properties, an event can be larger than the limit.
            let is_valid = parsed.as_ref().err().is_none_or(|error| error.code == RejectCode::TooLarge);
            assert!(is_valid, "{id}: {parsed:?}: {}", event.get());
        }
    }
}

fn cases() -> Vec<Case> {
    let lines = include_str!("../data/bad-input.jsonl").lines();
    lines.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Returns each body with its id and the number of its events that are applied.
pub fn bodies() -> impl Iterator<Item = (String, Vec<u8>, usize)> {
    cases().into_iter().map(|case| (case.id, case.body.bytes(), case.expected.events))
}

/// Sends a payload to a service with an empty store.
async fn answer(payload: &str) -> Answer {
    let clock = ManualClock::default();
    clock.set(NOON);
    let manager = SessionManager::with_clock(SessionConfig::default(), InMemorySessionStorage::new(), &clock);
    let ingest = Ingest {
        manager,
        output: MemoryOutput::default(),
        rejects: MemoryOutput::default(),
        origins: Default::default(),
        public: session_tracking::config::PublicAccess::TRUSTED,
    };
    let answer: Value = serde_json::from_str(&ingest.handle(payload, NOON + 60_000).await.unwrap()).unwrap();
    let raw_body = answer["body"].as_str().unwrap().to_owned();
    let body = serde_json::from_str(&raw_body).unwrap();
    Answer { status: answer["statusCode"].as_u64().unwrap(), body, raw_body }
}

#[tokio::test]
async fn every_body_gets_its_expected_response() {
    let mut wrong = Vec::new();
    for case in cases() {
        let answer = answer(&case.envelope(&case.body.bytes())).await;
        answer.check(&case.id);
        let response = answer.response(&case.expected);
        if response != case.expected {
            wrong.push(format!("{}: {}\n  is {}", case.id, case.title, json!(response)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn good_events_around_a_bad_one_are_applied() {
    let good = |uuid: &str| format!(r#"{{"uuid":"{uuid}","event":"x","distinct_id":"neighbour"}}"#).into_bytes();
    let mut wrong = Vec::new();
    for case in cases().iter().filter(|case| case.is_one_bad_event()) {
        let bad = case.body.bytes();
        let array = [b"[", &*good("a"), b",", &bad, b",", &good("b"), b"]"].concat();
        let lines = [&*good("a"), b"\n", &bad, b"\n", &good("b")].concat();
        let is_lines = case.content_type.as_deref() == Some("application/x-ndjson");
        let in_array = Some((array, case.in_array)).filter(|_| !is_lines);
        for (body, neighbours) in in_array.into_iter().chain([(lines, case.in_lines)]) {
            let answer = answer(&case.envelope(&body)).await;
            answer.check(&case.id);
            let rejected = answer.response(&case.expected).rejected;
            let alone = [Rejected { index: 1, ..case.expected.rejected[0].clone() }];
            let is_right = match neighbours {
                Neighbours::Unharmed => answer.applied_neighbours() == 2 && rejected == alone,
                Neighbours::Splits => answer.applied_neighbours() == 2 && rejected.len() > 1,
                Neighbours::IsFine => answer.applied_neighbours() == 2 && rejected.is_empty(),
                Neighbours::LosesTheRest => answer.applied_neighbours() == 1 && !rejected.is_empty(),
            };
            if !is_right {
                let start = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
                wrong.push(format!("{}: {} {rejected:?}: {start}", case.id, answer.applied_neighbours()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_covers_every_code() {
    let cases = cases();
    let ids: BTreeSet<&str> = cases.iter().map(|case| case.id.as_str()).collect();
    assert_eq!(ids.len(), cases.len());
    let bad = || cases.iter().filter(|case| case.expected.error.is_some() || !case.expected.rejected.is_empty());
    let is_marked = |case: &&Case| {
        let json = case.body_json.as_deref().unwrap_or_default();
        case.body.bytes().windows(MARKER.len()).any(|window| window == MARKER.as_bytes()) || json.contains(MARKER)
    };
    assert!(bad().count() >= 300 && bad().filter(is_marked).count() >= 200);
    // Every code occurs, except those of a failing store and of bounds.
    let codes: BTreeSet<&str> = bad()
        .flat_map(|case| case.expected.rejected.iter().map(|rejected| &rejected.code).chain(&case.expected.error))
        .map(String::as_str)
        .collect();
    let sources = [include_str!("../../src/event/rejection.rs"), include_str!("../../src/trigger/body.rs")];
    let named = sources.iter().flat_map(|source| source.lines());
    let named = named.filter_map(|line| line.trim().strip_prefix("Self::")?.split_once("=> \"")?.1.split_once('"'));
    let mut named: BTreeSet<&str> = named.map(|(name, _)| name).chain([NOTHING_USABLE]).collect();
    // Only large requests of other clients have events in excess (`src/trigger/tests/clients.rs`), and recorded events need a
    // feature (`tests/it/replay`).
    for elsewhere in ["too_many_visitors", "too_much_state", "invalid_replay"] {
        assert!(named.remove(elsewhere), "{elsewhere}");
    }
    assert_eq!(codes, named);
}
