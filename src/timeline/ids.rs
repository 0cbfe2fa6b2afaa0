//! The ids of sessions. An id that was given out stays, is merged into another one, or is split off again. Such a change makes a
//! [`Correction`] for the events that were already handed out.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::{Correction, SessionAnchor, Timeline};
use crate::config::SessionConfig;
use crate::model::{Entry, Kind, LateEvents, SessionView};
use crate::rules::{ended_by, fold};
use crate::session::{Millis, Reason, id_time, session_id};

/// The number of ids that one event can give, after its first one: twelve bits of an id derive from the event and a salt.
const SALTS: u16 = 0xfff;

/// A session that follows from the unfinalized events, as it was before the new events.
pub(super) struct SessionBefore {
    id: Uuid,
    reason: Reason,
    number: u32,
    previous: Option<Uuid>,
    /// Its entries are `unfinalized[first..end]`.
    first: usize,
    end: usize,
    /// The number of its entries without keep-alive events.
    counted: usize,
    last_activity: Millis,
    /// See [`crate::model::SessionState::ended_by`].
    ended_by: Option<Reason>,
}

impl Timeline {
    /// Inserts new entries, folds again, and matches the sessions to the ids that were already given out.
    pub(super) fn insert(&mut self, fresh: Vec<Entry>, before: &[SessionBefore], config: &SessionConfig) {
        let old_ids = self.handed_out(before);
        let origin = self.insert_entries(fresh);
        self.match_ids(before, &old_ids, &origin, config);
    }

    /// Calls [`Timeline::realign`]. Returns the sessions of the unfinalized events, and whether anything changed.
    pub(super) fn aligned(&mut self, config: &SessionConfig) -> (Vec<SessionBefore>, bool) {
        match self.sessions_before(config) {
            Some(before) => (before, false),
            None => {
                self.realign(config);
                (self.sessions_before(config).unwrap_or_default(), true)
            }
        }
    }

    /// Matches the sessions to the ids that were already given out, if that was under other rules: a timeline outlives a
    /// deployment that changes the rules. Returns whether anything changed.
    pub(crate) fn realign(&mut self, config: &SessionConfig) -> bool {
        if self.sessions_before(config).is_some() {
            return false;
        }
        self.seq += 1;
        let old_ids = self.handed_out(&[]);
        let origin: Vec<Option<usize>> = (0..self.unfinalized.len()).map(Some).collect();
        self.match_ids(&[], &old_ids, &origin, config);
        true
    }

    /// Returns the session id with which each entry was handed out. It is `None` for a keep-alive event that was in none of the
    /// sessions `before`.
    fn handed_out(&self, before: &[SessionBefore]) -> Vec<Option<Uuid>> {
        let mut id = self.open.as_ref().map(|open| open.id);
        let mut anchors = self.anchors.iter().filter(|anchor| anchor.is_primary).peekable();
        let mut ids = Vec::with_capacity(self.unfinalized.len());
        for entry in 0..self.unfinalized.len() {
            if let Some(anchor) = anchors.next_if(|anchor| anchor.entry == entry) {
                id = Some(anchor.id);
            }
            let holds = |session: &SessionBefore| (session.first..session.end).contains(&entry);
            // After a change of the rules `before` is empty. Which keep-alive events were in no session is then unknown.
            let is_outside =
                self.unfinalized[entry].kind == Kind::KeepAlive && !before.is_empty() && !before.iter().any(holds);
            ids.push(id.filter(|_| !is_outside));
        }
        ids
    }

    /// Returns the sessions of the unfinalized events as they are. Returns `None` if other rules gave them their ids.
    pub(super) fn sessions_before(&self, config: &SessionConfig) -> Option<Vec<SessionBefore>> {
        let views = fold(self.previous.as_ref(), self.open.as_ref(), &self.unfinalized, config);
        let begins = views.iter().filter(|view| view.base.is_none()).map(|view| view.first);
        if begins.ne(self.anchors.iter().filter(|anchor| anchor.is_primary).map(|anchor| anchor.entry)) {
            return None;
        }
        let ids = primary_ids(&self.anchors, &views);
        let before = |(number, view): (usize, &SessionView<'_>)| SessionBefore {
            id: ids[number],
            reason: view.facts.reason,
            number: self.first_number() + number as u32,
            previous: self.previous_of(number, &ids),
            first: view.first,
            end: view.end,
            counted: self.counted(view).count(),
            last_activity: view.facts.last_activity,
            ended_by: ended_by(&views, number),
        };
        Some(views.iter().enumerate().map(before).collect())
    }

    /// Gives each session of the unfinalized events its id, sets the version of those that changed, and adds the corrections for
    /// events that were already handed out. `origin` is the index that each entry had before; `old_ids` are by that index.
    fn match_ids(
        &mut self,
        before: &[SessionBefore],
        old_ids: &[Option<Uuid>],
        origin: &[Option<usize>],
        config: &SessionConfig,
    ) {
        let views = fold(self.previous.as_ref(), self.open.as_ref(), &self.unfinalized, config);
        let bits = self.visitor.bits();
        // A set: there may be thousands, and thousands of new ids to find.
        let mut taken: HashSet<Uuid> = self.ids().collect();
        self.anchors.iter_mut().for_each(|anchor| anchor.is_primary = false);
        let mut merged = LateEvents::default();
        for view in &views {
            // A known event can have begun a session before that is archived by now, so its id is taken but not visible here. The
            // salt is this write's number, so it gives another id. No event stays unfinalized for so many writes that a salt
            // recurs.
            let is_known = origin.get(view.first).is_some_and(Option::is_some);
            let salt = if is_known { 1 + (self.seq % u64::from(SALTS)) as u16 } else { 0 };
            primary(&mut self.anchors, view, &self.unfinalized, config, |first| {
                let id = unused_id(bits, first.at, &first.uuid, salt, |id| taken.contains(&id));
                taken.insert(id);
                id
            });
            let late = gather_late(&mut self.anchors, view);
            if view.base.is_some() {
                merged = late;
            }
        }
        let ids = primary_ids(&self.anchors, &views);
        let mut changed = Vec::new();
        for (number, view) in views.iter().enumerate() {
            let id = ids[number];
            let same = |was: &SessionBefore| {
                was.id == id
                    && was.reason == view.facts.reason
                    && was.number == self.first_number() + number as u32
                    && was.previous == self.previous_of(number, &ids)
                    && was.counted == self.counted(view).count()
                    && was.last_activity == view.facts.last_activity
                    && was.ended_by == ended_by(&views, number)
            };
            let all_old = self.counted(view).all(|entry| origin[entry].is_some_and(|old| old_ids[old] == Some(id)));
            if !(all_old && before.iter().any(same)) {
                changed.push(id);
            }
        }
        let corrections = self.changes_of_id(old_ids, origin, &views, &ids);
        for id in changed {
            self.set_version(id);
        }
        if let Some(open) = &mut self.open {
            open.late.add(&merged);
            open.settle_counts();
        }
        self.seq += corrections.len() as u64;
        self.corrections.extend(corrections);
    }

    /// Returns the entries of a view without keep-alive events, which change nothing in a session but its last activity.
    fn counted(&self, view: &SessionView<'_>) -> impl Iterator<Item = usize> {
        (view.first..view.end).filter(|&entry| self.unfinalized[entry].kind != Kind::KeepAlive)
    }

    /// Returns the corrections for events that were already handed out: one for each run of events of an old session that now
    /// belongs to another session.
    fn changes_of_id(
        &self,
        old_ids: &[Option<Uuid>],
        origin: &[Option<usize>],
        views: &[SessionView<'_>],
        ids: &[Uuid],
    ) -> Vec<Correction> {
        let mut version = self.seq;
        let mut now_in: HashMap<Uuid, Uuid> = HashMap::new();
        // The finalized part of an open session always keeps its id.
        if let Some(open) = &self.open {
            now_in.insert(open.id, open.id);
        }
        let mut corrections = Vec::new();
        for (view, &id) in views.iter().zip(ids) {
            for (entry, from) in self.unfinalized.iter().zip(origin).take(view.end).skip(view.first) {
                let Some(was) = from.and_then(|old| old_ids[old]) else { continue };
                let last = now_in.insert(was, id);
                if last.unwrap_or(was) == id {
                    continue;
                }
                version += 1;
                corrections.push(match last {
                    None => Correction::Merged { from: was, into: id, version },
                    Some(from) => Correction::Split { from, into: id, at: entry.at, uuid: entry.uuid.clone(), version },
                });
            }
        }
        corrections
    }

    /// Sets the version of a session that is not over: this write changed it.
    pub(super) fn set_version(&mut self, id: Uuid) {
        let seq = self.seq;
        if let Some(open) = self.open.as_mut().filter(|open| open.id == id) {
            open.version = seq;
        }
        if let Some(anchor) = self.anchors.iter_mut().find(|anchor| anchor.id == id) {
            anchor.version = seq;
        }
    }
}

/// Gives a view its primary id: that of its finalized part, else the first anchor on its entries that is near enough to its
/// start, else a new id. The primary anchor is on the view's first entry, before other anchors on that entry.
///
/// Near enough means: the session begins at most the maximum duration before the time of the id. An archived session is found by
/// the time of its id, so that time must stay near the session, no matter how far earlier events move the start back.
fn primary(
    anchors: &mut Vec<SessionAnchor>,
    view: &SessionView<'_>,
    unfinalized: &[Entry],
    config: &SessionConfig,
    new: impl FnOnce(&Entry) -> Uuid,
) {
    if view.base.is_some() {
        return;
    }
    let at = anchors.partition_point(|anchor| anchor.entry < view.first);
    let end = anchors.partition_point(|anchor| anchor.entry < view.end);
    let is_near = |anchor: &SessionAnchor| id_time(anchor.id) - view.facts.started_at <= config.max_duration_ms();
    let primary = match anchors[at..end].iter().position(is_near) {
        Some(known) => SessionAnchor { entry: view.first, is_primary: true, ..anchors.remove(at + known) },
        None => {
            let id = new(&unfinalized[view.first]);
            SessionAnchor { entry: view.first, id, is_primary: true, version: 0, late: LateEvents::default() }
        }
    };
    anchors.insert(at, primary);
}

/// Moves the late events of merged ids to the view's primary id. A session that is split off later gets none of them, because no
/// consumer could tell which of them moved. If the view has a finalized part, which keeps the late events itself, returns them
/// instead.
fn gather_late(anchors: &mut [SessionAnchor], view: &SessionView<'_>) -> LateEvents {
    let mut gathered = LateEvents::default();
    let in_view = |anchor: &&mut SessionAnchor| (view.first..view.end).contains(&anchor.entry);
    for anchor in anchors.iter_mut().filter(in_view) {
        gathered.add(&std::mem::take(&mut anchor.late));
    }
    match anchors.iter_mut().find(|anchor| anchor.is_primary && anchor.entry == view.first && view.base.is_none()) {
        Some(primary) => {
            primary.late = gathered;
            LateEvents::default()
        }
        None => gathered,
    }
}

/// Returns the id of a session that begins with this event: the first one that is not taken, counting up from this salt.
pub(super) fn unused_id(
    visitor_bits: u64,
    at: Millis,
    event_uuid: &str,
    salt: u16,
    is_taken: impl Fn(Uuid) -> bool,
) -> Uuid {
    // A timeline rarely has more sessions of one millisecond than there are salts. If it does, the next millisecond is used.
    let mut ids =
        (at..).flat_map(|at| (salt..=salt + SALTS).map(move |salt| session_id(visitor_bits, at, event_uuid, salt)));
    let first = session_id(visitor_bits, at, event_uuid, salt);
    ids.find(|&id| !is_taken(id)).unwrap_or(first)
}

/// Returns the primary id of each view.
pub(super) fn primary_ids(anchors: &[SessionAnchor], views: &[SessionView<'_>]) -> Vec<Uuid> {
    let primary = |view: &SessionView<'_>| match view.base {
        Some(base) => base.id,
        None => anchors[anchors.partition_point(|anchor| anchor.entry < view.first)].id,
    };
    views.iter().map(primary).collect()
}
