//! A raw event, and the raw events of a body.

use crate::config::ProjectRules;
use crate::dialect::{ClientEvent, Standing};
use crate::event::{Event, Fields, Origin, Rejection};
use crate::session::Millis;

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
