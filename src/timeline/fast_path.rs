//! The common case: a few events that come behind everything known. They come to what the general way makes of them, but with
//! one fold instead of three, and without a map of what is known.

use uuid::Uuid;

use super::ids::unused_id;
use super::{Applied, Arrival, Assignment, SessionAnchor, Timeline};
use crate::config::SessionConfig;
use crate::model::{Kind, LateEvents, SessionState, SessionView};
use crate::rules::fold_with_positions;

/// Events at the most: for more, a map is cheaper than to search for each among all that are known.
const FEW: usize = 32;

/// What appending comes to.
struct Appended {
    assignments: Vec<Option<Assignment>>,
    /// The session that was there and grows, if one does.
    grown: Option<Uuid>,
    /// Those that begin.
    begun: Vec<SessionAnchor>,
}

impl Timeline {
    /// Applies events where they are the common case; where they are not, changes nothing.
    pub(super) fn apply_fast(&mut self, arrivals: &[Arrival], config: &SessionConfig) -> Option<Applied> {
        if !self.are_common(arrivals) {
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
        Some(Applied { assignments: appended.assignments, changed: true, overflow })
    }

    /// Whether events are few, new, not late, in order and behind all others.
    fn are_common(&self, arrivals: &[Arrival]) -> bool {
        let mut last = self.unfinalized.last();
        !arrivals.is_empty()
            && arrivals.len() <= FEW
            && arrivals.iter().enumerate().all(|(number, arrival)| {
                let entry = &arrival.entry;
                let is_behind = last.is_none_or(|last| (last.at, &*last.uuid) < (entry.at, &*entry.uuid));
                let fingerprint = entry.uuid.fingerprint();
                let is_duplicate = arrivals[..number].iter().any(|other| other.entry.uuid.fingerprint() == fingerprint);
                // At the time of the last activity it changes nothing: the general way finds that.
                let changes = entry.kind != Kind::KeepAlive || last.is_none_or(|last| last.at < entry.at);
                last = Some(entry);
                is_behind
                    && changes
                    && !arrival.passive
                    && !is_duplicate
                    && !self.has_fingerprint(fingerprint)
                    && !self.is_late(entry)
            })
    }

    /// Whether an event with this fingerprint is known.
    fn has_fingerprint(&self, fingerprint: u64) -> bool {
        let is_in = |state: &SessionState| {
            state.fingerprints.contains(&fingerprint) || state.late.fingerprints.contains(&fingerprint)
        };
        self.unfinalized.iter().any(|entry| entry.uuid.fingerprint() == fingerprint)
            || self.ended.iter().chain(&self.open).any(is_in)
            || self.anchors.iter().any(|anchor| anchor.late.fingerprints.contains(&fingerprint))
    }

    /// Folds the unfinalized events, of which the entries from `old` on are new; none where other rules gave the old ones their sessions.
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
        let grown = views.iter().rposition(was_there).filter(|&last| views[last].end > old).map(|last| ids[last]);
        let placed = self.unfinalized[old..].iter().zip(&positions).map(|(entry, position)| {
            let number = position.view?;
            Some(self.assignment(&views[number], number, &ids, entry.at, Some(position), self.seq + 1))
        });
        Some(Appended { assignments: placed.collect(), grown, begun })
    }

    /// The anchor of a session that begins. The time of a finalized session's id lies within it, where a common event does not; but
    /// for the ids of more sessions than one millisecond has ids for.
    fn begin(&self, view: &SessionView<'_>, begun: &[SessionAnchor]) -> SessionAnchor {
        let first = &self.unfinalized[view.first];
        let finalized = || self.ended.iter().chain(&self.open).flat_map(SessionState::ids);
        let is_taken =
            |id| self.anchors.iter().chain(begun).any(|anchor| anchor.id == id) || finalized().any(|other| other == id);
        let id = unused_id(self.visitor.bits(), first.at, &first.uuid, 0, is_taken);
        SessionAnchor { entry: view.first, id, is_primary: true, version: self.seq + 1, late: LateEvents::default() }
    }
}

#[cfg(test)]
mod tests;
