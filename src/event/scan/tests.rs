use proptest::prelude::*;
use serde_json::value::RawValue;

use super::super::text::{bad_escape, depth};
use super::*;

/// Returns whether the slow path accepts `json`.
fn is_valid(json: &str) -> bool {
    serde_json::from_str::<&RawValue>(json).is_ok()
        && depth(json.as_bytes()) <= MAX_DEPTH
        && bad_escape(json.as_bytes()).is_none()
}

/// Returns whether the scanner accepts all of `json`.
fn is_scanned(json: &str) -> bool {
    let mut scanner = Scanner::new(json);
    scanner.value(0).is_some_and(|value| skip_space(json.as_bytes(), value.end) == json.len())
}

#[test]
fn special_bytes_are_found_at_every_position() {
    for length in [1, 15, 16, 40, 63, 64, 65, 130] {
        for at in 0..length {
            for byte in 0..=u8::MAX {
                let mut bytes = vec![b'a'; length];
                bytes[at] = byte;
                let is_special = byte < 0x20 || byte == b'"' || byte == b'\\';
                for from in [0, at.saturating_sub(63), at] {
                    let all = (0..64).map(|bit| from + bit);
                    let is_set = |position: usize| position >= length || is_special && position == at;
                    let wanted = all.rev().fold(0, |mask, position| mask << 1 | u64::from(is_set(position)));
                    assert_eq!(specials(&bytes, from), wanted, "{byte} at {at} of {length}, from {from}");
                }
            }
        }
    }
}

#[test]
fn every_byte_is_checked_for_escapes() {
    for length in 0..200 {
        let json = "a".repeat(length);
        assert!(needs_no_escape(&json));
        for at in 0..length {
            for byte in ["\"", "\\", "\n"] {
                assert!(
                    !needs_no_escape(&[&json[..at], byte, &json[at + 1..]].concat()),
                    "{byte:?} at {at} of {length}"
                );
            }
        }
    }
}

#[test]
fn nesting_is_limited() {
    let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    assert!(is_scanned(&nested(MAX_DEPTH)) && is_valid(&nested(MAX_DEPTH)));
    assert!(!is_scanned(&nested(MAX_DEPTH + 1)));
}

/// Pieces of valid and of invalid JSON.
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

/// Valid and invalid contents of a string.
const IN_STRINGS: &[&str] =
    &["\"", "\\", "\\n", "\\\"", "\\u0041", "\\ud83d\\ude00", "\\ud83d", "\u{1}", "\n", "é", ""];

#[test]
fn strings_are_accepted_as_by_serde_json_at_every_position() {
    for before in 0..70 {
        for length in [0, 1, 20, 62, 63, 64, 65, 127, 128, 129] {
            for piece in IN_STRINGS {
                for at in [0, length / 2, length] {
                    let (head, tail) = ("a".repeat(at), "b".repeat(length - at));
                    let value = format!("\"{head}{piece}{tail}\"");
                    for json in [value.clone(), format!("{value} "), format!("{{{value}:{value},\"c\":[{value},1]}}")] {
                        let json = " ".repeat(before) + &json;
                        assert_eq!(is_scanned(&json), is_valid(&json), "{json:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn truncated_json_is_rejected() {
    let whole = r#"{"a":"one \\ two","b\u0041":[-1.5e+3,true,null,"\ud83d\ude00"],"c":{"d":"long enough to take a block and more","e":""}}"#;
    for before in 0..70 {
        for end in 0..=whole.len() {
            let json = " ".repeat(before) + &whole[..end];
            assert_eq!(is_scanned(&json), end == whole.len(), "{json:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn accepts_what_serde_json_accepts(pieces in prop::collection::vec(0..PIECES.len(), 0..12)) {
        let json: String = pieces.into_iter().map(|piece| PIECES[piece]).collect();
        prop_assert_eq!(is_scanned(&json), is_valid(&json), "{:?}", json);
    }

    /// Like `accepts_what_serde_json_accepts`, over many blocks.
    #[test]
    fn accepts_long_json_as_serde_json_does(
        value in long_json(),
        at in any::<prop::sample::Index>(),
        piece in 0..PIECES.len(),
    ) {
        prop_assert!(is_scanned(&value) && is_valid(&value));
        let positions: Vec<usize> = value.char_indices().map(|(at, _)| at).collect();
        let mut json = value;
        json.insert_str(positions[at.index(positions.len())], PIECES[piece]);
        prop_assert_eq!(is_scanned(&json), is_valid(&json), "{:?}", json);
    }

    /// Valid JSON in which one character was replaced.
    #[test]
    fn accepts_changed_json_as_serde_json_does(
        value in any_json(),
        at in any::<prop::sample::Index>(),
        piece in 0..PIECES.len(),
    ) {
        let mut json = value;
        let positions: Vec<usize> = json.char_indices().map(|(at, _)| at).collect();
        prop_assert!(is_scanned(&json));
        let position = positions[at.index(positions.len())];
        let end = position + json[position..].chars().next().map_or(0, char::len_utf8);
        json.replace_range(position..end, PIECES[piece]);
        prop_assert_eq!(is_scanned(&json), is_valid(&json), "{:?}", json);
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

/// An array of many strings, some of them long, with escapes and special bytes at any position of a block.
fn long_json() -> impl Strategy<Value = String> {
    let string = prop_oneof!["[a-c\"\n\\\\é]{0,9}", "[a-z ]{0,140}", "[a-z]{50,70}[\"\n]{0,2}[a-z]{0,70}"];
    let member = (string, 0..4_usize).prop_map(|(json, space)| {
        let string = serde_json::Value::from(json).to_string();
        format!("{0}{{{string}:{0}{string}}}", " ".repeat(space))
    });
    prop::collection::vec(member, 1..40).prop_map(|members| format!("[{}]", members.join(",")))
}
