//! Records of an SQS queue, standard or FIFO. A message's body is read like an HTTP body. Its attributes `content-encoding`
//! (gzip, encoded as base64) and `content-type` are read like headers.
//!
//! A message is processed or fails. When it is processed, its annotated events go to `output` and its invalid events go to
//! `rejects`. When it fails, it is reported to SQS, and the queue redelivers it.

pub(super) mod record;
pub(super) mod reject;
mod sns;

use std::borrow::Cow;
use std::collections::HashSet;

use futures_util::future::join;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::answer::json;
use super::batch::{Counts, EventOutcome, IncomingEvent, resolve_events};
use super::body::{BodyError, Limits, decode, form, is_json};
use super::envelope::{Headers, millis, received_at, string};
use super::split_body::{Batch, split_body};
use super::{Ingest, Reply};
use crate::clock::Clock;
use crate::config::ProjectRules;
use crate::event::{Delivery, Event, Origin};
use crate::output::Output;
use crate::session::Millis;
use crate::storage::SessionStorage;
use crate::timeline::Assignment;
use record::Attributes;
pub(super) use record::Record;
use reject::Reject;

/// A message of a queue.
pub(super) struct Message<'a> {
    pub id: Cow<'a, str>,
    /// The id under which its events are deduplicated: the message's own, or the id of the SNS notification in it, which can
    /// arrive in several messages.
    origin_id: Cow<'a, str>,
    /// The FIFO group, whose order is kept. `None` in a standard queue, where groups only serve fairness.
    group: Option<Cow<'a, str>>,
    /// The body before it is decoded; `None` if the record is malformed.
    body: Option<Cow<'a, [u8]>>,
    headers: Headers<'a>,
    delivery: Delivery,
}

impl<'a> Message<'a> {
    /// Takes a record as a message.
    pub fn new(record: Record<'a>, now: Millis) -> Self {
        let is_fifo = record.queue.is_some_and(|arn| arn.0.ends_with(".fifo"));
        let Attributes { sent_timestamp, message_group_id } = record.attributes;
        // Only a pipeline can write to the queue, so its events' `received_at` is trusted.
        let received_at = received_at(sent_timestamp.and_then(|sent| millis(&sent.0)), now);
        let id = record.message_id.map(|id| id.0).unwrap_or_default();
        let message = Self {
            origin_id: id.clone(),
            id,
            group: message_group_id.filter(|_| is_fifo).map(|group| group.0),
            body: record.body.map(|body| body.0),
            headers: Headers::read(record.message_attributes, attribute),
            delivery: Delivery { received_at, trusts_received_at: true },
        };
        message.unwrap_sns()
    }

    /// Replaces an SNS notification by the message that it contains.
    fn unwrap_sns(mut self) -> Self {
        for _ in 0..sns::MAX_NESTED {
            let Some(inner) = self.body.as_deref().and_then(sns::Notification::read) else { break };
            self.headers = inner.headers.or(self.headers);
            (self.origin_id, self.body) = (Cow::Owned(inner.id), Some(Cow::Owned(inner.message.into_bytes())));
        }
        self
    }

    /// Returns how many bytes the body has before it is decoded.
    pub fn body_bytes(&self) -> usize {
        self.body.as_deref().map_or(0, <[u8]>::len)
    }

    /// Returns the origin of the message's event at `index`.
    pub fn origin(&self, index: usize, sent_at: Option<Millis>) -> Origin<'_> {
        Origin { delivery: self.delivery, id: &self.origin_id, index, sent_at, project: None }
    }

    /// Returns the decoded body.
    pub fn decoded(&self) -> Result<Cow<'_, [u8]>, BodyError> {
        let encoding = self.headers.content_encoding.as_deref();
        let is_plain =
            |name: &str| name.trim().eq_ignore_ascii_case("identity") || self.body.as_deref().is_some_and(is_json);
        // A message holds only characters, so a compressed body is base64 as well.
        let is_base64 = encoding.is_some_and(|name| !is_plain(name));
        let body = self.body.as_deref().ok_or(BodyError::Empty)?;
        decode(body, is_base64, encoding, Limits::REQUEST.bytes)
    }

    /// Splits the decoded body into raw events.
    pub fn raw_events<'b>(
        &self,
        decoded: &'b Result<Cow<'_, [u8]>, BodyError>,
        rules: &impl ProjectRules,
    ) -> Result<Batch<'b>, BodyError> {
        let body = decoded.as_ref().map_err(|&error| error)?;
        split_body(body, form(self.headers.content_type.as_deref())?, Limits::REQUEST.events, rules)
    }
}

/// Returns the string value of a message's attribute.
fn attribute(raw: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Attribute<'a> {
        #[serde(borrow)]
        string_value: Option<&'a RawValue>,
    }
    serde_json::from_str::<Attribute<'_>>(raw.get()).ok()?.string_value.and_then(string)
}

/// A chunk is full when its messages need this much memory, by [`memory_bytes`]. An ordinary invocation is one chunk. 100
/// messages of the largest size, 100 MB decompressed, are nine chunks and take less than 200 MB of memory. A visitor whose
/// events are in several chunks costs one write for each of them.
const CHUNK_BYTES: usize = 24 * 1024 * 1024;
/// Memory that an event takes while it is processed, beside its JSON.
const EVENT_BYTES: usize = 1024;

/// Estimates the memory that a decoded body takes: its own bytes, and the parsed events. It has at most as many events as `{`.
fn memory_bytes(body: &[u8]) -> usize {
    let events = memchr::memchr_iter(b'{', body).count().min(Limits::REQUEST.events);
    body.len() + events * EVENT_BYTES
}

/// A message's decoded body; `None` for a message that has already failed.
type DecodedBody<'a> = Option<Result<Cow<'a, [u8]>, BodyError>>;

/// Handles an invocation's records in chunks. The memory of a chunk is freed before the next one is decompressed.
pub(super) async fn handle<S: SessionStorage, C: Clock, O: Output>(
    ingest: &Ingest<S, C, O>,
    records: Vec<Record<'_>>,
    now: Millis,
    deadline: Millis,
) -> Reply {
    let messages: Vec<Message<'_>> = records.into_iter().map(|record| Message::new(record, now)).collect();
    let mut failed = vec![false; messages.len()];
    let mut counts = Counts::default();
    let mut first = 0;
    while first < messages.len() {
        let decoded = decode_chunk(&messages[first..], &failed[first..]);
        let end = first + decoded.len();
        counts.add(handle_chunk(ingest, &messages[first..end], &decoded, &mut failed[first..end], deadline).await);
        // When a FIFO group failed in this chunk, its messages in later chunks are not started.
        fail_rest_of_groups(&messages, &mut failed);
        first = end;
    }
    counts.redelivered = failed.iter().filter(|&&failed| failed).count();
    Reply { trigger: "sqs", status: None, counts, json: batch_item_failures(&messages, &failed) }
}

/// Decodes as many messages as fit into a chunk, and at least one.
fn decode_chunk<'m>(messages: &'m [Message<'_>], failed: &[bool]) -> Vec<DecodedBody<'m>> {
    let mut decoded = Vec::new();
    let mut total = 0;
    for (message, failed) in messages.iter().zip(failed) {
        let body = (!failed).then(|| message.decoded());
        total += body.as_ref().map_or(0, |body| body.as_deref().map_or(0, memory_bytes));
        decoded.push(body);
        if total >= CHUNK_BYTES {
            break;
        }
    }
    decoded
}

/// Handles a chunk's messages; all their events are resolved together. Marks the failed messages, which are redelivered.
async fn handle_chunk<S: SessionStorage, C: Clock, O: Output>(
    ingest: &Ingest<S, C, O>,
    messages: &[Message<'_>],
    decoded: &[DecodedBody<'_>],
    failed: &mut [bool],
    deadline: Millis,
) -> Counts {
    let (mut incoming, mut split_bodies) = (Vec::new(), Vec::with_capacity(messages.len()));
    for (message, body) in messages.iter().zip(decoded) {
        // A message that has already failed has no body here and adds no events.
        let batch = body.as_ref().map(|body| message.raw_events(body, ingest.manager.projects()));
        split_bodies.push(
            batch.as_ref().map_or(Ok(Vec::new()), |batch| batch.as_ref().map(Batch::bytes).map_err(|&error| error)),
        );
        let Some(Ok(Batch { raw_events, sent_at })) = batch else { continue };
        let origin = |index| message.origin(index, sent_at);
        incoming.extend(
            raw_events
                .into_iter()
                .enumerate()
                .map(|(index, raw_event)| IncomingEvent { raw_event, origin: origin(index) }),
        );
    }

    let line = |event: &Event<'_>, assignment: Option<&Assignment>| one_line(event.annotate(assignment));
    let mut outcomes = resolve_events(&ingest.manager, incoming.into_iter(), deadline, line).await;
    let mut counts = Counts::of(&outcomes);
    split_bodies.iter().filter_map(|raw_events| raw_events.as_ref().err()).for_each(|error| counts.code(error.code()));

    for (failed, now_failed) in failed.iter_mut().zip(failed_messages(messages, &split_bodies, &outcomes)) {
        *failed |= now_failed;
    }
    let (events, rejects) = outgoing(messages, &split_bodies, &mut outcomes, failed);
    let (unsent_events, unsent_rejects) =
        join(ingest.output.send(&events.lines), ingest.rejects.send(&rejects.lines)).await;
    for (sent, unsent) in [(&events, unsent_events), (&rejects, unsent_rejects)] {
        for owner in unsent.into_iter().filter_map(|line| sent.owners.get(line)) {
            failed[*owner] = true;
        }
    }
    counts
}

/// The bytes of each of a message's events, or why its body cannot be read.
pub(super) type SplitBody<'a> = Result<Vec<&'a [u8]>, BodyError>;

/// Returns for each message whether it failed: one of its events failed, or an earlier message of its FIFO group did.
fn failed_messages(
    messages: &[Message<'_>],
    split_bodies: &[SplitBody<'_>],
    outcomes: &[EventOutcome<String>],
) -> Vec<bool> {
    let mut outcomes = outcomes.iter();
    let failed = |raw_events: &SplitBody<'_>| {
        let own = outcomes.by_ref().take(raw_events.as_ref().map_or(0, Vec::len));
        own.filter(|outcome| matches!(outcome, EventOutcome::Failed(_))).count() > 0
    };
    let mut failed = split_bodies.iter().map(failed).collect::<Vec<_>>();
    fail_rest_of_groups(messages, &mut failed);
    failed
}

/// Marks every message that follows a failed one of its FIFO group as failed. Otherwise the redelivered message would be out
/// of order.
fn fail_rest_of_groups(messages: &[Message<'_>], failed: &mut [bool]) {
    let mut failed_groups = HashSet::new();
    for (message, failed) in messages.iter().zip(failed) {
        let Some(group) = &message.group else { continue };
        if *failed {
            failed_groups.insert(group);
        }
        *failed = failed_groups.contains(group);
    }
}

/// Lines of JSON to send, and the index of the message that each belongs to.
#[derive(Default)]
struct Lines {
    lines: Vec<String>,
    owners: Vec<usize>,
}

impl Lines {
    fn push(&mut self, line: String, owner: usize) {
        self.lines.push(line);
        self.owners.push(owner);
    }
}

/// Returns the annotated events and the rejects to send. A failed message has none, because it is redelivered and sent whole
/// then. Sending its events twice would be idempotent, but cost twice.
fn outgoing(
    messages: &[Message<'_>],
    split_bodies: &[SplitBody<'_>],
    outcomes: &mut [EventOutcome<String>],
    failed: &[bool],
) -> (Lines, Lines) {
    let (mut events, mut rejects) = (Lines::default(), Lines::default());
    let mut outcomes = outcomes.iter_mut();
    for (owner, (message, raw_events)) in messages.iter().zip(split_bodies).enumerate() {
        let reject = |code, why: &str, index, raw: &[u8]| {
            Reject { source: "sqs", message_id: &message.id, code, why, index, raw }.line()
        };
        let raw_events = match raw_events {
            Ok(raw_events) => raw_events,
            Err(error) if !failed[owner] => {
                let body = message.body.as_deref().unwrap_or_default();
                rejects.push(reject(error.code(), &error.to_string(), None, body), owner);
                continue;
            }
            Err(_) => continue,
        };
        for (index, (raw_event, outcome)) in raw_events.iter().zip(outcomes.by_ref()).enumerate() {
            match outcome {
                _ if failed[owner] => {}
                EventOutcome::Applied(line) => events.push(std::mem::take(line), owner),
                EventOutcome::Rejected(why) => {
                    rejects.push(reject(why.code.name(), &why.message, Some(index), raw_event), owner);
                }
                EventOutcome::Failed(_) => {}
            }
        }
    }
    (events, rejects)
}

/// Returns the lines of the rejects of messages without a failed event.
pub(super) fn reject_lines(
    messages: &[Message<'_>],
    split_bodies: &[SplitBody<'_>],
    outcomes: &[EventOutcome<String>],
) -> Vec<String> {
    let mut lines = Vec::new();
    let mut outcomes = outcomes.iter();
    for (message, raw_events) in messages.iter().zip(split_bodies) {
        let mut push = |code, why: &str, index, raw: &[u8]| {
            lines.push(Reject { source: "sqs", message_id: &message.id, code, why, index, raw }.line());
        };
        match raw_events {
            Err(error) => push(error.code(), &error.to_string(), None, message.body.as_deref().unwrap_or_default()),
            Ok(raw_events) => {
                for (index, (raw_event, outcome)) in raw_events.iter().zip(outcomes.by_ref()).enumerate() {
                    if let EventOutcome::Rejected(why) = outcome {
                        push(why.code.name(), &why.message, Some(index), raw_event);
                    }
                }
            }
        }
    }
    lines
}

/// Replaces the line breaks of an event's JSON by spaces. All of them are white space, because a JSON string has none.
pub(super) fn one_line(json: String) -> String {
    if json.contains(['\n', '\r']) { json.replace(['\n', '\r'], " ") } else { json }
}

/// Returns the answer to SQS, which names the messages to redeliver.
fn batch_item_failures(messages: &[Message<'_>], failed: &[bool]) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer<'a> {
        batch_item_failures: Vec<Failure<'a>>,
    }
    // The id of a malformed record is empty. Then Lambda treats the whole batch as failed, which is the only way to get the
    // record redelivered.
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Failure<'a> {
        item_identifier: &'a str,
    }
    let failures = messages.iter().zip(failed).filter(|&(_, &failed)| failed);
    json(&Answer {
        batch_item_failures: failures.map(|(message, _)| Failure { item_identifier: &message.id }).collect(),
    })
}

#[cfg(test)]
mod tests;
