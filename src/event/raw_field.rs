//! A JSON value that is not parsed yet: its position in the event's JSON, and its type.

use std::borrow::Cow;

use super::MAX_EVENT_BYTES;
use super::scan::{Span, Value};

/// The type of a JSON value, as far as the service needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// There is no value.
    Absent,
    /// `null`.
    Null,
    /// A string without escapes.
    PlainString,
    /// A string with escapes.
    EscapedString,
    /// An object.
    Object,
    /// An array, a number or a boolean.
    Other,
}

/// The position of a value in an event's JSON, or that it is absent. Positions are `u16` to keep it small: an event has some 30.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawField {
    start: u16,
    end: u16,
    pub shape: Shape,
}

// Every position in an event fits.
const _: () = assert!(MAX_EVENT_BYTES <= u16::MAX as usize);

impl RawField {
    /// A value that is absent.
    pub const ABSENT: Self = Self { start: 0, end: 0, shape: Shape::Absent };

    /// Keeps the position of a value. The value must be within the first [`MAX_EVENT_BYTES`] bytes.
    #[inline]
    pub fn new(value: Value) -> Self {
        Self { start: value.start as u16, end: value.end as u16, shape: value.shape }
    }

    /// Returns the position and type as a [`Value`].
    #[inline]
    pub fn value(self) -> Value {
        let Span { start, end } = self.span();
        Value { start, end, shape: self.shape }
    }

    /// Returns the position.
    #[inline]
    pub fn span(self) -> Span {
        Span { start: usize::from(self.start), end: usize::from(self.end) }
    }

    /// Returns whether there is a value other than null.
    pub fn is_given(self) -> bool {
        !matches!(self.shape, Shape::Absent | Shape::Null)
    }

    /// Returns the value together with the JSON of its event.
    #[inline(always)]
    pub fn of(self, event_json: &str) -> Json<'_> {
        Json { event_json, raw: self }
    }
}

/// A JSON value within its event's JSON. It may be absent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Json<'a> {
    event_json: &'a str,
    pub raw: RawField,
}

impl<'a> Json<'a> {
    /// Returns the value's JSON. Returns `None` if it is absent.
    pub fn raw(self) -> Option<&'a str> {
        let Span { start, end } = self.raw.span();
        self.event_json.get(start..end).filter(|_| self.raw.shape != Shape::Absent)
    }

    /// Returns the value of a string, without a copy if it has no escapes. Returns `None` for another type.
    #[inline(always)]
    pub fn string(self) -> Option<Cow<'a, str>> {
        let Span { start, end } = self.raw.span();
        match self.raw.shape {
            Shape::PlainString => self.event_json.get(start + 1..end - 1).map(Cow::Borrowed),
            Shape::EscapedString => serde_json::from_str(self.event_json.get(start..end)?).ok().map(Cow::Owned),
            _ => None,
        }
    }
}
