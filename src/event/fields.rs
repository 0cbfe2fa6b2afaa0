//! The fields that we read of an event, as they stand in its text; or why there are none.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::properties::Properties;
use super::scan::{Key, Scanner};
use super::text::checked_text;
use super::{RejectCode, Rejection};

/// An event's fields, each as its JSON text. A null is told apart from an absent field.
#[derive(Debug, Clone, Default)]
pub(super) struct Fields<'a> {
    pub uuid: Option<&'a str>,
    /// Where the value of `uuid` begins.
    pub uuid_at: usize,
    pub event: Option<&'a str>,
    pub distinct_id: Option<&'a str>,
    pub project: Option<&'a str>,
    pub timestamp: Option<&'a str>,
    pub sent_at: Option<&'a str>,
    pub received_at: Option<&'a str>,
    pub properties: Properties<'a>,
}

impl<'a> Fields<'a> {
    /// Reads the event that a text begins with in one pass, and says where it ends; none where that is not one object of valid
    /// JSON, within the bounds of what an event may hold, with each field at most once.
    pub fn scan(text: &'a str, with_clicks: bool) -> Option<(Self, usize)> {
        let (mut fields, mut scanner) = (Self::default(), Scanner::new(text));
        scanner.object(|scanner, key| fields.member(scanner, &key, text, with_clicks))?;
        Some((fields, scanner.place()))
    }

    fn member(&mut self, scanner: &mut Scanner<'a>, key: &Key<'a>, text: &'a str, with_clicks: bool) -> Option<()> {
        if key.text == "properties" {
            return self.properties.scan(scanner, text, with_clicks);
        }
        let span = scanner.value()?;
        let field = match &*key.text {
            "uuid" => {
                self.uuid_at = span.start;
                &mut self.uuid
            }
            "event" => &mut self.event,
            "distinct_id" => &mut self.distinct_id,
            "project" => &mut self.project,
            "timestamp" => &mut self.timestamp,
            "sent_at" => &mut self.sent_at,
            "received_at" => &mut self.received_at,
            _ => return Some(()),
        };
        field.replace(&text[span.start..span.end]).is_none().then_some(())
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
