//! Decodes a body by its bytes: gzip or zlib, a form field `data`, base64. What the headers claim does not count, because clients
//! send gzip as `text/plain`, forms as `text/plain` and JSON as a form.

use std::borrow::Cow;
use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_PAD_INDIFFERENT;
use flate2::read::{MultiGzDecoder, ZlibDecoder};

use super::{Endpoint, Head, MAX_BODY_BYTES};
use crate::event::{RejectCode, Rejection};

/// How often a body may be encoded: a form field with base64 of gzip is three times, and the API's own base64 comes before.
const MAX_LAYERS: usize = 4;

/// How gzip begins after a gateway has passed it on as text: the second byte became U+FFFD.
const BROKEN_GZIP: &[u8] = b"\x1f\xef\xbf\xbd";

/// Returns the text that a body holds: JSON, or a query.
///
/// An empty body of a request by GET is replaced by the query, which holds the form then.
///
/// # Errors
/// The body is damaged, or has more than [`MAX_BODY_BYTES`] bytes after decoding.
pub fn text<'b>(endpoint: Endpoint, head: &Head<'b>) -> Result<Cow<'b, str>, Rejection> {
    let mut bytes = Cow::Borrowed(if head.body.is_empty() { head.query.as_bytes() } else { head.body });
    // Queries of Snowplow and Matomo are the event itself.
    let is_query = matches!(endpoint, Endpoint::SnowplowPixel | Endpoint::Matomo);
    for _ in 0..MAX_LAYERS {
        if bytes.len() > MAX_BODY_BYTES {
            return Err(too_large());
        }
        match peeled(&bytes, is_query)? {
            Some(inner) => bytes = Cow::Owned(inner),
            None => break,
        }
    }
    Ok(match bytes {
        Cow::Borrowed(bytes) => String::from_utf8_lossy(without_mark(bytes)),
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(without_mark(&bytes)).into_owned()),
    })
}

/// Removes one layer of encoding. Returns `None` if there is none.
fn peeled(bytes: &[u8], is_query: bool) -> Result<Option<Vec<u8>>, Rejection> {
    if bytes.starts_with(b"\x1f\x8b") {
        return decompressed(MultiGzDecoder::new(bytes)).map(Some);
    }
    if bytes.starts_with(BROKEN_GZIP) {
        return Err(damaged());
    }
    if is_zlib(bytes) {
        return decompressed(ZlibDecoder::new(bytes)).map(Some);
    }
    let trimmed = without_mark(bytes).trim_ascii();
    if is_query || matches!(trimmed.first(), None | Some(b'{' | b'[')) {
        return Ok(None);
    }
    let form = || url::form_urlencoded::parse(trimmed).find(|(name, _)| name == "data");
    if memchr::memmem::find(trimmed, b"data=").is_some()
        && let Some((_, data)) = form()
    {
        return Ok(Some(data.into_owned().into_bytes()));
    }
    Ok(base64(trimmed))
}

/// Decodes base64 in any of its alphabets. A blank is a plus sign that a form took for a blank.
pub(super) fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let plain = |&byte: &u8| match byte {
        b' ' | b'-' => b'+',
        b'_' => b'/',
        other => other,
    };
    let text: Vec<u8> = text.trim_ascii().iter().map(plain).collect();
    STANDARD_PAD_INDIFFERENT.decode(text).ok().filter(|decoded| !decoded.is_empty())
}

/// Returns whether bytes begin like zlib, which no JSON and no form does.
fn is_zlib(bytes: &[u8]) -> bool {
    matches!(bytes, [0x78, level @ (0x01 | 0x5e | 0x9c | 0xda), ..] if (0x7800 + u16::from(*level)).is_multiple_of(31))
}

/// Decompresses up to one byte beyond the limit.
fn decompressed(decoder: impl Read) -> Result<Vec<u8>, Rejection> {
    let mut bytes = Vec::new();
    let read = decoder.take(MAX_BODY_BYTES as u64 + 1).read_to_end(&mut bytes);
    match read {
        Ok(_) if bytes.len() > MAX_BODY_BYTES => Err(too_large()),
        Ok(_) => Ok(bytes),
        Err(_) => Err(damaged()),
    }
}

fn damaged() -> Rejection {
    Rejection::new(
        RejectCode::InvalidJson,
        "the compressed body is damaged; a gateway that passes bodies as text breaks it, so switch compression off",
    )
}

fn too_large() -> Rejection {
    let message = format!("the body has more than {MAX_BODY_BYTES} bytes after decoding; send it in several requests");
    Rejection::new(RejectCode::TooLarge, message)
}

fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}
