//! A store that records the size of each timeline that it writes.

use std::sync::{Arc, Mutex};

use session_tracking::model::{FingerprintPage, SessionState};
use session_tracking::session::{Millis, Visitor};
use session_tracking::storage::{
    Commit, CommitOutcome, Due, Erased, Partition, Reading, SessionError, SessionStorage, Stored,
};
use session_tracking::stored::encode_timeline;

/// The bytes of a timeline's item without its sort key and stored form, as DynamoDB counts them: the names of its attributes
/// (40), the partition key (16), version (2), etag (8), times (8 and 8) and shard (1).
const FIXED_BYTES: usize = 83;

/// A store that records sizes.
pub struct SizeRecordingStore<S> {
    /// The store that is used.
    pub storage: S,
    /// The bytes of each timeline that was written.
    pub sizes: Arc<Mutex<Vec<usize>>>,
}

impl<S: SessionStorage> SessionStorage for SizeRecordingStore<S> {
    async fn load(&self, visitors: &[Visitor], reading: Reading) -> Vec<Result<Option<Stored>, SessionError>> {
        self.storage.load(visitors, reading).await
    }

    async fn commit(&self, commit: Commit<'_>) -> Result<CommitOutcome, SessionError> {
        let visitor = &commit.timeline.visitor;
        let key = "t##".len() + visitor.project.len() + visitor.distinct_id.len();
        if let Ok(mut sizes) = self.sizes.lock() {
            sizes.push(FIXED_BYTES + key + encode_timeline(commit.timeline).len());
        }
        self.storage.commit(commit).await
    }

    async fn due(&self, shard: u8, after: Option<&Due>, now: Millis, limit: usize) -> Result<Vec<Due>, SessionError> {
        self.storage.due(shard, after, now, limit).await
    }

    async fn archive(&self, visitor: &Visitor, session: &SessionState, expires_at: Millis) -> Result<(), SessionError> {
        self.storage.archive(visitor, session, expires_at).await
    }

    async fn archived(&self, visitor: &Visitor, from: Millis, to: Millis) -> Result<Vec<SessionState>, SessionError> {
        self.storage.archived(visitor, from, to).await
    }

    async fn put_pages(
        &self,
        visitor: &Visitor,
        pages: &[FingerprintPage],
        expires_at: Option<Millis>,
    ) -> Result<(), SessionError> {
        self.storage.put_pages(visitor, pages, expires_at).await
    }

    async fn pages(&self, visitor: &Visitor, session_id: uuid::Uuid) -> Result<Vec<FingerprintPage>, SessionError> {
        self.storage.pages(visitor, session_id).await
    }

    async fn find(&self, session_id: uuid::Uuid) -> Result<Partition, SessionError> {
        self.storage.find(session_id).await
    }

    async fn erase(&self, visitor: &Visitor) -> Result<Erased, SessionError> {
        self.storage.erase(visitor).await
    }
}
