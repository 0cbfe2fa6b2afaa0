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
    scanner.value(0).is_some_and(|value| space(text.as_bytes(), value.end) == text.len())
}

#[test]
fn special_bytes_are_found_wherever_they_stand() {
    for length in [1, 15, 16, 40, 63, 64, 65, 130] {
        for at in 0..length {
            for byte in 0..=u8::MAX {
                let mut bytes = vec![b'a'; length];
                bytes[at] = byte;
                let is_special = byte < 0x20 || byte == b'"' || byte == b'\\';
                for from in [0, at.saturating_sub(63), at] {
                    let all = (0..64).map(|bit| from + bit);
                    let is_set = |place: usize| place >= length || is_special && place == at;
                    let wanted = all.rev().fold(0, |mask, place| mask << 1 | u64::from(is_set(place)));
                    assert_eq!(specials(&bytes, from), wanted, "{byte} at {at} of {length}, from {from}");
                }
            }
        }
    }
}

#[test]
fn a_text_is_plain_up_to_its_end() {
    for length in 0..200 {
        let text = "a".repeat(length);
        assert!(is_plain(&text));
        for at in 0..length {
            for byte in ["\"", "\\", "\n"] {
                assert!(!is_plain(&[&text[..at], byte, &text[at + 1..]].concat()), "{byte:?} at {at} of {length}");
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

/// What may stand in a string, or not.
const IN_STRINGS: &[&str] =
    &["\"", "\\", "\\n", "\\\"", "\\u0041", "\\ud83d\\ude00", "\\ud83d", "\u{1}", "\n", "é", ""];

#[test]
fn strings_are_judged_alike_wherever_they_stand() {
    for before in 0..70 {
        for length in [0, 1, 20, 62, 63, 64, 65, 127, 128, 129] {
            for piece in IN_STRINGS {
                for at in [0, length / 2, length] {
                    let (head, tail) = ("a".repeat(at), "b".repeat(length - at));
                    let value = format!("\"{head}{piece}{tail}\"");
                    for text in [value.clone(), format!("{value} "), format!("{{{value}:{value},\"c\":[{value},1]}}")] {
                        let text = " ".repeat(before) + &text;
                        assert_eq!(is_scanned(&text), is_valid(&text), "{text:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_text_may_end_anywhere() {
    let whole = r#"{"a":"one \\ two","b\u0041":[-1.5e+3,true,null,"\ud83d\ude00"],"c":{"d":"long enough to take a block and more","e":""}}"#;
    for before in 0..70 {
        for end in 0..=whole.len() {
            let text = " ".repeat(before) + &whole[..end];
            assert_eq!(is_scanned(&text), end == whole.len(), "{text:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn takes_what_serde_json_takes(pieces in prop::collection::vec(0..PIECES.len(), 0..12)) {
        let text: String = pieces.into_iter().map(|piece| PIECES[piece]).collect();
        prop_assert_eq!(is_scanned(&text), is_valid(&text), "{:?}", text);
    }

    /// The same over many blocks.
    #[test]
    fn takes_long_texts_alike(value in long_json(), at in any::<prop::sample::Index>(), piece in 0..PIECES.len()) {
        prop_assert!(is_scanned(&value) && is_valid(&value));
        let places: Vec<usize> = value.char_indices().map(|(at, _)| at).collect();
        let mut text = value;
        text.insert_str(places[at.index(places.len())], PIECES[piece]);
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

/// An array of many strings, some of them long, with escapes and special bytes at any place of a block.
fn long_json() -> impl Strategy<Value = String> {
    let string = prop_oneof!["[a-c\"\n\\\\é]{0,9}", "[a-z ]{0,140}", "[a-z]{50,70}[\"\n]{0,2}[a-z]{0,70}"];
    let member = (string, 0..4_usize).prop_map(|(text, space)| {
        let string = serde_json::Value::from(text).to_string();
        format!("{0}{{{string}:{0}{string}}}", " ".repeat(space))
    });
    prop::collection::vec(member, 1..40).prop_map(|members| format!("[{}]", members.join(",")))
}
