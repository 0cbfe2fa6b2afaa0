//! A store in memory, for development and tests: as strict as the real one, each step under one lock.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use super::{Commit, Committed, Due, Partition, Reading, SessionError, SessionStorage, Stored, due_shard};
use crate::rules::Tally;
use crate::session::{Millis, Visitor, visitor_bits};
use crate::stored::{FORMAT, MAX_ITEM_BYTES, decode_session, decode_timeline, encode_session, encode_timeline};

/// Keeps items as the bytes that the real store would keep, so that what cannot be stored fails here too.
#[derive(Debug, Default)]
pub struct InMemorySessionStorage {
    items: Mutex<Items>,
}

#[derive(Debug, Default)]
struct Items {
    timelines: BTreeMap<Visitor, TimelineItem>,
    /// By the visitor's bits, then the session id.
    sessions: BTreeMap<(u64, Uuid), SessionItem>,
}

#[derive(Debug, Clone)]
struct TimelineItem {
    etag: u64,
    due_at: Option<Millis>,
    bytes: Vec<u8>,
}

#[derive(Debug, Clone)]
enum SessionItem {
    Session { visitor: Visitor, version: u64, bytes: Vec<u8> },
    MergedInto(Uuid),
}

impl InMemorySessionStorage {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn items(&self) -> MutexGuard<'_, Items> {
        // A panic elsewhere leaves no half-made change: each method changes the items in one step.
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TimelineItem {
    fn stored(&self, visitor: &Visitor) -> Result<Stored, SessionError> {
        let mut timeline = decode_timeline(FORMAT, &self.bytes, visitor.clone())
            .map_err(|e| SessionError::Corrupt { item: format!("{:016x}", visitor.bits()), reason: e.to_string() })?;
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

    async fn commit(&self, commit: Commit<'_>) -> Result<Committed, SessionError> {
        let visitor = &commit.timeline.visitor;
        let item =
            TimelineItem { etag: commit.etag, due_at: commit.timeline.due_at, bytes: encode_timeline(commit.timeline) };
        if item.bytes.len() > MAX_ITEM_BYTES {
            return Err(SessionError::Full);
        }
        let mut items = self.items();
        let current = items.timelines.get(visitor);
        if current.is_some_and(|current| current.etag == commit.etag) {
            return Ok(Committed::Done);
        }
        if current.map(|current| current.etag) != commit.replaces {
            let stored = current.map(|current| current.stored(visitor)).transpose()?;
            return Ok(Committed::Lost(stored.map(Box::new)));
        }
        items.timelines.insert(visitor.clone(), item);
        Ok(Committed::Done)
    }

    async fn due(&self, shard: u8, from: Millis, now: Millis, limit: usize) -> Result<Vec<Due>, SessionError> {
        let items = self.items();
        let due = items.timelines.iter().filter_map(|(visitor, item)| {
            let due_at = item.due_at.filter(|due_at| (from..=now).contains(due_at) && due_shard(visitor) == shard)?;
            Some(Due { visitor: visitor.clone(), due_at })
        });
        let mut due: Vec<Due> = due.collect();
        due.sort_by_key(|due| due.due_at);
        due.truncate(limit);
        Ok(due)
    }

    async fn archive(&self, visitor: &Visitor, session: &Tally, _expires_at: Millis) -> Result<(), SessionError> {
        let (bits, version) = (visitor.bits(), session.version);
        let mut items = self.items();
        let newer =
            |item: &SessionItem| matches!(item, SessionItem::Session { version: other, .. } if *other > version);
        if items.sessions.get(&(bits, session.id)).is_some_and(newer) {
            return Ok(());
        }
        let item = SessionItem::Session { visitor: visitor.clone(), version, bytes: encode_session(session) };
        items.sessions.insert((bits, session.id), item);
        for &alias in &session.aliases {
            items.sessions.insert((bits, alias), SessionItem::MergedInto(session.id));
        }
        Ok(())
    }

    async fn archived(&self, visitor: &Visitor, from: Millis, to: Millis) -> Result<Vec<Tally>, SessionError> {
        let bits = visitor.bits();
        let items = self.items();
        let mut found = Vec::new();
        for ((_, id), item) in items.sessions.range((bits, Uuid::nil())..=(bits, Uuid::max())) {
            let SessionItem::Session { visitor: owner, bytes, .. } = item else { continue };
            let began = (id.as_u128() >> 80) as Millis;
            if owner == visitor && (from..=to).contains(&began) {
                found.push(session_of(bits, *id, bytes)?);
            }
        }
        Ok(found)
    }

    async fn find(&self, session_id: Uuid) -> Result<Partition, SessionError> {
        let bits = visitor_bits(session_id);
        let items = self.items();
        let mut timelines = Vec::new();
        for (visitor, item) in items.timelines.iter().filter(|(visitor, _)| visitor.bits() == bits) {
            timelines.push(item.stored(visitor)?.timeline);
        }
        let mut id = session_id;
        if let Some(SessionItem::MergedInto(into)) = items.sessions.get(&(bits, id)) {
            id = *into;
        }
        let archived = match items.sessions.get(&(bits, id)) {
            Some(SessionItem::Session { visitor, bytes, .. }) => Some((visitor.clone(), session_of(bits, id, bytes)?)),
            _ => None,
        };
        Ok(Partition { timelines, archived })
    }
}

fn session_of(bits: u64, id: Uuid, bytes: &[u8]) -> Result<Tally, SessionError> {
    decode_session(FORMAT, bytes, bits)
        .map_err(|e| SessionError::Corrupt { item: format!("{bits:016x}/{id}"), reason: e.to_string() })
}
