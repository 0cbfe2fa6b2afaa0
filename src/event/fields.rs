//! The fields of an event that the service reads, as JSON; or why the event cannot be read.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::text::{check_limits, checked_str};
use super::{MAX_EVENT_BYTES, RejectCode, Rejection};

/// An event that is parsed as far as its fields. Each is as it is written. A field that occurs twice is an error.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Fields<'a> {
    /// The event's JSON.
    #[serde(skip)]
    pub json: &'a str,
    #[serde(borrow, deserialize_with = "as_written")]
    pub(super) uuid: Option<&'a str>,
    #[serde(borrow, deserialize_with = "as_written")]
    pub(super) event: Option<&'a str>,
    #[serde(borrow, deserialize_with = "as_written")]
    pub(super) distinct_id: Option<&'a str>,
    #[serde(borrow, deserialize_with = "as_written")]
    pub(super) project: Option<&'a str>,
    #[serde(borrow, deserialize_with = "as_written")]
    pub(super) timestamp: Option<&'a str>,
    #[serde(borrow, deserialize_with = "as_written")]
    pub(super) sent_at: Option<&'a str>,
    #[serde(borrow, deserialize_with = "as_written")]
    pub(super) received_at: Option<&'a str>,
    #[serde(borrow, deserialize_with = "as_written")]
    pub(super) properties: Option<&'a str>,
}

/// Reads a value that is there. (An `Option` by itself would read null as if the field were absent.)
fn as_written<'de, D: Deserializer<'de>>(value: D) -> Result<Option<&'de str>, D::Error> {
    Ok(Some(<&RawValue>::deserialize(value)?.get()))
}

impl<'a> Fields<'a> {
    /// Parses an event from its bytes, of which it may have `max_bytes`.
    ///
    /// # Errors
    /// The bytes are not one JSON object within the limits of an event, or a field occurs twice.
    pub fn parse(bytes: &'a [u8], max_bytes: usize) -> Result<Self, Rejection> {
        let json = checked_str(bytes, max_bytes)?;
        let fields = serde_json::from_str(json).map_err(|error| unreadable(&error))?;
        Ok(Self { json, ..fields })
    }

    /// Parses the event at the beginning of `json`, which may go on behind it. Returns `None` where [`Self::parse`] would return an
    /// error.
    pub fn parse_first(json: &'a str) -> Option<Self> {
        // An array would be taken for the fields in their order.
        if !json.starts_with('{') {
            return None;
        }
        let mut values = serde_json::Deserializer::from_str(json).into_iter::<Self>();
        let fields = values.next()?.ok()?;
        let json = &json[..values.byte_offset()];
        let is_within_limits = json.len() <= MAX_EVENT_BYTES && check_limits(json).is_ok();
        is_within_limits.then_some(Self { json, ..fields })
    }
}

/// Returns why an event cannot be read. `serde_json`'s message may quote the event, so only the position is used.
fn unreadable(error: &serde_json::Error) -> Rejection {
    let (problem, fix) = match error.is_data() {
        true => ("has a field twice,", "send it once"),
        false => ("is not valid JSON", "send one object"),
    };
    let message = format!("the event {problem} at line {}, column {}; {fix}", error.line(), error.column());
    Rejection::new(RejectCode::InvalidJson, message)
}

#[cfg(test)]
mod tests {
    use super::super::{MAX_DEPTH, MAX_EVENT_BYTES};
    use super::*;

    fn parse(json: &str) -> Result<(), RejectCode> {
        let parsed = Fields::parse(json.as_bytes(), MAX_EVENT_BYTES);
        // The same event with more behind it.
        for rest in ["", ",{}", " ]", "{"] {
            let both = format!("{json}{rest}");
            let first = Fields::parse_first(&both).filter(|_| json.starts_with('{'));
            let is_first = first.as_ref().is_some_and(|first| first.json == json);
            assert_eq!(is_first, parsed.is_ok(), "{both:?}: {first:?}");
        }
        parsed.map(|_| ()).map_err(|rejection| rejection.code)
    }

    #[test]
    fn a_field_is_absent_or_as_it_is_written() {
        let json = r#" {"uuid":null,"event" : "a\u0062","x":[1],"timestamp":1.50e400,"properties":{ } } "#;
        let fields = Fields::parse(json.as_bytes(), MAX_EVENT_BYTES).unwrap();
        assert_eq!(fields.json, json.trim());
        let found = [fields.uuid, fields.event, fields.distinct_id, fields.timestamp, fields.properties];
        assert_eq!(found, [Some("null"), Some(r#""a\u0062""#), None, Some("1.50e400"), Some("{ }")]);
        // A key is the same however it is spelled.
        assert_eq!(Fields::parse(br#"{"\u0065vent":"x"}"#, MAX_EVENT_BYTES).unwrap().event, Some("\"x\""));
    }

    #[test]
    fn a_field_must_not_occur_twice_and_any_other_may() {
        for name in ["uuid", "event", "distinct_id", "project", "timestamp", "sent_at", "received_at", "properties"] {
            for [one, other] in [["1", "2"], ["null", "null"], ["{}", "null"]] {
                let json = format!("{{\"{name}\":{one},\"a\":1,\"a\":2,\"{name}\":{other}}}");
                assert_eq!(parse(&json), Err(RejectCode::InvalidJson), "{json}");
            }
        }
        assert_eq!(parse(r#"{"a":1,"a":2}"#), Ok(()));
    }

    #[test]
    fn only_brackets_outside_of_strings_nest() {
        for open in ["[", "{\"a\":"] {
            let close = if open == "[" { "]" } else { "}" };
            let nested = |depth: usize| format!("{{\"a\":{}1{}}}", open.repeat(depth - 1), close.repeat(depth - 1));
            assert_eq!(parse(&nested(MAX_DEPTH)), Ok(()));
            assert_eq!(parse(&nested(MAX_DEPTH + 1)), Err(RejectCode::TooDeep));
            // As deep as the size allows: nothing recurses.
            assert_eq!(parse(&nested((MAX_EVENT_BYTES - 10) / (open.len() + 1))), Err(RejectCode::TooDeep));
        }
        assert_eq!(parse(&format!("{{\"a\":\"{}\"}}", "[{".repeat(100))), Ok(()));
        assert_eq!(parse(&format!("{{\"a\":[{}[]]}}", "[],".repeat(100))), Ok(()));
    }

    #[test]
    fn faults_have_their_codes() {
        for (json, wanted) in [
            (r#"{"a":1"#, RejectCode::InvalidJson),
            (r#"{"a":1}}"#, RejectCode::InvalidJson),
            (r#"{"a":01}"#, RejectCode::InvalidJson),
            (r#"{"a":"\x"}"#, RejectCode::InvalidJson),
            (r#"{"a":"\u12g4"}"#, RejectCode::InvalidJson),
            ("{\"a\":\"\u{1}\"}", RejectCode::InvalidJson),
            ("{\"a\":\"\0\"}", RejectCode::NulCharacter),
            (r#"{"\u0000":1}"#, RejectCode::NulCharacter),
            (r#"{"a":{"b":"\ude00\ud83d"}}"#, RejectCode::LoneSurrogate),
            ("[1]", RejectCode::NotAnObject),
            ("", RejectCode::InvalidJson),
        ] {
            assert_eq!(parse(json), Err(wanted), "{json:?}");
        }
        assert_eq!(parse(&format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_EVENT_BYTES))), Err(RejectCode::TooLarge));
        assert_eq!(parse(r#"{"a":"\\u0000\ud83d\ude00"}"#), Ok(()));
    }
}
