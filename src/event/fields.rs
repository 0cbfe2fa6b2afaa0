//! The fields of an event that the service reads, as JSON; or why the event cannot be read.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::text::checked_str;
use super::{RejectCode, Rejection};

/// An event's fields, each as it is written. A field that occurs twice is an error.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Fields<'a> {
    #[serde(borrow, deserialize_with = "as_written")]
    pub uuid: Option<&'a str>,
    #[serde(borrow, deserialize_with = "as_written")]
    pub event: Option<&'a str>,
    #[serde(borrow, deserialize_with = "as_written")]
    pub distinct_id: Option<&'a str>,
    #[serde(borrow, deserialize_with = "as_written")]
    pub project: Option<&'a str>,
    #[serde(borrow, deserialize_with = "as_written")]
    pub timestamp: Option<&'a str>,
    #[serde(borrow, deserialize_with = "as_written")]
    pub sent_at: Option<&'a str>,
    #[serde(borrow, deserialize_with = "as_written")]
    pub received_at: Option<&'a str>,
    #[serde(borrow, deserialize_with = "as_written")]
    pub properties: Option<&'a str>,
}

/// Reads a value that is there. (An `Option` by itself would read null as if the field were absent.)
fn as_written<'de, D: Deserializer<'de>>(value: D) -> Result<Option<&'de str>, D::Error> {
    Ok(Some(<&RawValue>::deserialize(value)?.get()))
}

impl<'a> Fields<'a> {
    /// Parses an event as far as its fields, and returns them with the event's JSON.
    ///
    /// # Errors
    /// The bytes are not one JSON object within the limits of an event, or a field occurs twice.
    pub fn parse(bytes: &'a [u8]) -> Result<(Self, &'a str), Rejection> {
        let json = checked_str(bytes)?;
        match serde_json::from_str(json) {
            Ok(fields) => Ok((fields, json)),
            Err(error) => Err(unreadable(&error)),
        }
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
        Fields::parse(json.as_bytes()).map(|_| ()).map_err(|rejection| rejection.code)
    }

    #[test]
    fn a_field_is_absent_or_as_it_is_written() {
        let json = r#" {"uuid":null,"event" : "a\u0062","x":[1],"timestamp":1.50e400,"properties":{ } } "#;
        let (fields, text) = Fields::parse(json.as_bytes()).unwrap();
        assert_eq!(text, json.trim());
        let found = [fields.uuid, fields.event, fields.distinct_id, fields.timestamp, fields.properties];
        assert_eq!(found, [Some("null"), Some(r#""a\u0062""#), None, Some("1.50e400"), Some("{ }")]);
        // A key is the same however it is spelled.
        assert_eq!(Fields::parse(br#"{"\u0065vent":"x"}"#).unwrap().0.event, Some("\"x\""));
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
