//! A JSON value as it stands in an event's text.

use std::borrow::Cow;

use super::MAX_EVENT_BYTES;
use super::scan::{Span, Value};

/// What a value is, as far as we tell values apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Absent,
    Null,
    /// A string without escapes.
    Plain,
    /// A string with escapes.
    Escaped,
    Object,
    Other,
}

/// A value's place in the text of an event, or that there is none. It is small: an event has some 30 of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawField {
    start: u16,
    end: u16,
    pub shape: Shape,
}

// No place in an event is cut off.
const _: () = assert!(MAX_EVENT_BYTES <= u16::MAX as usize);

impl RawField {
    pub const ABSENT: Self = Self { start: 0, end: 0, shape: Shape::Absent };

    /// A value within the bounds of an event.
    #[inline]
    pub fn new(value: Value) -> Self {
        Self { start: value.start as u16, end: value.end as u16, shape: value.shape }
    }

    #[inline]
    pub fn value(self) -> Value {
        let Span { start, end } = self.span();
        Value { start, end, shape: self.shape }
    }

    #[inline]
    pub fn span(self) -> Span {
        Span { start: usize::from(self.start), end: usize::from(self.end) }
    }

    /// Whether it says something: null says as little as an absent value.
    pub fn is_given(self) -> bool {
        !matches!(self.shape, Shape::Absent | Shape::Null)
    }

    /// The value in the text that it is a part of.
    #[inline(always)]
    pub fn of(self, text: &str) -> Json<'_> {
        Json { text, raw: self }
    }
}

/// A JSON value in a text, or none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Json<'a> {
    text: &'a str,
    pub raw: RawField,
}

impl<'a> Json<'a> {
    pub fn raw(self) -> Option<&'a str> {
        let Span { start, end } = self.raw.span();
        self.text.get(start..end).filter(|_| self.raw.shape != Shape::Absent)
    }

    /// A string's text, without a copy where it has no escapes; none for another type.
    #[inline(always)]
    pub fn text(self) -> Option<Cow<'a, str>> {
        let Span { start, end } = self.raw.span();
        match self.raw.shape {
            Shape::Plain => self.text.get(start + 1..end - 1).map(Cow::Borrowed),
            Shape::Escaped => serde_json::from_str(self.text.get(start..end)?).ok().map(Cow::Owned),
            _ => None,
        }
    }
}
