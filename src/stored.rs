//! The stored form of timelines and archived sessions: compact, versioned, checked.
//!
//! DynamoDB bills an item in steps of a kilobyte, before and after a write, so the form is dense: strings stand once, sorted,
//! each without what it shares with the one before; session ids without the half that the visitor gives. A timeline that would
//! still need a second kilobyte is compressed: a unit saved is worth far more than the time that packing takes. What is read back
//! is checked against the timeline's own rules: an item that breaks them is an error, never a new session.

mod check;
mod compression;
mod string_table;
mod wire;

use uuid::Uuid;

use crate::model::SessionState;
use crate::session::Visitor;
use crate::timeline::Timeline;
use string_table::{Reader, Writer};
use wire::{WireSession, WireTimeline, WireWatermark};

/// The version of the stored form that is written.
pub const FORMAT: u32 = 2;

/// The newest version of the stored form that is read. A release reads a form before a later one writes it, so that a deployment
/// can be rolled back: see [`FORMATS`].
pub const NEWEST_FORMAT: u32 = 2;

/// Since when a stored form is read and written: releases of this crate.
#[derive(Debug, Clone, Copy)]
pub struct Format {
    pub version: u32,
    pub read_since: &'static str,
    pub written_since: &'static str,
}

/// The stored forms, oldest first. All of them are read.
pub const FORMATS: [Format; NEWEST_FORMAT as usize] = [
    Format { version: 1, read_since: "0.1.0", written_since: "0.1.0" },
    // Behind the timeline stand `held_until` and `watermark_id`. Nothing was deployed when it came: see `docs/decisions.md`.
    Format { version: 2, read_since: "0.1.0", written_since: "0.1.0" },
];

/// Bytes of a stored form at most, where events are added. DynamoDB's limit for an item is 400 KB, its keys and other attributes
/// included.
pub const MAX_ITEM_BYTES: usize = 350 * 1024;

/// How much an item may hold. What closes a timeline may write a larger item than what adds to it: finalizing a full timeline's
/// recent events can make its item some kilobytes longer, and it has to be closed nevertheless.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// For events to be added.
    ToGrow,
    /// For a timeline to be closed: all that a reader accepts and DynamoDB takes.
    ToClose,
}

impl Room {
    /// Bytes of the item's stored form, of that form decompressed, and of its strings, each whole, at most.
    fn limits(self) -> [usize; 3] {
        match self {
            // An decompressed form, and its strings once each is whole, take memory; both are far more than real traffic makes.
            Self::ToGrow => [MAX_ITEM_BYTES, 4 * 1024 * 1024, 16 * 1024 * 1024],
            Self::ToClose => [390 * 1024, compression::MAX_FORM_BYTES, string_table::MAX_BYTES],
        }
    }
}

/// Why stored bytes cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    #[error("format version {0} is none that was ever written")]
    Version(u32),
    #[error("format version {0} is newer than {NEWEST_FORMAT}, the newest that this version of the service reads")]
    Newer(u32),
    #[error("the bytes are not a stored {0}")]
    Bytes(&'static str),
    #[error("{0}")]
    Rule(&'static str),
}

/// Writes a timeline. Its visitor and its due time are not in the bytes: they are attributes of the item.
pub fn encode_timeline(timeline: &Timeline) -> Vec<u8> {
    let mut strings = Writer::default();
    wire::each_text(timeline, &mut |text| strings.add(text));
    let strings = strings.finish();
    compression::compress(encode(&(WireTimeline::write(timeline, &strings), WireWatermark::write(timeline, &strings))))
}

/// Writes a timeline as an item holds it, like [`encode_timeline`]; none where it is too large. Whatever this returns can be read.
pub fn encode_item(timeline: &Timeline, room: Room) -> Option<Vec<u8>> {
    let [max_item_bytes, max_form_bytes, max_text_bytes] = room.limits();
    let mut strings = Writer::default();
    wire::each_text(timeline, &mut |text| strings.add(text));
    let strings = strings.finish();
    if strings.bytes() > max_text_bytes {
        return None;
    }
    let form = encode(&(WireTimeline::write(timeline, &strings), WireWatermark::write(timeline, &strings)));
    if form.len() > max_form_bytes {
        return None;
    }
    let compressed = compression::compress(form);
    (compressed.len() <= max_item_bytes).then_some(compressed)
}

/// Reads a timeline of this visitor.
///
/// # Errors
/// A version that is not known, bytes that are no timeline, a timeline that breaks the rules.
pub fn decode_timeline(version: u32, bytes: &[u8], visitor: Visitor) -> Result<Timeline, FormatError> {
    let bytes = compression::decompress(bytes).ok_or(FormatError::Bytes("timeline"))?;
    let (wire, watermark): (WireTimeline<'_>, WireWatermark) = match version {
        1 => (decode(version, &bytes, "timeline")?, WireWatermark::default()),
        _ => decode(version, &bytes, "timeline")?,
    };
    let timeline = wire.read(watermark, visitor)?;
    check::timeline(&timeline).map_err(FormatError::Rule)?;
    Ok(timeline)
}

/// Writes a session that is over.
pub fn encode_session(session: &SessionState) -> Vec<u8> {
    let mut strings = Writer::default();
    wire::each_session_text(session, &mut |text| strings.add(text));
    let strings = strings.finish();
    encode(&(strings.stored(), WireSession::write(session, &strings)))
}

/// Reads a session of the visitor with these bits.
///
/// # Errors
/// As [`decode_timeline`].
pub fn decode_session(version: u32, bytes: &[u8], visitor_bits: u64) -> Result<SessionState, FormatError> {
    let (strings, wire): (Vec<(u32, &str)>, WireSession<'_>) = decode(version, bytes, "session")?;
    let session = wire.read(&Reader::new(&strings)?, visitor_bits)?;
    check::session(&session).map_err(FormatError::Rule)?;
    Ok(session)
}

fn encode(value: &impl serde::Serialize) -> Vec<u8> {
    // Writing plain data to memory cannot fail; an empty form would be refused when read.
    postcard::to_stdvec(value).unwrap_or_default()
}

fn decode<'a, T: serde::Deserialize<'a>>(version: u32, bytes: &'a [u8], what: &'static str) -> Result<T, FormatError> {
    match version {
        0 => return Err(FormatError::Version(version)),
        1..=NEWEST_FORMAT => {}
        _ => return Err(FormatError::Newer(version)),
    }
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        _ => Err(FormatError::Bytes(what)),
    }
}

/// The half of a session id that the visitor does not give.
fn id_half(id: Uuid) -> [u8; 8] {
    id.as_u64_pair().0.to_be_bytes()
}

/// A session id from its half.
fn id_of(half: [u8; 8], visitor_bits: u64) -> Uuid {
    Uuid::from_u64_pair(u64::from_be_bytes(half), visitor_bits)
}
