//! Recognizes the caller by the members of its envelope, in one pass over the payload. A member stays unparsed until it is
//! needed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::sqs::record::{self, Record};
use super::{alb, asynchronous, kinesis, message};
use crate::session::Millis;

/// Every member of an envelope that identifies a caller or is read later.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Envelope<'a> {
    #[serde(borrow, rename = "Records")]
    pub records: Option<&'a RawValue>,
    #[serde(borrow)]
    pub request_context: Option<&'a RawValue>,
    #[serde(borrow)]
    pub http_method: Option<&'a RawValue>,
    #[serde(borrow)]
    pub raw_path: Option<&'a RawValue>,
    #[serde(borrow)]
    pub raw_query_string: Option<&'a RawValue>,
    #[serde(borrow)]
    pub route_key: Option<&'a RawValue>,
    #[serde(borrow)]
    pub resource: Option<&'a RawValue>,
    #[serde(borrow)]
    pub path: Option<&'a RawValue>,
    #[serde(borrow)]
    pub query_string_parameters: Option<&'a RawValue>,
    #[serde(borrow)]
    pub multi_value_query_string_parameters: Option<&'a RawValue>,
    #[serde(borrow)]
    pub headers: Option<&'a RawValue>,
    #[serde(borrow)]
    pub multi_value_headers: Option<&'a RawValue>,
    #[serde(borrow)]
    pub body: Option<&'a RawValue>,
    #[serde(borrow)]
    pub is_base64_encoded: Option<&'a RawValue>,
    #[serde(borrow)]
    pub events: Option<&'a RawValue>,
    #[serde(borrow)]
    pub batch: Option<&'a RawValue>,
    #[serde(borrow)]
    pub event: Option<&'a RawValue>,
    #[serde(borrow, rename = "distinct_id")]
    pub distinct_id: Option<&'a RawValue>,
    #[serde(borrow, rename = "get_session")]
    pub get_session: Option<&'a RawValue>,
    #[serde(borrow, rename = "end_session")]
    pub end_session: Option<&'a RawValue>,
    #[serde(borrow, rename = "erase_visitor")]
    pub erase_visitor: Option<&'a RawValue>,
    #[serde(borrow)]
    pub explain: Option<&'a RawValue>,
    #[serde(borrow, rename = "detail-type")]
    pub detail_type: Option<&'a RawValue>,
    #[serde(borrow)]
    pub source: Option<&'a RawValue>,
    #[serde(borrow)]
    pub delivery_stream_arn: Option<&'a RawValue>,
    #[serde(borrow)]
    pub invocation_id: Option<&'a RawValue>,
    #[serde(borrow, rename = "Event")]
    pub s3_event: Option<&'a RawValue>,
}

/// The caller of an invocation.
pub(super) enum Caller<'a> {
    /// API Gateway's HTTP API or a function URL, payload 2.0.
    Http2(Envelope<'a>),
    /// API Gateway's REST API, payload 1.0.
    Http1(Envelope<'a>),
    /// An Application Load Balancer.
    Alb(Envelope<'a>),
    /// SQS, with its records.
    Sqs(Vec<Record<'a>>),
    /// Kinesis, with the array of its records.
    Kinesis(&'a str),
    /// SNS, with the array of its records.
    Sns(&'a str),
    /// An event of an EventBridge bus, which is the payload.
    EventBridge,
    /// A Firehose stream, whose records are in the payload.
    Firehose,
    /// An EventBridge Pipe from a source: the payload is the array of its records.
    Pipe(PipeSource),
    /// S3's test message.
    S3Test,
    /// A direct invocation with events: the payload is the body.
    Events,
    /// A direct invocation that reads a session, with the session's id.
    GetSession(&'a RawValue),
    /// A direct invocation that ends a session, with the session's id.
    EndSession(&'a RawValue),
    /// A direct invocation that erases a visitor, who is named in the payload.
    EraseVisitor,
    /// A direct invocation that asks what would become of these events.
    Explain(&'a RawValue),
    /// Another caller, with what the payload seems to be.
    Unknown(&'static str),
}

/// The source of a Pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PipeSource {
    Sqs,
    Kinesis,
}

impl<'a> Caller<'a> {
    /// Recognizes the caller by its payload.
    pub fn of(payload: &'a str) -> Self {
        match payload.trim_start().as_bytes().first() {
            Some(b'{') => {}
            Some(b'[') => return Self::of_array(payload.trim_start()),
            // Anything else can only be events: either lines of JSON, or a body that will be rejected.
            _ => return Self::Events,
        }
        if let Some(records) = record::of_payload(payload) {
            return Self::Sqs(records);
        }
        let Ok(envelope) = serde_json::from_str::<Envelope<'a>>(payload) else { return Self::Events };
        match envelope {
            Envelope { events: Some(_), .. }
            | Envelope { batch: Some(_), .. }
            | Envelope { event: Some(_), .. }
            | Envelope { distinct_id: Some(_), .. } => Self::Events,
            Envelope { records: Some(records), .. } => Self::of_records(records.get()),
            Envelope { request_context: Some(context), http_method: Some(_), .. } => {
                if alb::is_request(context) {
                    Self::Alb(envelope)
                } else {
                    Self::Http1(envelope)
                }
            }
            Envelope { request_context: Some(_), raw_path: Some(_), .. } => Self::Http2(envelope),
            Envelope { get_session: Some(id), .. } => Self::GetSession(id),
            Envelope { end_session: Some(id), .. } => Self::EndSession(id),
            Envelope { erase_visitor: Some(_), .. } => Self::EraseVisitor,
            Envelope { explain: Some(body), .. } => Self::Explain(body),
            Envelope { delivery_stream_arn: Some(_), .. } | Envelope { invocation_id: Some(_), .. } => Self::Firehose,
            Envelope { detail_type: Some(_), source, .. } => match source.and_then(string) {
                // Only AWS itself can send such events, and none of them is one of a visitor.
                Some(source) if source.starts_with("aws.") => Self::Unknown("an EventBridge event of an AWS service"),
                _ => Self::EventBridge,
            },
            Envelope { s3_event: Some(event), .. } if string(event).as_deref() == Some(message::S3_TEST_EVENT) => {
                Self::S3Test
            }
            _ => Self::Unknown("an object without a member that is known"),
        }
    }

    /// Recognizes the caller by its records.
    fn of_records(records: &'a str) -> Self {
        match first_source(records).as_deref() {
            // An array, because its first element was read.
            Some(record::SOURCE) => Self::Sqs(record::of_array(records).unwrap_or_default()),
            Some(kinesis::SOURCE) => Self::Kinesis(records),
            Some(asynchronous::SNS_SOURCE) => Self::Sns(records),
            Some("aws:s3") => Self::Unknown("an S3 event"),
            Some("aws:dynamodb") => Self::Unknown("a DynamoDB stream's event"),
            _ => Self::Unknown("records of an unknown source"),
        }
    }

    /// Recognizes the caller by an array: it holds events, or the records of a Pipe.
    fn of_array(payload: &'a str) -> Self {
        match first_source(payload).as_deref() {
            None => Self::Events,
            Some(record::SOURCE) => Self::Pipe(PipeSource::Sqs),
            Some(kinesis::SOURCE) => Self::Pipe(PipeSource::Kinesis),
            Some("aws:dynamodb") => Self::Unknown("an array of a DynamoDB stream's records"),
            Some(_) => Self::Unknown("an array of records of an unknown source"),
        }
    }
}

/// Returns the source of an array's first record. SNS spells the member `EventSource`. An element with a `distinct_id` is an
/// event, which may have a field `eventSource` of its own.
fn first_source(records: &str) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Source<'a> {
        #[serde(borrow, alias = "EventSource")]
        event_source: Option<&'a RawValue>,
        #[serde(borrow, rename = "distinct_id")]
        distinct_id: Option<&'a RawValue>,
    }
    // Reads the first element only, because an array of events can be large.
    let elements = records.strip_prefix('[')?;
    let mut elements = serde_json::Deserializer::from_str(elements).into_iter::<Source<'_>>();
    let first = elements.next()?.ok()?;
    first.event_source.filter(|_| first.distinct_id.is_none()).and_then(string)
}

/// Returns the string that a JSON value holds, without a copy if it has no escapes. Returns `None` for another type.
pub(super) fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    crate::event::string(raw.get())
}

/// Returns the bytes of the string that a JSON value holds, like [`string`]. Half of a surrogate pair becomes bytes that are
/// not UTF-8. Then only its event is rejected, and not the whole body.
pub(super) fn string_bytes(raw: &RawValue) -> Option<Cow<'_, [u8]>> {
    match raw.get().strip_prefix('"')?.strip_suffix('"')? {
        inner if inner.contains('\\') => serde_json::from_str::<Bytes>(raw.get()).ok().map(|bytes| Cow::Owned(bytes.0)),
        inner => Some(Cow::Borrowed(inner.as_bytes())),
    }
}

/// The bytes of a JSON string.
struct Bytes(Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StringVisitor;
        impl Visitor<'_> for StringVisitor {
            type Value = Bytes;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(StringVisitor)
    }
}

/// Returns a time in milliseconds since 1970, from a JSON number or string. Returns `None` for a time before the year 2000,
/// because some emulators send seconds.
pub(super) fn time(raw: Option<&RawValue>) -> Option<Millis> {
    let raw = raw?;
    millis(&string(raw).unwrap_or(Cow::Borrowed(raw.get())))
}

/// Like [`time`], from the text of a number.
pub(super) fn millis(digits: &str) -> Option<Millis> {
    const EARLIEST: Millis = 946_684_800_000;
    digits.parse().ok().filter(|&time| time >= EARLIEST)
}

/// Returns when the payload was received: the envelope's time if it has one and it is not in the future, otherwise `now`.
pub(super) fn received_at(stated: Option<Millis>, now: Millis) -> Millis {
    stated.map_or(now, |stated| stated.min(now))
}

/// The headers that are read of every request. The case of their names does not matter.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Headers<'a> {
    pub content_type: Option<Cow<'a, str>>,
    pub content_encoding: Option<Cow<'a, str>>,
    pub origin: Option<Cow<'a, str>>,
}

impl<'a> Headers<'a> {
    /// Fills in the missing headers from `other`.
    pub fn or(self, other: Self) -> Self {
        Self {
            content_type: self.content_type.or(other.content_type),
            content_encoding: self.content_encoding.or(other.content_encoding),
            origin: self.origin.or(other.origin),
        }
    }

    /// Reads a map of headers, each value with `value`. Anything but a map has no headers.
    pub fn read(raw: Option<&'a RawValue>, value: fn(&'a RawValue) -> Option<Cow<'a, str>>) -> Self {
        raw.and_then(|raw| serde_json::Deserializer::from_str(raw.get()).deserialize_map(HeaderMap(value)).ok())
            .unwrap_or_default()
    }

    /// Returns a header's value: a string, or the first string of an array.
    pub fn value(raw: &'a RawValue) -> Option<Cow<'a, str>> {
        let first = |list: Vec<&'a RawValue>| list.first().copied().and_then(string);
        string(raw).or_else(|| first(serde_json::from_str(raw.get()).ok()?))
    }
}

/// Returns the value of one header, by its name in lower case. It parses the whole map, for requests that need a header that
/// others do not.
pub(super) fn header(raw: &RawValue, name: &str) -> Option<String> {
    attribute_of(raw, name, Headers::value).map(Cow::into_owned)
}

/// Returns one value of a map of headers or attributes, by its name in lower case, read with `value`. It parses the whole map.
pub(super) fn attribute_of<'a>(
    raw: &'a RawValue,
    name: &str,
    value: fn(&'a RawValue) -> Option<Cow<'a, str>>,
) -> Option<Cow<'a, str>> {
    let map: BTreeMap<Cow<'a, str>, &'a RawValue> = serde_json::from_str(raw.get()).ok()?;
    value(map.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| *value)?)
}

struct HeaderMap<'a>(fn(&'a RawValue) -> Option<Cow<'a, str>>);

impl<'a> Visitor<'a> for HeaderMap<'a> {
    type Value = Headers<'a>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a map of headers")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Headers<'a>, A::Error> {
        let mut headers = Headers::default();
        while let Some(name) = map.next_key::<Cow<'a, str>>()? {
            if name.eq_ignore_ascii_case("content-type") {
                headers.content_type = (self.0)(map.next_value()?);
            } else if name.eq_ignore_ascii_case("content-encoding") {
                headers.content_encoding = (self.0)(map.next_value()?);
            } else if name.eq_ignore_ascii_case("origin") {
                headers.origin = (self.0)(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(headers)
    }
}

#[cfg(test)]
mod tests;
