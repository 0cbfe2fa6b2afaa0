//! The fast path, for the common case: a few new events that sort after every known event. Its result is the same as that of the
//! slow path, but it needs one fold instead of three, and no map of the known events.

use uuid::Uuid;

use super::ids::unused_id;
use super::{Applied, Arrival, Assignment, SessionAnchor, Timeline};
use crate::config::SessionConfig;
use crate::model::{FingerprintPage, Kind, LateEvents, SessionState, SessionView};
use crate::rules::{ended_by, fold_with_positions};

/// The maximum number of events for the fast path. For more, a map is cheaper than a search for each among all known events.
const MAX_FAST_EVENTS: usize = 32;

/// The result of appending events.
struct Appended {
    assignments: Vec<Option<Assignment>>,
    /// The session that existed before and grows or is ended by a source, if there is one.
    grown: Option<Uuid>,
    /// The anchors of the sessions that begin.
    begun: Vec<SessionAnchor>,
}

impl Timeline {
    /// Applies events if they are the common case. Otherwise changes nothing and returns `None`.
    pub(super) fn apply_fast(
        &mut self,
        arrivals: &[Arrival],
        pages: &[FingerprintPage],
        config: &SessionConfig,
    ) -> Option<Applied> {
        if !self.are_common(arrivals, pages) {
            return None;
        }
        let old = self.unfinalized.len();
        self.unfinalized.extend(arrivals.iter().map(|arrival| arrival.entry.clone()));
        let Some(appended) = self.appended(old, config) else {
            self.unfinalized.truncate(old);
            return None;
        };
        self.seq += 1;
        arrivals.iter().for_each(|arrival| self.hold(arrival, config));
        self.anchors.extend(appended.begun);
        if let Some(id) = appended.grown {
            self.set_version(id);
        }
        let overflow = self.bound(arrivals, self.corrections.len(), config);
        Some(Applied { assignments: appended.assignments, changed: true, overflow, reopened: 0 })
    }

    /// Returns whether events are few, new, not late, in order, and after all others.
    fn are_common(&self, arrivals: &[Arrival], pages: &[FingerprintPage]) -> bool {
        let mut last = self.unfinalized.last();
        !arrivals.is_empty()
            && arrivals.len() <= MAX_FAST_EVENTS
            && arrivals.iter().enumerate().all(|(number, arrival)| {
                let entry = &arrival.entry;
                let is_behind = last.is_none_or(|last| (last.at, &*last.uuid) < (entry.at, &*entry.uuid));
                let fingerprint = entry.uuid.fingerprint();
                let is_duplicate = arrivals[..number].iter().any(|other| other.entry.uuid.fingerprint() == fingerprint);
                // A keep-alive event at the time of the last activity changes nothing. Only the slow path can tell.
                let changes = entry.kind != Kind::KeepAlive || last.is_none_or(|last| last.at < entry.at);
                last = Some(entry);
                is_behind
                    && changes
                    && !arrival.passive
                    && !is_duplicate
                    && !self.has_fingerprint(fingerprint)
                    && !pages.iter().any(|page| page.fingerprints.contains(&fingerprint))
                    && !self.is_late(entry)
            })
    }

    /// Returns whether an event with this fingerprint is known, leaving pages aside.
    fn has_fingerprint(&self, fingerprint: u64) -> bool {
        let is_in = |state: &SessionState| {
            state.fingerprints.contains(&fingerprint) || state.late.fingerprints.contains(&fingerprint)
        };
        self.unfinalized.iter().any(|entry| entry.uuid.fingerprint() == fingerprint)
            || self.finalized().any(is_in)
            || self.anchors.iter().any(|anchor| anchor.late.fingerprints.contains(&fingerprint))
    }

    /// Folds the unfinalized events, of which the entries from the index `old` on are new. Returns `None` if the old entries got
    /// their sessions under other rules.
    fn appended(&self, old: usize, config: &SessionConfig) -> Option<Appended> {
        let (views, positions) =
            fold_with_positions(self.previous.as_ref(), self.open.as_ref(), &self.unfinalized, old, config);
        let was_there = |view: &SessionView<'_>| view.base.is_some() || view.first < old;
        let begins = views.iter().filter(|view| view.base.is_none() && view.first < old).map(|view| view.first);
        let mut primaries = self.anchors.iter().filter(|anchor| anchor.is_primary);
        if begins.ne(primaries.clone().map(|anchor| anchor.entry)) {
            return None;
        }
        let mut begun = Vec::new();
        let mut ids = Vec::with_capacity(views.len());
        for view in &views {
            ids.push(match (view.base, was_there(view)) {
                (Some(base), _) => base.id,
                (None, true) => primaries.next()?.id,
                (None, false) => {
                    let anchor = self.begin(view, &begun);
                    let id = anchor.id;
                    begun.push(anchor);
                    id
                }
            });
        }
        // The end of a session that the source of a new one ends differs from what it was.
        let changes = |&last: &usize| views[last].end > old || ended_by(&views, last).is_some();
        let grown = views.iter().rposition(was_there).filter(changes).map(|last| ids[last]);
        let placed = self.unfinalized[old..].iter().zip(&positions).map(|(entry, position)| {
            let number = position.view?;
            Some(self.assignment(&views[number], number, &ids, entry.at, Some(position), self.seq + 1))
        });
        Some(Appended { assignments: placed.collect(), grown, begun })
    }

    /// Returns the anchor of a session that begins. Its id is nearly always unused: an id holds the time of its event, and these
    /// events come after all others. The exception is a millisecond with more sessions than it has ids; see [`unused_id`].
    fn begin(&self, view: &SessionView<'_>, begun: &[SessionAnchor]) -> SessionAnchor {
        let first = &self.unfinalized[view.first];
        let is_taken = |id| self.ids().chain(begun.iter().map(|anchor| anchor.id)).any(|other| other == id);
        let id = unused_id(self.visitor.bits(), first.at, &first.uuid, 0, is_taken);
        SessionAnchor { entry: view.first, id, is_primary: true, version: self.seq + 1, late: LateEvents::default() }
    }
}

#[cfg(test)]
mod tests;
