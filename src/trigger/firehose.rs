//! Records that a Firehose stream hands over for transformation. The data of a record is read like an HTTP body. The answer has an
//! element for each record, with the same `recordId`:
//!
//! - `Ok`: its annotated events, one line each. Its invalid events, if there are others, go to the rejects.
//! - `Dropped`: it has no event.
//! - `ProcessingFailed`: none of its events can be used (they are in the rejects), one of them may not be applied, or the answer
//!   has no room for it. Firehose writes what it received to the stream's error output and does not try again; sending it again
//!   from there is idempotent.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_PAD_INDIFFERENT};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::answer::{MAX_ANSWER_BYTES, json};
use super::batch::{Counts, EventOutcome};
use super::body::{BodyError, Limits};
use super::envelope::{Headers, string};
use super::message::Message;
use super::process::{Resolved, SplitBody, decode_chunk};
use super::{HandlerError, Ingest, Reply};
use crate::clock::Clock;
use crate::event::time_of_json;
use crate::output::Output;
use crate::session::Millis;
use crate::storage::SessionStorage;

/// The code of a record whose events are applied, but do not fit into the answer.
const NO_ROOM: &str = "answer_too_large";

/// A record, and its data as it was received, in base64.
struct Record<'a> {
    message: Message<'a>,
    data: Cow<'a, str>,
}

/// Reads the records of a payload.
fn records(payload: &str, now: Millis) -> Result<Vec<Record<'_>>, HandlerError> {
    #[derive(Deserialize)]
    struct Payload<'a> {
        #[serde(borrow)]
        records: Vec<&'a RawValue>,
    }
    let payload: Payload<'_> = serde_json::from_str(payload).map_err(|_| {
        HandlerError("`records` is not an array; the payload is not one of a Firehose stream".to_owned())
    })?;
    Ok(payload.records.into_iter().map(|record| Record::read(record, now)).collect())
}

impl<'a> Record<'a> {
    fn read(record: &'a RawValue, now: Millis) -> Self {
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Members<'a> {
            #[serde(borrow)]
            record_id: Option<&'a RawValue>,
            #[serde(borrow)]
            data: Option<&'a RawValue>,
            #[serde(borrow)]
            approximate_arrival_timestamp: Option<&'a RawValue>,
        }
        let members: Members<'a> = serde_json::from_str(record.get()).unwrap_or_default();
        // Firehose gives a record its id when it receives it, so a retry has the same.
        let id = members.record_id.and_then(string).unwrap_or_default();
        let data = members.data.and_then(string).unwrap_or_default();
        let arrived = members.approximate_arrival_timestamp.and_then(|time| time_of_json(time.get()));
        let Ok(body) = STANDARD_PAD_INDIFFERENT.decode(data.trim_ascii()) else {
            // An answer that is not base64 would fail as a whole, so this data does not go back.
            let body = Cow::Owned(data.into_owned().into_bytes());
            let message = Message::undecodable("firehose", id, body, BodyError::InvalidBase64);
            return Self { message, data: Cow::Borrowed("") };
        };
        let message = Message::new("firehose", id, Some(Cow::Owned(body)), Headers::default(), (arrived, now));
        Self { message: message.within(Limits::DIRECT), data }
    }
}

/// Handles an invocation's records, in chunks.
pub(super) async fn handle<S: SessionStorage, C: Clock, O: Output>(
    ingest: &Ingest<S, C, O>,
    payload: &str,
    now: Millis,
    deadline: Millis,
) -> Result<Reply, HandlerError> {
    let (messages, data): (Vec<_>, Vec<_>) =
        records(payload, now)?.into_iter().map(|record| (record.message, record.data)).unzip();
    let mut answer = Answer::with_room_for(&messages);
    let mut counts = Counts::default();
    let mut first = 0;
    while first < messages.len() {
        let rest = &messages[first..];
        let decoded = decode_chunk(rest, &vec![false; rest.len()]);
        let chunk = &rest[..decoded.len()];
        let mut resolved = Resolved::of(&ingest.manager, chunk, &decoded, deadline).await;
        counts.add(std::mem::take(&mut resolved.counts));
        let mut failed = resolved.failed();
        let rejects = resolved.rejects(chunk, &failed);
        rejects.send(&ingest.rejects).await.into_iter().for_each(|owner| failed[owner] = true);
        for (at, (events, outcomes)) in resolved.by_message().enumerate() {
            let result = if failed[at] { Transformed::Failed } else { Transformed::of(events, outcomes) };
            if !answer.push(&chunk[at].id, result, &data[first + at]) {
                counts.code(NO_ROOM);
            }
        }
        first += decoded.len();
    }
    Ok(Reply { trigger: "firehose", status: None, counts, json: answer.json() })
}

/// What became of a record.
enum Transformed {
    /// Its annotated events, as lines.
    Lines(String),
    /// It has no event.
    Dropped,
    /// It could not be transformed.
    Failed,
}

impl Transformed {
    /// Returns what becomes of a record of which no event failed.
    fn of(events: &SplitBody<'_>, outcomes: &[EventOutcome<String>]) -> Self {
        let mut lines = String::new();
        for outcome in outcomes {
            if let EventOutcome::Applied(line) = outcome {
                lines.push_str(line);
                // Firehose puts records one behind the other.
                lines.push('\n');
            }
        }
        match events {
            _ if !lines.is_empty() => Self::Lines(lines),
            Err(BodyError::Empty) => Self::Dropped,
            Ok(events) if events.is_empty() => Self::Dropped,
            _ => Self::Failed,
        }
    }
}

/// An answer under construction.
struct Answer {
    json: String,
    /// Bytes that are left for data. What an element needs without data is already taken off.
    room: usize,
}

/// The element of a record in the answer.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Element<'a> {
    record_id: &'a str,
    result: &'a str,
    data: &'a str,
}

impl Answer {
    const OPEN: &str = "{\"records\":[";
    /// The longest result, of the three that there are.
    const FAILED: &str = "ProcessingFailed";

    fn with_room_for(messages: &[Message<'_>]) -> Self {
        let bare =
            |message: &Message<'_>| json(&Element { record_id: &message.id, result: Self::FAILED, data: "" }).len() + 1;
        let taken: usize = messages.iter().map(bare).sum();
        Self { json: Self::OPEN.to_owned(), room: MAX_ANSWER_BYTES.saturating_sub(taken) }
    }

    /// Appends the element of a record; `received` is its data in base64. Returns false if there is no room for its events.
    fn push(&mut self, record_id: &str, transformed: Transformed, received: &str) -> bool {
        let failed = (Self::FAILED, Cow::Borrowed(received));
        let (fits, (result, mut data)) = match transformed {
            Transformed::Lines(lines) => match STANDARD.encode(lines) {
                data if data.len() <= self.room => (true, ("Ok", Cow::Owned(data))),
                _ => (false, failed),
            },
            Transformed::Dropped => (true, ("Dropped", Cow::Borrowed(""))),
            Transformed::Failed => (true, failed),
        };
        // Firehose keeps what it received, so that a failed record's data is welcome, but not needed.
        if data.len() > self.room {
            data = Cow::Borrowed("");
        }
        self.room -= data.len();
        if !self.json.ends_with('[') {
            self.json.push(',');
        }
        self.json.push_str(&json(&Element { record_id, result, data: &data }));
        fits
    }

    fn json(mut self) -> String {
        self.json.push_str("]}");
        self.json
    }
}
