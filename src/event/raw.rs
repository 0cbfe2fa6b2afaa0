//! JSON values that are not parsed yet: each is the part of the event's JSON where it is written. A value that is absent is
//! `None`, and null is `Some("null")`.

use std::borrow::Cow;
use std::ops::Range;

/// Returns the value if it is other than null.
pub(super) fn given(json: Option<&str>) -> Option<&str> {
    json.filter(|&json| json != "null")
}

/// Returns the value of a string, without a copy if it has no escapes. Returns `None` for another type.
pub(crate) fn string(json: &str) -> Option<Cow<'_, str>> {
    match json.strip_prefix('"')?.strip_suffix('"')? {
        inner if inner.contains('\\') => serde_json::from_str(json).ok().map(Cow::Owned),
        inner => Some(Cow::Borrowed(inner)),
    }
}

/// Returns the value of a string or a number. A number is returned as it is written.
pub(super) fn string_or_number(json: &str) -> Option<Cow<'_, str>> {
    match json.as_bytes().first()? {
        b'-' | b'0'..=b'9' => Some(Cow::Borrowed(json)),
        _ => string(json),
    }
}

/// Returns where `part` is in `whole`, which it has to be a part of.
pub(super) fn range_in(whole: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr().addr() - whole.as_ptr().addr();
    start..start + part.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_numbers_are_told_from_other_values() {
        for (json, wanted_string, wanted) in [
            (r#""a""#, Some("a"), Some("a")),
            (r#""""#, Some(""), Some("")),
            (r#""a\u00e9\n\"\ud83d\ude00""#, Some("a\u{e9}\n\"\u{1f600}"), Some("a\u{e9}\n\"\u{1f600}")),
            ("-1.50e400", None, Some("-1.50e400")),
            ("0", None, Some("0")),
            ("null", None, None),
            ("true", None, None),
            (r#"["a"]"#, None, None),
            (r#"{"a":"b"}"#, None, None),
        ] {
            assert_eq!((string(json).as_deref(), string_or_number(json).as_deref()), (wanted_string, wanted), "{json}");
        }
        assert!(matches!(string(r#""no copy""#), Some(Cow::Borrowed(_))));
    }

    #[test]
    fn a_part_is_found_where_it_is_and_not_where_an_equal_one_is() {
        let whole = "aaaa";
        assert_eq!([range_in(whole, &whole[2..3]), range_in(whole, whole)], [2..3, 0..4]);
    }
}
