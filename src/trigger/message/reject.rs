//! The line in the rejects of an event or a message that is invalid.

use serde::Serialize;

use crate::config::StrippedParams;
use crate::event::MAX_EVENT_BYTES;
use crate::trigger::answer::json;

/// Limit of the bytes that are kept of a rejected event or body: an event's limit. Escaped, they still fit into a message.
const KEPT_BYTES: usize = MAX_EVENT_BYTES;

/// An event, or a whole message, that is invalid.
pub(in crate::trigger) struct Reject<'a> {
    /// Where it came from: the kind of the source, such as `sqs`, or the client's family.
    pub source: &'a str,
    /// The id of the message or the request.
    pub message_id: &'a str,
    pub code: &'a str,
    /// A sentence that tells the sender what to change.
    pub why: &'a str,
    /// The event's index in the message; `None` if the whole message is rejected.
    pub index: Option<usize>,
    /// The event's JSON, or the message's body.
    pub raw: &'a [u8],
}

impl Reject<'_> {
    /// Returns the line of JSON for the rejects.
    pub fn line(&self) -> String {
        #[derive(Serialize)]
        struct Line<'a> {
            code: &'a str,
            message: &'a str,
            source: &'a str,
            message_id: &'a str,
            index: Option<usize>,
            text: &'a str,
        }
        // Reads three bytes more, so that a character that crosses the limit is dropped whole.
        let text = String::from_utf8_lossy(&self.raw[..self.raw.len().min(KEPT_BYTES + 3)]);
        // Some databases do not accept NUL characters, not even escaped ones.
        let text =
            if memchr::memchr(0, text.as_bytes()).is_some() { text.replace('\0', "\u{fffd}").into() } else { text };
        // An event that cannot be read has no project, so the default list holds.
        let text = StrippedParams::default().strip(&text).map_or(text, Into::into);
        json(&Line {
            code: self.code,
            message: self.why,
            source: self.source,
            message_id: self.message_id,
            index: self.index,
            text: &text[..text.floor_char_boundary(KEPT_BYTES)],
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn line(raw: &[u8], index: Option<usize>) -> Value {
        let line =
            Reject { source: "sqs", message_id: "m1", code: "invalid_json", why: "a sentence", index, raw }.line();
        assert!(!line.contains('\n'));
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn invalid_characters_are_replaced() {
        let wanted = |text: &str, index| {
            json!({"code": "invalid_json", "message": "a sentence", "source": "sqs", "message_id": "m1", "index": index,
                "text": text})
        };
        assert_eq!(line(b"{\"a\":\n\0", Some(3)), wanted("{\"a\":\n\u{fffd}", Value::from(3)));
        assert_eq!(line(b"a\xffb", None), wanted("a\u{fffd}b", Value::Null));
    }

    #[test]
    fn a_long_event_is_cut_between_characters() {
        for (start, kept) in [("", KEPT_BYTES - 2), ("x", KEPT_BYTES - 1), ("xx", KEPT_BYTES)] {
            let text = format!("{start}{}", "€".repeat(KEPT_BYTES));
            let line = line(text.as_bytes(), None);
            let cut = line["text"].as_str().unwrap();
            assert_eq!(cut.len(), kept);
            assert!(text.starts_with(cut));
        }
        assert_eq!(line(&vec![0xff; 2 * KEPT_BYTES], None)["text"].as_str().unwrap().len(), KEPT_BYTES - 2);
    }
}
