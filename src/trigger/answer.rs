//! The answer's body: the outcome of each event, in the order of the request.

use std::ops::Range;

use serde::Serialize;

use super::batch::{EventOutcome, advice};
use super::body::BodyError;
use crate::config::AnswerDetail;
use crate::event::{Event, USUAL_ADDED_BYTES};
use crate::storage::SessionError;
use crate::timeline::Assignment;

/// Limit of the bytes of an answer: Lambda's own limit, 6 MB, less 4 KB for the envelope around the body.
pub(super) const MAX_ANSWER_BYTES: usize = 6 * 1024 * 1024 - 4096;
/// The code of an event that is applied, but does not fit into the answer.
const NO_ROOM: &str = "answer_too_large";
const NO_ROOM_MESSAGE: &str =
    "the event is applied, but the answer has no room for it; send it again with fewer others";
/// An upper bound of the bytes of an answer's names and brackets.
const FRAME_BYTES: usize = 64;
/// An upper bound of the bytes of an entry of `failed` with the code [`NO_ROOM`].
const NO_ROOM_BYTES: usize = 160;

/// The status of an answer as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ResponseStatus {
    /// Events were applied and none failed.
    Done,
    /// Every event was rejected.
    NothingUsable,
    /// Events failed, and sending them again may help.
    TryAgain,
    /// Events failed, and sending them again does not help.
    Corrupt,
    /// Events are applied, but do not fit into the answer.
    NoRoom,
}

impl ResponseStatus {
    fn of<T>(outcomes: &[EventOutcome<T>]) -> Self {
        let failed = || {
            outcomes
                .iter()
                .filter_map(|outcome| if let EventOutcome::Failed(error) = outcome { Some(error) } else { None })
        };
        if failed().next().is_none() {
            let is_usable = |outcome: &EventOutcome<T>| matches!(outcome, EventOutcome::Applied(_));
            return if outcomes.iter().any(is_usable) { Self::Done } else { Self::NothingUsable };
        }
        if failed().all(|error| matches!(error, SessionError::Corrupt { .. })) { Self::Corrupt } else { Self::TryAgain }
    }

    /// Returns the code and the sentence of the member `error`, unless the status is [`Self::Done`].
    fn error(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Done => None,
            Self::NothingUsable => {
                Some(("nothing_usable", "no event could be used; see `rejected` for what to change in each"))
            }
            Self::TryAgain => Some((
                "try_again",
                "events listed in `failed` may not be applied; it is safe to send the whole request again",
            )),
            Self::Corrupt => {
                Some(("stored_item_corrupt", "the stored items of these visitors cannot be read; see `failed`"))
            }
            Self::NoRoom => {
                Some((NO_ROOM, "every event is applied or listed in `failed`; send those with fewer others"))
            }
        }
    }
}

/// An entry of `rejected` or `failed`.
#[derive(Serialize)]
struct Note<'a> {
    index: usize,
    code: &'a str,
    message: &'a str,
}

/// The member `error` of an answer.
#[derive(Serialize)]
pub(super) struct Problem<'a> {
    pub code: &'a str,
    pub message: &'a str,
}

/// An answer under construction: the events so far, each with a comma behind it. Each event is written once, in its final
/// place, because an answer can have megabytes.
#[derive(Debug)]
pub(super) struct Events {
    body: String,
    /// What the caller may see of the sessions.
    detail: AnswerDetail,
}

impl Events {
    const OPEN: &str = "{\"events\":[";

    /// Returns an empty answer with capacity for `events` events of `bytes` bytes in total.
    pub fn with_room_for(bytes: usize, events: usize) -> Self {
        let mut body = String::with_capacity(bytes + events * USUAL_ADDED_BYTES + FRAME_BYTES);
        body.push_str(Self::OPEN);
        Self { body, detail: AnswerDetail::Full }
    }

    /// Returns the answer with events that hold only what the caller may see.
    pub fn with_detail(self, detail: AnswerDetail) -> Self {
        Self { detail, ..self }
    }

    /// Appends an event, annotated with its session. Returns the range of its bytes.
    pub fn push(&mut self, event: &Event<'_>, assignment: Option<&Assignment>) -> Range<usize> {
        let detail = self.detail;
        self.write(|body| event.annotate_for(detail, assignment, body))
    }

    fn write(&mut self, write: impl FnOnce(&mut String)) -> Range<usize> {
        let start = self.body.len();
        write(&mut self.body);
        let end = self.body.len();
        self.body.push(',');
        start..end
    }

    /// Copies only the events in these ranges, in order.
    fn only<'p>(&self, ranges: impl Iterator<Item = &'p Range<usize>>) -> Self {
        let mut kept = Self { body: Self::OPEN.to_owned(), detail: self.detail };
        for range in ranges {
            kept.write(|body| body.push_str(&self.body[range.clone()]));
        }
        kept
    }

    /// Completes the answer.
    fn close(self, error: Option<(&str, &str)>, rejected: &[String], failed: &[String]) -> String {
        let Self { mut body, .. } = self;
        if body.ends_with(',') {
            body.pop();
        }
        body.push_str("],\"rejected\":[");
        body.push_str(&rejected.join(","));
        if !failed.is_empty() {
            body.push_str("],\"failed\":[");
            body.push_str(&failed.join(","));
        }
        body.push_str("]}");
        if let Some((code, message)) = error {
            body.insert_str(1, &format!("\"error\":{},", json(&Problem { code, message })));
        }
        body
    }
}

/// Where an answer's body is placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyPlace {
    /// It is the whole answer.
    Whole,
    /// It becomes a JSON string in an envelope, where escapes make it longer.
    InEnvelope,
}

/// Returns the answer to a body whose events were read.
pub(super) fn report(
    outcomes: &[EventOutcome<Range<usize>>],
    events: Events,
    place: BodyPlace,
) -> (ResponseStatus, String) {
    report_within(MAX_ANSWER_BYTES, outcomes, events, place)
}

fn report_within(
    max_bytes: usize,
    outcomes: &[EventOutcome<Range<usize>>],
    events: Events,
    place: BodyPlace,
) -> (ResponseStatus, String) {
    let mut status = ResponseStatus::of(outcomes);
    let size = |json: &str| match place {
        BodyPlace::Whole => json.len(),
        BodyPlace::InEnvelope => quoted_len(json),
    };
    let (mut ranges, mut rejected, mut failed) = (Vec::with_capacity(outcomes.len()), Vec::new(), Vec::new());
    for (index, outcome) in outcomes.iter().enumerate() {
        match outcome {
            EventOutcome::Applied(range) => ranges.push((index, range)),
            EventOutcome::Rejected(why) => {
                rejected.push(json(&Note { index, code: why.code.name(), message: &why.message }));
            }
            EventOutcome::Failed(why) => {
                failed.push((index, json(&Note { index, code: why.code(), message: advice(why) })));
            }
        }
    }
    let notes = rejected.iter().chain(failed.iter().map(|(_, note)| note));
    let notes_bytes: usize = notes.map(|note| size(note) + 1).sum();
    // Events fill the room in order. For each event, the bytes of an entry in `failed` are reserved, in case it does not fit.
    let mut room = max_bytes.saturating_sub(notes_bytes + ranges.len() * NO_ROOM_BYTES);
    let applied = ranges.len();
    ranges.retain(|&(index, range)| {
        let needed = (size(&events.body[range.clone()]) + 1).saturating_sub(NO_ROOM_BYTES);
        let fits = needed <= room;
        if fits {
            room -= needed;
        } else {
            failed.push((index, json(&Note { index, code: NO_ROOM, message: NO_ROOM_MESSAGE })));
            // The same request would not fit again, so this status goes before the others.
            status = ResponseStatus::NoRoom;
        }
        fits
    });
    failed.sort_by_key(|&(index, _)| index);
    let failed: Vec<String> = failed.into_iter().map(|(_, note)| note).collect();
    let events = match ranges.len() {
        fitting if fitting < applied => events.only(ranges.into_iter().map(|(_, range)| range)),
        _ => events,
    };
    (status, events.close(status.error(), &rejected, &failed))
}

/// Returns the answer to a body whose annotated events are separate strings. None of them has failed.
pub(super) fn report_lines(outcomes: &[EventOutcome<String>]) -> String {
    let mut events = Events::with_room_for(0, 0);
    let mut rejected = Vec::new();
    for (index, outcome) in outcomes.iter().enumerate() {
        match outcome {
            EventOutcome::Applied(event) => drop(events.write(|body| body.push_str(event))),
            EventOutcome::Rejected(why) => {
                rejected.push(json(&Note { index, code: why.code.name(), message: &why.message }));
            }
            EventOutcome::Failed(_) => {}
        }
    }
    events.close(ResponseStatus::of(outcomes).error(), &rejected, &[])
}

/// Returns the answer to a body that cannot be read.
pub(super) fn unreadable(error: BodyError) -> String {
    nothing(error.code(), &error.to_string())
}

/// Returns the answer to a request of whose events none was looked at.
pub(super) fn nothing(code: &str, message: &str) -> String {
    Events::with_room_for(0, 0).close(Some((code, message)), &[], &[])
}

/// Returns an answer that consists of an error only.
pub(super) fn error(code: &str, message: &str) -> String {
    format!("{{\"error\":{}}}", json(&Problem { code, message }))
}

/// Serializes a value as JSON.
pub(super) fn json(value: &impl Serialize) -> String {
    // Structs of strings and numbers can always be serialized.
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
}

/// Returns the bytes that JSON takes inside a JSON string. White space is the only control characters that JSON can contain.
pub(super) fn quoted_len(json: &str) -> usize {
    json.len() + json.bytes().filter(|byte| matches!(byte, b'"' | b'\\' | b'\n' | b'\r' | b'\t')).count()
}

#[cfg(test)]
mod tests;
