//! The store of timelines and archived sessions: its contract, and its implementations in DynamoDB and in memory.

mod budget;
mod connections;
mod consumed;
mod dynamodb;
mod erased;
mod error;
mod memory;

use std::future::Future;
use std::sync::Arc;

use uuid::Uuid;

use crate::model::{FingerprintPage, SessionState};
use crate::session::{Millis, Visitor};
use crate::stored::Room;
use crate::timeline::Timeline;

pub(crate) use connections::IDLE;
pub use consumed::Consumed;
pub use dynamodb::DynamoDbSessionStorage;
pub use erased::Erased;
pub use error::{Cause, SessionError, StorageErrorKind};
pub use memory::InMemorySessionStorage;

/// A stored timeline, with the etag of the write that stored it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The timeline.
    pub timeline: Timeline,
    /// The etag for optimistic concurrency: the [`Commit::etag`] of the write that stored the timeline.
    pub etag: u64,
}

/// A conditional write (optimistic concurrency): it takes effect only if the stored timeline is still the one that was read.
#[derive(Debug, Clone, Copy)]
pub struct Commit<'a> {
    /// The timeline to store.
    pub timeline: &'a Timeline,
    /// The etag that was read. `None` if there was no timeline.
    pub replaces: Option<u64>,
    /// The etag of this write. It is random, so that an attempt recognizes its own earlier success.
    pub etag: u64,
    /// The time from which the item may be deleted. It does not apply to a timeline with something to close
    /// ([`Timeline::due_at`]): that item does not expire, however long the close function is down.
    pub expires_at: Millis,
    /// How large the item may be. A larger one is refused with [`SessionError::Full`].
    pub room: Room,
}

/// The outcome of a [`Commit`]. A conflict is an outcome, not an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitOutcome {
    /// The write took effect, now or in an earlier attempt with the same etag.
    Done,
    /// Another write came first. Contains the timeline that is stored now; `None` if it was deleted.
    Conflict(Option<Box<Stored>>),
}

/// What [`SessionStorage::load_within`] returns for a visitor that has a timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    reason = "few are created, nearly all are timelines, and each is matched immediately"
)]
pub enum Found {
    /// The timeline.
    Timeline(Stored),
    /// There is a timeline, but its stored form is too large for this read. It was not decoded.
    TooLarge,
}

/// An entry of the index of due timelines: a timeline that the close function has to examine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The timeline's visitor.
    pub visitor: Visitor,
    /// The time since which the timeline is due: its [`Timeline::due_at`].
    pub due_at: Millis,
}

/// What [`SessionStorage::find`] returns for a session id: the timelines of the id's partition, and the archived sessions with
/// this id. Visitors with equal hash bits ([`Visitor::bits`]) share a partition, and each of them may have a session with this
/// id, so the caller has to distinguish them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// The partition's timelines, sorted by visitor.
    pub timelines: Vec<Timeline>,
    /// The archived session with this id, or the session that it was merged into. At most one for each visitor, sorted by
    /// visitor.
    pub archived: Vec<(Visitor, SessionState)>,
}

/// The maximum number of merges that are followed from an id to its session. Each of them is a read.
const MAX_MERGES: usize = 16;
/// Why an archived alias is corrupt that leads to no session after [`MAX_MERGES`] merges.
const ENDLESS_MERGES: &str = "its merges do not end";

/// The number of shards of the index of due timelines. One partition key of an index takes 1,000 writes a second, and each
/// session makes two, so 64 shards take 32,000 session starts a second. Each shard costs a query a minute, even if nothing is
/// due.
///
/// The number may grow: an entry keeps its shard until its timeline is written again, and the close function still lists the low
/// numbers. It must not shrink, because the close function would never list the entries of the missing shards.
pub const DUE_SHARDS: u8 = 64;

/// Returns the shard in which a visitor's timeline is indexed: a number below [`DUE_SHARDS`].
pub fn due_shard(visitor: &Visitor) -> u8 {
    (visitor.bits() % u64::from(DUE_SHARDS)) as u8
}

/// The consistency of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// Eventually consistent, at half the price. The result may be a moment old; a commit on it is then a conflict.
    Eventual,
    /// Strongly consistent.
    Strong,
}

/// A store of timelines and archived sessions. Every method is idempotent: a caller may retry it.
///
/// Every method returns [`SessionError::Storage`] if the store does not answer or refuses, and [`SessionError::Corrupt`] or
/// [`SessionError::Newer`] if an item cannot be read.
///
/// Each timeline is written by a call of its own: `docs/decisions.md` states why a call does not write several.
pub trait SessionStorage: Send + Sync {
    /// Reads the timelines of these visitors, at most [`MAX_LOAD`]. Returns a result for each visitor, in their order; `None` for
    /// a visitor without a timeline.
    fn load(
        &self,
        visitors: &[Visitor],
        reading: Reading,
    ) -> impl Future<Output = Vec<Result<Option<Stored>, SessionError>>> + Send;
    /// Reads the visitor's timeline with strong consistency. Returns `None` if there is none.
    fn read(&self, visitor: &Visitor) -> impl Future<Output = Result<Option<Stored>, SessionError>> + Send {
        async { self.load(std::slice::from_ref(visitor), Reading::Strong).await.pop().unwrap_or(Ok(None)) }
    }
    /// Writes a timeline if the stored one is still the one that was read. Returns [`SessionError::Full`] if the timeline is
    /// larger than [`Commit::room`] allows.
    fn commit(&self, commit: Commit<'_>) -> impl Future<Output = Result<CommitOutcome, SessionError>> + Send;
    /// Reads timelines with strong consistency, like [`Self::load`], but does not decode a timeline whose stored form has more
    /// than `max_bytes`, because a large one takes many times its size in memory. A store that does not know the sizes decodes
    /// all.
    fn load_within(
        &self,
        visitors: &[Visitor],
        max_bytes: usize,
    ) -> impl Future<Output = Vec<Result<Option<Found>, SessionError>>> + Send {
        let _ = max_bytes;
        async {
            let loaded = self.load(visitors, Reading::Strong).await;
            loaded.into_iter().map(|stored| Ok(stored?.map(Found::Timeline))).collect()
        }
    }
    /// Returns the timelines of a shard that are due at `now`, at most `limit`, in the order in which they became due. With
    /// `after`, the list continues behind this entry. A list shorter than `limit` is the last one.
    fn due(
        &self,
        shard: u8,
        after: Option<&Due>,
        now: Millis,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Due>, SessionError>> + Send;
    /// Archives a session under its id. Also archives each id that was merged into it ([`SessionState::aliases`]), as an alias
    /// of the session's id.
    ///
    /// An item of the same visitor and id is not replaced if its version is higher. If the session itself is not replaced for
    /// this reason, its aliases are not archived.
    fn archive(
        &self,
        visitor: &Visitor,
        session: &SessionState,
        expires_at: Millis,
    ) -> impl Future<Output = Result<(), SessionError>> + Send;
    /// Returns the visitor's archived sessions that began from `from` to `to`, both included, by the times in their ids.
    fn archived(
        &self,
        visitor: &Visitor,
        from: Millis,
        to: Millis,
    ) -> impl Future<Output = Result<Vec<SessionState>, SessionError>> + Send;
    /// Stores pages of a visitor. A page replaces the one with its session, kind and number, which has the same fingerprints.
    /// Without `expires_at`, it does not expire: its session is not archived yet.
    fn put_pages(
        &self,
        visitor: &Visitor,
        pages: &[FingerprintPage],
        expires_at: Option<Millis>,
    ) -> impl Future<Output = Result<(), SessionError>> + Send;
    /// Returns all stored pages of a visitor's session, with strong consistency and in any order.
    fn pages(
        &self,
        visitor: &Visitor,
        session_id: Uuid,
    ) -> impl Future<Output = Result<Vec<FingerprintPage>, SessionError>> + Send;
    /// Returns what is stored for a session id: see [`Partition`].
    fn find(&self, session_id: Uuid) -> impl Future<Output = Result<Partition, SessionError>> + Send;
    /// Deletes all that is stored of a visitor, and nothing of others in its partition: first the timeline, then its archived
    /// sessions, aliases and pages. Items that cannot be read are deleted, too.
    ///
    /// A commit that is based on the deleted timeline is a conflict with `None`. What is archived or put as a page at the same
    /// time can stay, so a caller who has to be sure repeats the call.
    fn erase(&self, visitor: &Visitor) -> impl Future<Output = Result<Erased, SessionError>> + Send;
}

/// The maximum number of visitors in one [`SessionStorage::load`]: DynamoDB's maximum for the keys of a `BatchGetItem`.
pub const MAX_LOAD: usize = 100;

/// Implements [`SessionStorage`] for types that refer to a store, so that several users can share it.
macro_rules! forward_storage {
    ($($shared:ty),+) => {$(
        impl<S: SessionStorage> SessionStorage for $shared {
            fn load(
                &self,
                visitors: &[Visitor],
                reading: Reading,
            ) -> impl Future<Output = Vec<Result<Option<Stored>, SessionError>>> + Send {
                (**self).load(visitors, reading)
            }

            fn commit(&self, commit: Commit<'_>) -> impl Future<Output = Result<CommitOutcome, SessionError>> + Send {
                (**self).commit(commit)
            }

            fn load_within(
                &self,
                visitors: &[Visitor],
                max_bytes: usize,
            ) -> impl Future<Output = Vec<Result<Option<Found>, SessionError>>> + Send {
                (**self).load_within(visitors, max_bytes)
            }

            fn due(
                &self,
                shard: u8,
                after: Option<&Due>,
                now: Millis,
                limit: usize,
            ) -> impl Future<Output = Result<Vec<Due>, SessionError>> + Send {
                (**self).due(shard, after, now, limit)
            }

            fn archive(
                &self,
                visitor: &Visitor,
                session: &SessionState,
                expires_at: Millis,
            ) -> impl Future<Output = Result<(), SessionError>> + Send {
                (**self).archive(visitor, session, expires_at)
            }

            fn archived(
                &self,
                visitor: &Visitor,
                from: Millis,
                to: Millis,
            ) -> impl Future<Output = Result<Vec<SessionState>, SessionError>> + Send {
                (**self).archived(visitor, from, to)
            }

            fn put_pages(
                &self,
                visitor: &Visitor,
                pages: &[FingerprintPage],
                expires_at: Option<Millis>,
            ) -> impl Future<Output = Result<(), SessionError>> + Send {
                (**self).put_pages(visitor, pages, expires_at)
            }

            fn pages(
                &self,
                visitor: &Visitor,
                session_id: Uuid,
            ) -> impl Future<Output = Result<Vec<FingerprintPage>, SessionError>> + Send {
                (**self).pages(visitor, session_id)
            }

            fn find(&self, session_id: Uuid) -> impl Future<Output = Result<Partition, SessionError>> + Send {
                (**self).find(session_id)
            }

            fn erase(&self, visitor: &Visitor) -> impl Future<Output = Result<Erased, SessionError>> + Send {
                (**self).erase(visitor)
            }
        }
    )+};
}

forward_storage!(&S, Arc<S>);
