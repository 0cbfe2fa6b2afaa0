//! A table that can be down, and that can be restored to an earlier state.

use std::sync::Mutex;

use session_tracking::model::{FingerprintPage, SessionState};
use session_tracking::session::{Millis, Visitor};
use session_tracking::storage::{
    Commit, CommitOutcome, Due, Erased, Found, InMemorySessionStorage, Partition, Reading, SessionError,
    SessionStorage, StorageErrorKind, Stored,
};
use uuid::Uuid;

#[derive(Debug, Default)]
pub struct Table {
    is_down: Mutex<bool>,
    items: Mutex<std::sync::Arc<InMemorySessionStorage>>,
}

fn down() -> SessionError {
    SessionError::storage(StorageErrorKind::TimedOut, "the table is down")
}

impl Table {
    pub fn set_down(&self, is_down: bool) {
        *self.is_down.lock().unwrap() = is_down;
    }

    /// Returns a copy of all items, as a backup holds them.
    pub fn backup(&self) -> InMemorySessionStorage {
        InMemorySessionStorage::clone(&self.items.lock().unwrap())
    }

    /// Puts a backup in the place of all items.
    pub fn restore(&self, backup: InMemorySessionStorage) {
        *self.items.lock().unwrap() = backup.into();
    }

    /// Returns the items, if the table is not down.
    fn up(&self) -> Result<std::sync::Arc<InMemorySessionStorage>, SessionError> {
        if *self.is_down.lock().unwrap() { Err(down()) } else { Ok(self.items.lock().unwrap().clone()) }
    }
}

impl SessionStorage for Table {
    async fn load(&self, visitors: &[Visitor], reading: Reading) -> Vec<Result<Option<Stored>, SessionError>> {
        match self.up() {
            Ok(items) => items.load(visitors, reading).await,
            Err(_) => visitors.iter().map(|_| Err(down())).collect(),
        }
    }

    async fn load_within(&self, visitors: &[Visitor], max_bytes: usize) -> Vec<Result<Option<Found>, SessionError>> {
        match self.up() {
            Ok(items) => items.load_within(visitors, max_bytes).await,
            Err(_) => visitors.iter().map(|_| Err(down())).collect(),
        }
    }

    async fn commit(&self, commit: Commit<'_>) -> Result<CommitOutcome, SessionError> {
        self.up()?.commit(commit).await
    }

    async fn due(&self, shard: u8, after: Option<&Due>, now: Millis, limit: usize) -> Result<Vec<Due>, SessionError> {
        self.up()?.due(shard, after, now, limit).await
    }

    async fn archive(&self, visitor: &Visitor, session: &SessionState, expires_at: Millis) -> Result<(), SessionError> {
        self.up()?.archive(visitor, session, expires_at).await
    }

    async fn archived(&self, visitor: &Visitor, from: Millis, to: Millis) -> Result<Vec<SessionState>, SessionError> {
        self.up()?.archived(visitor, from, to).await
    }

    async fn put_pages(
        &self,
        visitor: &Visitor,
        pages: &[FingerprintPage],
        expires_at: Option<Millis>,
    ) -> Result<(), SessionError> {
        self.up()?.put_pages(visitor, pages, expires_at).await
    }

    async fn pages(&self, visitor: &Visitor, session_id: Uuid) -> Result<Vec<FingerprintPage>, SessionError> {
        self.up()?.pages(visitor, session_id).await
    }

    async fn find(&self, session_id: Uuid) -> Result<Partition, SessionError> {
        self.up()?.find(session_id).await
    }

    async fn erase(&self, visitor: &Visitor) -> Result<Erased, SessionError> {
        self.up()?.erase(visitor).await
    }
}
