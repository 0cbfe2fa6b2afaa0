//! Checks of an event's JSON and of its string fields.

use std::borrow::Cow;

use memchr::memchr2_iter;

use super::raw::{given, string};
use super::repair::escape;
use super::{MAX_DEPTH, RejectCode, Rejection};

/// Checks the event as a whole and returns it as a string. It does not check that an object is valid JSON.
///
/// # Errors
/// Returns the first fault: the size, the encoding, not an object, the nesting depth, or a character that is not allowed.
pub(super) fn checked_str(bytes: &[u8], max_bytes: usize) -> Result<&str, Rejection> {
    let bytes = bytes.trim_ascii();
    let reject = |code, message: &str| Err(Rejection::new(code, message));
    if bytes.len() > max_bytes {
        let message = format!("the event has {} bytes; at most {max_bytes} are allowed", bytes.len());
        return Err(Rejection::new(RejectCode::TooLarge, message));
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return reject(RejectCode::InvalidUtf8, "the event is not valid UTF-8; encode it as UTF-8");
    };
    if !text.starts_with('{') {
        return match serde_json::from_str::<serde::de::IgnoredAny>(text) {
            Ok(_) => reject(RejectCode::NotAnObject, "the event is not an object; send `{…}`"),
            Err(_) => reject(RejectCode::InvalidJson, "the event is not valid JSON; send one object"),
        };
    }
    check_limits(text)?;
    Ok(text)
}

/// Checks an event's depth and characters.
///
/// # Errors
/// Returns the first fault.
pub(super) fn check_limits(json: &str) -> Result<(), Rejection> {
    let bytes = json.as_bytes();
    // Few events have so many brackets. Only in those they are followed.
    let has_many = memchr2_iter(b'{', b'[', bytes).nth(MAX_DEPTH).is_some();
    if has_many && depth(bytes) > MAX_DEPTH {
        let message = format!("the event is nested deeper than {MAX_DEPTH} levels; flatten it");
        return Err(Rejection::new(RejectCode::TooDeep, message));
    }
    check_characters(json)
}

/// Checks that JSON has no character that stores and other consumers refuse.
///
/// # Errors
/// Returns a rejection for a NUL character or half of a surrogate pair.
fn check_characters(json: &str) -> Result<(), Rejection> {
    let code = match memchr::memchr(0, json.as_bytes()) {
        Some(_) => Some(RejectCode::NulCharacter),
        None => bad_escape(json.as_bytes()),
    };
    match code {
        None => Ok(()),
        Some(code @ RejectCode::NulCharacter) => {
            Err(Rejection::new(code, "the event contains a NUL character; remove it"))
        }
        Some(code) => Err(Rejection::new(code, "the event contains half of a surrogate pair; send whole characters")),
    }
}

/// Returns how deep brackets are nested outside of strings.
fn depth(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Returns the code of the first escape of a NUL character or of half a surrogate pair.
fn bad_escape(bytes: &[u8]) -> Option<RejectCode> {
    let mut at = 0;
    while let Some(found) = memchr::memchr(b'\\', bytes.get(at..)?) {
        let (length, bad) = escape(bytes, at + found);
        if bad.is_some() {
            return bad;
        }
        at += found + length;
    }
    None
}

/// Reads an optional string field. Returns `None` if it is absent or null.
///
/// # Errors
/// Returns a rejection with `code` if the value is not a string of 1 to `max_chars` characters, or is blank.
pub(super) fn string_field<'a>(
    json: Option<&'a str>,
    field: &str,
    max_chars: usize,
    code: RejectCode,
) -> Result<Option<Cow<'a, str>>, Rejection> {
    let Some(json) = given(json) else { return Ok(None) };
    let Some(text) = string(json) else {
        return Err(Rejection::new(code, format!("`{field}` is not a string; send it as one")));
    };
    let characters = if text.len() <= max_chars { text.len() } else { text.chars().count() };
    // Fast path: most strings begin with a visible character.
    let is_blank = !text.as_bytes().first().is_some_and(u8::is_ascii_graphic) && text.trim().is_empty();
    if is_blank || characters > max_chars {
        let message = format!("`{field}` must have 1 to {max_chars} characters and not be blank");
        return Err(Rejection::new(code, message));
    }
    Ok(Some(text))
}
