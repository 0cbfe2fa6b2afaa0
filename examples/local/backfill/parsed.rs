//! Events of history: lines that are read as the functions read events, each received when it happened.

use serde::Deserialize;
use serde_json::value::RawValue;
use session_tracking::config::Projects;
use session_tracking::event::{
    Delivery, Event, MAX_EVENT_BYTES, Origin, RejectCode, Rejection, Repaired, Stripped, time_of_json,
};
use session_tracking::session::Millis;

use crate::replay::input::MAX_LINE_BYTES;

/// An earlier time comes from a field that was never filled: 2000-01-01T00:00:00Z.
const EARLIEST: Millis = 946_684_800_000;

/// A line of the input.
pub struct RawLine {
    pub text: Vec<u8>,
    /// The bytes of the whole line, of which `text` may be the beginning.
    pub bytes: u64,
}

/// The times of an event, if it states any.
#[derive(Deserialize, Default)]
struct Times<'a> {
    #[serde(borrow)]
    received_at: Option<&'a RawValue>,
    #[serde(borrow)]
    sent_at: Option<&'a RawValue>,
    #[serde(borrow)]
    timestamp: Option<&'a RawValue>,
}

/// Returns when an event was received: at its `received_at`; without one, when it was sent, which corrects nothing; without that, when
/// it happened. Returns `None` if it states no time.
fn received_at(line: &[u8], now: Millis) -> Option<Millis> {
    let times: Times<'_> = serde_json::from_slice(line).unwrap_or_default();
    let stated = [times.received_at, times.sent_at, times.timestamp].into_iter().flatten();
    let stated = stated.filter_map(|json| time_of_json(json.get())).find(|&time| time >= EARLIEST);
    stated.map(|time| time.min(now))
}

/// Reads lines as events, as the functions do: what others refuse is repaired, and credentials in URLs are removed. Each event is
/// received when it happened, but not after `now`. Calls `work` with them.
pub async fn with_events<R>(
    lines: &[RawLine],
    projects: &Projects,
    now: Millis,
    work: impl AsyncFnOnce(Vec<Result<Event<'_>, Rejection>>) -> R,
) -> R {
    let repaired = |line: &RawLine| {
        line.parse(projects, now).err().filter(Rejection::is_text).and_then(|_| Repaired::of(&line.text))
    };
    let repairs: Vec<Option<Repaired>> = lines.iter().map(repaired).collect();
    let mut events: Vec<Result<Event<'_>, Rejection>> = Vec::with_capacity(lines.len());
    for (line, repaired) in lines.iter().zip(&repairs) {
        let repaired = repaired.as_ref().and_then(|repaired| repaired.parse(line.origin(now), projects));
        events.push(repaired.unwrap_or_else(|| line.parse(projects, now)));
    }
    let stripped = |event: &Result<Event<'_>, Rejection>| Stripped::of(event.as_ref().ok()?, projects);
    let strips: Vec<Option<Stripped>> = events.iter().map(stripped).collect();
    for ((event, stripped), line) in events.iter_mut().zip(&strips).zip(lines) {
        if let Some(stripped) = stripped {
            *event = stripped.parse(line.origin(now), projects);
        }
        if let Ok(event) = event {
            event.received_at = event.at.min(now);
        }
    }
    work(events).await
}

impl RawLine {
    /// Returns the delivery of the line: it was received when it states it.
    fn origin(&self, now: Millis) -> Origin<'static> {
        let received_at = received_at(&self.text, now).unwrap_or(now);
        Delivery { received_at, trusts_received_at: false }.into()
    }

    /// Reads the line as an event. A line that is cut is too long, whatever is in it.
    fn parse(&self, projects: &Projects, now: Millis) -> Result<Event<'_>, Rejection> {
        if self.bytes > MAX_LINE_BYTES as u64 {
            let message = format!("the event has {} bytes; at most {MAX_EVENT_BYTES} are allowed", self.bytes);
            return Err(Rejection { code: RejectCode::TooLarge, message });
        }
        Event::parse(&self.text, self.origin(now), projects)
    }

    /// Returns whether the event states when it happened or was received.
    pub fn is_dated(&self) -> bool {
        received_at(&self.text, Millis::MAX).is_some()
    }
}
