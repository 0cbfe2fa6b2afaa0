//! The common case: a few events that come behind everything known. They come to what the general way makes of them, but with
//! one fold instead of three, and without a map of what is known.

use uuid::Uuid;

use super::ids::unused_id;
use super::{Applied, Arrival, Assignment, Head, Timeline};
use crate::config::SessionConfig;
use crate::rules::{Draft, Kind, Late, Tally, fold_places};

/// Events at the most: for more, a map is cheaper than to search for each among all that are known.
const FEW: usize = 32;

/// What appending comes to.
struct Appended {
    assignments: Vec<Option<Assignment>>,
    /// The session that was there and grows, if one does.
    grown: Option<Uuid>,
    /// Those that begin.
    begun: Vec<Head>,
}

impl Timeline {
    /// Applies events where they are the common case; where they are not, changes nothing.
    pub(super) fn append(&mut self, arrivals: &[Arrival], config: &SessionConfig) -> Option<Applied> {
        if !self.are_common(arrivals) {
            return None;
        }
        let old = self.journal.len();
        self.journal.extend(arrivals.iter().map(|arrival| arrival.entry.clone()));
        let Some(appended) = self.appended(old, config) else {
            self.journal.truncate(old);
            return None;
        };
        self.seq += 1;
        arrivals.iter().for_each(|arrival| self.hold(arrival, config));
        self.heads.extend(appended.begun);
        if let Some(id) = appended.grown {
            self.set_version(id);
        }
        let overflow = self.bound(arrivals, self.notices.len(), config);
        Some(Applied { assignments: appended.assignments, changed: true, overflow })
    }

    /// Whether events are few, new, not late, in order and behind all others.
    fn are_common(&self, arrivals: &[Arrival]) -> bool {
        let mut last = self.journal.last();
        !arrivals.is_empty()
            && arrivals.len() <= FEW
            && arrivals.iter().enumerate().all(|(number, arrival)| {
                let entry = &arrival.entry;
                let is_behind = last.is_none_or(|last| (last.at, &*last.uuid) < (entry.at, &*entry.uuid));
                let print = entry.uuid.print();
                let is_repeat = arrivals[..number].iter().any(|other| other.entry.uuid.print() == print);
                // At the time of the last activity it changes nothing: the general way finds that.
                let changes = entry.kind != Kind::KeepAlive || last.is_none_or(|last| last.at < entry.at);
                last = Some(entry);
                is_behind && changes && !arrival.passive && !is_repeat && !self.knows(print) && !self.is_late(entry)
            })
    }

    /// Whether an event with this fingerprint is known.
    fn knows(&self, print: u64) -> bool {
        let is_in = |tally: &Tally| tally.seen.contains(&print) || tally.late.seen.contains(&print);
        self.journal.iter().any(|entry| entry.uuid.print() == print)
            || self.ended.iter().chain(&self.open).any(is_in)
            || self.heads.iter().any(|head| head.late.seen.contains(&print))
    }

    /// Folds the journal, of which the entries from `old` on are new; none where other rules gave the old ones their sessions.
    fn appended(&self, old: usize, config: &SessionConfig) -> Option<Appended> {
        let (drafts, places) = fold_places(self.previous.as_ref(), self.open.as_ref(), &self.journal, old, config);
        let was_there = |draft: &Draft<'_>| draft.base.is_some() || draft.first < old;
        let begins = drafts.iter().filter(|draft| draft.base.is_none() && draft.first < old).map(|draft| draft.first);
        let mut leaders = self.heads.iter().filter(|head| head.leads);
        if begins.ne(leaders.clone().map(|head| head.entry)) {
            return None;
        }
        let mut begun = Vec::new();
        let mut ids = Vec::with_capacity(drafts.len());
        for draft in &drafts {
            ids.push(match (draft.base, was_there(draft)) {
                (Some(base), _) => base.id,
                (None, true) => leaders.next()?.id,
                (None, false) => {
                    let head = self.begin(draft, &begun);
                    let id = head.id;
                    begun.push(head);
                    id
                }
            });
        }
        let grown = drafts.iter().rposition(was_there).filter(|&last| drafts[last].end > old).map(|last| ids[last]);
        let placed = self.journal[old..].iter().zip(&places).map(|(entry, place)| {
            let number = place.draft?;
            Some(self.assignment(&drafts[number], number, &ids, entry.at, Some(place), self.seq + 1))
        });
        Some(Appended { assignments: placed.collect(), grown, begun })
    }

    /// The head of a session that begins. The time of a finalized session's id lies within it, where a common event does not; but
    /// for the ids of more sessions than one millisecond has ids for.
    fn begin(&self, draft: &Draft<'_>, begun: &[Head]) -> Head {
        let first = &self.journal[draft.first];
        let finalized = || self.ended.iter().chain(&self.open).flat_map(Tally::ids);
        let is_taken =
            |id| self.heads.iter().chain(begun).any(|head| head.id == id) || finalized().any(|other| other == id);
        let id = unused_id(self.visitor.bits(), first.at, &first.uuid, 0, is_taken);
        Head { entry: draft.first, id, leads: true, version: self.seq + 1, late: Late::default() }
    }
}

#[cfg(test)]
mod tests;
