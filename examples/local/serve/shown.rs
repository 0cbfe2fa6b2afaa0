//! What the page shows of a request with events: what became of each, and what decided on it.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use session_tracking::clock::Clock;
use session_tracking::session::Millis;
use session_tracking::trigger::PipeRole;

use super::http::Api;
use crate::feed::item;

/// Returns whether a path is that of our own events. Events of other clients go to the output.
pub fn takes_events(path: &str) -> bool {
    matches!(path.split('/').rfind(|segment| !segment.is_empty()), None | Some("events"))
}

/// The answer to events, as far as the page shows it.
#[derive(Deserialize)]
struct Outcome<'a> {
    #[serde(borrow, default)]
    events: Vec<&'a RawValue>,
    #[serde(default)]
    rejected: Vec<Note>,
    #[serde(default)]
    failed: Vec<Note>,
}

#[derive(Deserialize)]
struct Note {
    code: String,
}

/// Hands what became of events to the page.
pub fn show(api: &Api, body: &str, explanations: &Explanations, now: Millis) {
    let Ok(answer) = serde_json::from_str::<Outcome<'_>>(body) else { return };
    let refused =
        |kind: &'static str, notes: Vec<Note>| notes.into_iter().map(move |note| item::refused(kind, &note.code, now));
    let events = answer.events.iter().filter_map(|event| item::event(event.get(), now, |key| explanations.0.get(key)));
    api.feed.push(events.chain(refused("rejected", answer.rejected)).chain(refused("failed", answer.failed)));
}

/// What the service explains about the events of a request before it applies them.
#[derive(Default)]
pub struct Explanations(HashMap<item::EventKey, Value>);

/// The answer to a request for explanations, in an envelope or not.
#[derive(Deserialize)]
struct Answer {
    body: Option<String>,
    #[serde(default)]
    explanations: Vec<Value>,
}

impl Explanations {
    /// Asks for explanations by this payload. Nobody is asked while no page is open: reading the timelines takes time.
    pub async fn of(api: &Api, payload: impl FnOnce() -> Value) -> Self {
        if !api.feed.is_watched() {
            return Self::default();
        }
        let (function, deadline) = (&api.function, api.clock.now().saturating_add(api.request_ms));
        // Measured and not logged: the log has one line a request.
        let handled = function.handle_measured(PipeRole::Enrichment, "", &payload().to_string(), deadline).await;
        handled.ok().and_then(|handled| Self::read(&handled.json)).unwrap_or_default()
    }

    fn read(json: &str) -> Option<Self> {
        let answer: Answer = serde_json::from_str(json).ok()?;
        let answer = match answer.body {
            Some(body) => serde_json::from_str(&body).ok()?,
            None => answer,
        };
        let by_key = answer.explanations.into_iter().filter_map(|one| Some((item::EventKey::of(&one)?, one)));
        Some(Self(by_key.collect()))
    }
}
