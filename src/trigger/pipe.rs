//! An EventBridge Pipe from an SQS queue, with the function as its enrichment: an array of the queue's records in, an array of
//! the same length out. Each element of it is the answer to that record's body, as over HTTP.
//!
//! A Pipe deletes its records when the invocation succeeds, and delivers all of them again when it fails. So the invocation
//! fails if any event is not known to be applied.

use serde_json::value::RawValue;

use super::answer::{MAX_ANSWER_BYTES, report_texts, unreadable};
use super::batch::{Counts, Fate, Item, settle};
use super::split::Batch;
use super::sqs::{Message, one_line, reject_lines};
use super::{HandlerError, Ingest, Reply};
use crate::clock::Clock;
use crate::event::Event;
use crate::output::Output;
use crate::session::Millis;
use crate::storage::SessionStorage;
use crate::timeline::Assignment;

/// Handles an invocation's records; all their events are resolved at once.
pub(super) async fn handle<S: SessionStorage, C: Clock, O: Output>(
    ingest: &Ingest<S, C, O>,
    payload: &str,
    now: Millis,
    deadline: Millis,
) -> Result<Reply, HandlerError> {
    let records: Vec<&RawValue> = serde_json::from_str(payload).map_err(|_| {
        HandlerError("the payload is not an array of SQS records, as a Pipe hands them over".to_owned())
    })?;
    let messages: Vec<Message<'_>> = records.into_iter().map(|record| Message::read(record, now)).collect();
    let decoded: Vec<_> = messages.iter().map(Message::decoded).collect();
    let (mut items, mut split) = (Vec::new(), Vec::with_capacity(messages.len()));
    for (message, body) in messages.iter().zip(&decoded) {
        let batch = message.slices(body, ingest.manager.config());
        split.push(batch.as_ref().map(Batch::bytes).map_err(|&error| error));
        let Ok(Batch { slices, sent_at }) = batch else { continue };
        let origin = |index| message.origin(index, sent_at);
        items.extend(slices.into_iter().enumerate().map(|(index, slice)| Item { slice, origin: origin(index) }));
    }
    let line = |event: &Event<'_>, assignment: Option<&Assignment>| one_line(event.annotate(assignment));
    let fates = settle(&ingest.manager, items.into_iter(), deadline, line).await;
    let mut counts = Counts::of(&fates);
    split
        .iter()
        .filter_map(|slices: &Result<Vec<&[u8]>, _>| slices.as_ref().err())
        .for_each(|error| counts.code(error.code()));
    if let Some(error) = fates.iter().find_map(|fate| if let Fate::Failed(error) = fate { Some(error) } else { None }) {
        let (failed, all) = (counts.failed, fates.len());
        return Err(HandlerError(format!(
            "{failed} of {all} events are not known to be applied ({}); the Pipe has to deliver its records again",
            error.code()
        )));
    }
    // Nobody has to read the answer: what can never be understood is set aside as a queue's is.
    let rejects = reject_lines(&messages, &split, &fates);
    if !ingest.rejects.send(&rejects).await.is_empty() {
        return Err(HandlerError(
            "the rejects could not be set aside; the Pipe has to deliver its records again".to_owned(),
        ));
    }
    let mut rest = fates.as_slice();
    let mut elements = Vec::with_capacity(messages.len());
    for slices in &split {
        let (own, others) = rest.split_at(slices.as_ref().map_or(0, Vec::len));
        rest = others;
        elements.push(match slices {
            Ok(_) => report_texts(own),
            Err(error) => unreadable(*error),
        });
    }
    let text = format!("[{}]", elements.join(","));
    if text.len() > MAX_ANSWER_BYTES {
        let bytes = text.len();
        return Err(HandlerError(format!(
            "the answer has {bytes} bytes; at most {MAX_ANSWER_BYTES} are allowed: set a smaller batch size of the Pipe"
        )));
    }
    Ok(Reply { door: "pipe", status: None, counts, text })
}
