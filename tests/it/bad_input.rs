//! Bodies as they should not be, through the real handler, each with the verdict that it must get: `tests/data/bad-input.jsonl`.
//!
//! The principle: one bad event costs that event alone, with a code from a closed set and a sentence that says nothing of what
//! the body holds. Bad bodies hold a marker, so that a sentence that quotes them shows.

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
    /// The JSON of the envelope's `body`, where it is not simply a text.
    body_json: Option<String>,
    content_type: Option<String>,
    content_encoding: Option<String>,
    /// The envelope calls the body base64; otherwise it is that only where it is no text.
    #[serde(default)]
    is_base64: bool,
    #[serde(default)]
    in_array: Neighbours,
    #[serde(default)]
    in_lines: Neighbours,
    verdict: Verdict,
}

/// What becomes of good events around a bad one.
#[derive(Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Neighbours {
    /// They are applied, and it is rejected as it is when alone.
    #[default]
    Unharmed,
    /// Likewise, but the bad one is taken for several.
    Splits,
    /// It is a good one in such company.
    IsFine,
    /// What follows it is lost with it: nothing shows where it ends.
    LosesTheRest,
}

#[derive(Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Verdict {
    status: u64,
    error: Option<String>,
    /// How many events are applied.
    events: usize,
    rejected: Vec<Rejected>,
    /// What the first event that comes out says, by JSON pointer; null where it says nothing.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    out: serde_json::Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
struct Rejected {
    index: usize,
    code: String,
}

impl Case {
    /// The payload that an HTTP API makes of a request with this body.
    fn envelope(&self, body: &[u8]) -> String {
        let text = std::str::from_utf8(body).ok().map(|text| serde_json::to_string(text).unwrap());
        let (json, is_base64) = match (&self.body_json, text) {
            (Some(json), _) => (json.clone(), false),
            (None, Some(text)) => (text, self.is_base64),
            (None, None) => (format!("\"{}\"", BASE64_STANDARD.encode(body)), true),
        };
        let headers = json!({"content-type": self.content_type, "Content-Encoding": self.content_encoding});
        format!(
            r#"{{"version":"2.0","rawPath":"/events","headers":{headers},"body":{json},"isBase64Encoded":{is_base64},
            "requestContext":{{"http":{{"method":"POST"}},"timeEpoch":{NOON}}}}}"#
        )
    }

    /// Whether the body is one bad event and no more.
    fn is_one_bad_event(&self) -> bool {
        let is_text = !self.is_base64 && self.body_json.is_none() && !matches!(self.body, Body::Gzip { .. });
        let is_plain = is_text && self.content_encoding.is_none();
        is_plain && self.verdict.error.as_deref() == Some(NOTHING_USABLE) && self.verdict.rejected.len() == 1
    }
}

/// What the handler answers.
struct Answer {
    status: u64,
    text: String,
    body: AnswerBody,
}

#[derive(Deserialize)]
struct AnswerBody {
    error: Option<Note>,
    /// As they are: they may hold numbers that no type holds.
    events: Vec<Box<RawValue>>,
    rejected: Vec<Note>,
}

#[derive(Deserialize)]
struct Note {
    #[serde(default)]
    index: usize,
    code: String,
    message: String,
}

impl Answer {
    fn verdict(&self, wanted: &Verdict) -> Verdict {
        let first = self.body.events.first();
        let emitted = |pointer: &str| {
            let event: Value = serde_json::from_str(first.unwrap().get()).unwrap();
            event.pointer(pointer).cloned().unwrap_or_default()
        };
        let rejected = self.body.rejected.iter();
        Verdict {
            status: self.status,
            error: self.body.error.as_ref().map(|error| error.code.clone()),
            events: self.body.events.len(),
            rejected: rejected.map(|note| Rejected { index: note.index, code: note.code.clone() }).collect(),
            out: wanted.out.keys().map(|pointer| (pointer.clone(), emitted(pointer))).collect(),
        }
    }

    /// How many of the good events around a bad one are applied.
    fn good_ones(&self) -> usize {
        self.body.events.iter().filter(|event| event.get().contains(r#""distinct_id":"neighbour""#)).count()
    }

    /// What holds for every answer: sentences that quote nothing, and events that can come in again.
    fn check(&self, id: &str) {
        let notes = self.body.rejected.iter().chain(&self.body.error);
        for Note { code, message, .. } in notes {
            assert!(!message.contains(MARKER), "{id}: {message}");
            assert!((20..200).contains(&message.len()) && !message.contains('\n'), "{id}: {code}: {message}");
        }
        let quotes_only_events = self.body.events.is_empty() && self.text.contains(MARKER);
        assert!(!quotes_only_events, "{id}: {}", self.text);
        let delivery = Delivery { received_at: NOON, trusts_received_at: false };
        for event in &self.body.events {
            let again = Event::parse(event.get().as_bytes(), delivery, &SessionConfig::default());
            // With its session on it, an event may be larger than one may be.
            let comes_in = again.as_ref().err().is_none_or(|why| why.code == RejectCode::TooLarge);
            assert!(comes_in, "{id}: {again:?}: {}", event.get());
        }
    }
}

fn cases() -> Vec<Case> {
    let lines = include_str!("../data/bad-input.jsonl").lines();
    lines.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// The bodies with their ids, and how many of their events are applied.
pub fn bodies() -> impl Iterator<Item = (String, Vec<u8>, usize)> {
    cases().into_iter().map(|case| (case.id, case.body.bytes(), case.verdict.events))
}

/// Sends a payload to a service that has seen nothing yet.
async fn answer(payload: &str) -> Answer {
    let clock = ManualClock::default();
    clock.set(NOON);
    let manager = SessionManager::with_clock(SessionConfig::default(), InMemorySessionStorage::new(), &clock);
    let ingest = Ingest { manager, output: MemoryOutput::default(), rejects: MemoryOutput::default() };
    let answer: Value = serde_json::from_str(&ingest.handle(payload, NOON + 60_000).await.unwrap()).unwrap();
    let text = answer["body"].as_str().unwrap().to_owned();
    Answer { status: answer["statusCode"].as_u64().unwrap(), body: serde_json::from_str(&text).unwrap(), text }
}

#[tokio::test]
async fn every_body_gets_its_response_status() {
    let mut wrong = Vec::new();
    for case in cases() {
        let answer = answer(&case.envelope(&case.body.bytes())).await;
        answer.check(&case.id);
        let verdict = answer.verdict(&case.verdict);
        if verdict != case.verdict {
            wrong.push(format!("{}: {}\n  is {}", case.id, case.title, json!(verdict)));
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
            let rejected = answer.verdict(&case.verdict).rejected;
            let alone = [Rejected { index: 1, ..case.verdict.rejected[0].clone() }];
            let is_right = match neighbours {
                Neighbours::Unharmed => answer.good_ones() == 2 && rejected == alone,
                Neighbours::Splits => answer.good_ones() == 2 && rejected.len() > 1,
                Neighbours::IsFine => answer.good_ones() == 2 && rejected.is_empty(),
                Neighbours::LosesTheRest => answer.good_ones() == 1 && !rejected.is_empty(),
            };
            if !is_right {
                let start = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
                wrong.push(format!("{}: {} {rejected:?}: {start}", case.id, answer.good_ones()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_is_as_wide_as_it_claims() {
    let cases = cases();
    let ids: BTreeSet<&str> = cases.iter().map(|case| case.id.as_str()).collect();
    assert_eq!(ids.len(), cases.len());
    let bad = || cases.iter().filter(|case| case.verdict.error.is_some() || !case.verdict.rejected.is_empty());
    let is_marked = |case: &&Case| {
        let json = case.body_json.as_deref().unwrap_or_default();
        case.body.bytes().windows(MARKER.len()).any(|part| part == MARKER.as_bytes()) || json.contains(MARKER)
    };
    assert!(bad().count() >= 300 && bad().filter(is_marked).count() >= 200);
    // Every code there is but those of a store that fails.
    let codes: BTreeSet<&str> = bad()
        .flat_map(|case| case.verdict.rejected.iter().map(|rejected| &rejected.code).chain(&case.verdict.error))
        .map(String::as_str)
        .collect();
    let sources = [include_str!("../../src/event.rs"), include_str!("../../src/trigger/body.rs")];
    let named = sources.iter().flat_map(|source| source.lines());
    let named = named.filter_map(|line| line.trim().strip_prefix("Self::")?.split_once("=> \"")?.1.split_once('"'));
    let named: BTreeSet<&str> = named.map(|(name, _)| name).chain([NOTHING_USABLE]).collect();
    assert_eq!(codes, named);
}
