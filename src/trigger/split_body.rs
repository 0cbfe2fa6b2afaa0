//! A body to the raw events of its events.
//!
//! The scanner knows strings, escapes and brackets, and no more: it validates nothing, so what is broken in one event stays
//! in that event's raw event and is rejected there. Where a bracket never closes it looks for the next place at which an event
//! begins. It takes any bytes and passes over them a fixed number of times.

mod brackets;

use memchr::{memchr_iter, memchr2};

use super::body::{BodyError, Form};
use crate::config::SessionConfig;
use crate::event::{Event, Origin, Rejection, Scanned, time_of_json};
use crate::session::Millis;
use brackets::Brackets;

/// A raw event of a body: an event, or what stands in the place of one.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly all are events; to allocate each costs more than its bytes")]
pub enum RawEvent<'a> {
    /// It was read on the way.
    Event(Scanned<'a>),
    /// It is not checked, and may be empty.
    Bytes(&'a [u8]),
}

impl<'a> RawEvent<'a> {
    pub fn bytes(&self) -> &'a [u8] {
        match self {
            Self::Event(scanned) => scanned.text().as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }

    /// The event.
    ///
    /// # Errors
    /// What makes it unusable.
    pub fn parse(self, origin: Origin<'a>, config: &SessionConfig) -> Result<Event<'a>, Rejection> {
        match self {
            Self::Event(scanned) => Event::read(scanned, origin, config),
            Self::Bytes(bytes) => Event::parse(bytes, origin, config),
        }
    }
}

/// What a body holds.
#[derive(Debug)]
pub struct Batch<'a> {
    pub raw_events: Vec<RawEvent<'a>>,
    /// When its sender's clock said that it was sent, beside its events.
    pub sent_at: Option<Millis>,
}

impl<'a> Batch<'a> {
    /// Returns the bytes of each event.
    pub fn bytes(&self) -> Vec<&'a [u8]> {
        self.raw_events.iter().map(RawEvent::bytes).collect()
    }
}

/// Bytes of a usual event: room is made at once for as many as a body would have of these.
const USUAL_BYTES: usize = 1024;

/// Splits a body into at most `most` events, in the order of the text. Events of an array are read on the way, up to the first
/// that is not one: the rest is split without trust.
///
/// # Errors
/// A body without events, with too many, or with `events` that are no array.
pub fn split_body<'a>(body: &'a [u8], form: Form, most: usize, config: &SessionConfig) -> Result<Batch<'a>, BodyError> {
    let body = trim(body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body));
    let valid = std::str::from_utf8(body).ok();
    let found = Vec::with_capacity(most.min(body.len() / USUAL_BYTES + 1));
    let mut raw_events = Slices { found, most, too_many: false, valid, config, sent_at: None };
    match (form, body.first()) {
        (_, None) => {}
        (Form::Any, Some(b'[')) => {
            if let Some(end) = array(body, 1, &mut raw_events) {
                raw_events.push_rest(&body[end..]);
            }
        }
        (Form::Any, Some(b'{')) => object(body, &mut raw_events)?,
        _ => lines(body, &mut raw_events),
    }
    match raw_events {
        Slices { too_many: true, .. } => Err(BodyError::TooManyEvents(most)),
        Slices { found, .. } if found.is_empty() => Err(BodyError::Empty),
        Slices { found, sent_at, .. } => Ok(Batch { raw_events: found, sent_at }),
    }
}

/// The raw events found so far.
struct Slices<'a, 'c> {
    found: Vec<RawEvent<'a>>,
    most: usize,
    too_many: bool,
    /// The body, as long as nothing in it was found to be broken.
    valid: Option<&'a str>,
    config: &'c SessionConfig,
    sent_at: Option<Millis>,
}

impl<'a> Slices<'a, '_> {
    fn push(&mut self, raw_event: &'a [u8]) {
        self.add(RawEvent::Bytes(trim(raw_event)));
    }

    fn add(&mut self, raw_event: RawEvent<'a>) {
        if self.found.len() < self.most {
            self.found.push(raw_event);
        } else {
            self.too_many = true;
        }
    }

    /// Reads the event that begins at `at`, and passes over it; not if there is none, or something else follows than what ends
    /// an element. Then nothing is read on the way any more: however a body is broken, it is passed over but once more.
    fn read(&mut self, at: usize) -> Option<usize> {
        let text = self.valid.take()?;
        let start = at + text.as_bytes().get(at..)?.iter().position(|&byte| !is_space(byte))?;
        let event = Scanned::first(text.get(start..)?, self.config)?;
        let end = start + event.text().len();
        let next = end + text.as_bytes().get(end..)?.iter().position(|&byte| !is_space(byte))?;
        if !matches!(text.as_bytes()[next], b',' | b']') {
            return None;
        }
        self.valid = Some(text);
        self.add(RawEvent::Event(event));
        Some(next)
    }

    /// What follows where nothing should: nothing, or one bad event, so that it is not lost in silence.
    fn push_rest(&mut self, rest: &'a [u8]) {
        if !trim(rest).is_empty() {
            self.push(rest);
        }
    }
}

/// A line an event, or several objects one behind the other.
fn lines<'a>(body: &'a [u8], raw_events: &mut Slices<'a, '_>) {
    let mut from = 0;
    for end in memchr_iter(b'\n', body).chain([body.len()]) {
        let last = sequence(&body[from..end], raw_events);
        raw_events.push_rest(last);
        from = end + 1;
    }
}

/// Splits off objects that stand one behind the other, with nothing but white space between them; returns the last, or what is
/// none, with all that follows it.
fn sequence<'a>(mut text: &'a [u8], raw_events: &mut Slices<'a, '_>) -> &'a [u8] {
    while let Some(end) = end_before_object(text) {
        raw_events.push(&text[..end]);
        text = &text[end..];
    }
    text
}

/// Where the object ends that a text begins with, if another object follows it.
fn end_before_object(text: &[u8]) -> Option<usize> {
    // In valid JSON no `{` follows a `}` but for this, and in strings: most texts are not looked at any further.
    let is_followed = |end: usize| {
        let rest = &text[end + 1..];
        rest.iter().find(|&&byte| !is_space(byte)) == Some(&b'{')
    };
    if !memchr_iter(b'}', text).any(is_followed) {
        return None;
    }
    let mut open = Brackets::default();
    let mut at = text.iter().position(|&byte| !is_space(byte)).filter(|&first| text[first] == b'{')?;
    while let Some(&byte) = text.get(at) {
        if byte == b'"' {
            at = string_end(text, at + 1);
            continue;
        }
        open.pass(byte);
        if open.depth() == 0 {
            return is_followed(at).then_some(at + 1);
        }
        at += 1;
    }
    None
}

/// A body that begins with an object: `{"events":[…]}`, one event, or the first of several.
fn object<'a>(body: &'a [u8], raw_events: &mut Slices<'a, '_>) -> Result<(), BodyError> {
    let outline = outline(body, raw_events);
    let rest = trim(outline.end.map(|end| &body[end..]).unwrap_or_default());
    match outline.events {
        // An event may have a field `events` of its own; it stays an event.
        _ if outline.is_event => {}
        // The array's rest, up to the body's end, is among the raw events already.
        Some(Events::Open) => return Ok(()),
        Some(Events::Closed(_)) if outline.end.is_some() => {
            raw_events.push_rest(rest);
            return Ok(());
        }
        // Cut off behind the array: what was to follow is unknown, which counts as one bad event.
        Some(Events::Closed(end)) => {
            raw_events.push(&body[end..]);
            return Ok(());
        }
        Some(Events::NotAnArray) if rest.is_empty() => return Err(BodyError::EventsNotAnArray),
        Some(Events::NotAnArray) | None => {}
    }
    raw_events.found.clear();
    raw_events.too_many = false;
    raw_events.sent_at = None;
    // An object over several lines, and others behind it: lines mean nothing there.
    let first = outline.end.map(|end| &body[..end]).filter(|_| !rest.is_empty());
    if first.is_some_and(|first| memchr::memchr(b'\n', first).is_some()) {
        let last = sequence(body, raw_events);
        raw_events.push_rest(last);
        return Ok(());
    }
    let is_lines = match outline.end {
        Some(_) => !rest.is_empty(),
        // The first of several lines is broken, or an event over several lines is, but the lines of that are indented.
        None => memchr_iter(b'\n', body).any(|at| body.get(at + 1) == Some(&b'{')),
    };
    if is_lines {
        lines(body, raw_events)
    } else {
        raw_events.push(body)
    }
    Ok(())
}

/// What a body's first object is.
#[derive(Default)]
struct Outline {
    /// Where it ends; none if it does not.
    end: Option<usize>,
    /// Whether it has a member `event`.
    is_event: bool,
    /// Its member `events`, or `batch`.
    events: Option<Events>,
}

enum Events {
    /// An array that ends here; its elements are among the raw events.
    Closed(usize),
    /// An array that does not end; likewise.
    Open,
    NotAnArray,
}

/// Walks the object that a body begins with; the elements of `events` become raw events on the way.
fn outline<'a>(body: &'a [u8], raw_events: &mut Slices<'a, '_>) -> Outline {
    let mut outline = Outline::default();
    let mut open = Brackets::default();
    let (mut at, mut last) = (0, b',');
    while let Some(&byte) = body.get(at) {
        if byte == b'"' {
            let is_key = open.depth() == 1 && matches!(last, b'{' | b',');
            let end = string_end(body, at + 1);
            let key = body.get(at + 1..end - 1).filter(|_| is_key);
            (at, last) = (end, b'"');
            match (key, value_at(body, end)) {
                (Some(b"event"), _) => outline.is_event = true,
                (Some(b"events" | b"batch"), Some((value, b'['))) => match array(body, value + 1, raw_events) {
                    None => return Outline { events: Some(Events::Open), ..outline },
                    Some(end) => {
                        outline.events = Some(Events::Closed(end));
                        (at, last) = (end, b']');
                    }
                },
                (Some(b"sent_at"), Some((value, _))) => {
                    raw_events.sent_at = sent_at(body, value).or(raw_events.sent_at)
                }
                (Some(b"events"), Some(_)) if outline.events.is_none() => outline.events = Some(Events::NotAnArray),
                _ => {}
            }
            continue;
        }
        if byte == b'{' && open.rules_out_object_after(last) {
            return outline;
        }
        open.pass(byte);
        at += 1;
        if open.depth() == 0 {
            return Outline { end: Some(at), ..outline };
        }
        if !is_space(byte) {
            last = byte;
        }
    }
    outline
}

/// The time that a value states which begins here.
fn sent_at(body: &[u8], from: usize) -> Option<Millis> {
    let end = match body.get(from)? {
        b'"' => string_end(body, from + 1),
        _ => from + body[from..].iter().position(|&byte| matches!(byte, b',' | b'}') || is_space(byte))?,
    };
    time_of_json(std::str::from_utf8(&body[from..end]).ok()?)
}

/// Where the value of a key that ends here begins, and with what.
fn value_at(body: &[u8], key_end: usize) -> Option<(usize, u8)> {
    let next = |from: usize| {
        let skipped = body.get(from..)?.iter().position(|&byte| !is_space(byte))?;
        Some((from + skipped, body[from + skipped]))
    };
    match next(key_end)? {
        (colon, b':') => next(colon + 1),
        _ => None,
    }
}

/// Splits an array from behind its bracket on; returns where it ends. If it never does, its rest is the last raw event.
fn array<'a>(body: &'a [u8], from: usize, raw_events: &mut Slices<'a, '_>) -> Option<usize> {
    let first = body.get(from..).unwrap_or_default().iter().position(|&byte| !is_space(byte));
    if let Some(closed) = first.filter(|&first| body[from + first] == b']') {
        return Some(from + closed + 1);
    }
    let (mut at, mut resync) = (from, false);
    while let Some(end) = raw_events.read(at) {
        at = end + 1;
        if body[end] == b']' {
            return Some(at);
        }
    }
    loop {
        let element = element(body, at, resync);
        let raw_event = body.get(at..element.end).unwrap_or_default();
        match element.stop {
            Stop::Comma => {
                let last = sequence(raw_event, raw_events);
                raw_events.push(last);
                at = element.end + 1;
            }
            Stop::Closed => {
                let last = sequence(raw_event, raw_events);
                raw_events.push(last);
                return Some(element.end + 1);
            }
            // A bracket never closes: once more from here on, with less trust in brackets.
            Stop::End if !resync => resync = true,
            Stop::End => {
                raw_events.push(raw_event);
                // Cut off behind an event: what was to follow is unknown, which counts as one bad event.
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

/// An array's element.
struct Element {
    end: usize,
    stop: Stop,
}

/// What ends an element.
enum Stop {
    Comma,
    /// The array's bracket.
    Closed,
    /// An object where the element's brackets allow none: the element is broken and another one begins.
    NextObject,
    /// The body's end.
    End,
}

/// Finds the end of the element that begins at `from`. `resync`: end it also where another one seems to begin.
fn element(body: &[u8], from: usize, resync: bool) -> Element {
    let mut open = Brackets::default();
    let (mut at, mut last) = (from, b',');
    while let Some(&byte) = body.get(at) {
        match byte {
            b'"' => {
                (at, last) = (string_end(body, at + 1), b'"');
                continue;
            }
            b',' if open.depth() == 0 => return Element { end: at, stop: Stop::Comma },
            b']' if open.depth() == 0 => return Element { end: at, stop: Stop::Closed },
            b'{' if resync && open.rules_out_object_after(last) => return Element { end: at, stop: Stop::NextObject },
            _ => open.pass(byte),
        }
        if !is_space(byte) {
            last = byte;
        }
        at += 1;
    }
    Element { end: body.len(), stop: Stop::End }
}

/// The index behind the closing quotation mark of a string; the body's end if it has none.
fn string_end(body: &[u8], mut at: usize) -> usize {
    while let Some(found) = memchr2(b'"', b'\\', body.get(at..).unwrap_or_default()) {
        at += found;
        if body[at] == b'"' {
            return at + 1;
        }
        // Whatever is escaped is no quotation mark that counts.
        at += 2;
    }
    body.len()
}

/// JSON's white space.
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
