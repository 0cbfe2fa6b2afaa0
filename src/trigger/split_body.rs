//! Splits a body into raw events.
//!
//! A JSON parser would reject the whole body for one broken event. The splitter recognizes strings, escapes and brackets, and
//! validates nothing. So an error in one event stays in its raw event, and only that event is rejected. When a bracket is never
//! closed, the splitter looks for the place where the next event begins. It accepts any bytes and reads them a fixed number of
//! times.

mod array;
mod brackets;
mod raw_event;
mod tokens;

use memchr::memchr_iter;

use super::body::{BodyError, Form};
use crate::event::{Fields, time_of_json};
use crate::session::Millis;
use array::split_array;
use brackets::Brackets;
pub use raw_event::{Batch, RawEvent};
use tokens::{Tokens, is_space, string_end, token_at, trim};

/// Bytes of a usual event. They determine the initial capacity for a body's events.
const USUAL_EVENT_BYTES: usize = 1024;

/// Splits a body into at most `max_events` raw events, in order. The elements of an array are parsed as events while the body is
/// split, up to the first one that is not an event. After that, only strings and brackets are followed.
///
/// # Errors
/// The body has no events or too many, or its member `events` is not an array.
pub fn split_body(body: &[u8], form: Form, max_events: usize) -> Result<Batch<'_>, BodyError> {
    let body = trim(body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body));
    let found = Vec::with_capacity(max_events.min(body.len() / USUAL_EVENT_BYTES + 1));
    let valid = std::str::from_utf8(body).ok();
    let mut raw_events = RawEvents { found, max_events, too_many: false, valid, sent_at: None };
    match (form, body.first()) {
        (_, None) => {}
        (Form::Any, Some(b'[')) => {
            if let Some(end) = split_array(body, 1, &mut raw_events) {
                raw_events.push_rest(&body[end..]);
            }
        }
        (Form::Any, Some(b'{')) => split_object(body, &mut raw_events)?,
        _ => split_lines(body, &mut raw_events),
    }
    match raw_events {
        RawEvents { too_many: true, .. } => Err(BodyError::TooManyEvents(max_events)),
        RawEvents { found, .. } if found.is_empty() => Err(BodyError::Empty),
        RawEvents { found, sent_at, .. } => Ok(Batch { raw_events: found, sent_at }),
    }
}

/// The raw events that were found so far.
struct RawEvents<'a> {
    found: Vec<RawEvent<'a>>,
    max_events: usize,
    too_many: bool,
    /// The body, while it is UTF-8 and every element that was read of it is an event.
    valid: Option<&'a str>,
    sent_at: Option<Millis>,
}

impl<'a> RawEvents<'a> {
    fn push(&mut self, raw_event: &'a [u8]) {
        self.add(RawEvent::Bytes(trim(raw_event)));
    }

    fn add(&mut self, raw_event: RawEvent<'a>) {
        if self.found.len() < self.max_events {
            self.found.push(raw_event);
        } else {
            self.too_many = true;
        }
    }

    /// Parses the event that begins at `at` and returns the index of the comma or bracket that follows it. Returns `None` if there
    /// is no event, or something else follows it. From then on nothing is parsed any more, so that a broken body is read only once
    /// more.
    fn parse(&mut self, at: usize) -> Option<usize> {
        let body = self.valid.take()?;
        let (start, _) = token_at(body.as_bytes(), at)?;
        let event = Fields::parse_first(body.get(start..)?)?;
        let (next, byte) = token_at(body.as_bytes(), start + event.json.len())?;
        if !matches!(byte, b',' | b']') {
            return None;
        }
        self.valid = Some(body);
        self.add(RawEvent::Parsed(event));
        Some(next)
    }

    /// Adds what follows the last event, if anything, as one raw event. Then it is parsed or rejected, and not lost silently.
    fn push_rest(&mut self, rest: &'a [u8]) {
        if !trim(rest).is_empty() {
            self.push(rest);
        }
    }
}

/// Splits lines. Each has one event, or several objects in a row.
fn split_lines<'a>(body: &'a [u8], raw_events: &mut RawEvents<'a>) {
    let mut from = 0;
    for end in memchr_iter(b'\n', body).chain([body.len()]) {
        let last = split_objects(&body[from..end], raw_events);
        raw_events.push_rest(last);
        from = end + 1;
    }
}

/// Splits objects in a row, with only white space between them. Returns the rest, from the last object, or from the first thing
/// that is not an object.
fn split_objects<'a>(mut bytes: &'a [u8], raw_events: &mut RawEvents<'a>) -> &'a [u8] {
    while let Some(end) = end_before_object(bytes) {
        raw_events.push(&bytes[..end]);
        bytes = &bytes[end..];
    }
    bytes
}

/// Returns the end of the object at the start of `bytes`, if another object follows it.
fn end_before_object(bytes: &[u8]) -> Option<usize> {
    // In valid JSON a `{` follows a `}` only between such objects and in strings. So most bodies need no further check.
    let is_followed = |end: usize| matches!(token_at(bytes, end + 1), Some((_, b'{')));
    if !memchr_iter(b'}', bytes).any(is_followed) || !matches!(token_at(bytes, 0), Some((_, b'{'))) {
        return None;
    }
    let mut open = Brackets::default();
    let is_end = |&(_, byte): &(usize, u8)| {
        open.pass(byte);
        open.depth() == 0
    };
    let (end, _) = Tokens { bytes, at: 0 }.find(is_end)?;
    is_followed(end).then_some(end + 1)
}

/// Splits a body that begins with an object: `{"events":[…]}`, one event, or the first of several.
fn split_object<'a>(body: &'a [u8], raw_events: &mut RawEvents<'a>) -> Result<(), BodyError> {
    let outline = read_outline(body, raw_events);
    let rest = trim(outline.end.map(|end| &body[end..]).unwrap_or_default());
    match outline.events {
        // An event with a field `events` of its own is one event.
        _ if outline.is_event => {}
        // The rest of the array, up to the end of the body, is already among the raw events.
        Some(EventsMember::Open) => return Ok(()),
        Some(EventsMember::Closed(_)) if outline.end.is_some() => {
            raw_events.push_rest(rest);
            return Ok(());
        }
        // The body is cut off after the array. What is missing is unknown and counts as one rejected event.
        Some(EventsMember::Closed(end)) => {
            raw_events.push(&body[end..]);
            return Ok(());
        }
        Some(EventsMember::NotAnArray) if rest.is_empty() => return Err(BodyError::EventsNotAnArray),
        Some(EventsMember::NotAnArray) | None => {}
    }
    raw_events.found.clear();
    raw_events.too_many = false;
    raw_events.sent_at = None;
    // The first object has several lines and others follow it, so a line break does not separate events.
    let first = outline.end.map(|end| &body[..end]).filter(|_| !rest.is_empty());
    if first.is_some_and(|first| memchr::memchr(b'\n', first).is_some()) {
        let last = split_objects(body, raw_events);
        raw_events.push_rest(last);
        return Ok(());
    }
    let is_lines = match outline.end {
        Some(_) => !rest.is_empty(),
        // Either the first of several lines is broken, or one event over several lines is. The lines of one event are indented.
        None => memchr_iter(b'\n', body).any(|at| body.get(at + 1) == Some(&b'{')),
    };
    if is_lines {
        split_lines(body, raw_events);
    } else {
        raw_events.push(body);
    }
    Ok(())
}

/// What was found in the object at the start of a body.
#[derive(Default)]
struct Outline {
    /// The index after its closing bracket; `None` if it has none.
    end: Option<usize>,
    /// Whether it has a member `event`.
    is_event: bool,
    /// Its member `events`, or `batch`.
    events: Option<EventsMember>,
}

/// The member `events` or `batch` of an object.
enum EventsMember {
    /// An array that ends at this index; its elements are among the raw events.
    Closed(usize),
    /// An array that is never closed; its elements are among the raw events.
    Open,
    NotAnArray,
}

/// Reads the object at the start of a body, and adds the elements of its `events` to the raw events.
fn read_outline<'a>(body: &'a [u8], raw_events: &mut RawEvents<'a>) -> Outline {
    let mut outline = Outline::default();
    let mut open = Brackets::default();
    let mut tokens = Tokens { bytes: body, at: 0 };
    let mut last = b',';
    while let Some((at, byte)) = tokens.next() {
        let is_key = byte == b'"' && open.depth() == 1 && matches!(last, b'{' | b',');
        if byte == b'{' && open.rules_out_object_after(last) {
            return outline;
        }
        open.pass(byte);
        if open.depth() == 0 {
            return Outline { end: Some(at + 1), ..outline };
        }
        last = byte;
        let key = body.get(at + 1..tokens.at - 1).filter(|_| is_key);
        match (key, key.and_then(|_| value_at(body, tokens.at))) {
            (Some(b"event"), _) => outline.is_event = true,
            (Some(b"events" | b"batch"), Some((value, b'['))) => match split_array(body, value + 1, raw_events) {
                None => return Outline { events: Some(EventsMember::Open), ..outline },
                Some(end) => {
                    outline.events = Some(EventsMember::Closed(end));
                    (tokens.at, last) = (end, b']');
                }
            },
            (Some(b"sent_at"), Some((value, _))) => {
                raw_events.sent_at = read_sent_at(body, value).or(raw_events.sent_at);
            }
            (Some(b"events"), Some(_)) if outline.events.is_none() => {
                outline.events = Some(EventsMember::NotAnArray);
            }
            _ => {}
        }
    }
    outline
}

/// Reads the time whose value begins at `from`.
fn read_sent_at(body: &[u8], from: usize) -> Option<Millis> {
    let end = match body.get(from)? {
        b'"' => string_end(body, from + 1),
        _ => from + body[from..].iter().position(|&byte| matches!(byte, b',' | b'}') || is_space(byte))?,
    };
    time_of_json(std::str::from_utf8(&body[from..end]).ok()?)
}

/// Returns the index and the first byte of the value after a key that ends at `key_end`.
fn value_at(body: &[u8], key_end: usize) -> Option<(usize, u8)> {
    match token_at(body, key_end)? {
        (colon, b':') => token_at(body, colon + 1),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
