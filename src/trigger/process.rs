//! Processing messages that carry events, in chunks of bounded memory.
//!
//! A message is processed or fails. When it is processed, its annotated events go to `output` and its invalid events go to
//! `rejects`. When it fails, its source has to deliver it again; how, each trigger tells its source in its own way.

use std::borrow::Cow;
use std::collections::HashSet;

use futures_util::future::join;

use super::Ingest;
use super::batch::{Counts, EventOutcome, IncomingEvent, resolve_events};
use super::body::{BodyError, Limits};
use super::message::Message;
use super::split_body::Batch;
use crate::clock::Clock;
use crate::event::Event;
use crate::manager::SessionManager;
use crate::output::Output;
use crate::session::Millis;
use crate::storage::SessionStorage;
use crate::timeline::Assignment;

/// A chunk is full when its messages need this much memory, by [`memory_bytes`]. An ordinary invocation is one chunk. 100
/// messages of the largest size, 100 MB decompressed, are nine chunks and take less than 200 MB of memory. A visitor whose
/// events are in several chunks costs one write for each of them.
const CHUNK_BYTES: usize = 24 * 1024 * 1024;
/// Memory that an event takes while it is processed, beside its JSON.
const EVENT_BYTES: usize = 1024;

/// Estimates the memory that a decoded body takes: its own bytes, and the parsed events. It has at most as many events as `{`.
fn memory_bytes(body: &[u8], limits: Limits) -> usize {
    let events = memchr::memchr_iter(b'{', body).count().min(limits.events);
    body.len() + events * EVENT_BYTES
}

/// A message's decoded body; `None` for a message that has already failed.
pub(super) type DecodedBody<'a> = Option<Result<Cow<'a, [u8]>, BodyError>>;

/// Decodes as many messages as fit into a chunk, and at least one.
pub(super) fn decode_chunk<'m>(messages: &'m [Message<'_>], failed: &[bool]) -> Vec<DecodedBody<'m>> {
    let mut decoded = Vec::new();
    let mut total = 0;
    for (message, failed) in messages.iter().zip(failed) {
        let body = (!failed).then(|| message.decoded());
        let memory = |body: &[u8]| memory_bytes(body, message.limits());
        total += body.as_ref().map_or(0, |body| body.as_deref().map_or(0, memory));
        decoded.push(body);
        if total >= CHUNK_BYTES {
            break;
        }
    }
    decoded
}

/// The bytes of each of a message's events, or why its body cannot be read.
pub(super) type SplitBody<'a> = Result<Vec<&'a [u8]>, BodyError>;

/// Returns the bytes of each event, as the rejects show them.
#[cfg(not(feature = "replay"))]
fn raw_bytes<'b, S: SessionStorage, C: Clock>(_manager: &SessionManager<S, C>, batch: &Batch<'b>) -> Vec<&'b [u8]> {
    batch.bytes()
}

/// Returns the bytes of each event, as the rejects show them: none of an event with recorded events, which are not masked there.
#[cfg(feature = "replay")]
fn raw_bytes<'b, S: SessionStorage, C: Clock>(manager: &SessionManager<S, C>, batch: &Batch<'b>) -> Vec<&'b [u8]> {
    let mut events = batch.bytes();
    if manager.replay_store().is_some() {
        let carriers = events.iter_mut().filter(|event| crate::replay::recording::may_carry(event));
        carriers.for_each(|event| *event = b"");
    }
    events
}

/// The events of messages, and their outcomes. An applied event is one line of JSON.
pub(super) struct Resolved<'b> {
    split_bodies: Vec<SplitBody<'b>>,
    outcomes: Vec<EventOutcome<String>>,
    pub counts: Counts,
}

impl<'b> Resolved<'b> {
    /// Resolves all events of messages together.
    pub async fn of<S: SessionStorage, C: Clock>(
        manager: &SessionManager<S, C>,
        messages: &'b [Message<'_>],
        decoded: &'b [DecodedBody<'_>],
        deadline: Millis,
    ) -> Self {
        let (mut incoming, mut split_bodies) = (Vec::new(), Vec::with_capacity(messages.len()));
        for (message, body) in messages.iter().zip(decoded) {
            // A message that has already failed has no body here and adds no events.
            let batch = body.as_ref().map(|body| message.raw_events(body));
            let bytes = |batch: &Batch<'b>| raw_bytes(manager, batch);
            split_bodies
                .push(batch.as_ref().map_or(Ok(Vec::new()), |batch| batch.as_ref().map(bytes).map_err(|&error| error)));
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
        let (outcomes, placed) = resolve_events(manager, incoming.into_iter(), deadline, line).await;
        let mut counts = Counts::of(&outcomes, placed);
        split_bodies.iter().filter_map(|events| events.as_ref().err()).for_each(|error| counts.code(error.code()));
        Self { split_bodies, outcomes, counts }
    }

    /// Returns each message's events with their outcomes.
    pub fn by_message(&self) -> impl Iterator<Item = (&SplitBody<'b>, &[EventOutcome<String>])> {
        let mut rest = self.outcomes.as_slice();
        self.split_bodies.iter().map(move |events| {
            let (own, others) = rest.split_at(events.as_ref().map_or(0, Vec::len));
            rest = others;
            (events, own)
        })
    }

    /// Returns for each message whether one of its events failed.
    pub fn failed(&self) -> Vec<bool> {
        let is_failed = |outcome: &EventOutcome<String>| matches!(outcome, EventOutcome::Failed(_));
        self.by_message().map(|(_, own)| own.iter().any(is_failed)).collect()
    }

    /// Returns how many events failed, of how many, and the code of the first. Returns `None` if none failed.
    pub fn failure(&self) -> Option<(usize, usize, &'static str)> {
        let code = |outcome: &EventOutcome<String>| match outcome {
            EventOutcome::Failed(error) => Some(error.code()),
            _ => None,
        };
        let mut codes = self.outcomes.iter().filter_map(code);
        let first = codes.next()?;
        Some((codes.count() + 1, self.outcomes.len(), first))
    }

    /// Returns the outcomes of all events.
    pub fn into_outcomes(self) -> Vec<EventOutcome<String>> {
        self.outcomes
    }

    /// Returns the rejects to send. A failed message has none, because it is delivered again.
    pub fn rejects(&self, messages: &[Message<'_>], failed: &[bool]) -> Lines {
        let mut rejects = Lines::default();
        let delivered = messages.iter().zip(self.by_message()).zip(failed).enumerate();
        for (owner, ((message, (events, own)), _)) in delivered.filter(|(_, (_, failed))| !**failed) {
            match events {
                Err(error) => rejects.push(message.rejected_body(*error), owner),
                Ok(_) if message.is_test => rejects.push(message.noted_test(), owner),
                Ok(events) => {
                    for (index, (event, outcome)) in events.iter().zip(own).enumerate() {
                        if let EventOutcome::Rejected(why) = outcome {
                            let line = message.rejected_event(why.code.name(), &why.message, index, event);
                            rejects.push(line, owner);
                        }
                    }
                }
            }
        }
        rejects
    }

    /// Takes the annotated events to send. A failed message has none: it is delivered again, and sent whole then. Sending its
    /// events twice would be idempotent, but cost twice.
    fn take_events(self, failed: &[bool]) -> Lines {
        let mut events = Lines::default();
        let mut outcomes = self.outcomes.into_iter();
        for (owner, own) in self.split_bodies.iter().enumerate() {
            for outcome in outcomes.by_ref().take(own.as_ref().map_or(0, Vec::len)) {
                if let (EventOutcome::Applied(line), false) = (outcome, failed[owner]) {
                    events.push(line, owner);
                }
            }
        }
        events
    }
}

/// Lines of JSON to send, and the index of the message that each belongs to.
#[derive(Default)]
pub(super) struct Lines {
    pub lines: Vec<String>,
    owners: Vec<usize>,
}

impl Lines {
    fn push(&mut self, line: String, owner: usize) {
        self.lines.push(line);
        self.owners.push(owner);
    }

    /// Sends the lines. Returns the messages of the lines that were not accepted.
    pub async fn send(&self, output: &impl Output) -> Vec<usize> {
        let unsent = output.send(&self.lines).await;
        unsent.into_iter().filter_map(|line| self.owners.get(line).copied()).collect()
    }
}

/// Processes messages in chunks. Returns for each message whether it failed, and the counts. The memory of a chunk is freed
/// before the next one is decompressed.
pub(super) async fn process<S: SessionStorage, C: Clock, O: Output>(
    ingest: &Ingest<S, C, O>,
    messages: &[Message<'_>],
    deadline: Millis,
) -> (Vec<bool>, Counts) {
    let mut failed = vec![false; messages.len()];
    let mut counts = Counts::default();
    let mut first = 0;
    while first < messages.len() {
        let decoded = decode_chunk(&messages[first..], &failed[first..]);
        let end = first + decoded.len();
        counts.add(process_chunk(ingest, &messages[first..end], &decoded, &mut failed[first..end], deadline).await);
        // When a group failed in this chunk, its messages in later chunks are not started.
        fail_rest_of_groups(messages, &mut failed);
        first = end;
    }
    counts.redelivered = failed.iter().filter(|&&failed| failed).count();
    (failed, counts)
}

/// Processes a chunk's messages. Marks the failed messages.
async fn process_chunk<S: SessionStorage, C: Clock, O: Output>(
    ingest: &Ingest<S, C, O>,
    messages: &[Message<'_>],
    decoded: &[DecodedBody<'_>],
    failed: &mut [bool],
    deadline: Millis,
) -> Counts {
    let mut resolved = Resolved::of(&ingest.manager, messages, decoded, deadline).await;
    let mut counts = std::mem::take(&mut resolved.counts);
    for (failed, now_failed) in failed.iter_mut().zip(resolved.failed()) {
        *failed |= now_failed;
    }
    fail_rest_of_groups(messages, failed);
    let rejects = resolved.rejects(messages, failed);
    let events = resolved.take_events(failed);
    let (unsent_events, unsent_rejects) = join(events.send(&ingest.output), rejects.send(&ingest.rejects)).await;
    counts.not_accepted(unsent_events.len());
    unsent_events.into_iter().chain(unsent_rejects).for_each(|owner| failed[owner] = true);
    counts
}

/// Marks every message that follows a failed one of its group as failed. Otherwise the redelivered message would be out of
/// order.
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

/// Replaces the line breaks of an event's JSON by spaces. All of them are white space, because a JSON string has none.
pub(super) fn one_line(json: String) -> String {
    if json.contains(['\n', '\r']) { json.replace(['\n', '\r'], " ") } else { json }
}

#[cfg(test)]
mod tests {
    use super::super::envelope::Headers;
    use super::*;

    fn message(group: Option<&'static str>) -> Message<'static> {
        let body = Some(Cow::Borrowed(&b""[..]));
        Message::new("test", "m".into(), body, Headers::default(), (None, 0)).in_group(group.map(Cow::Borrowed))
    }

    #[test]
    fn after_a_failed_message_the_rest_of_its_group_fails() {
        let mut failed = [false, false, true, false, false];
        fail_rest_of_groups(&["a", "b", "a", "b", "a"].map(|group| message(Some(group))), &mut failed);
        assert_eq!(failed, [false, false, true, false, true]);
    }

    #[test]
    fn without_a_group_a_message_fails_alone() {
        let mut failed = [true, false, false];
        fail_rest_of_groups(&[None; 3].map(message), &mut failed);
        assert_eq!(failed, [true, false, false]);
    }

    #[test]
    fn an_event_over_several_lines_is_sent_in_one() {
        assert_eq!(one_line("{\r\n  \"a\": \"\\n\"\n}".to_owned()), "{    \"a\": \"\\n\" }");
        assert_eq!(one_line("{}".to_owned()), "{}");
    }
}
