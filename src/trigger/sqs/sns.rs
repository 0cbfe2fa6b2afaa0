//! SNS notifications in a queue's messages. A queue that is subscribed to a topic gets them unless raw message delivery is on,
//! which is off by default.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::trigger::envelope::{Headers, string};

/// Limit of nested notifications that are unwrapped. A topic that forwards another topic's notification wraps it twice.
pub(super) const MAX_NESTED: usize = 2;

/// A notification of a published message.
pub(super) struct Notification {
    /// SNS's id of the message. It stays the same when SNS redelivers the message in another message of the queue.
    pub id: String,
    /// The message that was published.
    pub message: String,
    /// The message's attributes that are read like headers.
    pub headers: Headers<'static>,
}

impl Notification {
    /// Reads a message's body. Returns `None` if it is not a notification.
    pub fn read(body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Envelope<'a> {
            #[serde(borrow)]
            r#type: Cow<'a, str>,
            message_id: String,
            #[serde(borrow)]
            #[allow(dead_code, reason = "every notification has it")]
            topic_arn: Cow<'a, str>,
            message: String,
            #[serde(borrow)]
            message_attributes: Option<&'a RawValue>,
        }
        // Most bodies do not contain these bytes, so they are not parsed twice.
        memchr::memmem::find(body, b"\"TopicArn\"")?;
        let envelope: Envelope<'_> =
            serde_json::from_slice(body).ok().filter(|e: &Envelope<'_>| e.r#type == "Notification")?;
        let Headers { content_type, content_encoding, .. } = Headers::read(envelope.message_attributes, attribute);
        let owned = |value: Option<Cow<'_, str>>| value.map(|value| Cow::Owned(value.into_owned()));
        Some(Self {
            id: envelope.message_id,
            message: envelope.message,
            headers: Headers {
                content_type: owned(content_type),
                content_encoding: owned(content_encoding),
                origin: None,
            },
        })
    }
}

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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_notification_is_told_from_what_only_looks_like_one() {
        let notification = json!({"Type": "Notification", "MessageId": "m", "TopicArn": "arn:aws:sns:eu-west-1:1:t",
            "Message": "{\"event\":\"a\"}", "MessageAttributes": {
                "Content-Encoding": {"Type": "String", "Value": "gzip"}, "n": {"Type": "Number", "Value": "1"}}});
        let read = Notification::read(notification.to_string().as_bytes()).unwrap();
        assert_eq!((&*read.id, &*read.message), ("m", "{\"event\":\"a\"}"));
        assert_eq!(read.headers.content_encoding.as_deref(), Some("gzip"));
        for (name, value) in
            [("Type", json!("UnsubscribeConfirmation")), ("Message", json!(7)), ("TopicArn", json!(null))]
        {
            let mut other = notification.clone();
            other[name] = value;
            assert!(Notification::read(other.to_string().as_bytes()).is_none(), "{name}");
        }
        let event = br#"{"event":"x","distinct_id":"u","properties":{"TopicArn":"arn"}}"#;
        assert!(Notification::read(event).is_none());
    }
}
