//! An event's id: its own, or one that is derived for it.

use std::borrow::Cow;

use uuid::Uuid;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128, xxh3_128_with_seed};

use super::raw_field::{Json, Shape};
use super::scan::Span;
use super::text::string;
use super::{MAX_NAME_CHARS, Origin, RejectCode, Rejection};

/// No `uuid` begins with it: the timeline's own marks for ended sessions do.
const RESERVED: char = crate::timeline::MARK;
/// What programs write where they have no id, in lower case.
const NOTHINGS: [&str; 16] = [
    "null",
    "0",
    "-",
    "undefined",
    "none",
    "nil",
    "nan",
    "n/a",
    "na",
    "void",
    "empty",
    "false",
    "(null)",
    "<null>",
    "<nil>",
    "[object object]",
];

/// Where an event's text has its `uuid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UuidPlace {
    Given,
    /// Something that is no id stands here, in whose place the derived one goes.
    Nothing(Span),
    Missing,
}

/// Returns the event's own id, if it has one, and where it stands. UUIDs are the same in any case: they come out in lower case.
pub(super) fn own_id(value: Json<'_>) -> Result<(Option<Cow<'_, str>>, UuidPlace), Rejection> {
    if value.raw.shape == Shape::Absent {
        return Ok((None, UuidPlace::Missing));
    }
    if value.raw.shape == Shape::Null || value.text().is_some_and(|text| is_nothing(&text)) {
        return Ok((None, UuidPlace::Nothing(value.raw.span())));
    }
    let uuid = string(value, "uuid", MAX_NAME_CHARS, RejectCode::InvalidUuid)?;
    if uuid.as_ref().is_some_and(|uuid| uuid.starts_with(RESERVED)) {
        let message = "`uuid` begins with U+10FFFF, which is reserved; begin it with another character";
        return Err(Rejection::new(RejectCode::InvalidUuid, message));
    }
    Ok((uuid.map(in_lower_case), UuidPlace::Given))
}

/// Whether a text stands for nothing: blank, a word for it, or a UUID of which nobody is the owner, nil or max.
fn is_nothing(text: &str) -> bool {
    // Most ids end with a letter or a digit that no nil or max UUID ends with.
    let may_be =
        text.len() <= 16 || !text.as_bytes().last().is_some_and(|last| matches!(last, b'1'..=b'9' | b'a'..=b'e'));
    may_be && is_nothing_at_all(text.trim())
}

#[inline(never)]
fn is_nothing_at_all(text: &str) -> bool {
    let bare = text.trim_start_matches("urn:uuid:").trim_matches(['{', '}', '"', '\'']);
    let only = |byte: u8| bare.bytes().all(|other| other.eq_ignore_ascii_case(&byte) || other == b'-');
    let is_of_uuid = matches!(bare.len(), 32 | 36);
    bare.is_empty()
        || (is_of_uuid && (only(b'0') || only(b'f')))
        || NOTHINGS.iter().any(|word| bare.eq_ignore_ascii_case(word))
}

/// A UUID's text in lower case; any other text as it is.
#[inline]
fn in_lower_case(text: Cow<'_, str>) -> Cow<'_, str> {
    let has_capitals = || text.bytes().any(|byte| byte.is_ascii_uppercase());
    if matches!(text.len(), 32 | 36 | 38 | 45) && has_capitals() && Uuid::try_parse(&text).is_ok() {
        return Cow::Owned(text.to_ascii_lowercase());
    }
    text
}

/// Returns the id of an event that came without: a UUID (version 8). Where its text says when it happened, the text is what
/// tells it apart: the same text again is a duplicate. Where it does not, equal texts are as many events (a heartbeat says
/// the same each time), and only the same delivery again brings the same one.
pub(super) fn derived(text: &str, origin: &Origin<'_>, is_time_stated: bool) -> Cow<'static, str> {
    let hash = if is_time_stated {
        xxh3_128(text.as_bytes())
    } else {
        let index = origin.index;
        let place = match origin.id {
            "" => format!("{index}@{}", origin.delivery.received_at),
            id => format!("{index}#{id}"),
        };
        xxh3_128_with_seed(text.as_bytes(), xxh3_64(place.as_bytes()))
    };
    Cow::Owned(Uuid::new_v8(hash.to_be_bytes()).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SessionConfig;
    use crate::event::{Delivery, Event};

    const NOON: i64 = 1_773_144_000_000;

    fn origin(id: &'static str, index: usize) -> Origin<'static> {
        Origin { id, index, ..Delivery { received_at: NOON, trusts_received_at: true }.into() }
    }

    fn id(text: &str, origin: Origin<'static>) -> String {
        Event::parse(text.as_bytes(), origin, &SessionConfig::default()).unwrap().uuid.into_owned()
    }

    #[test]
    fn without_a_time_the_delivery_tells_events_apart() {
        for text in [
            r#"{"event":"heartbeat","distinct_id":"u"}"#,
            r#"{"event":"heartbeat","distinct_id":"u","timestamp":null,"uuid":""}"#,
            r#"{"event":"heartbeat","distinct_id":"u","timestamp":"0001-01-01T00:00:00Z"}"#,
        ] {
            let first = id(text, origin("r1", 0));
            assert_eq!(first, id(text, origin("r1", 0)), "a redelivery");
            for other in [origin("r1", 1), origin("r2", 0), origin("", 0), origin("r11", 0)] {
                assert_ne!(first, id(text, other), "{text} {other:?}");
            }
            // Where nothing has an id, the time of receipt is the delivery's.
            let later =
                |received_at| Origin { delivery: Delivery { received_at, trusts_received_at: true }, ..origin("", 0) };
            assert_eq!(id(text, later(NOON)), id(text, origin("", 0)));
            assert_ne!(id(text, later(NOON + 1)), id(text, origin("", 0)));
        }
    }

    #[test]
    fn with_a_time_the_text_does() {
        let text = |second: usize| {
            format!(r#"{{"event":"heartbeat","distinct_id":"u","timestamp":"2026-03-10T11:59:0{second}Z"}}"#)
        };
        let first = id(&text(1), origin("r1", 0));
        assert_eq!(first, id(&text(1), origin("r2", 7)));
        assert_ne!(first, id(&text(2), origin("r1", 0)));
    }

    #[test]
    fn what_stands_for_nothing_is_no_id() {
        let event = |uuid: &str| format!(r#"{{"uuid":{uuid},"event":"x","distinct_id":"u"}}"#);
        for uuid in [
            "null",
            r#""""#,
            r#""  ""#,
            r#""null""#,
            r#""NULL""#,
            r#""undefined""#,
            r#""None""#,
            r#""nil""#,
            r#""NaN""#,
            r#""[object Object]""#,
            r#""00000000-0000-0000-0000-000000000000""#,
            r#""{00000000-0000-0000-0000-000000000000}""#,
            r#""00000000000000000000000000000000""#,
            r#""urn:uuid:00000000-0000-0000-0000-000000000000""#,
            r#""0""#,
            r#""FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF""#,
            r#""ffffffff-ffff-ffff-ffff-ffffffffffff""#,
            r#""nu\u006cl""#,
        ] {
            let text = event(uuid);
            let origin = origin("r1", 0);
            let config = SessionConfig::default();
            let parsed = Event::parse(text.as_bytes(), origin, &config).unwrap();
            assert_eq!(parsed.uuid.len(), 36, "{uuid}");
            assert_eq!(parsed.uuid.as_bytes()[14], b'8', "{uuid}: {}", parsed.uuid);
            let out: serde_json::Value = serde_json::from_str(&parsed.annotate(None)).unwrap();
            assert_eq!(out["uuid"], *parsed.uuid, "it is put in its place");
        }
        for uuid in [
            "nullable",
            "nobody",
            "00000000-0000-0000-0000-000000000001",
            "f",
            "1",
            "a",
            "0x0",
            "undefined-7",
            "00-0",
            "000",
            "ff",
        ] {
            assert_eq!(id(&event(&format!("{uuid:?}")), origin("r1", 0)), uuid);
        }
    }

    #[test]
    fn uuids_are_the_same_in_any_case_and_other_ids_are_not() {
        let event = |uuid: &str| format!(r#"{{"uuid":"{uuid}","event":"x","distinct_id":"u"}}"#);
        for uuid in [
            "5E551011-0000-4000-8000-00000000ABCD",
            "5E5510110000400080000000000ABCDE",
            "{5E551011-0000-4000-8000-00000000ABCD}",
        ] {
            assert_eq!(id(&event(uuid), origin("r", 0)), uuid.to_ascii_lowercase());
            let text = event(uuid);
            let config = SessionConfig::default();
            let parsed = Event::parse(text.as_bytes(), origin("r", 0), &config).unwrap();
            assert!(parsed.annotate(None).contains(uuid), "the event's own bytes stay");
        }
        for other in ["Ajs-Next-1", "5E551011-0000-4000-8000-00000000ABCG", "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"] {
            assert_eq!(id(&event(other), origin("r", 0)), other);
        }
    }
}
