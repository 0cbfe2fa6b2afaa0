//! Which id a session has: ids once given out stay, are merged into one another, or are split off again; and what that changes
//! for events already handed out.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::{Head, Notice, Timeline};
use crate::config::SessionConfig;
use crate::rules::{Draft, Entry, Kind, Late, Tally, fold};
use crate::session::{Millis, Reason, session_id};

/// Ids that one event can give, but for the first: twelve bits of a session's id are its own.
const SALTS: u16 = 0xfff;

/// A session that follows from the journal, before new events came.
pub(super) struct Before {
    id: Uuid,
    reason: Reason,
    number: u32,
    previous: Option<Uuid>,
    /// Its entries: `journal[first..end]`; and how many of them count.
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

    /// The sessions of the journal, after [`Timeline::realign`]; and whether that changed anything.
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
        let origin: Vec<Option<usize>> = (0..self.journal.len()).map(Some).collect();
        self.match_ids(&[], &old_ids, &origin, config);
        true
    }

    /// The session id under which each entry was handed out; none for a keep-alive event that was in none of the sessions `before`.
    fn handed_out(&self, before: &[Before]) -> Vec<Option<Uuid>> {
        let mut id = self.open.as_ref().map(|open| open.id);
        let mut heads = self.heads.iter().filter(|head| head.leads).peekable();
        let mut ids = Vec::with_capacity(self.journal.len());
        for entry in 0..self.journal.len() {
            if let Some(head) = heads.next_if(|head| head.entry == entry) {
                id = Some(head.id);
            }
            let holds = |session: &Before| (session.first..session.end).contains(&entry);
            // Which ones were in none under other rules, nobody knows any more.
            let is_outside =
                self.journal[entry].kind == Kind::KeepAlive && !before.is_empty() && !before.iter().any(holds);
            ids.push(id.filter(|_| !is_outside));
        }
        ids
    }

    /// The sessions of the journal as they are; none if the rules are not those that gave them their ids.
    fn before(&self, config: &SessionConfig) -> Option<Vec<Before>> {
        let drafts = fold(self.previous.as_ref(), self.open.as_ref(), &self.journal, config);
        let begins = drafts.iter().filter(|draft| draft.base.is_none()).map(|draft| draft.first);
        if begins.ne(self.heads.iter().filter(|head| head.leads).map(|head| head.entry)) {
            return None;
        }
        let ids = lead_ids(&self.heads, &drafts);
        let before = |(number, draft): (usize, &Draft<'_>)| Before {
            id: ids[number],
            reason: draft.reason,
            number: self.first_number() + number as u32,
            previous: self.previous_of(number, &ids),
            first: draft.first,
            end: draft.end,
            counted: self.counted(draft).count(),
            last_activity: draft.last_activity,
        };
        Some(drafts.iter().enumerate().map(before).collect())
    }

    /// Gives the sessions of the journal their ids, those that changed their version, and takes note of what changes for
    /// events already handed out. `origin` says of each entry which one it was before.
    fn match_ids(
        &mut self,
        before: &[Before],
        old_ids: &[Option<Uuid>],
        origin: &[Option<usize>],
        config: &SessionConfig,
    ) {
        let drafts = fold(self.previous.as_ref(), self.open.as_ref(), &self.journal, config);
        let bits = self.visitor.bits();
        let settled = self.ended.iter().chain(&self.open).flat_map(Tally::ids);
        // A set: there may be thousands, and thousands of new ids to find.
        let mut taken: HashSet<Uuid> = settled.chain(self.heads.iter().map(|head| head.id)).collect();
        self.heads.iter_mut().for_each(|head| head.leads = false);
        let mut merged = Late::default();
        for draft in &drafts {
            // What an event that is known led before may be archived by now, where it cannot be seen: this write's number tells
            // it apart. (Over so many writes that it comes again no event stays unsettled.)
            let is_known = origin.get(draft.first).is_some_and(Option::is_some);
            let salt = if is_known { 1 + (self.seq % u64::from(SALTS)) as u16 } else { 0 };
            lead(&mut self.heads, draft, &self.journal, config, |first| {
                let id = unused_id(bits, first.at, &first.uuid, salt, |id| taken.contains(&id));
                taken.insert(id);
                id
            });
            let late = gather_late(&mut self.heads, draft);
            if draft.base.is_some() {
                merged = late;
            }
        }
        let ids = lead_ids(&self.heads, &drafts);
        let mut moved = Vec::new();
        for (number, draft) in drafts.iter().enumerate() {
            let id = ids[number];
            let same = |was: &Before| {
                was.id == id
                    && was.reason == draft.reason
                    && was.number == self.first_number() + number as u32
                    && was.previous == self.previous_of(number, &ids)
                    && was.counted == self.counted(draft).count()
                    && was.last_activity == draft.last_activity
            };
            let all_old = self.counted(draft).all(|entry| origin[entry].is_some_and(|old| old_ids[old] == Some(id)));
            if !(all_old && before.iter().any(same)) {
                moved.push(id);
            }
        }
        let notices = self.changes_of_id(old_ids, origin, &drafts, &ids);
        for id in moved {
            self.set_version(id);
        }
        if let Some(open) = &mut self.open {
            open.late.add(&merged);
        }
        self.seq += notices.len() as u64;
        self.notices.extend(notices);
    }

    /// The entries of a draft, but for keep-alive events: of those a session keeps nothing but the last activity.
    fn counted(&self, draft: &Draft<'_>) -> impl Iterator<Item = usize> {
        (draft.first..draft.end).filter(|&entry| self.journal[entry].kind != Kind::KeepAlive)
    }

    /// What changes for events already handed out: the runs of each old session that now lie in another one.
    fn changes_of_id(
        &self,
        old_ids: &[Option<Uuid>],
        origin: &[Option<usize>],
        drafts: &[Draft<'_>],
        ids: &[Uuid],
    ) -> Vec<Notice> {
        let mut version = self.seq;
        let mut now_in: HashMap<Uuid, Uuid> = HashMap::new();
        // The settled part of an open session keeps its id, whatever comes.
        if let Some(open) = &self.open {
            now_in.insert(open.id, open.id);
        }
        let mut notices = Vec::new();
        for (draft, &id) in drafts.iter().zip(ids) {
            for (entry, from) in self.journal.iter().zip(origin).take(draft.end).skip(draft.first) {
                let Some(was) = from.and_then(|old| old_ids[old]) else { continue };
                let last = now_in.insert(was, id);
                if last.unwrap_or(was) == id {
                    continue;
                }
                version += 1;
                notices.push(match last {
                    None => Notice::Merged { from: was, into: id, version },
                    Some(from) => Notice::Split { from, into: id, at: entry.at, uuid: entry.uuid.clone(), version },
                });
            }
        }
        notices
    }

    /// Marks a session that is not over as changed by this write.
    pub(super) fn set_version(&mut self, id: Uuid) {
        let seq = self.seq;
        if let Some(open) = self.open.as_mut().filter(|open| open.id == id) {
            open.version = seq;
        }
        if let Some(head) = self.heads.iter_mut().find(|head| head.id == id) {
            head.version = seq;
        }
    }
}

/// Gives a draft its leading id: that of its settled part, else the first of the ids that stand on its entries and are not too
/// far from its first one, else a new one. The leader stands on the draft's first entry, before others that stand there.
///
/// An id is found by its time once its session is archived. So it leads no session that begins more than the maximum
/// duration before that time, however far earlier events move the beginning back.
fn lead(
    heads: &mut Vec<Head>,
    draft: &Draft<'_>,
    journal: &[Entry],
    config: &SessionConfig,
    new: impl FnOnce(&Entry) -> Uuid,
) {
    if draft.base.is_some() {
        return;
    }
    let at = heads.partition_point(|head| head.entry < draft.first);
    let end = heads.partition_point(|head| head.entry < draft.end);
    let is_near = |head: &Head| id_time(head.id) - draft.started_at <= config.max_duration_ms();
    let leader = match heads[at..end].iter().position(is_near) {
        Some(known) => Head { entry: draft.first, leads: true, ..heads.remove(at + known) },
        None => {
            let id = new(&journal[draft.first]);
            Head { entry: draft.first, id, leads: true, version: 0, late: Late::default() }
        }
    };
    heads.insert(at, leader);
}

/// The time of a session id.
fn id_time(id: Uuid) -> Millis {
    (id.as_u128() >> 80) as Millis
}

/// Moves the late events of ids that were merged to the leading one: what is split off later takes none of them along, as no
/// consumer could tell which. Returns those of a session with a settled part, whose late events stand there.
fn gather_late(heads: &mut [Head], draft: &Draft<'_>) -> Late {
    let mut gathered = Late::default();
    let in_draft = |head: &&mut Head| (draft.first..draft.end).contains(&head.entry);
    for head in heads.iter_mut().filter(in_draft) {
        gathered.add(&std::mem::take(&mut head.late));
    }
    match heads.iter_mut().find(|head| head.leads && head.entry == draft.first && draft.base.is_none()) {
        Some(leader) => {
            leader.late = gathered;
            Late::default()
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

/// The leading id of each draft.
pub(super) fn lead_ids(heads: &[Head], drafts: &[Draft<'_>]) -> Vec<Uuid> {
    let lead = |draft: &Draft<'_>| match draft.base {
        Some(base) => base.id,
        None => heads[heads.partition_point(|head| head.entry < draft.first)].id,
    };
    drafts.iter().map(lead).collect()
}
