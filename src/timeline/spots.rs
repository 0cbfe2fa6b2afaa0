//! Where the events that are known lie, by their fingerprints.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use uuid::Uuid;

use super::Timeline;
use crate::rules::Tally;
use crate::session::fingerprint;

/// Where a known event lies.
#[derive(Clone, Copy)]
pub(super) enum Spot {
    Journal,
    /// Settled in this session.
    Settled(Uuid),
    /// Counted as late in this session.
    Late(Uuid),
}

/// Something for each of some fingerprints.
pub(super) type ByPrint<T> = HashMap<u64, T, BuildHasherDefault<PrintHasher>>;

/// Fingerprints are hashes already: it spreads their 48 bits over 64, and no more.
#[derive(Default)]
pub(super) struct PrintHasher(u64);

impl Hasher for PrintHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(u64::from(byte)));
    }

    fn write_u64(&mut self, print: u64) {
        // 2⁶⁴ over the golden ratio.
        self.0 = (self.0 ^ print).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Timeline {
    /// Where each known event lies.
    pub(super) fn spots(&self, recalled: &[Tally]) -> ByPrint<Spot> {
        let tallies = || recalled.iter().chain(&self.ended).chain(&self.open);
        let mut spots = ByPrint::default();
        spots.reserve(self.journal.len() + tallies().map(|tally| tally.seen.len()).sum::<usize>() + 8);
        for tally in tallies() {
            spots.extend(tally.seen.iter().map(|&print| (print, Spot::Settled(tally.id))));
            spots.extend(tally.late.seen.iter().map(|&print| (print, Spot::Late(tally.id))));
        }
        for head in &self.heads {
            spots.extend(head.late.seen.iter().map(|&print| (print, Spot::Late(head.id))));
        }
        spots.extend(self.journal.iter().map(|entry| (fingerprint(&entry.uuid), Spot::Journal)));
        spots
    }
}
