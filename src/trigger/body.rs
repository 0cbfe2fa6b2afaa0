//! A body's bytes: its encodings taken off, its limits, and why one cannot be read at all.

use std::borrow::Cow;
use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_PAD_INDIFFERENT;
use flate2::read::MultiGzDecoder;

/// Events that a request, or a queue's message, holds at the most.
pub const MAX_EVENTS: usize = 1_000;
/// Bytes of a request's body, or of a queue's message, at the most, after decoding: 1 MB.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;
/// Events that a direct invocation holds at the most: what 6 MB of small events amount to.
pub const MAX_DIRECT_EVENTS: usize = 10_000;
/// Bytes of a direct invocation's payload at the most: what Lambda takes, 6 MB.
pub const MAX_DIRECT_BYTES: usize = 6 * 1024 * 1024;

/// How much may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub events: usize,
    pub bytes: usize,
}

impl Limits {
    /// Of an HTTP request and of a queue's message.
    pub const REQUEST: Self = Self { events: MAX_EVENTS, bytes: MAX_BODY_BYTES };
    /// Of a direct invocation.
    pub const DIRECT: Self = Self { events: MAX_DIRECT_EVENTS, bytes: MAX_DIRECT_BYTES };
}

/// How a body's events are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// By how it begins: one event, an array, `{"events":[…]}` or lines.
    Any,
    /// A line an event, because its sender says so.
    Lines,
}

/// Why a whole body cannot be read. The set is closed; `code` names are part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error("`content-type` is not supported; send application/json, application/x-ndjson or text/plain")]
    UnsupportedMediaType,
    #[error("`content-encoding` is not supported; send gzip or none")]
    UnsupportedEncoding,
    #[error("the body is not valid base64; encode its bytes as base64")]
    InvalidBase64,
    #[error("the body is not valid gzip; compress it whole, or send it as it is without `content-encoding`")]
    InvalidGzip,
    #[error("the body has more than {0} bytes after decoding; send its events in several requests")]
    TooLarge(usize),
    #[error("the body has more than {0} events; send them in several requests")]
    TooManyEvents(usize),
    #[error("the body holds no event; send one event, an array of events, `{{\"events\":[…]}}` or a line an event")]
    Empty,
    #[error("`events` is not an array; send `{{\"events\":[…]}}`")]
    EventsNotAnArray,
}

impl BodyError {
    /// The error's name in answers and in the rejects queue.
    pub fn code(self) -> &'static str {
        match self {
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::UnsupportedEncoding => "unsupported_encoding",
            Self::InvalidBase64 => "invalid_base64",
            Self::InvalidGzip => "invalid_gzip",
            Self::TooLarge(_) => "body_too_large",
            Self::TooManyEvents(_) => "too_many_events",
            Self::Empty => "no_events",
            Self::EventsNotAnArray => "events_not_an_array",
        }
    }

    /// The status of an HTTP answer.
    pub fn status(self) -> u16 {
        match self {
            Self::UnsupportedMediaType | Self::UnsupportedEncoding => 415,
            Self::TooLarge(_) | Self::TooManyEvents(_) => 413,
            Self::InvalidBase64 | Self::InvalidGzip | Self::Empty | Self::EventsNotAnArray => 400,
        }
    }
}

/// The form that a `content-type` announces.
///
/// # Errors
/// A type that holds no JSON.
pub fn form(content_type: Option<&str>) -> Result<Form, BodyError> {
    // What follows the semicolon says the charset; anything but UTF-8 shows in the events themselves.
    let kind = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match kind.as_str() {
        // `text/plain` is what `navigator.sendBeacon` sends for a string.
        "" | "application/json" | "text/plain" => Ok(Form::Any),
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Ok(Form::Lines),
        _ if kind.starts_with("application/") && kind.ends_with("+json") => Ok(Form::Any),
        _ => Err(BodyError::UnsupportedMediaType),
    }
}

/// What gzip begins with, and what its base64 does. No JSON begins with either.
const GZIP: &[u8] = b"\x1f\x8b";
const GZIP_AS_BASE64: &[u8] = b"H4sI";

/// Takes a body's encodings off: base64, which the envelope speaks of, then gzip, which shows in its bytes: clients pack without
/// saying so, and gateways unpack and leave the header as it was. Decoding stops as soon as there are more than `limit` bytes.
///
/// # Errors
/// A body that is not what it is said to be, or too large.
pub fn decode<'a>(
    body: &'a [u8],
    is_base64: bool,
    encoding: Option<&str>,
    limit: usize,
) -> Result<Cow<'a, [u8]>, BodyError> {
    let of_base64 =
        |text: &[u8]| STANDARD_PAD_INDIFFERENT.decode(text.trim_ascii()).map_err(|_| BodyError::InvalidBase64);
    let mut body = if is_base64 { Cow::Owned(of_base64(body)?) } else { Cow::Borrowed(body) };
    if body.trim_ascii_start().starts_with(GZIP_AS_BASE64) {
        body = Cow::Owned(of_base64(&body)?);
    }
    if body.starts_with(GZIP) {
        body = Cow::Owned(gunzip(&body, limit)?);
    } else {
        match encoding.unwrap_or_default().trim() {
            "" => {}
            name if name.eq_ignore_ascii_case("identity") => {}
            // A gateway that unpacks may leave the header as it was.
            name if name.eq_ignore_ascii_case("gzip") && is_json(&body) => {}
            name if name.eq_ignore_ascii_case("gzip") => return Err(BodyError::InvalidGzip),
            _ => return Err(BodyError::UnsupportedEncoding),
        }
    }
    if body.len() > limit { Err(BodyError::TooLarge(limit)) } else { Ok(body) }
}

/// Whether a body begins as events do: with an object or an array, behind white space and a byte order mark.
pub(super) fn is_json(body: &[u8]) -> bool {
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii_start();
    matches!(text.first(), Some(b'{' | b'['))
}

/// Unpacks gzip, one byte past the limit at the most.
fn gunzip(compressed: &[u8], limit: usize) -> Result<Vec<u8>, BodyError> {
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let mut decompressed = Vec::new();
    // Several members in a row are one gzip file: what follows the first is not lost.
    MultiGzDecoder::new(compressed).take(most).read_to_end(&mut decompressed).map_err(|_| BodyError::InvalidGzip)?;
    Ok(decompressed)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use base64::prelude::BASE64_STANDARD;
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut packer = GzEncoder::new(Vec::new(), Compression::best());
        packer.write_all(bytes).unwrap();
        packer.finish().unwrap()
    }

    #[test]
    fn content_types() {
        for (kind, wanted) in [
            (None, Ok(Form::Any)),
            (Some(""), Ok(Form::Any)),
            (Some("application/json; charset=utf-8"), Ok(Form::Any)),
            (Some("Application/JSON"), Ok(Form::Any)),
            (Some("application/vnd.shop+json"), Ok(Form::Any)),
            (Some("text/plain;charset=UTF-8"), Ok(Form::Any)),
            (Some("application/x-ndjson"), Ok(Form::Lines)),
            (Some("application/ndjson"), Ok(Form::Lines)),
            (Some("application/jsonl"), Ok(Form::Lines)),
            (Some("application/x-www-form-urlencoded"), Err(BodyError::UnsupportedMediaType)),
            (Some("text/html"), Err(BodyError::UnsupportedMediaType)),
            (Some("image/svg+json"), Err(BodyError::UnsupportedMediaType)),
        ] {
            assert_eq!(form(kind), wanted, "{kind:?}");
        }
    }

    #[test]
    fn encodings_come_off() {
        let compressed = gzip(b"[1]");
        let text = BASE64_STANDARD.encode(&compressed);
        let bare = text.trim_end_matches('=');
        let two = [gzip(b"[1,"), gzip(b"2]")].concat();
        for (body, is_base64, encoding, wanted) in [
            (&b"[1]"[..], false, None, &b"[1]"[..]),
            (b"[1]", false, Some("identity"), b"[1]"),
            (b"WzFd", true, None, b"[1]"),
            (&compressed, false, Some("gzip"), b"[1]"),
            (text.as_bytes(), true, Some(" GZIP "), b"[1]"),
            (bare.as_bytes(), true, Some("gzip"), b"[1]"),
            // The bytes say it, whatever the headers do.
            (&compressed, false, None, b"[1]"),
            (&compressed, false, Some("identity"), b"[1]"),
            (&compressed, false, Some("br"), b"[1]"),
            (text.as_bytes(), true, None, b"[1]"),
            (text.as_bytes(), false, None, b"[1]"),
            (text.as_bytes(), false, Some("gzip"), b"[1]"),
            (b"[1]", false, Some("gzip"), b"[1]"),
            (b"\xef\xbb\xbf {}", false, Some("gzip"), b"\xef\xbb\xbf {}"),
            (b"WzFd", true, Some("gzip"), b"[1]"),
            (&two, false, Some("gzip"), b"[1,2]"),
        ] {
            assert_eq!(decode(body, is_base64, encoding, 10).as_deref(), Ok(wanted));
        }
    }

    #[test]
    fn what_does_not_decode_is_named() {
        let compressed = gzip(b"[1,2,3]");
        let followed = [&compressed[..], b"rest"].concat();
        for (body, is_base64, encoding, wanted) in [
            (&b"[1]"[..], false, Some("br"), BodyError::UnsupportedEncoding),
            (b"[1]", true, None, BodyError::InvalidBase64),
            (b"H4sI!", false, None, BodyError::InvalidBase64),
            (b"\x1f\xef\xbf\xbd", false, Some("gzip"), BodyError::InvalidGzip),
            (b"", false, Some("gzip"), BodyError::InvalidGzip),
            (&compressed[..compressed.len() - 4], false, Some("gzip"), BodyError::InvalidGzip),
            (&followed, false, Some("gzip"), BodyError::InvalidGzip),
            (b"[1,2,3,4,5]", false, None, BodyError::TooLarge(10)),
        ] {
            assert_eq!(decode(body, is_base64, encoding, 10), Err(wanted));
        }
    }

    #[test]
    fn a_gzip_bomb_is_not_decompressed() {
        let bomb = gzip(&vec![b' '; 50 * MAX_BODY_BYTES]);
        assert!(bomb.len() < MAX_BODY_BYTES / 10);
        assert_eq!(gunzip(&bomb, MAX_BODY_BYTES).unwrap().len(), MAX_BODY_BYTES + 1);
        assert_eq!(decode(&bomb, false, Some("gzip"), MAX_BODY_BYTES), Err(BodyError::TooLarge(MAX_BODY_BYTES)));
    }
}
