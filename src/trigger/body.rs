//! A body's bytes: its limits, how it is decoded, and the errors of a body that cannot be read.

use std::borrow::Cow;
use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_PAD_INDIFFERENT;
use flate2::read::MultiGzDecoder;

/// Limit of the events in an HTTP request or a queue's message.
pub const MAX_EVENTS: usize = 1_000;
/// Limit of the bytes of an HTTP request's body or a queue's message, after decoding: 1 MB.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;
/// Limit of the events in a direct invocation: as many small events as fit into 6 MB.
pub const MAX_DIRECT_EVENTS: usize = 10_000;
/// Limit of the bytes of a direct invocation's payload: 6 MB, which is Lambda's own limit.
pub const MAX_DIRECT_BYTES: usize = 6 * 1024 * 1024;

/// The limits of one body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Limit of the number of events.
    pub events: usize,
    /// Limit of the bytes after decoding.
    pub bytes: usize,
}

impl Limits {
    /// The limits of an HTTP request and of a queue's message.
    pub const REQUEST: Self = Self { events: MAX_EVENTS, bytes: MAX_BODY_BYTES };
    /// The limits of a direct invocation.
    pub const DIRECT: Self = Self { events: MAX_DIRECT_EVENTS, bytes: MAX_DIRECT_BYTES };
}

/// The form of a body, which determines how it is split into events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The first bytes decide: one event, an array, `{"events":[…]}` or lines of JSON.
    Any,
    /// One event per line, because the `content-type` names NDJSON.
    Lines,
}

/// Why a whole body cannot be read. The names that [`BodyError::code`] returns are part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The `content-type` cannot hold JSON.
    #[error("`content-type` is not supported; send application/json, application/x-ndjson or text/plain")]
    UnsupportedMediaType,
    /// The `content-encoding` is not gzip.
    #[error("`content-encoding` is not supported; send gzip or none")]
    UnsupportedEncoding,
    /// The body is not the base64 that its envelope or its first bytes announce.
    #[error("the body is not valid base64; encode its bytes as base64")]
    InvalidBase64,
    /// The body is not the gzip that its header or its first bytes announce.
    #[error("the body is not valid gzip; compress it whole, or send it as it is without `content-encoding`")]
    InvalidGzip,
    /// The decoded body has more bytes than this limit.
    #[error("the body has more than {0} bytes after decoding; send its events in several requests")]
    TooLarge(usize),
    /// The body has more events than this limit.
    #[error("the body has more than {0} events; send them in several requests")]
    TooManyEvents(usize),
    /// The body has no event.
    #[error("the body holds no event; send one event, an array of events, `{{\"events\":[…]}}` or one event per line")]
    Empty,
    /// The member `events` is not an array.
    #[error("`events` is not an array; send `{{\"events\":[…]}}`")]
    EventsNotAnArray,
}

impl BodyError {
    /// Returns the error's code in answers and in the rejects queue.
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

    /// Returns the status of the HTTP answer.
    pub fn status(self) -> u16 {
        match self {
            Self::UnsupportedMediaType | Self::UnsupportedEncoding => 415,
            Self::TooLarge(_) | Self::TooManyEvents(_) => 413,
            Self::InvalidBase64 | Self::InvalidGzip | Self::Empty | Self::EventsNotAnArray => 400,
        }
    }
}

/// Returns the form of a body with this `content-type`.
///
/// # Errors
/// The type cannot hold JSON.
pub fn form(content_type: Option<&str>) -> Result<Form, BodyError> {
    // The charset after the semicolon is ignored: an event that is not UTF-8 is rejected by itself.
    let kind = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match kind.as_str() {
        // `text/plain` is what `navigator.sendBeacon` sends for a string.
        "" | "application/json" | "text/plain" => Ok(Form::Any),
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Ok(Form::Lines),
        _ if kind.starts_with("application/") && kind.ends_with("+json") => Ok(Form::Any),
        _ => Err(BodyError::UnsupportedMediaType),
    }
}

/// The first bytes of gzip, plain and as base64. No JSON begins with either.
const GZIP: &[u8] = b"\x1f\x8b";
const GZIP_AS_BASE64: &[u8] = b"H4sI";

/// Decodes a body: first base64, if the envelope names it or the body begins like gzip as base64, then gzip.
///
/// Gzip is recognized by its first bytes, whatever `encoding` (the `content-encoding`) is: some clients compress without the
/// header, and some gateways decompress and keep it. Decoding stops when the output exceeds `limit` bytes.
///
/// # Errors
/// The body is not in the encoding that is announced, or it is larger than `limit`.
pub fn decode<'a>(
    body: &'a [u8],
    is_base64: bool,
    encoding: Option<&str>,
    limit: usize,
) -> Result<Cow<'a, [u8]>, BodyError> {
    let mut body = if is_base64 { Cow::Owned(from_base64(body)?) } else { Cow::Borrowed(body) };
    if body.trim_ascii_start().starts_with(GZIP_AS_BASE64) {
        body = Cow::Owned(from_base64(&body)?);
    }
    if body.starts_with(GZIP) {
        body = Cow::Owned(gunzip(&body, limit)?);
    } else {
        match encoding.unwrap_or_default().trim() {
            "" => {}
            name if name.eq_ignore_ascii_case("identity") => {}
            // A gateway that decompresses may keep the header.
            name if name.eq_ignore_ascii_case("gzip") && is_json(&body) => {}
            name if name.eq_ignore_ascii_case("gzip") => return Err(BodyError::InvalidGzip),
            _ => return Err(BodyError::UnsupportedEncoding),
        }
    }
    if body.len() > limit { Err(BodyError::TooLarge(limit)) } else { Ok(body) }
}

/// Decodes base64, with or without padding.
pub(super) fn from_base64(base64: &[u8]) -> Result<Vec<u8>, BodyError> {
    STANDARD_PAD_INDIFFERENT.decode(base64.trim_ascii()).map_err(|_| BodyError::InvalidBase64)
}

/// Returns whether a body begins like JSON events: with an object or an array, after a byte order mark and white space.
pub(super) fn is_json(body: &[u8]) -> bool {
    let start = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii_start();
    matches!(start.first(), Some(b'{' | b'['))
}

/// Decompresses gzip, up to one byte beyond the limit.
fn gunzip(compressed: &[u8], limit: usize) -> Result<Vec<u8>, BodyError> {
    let max_bytes = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let mut decompressed = Vec::new();
    // A gzip file may consist of several members in a row; all of them are read.
    MultiGzDecoder::new(compressed)
        .take(max_bytes)
        .read_to_end(&mut decompressed)
        .map_err(|_| BodyError::InvalidGzip)?;
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
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_content_type_names_the_form() {
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
    fn encodings_are_removed() {
        let compressed = gzip(b"[1]");
        let base64 = BASE64_STANDARD.encode(&compressed);
        let unpadded = base64.trim_end_matches('=');
        let two = [gzip(b"[1,"), gzip(b"2]")].concat();
        for (body, is_base64, encoding, wanted) in [
            (&b"[1]"[..], false, None, &b"[1]"[..]),
            (b"[1]", false, Some("identity"), b"[1]"),
            (b"WzFd", true, None, b"[1]"),
            (&compressed, false, Some("gzip"), b"[1]"),
            (base64.as_bytes(), true, Some(" GZIP "), b"[1]"),
            (unpadded.as_bytes(), true, Some("gzip"), b"[1]"),
            // The first bytes decide, whatever the headers are.
            (&compressed, false, None, b"[1]"),
            (&compressed, false, Some("identity"), b"[1]"),
            (&compressed, false, Some("br"), b"[1]"),
            (base64.as_bytes(), true, None, b"[1]"),
            (base64.as_bytes(), false, None, b"[1]"),
            (base64.as_bytes(), false, Some("gzip"), b"[1]"),
            (b"[1]", false, Some("gzip"), b"[1]"),
            (b"\xef\xbb\xbf {}", false, Some("gzip"), b"\xef\xbb\xbf {}"),
            (b"WzFd", true, Some("gzip"), b"[1]"),
            (&two, false, Some("gzip"), b"[1,2]"),
        ] {
            assert_eq!(decode(body, is_base64, encoding, 10).as_deref(), Ok(wanted));
        }
    }

    #[test]
    fn a_body_that_cannot_be_decoded_is_an_error() {
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
