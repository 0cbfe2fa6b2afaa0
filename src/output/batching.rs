//! Batching of lines into SQS messages, and of messages into requests. Pure.

use std::borrow::Cow;
use std::fmt::Write;

/// Size up to which lines share a message, in bytes. SQS bills messages in steps of 64 KB.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;
/// Maximum size of a message, and of all messages of a batch, in bytes: 256 KB, which every queue accepts.
pub(super) const MAX_BATCH_BYTES: usize = 256 * 1024;
/// Maximum number of messages in a batch (SQS). Two messages in a row never fit into one chunk, so a batch reaches its maximum
/// size first.
pub(super) const MAX_BATCH_MESSAGES: usize = 10;

/// A message: lines, separated by line feeds. Its body is only built when it is sent, because the bodies of all messages together
/// are as large as all lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    /// The size of its body, in bytes.
    bytes: usize,
    /// The indexes of its lines.
    pub lines: Vec<usize>,
}

impl Message {
    /// Builds the body from `lines`, the same lines that [`batch_lines`] got.
    pub fn body(&self, lines: &[String]) -> String {
        let mut body = String::with_capacity(self.bytes);
        for (number, line) in self.lines.iter().filter_map(|&line| lines.get(line)).enumerate() {
            if number > 0 {
                body.push('\n');
            }
            body.push_str(&sqs_safe(line));
        }
        body
    }
}

/// The messages to send.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// The messages of each request.
    pub batches: Vec<Vec<Message>>,
    /// The indexes of lines that no message can hold.
    pub too_large: Vec<usize>,
}

/// Batches lines in order. A message has as many lines as fit into a chunk. A line that is longer than a chunk has a message of
/// its own.
pub(super) fn batch_lines(lines: &[String]) -> Plan {
    let mut plan = Plan::default();
    let mut messages: Vec<Message> = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let bytes = sqs_safe(line).len();
        if bytes > MAX_BATCH_BYTES {
            plan.too_large.push(index);
            continue;
        }
        match messages.last_mut() {
            Some(message) if message.bytes + 1 + bytes <= CHUNK_BYTES => {
                message.bytes += 1 + bytes;
                message.lines.push(index);
            }
            _ => messages.push(Message { bytes, lines: vec![index] }),
        }
    }
    let mut bytes = 0;
    for message in messages {
        bytes += message.bytes;
        match plan.batches.last_mut() {
            Some(batch) if batch.len() < MAX_BATCH_MESSAGES && bytes <= MAX_BATCH_BYTES => batch.push(message),
            _ => {
                bytes = message.bytes;
                plan.batches.push(vec![message]);
            }
        }
    }
    plan
}

/// Returns a line with the characters that SQS refuses escaped as in JSON. In valid JSON, they can only be in strings.
fn sqs_safe(line: &str) -> Cow<'_, str> {
    let is_refused = |&char: &char| match char {
        '\t' | '\n' | '\r' => false,
        '\u{fffe}' | '\u{ffff}' => true,
        _ => char < ' ',
    };
    if !line.chars().any(|char| is_refused(&char)) {
        return Cow::Borrowed(line);
    }
    let mut escaped = String::with_capacity(line.len() + 16);
    for char in line.chars() {
        if is_refused(&char) {
            // Writing to a string cannot fail.
            let _ = write!(escaped, "\\u{:04x}", u32::from(char));
        } else {
            escaped.push(char);
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(lengths: &[usize]) -> Vec<String> {
        lengths.iter().map(|&length| "x".repeat(length)).collect()
    }

    /// Returns the line indexes of each message of each batch.
    fn indexes(plan: &Plan) -> Vec<Vec<Vec<usize>>> {
        plan.batches.iter().map(|batch| batch.iter().map(|message| message.lines.clone()).collect()).collect()
    }

    #[test]
    fn lines_share_a_message_up_to_a_chunk() {
        let lines = lines(&[CHUNK_BYTES - 3, 2, 1]);
        let plan = batch_lines(&lines);
        assert_eq!(indexes(&plan), [[vec![0, 1], vec![2]]]);
        let body = plan.batches[0][0].body(&lines);
        assert_eq!((body.len(), plan.batches[0][0].bytes), (CHUNK_BYTES, CHUNK_BYTES));
        assert!(body.ends_with("x\nxx"));
        assert_eq!(batch_lines(&[]), Plan::default());
    }

    #[test]
    fn a_batch_has_room_for_four_chunks() {
        let plan = batch_lines(&lines(&[CHUNK_BYTES; 5]));
        assert_eq!(plan.batches.iter().map(Vec::len).collect::<Vec<_>>(), [4, 1]);
        // Half a chunk and one byte: no two lines share a message, and seven messages fill a batch.
        let plan = batch_lines(&lines(&[CHUNK_BYTES / 2 + 1; 15]));
        assert_eq!(plan.batches.iter().map(Vec::len).collect::<Vec<_>>(), [7, 7, 1]);
        // Large and small lines in turn.
        let plan = batch_lines(&lines(&[CHUNK_BYTES, 1, CHUNK_BYTES, 1, CHUNK_BYTES, 1, CHUNK_BYTES, 1]));
        assert_eq!(plan.batches.iter().map(Vec::len).collect::<Vec<_>>(), [6, 2]);
    }

    #[test]
    fn a_long_line_goes_alone_and_one_too_long_not_at_all() {
        let plan = batch_lines(&lines(&[1, MAX_BATCH_BYTES, 1, MAX_BATCH_BYTES + 1, 1]));
        assert_eq!(indexes(&plan), [vec![vec![0]], vec![vec![1]], vec![vec![2, 4]]]);
        assert_eq!(plan.too_large, [3]);
    }

    #[test]
    fn characters_that_sqs_refuses_are_escaped() {
        for (line, wanted) in [
            ("{\"a\":\"\u{fffe}\u{ffff}\"}", r#"{"a":"\ufffe\uffff"}"#),
            ("\"\u{1}\u{0}\"", r#""\u0001\u0000""#),
            ("\"\u{7f}\u{fffd}\u{1f600}\u{1fffe}\té\"", "\"\u{7f}\u{fffd}\u{1f600}\u{1fffe}\té\""),
        ] {
            assert_eq!(sqs_safe(line), wanted);
        }
        // The escapes count.
        let plan = batch_lines(&["\u{fffe}".repeat(MAX_BATCH_BYTES / 6 + 1)]);
        assert_eq!(plan.too_large, [0]);
    }

    proptest! {
        #[test]
        fn every_line_is_batched_once_within_the_limits(
            lengths in prop::collection::vec(prop_oneof![9 => 0_usize..20_000, 1 => 0_usize..300_000], 0..40),
        ) {
            let lines = lines(&lengths);
            let plan = batch_lines(&lines);
            let mut seen: Vec<usize> = Vec::new();
            for batch in &plan.batches {
                prop_assert!(!batch.is_empty() && batch.len() <= MAX_BATCH_MESSAGES);
                prop_assert!(batch.iter().map(|message| message.body(&lines).len()).sum::<usize>() <= MAX_BATCH_BYTES);
                for message in batch {
                    prop_assert!(message.bytes <= CHUNK_BYTES || message.lines.len() == 1);
                    let own: Vec<&str> = message.lines.iter().map(|&index| lines[index].as_str()).collect();
                    prop_assert_eq!(message.body(&lines), own.join("\n"));
                    prop_assert_eq!(message.bytes, own.join("\n").len());
                    seen.extend(&message.lines);
                }
            }
            prop_assert!(seen.is_sorted());
            seen.extend(&plan.too_large);
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..lines.len()).collect::<Vec<_>>());
        }
    }
}
