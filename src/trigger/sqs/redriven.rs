//! The attributes of a message that was taken from a dead-letter queue and sent again (`ops/redrive`). SQS gives such a message a
//! new id and a new sending time. These attributes hold the first ones, so that its events keep their time and their identity.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::attribute;
use crate::session::Millis;
use crate::trigger::envelope::{attribute_of, millis};

/// The attribute with the time when the message was first sent, in milliseconds since 1970.
const RECEIVED_AT: &str = "session-tracking-received-at";
/// The attribute with the id that the message had then.
const MESSAGE_ID: &str = "session-tracking-message-id";

/// When a message was first sent, and the id that it had then.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Redriven {
    pub received_at: Option<Millis>,
    pub message_id: Option<String>,
}

impl Redriven {
    /// Reads a message's attributes. Most messages have none, and are not parsed.
    pub fn read(attributes: Option<&RawValue>) -> Self {
        let Some(raw) = attributes.filter(|raw| raw.get().len() > "{}".len()) else { return Self::default() };
        let value = |name| attribute_of(raw, name, attribute).filter(|value| !value.is_empty());
        Self {
            received_at: value(RECEIVED_AT).and_then(|digits| millis(&digits)),
            message_id: value(MESSAGE_ID).map(Cow::into_owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(attributes: &str) -> Redriven {
        Redriven::read(Some(&RawValue::from_string(attributes.to_owned()).unwrap()))
    }

    #[test]
    fn the_first_time_and_id_are_read() {
        let attributes = r#"{"Session-Tracking-Message-Id":{"stringValue":"m","dataType":"String"},"content-encoding":{"stringValue":"gzip"},
            "session-tracking-received-at":{"stringValue":"1773144000000","dataType":"Number"}}"#;
        let wanted = Redriven { received_at: Some(1_773_144_000_000), message_id: Some("m".to_owned()) };
        assert_eq!(read(attributes), wanted);
    }

    #[test]
    fn what_is_no_time_or_no_id_is_ignored() {
        // Seconds would date every event to 1970.
        for value in ["1773144000", "-1773144000000", "2026-03-10T12:00:00Z", "soon", ""] {
            let attributes = format!(
                r#"{{"session-tracking-received-at":{{"stringValue":"{value}"}},"session-tracking-message-id":{{"stringValue":""}}}}"#
            );
            assert_eq!(read(&attributes), Redriven::default(), "{value}");
        }
        for attributes in [
            "{}",
            "{ }",
            "null",
            "[]",
            r#"{"session-tracking-received-at":7}"#,
            r#"{"session-tracking-received-at":{"binaryValue":"eA=="}}"#,
        ] {
            assert_eq!(read(attributes), Redriven::default(), "{attributes}");
        }
        assert_eq!(Redriven::read(None), Redriven::default());
    }
}
