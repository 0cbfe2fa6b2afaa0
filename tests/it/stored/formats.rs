//! Formats before the current one.

use session_tracking::stored::{FormatError, decode_timeline, encode_timeline};
use session_tracking::timeline::Timeline;

use super::sample;

/// Format 2 is format 1 with two more fields at the end.
#[test]
fn format_1_is_format_2_without_its_last_two_fields() {
    let timeline = sample();
    assert_eq!((timeline.held_until, timeline.watermark_id.as_ref()), (None, None));
    let two = encode_timeline(&timeline);
    // Nothing is compressed, and the two fields are `None`: one byte each.
    let (one, rest) = two.split_at(two.len() - 2);
    assert_eq!((two[0], rest), (0, &[0, 0][..]));
    let visitor = || timeline.visitor.clone();
    let expected = Timeline { due_at: None, ..timeline.clone() };
    assert_eq!(decode_timeline(1, one, visitor()).as_ref(), Ok(&expected));
    assert_eq!(decode_timeline(2, &two, visitor()).as_ref(), Ok(&expected));
    for (version, bytes) in [(1, &two[..]), (2, one)] {
        assert_eq!(decode_timeline(version, bytes, visitor()), Err(FormatError::Bytes("timeline")), "{version}");
    }
}
