//! Records of an SQS queue, standard or FIFO. A message's body is read like an HTTP body. Its attributes `content-encoding`
//! (gzip, encoded as base64) and `content-type` are read like headers. `session-tracking-received-at` and `session-tracking-message-id` are what a redriven message
//! was first sent with ([`redriven`]).
//!
//! A failed message is reported to SQS, and the queue redelivers it.

pub(super) mod record;
mod redriven;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::answer::json;
use super::envelope::{Headers, millis, string};
use super::message::Message;
use super::process::process;
use super::{Ingest, Reply};
use crate::clock::Clock;
use crate::output::Output;
use crate::session::Millis;
use crate::storage::SessionStorage;
use record::Attributes;
pub(super) use record::Record;
use redriven::Redriven;

/// Takes records as messages.
pub(super) fn messages(records: Vec<Record<'_>>, now: Millis) -> Vec<Message<'_>> {
    records.into_iter().map(|record| message(record, now)).collect()
}

/// Takes a record as a message.
pub(super) fn message(record: Record<'_>, now: Millis) -> Message<'_> {
    let is_fifo = record.queue.is_some_and(|arn| arn.0.ends_with(".fifo"));
    let Attributes { sent_timestamp, message_group_id } = record.attributes;
    let sent = sent_timestamp.and_then(|sent| millis(&sent.0));
    let redriven = Redriven::read(record.message_attributes);
    let sent = sent.into_iter().chain(redriven.received_at).min();
    let id = record.message_id.map(|id| id.0).unwrap_or_default();
    let headers = Headers::read(record.message_attributes, attribute);
    // In a standard queue, groups only serve fairness.
    let group = message_group_id.filter(|_| is_fifo).map(|group| group.0);
    let message = Message::new("sqs", id, record.body.map(|body| body.0), headers, (sent, now)).in_group(group);
    match redriven.message_id {
        Some(first_id) => message.with_origin(first_id),
        None => message,
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

/// Handles an invocation's messages.
pub(super) async fn handle<S: SessionStorage, C: Clock, O: Output>(
    ingest: &Ingest<S, C, O>,
    messages: Vec<Message<'_>>,
    deadline: Millis,
) -> Reply {
    let (failed, counts) = process(ingest, &messages, deadline).await;
    // The id of a malformed record is empty. Then Lambda treats the whole batch as failed, which is the only way to get the
    // record redelivered.
    let failures = messages.iter().zip(&failed).filter(|&(_, &failed)| failed);
    let json = batch_item_failures(failures.map(|(message, _)| &*message.id));
    Reply { trigger: "sqs", status: None, counts, json }
}

/// Returns the answer to Lambda that names the messages to redeliver.
pub(super) fn batch_item_failures<'a>(ids: impl Iterator<Item = &'a str>) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer<'a> {
        batch_item_failures: Vec<Failure<'a>>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Failure<'a> {
        item_identifier: &'a str,
    }
    json(&Answer { batch_item_failures: ids.map(|item_identifier| Failure { item_identifier }).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = 1_773_144_000_000;

    #[test]
    fn a_record_is_read() {
        let message = |queue: &str| {
            let record = format!(
                r#"[{{"messageId":"m","body":"","attributes":{{"MessageGroupId":"a","SentTimestamp":"1773143999000"}},
                "eventSourceARN":"arn:aws:sqs:eu-central-1:1:{queue}"}}]"#
            );
            super::message(record::of_array(Box::leak(record.into_boxed_str())).unwrap().remove(0), NOW)
        };
        let fifo = message("events.fifo");
        assert_eq!((&*fifo.id, fifo.group.as_deref()), ("m", Some("a")));
        let delivery = fifo.origin(0, None).delivery;
        assert_eq!((delivery.received_at, delivery.trusts_received_at), (NOW - 1_000, true));
        assert_eq!(message("events").group, None);
    }

    #[test]
    fn the_answer_names_the_failed_messages() {
        let answer = r#"{"batchItemFailures":[{"itemIdentifier":"a"},{"itemIdentifier":"b"}]}"#;
        assert_eq!(batch_item_failures(["a", "b"].into_iter()), answer);
        assert_eq!(batch_item_failures([].into_iter()), r#"{"batchItemFailures":[]}"#);
    }
}
