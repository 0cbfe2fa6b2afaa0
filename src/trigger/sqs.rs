//! Records of an SQS queue, standard or FIFO. A message's body is read like a request's; its attributes `content-encoding`
//! (gzip, and base64 around it) and `content-type` are read like headers.
//!
//! Every message ends in one of: its events are sent on with their sessions, its unusable parts are set aside in `rejects`,
//! or it is reported as failed, so that the queue delivers it again.

mod reject;
mod sns;

use std::borrow::Cow;
use std::collections::HashSet;

use futures_util::future::join;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::answer::json;
use super::batch::{Counts, EventOutcome, IncomingEvent, resolve_events};
use super::body::{BodyError, Limits, decode, form, is_json};
use super::envelope::{Headers, bytes, received_at, text};
use super::split_body::{Batch, split_body};
use super::{HandlerError, Ingest, Reply};
use crate::clock::Clock;
use crate::config::SessionConfig;
use crate::event::{Delivery, Event, Origin};
use crate::output::Output;
use crate::session::Millis;
use crate::storage::SessionStorage;
use crate::timeline::Assignment;
use reject::Reject;

/// A message.
pub(super) struct Message<'a> {
    pub id: Cow<'a, str>,
    /// The id of what it brings: of the notification, if it is one, which may come in several messages.
    origin: Cow<'a, str>,
    /// The group whose order counts. None in a standard queue: groups are for fairness there.
    group: Option<Cow<'a, str>>,
    /// The body as it came; none in a record that makes no sense.
    body: Option<Cow<'a, [u8]>>,
    headers: Headers<'a>,
    delivery: Delivery,
}

impl<'a> Message<'a> {
    pub fn read(raw: &'a RawValue, now: Millis) -> Self {
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Record<'a> {
            #[serde(borrow)]
            message_id: Option<&'a RawValue>,
            #[serde(borrow)]
            body: Option<&'a RawValue>,
            #[serde(borrow, default)]
            attributes: Attributes<'a>,
            #[serde(borrow)]
            message_attributes: Option<&'a RawValue>,
            #[serde(borrow, rename = "eventSourceARN")]
            queue: Option<&'a RawValue>,
        }
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Attributes<'a> {
            #[serde(borrow)]
            sent_timestamp: Option<&'a RawValue>,
            #[serde(borrow)]
            message_group_id: Option<&'a RawValue>,
        }
        let record: Record<'a> = serde_json::from_str(raw.get()).unwrap_or_default();
        let is_fifo = record.queue.and_then(text).is_some_and(|arn| arn.ends_with(".fifo"));
        // A queue is filled by a pipeline, not by visitors.
        let received_at = received_at(record.attributes.sent_timestamp, now);
        let id = record.message_id.and_then(text).unwrap_or_default();
        let message = Self {
            origin: id.clone(),
            id,
            group: record.attributes.message_group_id.and_then(text).filter(|_| is_fifo),
            body: record.body.and_then(bytes),
            headers: Headers::read(record.message_attributes, attribute),
            delivery: Delivery { received_at, trusts_received_at: true },
        };
        message.unwrapped()
    }

    /// The message that was published, where this is a notification of it.
    fn unwrapped(mut self) -> Self {
        for _ in 0..sns::MAX_NESTED {
            let Some(inner) = self.body.as_deref().and_then(sns::Notification::read) else { break };
            self.headers = inner.headers.or(self.headers);
            (self.origin, self.body) = (Cow::Owned(inner.id), Some(Cow::Owned(inner.message.into_bytes())));
        }
        self
    }

    /// Where an event of it comes from.
    pub fn origin(&self, index: usize, sent_at: Option<Millis>) -> Origin<'_> {
        Origin { delivery: self.delivery, id: &self.origin, index, sent_at }
    }

    /// The body without its encodings.
    pub fn decoded(&self) -> Result<Cow<'_, [u8]>, BodyError> {
        let encoding = self.headers.content_encoding.as_deref();
        let is_text =
            |name: &str| name.trim().eq_ignore_ascii_case("identity") || self.body.as_deref().is_some_and(is_json);
        // A message can only hold text: what is compressed is base64 as well.
        let is_base64 = encoding.is_some_and(|name| !is_text(name));
        let body = self.body.as_deref().ok_or(BodyError::Empty)?;
        decode(body, is_base64, encoding, Limits::REQUEST.bytes)
    }

    /// The events' raw events of its decoded body.
    pub fn raw_events<'b>(
        &self,
        decoded: &'b Result<Cow<'_, [u8]>, BodyError>,
        config: &SessionConfig,
    ) -> Result<Batch<'b>, BodyError> {
        let body = decoded.as_ref().map_err(|&error| error)?;
        split_body(body, form(self.headers.content_type.as_deref())?, Limits::REQUEST.events, config)
    }
}

/// The text of a message's attribute.
fn attribute(raw: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Attribute<'a> {
        #[serde(borrow)]
        string_value: Option<&'a RawValue>,
    }
    serde_json::from_str::<Attribute<'_>>(raw.get()).ok()?.string_value.and_then(text)
}

/// What the messages of a chunk weigh at the most, see [`weight`]. An ordinary invocation is one chunk. 100 messages at their
/// largest, 100 MB decompressed, are nine, and take less than 200 MB of memory; a visitor whose events lie in several chunks costs
/// a write for each.
const CHUNK_WEIGHT: usize = 24 * 1024 * 1024;
/// What an event takes while it is worked on, beside its text.
const EVENT_WEIGHT: usize = 1024;

/// What a decoded body takes of memory: its text, and what is made of its events, of which it has as many as objects at most.
fn weight(body: &[u8]) -> usize {
    let events = memchr::memchr_iter(b'{', body).count().min(Limits::REQUEST.events);
    body.len() + events * EVENT_WEIGHT
}

/// A message's body without its encodings; none of a message that has failed already.
type Decoded<'a> = Option<Result<Cow<'a, [u8]>, BodyError>>;

/// Handles an invocation's records, chunk by chunk: what a chunk takes is let go before the next is decompressed.
pub(super) async fn handle<S: SessionStorage, C: Clock, O: Output>(
    ingest: &Ingest<S, C, O>,
    records: &RawValue,
    now: Millis,
    deadline: Millis,
) -> Result<Reply, HandlerError> {
    let records: Vec<&RawValue> = serde_json::from_str(records.get())
        .map_err(|_| HandlerError("`Records` is not an array of SQS records".to_owned()))?;
    let messages: Vec<Message<'_>> = records.into_iter().map(|record| Message::read(record, now)).collect();
    let mut failed = vec![false; messages.len()];
    let mut counts = Counts::default();
    let mut first = 0;
    while first < messages.len() {
        let decoded = decode_chunk(&messages[first..], &failed[first..]);
        let end = first + decoded.len();
        counts.add(handle_chunk(ingest, &messages[first..end], &decoded, &mut failed[first..end], deadline).await);
        // What a FIFO group has in later chunks is not begun where it failed in this one.
        close_groups(&messages, &mut failed);
        first = end;
    }
    counts.redelivered = failed.iter().filter(|&&failed| failed).count();
    Ok(Reply { trigger: "sqs", status: None, counts, text: answer(&messages, &failed) })
}

/// Decodes messages, as many as a chunk holds and at least one.
fn decode_chunk<'m>(messages: &'m [Message<'_>], failed: &[bool]) -> Vec<Decoded<'m>> {
    let mut decoded = Vec::new();
    let mut total = 0;
    for (message, failed) in messages.iter().zip(failed) {
        let body = (!failed).then(|| message.decoded());
        total += body.as_ref().map_or(0, |body| body.as_deref().map_or(0, weight));
        decoded.push(body);
        if total >= CHUNK_WEIGHT {
            break;
        }
    }
    decoded
}

/// Handles a chunk's messages; all their events are resolved at once. Marks those that have to come again.
async fn handle_chunk<S: SessionStorage, C: Clock, O: Output>(
    ingest: &Ingest<S, C, O>,
    messages: &[Message<'_>],
    decoded: &[Decoded<'_>],
    failed: &mut [bool],
    deadline: Millis,
) -> Counts {
    let (mut items, mut split) = (Vec::new(), Vec::with_capacity(messages.len()));
    for (message, body) in messages.iter().zip(decoded) {
        // One that has failed already has nothing to do.
        let batch = body.as_ref().map(|body| message.raw_events(body, ingest.manager.config()));
        split.push(
            batch.as_ref().map_or(Ok(Vec::new()), |batch| batch.as_ref().map(Batch::bytes).map_err(|&error| error)),
        );
        let Some(Ok(Batch { raw_events, sent_at })) = batch else { continue };
        let origin = |index| message.origin(index, sent_at);
        items.extend(
            raw_events
                .into_iter()
                .enumerate()
                .map(|(index, raw_event)| IncomingEvent { raw_event, origin: origin(index) }),
        );
    }

    let line = |event: &Event<'_>, assignment: Option<&Assignment>| one_line(event.annotate(assignment));
    let mut outcomes = resolve_events(&ingest.manager, items.into_iter(), deadline, line).await;
    let mut counts = Counts::of(&outcomes);
    split.iter().filter_map(|raw_events| raw_events.as_ref().err()).for_each(|error| counts.code(error.code()));

    for (failed, now_failed) in failed.iter_mut().zip(failed_messages(messages, &split, &outcomes)) {
        *failed |= now_failed;
    }
    let (lines, rejects) = outgoing(messages, &split, &mut outcomes, failed);
    let (lost_lines, lost_rejects) = join(ingest.output.send(&lines.texts), ingest.rejects.send(&rejects.texts)).await;
    for (sent, lost) in [(&lines, lost_lines), (&rejects, lost_rejects)] {
        for owner in lost.into_iter().filter_map(|line| sent.owners.get(line)) {
            failed[*owner] = true;
        }
    }
    counts
}

/// The bytes of a message's events.
pub(super) type Slices<'a> = Result<Vec<&'a [u8]>, BodyError>;

/// The messages of which an event failed, and in a FIFO queue those behind them.
fn failed_messages(messages: &[Message<'_>], split: &[Slices<'_>], outcomes: &[EventOutcome<String>]) -> Vec<bool> {
    let mut outcomes = outcomes.iter();
    let failed = |raw_events: &Slices<'_>| {
        let own = outcomes.by_ref().take(raw_events.as_ref().map_or(0, Vec::len));
        own.filter(|outcome| matches!(outcome, EventOutcome::Failed(_))).count() > 0
    };
    let mut failed = split.iter().map(failed).collect::<Vec<_>>();
    close_groups(messages, &mut failed);
    failed
}

/// Behind a failed message of a FIFO group the whole group has to come again, or it would come out of order.
fn close_groups(messages: &[Message<'_>], failed: &mut [bool]) {
    let mut closed = HashSet::new();
    for (message, failed) in messages.iter().zip(failed) {
        let Some(group) = &message.group else { continue };
        if *failed {
            closed.insert(group);
        }
        *failed = closed.contains(group);
    }
}

/// Lines to be sent, and which message each belongs to.
#[derive(Default)]
struct Lines {
    texts: Vec<String>,
    owners: Vec<usize>,
}

impl Lines {
    fn push(&mut self, text: String, owner: usize) {
        self.texts.push(text);
        self.owners.push(owner);
    }
}

/// What is sent on, and what is set aside. Nothing of a message that is reported as failed: it comes again, and all of it is
/// sent then. Sending twice would mean the same, but cost twice.
fn outgoing(
    messages: &[Message<'_>],
    split: &[Slices<'_>],
    outcomes: &mut [EventOutcome<String>],
    failed: &[bool],
) -> (Lines, Lines) {
    let (mut lines, mut rejects) = (Lines::default(), Lines::default());
    let mut outcomes = outcomes.iter_mut();
    for (owner, (message, raw_events)) in messages.iter().zip(split).enumerate() {
        let reject =
            |code, why: &str, index, text: &[u8]| Reject { message_id: &message.id, code, why, index, text }.line();
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
                EventOutcome::Applied(line) => lines.push(std::mem::take(line), owner),
                EventOutcome::Rejected(why) => {
                    rejects.push(reject(why.code.name(), &why.message, Some(index), raw_event), owner);
                }
                EventOutcome::Failed(_) => {}
            }
        }
    }
    (lines, rejects)
}

/// What is set aside of messages of which no event failed.
pub(super) fn reject_lines(
    messages: &[Message<'_>],
    split: &[Slices<'_>],
    outcomes: &[EventOutcome<String>],
) -> Vec<String> {
    let mut lines = Vec::new();
    let mut outcomes = outcomes.iter();
    for (message, raw_events) in messages.iter().zip(split) {
        let mut push = |code, why: &str, index, text: &[u8]| {
            lines.push(Reject { message_id: &message.id, code, why, index, text }.line());
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

/// An event that came over several lines, in one: outside of strings all white space means the same, and in strings
/// there are no line feeds.
pub(super) fn one_line(text: String) -> String {
    if text.contains(['\n', '\r']) { text.replace(['\n', '\r'], " ") } else { text }
}

/// Which messages have to come again.
fn answer(messages: &[Message<'_>], failed: &[bool]) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer<'a> {
        batch_item_failures: Vec<Failure<'a>>,
    }
    // A record without an id gives an empty one here, by which Lambda takes the whole batch for failed. It is the only way
    // left to have it again.
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
