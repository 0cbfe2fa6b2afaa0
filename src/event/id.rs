//! An event's id: its own `uuid`, or one that is derived from the event.

use std::borrow::Cow;

use uuid::Uuid;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128, xxh3_128_with_seed};

use super::raw::{given, string};
use super::text::string_field;
use super::{MAX_NAME_CHARS, Origin, RejectCode, Rejection};

/// A `uuid` must not begin with this character: the timeline's marks for ended sessions do.
const RESERVED: char = crate::timeline::END_MARK_PREFIX;
/// What programs send as `uuid` when they have no id, in lower case.
const PLACEHOLDER_IDS: [&str; 16] = [
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

/// Returns the event's own id. Returns `None` if it has none, or if its `uuid` is not an id, such as `null` or `"undefined"`. A UUID
/// is the same in any case, so it is returned in lower case.
pub(super) fn own_id(json: Option<&str>) -> Result<Option<Cow<'_, str>>, Rejection> {
    let Some(json) = given(json) else { return Ok(None) };
    if string(json).is_some_and(|id| is_placeholder(&id)) {
        return Ok(None);
    }
    let uuid = string_field(Some(json), "uuid", MAX_NAME_CHARS, RejectCode::InvalidUuid)?;
    if uuid.as_ref().is_some_and(|uuid| uuid.starts_with(RESERVED)) {
        let message = "`uuid` begins with U+10FFFF, which is reserved; begin it with another character";
        return Err(Rejection::new(RejectCode::InvalidUuid, message));
    }
    Ok(uuid.map(lower_case_uuid))
}

/// Returns whether a string is not an id: it is blank, a word such as `null`, or the nil or max UUID.
fn is_placeholder(id: &str) -> bool {
    // Fast path: an id of more than 16 bytes is no such word, and one that ends with 1–9 or a–e is no nil or max UUID.
    let may_be = id.len() <= 16 || !id.as_bytes().last().is_some_and(|last| matches!(last, b'1'..=b'9' | b'a'..=b'e'));
    may_be && is_placeholder_slow(id.trim())
}

fn is_placeholder_slow(id: &str) -> bool {
    let bare = id.trim_start_matches("urn:uuid:").trim_matches(['{', '}', '"', '\'']);
    let only = |byte: u8| bare.bytes().all(|other| other.eq_ignore_ascii_case(&byte) || other == b'-');
    let has_uuid_length = matches!(bare.len(), 32 | 36);
    bare.is_empty()
        || (has_uuid_length && (only(b'0') || only(b'f')))
        || PLACEHOLDER_IDS.iter().any(|word| bare.eq_ignore_ascii_case(word))
}

/// Returns a UUID in lower case, and any other id unchanged.
fn lower_case_uuid(id: Cow<'_, str>) -> Cow<'_, str> {
    let has_capitals = || id.bytes().any(|byte| byte.is_ascii_uppercase());
    if matches!(id.len(), 32 | 36 | 38 | 45) && has_capitals() && Uuid::try_parse(&id).is_ok() {
        return Cow::Owned(id.to_ascii_lowercase());
    }
    id
}

/// Returns an id for an event without one: a UUID (version 8).
///
/// If the event states its time, the id is derived from the event's JSON, so the same JSON again is a duplicate. If it does not,
/// equal JSON can mean several events (a heartbeat has the same JSON each time). Then the id is derived from the delivery as
/// well, so only a redelivery is a duplicate.
pub(super) fn derived_id(event_json: &str, origin: &Origin<'_>, is_time_stated: bool) -> Cow<'static, str> {
    let hash = if is_time_stated {
        xxh3_128(event_json.as_bytes())
    } else {
        let index = origin.index;
        let position = match origin.id {
            "" => format!("{index}@{}", origin.delivery.received_at),
            id => format!("{index}#{id}"),
        };
        xxh3_128_with_seed(event_json.as_bytes(), xxh3_64(position.as_bytes()))
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

    fn id(json: &str, origin: Origin<'static>) -> String {
        Event::parse(json.as_bytes(), origin, &SessionConfig::default()).unwrap().uuid.into_owned()
    }

    #[test]
    fn an_id_without_a_time_is_derived_from_the_delivery() {
        for json in [
            r#"{"event":"heartbeat","distinct_id":"u"}"#,
            r#"{"event":"heartbeat","distinct_id":"u","timestamp":null,"uuid":""}"#,
            r#"{"event":"heartbeat","distinct_id":"u","timestamp":"0001-01-01T00:00:00Z"}"#,
        ] {
            let first = id(json, origin("r1", 0));
            assert_eq!(first, id(json, origin("r1", 0)), "a redelivery");
            for other in [origin("r1", 1), origin("r2", 0), origin("", 0), origin("r11", 0)] {
                assert_ne!(first, id(json, other), "{json} {other:?}");
            }
            // A delivery without an id is identified by its time of receipt.
            let received_at_time =
                |received_at| Origin { delivery: Delivery { received_at, trusts_received_at: true }, ..origin("", 0) };
            assert_eq!(id(json, received_at_time(NOON)), id(json, origin("", 0)));
            assert_ne!(id(json, received_at_time(NOON + 1)), id(json, origin("", 0)));
        }
    }

    #[test]
    fn an_id_with_a_time_is_derived_from_the_json() {
        let json = |second: usize| {
            format!(r#"{{"event":"heartbeat","distinct_id":"u","timestamp":"2026-03-10T11:59:0{second}Z"}}"#)
        };
        let first = id(&json(1), origin("r1", 0));
        assert_eq!(first, id(&json(1), origin("r2", 7)));
        assert_ne!(first, id(&json(2), origin("r1", 0)));
    }

    #[test]
    fn placeholder_ids_are_replaced() {
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
            let json = event(uuid);
            let origin = origin("r1", 0);
            let config = SessionConfig::default();
            let parsed = Event::parse(json.as_bytes(), origin, &config).unwrap();
            assert_eq!(parsed.uuid.len(), 36, "{uuid}");
            assert_eq!(parsed.uuid.as_bytes()[14], b'8', "{uuid}: {}", parsed.uuid);
            let out: serde_json::Value = serde_json::from_str(&parsed.annotate(None)).unwrap();
            assert_eq!(out["uuid"], *parsed.uuid, "the derived id replaces the placeholder");
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
            let json = event(uuid);
            let config = SessionConfig::default();
            let parsed = Event::parse(json.as_bytes(), origin("r", 0), &config).unwrap();
            assert!(parsed.annotate(None).contains(uuid), "the event's own bytes stay");
        }
        for other in ["Ajs-Next-1", "5E551011-0000-4000-8000-00000000ABCG", "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"] {
            assert_eq!(id(&event(other), origin("r", 0)), other);
        }
    }
}
