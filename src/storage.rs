//! Where timelines and archived sessions are kept.

mod budget;
mod connections;
mod consumed;
mod dynamodb;
mod error;
mod memory;

use std::future::Future;
use std::sync::Arc;

use uuid::Uuid;

use crate::model::SessionState;
use crate::session::{Millis, Visitor};
use crate::stored::Room;
use crate::timeline::Timeline;

pub(crate) use connections::IDLE;
pub use consumed::Consumed;
pub use dynamodb::DynamoDbSessionStorage;
pub use error::{Cause, SessionError, StorageErrorKind};
pub use memory::InMemorySessionStorage;

/// A timeline as it is stored, and the mark of the write that stored it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub timeline: Timeline,
    pub etag: u64,
}

/// A write that takes effect only if the timeline is still the one that was read.
#[derive(Debug, Clone, Copy)]
pub struct Commit<'a> {
    pub timeline: &'a Timeline,
    /// The etag that was read; none where there was no timeline.
    pub replaces: Option<u64>,
    /// This attempt's own etag.
    pub etag: u64,
    /// When the item may be collected as garbage. A timeline with something to close ([`Timeline::due_at`]) is never garbage:
    /// its item does not expire, however long the close function is down.
    pub expires_at: Millis,
    /// How large the item may be; a larger one is [`SessionError::Full`].
    pub room: Room,
}

/// How a commit went. A conflict is an outcome, not an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitOutcome {
    /// It took effect, now or in an earlier attempt with the same etag.
    Done,
    /// Another write came first: the timeline as it is now; none if it is gone.
    Conflict(Option<Box<Stored>>),
}

/// What [`SessionStorage::load_within`] finds of a visitor.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    reason = "few are made, nearly all of them timelines, and each is taken apart at once"
)]
pub enum Found {
    Timeline(Stored),
    /// A timeline whose stored form is too large for this read; it was not decoded.
    TooLarge,
}

/// A timeline that the close function has to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    pub visitor: Visitor,
    pub due_at: Millis,
}

/// What an id leads to within its visitor's partition. Visitors with equal bits share a partition, and a session of each may have
/// the id: whoever asks has to tell them apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// The partition's timelines, in the order of their visitors.
    pub timelines: Vec<Timeline>,
    /// The archived session of that id, or the one that it was merged into; one for each visitor that has one, in their order.
    pub archived: Vec<(Visitor, SessionState)>,
}

/// How many merges are followed from an id to the session that it leads to. Each is a read.
const MAX_MERGES: usize = 16;
/// What is wrong with an archived session's alias that leads nowhere after [`MAX_MERGES`].
const ENDLESS: &str = "its merges do not end";

/// How many shards the index of due timelines has. One partition key of an index takes 1,000 writes a second, and a session
/// makes two of them: 64 shards take 32,000 session starts a second. Each shard costs a query a minute, due or not.
///
/// It may grow: an entry keeps its shard until its timeline is written again, and the low numbers are still listed. It must
/// not shrink, because the close function would never list the entries of the shards that are gone.
pub const DUE_SHARDS: u8 = 64;

/// The shard in which a visitor's timeline is indexed.
pub fn due_shard(visitor: &Visitor) -> u8 {
    (visitor.bits() % u64::from(DUE_SHARDS)) as u8
}

/// How a timeline is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// It may be a moment old, for half the price: a commit finds that out.
    Eventual,
    /// As it is now.
    Strong,
}

/// A store of timelines and archived sessions. Every method may be repeated.
///
/// A [`Commit`] is all that a write needs, and the manager hands it over in one slot. A store that writes several timelines
/// in one call would take a slice of them there; `docs/decisions.md` says why none does.
pub trait SessionStorage: Send + Sync {
    /// Reads timelines, at most as many as [`MAX_LOAD`]; the answer is in the order of the question.
    fn load(
        &self,
        visitors: &[Visitor],
        reading: Reading,
    ) -> impl Future<Output = Vec<Result<Option<Stored>, SessionError>>> + Send;
    /// Reads one timeline as it is now.
    fn read(&self, visitor: &Visitor) -> impl Future<Output = Result<Option<Stored>, SessionError>> + Send {
        async { self.load(std::slice::from_ref(visitor), Reading::Strong).await.pop().unwrap_or(Ok(None)) }
    }
    /// Writes a timeline if it is still the one that was read.
    fn commit(&self, commit: Commit<'_>) -> impl Future<Output = Result<CommitOutcome, SessionError>> + Send;
    /// Reads timelines as they are now, like [`Self::load`], but does not decode those whose stored form has more than
    /// `max_bytes`: decoded, a large one takes many times its size. A store that knows no sizes decodes all.
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
    /// Timelines of a shard that are due at `now`, the longest due first, at most `limit`; those behind `after`, if it is
    /// given. Fewer than `limit` are the last.
    fn due(
        &self,
        shard: u8,
        after: Option<&Due>,
        now: Millis,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Due>, SessionError>> + Send;
    /// Archives a session, and under the ids that were merged into it where to find it. What a visitor has under an id with a
    /// higher version stays; where that is the session itself, the ids that were merged into it are left alone, too.
    fn archive(
        &self,
        visitor: &Visitor,
        session: &SessionState,
        expires_at: Millis,
    ) -> impl Future<Output = Result<(), SessionError>> + Send;
    /// The visitor's archived sessions that began from `from` to `to`.
    fn archived(
        &self,
        visitor: &Visitor,
        from: Millis,
        to: Millis,
    ) -> impl Future<Output = Result<Vec<SessionState>, SessionError>> + Send;
    /// What a session id leads to.
    fn find(&self, session_id: Uuid) -> impl Future<Output = Result<Partition, SessionError>> + Send;
}

/// Visitors that one [`SessionStorage::load`] takes at the most: the keys of one `BatchGetItem`.
pub const MAX_LOAD: usize = 100;

/// A store that is used by several: what owns or borrows it is one, too.
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

            fn find(&self, session_id: Uuid) -> impl Future<Output = Result<Partition, SessionError>> + Send {
                (**self).find(session_id)
            }
        }
    )+};
}

forward_storage!(&S, Arc<S>);
