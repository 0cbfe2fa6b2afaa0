//! A queue's records, read in the same pass as the payload around them. A payload with a record that is not as AWS sends it is
//! read again, record by record, so that a malformed record costs no other.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};
use serde_json::value::RawValue;

use crate::trigger::envelope::{string, string_bytes};

/// The value of a record's `eventSource`.
pub(in crate::trigger) const SOURCE: &str = "aws:sqs";

/// A record as AWS sends it: strings where strings belong.
pub(in crate::trigger) type Record<'a> = Members<'a, Text<'a>, Body<'a>>;

/// The members of a record that are read, with their strings as `T` and the body as `B`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "T: Deserialize<'de>, B: Deserialize<'de>"))]
pub(in crate::trigger) struct Members<'a, T, B> {
    pub message_id: Option<T>,
    pub body: Option<B>,
    #[serde(default = "Attributes::none")]
    pub attributes: Attributes<T>,
    #[serde(borrow)]
    pub message_attributes: Option<&'a RawValue>,
    #[serde(rename = "eventSourceARN")]
    pub queue: Option<T>,
    event_source: Option<T>,
}

/// A record's attributes that are read.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::trigger) struct Attributes<T> {
    pub sent_timestamp: Option<T>,
    pub message_group_id: Option<T>,
}

impl<T> Attributes<T> {
    fn none() -> Self {
        Self { sent_timestamp: None, message_group_id: None }
    }
}

/// A string, borrowed if it has no escapes.
#[derive(Debug)]
pub(in crate::trigger) struct Text<'a>(pub Cow<'a, str>);

/// The bytes of a string, borrowed if it has no escapes. Half of a surrogate pair becomes bytes that are not UTF-8.
#[derive(Debug)]
pub(in crate::trigger) struct Body<'a>(pub Cow<'a, [u8]>);

/// Reads the records of a payload that is nothing but a queue's, in one pass. Returns `None` for any other payload, and where a
/// record is not as AWS sends it.
pub(in crate::trigger) fn of_payload(payload: &str) -> Option<Vec<Record<'_>>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Payload<'a> {
        #[serde(borrow, rename = "Records")]
        records: Vec<Record<'a>>,
    }
    // Other payloads are not parsed twice.
    payload.trim_start().strip_prefix('{')?.trim_start().strip_prefix("\"Records\"")?;
    let Payload { records } = serde_json::from_str(payload).ok()?;
    let is_sqs = |record: &Record<'_>| record.event_source.as_ref().is_some_and(|source| source.0 == SOURCE);
    (!records.is_empty() && records.iter().all(is_sqs)).then_some(records)
}

/// Reads an array of records. A malformed record becomes one without a body.
///
/// # Errors
/// The JSON is not an array.
pub(in crate::trigger) fn of_array(array: &str) -> Result<Vec<Record<'_>>, serde_json::Error> {
    serde_json::from_str(array).or_else(|_| {
        let records: Vec<&RawValue> = serde_json::from_str(array)?;
        Ok(records.into_iter().map(Record::lenient).collect())
    })
}

impl<T, B> Members<'_, T, B> {
    /// A record without members.
    fn none() -> Self {
        let (message_id, queue, event_source, attributes) = (None, None, None, Attributes::none());
        Self { message_id, body: None, attributes, message_attributes: None, queue, event_source }
    }
}

impl<'a> Record<'a> {
    /// Reads a record of which each member may have any type.
    fn lenient(record: &'a RawValue) -> Self {
        let raw: Members<'a, &'a RawValue, &'a RawValue> =
            serde_json::from_str(record.get()).unwrap_or_else(|_| Members::none());
        let text = |value: Option<&'a RawValue>| value.and_then(string).map(Text);
        // A time may be a number.
        let sent = raw.attributes.sent_timestamp;
        let sent_timestamp = sent.map(|sent| Text(string(sent).unwrap_or(Cow::Borrowed(sent.get()))));
        Self {
            message_id: text(raw.message_id),
            body: raw.body.and_then(string_bytes).map(Body),
            attributes: Attributes { sent_timestamp, message_group_id: text(raw.attributes.message_group_id) },
            message_attributes: raw.message_attributes,
            queue: text(raw.queue),
            event_source: text(raw.event_source),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StringVisitor;
        impl<'de> Visitor<'de> for StringVisitor {
            type Value = Cow<'de, str>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Cow::Borrowed(text))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Cow::Owned(text.to_owned()))
            }
        }
        deserializer.deserialize_str(StringVisitor).map(Text)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Body<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BytesVisitor;
        impl<'de> Visitor<'de> for BytesVisitor {
            type Value = Cow<'de, [u8]>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string")
            }

            fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
                Ok(Cow::Borrowed(bytes))
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                Ok(Cow::Owned(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(BytesVisitor).map(Body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read of a record, however it is read.
    fn members(record: &Record<'_>) -> Vec<Option<String>> {
        let text = |text: &Option<Text<'_>>| text.as_ref().map(|text| text.0.to_string());
        let Attributes { sent_timestamp, message_group_id } = &record.attributes;
        let body = record.body.as_ref().map(|body| format!("{:?}", body.0));
        let attributes = record.message_attributes.map(|attributes| attributes.get().to_owned());
        vec![
            text(&record.message_id),
            body,
            text(sent_timestamp),
            text(message_group_id),
            attributes,
            text(&record.queue),
        ]
    }

    #[test]
    fn both_ways_read_the_same() {
        for record in [
            r#"{"messageId":"m","body":"[1]","eventSource":"aws:sqs"}"#,
            r#"{"messageId":"m\u0041","body":"a\n\ud800\"","attributes":{"SentTimestamp":"7","MessageGroupId":"g","x":[]},
                "messageAttributes":{"a":{}},"eventSourceARN":"arn:q.fifo","eventSource":"aws:sqs","md5OfBody":"x"}"#,
            r#"{"messageId":null,"body":null,"attributes":{},"messageAttributes":null,"eventSource":"aws:sqs"}"#,
        ] {
            let payload = format!(" {{ \"Records\":[{record},{record}]}}");
            let records = of_payload(&payload).unwrap_or_else(|| panic!("{record}"));
            let raw: &RawValue = serde_json::from_str(record).unwrap();
            assert_eq!(records.iter().map(members).collect::<Vec<_>>(), vec![members(&Record::lenient(raw)); 2]);
        }
    }

    #[test]
    fn other_payloads_and_malformed_records_are_read_the_slow_way() {
        for payload in [
            "[]",
            r#"{"Records":[]}"#,
            r#"{"Records":[{"eventSource":"aws:s3"}]}"#,
            r#"{"Records":[{"eventSource":"aws:sqs"},{"body":"x"}]}"#,
            r#"{"Records":[{"eventSource":"aws:sqs"}],"events":[]}"#,
            r#"{"Records":[{"eventSource":"aws:sqs","messageId":7}]}"#,
            r#"{"Records":[{"eventSource":"aws:sqs","body":{}}]}"#,
            r#"{"records":[{"eventSource":"aws:sqs"}]}"#,
        ] {
            assert!(of_payload(payload).is_none(), "{payload}");
        }
        let array =
            r#"[{"messageId":7,"body":"b","attributes":{"SentTimestamp":1773144000000}},{"messageId":"m","body":7},8]"#;
        let records: Vec<_> = of_array(array).unwrap().iter().map(members).collect();
        assert_eq!(records[0][..3], [None, Some("[98]".to_owned()), Some("1773144000000".to_owned())]);
        assert_eq!((&records[1][0], &records[1][1]), (&Some("m".to_owned()), &None));
        assert_eq!(records[2], vec![None; 6]);
        assert!(of_array("7").is_err());
    }
}
