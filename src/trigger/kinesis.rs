//! Records of a Kinesis stream, as an event source mapping or an EventBridge Pipe delivers them. The data of a record is read like
//! an HTTP body: events in any form, compressed or not. Records that the Kinesis Producer Library aggregated are unpacked.
//!
//! A shard is read in order, up to the record that failed: the answer names the lowest failed sequence number, and Lambda delivers
//! the shard from there on again. A record that can never succeed goes to the rejects and blocks nothing.

mod aggregated;

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_PAD_INDIFFERENT;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::body::{BodyError, Limits};
use super::envelope::{Headers, string};
use super::message::Message;
use super::process::process;
use super::sqs::batch_item_failures;
use super::{Ingest, Reply};
use crate::clock::Clock;
use crate::event::time_of_json;
use crate::output::Output;
use crate::session::Millis;
use crate::storage::SessionStorage;

/// The value of a record's `eventSource`.
pub(super) const SOURCE: &str = "aws:kinesis";

/// The members of a record that are read. An event source mapping has some of them in `kinesis`, a Pipe has all beside each other.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Members<'a> {
    #[serde(borrow, rename = "eventID")]
    event_id: Option<&'a RawValue>,
    #[serde(borrow)]
    kinesis: Option<&'a RawValue>,
    #[serde(borrow)]
    sequence_number: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    approximate_arrival_timestamp: Option<&'a RawValue>,
}

impl<'a> Members<'a> {
    /// Reads a record. One that is not an object has no members.
    fn of(record: &'a RawValue) -> Self {
        serde_json::from_str(record.get()).unwrap_or_default()
    }
}

/// Reads the messages of each record of an array. An aggregated record is several messages with the same id.
///
/// # Errors
/// The JSON is not an array.
pub(super) fn messages(array: &str, now: Millis) -> Result<Vec<Vec<Message<'_>>>, serde_json::Error> {
    let records: Vec<&RawValue> = serde_json::from_str(array)?;
    Ok(records.into_iter().map(|record| messages_of(record, now)).collect())
}

fn messages_of<'a>(record: &'a RawValue, now: Millis) -> Vec<Message<'a>> {
    let outer = Members::of(record);
    let own = outer.kinesis.map_or_else(|| Members::of(record), Members::of);
    let sequence_number = own.sequence_number.and_then(string).unwrap_or_default();
    // Such as `shardId-000000000006:49590338271490256608559692538361571095921575989136588898`. Sequence numbers of other shards
    // may be equal.
    let event_id = outer.event_id.and_then(string).unwrap_or_else(|| sequence_number.clone());
    let shard = event_id.split(':').next().unwrap_or_default().to_owned();
    let in_shard = |message: Message<'a>, origin: String| {
        message.with_origin(origin).in_group(Some(Cow::Owned(shard.clone()))).within(Limits::DIRECT)
    };
    let data = own.data.and_then(string).unwrap_or_default();
    let Ok(bytes) = STANDARD_PAD_INDIFFERENT.decode(data.trim_ascii()) else {
        let body = Cow::Owned(data.into_owned().into_bytes());
        let message = Message::undecodable("kinesis", sequence_number, body, BodyError::InvalidBase64);
        return vec![in_shard(message, event_id.into_owned())];
    };
    let arrived = own.approximate_arrival_timestamp.and_then(|time| time_of_json(time.get()));
    let message = |body: Vec<u8>| {
        let (body, headers) = (Some(Cow::Owned(body)), Headers::default());
        Message::new("kinesis", sequence_number.clone(), body, headers, (arrived, now))
    };
    let Some(records) = aggregated::unpack(&bytes) else {
        return vec![in_shard(message(bytes), event_id.into_owned())];
    };
    let origin = |index| format!("{event_id}/{index}");
    records.into_iter().enumerate().map(|(index, data)| in_shard(message(data.to_vec()), origin(index))).collect()
}

/// Handles an invocation's messages.
pub(super) async fn handle<S: SessionStorage, C: Clock, O: Output>(
    ingest: &Ingest<S, C, O>,
    messages: Vec<Message<'_>>,
    deadline: Millis,
) -> Reply {
    let (failed, counts) = process(ingest, &messages, deadline).await;
    let failures = messages.iter().zip(failed).filter(|&(_, failed)| failed).map(|(message, _)| message);
    let json = batch_item_failures(lowest(failures).into_iter());
    Reply { trigger: "kinesis", status: None, counts, json }
}

/// Returns the lowest sequence number of each shard. (An invocation has records of one shard only.) A record without a sequence
/// number is empty here; Lambda then delivers the whole batch again.
fn lowest<'m>(failed: impl Iterator<Item = &'m Message<'m>>) -> Vec<&'m str> {
    let mut lowest: BTreeMap<Option<&str>, &str> = BTreeMap::new();
    // Sequence numbers are decimal numbers with more digits than any integer type has.
    let value = |number: &'m str| (number.trim_start_matches('0').len(), number.trim_start_matches('0'));
    for message in failed {
        let number: &str = &message.id;
        let first = lowest.entry(message.group.as_deref()).or_insert(number);
        if value(number) < value(first) {
            *first = number;
        }
    }
    lowest.into_values().collect()
}

#[cfg(test)]
mod tests {
    use base64::prelude::BASE64_STANDARD;
    use serde_json::{Value, json};

    use super::*;

    const NOW: Millis = 1_773_144_060_000;

    fn leaked(records: &Value) -> &'static str {
        Box::leak(records.to_string().into_boxed_str())
    }

    fn flat(data: &[u8]) -> Value {
        json!({"eventID": "shardId-000000000001:7", "sequenceNumber": "7", "data": BASE64_STANDARD.encode(data),
            "approximateArrivalTimestamp": 1_773_144_000.123, "eventSource": "aws:kinesis"})
    }

    #[test]
    fn a_record_of_a_mapping_and_one_of_a_pipe_are_the_same_message() {
        let flat = flat(b"[1,2]");
        let nested = json!({"eventID": flat["eventID"], "eventSource": "aws:kinesis", "kinesis": flat});
        for record in [flat, nested] {
            let messages = messages(leaked(&json!([record])), NOW).unwrap().remove(0);
            let [message] = messages.as_slice() else { panic!("{} messages", messages.len()) };
            let origin = message.origin(0, None);
            assert_eq!((&*message.id, origin.id), ("7", "shardId-000000000001:7"));
            assert_eq!(message.group.as_deref(), Some("shardId-000000000001"));
            assert_eq!(origin.delivery.received_at, 1_773_144_000_123);
            let decoded = message.decoded();
            let events = message.raw_events(&decoded).unwrap();
            assert_eq!(events.bytes(), [b"1", b"2"]);
        }
    }

    #[test]
    fn an_aggregated_record_is_several_messages_of_one_id() {
        let data = aggregated::tests::aggregate(&[b"{\"a\":1}", b"{\"b\":2}{\"c\":3}"]);
        let messages = messages(leaked(&json!([flat(&data)])), NOW).unwrap().remove(0);
        let ids: Vec<_> = messages.iter().map(|message| (&*message.id, message.origin(0, None).id)).collect();
        assert_eq!(ids, [("7", "shardId-000000000001:7/0"), ("7", "shardId-000000000001:7/1")]);
        let decoded = messages[1].decoded();
        let events = messages[1].raw_events(&decoded).unwrap();
        assert_eq!(events.bytes(), [b"{\"b\":2}", b"{\"c\":3}"]);
    }

    #[test]
    fn malformed_records_are_messages_without_events() {
        let mut not_base64 = flat(b"");
        not_base64["data"] = json!("{}!");
        for (record, wanted) in [
            (json!(7), BodyError::Empty),
            (json!({"kinesis": 7}), BodyError::Empty),
            (json!({"eventID": "s:1", "data": 7}), BodyError::Empty),
            (flat(b""), BodyError::Empty),
            (not_base64, BodyError::InvalidBase64),
        ] {
            let messages = messages(leaked(&json!([record])), NOW).unwrap().remove(0);
            let decoded = messages[0].decoded();
            assert_eq!(messages[0].raw_events(&decoded).err(), Some(wanted), "{record}");
        }
        assert!(super::messages("7", NOW).is_err());
    }

    #[test]
    fn the_lowest_number_of_each_shard_is_named() {
        let message = |number: &'static str, shard: &'static str| {
            let body = Some(Cow::Borrowed(&b""[..]));
            Message::new("kinesis", number.into(), body, Headers::default(), (None, NOW)).in_group(Some(shard.into()))
        };
        let failed = [message("100", "a"), message("99", "a"), message("9", "b"), message("0101", "a")];
        assert_eq!(lowest(failed.iter()), ["99", "9"]);
        assert_eq!(lowest([message("5", "a"), message("", "a")].iter()), [""]);
        assert_eq!(lowest([].iter()), [""; 0]);
    }
}
