//! The locations of known events, by fingerprint. This is the deduplication.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use uuid::Uuid;

use super::Timeline;
use crate::model::{FingerprintPage, SessionState};

/// Where a known event is kept.
#[derive(Clone, Copy)]
pub(super) enum EventLocation {
    /// Among the unfinalized events.
    Unfinalized,
    /// Finalized in this session.
    Finalized(Uuid),
    /// Counted as late in this session.
    Late(Uuid),
}

/// A map with events' fingerprints as keys.
pub(super) type ByFingerprint<T> = HashMap<u64, T, RandomState>;

impl Timeline {
    /// Returns the location of each known event: in the timeline, in the recalled sessions and on the pages.
    pub(super) fn known_events(
        &self,
        recalled: &[SessionState],
        pages: &[FingerprintPage],
    ) -> ByFingerprint<EventLocation> {
        let finalized: usize = recalled.iter().chain(self.finalized()).map(|state| state.fingerprints.len()).sum();
        let on_pages: usize = pages.iter().map(|page| page.fingerprints.len()).sum();
        let mut known_events = ByFingerprint::default();
        known_events.reserve(self.unfinalized.len() + finalized + on_pages + 8);
        // The timeline comes last, with its pages, because it counts. A close function that died under other rules can have
        // archived a session with an event that is in another session here.
        let is_recalled = |page: &&FingerprintPage| recalled.iter().any(|state| state.id == page.session_id);
        let (archived, own): (Vec<_>, Vec<_>) = pages.iter().partition(is_recalled);
        add_finalized(&mut known_events, &archived, recalled.iter());
        add_finalized(&mut known_events, &own, self.finalized());
        for anchor in &self.anchors {
            known_events.extend(
                anchor.late.fingerprints.iter().map(|&fingerprint| (fingerprint, EventLocation::Late(anchor.id))),
            );
        }
        known_events
            .extend(self.unfinalized.iter().map(|entry| (entry.uuid.fingerprint(), EventLocation::Unfinalized)));
        known_events
    }
}

/// Adds the events of sessions and of their pages.
fn add_finalized<'a>(
    known_events: &mut ByFingerprint<EventLocation>,
    pages: &[&FingerprintPage],
    states: impl Iterator<Item = &'a SessionState>,
) {
    for page in pages {
        let id = page.session_id;
        let location = if page.is_late { EventLocation::Late(id) } else { EventLocation::Finalized(id) };
        known_events.extend(page.fingerprints.iter().map(|&fingerprint| (fingerprint, location)));
    }
    for state in states {
        let (finalized, late) = (EventLocation::Finalized(state.id), EventLocation::Late(state.id));
        known_events.extend(state.fingerprints.iter().map(|&fingerprint| (fingerprint, finalized)));
        known_events.extend(state.late.fingerprints.iter().map(|&fingerprint| (fingerprint, late)));
    }
}
