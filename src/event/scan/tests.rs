use proptest::prelude::*;
use serde_json::value::RawValue;

use super::super::text::{bad_escape, depth};
use super::*;

/// What the slow path takes.
fn is_valid(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok()
        && depth(text.as_bytes()) <= MAX_DEPTH
        && bad_escape(text.as_bytes()).is_none()
}

fn is_scanned(text: &str) -> bool {
    let mut scanner = Scanner::new(text);
    scanner.value().is_some() && scanner.peek().is_none()
}

#[test]
fn special_bytes_are_found_wherever_they_stand() {
    for length in 0..40 {
        for at in 0..length {
            for byte in 0..=u8::MAX {
                let mut bytes = vec![b'a'; length];
                bytes[at] = byte;
                let wanted = if byte < 0x20 || byte == b'"' || byte == b'\\' { at } else { length };
                assert_eq!(special(&bytes, 0), wanted, "{byte} at {at} of {length}");
            }
        }
    }
}

#[test]
fn nesting_has_a_bound() {
    let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    assert!(is_scanned(&nested(MAX_DEPTH)) && is_valid(&nested(MAX_DEPTH)));
    assert!(!is_scanned(&nested(MAX_DEPTH + 1)));
}

/// Pieces of JSON and of what is nearly JSON.
const PIECES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\"a\"",
    "\"a\":",
    " ",
    "\n",
    "\t",
    "0",
    "-",
    "1",
    "-0",
    "0.5",
    "1e5",
    "1E+5",
    "1e",
    "01",
    "1.",
    ".5",
    "+1",
    "true",
    "tru",
    "false",
    "null",
    "nul",
    "\\",
    "\\n",
    "\\u0041",
    "\\u0000",
    "\\ud83d",
    "\\ude00",
    "\\ud83d\\ude00",
    "\\u12g4",
    "\\x",
    "\u{1}",
    "\u{0}",
    "é",
    "\u{10ffff}",
    "\"\\\"\"",
    "{}",
    "[]",
    "{\"a\":1}",
    "[1,2]",
    "12345678901234567890",
    "\"long enough for eight bytes at a time\"",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn takes_what_serde_json_takes(pieces in prop::collection::vec(0..PIECES.len(), 0..12)) {
        let text: String = pieces.into_iter().map(|piece| PIECES[piece]).collect();
        prop_assert_eq!(is_scanned(&text), is_valid(&text), "{:?}", text);
    }

    /// A valid text with one byte changed is still judged alike.
    #[test]
    fn and_nothing_else(value in any_json(), at in any::<prop::sample::Index>(), piece in 0..PIECES.len()) {
        let mut text = value;
        let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        prop_assert!(is_scanned(&text));
        let place = places[at.index(places.len())];
        let end = place + text[place..].chars().next().map_or(0, char::len_utf8);
        text.replace_range(place..end, PIECES[piece]);
        prop_assert_eq!(is_scanned(&text), is_valid(&text), "{:?}", text);
    }
}

fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        any::<f64>().prop_filter("JSON has no infinity", |x| x.is_finite()).prop_map(serde_json::Value::from),
        "[^\u{0}]{0,20}".prop_map(serde_json::Value::from),
        any::<bool>().prop_map(serde_json::Value::from),
        Just(serde_json::Value::Null),
    ];
    let value = leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(serde_json::Value::from),
            prop::collection::hash_map("[a-z\"\n]{0,9}", inner, 0..6).prop_map(|map| map.into_iter().collect()),
        ]
    });
    (value, any::<bool>()).prop_map(|(value, pretty)| {
        if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap()
    })
}
