//! Repair of characters that stores and other consumers refuse.
//!
//! NUL characters, halves of surrogate pairs (a title cut in the middle of an emoji) and bytes that are not UTF-8 are replaced by
//! U+FFFD if they are in a string. This is a slow path: it only runs for events that were rejected.

use super::fields::Fields;
use super::raw::range_in;
use super::{Event, MAX_EVENT_BYTES, Origin, RejectCode, Rejection};
use crate::config::ProjectRules;

/// What replaces a character, and what replaces an escape.
const REPLACEMENT: &str = "\u{fffd}";
const ESCAPED_REPLACEMENT: &str = "\\ufffd";

/// An event's JSON in which characters were replaced.
#[derive(Debug)]
pub struct Repaired {
    json: String,
    /// The position of each replacement in `json`, and what was replaced.
    replaced: Vec<(usize, RejectCode)>,
}

impl Repaired {
    /// Replaces NUL characters, halves of surrogate pairs and bytes that are not UTF-8 in the event's strings.
    ///
    /// Returns `None` if there is nothing to replace, if one of them is outside of a string, or if the event is too large.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.trim_ascii();
        if bytes.len() > MAX_EVENT_BYTES {
            return None;
        }
        let mut repaired = Self { json: String::with_capacity(bytes.len() + 16), replaced: Vec::new() };
        let (mut at, mut in_string) = (0, false);
        while let Some(&byte) = bytes.get(at) {
            let (length, replaced) = match byte {
                b'\\' if in_string => escape(bytes, at),
                0 => (1, Some(RejectCode::NulCharacter)),
                0x80.. => character(&bytes[at..]),
                _ => (1, None),
            };
            in_string ^= byte == b'"';
            match replaced {
                None => repaired.json.push_str(std::str::from_utf8(bytes.get(at..at + length)?).ok()?),
                Some(_) if !in_string => return None,
                Some(code) => {
                    repaired.replaced.push((repaired.json.len(), code));
                    repaired.json.push_str(if byte == b'\\' { ESCAPED_REPLACEMENT } else { REPLACEMENT });
                }
            }
            at += length;
        }
        (!repaired.replaced.is_empty()).then_some(repaired)
    }

    /// Parses the repaired event. Returns `None` if its JSON is not valid.
    ///
    /// # Errors
    /// Returns why the event cannot be used. An event is rejected if characters were replaced in its `distinct_id`, `event`,
    /// `uuid` or `project`, because two visitors with broken ids must not become one visitor.
    pub fn parse<'a, 'o>(
        &'a self,
        origin: impl Into<Origin<'o>>,
        rules: &impl ProjectRules,
    ) -> Option<Result<Event<'a>, Rejection>> {
        let fields = Fields::parse(self.json.as_bytes(), MAX_EVENT_BYTES).ok()?;
        let strict_fields = [
            (fields.distinct_id, "distinct_id"),
            (fields.event, "event"),
            (fields.uuid, "uuid"),
            (fields.project, "project"),
        ];
        for (field, name) in strict_fields {
            let range = field.map(|field| range_in(fields.json, field)).unwrap_or_default();
            if let Some((_, code)) = self.replaced.iter().find(|(at, _)| range.contains(at)) {
                let what = match code {
                    RejectCode::NulCharacter => "a NUL character; remove it",
                    RejectCode::LoneSurrogate => "half of a surrogate pair; send whole characters",
                    _ => "bytes that are not UTF-8; encode it as UTF-8",
                };
                return Some(Err(Rejection::new(*code, format!("`{name}` contains {what}"))));
            }
        }
        Some(Event::read(fields, origin, rules).map(|event| Event { is_repaired: true, ..event }))
    }
}

/// Replaces halves of surrogate pairs, which a recorder can write and no parser takes, in JSON of any size.
#[cfg(feature = "replay")]
pub(crate) fn without_half_pairs(json: &str) -> std::borrow::Cow<'_, str> {
    let bytes = json.as_bytes();
    let (mut out, mut from, mut at) = (String::new(), 0, 0);
    while let Some(found) = bytes.get(at..).and_then(|rest| memchr::memchr(b'\\', rest)) {
        let here = at + found;
        let (length, replaced) = escape(bytes, here);
        if replaced == Some(RejectCode::LoneSurrogate) {
            out.push_str(&json[from..here]);
            out.push_str(ESCAPED_REPLACEMENT);
            from = here + length;
        }
        at = here + length;
    }
    if from == 0 { json.into() } else { (out + &json[from..]).into() }
}

/// Returns the length in bytes of the escape at `at`, and why it has to be replaced, if it has to.
pub(super) fn escape(bytes: &[u8], at: usize) -> (usize, Option<RejectCode>) {
    let unit = |at: usize| {
        let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
        digits.iter().try_fold(0, |unit, &digit| Some(unit << 4 | char::from(digit).to_digit(16)?))
    };
    match unit(at) {
        Some(0) => (6, Some(RejectCode::NulCharacter)),
        Some(0xd800..=0xdbff) if matches!(unit(at + 6), Some(0xdc00..=0xdfff)) => (12, None),
        Some(0xd800..=0xdfff) => (6, Some(RejectCode::LoneSurrogate)),
        Some(_) => (6, None),
        // A character of several bytes may follow the backslash.
        None => (1 + bytes.get(at + 1).map_or(0, |_| character(&bytes[at + 1..]).0), None),
    }
}

/// Returns the length in bytes of the character at the beginning, and why it has to be replaced, if it has to. For bytes that are
/// not UTF-8, it is the length of the invalid sequence.
fn character(bytes: &[u8]) -> (usize, Option<RejectCode>) {
    let start = &bytes[..bytes.len().min(4)];
    let error = match std::str::from_utf8(start) {
        Ok(text) => return (text.chars().next().map_or(1, char::len_utf8), None),
        Err(error) => error,
    };
    match (error.valid_up_to(), start) {
        // Half of a surrogate pair, encoded in three bytes as some envelopes deliver it.
        (0, [0xed, 0xa0..=0xbf, 0x80..=0xbf, ..]) => (3, Some(RejectCode::LoneSurrogate)),
        (0, _) => (error.error_len().unwrap_or(start.len()), Some(RejectCode::InvalidUtf8)),
        (valid, _) => {
            let text = std::str::from_utf8(&start[..valid]).unwrap_or_default();
            (text.chars().next().map_or(1, char::len_utf8), None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SessionConfig;
    use crate::event::Delivery;

    fn parse(bytes: &[u8]) -> Option<Result<String, RejectCode>> {
        let delivery = Delivery { received_at: 1_773_144_000_000, trusts_received_at: false };
        let repaired = Repaired::of(bytes)?;
        let parsed = repaired.parse(delivery, &SessionConfig::default())?;
        Some(parsed.map(|event| event.annotate(None)).map_err(|rejection| rejection.code))
    }

    fn with(title: &[u8]) -> Vec<u8> {
        [br#"{"uuid":"a","event":"x","distinct_id":"u","properties":{"title":""#, title, br#""}}"#].concat()
    }

    #[cfg(feature = "replay")]
    #[test]
    fn halves_of_pairs_are_replaced_in_json_of_any_size() {
        for (json, wanted) in [
            (r#""a\ud83d b""#, r#""a\ufffd b""#),
            (r#""\ud83d\ude00 \\ud83d \u0000 \n""#, r#""\ud83d\ude00 \\ud83d \u0000 \n""#),
            (r#""\ude00\ud83d\"#, r#""\ufffd\ufffd\"#),
            ("", ""),
        ] {
            assert_eq!(without_half_pairs(json), wanted, "{json}");
        }
    }

    #[test]
    fn other_strings_are_repaired() {
        for (title, wanted) in [
            (&br"sale \ud83d"[..], r"sale \ufffd"),
            (br"\ude00\ud83d", r"\ufffd\ufffd"),
            (br"\ud83d\ud83d\ude00", r"\ufffd\ud83d\ude00"),
            (br"a\u0000b", r"a\ufffdb"),
            (br"a\\u0000\\\u0000", r"a\\u0000\\\ufffd"),
            (b"a\0b", "a\u{fffd}b"),
            (b"caf\xe9", "caf\u{fffd}"),
            (b"\xf0\x9f\x98", "\u{fffd}"),
            (b"\xed\xa0\xbd!", "\u{fffd}!"),
            (b"\xc3\xa9\xff\xe2\x82\xac", "\u{e9}\u{fffd}\u{20ac}"),
        ] {
            let out = parse(&with(title)).unwrap().unwrap();
            let expected = format!(
                r#"{{"uuid":"a","event":"x","distinct_id":"u","properties":{{"title":"{wanted}","$sanitized":true}}}}"#
            );
            assert_eq!(out, expected, "{title:?}");
        }
        let in_key = br#"{"uuid":"a","event":"x","distinct_id":"u","a\u0000":1}"#;
        assert!(parse(in_key).unwrap().unwrap().contains(r"a\ufffd"));
    }

    #[test]
    fn fields_that_identify_an_event_are_rejected_instead_of_repaired() {
        for field in ["distinct_id", "event", "uuid", "project"] {
            for (broken, code) in [
                (&br"x\u0000"[..], RejectCode::NulCharacter),
                (b"x\0", RejectCode::NulCharacter),
                (br"\ud83d", RejectCode::LoneSurrogate),
                (b"\xff", RejectCode::InvalidUtf8),
            ] {
                let others = ["distinct_id", "event"].into_iter().filter(|name| *name != field);
                let others: Vec<String> = others.map(|name| format!(r#","{name}":"y""#)).collect();
                let others = others.concat();
                let json =
                    [format!(r#"{{"{field}":""#).as_bytes(), broken, format!(r#""{others}}}"#).as_bytes()].concat();
                assert_eq!(parse(&json), Some(Err(code)), "{field} {broken:?}");
            }
        }
    }

    #[test]
    fn bytes_outside_of_strings_are_not_repaired() {
        for text in [
            &b"{\"event\":\"x\",\0\"distinct_id\":\"u\"}"[..],
            b"{\"event\":\"x\",\xff\"distinct_id\":\"u\"}",
            b"\xff",
            b"{}",
            b"",
        ] {
            assert!(parse(text).is_none(), "{text:?}");
        }
        let long =
            [b"{\"event\":\"x\",\"distinct_id\":\"u\",\"n\":\"", &*vec![0xff; MAX_EVENT_BYTES / 2], b"\"}"].concat();
        assert!(parse(&long).is_none(), "at three bytes for each replacement, the event is too large");
    }

    proptest::proptest! {
        /// A title of any bytes results in valid JSON without a NUL character, or in a rejection.
        #[test]
        fn any_bytes_are_repaired_or_rejected(title in proptest::collection::vec(proptest::num::u8::ANY, 0..40)) {
            if let Some(Ok(out)) = parse(&with(&title)) {
                let value: serde_json::Value = serde_json::from_str(&out).unwrap();
                proptest::prop_assert!(!value["properties"].to_string().contains("\\u0000"));
            }
        }
    }
}
