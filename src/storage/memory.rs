//! A store in memory, for development and tests. It is as strict as the one in DynamoDB. Each method runs under one lock.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use super::{
    Commit, CommitOutcome, Due, ENDLESS_MERGES, Erased, Found, MAX_MERGES, Partition, Reading, SessionError,
    SessionStorage, Stored, due_shard,
};
use crate::model::{FingerprintPage, SessionState};
use crate::session::{Millis, Visitor, visitor_bits};
use crate::stored::{FORMAT, decode_page, decode_session, decode_timeline, encode_item, encode_page, encode_session};

/// A store in memory. It keeps the bytes that DynamoDB would store, so that what cannot be stored there fails here, too.
#[derive(Debug, Default)]
pub struct InMemorySessionStorage {
    items: Mutex<Items>,
}

#[derive(Debug, Clone, Default)]
struct Items {
    timelines: BTreeMap<Visitor, TimelineItem>,
    /// The index of due timelines: shard, due time, visitor.
    due: BTreeSet<(u8, Millis, Visitor)>,
    /// The archived sessions and aliases.
    sessions: BTreeMap<SessionKey, SessionItem>,
    /// The pages in their stored form.
    pages: BTreeMap<PageKey, Vec<u8>>,
}

#[derive(Debug, Clone)]
struct TimelineItem {
    /// The visitor's bits.
    bits: u64,
    etag: u64,
    due_at: Option<Millis>,
    bytes: Vec<u8>,
}

/// The key of an archived session or alias: its visitor's bits, its id, its visitor. Two visitors with equal bits may have a
/// session with the same id.
type SessionKey = (u64, Uuid, Visitor);

/// The key of a page: its visitor, its session, whether its events were late, and its number.
type PageKey = (Visitor, Uuid, bool, u32);

#[derive(Debug, Clone)]
struct SessionItem {
    version: u64,
    content: Archived,
}

/// The content of an archived item.
#[derive(Debug, Clone)]
enum Archived {
    /// A session in its stored form.
    Session(Vec<u8>),
    /// An alias, with the id that it refers to.
    MergedInto(Uuid),
}

/// A copy holds the items as they are now, like a backup.
impl Clone for InMemorySessionStorage {
    fn clone(&self) -> Self {
        Self { items: Mutex::new(self.items().clone()) }
    }
}

impl InMemorySessionStorage {
    /// Returns an empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn items(&self) -> MutexGuard<'_, Items> {
        // A panic of another thread leaves no partial change, because each method changes the items in one step.
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TimelineItem {
    fn stored(&self, visitor: &Visitor) -> Result<Stored, SessionError> {
        let mut timeline = decode_timeline(FORMAT, &self.bytes, visitor.clone())
            .map_err(|error| SessionError::unreadable(format!("{:016x}/t", visitor.bits()), &error))?;
        timeline.due_at = self.due_at;
        Ok(Stored { timeline, etag: self.etag })
    }
}

impl SessionStorage for InMemorySessionStorage {
    async fn load(&self, visitors: &[Visitor], _reading: Reading) -> Vec<Result<Option<Stored>, SessionError>> {
        let items = self.items();
        let stored = |visitor| items.timelines.get(visitor).map(|item| item.stored(visitor)).transpose();
        visitors.iter().map(stored).collect()
    }

    async fn commit(&self, commit: Commit<'_>) -> Result<CommitOutcome, SessionError> {
        let visitor = &commit.timeline.visitor;
        let bytes = encode_item(commit.timeline, commit.room).ok_or(SessionError::Full)?;
        let item = TimelineItem { bits: visitor.bits(), etag: commit.etag, due_at: commit.timeline.due_at, bytes };
        let mut items = self.items();
        let current = items.timelines.get(visitor);
        if current.map(|current| current.etag) != commit.replaces {
            if current.is_some_and(|current| current.etag == commit.etag) {
                return Ok(CommitOutcome::Done);
            }
            let stored = current.map(|current| current.stored(visitor)).transpose()?;
            return Ok(CommitOutcome::Conflict(stored.map(Box::new)));
        }
        let shard = due_shard(visitor);
        if let Some(due_at) = current.and_then(|current| current.due_at) {
            items.due.remove(&(shard, due_at, visitor.clone()));
        }
        if let Some(due_at) = item.due_at {
            items.due.insert((shard, due_at, visitor.clone()));
        }
        items.timelines.insert(visitor.clone(), item);
        Ok(CommitOutcome::Done)
    }

    async fn load_within(&self, visitors: &[Visitor], max_bytes: usize) -> Vec<Result<Option<Found>, SessionError>> {
        let items = self.items();
        let found = |visitor| match items.timelines.get(visitor) {
            Some(item) if item.bytes.len() > max_bytes => Ok(Some(Found::TooLarge)),
            Some(item) => Ok(Some(Found::Timeline(item.stored(visitor)?))),
            None => Ok(None),
        };
        visitors.iter().map(found).collect()
    }

    async fn due(&self, shard: u8, after: Option<&Due>, now: Millis, limit: usize) -> Result<Vec<Due>, SessionError> {
        let items = self.items();
        let first = (shard, Millis::MIN, Visitor::new(""));
        let from = match after {
            Some(due) => Bound::Excluded((shard, due.due_at, due.visitor.clone())),
            None => Bound::Included(first),
        };
        let until = Bound::Excluded((shard.saturating_add(1), Millis::MIN, Visitor::new("")));
        let due = items.due.range((from, until)).take_while(|(_, due_at, _)| *due_at <= now).take(limit);
        Ok(due.map(|(_, due_at, visitor)| Due { visitor: visitor.clone(), due_at: *due_at }).collect())
    }

    async fn archive(
        &self,
        visitor: &Visitor,
        session: &SessionState,
        _expires_at: Millis,
    ) -> Result<(), SessionError> {
        let version = session.version;
        let mut items = self.items();
        let content = Archived::Session(encode_session(session));
        if !items.put(visitor, session.id, SessionItem { version, content }) {
            return Ok(());
        }
        for &alias in &session.aliases {
            items.put(visitor, alias, SessionItem { version, content: Archived::MergedInto(session.id) });
        }
        Ok(())
    }

    async fn archived(&self, visitor: &Visitor, from: Millis, to: Millis) -> Result<Vec<SessionState>, SessionError> {
        let bits = visitor.bits();
        let items = self.items();
        let mut found = Vec::new();
        let partition = items.sessions.range((bits, Uuid::nil(), Visitor::new(""))..);
        for ((_, id, owner), item) in partition.take_while(|((of, _, _), _)| *of == bits) {
            let began = (id.as_u128() >> 80) as Millis;
            if let Archived::Session(bytes) = &item.content
                && owner == visitor
                && (from..=to).contains(&began)
            {
                found.push(read_session(*id, bytes)?);
            }
        }
        Ok(found)
    }

    async fn put_pages(
        &self,
        visitor: &Visitor,
        pages: &[FingerprintPage],
        _expires_at: Option<Millis>,
    ) -> Result<(), SessionError> {
        let mut items = self.items();
        for page in pages {
            let key = (visitor.clone(), page.session_id, page.is_late, page.number);
            items.pages.insert(key, encode_page(page));
        }
        Ok(())
    }

    async fn pages(&self, visitor: &Visitor, session_id: Uuid) -> Result<Vec<FingerprintPage>, SessionError> {
        let items = self.items();
        let first = (visitor.clone(), session_id, false, 0);
        let of_session = items.pages.range(first..).take_while(|((of, id, ..), _)| of == visitor && *id == session_id);
        let page = |((_, _, is_late, number), bytes): (&PageKey, &Vec<u8>)| {
            let fingerprints =
                decode_page(FORMAT, bytes).map_err(|error| SessionError::unreadable(item_name(session_id), &error))?;
            Ok(FingerprintPage { session_id, is_late: *is_late, number: *number, fingerprints })
        };
        of_session.map(page).collect()
    }

    async fn find(&self, session_id: Uuid) -> Result<Partition, SessionError> {
        let bits = visitor_bits(session_id);
        let items = self.items();
        let mut timelines = Vec::new();
        for (visitor, item) in items.timelines.iter().filter(|(_, item)| item.bits == bits) {
            timelines.push(item.stored(visitor)?.timeline);
        }
        let mut archived = Vec::new();
        let under_id = items.sessions.range((bits, session_id, Visitor::new(""))..);
        for ((_, _, owner), _) in under_id.take_while(|((_, id, _), _)| *id == session_id) {
            if let Some(session) = items.follow(session_id, owner)? {
                archived.push((owner.clone(), session));
            }
        }
        Ok(Partition { timelines, archived })
    }

    async fn erase(&self, visitor: &Visitor) -> Result<Erased, SessionError> {
        let mut items = self.items();
        let mut erased = Erased::default();
        if let Some(timeline) = items.timelines.remove(visitor) {
            erased.timelines = 1;
            if let Some(due_at) = timeline.due_at {
                items.due.remove(&(due_shard(visitor), due_at, visitor.clone()));
            }
        }
        items.sessions.retain(|(_, _, owner), item| {
            let is_own = owner == visitor;
            match item.content {
                Archived::Session(_) => erased.archived_sessions += usize::from(is_own),
                Archived::MergedInto(_) => erased.merged_ids += usize::from(is_own),
            }
            !is_own
        });
        let pages = items.pages.len();
        items.pages.retain(|(owner, ..), _| owner != visitor);
        erased.pages = pages - items.pages.len();
        Ok(erased)
    }
}

impl Items {
    /// Puts an item, unless the owner has one with this id and a higher version. Returns whether the item was put.
    fn put(&mut self, owner: &Visitor, id: Uuid, item: SessionItem) -> bool {
        let key = (owner.bits(), id, owner.clone());
        let is_newest = self.sessions.get(&key).is_none_or(|current| current.version <= item.version);
        if is_newest {
            self.sessions.insert(key, item);
        }
        is_newest
    }

    /// Returns the owner's archived session with this id, or the session that an alias leads to. Returns `None` if there is none.
    fn follow(&self, mut id: Uuid, owner: &Visitor) -> Result<Option<SessionState>, SessionError> {
        for _ in 0..=MAX_MERGES {
            match self.sessions.get(&(owner.bits(), id, owner.clone())).map(|item| &item.content) {
                None => return Ok(None),
                Some(Archived::Session(bytes)) => return read_session(id, bytes).map(Some),
                Some(Archived::MergedInto(into)) => id = *into,
            }
        }
        Err(SessionError::Corrupt { item: item_name(id), reason: ENDLESS_MERGES.to_owned() })
    }
}

fn read_session(id: Uuid, bytes: &[u8]) -> Result<SessionState, SessionError> {
    decode_session(FORMAT, bytes, visitor_bits(id)).map_err(|error| SessionError::unreadable(item_name(id), &error))
}

/// Returns the name of a session's item in errors: its partition key, and the half of its id that is not the partition key.
fn item_name(id: Uuid) -> String {
    let (half, bits) = id.as_u64_pair();
    format!("{bits:016x}/s#{half:016x}")
}
