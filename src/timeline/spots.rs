//! Where the events that are known lie, by their fingerprints.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use uuid::Uuid;

use super::Timeline;
use crate::rules::Tally;

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
pub(super) type ByPrint<T> = HashMap<u64, T, RandomState>;

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
        spots.extend(self.journal.iter().map(|entry| (entry.uuid.print(), Spot::Journal)));
        spots
    }
}
