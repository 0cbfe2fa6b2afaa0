//! Splits a body into raw events.
//!
//! A JSON parser would reject the whole body for one broken event. The splitter recognizes strings, escapes and brackets, and
//! validates nothing. So an error in one event stays in its raw event, and only that event is rejected. When a bracket is never
//! closed, the splitter looks for the place where the next event begins. It accepts any bytes and reads them a fixed number of
//! times.

mod brackets;

use memchr::memchr_iter;

use super::body::{BodyError, Form};
use crate::config::ProjectRules;
use crate::dialect::{ClientEvent, Standing};
use crate::event::{Event, Fields, Origin, Rejection, time_of_json};
use crate::session::Millis;
use brackets::Brackets;

/// A raw event: the part of a body where one event is expected.
#[derive(Debug)]
pub enum RawEvent<'a> {
    /// It was already parsed as far as its fields while the body was split.
    Parsed(Fields<'a>),
    /// It is not checked, and may be empty or invalid.
    Bytes(&'a [u8]),
    /// It was translated from another client's dialect.
    Translated(&'a ClientEvent),
}

impl<'a> RawEvent<'a> {
    /// Returns the raw event's bytes.
    pub fn bytes(&self) -> &'a [u8] {
        match self {
            Self::Parsed(fields) => fields.json.as_bytes(),
            Self::Bytes(bytes) => bytes,
            Self::Translated(event) => event.json.as_bytes(),
        }
    }

    /// Returns how the event counts, as far as its source decides that.
    pub fn standing(&self) -> Standing {
        match self {
            Self::Translated(event) => event.standing,
            Self::Parsed(_) | Self::Bytes(_) => Standing::Activity,
        }
    }

    /// Parses the event.
    ///
    /// # Errors
    /// Why the event is rejected.
    pub fn parse(self, origin: Origin<'a>, rules: &impl ProjectRules) -> Result<Event<'a>, Rejection> {
        match self {
            Self::Parsed(fields) => Event::read(fields, origin, rules),
            Self::Bytes(bytes) => Event::parse(bytes, origin, rules),
            Self::Translated(event) => event.parse(origin, rules),
        }
    }
}

/// The content of a body.
#[derive(Debug)]
pub struct Batch<'a> {
    /// The raw events, in the order of the body.
    pub raw_events: Vec<RawEvent<'a>>,
    /// The member `sent_at` beside the events: when the batch was sent, by the sender's clock.
    pub sent_at: Option<Millis>,
}

impl<'a> Batch<'a> {
    /// Returns the bytes of each event.
    pub fn bytes(&self) -> Vec<&'a [u8]> {
        self.raw_events.iter().map(RawEvent::bytes).collect()
    }
}

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

/// Splits the array whose first element begins at `from`. Returns the index after its closing bracket, or `None` if it has none.
/// Then the rest of the body becomes the last raw event.
fn split_array<'a>(body: &'a [u8], from: usize, raw_events: &mut RawEvents<'a>) -> Option<usize> {
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

/// The bytes that are neither white space nor inside of a string, with their indexes. Of a string, the opening quotation mark is
/// among them.
struct Tokens<'a> {
    bytes: &'a [u8],
    /// Where the next one is looked for.
    at: usize,
}

impl Iterator for Tokens<'_> {
    type Item = (usize, u8);

    fn next(&mut self) -> Option<Self::Item> {
        let (start, byte) = token_at(self.bytes, self.at)?;
        self.at = if byte == b'"' { string_end(self.bytes, start + 1) } else { start + 1 };
        Some((start, byte))
    }
}

/// Returns the first byte from `from` on that is not white space, with its index.
fn token_at(bytes: &[u8], from: usize) -> Option<(usize, u8)> {
    (from..).zip(bytes.get(from..)?.iter().copied()).find(|&(_, byte)| !is_space(byte))
}

/// Returns the index after the closing quotation mark of a string, or the end of the body if it has none.
fn string_end(body: &[u8], mut at: usize) -> usize {
    while let Some(&byte) = body.get(at) {
        at += match byte {
            b'"' => return at + 1,
            // An escaped quotation mark does not end the string.
            b'\\' => 2,
            _ => 1,
        };
    }
    body.len()
}

/// Returns whether a byte is white space in JSON.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn trim(bytes: &[u8]) -> &[u8] {
    let Some(start) = bytes.iter().position(|&byte| !is_space(byte)) else { return &[] };
    let end = bytes.iter().rposition(|&byte| !is_space(byte)).map_or(start, |last| last + 1);
    &bytes[start..end]
}

#[cfg(test)]
mod tests;
