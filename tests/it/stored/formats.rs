//! Formats before the one that is written.

use session_tracking::stored::{FormatError, decode_timeline, encode_timeline};
use session_tracking::timeline::Timeline;

use super::sample;

/// Format 1 ends where format 2 has two fields more.
#[test]
fn format_1_is_format_2_without_its_last_two_fields() {
    let timeline = sample();
    assert_eq!((timeline.held_until, timeline.watermark_id.as_ref()), (None, None));
    let two = encode_timeline(&timeline);
    // Nothing of it is compressed, and the two are none: a byte each.
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
