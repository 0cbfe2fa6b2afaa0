//! Chunks: the recorded events that a batch brings of a visitor, as one compressed object.
//!
//! ```text
//!   replay/{SHA-256 of the visitor}/{day}/{first}-{last}-{hash}.gz
//!                                    day of the first event since 1970; times of the first and the last event in milliseconds,
//!                                    in hexadecimal; 128 bits of the content's SHA-256
//! ```
//!
//! The name follows from the content, so that a request which is sent again writes the same object. It has no session in it:
//! sessions are merged and split later. The visitor's hash is whole, so that no two visitors share a prefix.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::ReplayEventType;
use crate::session::{Millis, Visitor};

/// What all names begin with.
pub const PREFIX: &str = "replay";
/// The longest time between the first and the last event of a chunk: ten minutes. So a reader knows how long before a time it has to
/// look for chunks with events of that time.
pub const MAX_SPAN_MS: Millis = 600_000;
/// A chunk ends with the event that brings it to this many bytes before compression: 2 MB.
const MAX_BYTES: usize = 2 * 1024 * 1024;
/// Limit of the decompressed bytes of a chunk when it is read. A chunk has at most [`MAX_BYTES`], one event more, and its frame.
const MAX_READ_BYTES: usize = 8 * 1024 * 1024;
const DAY_MS: Millis = 86_400_000;

/// A recorded event with its place in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// When it happened, by the service's clock.
    pub at: Millis,
    /// When it happened, by the recorder's clock. It differs from `at` if that clock is wrong.
    pub stated_at: Millis,
    /// Its kind.
    pub event_type: ReplayEventType,
    /// What the recorder wrote, as JSON.
    pub data: String,
}

/// The name of a chunk, within its visitor. Names are ordered by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChunkName {
    /// The time of the first event.
    pub first: Millis,
    /// The time of the last event.
    pub last: Millis,
    /// The hash of the content.
    pub hash: u128,
}

/// A chunk, ready to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Its name.
    pub name: ChunkName,
    /// Its content, compressed.
    pub bytes: Vec<u8>,
}

/// A line of a chunk.
#[derive(Serialize, Deserialize)]
struct Line<'a> {
    at: Millis,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stated_at: Option<Millis>,
    event_type: ReplayEventType,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// Returns the prefix of all chunks of a visitor.
pub fn prefix_of(visitor: &Visitor) -> String {
    // `#` cannot be part of a project's name, so no two visitors share the hashed string.
    let digest = Sha256::new().chain_update(&visitor.project).chain_update("#").chain_update(&visitor.distinct_id);
    digest.finalize().iter().fold(format!("{PREFIX}/"), |name, byte| name + &format!("{byte:02x}"))
}

/// Returns the prefix of a visitor's chunks of a day.
pub fn prefix_of_day(visitor: &Visitor, day: Millis) -> String {
    format!("{}/{day:06}", prefix_of(visitor))
}

/// Returns the day of a time, counted from 1970.
pub fn day_of(at: Millis) -> Millis {
    at.div_euclid(DAY_MS)
}

impl ChunkName {
    /// Returns the whole name of a visitor's chunk.
    pub fn path(&self, visitor: &Visitor) -> String {
        let Self { first, last, hash } = self;
        format!("{}/{first:012x}-{last:012x}-{hash:032x}.gz", prefix_of_day(visitor, day_of(*first)))
    }

    /// Reads the last part of a name.
    pub fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_suffix(".gz")?.split('-');
        let mut time = || Millis::from_str_radix(parts.next()?, 16).ok();
        let (first, last) = (time()?, time()?);
        Some(Self { first, last, hash: u128::from_str_radix(parts.next()?, 16).ok()? })
    }
}

/// Returns how many chunks events of these times need at least, because of [`MAX_SPAN_MS`].
pub fn stretches(mut times: Vec<Millis>) -> usize {
    times.sort_unstable();
    let (mut count, mut first) = (0, None);
    for at in times {
        if first.is_none_or(|first| at - first > MAX_SPAN_MS) {
            (count, first) = (count + 1, Some(at));
        }
    }
    count
}

/// Packs a visitor's events into chunks, nearly always one. Events of one time stay in their order.
pub fn pack(mut events: Vec<StoredEvent>) -> Vec<Chunk> {
    events.sort_by_key(|event| event.at);
    let (mut chunks, mut text) = (Vec::new(), String::new());
    let mut span: Option<(Millis, Millis)> = None;
    for event in &events {
        if let Some((first, last)) = span.filter(|(first, _)| event.at - first > MAX_SPAN_MS || text.len() > MAX_BYTES)
        {
            chunks.push(chunk(first, last, &std::mem::take(&mut text)));
            span = None;
        }
        span = Some((span.map_or(event.at, |(first, _)| first), event.at));
        text.push_str(&line(event));
        text.push('\n');
    }
    if let Some((first, last)) = span {
        chunks.push(chunk(first, last, &text));
    }
    chunks
}

fn line(event: &StoredEvent) -> String {
    let stated_at = (event.stated_at != event.at).then_some(event.stated_at);
    // What was read as JSON can be written as JSON.
    let data: &RawValue = serde_json::from_str(&event.data).unwrap_or(RawValue::NULL);
    serde_json::to_string(&Line { at: event.at, stated_at, event_type: event.event_type, data }).unwrap_or_default()
}

fn chunk(first: Millis, last: Millis, text: &str) -> Chunk {
    let digest = Sha256::digest(text);
    let hash = digest[..16].iter().fold(0, |hash, &byte| hash << 8 | u128::from(byte));
    Chunk { name: ChunkName { first, last, hash }, bytes: compressed(text.as_bytes()) }
}

fn compressed(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    // Writing to memory does not fail.
    let _ = encoder.write_all(text);
    encoder.finish().unwrap_or_default()
}

/// Reads the events of a chunk. Returns `None` if it is damaged.
pub fn unpack(bytes: &[u8]) -> Option<Vec<StoredEvent>> {
    let mut text = String::new();
    GzDecoder::new(bytes).take(MAX_READ_BYTES as u64 + 1).read_to_string(&mut text).ok()?;
    if text.len() > MAX_READ_BYTES {
        return None;
    }
    let event = |line: &str| {
        let Line { at, stated_at, event_type, data } = serde_json::from_str(line).ok()?;
        Some(StoredEvent { at, stated_at: stated_at.unwrap_or(at), event_type, data: data.get().to_owned() })
    };
    text.lines().map(event).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(at: Millis, data: &str) -> StoredEvent {
        StoredEvent { at, stated_at: at, event_type: ReplayEventType::Dom, data: data.to_owned() }
    }

    #[test]
    fn what_is_packed_can_be_read_and_its_name_follows_from_it() {
        let corrected = StoredEvent { stated_at: 7, ..event(1_773_144_000_500, "{\"a\":[1,\"\\n\"]}") };
        let events = vec![corrected.clone(), event(1_773_144_000_000, "1"), event(1_773_144_000_000, "2")];
        let chunks = pack(events.clone());
        assert_eq!((chunks.len(), &chunks), (1, &pack(events)));
        let read = unpack(&chunks[0].bytes).unwrap();
        assert_eq!(read, [event(1_773_144_000_000, "1"), event(1_773_144_000_000, "2"), corrected]);
        let path = chunks[0].name.path(&Visitor::new("ada"));
        assert_eq!(ChunkName::parse(path.rsplit('/').next().unwrap()), Some(chunks[0].name));
        assert!(path.starts_with("replay/") && path.contains("/020522/019cd79e4600-019cd79e47f4-"), "{path}");
        assert_ne!(
            pack(vec![event(1_773_144_000_000, "3")])[0].name,
            pack(vec![event(1_773_144_000_000, "4")])[0].name
        );
    }

    #[test]
    fn a_chunk_is_bounded_in_time_and_in_bytes() {
        let spans = |events: Vec<StoredEvent>| -> Vec<(Millis, Millis)> {
            pack(events).iter().map(|chunk| (chunk.name.first, chunk.name.last)).collect()
        };
        let at = |times: &[Millis]| times.iter().map(|&at| event(at, "1")).collect::<Vec<_>>();
        assert_eq!(
            spans(at(&[600_000, 0, 600_001, 9_000_000])),
            [(0, 600_000), (600_001, 600_001), (9_000_000, 9_000_000)]
        );
        let large = format!("\"{}\"", "x".repeat(MAX_BYTES));
        assert_eq!(spans(vec![event(1, &large), event(2, &large), event(3, "1")]), [(1, 1), (2, 2), (3, 3)]);
        assert_eq!(spans(Vec::new()), []);
        for times in [&[600_000, 0, 600_001, 9_000_000][..], &[0, 600_000], &[]] {
            assert_eq!(stretches(times.to_vec()), spans(at(times)).len());
        }
    }

    #[test]
    fn damage_is_noticed() {
        assert_eq!(unpack(b"no gzip"), None);
        assert_eq!(unpack(&compressed(b"{\"at\":1}\n")), None);
        assert_eq!(unpack(&compressed(&vec![b' '; MAX_READ_BYTES + 1])), None);
        for name in ["", "a.gz", "1-2.gz", "1-2-x.gz", "1-2-3"] {
            assert_eq!(ChunkName::parse(name), None, "{name}");
        }
    }

    /// Two visitors whose 62 bits are equal share a partition of the table, but no chunk; neither do the parts of their names.
    #[test]
    fn no_two_visitors_share_a_prefix() {
        let visitor = |project: &str, id: &str| Visitor { project: project.to_owned(), ..Visitor::new(id) };
        let prefixes: std::collections::BTreeSet<String> =
            [visitor("", "ab"), visitor("a", "b"), visitor("ab", "")].iter().map(prefix_of).collect();
        assert_eq!(prefixes.len(), 3);
        assert!(prefixes.iter().all(|prefix| prefix.len() == "replay/".len() + 64));
    }
}
