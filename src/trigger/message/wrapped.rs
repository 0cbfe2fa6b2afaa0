//! The envelopes around a message's body: a topic's (SNS), when raw message delivery is off, as it is by default, and a bus's
//! (EventBridge), when a rule sends the whole event, as it does by default. S3's test message is recognized here, too, because it
//! comes the same ways.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::event::time_of_json;
use crate::session::Millis;
use crate::trigger::envelope::{Headers, string, string_bytes};

/// Limit of nested envelopes that are taken off: a bus's event through a topic that forwards it to another topic.
pub(super) const MAX_NESTED: usize = 3;

/// The content of a body.
pub(super) enum Content {
    /// The events themselves.
    Own,
    /// S3's test message: it sends one when notifications are set up.
    Test,
    /// An envelope with a message in it.
    Wrapped(Wrapped),
}

/// A message that was in an envelope.
pub(super) struct Wrapped {
    /// The message's id. It stays the same when the topic or the bus sends it again.
    pub id: String,
    pub body: Vec<u8>,
    /// The message's attributes that are read like headers.
    pub headers: Headers<'static>,
    /// When the topic or the bus received it.
    pub sent: Option<Millis>,
}

/// Returns what a body is. Of a body that begins like an event, it reads no more than the first name.
pub(super) fn content(body: &[u8]) -> Content {
    let is_name =
        |inner: &[u8], name: &str| inner.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'"'));
    let object = body.trim_ascii_start().strip_prefix(b"{").unwrap_or_default();
    let content = match object.trim_ascii_start().strip_prefix(b"\"") {
        // SNS and S3 begin every name with a capital, and no field of an event does.
        Some(inner) if inner.first().is_some_and(u8::is_ascii_uppercase) => of_topic(body),
        Some(inner) if EVENT_NAMES.iter().any(|name| is_name(inner, name)) => None,
        Some(_) => of_bus(body),
        None => None,
    };
    content.unwrap_or(Content::Own)
}

/// Names that events begin with, and no envelope does. The order of an envelope's members is not documented.
const EVENT_NAMES: [&str; 8] =
    ["uuid", "event", "distinct_id", "timestamp", "properties", "events", "batch", "project"];

/// Reads a topic's notification, or S3's test message.
fn of_topic(body: &[u8]) -> Option<Content> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Envelope<'a> {
        r#type: Option<Cow<'a, str>>,
        message_id: Option<String>,
        topic_arn: Option<Cow<'a, str>>,
        message: Option<String>,
        #[serde(borrow)]
        timestamp: Option<&'a RawValue>,
        #[serde(borrow)]
        message_attributes: Option<&'a RawValue>,
        #[serde(borrow)]
        event: Option<Cow<'a, str>>,
    }
    let envelope: Envelope<'_> = serde_json::from_slice(body).ok()?;
    if envelope.event.as_deref() == Some(S3_TEST_EVENT) {
        return Some(Content::Test);
    }
    envelope.topic_arn.filter(|_| envelope.r#type.as_deref() == Some("Notification"))?;
    let Headers { content_type, content_encoding, .. } = Headers::read(envelope.message_attributes, attribute);
    let owned = |value: Option<Cow<'_, str>>| value.map(|value| Cow::Owned(value.into_owned()));
    Some(Content::Wrapped(Wrapped {
        id: envelope.message_id?,
        body: envelope.message?.into_bytes(),
        headers: Headers { content_type: owned(content_type), content_encoding: owned(content_encoding), origin: None },
        sent: envelope.timestamp.and_then(|time| time_of_json(time.get())),
    }))
}

/// The value of `Event` in S3's test message.
pub(in crate::trigger) const S3_TEST_EVENT: &str = "s3:TestEvent";

/// Returns the string value of a notification's attribute.
fn attribute(raw: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Attribute<'a> {
        #[serde(borrow)]
        value: Option<&'a RawValue>,
    }
    serde_json::from_str::<Attribute<'_>>(raw.get()).ok()?.value.and_then(string)
}

/// Reads an event of a bus. Its `detail` is the body.
fn of_bus(body: &[u8]) -> Option<Content> {
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Envelope<'a> {
        id: Option<String>,
        #[allow(dead_code, reason = "every event of a bus has it")]
        detail_type: Cow<'a, str>,
        #[allow(dead_code, reason = "every event of a bus has it")]
        source: Cow<'a, str>,
        #[serde(borrow)]
        time: Option<&'a RawValue>,
        #[serde(borrow)]
        detail: &'a RawValue,
        #[serde(borrow, rename = "distinct_id")]
        distinct_id: Option<&'a RawValue>,
    }
    // Most other bodies do not contain these bytes, so they are not parsed twice.
    memchr::memmem::find(body, b"\"detail-type\"")?;
    // An event of our own may have fields of these names.
    let envelope = serde_json::from_slice(body).ok().filter(|e: &Envelope<'_>| e.distinct_id.is_none())?;
    let detail = string_bytes(envelope.detail).unwrap_or(Cow::Borrowed(envelope.detail.get().as_bytes()));
    Some(Content::Wrapped(Wrapped {
        id: envelope.id.unwrap_or_default(),
        body: detail.into_owned(),
        headers: Headers::default(),
        sent: envelope.time.and_then(|time| time_of_json(time.get())),
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn wrapped(body: &Value) -> Option<Wrapped> {
        match content(body.to_string().as_bytes()) {
            Content::Wrapped(wrapped) => Some(wrapped),
            _ => None,
        }
    }

    #[test]
    fn a_notification_is_told_from_what_only_looks_like_one() {
        let notification = json!({"Type": "Notification", "MessageId": "m", "TopicArn": "arn:aws:sns:eu-west-1:1:t",
            "Message": "{\"event\":\"a\"}", "Timestamp": "2026-03-10T12:00:00.000Z", "MessageAttributes": {
                "Content-Encoding": {"Type": "String", "Value": "gzip"}, "n": {"Type": "Number", "Value": "1"}}});
        let read = wrapped(&notification).unwrap();
        assert_eq!((&*read.id, &*read.body, read.sent), ("m", &b"{\"event\":\"a\"}"[..], Some(1_773_144_000_000)));
        assert_eq!(read.headers.content_encoding.as_deref(), Some("gzip"));
        for (name, value) in
            [("Type", json!("UnsubscribeConfirmation")), ("Message", json!(7)), ("TopicArn", json!(null))]
        {
            let mut other = notification.clone();
            other[name] = value;
            assert!(wrapped(&other).is_none(), "{name}");
        }
        assert!(wrapped(&json!({"event": "x", "distinct_id": "u", "properties": {"TopicArn": "arn"}})).is_none());
        // SNS itself writes it over several lines.
        let pretty = serde_json::to_string_pretty(&notification).unwrap();
        assert!(matches!(content(pretty.as_bytes()), Content::Wrapped(_)));
    }

    #[test]
    fn a_buss_event_is_told_from_what_only_looks_like_one() {
        let event = json!({"version": "0", "id": "b", "detail-type": "PageView", "source": "shop", "account": "1",
            "time": "2026-03-10T12:00:00Z", "region": "eu-west-1", "resources": [], "detail": {"event": "a"}});
        let read = wrapped(&event).unwrap();
        assert_eq!((&*read.id, &*read.body, read.sent), ("b", &b"{\"event\":\"a\"}"[..], Some(1_773_144_000_000)));
        // Any member can be the first.
        for first in
            ["version", "id", "detail-type", "source", "account", "time", "resources", "detail", "replay-name", "x"]
        {
            let body = format!("{{ \"{first}\":{},", event.get(first).unwrap_or(&json!("x")));
            let rest = event.as_object().unwrap().iter().filter(|(name, _)| *name != first);
            let rest: Vec<String> = rest.map(|(name, value)| format!("\"{name}\":{value}")).collect();
            let body = format!("{body}{}}}", rest.join(","));
            assert!(matches!(content(body.as_bytes()), Content::Wrapped(_)), "{body}");
        }
        for name in ["detail-type", "source", "detail"] {
            let mut other = event.clone();
            other.as_object_mut().unwrap().remove(name);
            assert!(wrapped(&other).is_none(), "{name}");
        }
        let mut own = event.clone();
        own["distinct_id"] = json!("u");
        assert!(wrapped(&own).is_none());
        let mut quoted = event;
        quoted["detail"] = json!("{\"event\":\"q\"}");
        assert_eq!(wrapped(&quoted).unwrap().body, b"{\"event\":\"q\"}");
    }

    #[test]
    fn a_test_message_of_s3_is_recognized() {
        let test = json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2026-03-10T12:00:00.000Z",
            "Bucket": "b", "RequestId": "5582815E1AEA5ADF", "HostId": "8cLeGAmw098X5cv4Zkwcmo8vvZa3eH3eKxsPzbB9wrR"});
        assert!(matches!(content(test.to_string().as_bytes()), Content::Test));
        assert!(matches!(content(br#"{"Event":"s3:ObjectCreated:Put"}"#), Content::Own));
    }
}
