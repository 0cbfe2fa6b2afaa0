//! An event's text and its text fields: what is wrong with one that was not taken, and how fields become texts.

use std::borrow::Cow;

use super::raw_field::Json;
use super::{MAX_DEPTH, MAX_EVENT_BYTES, RejectCode, Rejection};

/// Checks what holds for an event's text as a whole, but for its being JSON.
pub(super) fn checked_text(bytes: &[u8]) -> Result<&str, Rejection> {
    let bytes = bytes.trim_ascii();
    let reject = |code, message: &str| Err(Rejection::new(code, message));
    if bytes.len() > MAX_EVENT_BYTES {
        let message = format!("the event has {} bytes; at most {MAX_EVENT_BYTES} are allowed", bytes.len());
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
    if depth(bytes) > MAX_DEPTH {
        let message = format!("the event is nested deeper than {MAX_DEPTH} levels; flatten it");
        return Err(Rejection::new(RejectCode::TooDeep, message));
    }
    if memchr::memchr(0, bytes).is_some() {
        return reject(RejectCode::NulCharacter, "the event contains a NUL character; remove it");
    }
    match bad_escape(bytes) {
        Some(code @ RejectCode::NulCharacter) => reject(code, "the event contains a NUL character; remove it"),
        Some(code) => reject(code, "the event contains half of a surrogate pair; send whole characters"),
        None => Ok(text),
    }
}

/// How deep brackets nest outside of strings.
pub(super) fn depth(bytes: &[u8]) -> usize {
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

/// The first escape of a NUL character or of half a surrogate pair.
pub(super) fn bad_escape(bytes: &[u8]) -> Option<RejectCode> {
    let unit = |at: usize| {
        let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
        // `from_str_radix` takes a sign, too.
        let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
        u16::from_str_radix(digits, 16).ok()
    };
    let mut at = 0;
    while let Some(found) = memchr::memchr(b'\\', bytes.get(at..)?) {
        let here = at + found;
        at = here + 2;
        match unit(here) {
            Some(0) => return Some(RejectCode::NulCharacter),
            Some(0xd800..=0xdbff) if matches!(unit(here + 6), Some(0xdc00..=0xdfff)) => at = here + 12,
            Some(0xd800..=0xdfff) => return Some(RejectCode::LoneSurrogate),
            _ => {}
        }
    }
    None
}

/// An optional text field: absent or null is none; anything but a string with 1 to `most` characters is rejected.
#[inline(always)]
pub(super) fn string<'a>(
    value: Json<'a>,
    field: &str,
    most: usize,
    code: RejectCode,
) -> Result<Option<Cow<'a, str>>, Rejection> {
    if !value.raw.is_given() {
        return Ok(None);
    }
    let Some(text) = value.text() else { return Err(no_string(field, code)) };
    let characters = if text.len() <= most { text.len() } else { text.chars().count() };
    // Most texts begin with a character that shows.
    let is_blank = !text.as_bytes().first().is_some_and(u8::is_ascii_graphic) && text.trim().is_empty();
    if is_blank || characters > most { Err(bad_length(field, most, code)) } else { Ok(Some(text)) }
}

#[cold]
fn no_string(field: &str, code: RejectCode) -> Rejection {
    Rejection::new(code, format!("`{field}` is not a string; send it as one"))
}

#[cold]
fn bad_length(field: &str, most: usize, code: RejectCode) -> Rejection {
    Rejection::new(code, format!("`{field}` must have 1 to {most} characters and not be blank"))
}
