//! An EventBridge Pipe from an SQS queue or a Kinesis stream, with the function as its enrichment. The payload is an array of the
//! source's records, and the answer is an array of the same length. Each element is the answer to that record's body, as over
//! HTTP. (As a Pipe's target, the function handles the array like an event source mapping's: [`super::PipeRole`].)
//!
//! A Pipe deletes its records when the invocation succeeds, and redelivers all of them when it fails: an enrichment cannot report
//! a part of them. So the invocation fails if any event may not be applied.

use super::answer::{MAX_ANSWER_BYTES, report_lines, unreadable};
use super::batch::{Counts, EventOutcome};
use super::body::BodyError;
use super::message::Message;
use super::process::{Resolved, decode_chunk};
use super::{HandlerError, Ingest, Reply};
use crate::clock::Clock;
use crate::output::Output;
use crate::session::Millis;
use crate::storage::SessionStorage;

/// What came of a message: how many events its body has, or why it cannot be read.
struct Body {
    events: Result<usize, BodyError>,
    is_test: bool,
}

/// Handles an invocation's records, each with its messages.
pub(super) async fn handle<S: SessionStorage, C: Clock, O: Output>(
    ingest: &Ingest<S, C, O>,
    records: Vec<Vec<Message<'_>>>,
    deadline: Millis,
) -> Result<Reply, HandlerError> {
    let messages_of_records: Vec<usize> = records.iter().map(Vec::len).collect();
    let messages: Vec<Message<'_>> = records.into_iter().flatten().collect();
    let (mut bodies, mut outcomes) = (Vec::with_capacity(messages.len()), Vec::new());
    let mut counts = Counts::default();
    let mut first = 0;
    while first < messages.len() {
        let rest = &messages[first..];
        let decoded = decode_chunk(rest, &vec![false; rest.len()]);
        let chunk = &rest[..decoded.len()];
        let mut resolved = Resolved::of(&ingest.manager, chunk, &decoded, deadline).await;
        counts.add(std::mem::take(&mut resolved.counts));
        send_rejects(ingest, chunk, &resolved).await?;
        bodies.extend(resolved.by_message().zip(chunk).map(|((events, _), message)| Body {
            events: events.as_ref().map(Vec::len).map_err(|&error| error),
            is_test: message.is_test,
        }));
        outcomes.extend(resolved.into_outcomes());
        // Else a batch of compressed bodies could take any amount of memory.
        check_size(
            outcomes.iter().map(|outcome| if let EventOutcome::Applied(line) = outcome { line.len() } else { 0 }),
        )?;
        first += decoded.len();
    }
    let json = answer(&messages_of_records, &bodies, &outcomes);
    check_size(std::iter::once(json.len()))?;
    Ok(Reply { trigger: "pipe", status: None, counts, json })
}

/// Sends the rejected events of a chunk, because a Pipe may have no target that reads the answer.
async fn send_rejects<S: SessionStorage, C: Clock, O: Output>(
    ingest: &Ingest<S, C, O>,
    messages: &[Message<'_>],
    resolved: &Resolved<'_>,
) -> Result<(), HandlerError> {
    if let Some((failed, all, code)) = resolved.failure() {
        return Err(HandlerError(format!(
            "{failed} of {all} events may not be applied ({code}); the Pipe has to redeliver its records"
        )));
    }
    let rejects = resolved.rejects(messages, &vec![false; messages.len()]);
    if rejects.send(&ingest.rejects).await.is_empty() {
        return Ok(());
    }
    Err(HandlerError(
        "the rejected events could not be sent to the rejects; the Pipe has to redeliver its records".to_owned(),
    ))
}

/// Returns the answer: for each record an element with the outcomes of its events.
fn answer(messages_of_records: &[usize], bodies: &[Body], outcomes: &[EventOutcome<String>]) -> String {
    let (mut bodies, mut outcomes) = (bodies, outcomes);
    let element = |&messages: &usize| {
        let (own, other_bodies) = bodies.split_at(messages);
        let events = own.iter().filter_map(|body| body.events.ok()).sum();
        let (own_outcomes, other_outcomes) = outcomes.split_at(events);
        (bodies, outcomes) = (other_bodies, other_outcomes);
        let error = own.iter().find_map(|body| body.events.err());
        match error {
            Some(error) if own_outcomes.is_empty() => unreadable(error),
            _ if own.iter().all(|body| body.is_test) => "{\"events\":[],\"rejected\":[]}".to_owned(),
            // What cannot be read beside readable data, in an aggregated record, is in the rejects only.
            _ => report_lines(own_outcomes),
        }
    };
    let elements: Vec<String> = messages_of_records.iter().map(element).collect();
    format!("[{}]", elements.join(","))
}

fn check_size(sizes: impl Iterator<Item = usize>) -> Result<(), HandlerError> {
    let bytes: usize = sizes.sum();
    if bytes <= MAX_ANSWER_BYTES {
        return Ok(());
    }
    Err(HandlerError(format!(
        "the answer has {bytes} bytes or more; at most {MAX_ANSWER_BYTES} are allowed; set a smaller batch size in the Pipe"
    )))
}
