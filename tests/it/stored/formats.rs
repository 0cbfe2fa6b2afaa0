//! Formats before the current one.

use session_tracking::stored::{FormatError, decode_session, decode_timeline, encode_session, encode_timeline};
use session_tracking::timeline::Timeline;

use super::sample;

/// Format 2 is format 1 with two more fields at the end, and format 3 is format 2 with the numbers of pages and the closed sessions
/// at the end.
#[test]
fn a_format_is_the_one_before_with_more_fields_at_the_end() {
    let timeline = sample();
    assert_eq!((timeline.held_until, timeline.watermark_id.as_ref()), (None, None));
    let three = encode_timeline(&timeline);
    // Nothing is compressed. Two sessions that are over, then an open one, each with two numbers of pages; no closed one.
    let (two, rest) = three.split_at(three.len() - 9);
    assert_eq!((three[0], rest), (0, &[2, 0, 0, 0, 0, 1, 0, 0, 0][..]));
    // The two fields are `None`: one byte each.
    let (one, rest) = two.split_at(two.len() - 2);
    assert_eq!(rest, [0, 0]);
    let visitor = || timeline.visitor.clone();
    let expected = Timeline { due_at: None, ..timeline.clone() };
    let forms = [(1, one), (2, two), (3, &three[..])];
    for version in 1..=3 {
        for (format, bytes) in forms {
            let read = decode_timeline(version, bytes, visitor());
            let is_right = if version == format {
                read.as_ref() == Ok(&expected)
            } else {
                read == Err(FormatError::Bytes("timeline"))
            };
            assert!(is_right, "format {format} read as {version}: {read:?}");
        }
    }
}

/// The pages of a session are numbered in the timeline and in the archive.
#[test]
fn the_numbers_of_pages_are_stored() {
    let mut timeline = sample();
    (timeline.ended[1].pages, timeline.open.as_mut().unwrap().pages) = (300, 1);
    (timeline.ended[0].late.event_count, timeline.ended[0].late.pages) = (1_000, 7);
    let read = decode_timeline(3, &encode_timeline(&timeline), timeline.visitor.clone()).unwrap();
    assert_eq!(read, Timeline { due_at: None, ..timeline.clone() });
    for session in &timeline.ended {
        let bytes = encode_session(session);
        assert_eq!(decode_session(3, &bytes, timeline.visitor.bits()).as_ref(), Ok(session));
        // A reader of format 2 would lose the numbers, so it must not read this.
        assert_eq!(decode_session(2, &bytes, timeline.visitor.bits()), Err(FormatError::Bytes("session")));
    }
    // As many sessions need as many numbers.
    let mut bytes = encode_timeline(&sample());
    let ended = bytes.len() - 9;
    bytes[ended] = 1;
    bytes.drain(ended + 1..ended + 3);
    let rule = FormatError::Rule("the sessions do not have the fields of their format");
    assert_eq!(decode_timeline(3, &bytes, timeline.visitor.clone()), Err(rule));
}
