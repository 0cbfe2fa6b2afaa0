//! The fields of an event that the service reads, as positions in its JSON; or why the event cannot be read.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::properties::Properties;
use super::raw_field::{Json, RawField, Shape};
use super::scan::{Key, MemberHandler, Scanner, Span};
use super::text::checked_str;
use super::{RejectCode, Rejection};

/// An event's fields, as positions in its JSON.
#[derive(Debug, Clone)]
pub(super) struct Fields<'a> {
    pub uuid: RawField,
    pub event: RawField,
    pub distinct_id: RawField,
    pub project: RawField,
    pub timestamp: RawField,
    pub sent_at: RawField,
    pub received_at: RawField,
    pub properties: Properties<'a>,
}

/// What becomes of a field when the event is annotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WrittenField {
    /// It stays as it is.
    Kept,
    /// The value at this position is replaced.
    Replaced(Span),
    /// The event has no such field, and gets it.
    Added,
}

impl WrittenField {
    /// Returns what becomes of a field so that it has this value.
    pub fn with(field: Json<'_>, value: &str) -> Self {
        match field.raw.shape {
            Shape::Absent => Self::Added,
            _ if field.string().is_some_and(|own| own == value) => Self::Kept,
            _ => Self::Replaced(field.raw.span()),
        }
    }
}

impl<'a> Fields<'a> {
    /// Scans the event at the beginning of `json` in one pass. Returns its fields and its own JSON.
    ///
    /// Returns `None` if `json` does not begin with a valid object within the limits of an event, or if a field occurs twice.
    pub fn scan(json: &'a str, reads_click_ids: bool) -> Option<(Box<Self>, &'a str)> {
        let mut scanner = Scanner::new(json);
        let mut fields = Box::new(Self::empty(json, reads_click_ids));
        let end = scanner.object(0, &mut *fields)?;
        let event_json = json.get(..end)?;
        fields.properties.event_json = event_json;
        Some((fields, event_json))
    }

    /// Returns the fields of an event that is not scanned yet.
    #[inline]
    fn empty(event_json: &'a str, reads_click_ids: bool) -> Self {
        Self {
            uuid: RawField::ABSENT,
            event: RawField::ABSENT,
            distinct_id: RawField::ABSENT,
            project: RawField::ABSENT,
            timestamp: RawField::ABSENT,
            sent_at: RawField::ABSENT,
            received_at: RawField::ABSENT,
            properties: Properties::empty(event_json, reads_click_ids),
        }
    }
}

impl MemberHandler for Fields<'_> {
    #[inline(always)]
    fn member(&mut self, scanner: &mut Scanner<'_>, key: Key<'_>, at: usize) -> Option<usize> {
        let field = match key.name {
            b"properties" => return self.properties.scan(scanner, at),
            b"uuid" => &mut self.uuid,
            b"event" => &mut self.event,
            b"distinct_id" => &mut self.distinct_id,
            b"project" => &mut self.project,
            b"timestamp" => &mut self.timestamp,
            b"sent_at" => &mut self.sent_at,
            b"received_at" => &mut self.received_at,
            _ => return Some(scanner.value(at)?.end),
        };
        if field.shape != Shape::Absent {
            return None;
        }
        let value = scanner.value(at)?;
        *field = RawField::new(value);
        Some(value.end)
    }
}

/// Returns why an event could not be scanned. This is the slow path: it reads the event once for each possible fault.
pub(super) fn diagnosis(bytes: &[u8]) -> Rejection {
    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only duplicate fields matter, not the values")]
    struct KnownFields {
        uuid: Option<IgnoredAny>,
        event: Option<IgnoredAny>,
        distinct_id: Option<IgnoredAny>,
        project: Option<IgnoredAny>,
        timestamp: Option<IgnoredAny>,
        sent_at: Option<IgnoredAny>,
        received_at: Option<IgnoredAny>,
        properties: Option<IgnoredAny>,
    }
    let json = match checked_str(bytes) {
        Ok(json) => json,
        Err(rejection) => return rejection,
    };
    // serde_json's message may quote the input, so only the position is used.
    let message = match serde_json::from_str::<KnownFields>(json) {
        Err(error) if error.is_data() => {
            format!("the event has a field twice, at line {}, column {}; send it once", error.line(), error.column())
        }
        Err(error) => {
            format!("the event is not valid JSON at line {}, column {}; send one object", error.line(), error.column())
        }
        Ok(_) => "the event is not valid JSON; send one object".to_owned(),
    };
    Rejection::new(RejectCode::InvalidJson, message)
}
