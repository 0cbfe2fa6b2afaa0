//! The fields that we read of an event, as they stand in its text; or why there are none.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::properties::Properties;
use super::raw_field::{RawField, Shape};
use super::scan::{Key, Members, Scanner};
use super::text::checked_text;
use super::{RejectCode, Rejection};

/// An event's fields, each by its place in the text.
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

impl<'a> Fields<'a> {
    /// Reads the event that a text begins with in one pass, and gives its own text; none where that is not one object of valid
    /// JSON, within the bounds of what an event may hold, with each field at most once.
    pub fn scan(text: &'a str, with_clicks: bool) -> Option<(Self, &'a str)> {
        let mut scanner = Scanner::new(text);
        let mut fields = Self::none(text, with_clicks);
        let end = scanner.object(0, &mut fields)?;
        let text = text.get(..end)?;
        fields.properties.text = text;
        Some((fields, text))
    }

    /// Those of an event before it is read.
    #[inline]
    fn none(text: &'a str, with_clicks: bool) -> Self {
        Self {
            uuid: RawField::ABSENT,
            event: RawField::ABSENT,
            distinct_id: RawField::ABSENT,
            project: RawField::ABSENT,
            timestamp: RawField::ABSENT,
            sent_at: RawField::ABSENT,
            received_at: RawField::ABSENT,
            properties: Properties::none(text, with_clicks),
        }
    }
}

impl Members for Fields<'_> {
    #[inline(always)]
    fn member(&mut self, scanner: &mut Scanner<'_>, key: Key<'_>, at: usize) -> Option<usize> {
        let field = match key.text {
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

/// Why an event was not taken. This is the slow path: it walks the event once for each thing that may be wrong.
pub(super) fn diagnosis(bytes: &[u8]) -> Rejection {
    #[derive(Deserialize)]
    #[allow(dead_code, reason = "what counts is that each is there at most once")]
    struct Known {
        uuid: Option<IgnoredAny>,
        event: Option<IgnoredAny>,
        distinct_id: Option<IgnoredAny>,
        project: Option<IgnoredAny>,
        timestamp: Option<IgnoredAny>,
        sent_at: Option<IgnoredAny>,
        received_at: Option<IgnoredAny>,
        properties: Option<IgnoredAny>,
    }
    let text = match checked_text(bytes) {
        Ok(text) => text,
        Err(rejection) => return rejection,
    };
    // The library's sentence may quote the input; its place in it says enough.
    let message = match serde_json::from_str::<Known>(text) {
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
