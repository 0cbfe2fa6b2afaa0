//! Pages: where the fingerprints of a long session are kept.
//!
//! A timeline is written with every batch, so it must not carry what the common case does not need. A duplicate of a finalized
//! event is behind the watermark, or its time may change. Only for such an event are the pages read.
//!
//! ```text
//!   finalized, in this order:  ● ● ● ● ● ● ● ● ● ● ● ● ● ●
//!                              page 0  │page 1 │ fingerprints of the timeline
//! ```
//!
//! The order in which a session's events are finalized only ever grows at its end, and a page has a fixed place in it. So every
//! writer that moves a page writes the same page, and to write it again is harmless.

use uuid::Uuid;

use super::late::reach_ms;
use super::{Arrival, Timeline};
use crate::config::SessionConfig;
use crate::model::{FingerprintPage, Kind, LateEvents, SessionState};
use crate::session::Millis;

/// The number of fingerprints on a page. Up to this many stay in the timeline, in 384 bytes, so that its item keeps to its first
/// kilobyte. A page costs a write unit, so with fewer fingerprints pages would cost more.
///
/// It is part of the stored form: two releases with different numbers would overwrite each other's pages.
pub const PAGE_FINGERPRINTS: usize = 64;

/// What is read in addition to the timeline, to apply events to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recalled {
    /// The archived sessions within [`Timeline::recall_range`].
    pub sessions: Vec<SessionState>,
    /// The pages of [`Timeline::sessions_to_look_up`].
    pub pages: Vec<FingerprintPage>,
}

impl From<Vec<SessionState>> for Recalled {
    fn from(sessions: Vec<SessionState>) -> Self {
        Self { sessions, pages: Vec::new() }
    }
}

impl Timeline {
    /// Returns the sessions whose pages are needed to apply these events, because an event can be a duplicate of one of theirs.
    /// `recalled` are the archived sessions that were read.
    pub fn sessions_to_look_up(
        &self,
        arrivals: &[Arrival],
        recalled: &[SessionState],
        config: &SessionConfig,
    ) -> Vec<Uuid> {
        let mut paged =
            self.ended.iter().chain(&self.open).chain(recalled).filter(|state| state.has_pages()).peekable();
        if paged.peek().is_none() {
            return Vec::new();
        }
        let is_candidate = |arrival: &&Arrival| {
            let is_counted = !arrival.passive && arrival.entry.kind != Kind::KeepAlive;
            is_counted && (arrival.may_change_time || self.is_late(&arrival.entry))
        };
        let mut candidates: Vec<&Arrival> = arrivals.iter().filter(is_candidate).collect();
        if candidates.is_empty() {
            return Vec::new();
        }
        // Without the recalled sessions: one of them can be an older copy of a session that the timeline has itself.
        let known_events = self.known_events(&[], &[]);
        candidates.retain(|arrival| !known_events.contains_key(&arrival.entry.uuid.fingerprint()));
        let may_have = |state: &&SessionState| {
            candidates.iter().any(|arrival| arrival.may_change_time || state.reaches(arrival.entry.at, config))
        };
        let mut ids: Vec<Uuid> = paged.filter(may_have).map(|state| state.id).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Moves fingerprints of this timeline and of the recalled sessions to pages of `size`, and returns these pages. They must be
    /// stored before the timeline is: then a crash between the two writes loses nothing.
    ///
    /// The timeline must be as it is stored, without new events. So a page has only fingerprints that a stored timeline has had,
    /// in the order that all later ones have, too. Drops the pages that do not belong to this state of the timeline.
    #[must_use]
    pub fn move_to_pages(&mut self, recalled: &mut Recalled, size: usize) -> Vec<FingerprintPage> {
        let Recalled { sessions, pages } = recalled;
        pages.retain(|page| {
            let mut states = self.ended.iter().chain(&self.open).chain(&*sessions);
            states.any(|state| state.has_page(page))
        });
        let mut moved = Vec::new();
        // What a session that is over has is bounded, and it goes to the archive soon. Only late events can still be added.
        for state in self.ended.iter_mut().chain(&mut self.open) {
            state.late.move_to_pages(state.id, size, &mut moved);
        }
        if let Some(open) = &mut self.open {
            while open.fingerprints.len() >= size {
                let fingerprints = open.fingerprints.drain(..size).collect();
                moved.push(FingerprintPage { session_id: open.id, is_late: false, number: open.pages, fingerprints });
                open.pages += 1;
            }
        }
        // A copy of a session that the timeline has itself does not count.
        let is_full = |state: &&mut SessionState| state.late.fingerprints.len() >= size;
        for state in sessions.iter_mut().filter(is_full) {
            if self.ids().all(|id| id != state.id) {
                state.late.move_to_pages(state.id, size, &mut moved);
            }
        }
        pages.extend(moved.iter().cloned());
        moved
    }
}

impl SessionState {
    /// Returns whether fingerprints were moved to pages.
    pub fn has_pages(&self) -> bool {
        self.pages > 0 || self.late.pages > 0
    }

    /// Returns whether the store can have pages of this session. It can have some that this state does not count, if a writer
    /// died after it stored them; then their fingerprints are still here.
    pub fn may_have_stored_pages(&self, size: usize) -> bool {
        self.has_pages() || self.fingerprints.len() >= size || self.late.fingerprints.len() >= size
    }

    /// Returns whether the page belongs to this state. A later state can have more pages, and so can the store after a crash.
    fn has_page(&self, page: &FingerprintPage) -> bool {
        page.session_id == self.id && page.number < if page.is_late { self.late.pages } else { self.pages }
    }

    /// Returns whether an event at `at` can be counted in the session. Late events can be so far away that other rules may have
    /// counted them, so this is as wide as the range of archived sessions.
    fn reaches(&self, at: Millis, config: &SessionConfig) -> bool {
        let reach = reach_ms(config);
        (self.facts.started_at - reach..=self.facts.last_activity + reach).contains(&at)
    }
}

impl LateEvents {
    /// Moves fingerprints to pages of `size`.
    fn move_to_pages(&mut self, session_id: Uuid, size: usize, moved: &mut Vec<FingerprintPage>) {
        while self.fingerprints.len() >= size {
            let fingerprints = self.fingerprints.drain(..size).collect();
            moved.push(FingerprintPage { session_id, is_late: true, number: self.pages, fingerprints });
            self.pages += 1;
        }
    }
}
