//! SNS notifications in the messages of a queue that is subscribed to a topic without raw delivery, which is SNS's default.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::trigger::envelope::{Headers, text};

/// How many notifications are unwrapped one in the other: a topic that forwards what another one published wraps it twice.
pub(super) const MAX_NESTED: usize = 2;

/// A notification of a published message.
pub(super) struct Notification {
    /// SNS's own id of the message: the same one when SNS delivers it again, in another message of the queue.
    pub id: String,
    /// The message that was published.
    pub message: String,
    /// Its attributes, as those of a queue's message are read.
    pub headers: Headers<'static>,
}

impl Notification {
    /// Reads a message's body; none if that is no notification.
    pub fn read(body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Envelope<'a> {
            #[serde(borrow)]
            r#type: Cow<'a, str>,
            message_id: String,
            #[serde(borrow)]
            #[allow(dead_code, reason = "no notification is without it")]
            topic_arn: Cow<'a, str>,
            message: String,
            #[serde(borrow)]
            message_attributes: Option<&'a RawValue>,
        }
        // Few bodies hold these bytes at all: the others are not parsed twice.
        memchr::memmem::find(body, b"\"TopicArn\"")?;
        let envelope: Envelope<'_> =
            serde_json::from_slice(body).ok().filter(|e: &Envelope<'_>| e.r#type == "Notification")?;
        let Headers { content_type, content_encoding } = Headers::read(envelope.message_attributes, attribute);
        let owned = |value: Option<Cow<'_, str>>| value.map(|value| Cow::Owned(value.into_owned()));
        Some(Self {
            id: envelope.message_id,
            message: envelope.message,
            headers: Headers { content_type: owned(content_type), content_encoding: owned(content_encoding) },
        })
    }
}

/// The text of a notification's attribute.
fn attribute(raw: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Attribute<'a> {
        #[serde(borrow)]
        value: Option<&'a RawValue>,
    }
    serde_json::from_str::<Attribute<'_>>(raw.get()).ok()?.value.and_then(text)
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
