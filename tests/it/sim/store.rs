//! The store of a simulated world: in memory, or the real one over the embedded DynamoDB. Each operation is one step of the
//! scheduler, and no other task runs during it. A seed therefore gives the same run on either store.

use std::future::Future;
use std::sync::OnceLock;

use aws_sdk_dynamodb::Client;
use session_tracking::model::{FingerprintPage, SessionState};
use session_tracking::session::{Millis, Visitor};
use session_tracking::storage::{
    Commit, CommitOutcome, Due, DynamoDbSessionStorage, Erased, InMemorySessionStorage, Partition, Reading,
    SessionError, SessionStorage, Stored,
};
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::dynamodb::EmbeddedDynamoDb;
use crate::engine_http::create_table;

pub enum Store {
    Memory(InMemorySessionStorage),
    DynamoDb(Table),
}

/// A world's own table. All worlds share one embedded DynamoDB.
pub struct Table {
    storage: DynamoDbSessionStorage,
    name: String,
}

/// Returns a client of the embedded DynamoDB, and the runtime on which its calls are awaited.
fn database() -> &'static (Runtime, Client) {
    static DATABASE: OnceLock<(Runtime, Client)> = OnceLock::new();
    DATABASE.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        (runtime, EmbeddedDynamoDb::start(0).unwrap().client())
    })
}

/// Blocks until a call returns. The simulated world has no runtime of its own, and no virtual time passes meanwhile.
fn wait<T>(call: impl Future<Output = T>) -> T {
    database().0.block_on(call)
}

impl Store {
    /// Creates a table for this seed.
    pub fn in_dynamodb(seed: u64) -> Self {
        let client = &database().1;
        let name = format!("sim-{seed}");
        wait(create_table(client, &name));
        Self::DynamoDb(Table { storage: DynamoDbSessionStorage::new(client.clone(), &name), name })
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // A failed world is examined in another run of its seed, so its table is not needed.
        let _ = wait(database().1.delete_table().table_name(&self.name).send());
    }
}

impl SessionStorage for Store {
    async fn load(&self, visitors: &[Visitor], reading: Reading) -> Vec<Result<Option<Stored>, SessionError>> {
        match self {
            Self::Memory(storage) => storage.load(visitors, reading).await,
            Self::DynamoDb(table) => wait(table.storage.load(visitors, reading)),
        }
    }

    async fn commit(&self, commit: Commit<'_>) -> Result<CommitOutcome, SessionError> {
        match self {
            Self::Memory(storage) => storage.commit(commit).await,
            Self::DynamoDb(table) => wait(table.storage.commit(commit)),
        }
    }

    async fn due(&self, shard: u8, after: Option<&Due>, now: Millis, limit: usize) -> Result<Vec<Due>, SessionError> {
        match self {
            Self::Memory(storage) => storage.due(shard, after, now, limit).await,
            Self::DynamoDb(table) => wait(table.storage.due(shard, after, now, limit)),
        }
    }

    async fn archive(&self, visitor: &Visitor, session: &SessionState, expires_at: Millis) -> Result<(), SessionError> {
        match self {
            Self::Memory(storage) => storage.archive(visitor, session, expires_at).await,
            Self::DynamoDb(table) => wait(table.storage.archive(visitor, session, expires_at)),
        }
    }

    async fn archived(&self, visitor: &Visitor, from: Millis, to: Millis) -> Result<Vec<SessionState>, SessionError> {
        match self {
            Self::Memory(storage) => storage.archived(visitor, from, to).await,
            Self::DynamoDb(table) => wait(table.storage.archived(visitor, from, to)),
        }
    }

    async fn put_pages(
        &self,
        visitor: &Visitor,
        pages: &[FingerprintPage],
        expires_at: Option<Millis>,
    ) -> Result<(), SessionError> {
        match self {
            Self::Memory(storage) => storage.put_pages(visitor, pages, expires_at).await,
            Self::DynamoDb(table) => wait(table.storage.put_pages(visitor, pages, expires_at)),
        }
    }

    async fn pages(&self, visitor: &Visitor, session_id: Uuid) -> Result<Vec<FingerprintPage>, SessionError> {
        match self {
            Self::Memory(storage) => storage.pages(visitor, session_id).await,
            Self::DynamoDb(table) => wait(table.storage.pages(visitor, session_id)),
        }
    }

    async fn find(&self, session_id: Uuid) -> Result<Partition, SessionError> {
        match self {
            Self::Memory(storage) => storage.find(session_id).await,
            Self::DynamoDb(table) => wait(table.storage.find(session_id)),
        }
    }

    async fn erase(&self, visitor: &Visitor) -> Result<Erased, SessionError> {
        match self {
            Self::Memory(storage) => storage.erase(visitor).await,
            Self::DynamoDb(table) => wait(table.storage.erase(visitor)),
        }
    }
}
