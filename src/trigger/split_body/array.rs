//! Splits an array into raw events, also if it is broken.

use super::brackets::Brackets;
use super::tokens::{Tokens, token_at, trim};
use super::{RawEvents, split_objects};

/// Splits the array whose first element begins at `from`. Returns the index after its closing bracket, or `None` if it has none.
/// Then the rest of the body becomes the last raw event.
pub(super) fn split_array<'a>(body: &'a [u8], from: usize, raw_events: &mut RawEvents<'a>) -> Option<usize> {
    if let Some((closed, b']')) = token_at(body, from) {
        return Some(closed + 1);
    }
    let mut open = Brackets::default();
    let (mut at, mut resync) = (from, false);
    while let Some(end) = raw_events.parse(at) {
        at = end + 1;
        if body[end] == b']' {
            return Some(at);
        }
    }
    loop {
        let element = find_element(body, at, resync, &mut open);
        let raw_event = body.get(at..element.end).unwrap_or_default();
        match element.stop {
            Stop::Comma => {
                let last = split_objects(raw_event, raw_events);
                raw_events.push(last);
                at = element.end + 1;
            }
            Stop::Closed => {
                let last = split_objects(raw_event, raw_events);
                raw_events.push(last);
                return Some(element.end + 1);
            }
            // A bracket is never closed. Reads the element again, and ends it where the next one seems to begin.
            Stop::End if !resync => resync = true,
            Stop::End => {
                raw_events.push(raw_event);
                // The body is cut off after an event. What is missing is unknown and counts as one rejected event.
                if is_object(trim(raw_event)) {
                    raw_events.push(&[]);
                }
                return None;
            }
            Stop::NextObject => {
                let raw_event = trim(raw_event);
                raw_events.push(raw_event.strip_suffix(b",").unwrap_or(raw_event));
                at = element.end;
            }
        }
    }
}

fn is_object(raw_event: &[u8]) -> bool {
    raw_event.starts_with(b"{") && serde_json::from_slice::<serde::de::IgnoredAny>(raw_event).is_ok()
}

/// An element of an array.
struct Element {
    end: usize,
    stop: Stop,
}

/// What ends an element.
enum Stop {
    Comma,
    /// The array's closing bracket.
    Closed,
    /// An object where the element's brackets allow none. So the element is broken, and the next one begins here.
    NextObject,
    /// The end of the body.
    End,
}

/// Finds the end of the element that begins at `from`. With `resync`, it also ends where the next one seems to begin. `open` is
/// passed in so that its memory is used again.
fn find_element(body: &[u8], from: usize, resync: bool, open: &mut Brackets) -> Element {
    open.clear();
    let mut last = b',';
    for (end, byte) in (Tokens { bytes: body, at: from }) {
        let stop = match byte {
            b',' if open.depth() == 0 => Stop::Comma,
            b']' if open.depth() == 0 => Stop::Closed,
            b'{' if resync && open.rules_out_object_after(last) => Stop::NextObject,
            _ => {
                open.pass(byte);
                last = byte;
                continue;
            }
        };
        return Element { end, stop };
    }
    Element { end: body.len(), stop: Stop::End }
}
