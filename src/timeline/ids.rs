//! Which id a session has: ids once given out stay, are merged into one another, or are split off again; and what that changes
//! for events already handed out.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::{Correction, SessionAnchor, Timeline};
use crate::config::SessionConfig;
use crate::model::{Entry, Kind, LateEvents, SessionState, SessionView};
use crate::rules::fold;
use crate::session::{Millis, Reason, session_id};

/// Ids that one event can give, but for the first: twelve bits of a session's id are its own.
const SALTS: u16 = 0xfff;

/// A session that follows from the unfinalized events, before new events came.
pub(super) struct Before {
    id: Uuid,
    reason: Reason,
    number: u32,
    previous: Option<Uuid>,
    /// Its entries: `unfinalized events[first..end]`; and how many of them count.
    first: usize,
    end: usize,
    counted: usize,
    last_activity: Millis,
}

impl Timeline {
    /// Inserts new entries, folds again, matches the sessions to the ids already given out.
    pub(super) fn insert(&mut self, fresh: Vec<Entry>, before: &[Before], config: &SessionConfig) {
        let old_ids = self.handed_out(before);
        let origin = self.merge(fresh);
        self.match_ids(before, &old_ids, &origin, config);
    }

    /// The sessions of the unfinalized events, after [`Timeline::realign`]; and whether that changed anything.
    pub(super) fn aligned(&mut self, config: &SessionConfig) -> (Vec<Before>, bool) {
        match self.before(config) {
            Some(before) => (before, false),
            None => {
                self.realign(config);
                (self.before(config).unwrap_or_default(), true)
            }
        }
    }

    /// Matches the sessions to the ids already given out where the rules are others than those that gave them: a timeline
    /// outlives a deployment. Says whether anything changed.
    pub(super) fn realign(&mut self, config: &SessionConfig) -> bool {
        if self.before(config).is_some() {
            return false;
        }
        self.seq += 1;
        let old_ids = self.handed_out(&[]);
        let origin: Vec<Option<usize>> = (0..self.unfinalized.len()).map(Some).collect();
        self.match_ids(&[], &old_ids, &origin, config);
        true
    }

    /// The session id under which each entry was handed out; none for a keep-alive event that was in none of the sessions `before`.
    fn handed_out(&self, before: &[Before]) -> Vec<Option<Uuid>> {
        let mut id = self.open.as_ref().map(|open| open.id);
        let mut anchors = self.anchors.iter().filter(|anchor| anchor.is_primary).peekable();
        let mut ids = Vec::with_capacity(self.unfinalized.len());
        for entry in 0..self.unfinalized.len() {
            if let Some(anchor) = anchors.next_if(|anchor| anchor.entry == entry) {
                id = Some(anchor.id);
            }
            let holds = |session: &Before| (session.first..session.end).contains(&entry);
            // Which ones were in none under other rules, nobody knows any more.
            let is_outside =
                self.unfinalized[entry].kind == Kind::KeepAlive && !before.is_empty() && !before.iter().any(holds);
            ids.push(id.filter(|_| !is_outside));
        }
        ids
    }

    /// The sessions of the unfinalized events as they are; none if the rules are not those that gave them their ids.
    fn before(&self, config: &SessionConfig) -> Option<Vec<Before>> {
        let views = fold(self.previous.as_ref(), self.open.as_ref(), &self.unfinalized, config);
        let begins = views.iter().filter(|view| view.base.is_none()).map(|view| view.first);
        if begins.ne(self.anchors.iter().filter(|anchor| anchor.is_primary).map(|anchor| anchor.entry)) {
            return None;
        }
        let ids = primary_ids(&self.anchors, &views);
        let before = |(number, view): (usize, &SessionView<'_>)| Before {
            id: ids[number],
            reason: view.facts.reason,
            number: self.first_number() + number as u32,
            previous: self.previous_of(number, &ids),
            first: view.first,
            end: view.end,
            counted: self.counted(view).count(),
            last_activity: view.facts.last_activity,
        };
        Some(views.iter().enumerate().map(before).collect())
    }

    /// Gives the sessions of the unfinalized events their ids, those that changed their version, and takes note of what changes for
    /// events already handed out. `origin` says of each entry which one it was before.
    fn match_ids(
        &mut self,
        before: &[Before],
        old_ids: &[Option<Uuid>],
        origin: &[Option<usize>],
        config: &SessionConfig,
    ) {
        let views = fold(self.previous.as_ref(), self.open.as_ref(), &self.unfinalized, config);
        let bits = self.visitor.bits();
        let finalized = self.ended.iter().chain(&self.open).flat_map(SessionState::ids);
        // A set: there may be thousands, and thousands of new ids to find.
        let mut taken: HashSet<Uuid> = finalized.chain(self.anchors.iter().map(|anchor| anchor.id)).collect();
        self.anchors.iter_mut().for_each(|anchor| anchor.is_primary = false);
        let mut merged = LateEvents::default();
        for view in &views {
            // What an event that is known led before may be archived by now, where it cannot be seen: this write's number tells
            // it apart. (Over so many writes that it comes again no event stays unfinalized.)
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
        let mut moved = Vec::new();
        for (number, view) in views.iter().enumerate() {
            let id = ids[number];
            let same = |was: &Before| {
                was.id == id
                    && was.reason == view.facts.reason
                    && was.number == self.first_number() + number as u32
                    && was.previous == self.previous_of(number, &ids)
                    && was.counted == self.counted(view).count()
                    && was.last_activity == view.facts.last_activity
            };
            let all_old = self.counted(view).all(|entry| origin[entry].is_some_and(|old| old_ids[old] == Some(id)));
            if !(all_old && before.iter().any(same)) {
                moved.push(id);
            }
        }
        let corrections = self.changes_of_id(old_ids, origin, &views, &ids);
        for id in moved {
            self.set_version(id);
        }
        if let Some(open) = &mut self.open {
            open.late.add(&merged);
        }
        self.seq += corrections.len() as u64;
        self.corrections.extend(corrections);
    }

    /// The entries of a view, but for keep-alive events: of those a session keeps nothing but the last activity.
    fn counted(&self, view: &SessionView<'_>) -> impl Iterator<Item = usize> {
        (view.first..view.end).filter(|&entry| self.unfinalized[entry].kind != Kind::KeepAlive)
    }

    /// What changes for events already handed out: the runs of each old session that now lie in another one.
    fn changes_of_id(
        &self,
        old_ids: &[Option<Uuid>],
        origin: &[Option<usize>],
        views: &[SessionView<'_>],
        ids: &[Uuid],
    ) -> Vec<Correction> {
        let mut version = self.seq;
        let mut now_in: HashMap<Uuid, Uuid> = HashMap::new();
        // The finalized part of an open session keeps its id, whatever comes.
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

    /// Marks a session that is not over as changed by this write.
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

/// Gives a view its leading id: that of its finalized part, else the first of the ids that stand on its entries and are not too
/// far from its first one, else a new one. The primary stands on the view's first entry, before others that stand there.
///
/// An id is found by its time once its session is archived. So it is primary no session that begins more than the maximum
/// duration before that time, however far earlier events move the beginning back.
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

/// The time of a session id.
fn id_time(id: Uuid) -> Millis {
    (id.as_u128() >> 80) as Millis
}

/// Moves the late events of ids that were merged to the leading one: what is split off later takes none of them along, as no
/// consumer could tell which. Returns those of a session with a finalized part, whose late events stand there.
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

/// The id of a session that begins with this event: from this salt on, the first that no other session has.
pub(super) fn unused_id(
    visitor_bits: u64,
    at: Millis,
    event_uuid: &str,
    salt: u16,
    is_taken: impl Fn(Uuid) -> bool,
) -> Uuid {
    // A timeline rarely holds more sessions of one millisecond than there are salts; for more, the ids are of the next one.
    let mut ids =
        (at..).flat_map(|at| (salt..=salt + SALTS).map(move |salt| session_id(visitor_bits, at, event_uuid, salt)));
    let first = session_id(visitor_bits, at, event_uuid, salt);
    ids.find(|&id| !is_taken(id)).unwrap_or(first)
}

/// The leading id of each view.
pub(super) fn primary_ids(anchors: &[SessionAnchor], views: &[SessionView<'_>]) -> Vec<Uuid> {
    let primary = |view: &SessionView<'_>| match view.base {
        Some(base) => base.id,
        None => anchors[anchors.partition_point(|anchor| anchor.entry < view.first)].id,
    };
    views.iter().map(primary).collect()
}
