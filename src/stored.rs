//! The stored form of timelines and archived sessions: compact, versioned, checked.
//!
//! DynamoDB bills an item in steps of a kilobyte, by the larger size of the item before and after a write. So the form is small:
//!
//! - Each string is stored once, in a sorted table, without the prefix that it shares with the string before it.
//! - Session ids are stored without the half that the visitor determines.
//! - A timeline that would still need a second kilobyte is compressed, because a saved write unit is worth far more than the time
//!   for compression.
//!
//! What is read is checked against the rules of `check.rs`. An item that breaks them is an error, never a new session.

mod check;
mod compression;
mod string_table;
mod wire;

use uuid::Uuid;

use crate::model::{FingerprintPage, SessionState};
use crate::session::Visitor;
use crate::timeline::Timeline;
use string_table::{StringTable, StringTableBuilder, StringTableReader};
use wire::{WireMore, WireSession, WireSessionMore, WireTimeline, WireWatermark};

/// The version of the stored form that is written.
pub const FORMAT: u32 = 3;

/// The newest version of the stored form that is read. A release reads a form before a later release writes it, so that a
/// deployment can be rolled back: see [`FORMATS`].
pub const NEWEST_FORMAT: u32 = 3;

/// A version of the stored form, and the releases of this crate that read and write it.
#[derive(Debug, Clone, Copy)]
pub struct Format {
    /// The version, from 1.
    pub version: u32,
    /// The first release that reads it.
    pub read_since: &'static str,
    /// The first release that writes it.
    pub written_since: &'static str,
}

/// The versions of the stored form, oldest first. All of them are read.
pub const FORMATS: [Format; NEWEST_FORMAT as usize] = [
    Format { version: 1, read_since: "0.1.0", written_since: "0.1.0" },
    // `held_until` and `watermark_id` follow the timeline. The same release reads and writes it first, because nothing was
    // deployed at that time: see `docs/decisions.md`.
    Format { version: 2, read_since: "0.1.0", written_since: "0.1.0" },
    // The numbers of pages and the closed sessions follow, for the same reason at once.
    Format { version: 3, read_since: "0.1.0", written_since: "0.1.0" },
];

/// The maximum size of a stored form in bytes, when events are added. DynamoDB's limit for an item is 400 KB, including its keys
/// and other attributes.
pub const MAX_ITEM_BYTES: usize = 350 * 1024;

/// The size limits of an item, by the purpose of the write. A write that closes a timeline may make a larger item than one that
/// adds events. Finalizing the events of a full timeline can make its item some kilobytes longer, and it must still be possible
/// to close it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Events are added.
    ToGrow,
    /// The timeline is closed, or changed without adding events. The limits are those of the reader and of DynamoDB.
    ToClose,
}

impl Room {
    /// Returns the maximum sizes in bytes of the stored form, of the decompressed form, and of the strings with their prefixes.
    fn limits(self) -> [usize; 3] {
        match self {
            // A decompressed form and its strings take memory. Real traffic comes nowhere near these limits.
            Self::ToGrow => [MAX_ITEM_BYTES, 4 * 1024 * 1024, 16 * 1024 * 1024],
            Self::ToClose => [390 * 1024, compression::MAX_FORM_BYTES, string_table::MAX_BYTES],
        }
    }
}

/// Why stored bytes cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The format version is 0, which was never written.
    #[error("format version {0} is none that was ever written")]
    Version(u32),
    /// The format version is newer than [`NEWEST_FORMAT`]: a newer release wrote the item.
    #[error("format version {0} is newer than {NEWEST_FORMAT}, the newest that this version of the service reads")]
    Newer(u32),
    /// The bytes are not a stored form of this kind: `timeline` or `session`.
    #[error("the bytes are not a stored {0}")]
    Bytes(&'static str),
    /// The bytes are a stored form, but it breaks this rule.
    #[error("{0}")]
    Rule(&'static str),
}

/// Returns the stored form of a timeline. It does not include the visitor and the due time, which are attributes of the item.
pub fn encode_timeline(timeline: &Timeline) -> Vec<u8> {
    let mut strings = StringTableBuilder::default();
    wire::each_string(timeline, &mut |string| strings.add(string));
    let strings = strings.finish();
    compression::compress(form(timeline, &strings))
}

/// Returns the stored form of a timeline, like [`encode_timeline`]. Returns `None` if it is too large for an item. A form that
/// this returns can always be read.
pub fn encode_item(timeline: &Timeline, room: Room) -> Option<Vec<u8>> {
    let [max_item_bytes, max_form_bytes, max_string_bytes] = room.limits();
    let mut strings = StringTableBuilder::default();
    wire::each_string(timeline, &mut |string| strings.add(string));
    let strings = strings.finish();
    if strings.bytes() > max_string_bytes {
        return None;
    }
    let form = form(timeline, &strings);
    if form.len() > max_form_bytes {
        return None;
    }
    let compressed = compression::compress(form);
    (compressed.len() <= max_item_bytes).then_some(compressed)
}

/// Reads a timeline of this visitor from its stored form.
///
/// # Errors
///
/// If the version is not known, if the bytes are not a timeline, or if the timeline breaks a rule.
pub fn decode_timeline(version: u32, bytes: &[u8], visitor: Visitor) -> Result<Timeline, FormatError> {
    let bytes = compression::decompress(bytes).ok_or(FormatError::Bytes("timeline"))?;
    let (wire, watermark, more): (WireTimeline<'_>, WireWatermark, Option<WireMore<'_>>) = match version {
        1 => (decode(version, &bytes, "timeline")?, WireWatermark::default(), None),
        2 => {
            let (wire, watermark) = decode(version, &bytes, "timeline")?;
            (wire, watermark, None)
        }
        _ => {
            let (wire, watermark, more) = decode(version, &bytes, "timeline")?;
            (wire, watermark, Some(more))
        }
    };
    let strings = wire.strings()?;
    let mut timeline = wire.read(&strings, watermark, visitor)?;
    more.iter().try_for_each(|more| more.read(&strings, &mut timeline))?;
    check::timeline(&timeline).map_err(FormatError::Rule)?;
    Ok(timeline)
}

/// Returns the stored form of a session that is over. It is not compressed.
pub fn encode_session(session: &SessionState) -> Vec<u8> {
    let mut strings = StringTableBuilder::default();
    wire::each_session_string(session, &mut |string| strings.add(string));
    let strings = strings.finish();
    encode(&(strings.stored(), WireSession::write(session, &strings), WireSessionMore::write(session)))
}

/// Reads a session from its stored form. `visitor_bits` are those of [`Visitor::bits`].
///
/// # Errors
///
/// If the version is not known, if the bytes are not a session, or if the session breaks a rule.
pub fn decode_session(version: u32, bytes: &[u8], visitor_bits: u64) -> Result<SessionState, FormatError> {
    let (strings, wire, more): (Vec<(u32, &str)>, WireSession<'_>, Option<WireSessionMore>) = match version {
        1 | 2 => {
            let (strings, wire) = decode(version, bytes, "session")?;
            (strings, wire, None)
        }
        _ => {
            let (strings, wire, more) = decode(version, bytes, "session")?;
            (strings, wire, Some(more))
        }
    };
    let mut session = wire.read(&StringTableReader::new(&strings)?, visitor_bits)?;
    more.iter().for_each(|more| more.read(&mut session));
    check::session(&session).map_err(FormatError::Rule)?;
    Ok(session)
}

/// Returns the stored form of a page, which is its fingerprints.
pub fn encode_page(page: &FingerprintPage) -> Vec<u8> {
    wire::fingerprints(&page.fingerprints)
}

/// Reads the fingerprints of a page from its stored form.
///
/// # Errors
///
/// If the version is not known, or if a fingerprint is cut off.
pub fn decode_page(version: u32, bytes: &[u8]) -> Result<Vec<u64>, FormatError> {
    check_version(version)?;
    wire::read_fingerprints(bytes)
}

/// Returns the form of a timeline before it is compressed.
fn form(timeline: &Timeline, strings: &StringTable<'_>) -> Vec<u8> {
    encode(&(
        WireTimeline::write(timeline, strings),
        WireWatermark::write(timeline, strings),
        WireMore::write(timeline, strings),
    ))
}

fn encode(value: &impl serde::Serialize) -> Vec<u8> {
    // To serialize plain data into memory cannot fail. If it did, a reader would refuse the empty form.
    postcard::to_stdvec(value).unwrap_or_default()
}

fn decode<'a, T: serde::Deserialize<'a>>(version: u32, bytes: &'a [u8], what: &'static str) -> Result<T, FormatError> {
    check_version(version)?;
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        _ => Err(FormatError::Bytes(what)),
    }
}

fn check_version(version: u32) -> Result<(), FormatError> {
    match version {
        0 => Err(FormatError::Version(version)),
        1..=NEWEST_FORMAT => Ok(()),
        _ => Err(FormatError::Newer(version)),
    }
}

/// Returns the half of a session id that the visitor does not determine.
fn id_half(id: Uuid) -> [u8; 8] {
    id.as_u64_pair().0.to_be_bytes()
}

/// Returns the session id with this half.
fn id_of(half: [u8; 8], visitor_bits: u64) -> Uuid {
    Uuid::from_u64_pair(u64::from_be_bytes(half), visitor_bits)
}
