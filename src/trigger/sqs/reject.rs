//! What is set aside of a message that cannot be understood.

use serde::Serialize;

use crate::event::MAX_EVENT_BYTES;
use crate::trigger::answer::json;

/// Bytes of a rejected text that are kept: as many as an event may have. Escaped they still fit into a message.
const KEPT_BYTES: usize = MAX_EVENT_BYTES;

/// An event, or a whole message, that can never be understood.
pub(super) struct Reject<'a> {
    pub message_id: &'a str,
    pub code: &'a str,
    /// What its sender has to change.
    pub why: &'a str,
    /// The event's place in the message; none where the message as a whole is rejected.
    pub index: Option<usize>,
    pub text: &'a [u8],
}

impl Reject<'_> {
    /// The line that goes to the rejects.
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
        // Three bytes more, so that a character across the limit is left out whole.
        let text = String::from_utf8_lossy(&self.text[..self.text.len().min(KEPT_BYTES + 3)]);
        // Stores choke on a NUL: none goes out, nor its escape.
        let text =
            if memchr::memchr(0, text.as_bytes()).is_some() { text.replace('\0', "\u{fffd}").into() } else { text };
        json(&Line {
            code: self.code,
            message: self.why,
            source: "sqs",
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

    fn line(text: &[u8], index: Option<usize>) -> Value {
        let line = Reject { message_id: "m1", code: "invalid_json", why: "a sentence", index, text }.line();
        assert!(!line.contains('\n'));
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn the_text_is_kept_as_well_as_it_can_be() {
        let wanted = |text: &str, index| {
            json!({"code": "invalid_json", "message": "a sentence", "source": "sqs", "message_id": "m1", "index": index,
                "text": text})
        };
        assert_eq!(line(b"{\"a\":\n\0", Some(3)), wanted("{\"a\":\n\u{fffd}", Value::from(3)));
        assert_eq!(line(b"a\xffb", None), wanted("a\u{fffd}b", Value::Null));
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        for (start, kept) in [("", KEPT_BYTES - 2), ("x", KEPT_BYTES - 1), ("xx", KEPT_BYTES)] {
            let text = format!("{start}{}", "€".repeat(KEPT_BYTES));
            let line = line(text.as_bytes(), None);
            let cut = line["text"].as_str().unwrap();
            assert_eq!(cut.len(), kept);
            assert!(text.starts_with(cut));
        }
        assert_eq!(line(&[0xff; 2 * KEPT_BYTES], None)["text"].as_str().unwrap().len(), KEPT_BYTES - 2);
    }
}
