//! An EventBridge Pipe from an SQS queue, with the function as its enrichment. The payload is an array of the queue's records,
//! and the answer is an array of the same length. Each element is the answer to that record's body, as over HTTP.
//!
//! A Pipe deletes its records when the invocation succeeds, and redelivers all of them when it fails. So the invocation fails if
//! any event may not be applied.

use super::answer::{MAX_ANSWER_BYTES, report_lines, unreadable};
use super::batch::{Counts, EventOutcome, IncomingEvent, resolve_events};
use super::split_body::Batch;
use super::sqs::{Message, one_line, record, reject_lines};
use super::{HandlerError, Ingest, Reply};
use crate::clock::Clock;
use crate::event::Event;
use crate::output::Output;
use crate::session::Millis;
use crate::storage::SessionStorage;
use crate::timeline::Assignment;

/// Handles an invocation's records; all their events are resolved together.
pub(super) async fn handle<S: SessionStorage, C: Clock, O: Output>(
    ingest: &Ingest<S, C, O>,
    payload: &str,
    now: Millis,
    deadline: Millis,
) -> Result<Reply, HandlerError> {
    let records = record::of_array(payload)
        .map_err(|_| HandlerError("the payload is not an array of SQS records, as a Pipe sends them".to_owned()))?;
    let messages: Vec<Message<'_>> = records.into_iter().map(|record| Message::new(record, now)).collect();
    let decoded: Vec<_> = messages.iter().map(Message::decoded).collect();
    let (mut incoming, mut split_bodies) = (Vec::new(), Vec::with_capacity(messages.len()));
    for (message, body) in messages.iter().zip(&decoded) {
        let batch = message.raw_events(body, ingest.manager.projects());
        split_bodies.push(batch.as_ref().map(Batch::bytes).map_err(|&error| error));
        let Ok(Batch { raw_events, sent_at }) = batch else { continue };
        let origin = |index| message.origin(index, sent_at);
        incoming.extend(
            raw_events
                .into_iter()
                .enumerate()
                .map(|(index, raw_event)| IncomingEvent { raw_event, origin: origin(index) }),
        );
    }
    let line = |event: &Event<'_>, assignment: Option<&Assignment>| one_line(event.annotate(assignment));
    let outcomes = resolve_events(&ingest.manager, incoming.into_iter(), deadline, line).await;
    let mut counts = Counts::of(&outcomes);
    split_bodies
        .iter()
        .filter_map(|raw_events: &Result<Vec<&[u8]>, _>| raw_events.as_ref().err())
        .for_each(|error| counts.code(error.code()));
    if let Some(error) =
        outcomes.iter().find_map(|outcome| if let EventOutcome::Failed(error) = outcome { Some(error) } else { None })
    {
        let (failed, all) = (counts.failed, outcomes.len());
        return Err(HandlerError(format!(
            "{failed} of {all} events may not be applied ({}); the Pipe has to redeliver its records",
            error.code()
        )));
    }
    // A Pipe may have no target that reads the answer, so invalid events go to `rejects` as well, like those of a queue.
    let rejects = reject_lines(&messages, &split_bodies, &outcomes);
    if !ingest.rejects.send(&rejects).await.is_empty() {
        return Err(HandlerError(
            "the rejected events could not be sent to the rejects; the Pipe has to redeliver its records".to_owned(),
        ));
    }
    let mut rest = outcomes.as_slice();
    let mut elements = Vec::with_capacity(messages.len());
    for raw_events in &split_bodies {
        let (own, others) = rest.split_at(raw_events.as_ref().map_or(0, Vec::len));
        rest = others;
        elements.push(match raw_events {
            Ok(_) => report_lines(own),
            Err(error) => unreadable(*error),
        });
    }
    let json = format!("[{}]", elements.join(","));
    if json.len() > MAX_ANSWER_BYTES {
        let bytes = json.len();
        return Err(HandlerError(format!(
            "the answer has {bytes} bytes; at most {MAX_ANSWER_BYTES} are allowed; set a smaller batch size in the Pipe"
        )));
    }
    Ok(Reply { trigger: "pipe", status: None, counts, json })
}
