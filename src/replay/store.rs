//! The store of chunks: any store of the crate `object_store`. S3 in the cloud ([`super::s3`]), a folder on one machine.

use std::path::Path;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::memory::InMemory;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload, path};
use serde::Serialize;

use super::Inputs;
use super::chunk::{self, Chunk, ChunkName, MAX_SPAN_MS, day_of, prefix_of, prefix_of_day};
use super::page::{Page, PageLimits, Pager, ReplayPosition, Span};
use crate::config::ConfigError;
use crate::session::{Millis, Visitor, datetime, rfc3339};
use crate::storage::{SessionError, StorageErrorKind};

/// How many calls of the store run at once for one request.
const CALLS_AT_ONCE: usize = 8;

/// Keeps the chunks of recorded events.
#[derive(Debug, Clone)]
pub struct ReplayStore {
    store: Arc<dyn ObjectStore>,
    inputs: Inputs,
}

/// What is kept of a visitor's recordings, for the export.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ReplaySummary {
    /// The number of chunks.
    pub chunks: usize,
    /// Their bytes, compressed.
    pub bytes: u64,
    /// The time of the first recorded event.
    pub first: Option<String>,
    /// The time of the last recorded event.
    pub last: Option<String>,
}

impl ReplayStore {
    /// Keeps chunks in this store.
    pub fn new(store: Arc<dyn ObjectStore>, inputs: Inputs) -> Self {
        Self { store, inputs }
    }

    /// Keeps chunks in memory, for tests.
    pub fn in_memory(inputs: Inputs) -> Self {
        Self::new(Arc::new(InMemory::new()), inputs)
    }

    /// Keeps chunks in a folder, which is made if it does not exist.
    ///
    /// # Errors
    /// The folder cannot be made or used.
    pub fn in_folder(folder: &Path, inputs: Inputs) -> Result<Self, ConfigError> {
        let unusable = |why: String| ConfigError(format!("the folder {} cannot be used: {why}", folder.display()));
        std::fs::create_dir_all(folder).map_err(|error| unusable(error.to_string()))?;
        let store = object_store::local::LocalFileSystem::new_with_prefix(folder);
        Ok(Self::new(Arc::new(store.map_err(|error| unusable(error.to_string()))?), inputs))
    }

    /// Returns what becomes of the values of inputs.
    pub fn inputs(&self) -> Inputs {
        self.inputs
    }

    /// Stores chunks of a visitor. Storing one again changes nothing.
    ///
    /// # Errors
    /// A chunk may not be stored.
    pub async fn put(&self, visitor: &Visitor, chunks: Vec<Chunk>) -> Result<(), SessionError> {
        let put = |chunk: Chunk| async move {
            let path = path::Path::from(chunk.name.path(visitor));
            self.store.put(&path, PutPayload::from(chunk.bytes)).await.map_err(failure)
        };
        let puts: Vec<_> = chunks.into_iter().map(put).collect();
        stream::iter(puts).buffer_unordered(CALLS_AT_ONCE).try_for_each(|_| async { Ok(()) }).await
    }

    /// Returns a page of the events that belong to a session.
    ///
    /// # Errors
    /// The store did not answer, or a chunk is damaged.
    pub async fn page(
        &self,
        visitor: &Visitor,
        span: Span,
        is_in: impl Fn(Millis) -> bool + Send,
        after: Option<ReplayPosition>,
        limits: PageLimits,
    ) -> Result<Page, SessionError> {
        let mut pager = Pager::new(span, is_in, after, limits);
        let (from, to) = pager.needs();
        for day in day_of(from - MAX_SPAN_MS)..=day_of(to) {
            let mut names = self.names(&prefix_of_day(visitor, day)).await?;
            names.retain(|name| name.last >= from && name.first <= to);
            names.sort_unstable();
            for names in names.chunks(CALLS_AT_ONCE) {
                if pager.is_full_before(names[0].first) {
                    return Ok(pager.finish(Some(names[0].first)));
                }
                let reads: Vec<_> = names.iter().map(|name| self.read(visitor, *name)).collect();
                let read: Vec<_> = stream::iter(reads).buffered(CALLS_AT_ONCE).try_collect().await?;
                names.iter().zip(read).for_each(|(name, events)| pager.add(*name, events));
            }
        }
        Ok(pager.finish(None))
    }

    /// Deletes all chunks of a visitor. Returns how many there were.
    ///
    /// # Errors
    /// A chunk may not be deleted.
    pub async fn erase(&self, visitor: &Visitor) -> Result<usize, SessionError> {
        let found = self.list(&prefix_of(visitor)).await?;
        let paths = stream::iter(found.into_iter().map(|meta| Ok(meta.location)).collect::<Vec<_>>()).boxed();
        let deleted = self.store.delete_stream(paths).map(|deleted| match deleted {
            // Another request, or the end of its time, was first.
            Ok(_) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failure(error)),
        });
        Ok(deleted.try_collect::<Vec<()>>().await?.len())
    }

    /// Returns what is kept of a visitor.
    ///
    /// # Errors
    /// The store did not answer.
    pub async fn summary(&self, visitor: &Visitor) -> Result<ReplaySummary, SessionError> {
        let found = self.list(&prefix_of(visitor)).await?;
        let names: Vec<ChunkName> = found.iter().filter_map(name_of).collect();
        let time = |at: Millis| rfc3339(datetime(at));
        Ok(ReplaySummary {
            chunks: found.len(),
            bytes: found.iter().map(|meta| meta.size).sum(),
            first: names.iter().map(|name| name.first).min().map(time),
            last: names.iter().map(|name| name.last).max().map(time),
        })
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, SessionError> {
        self.store.list(Some(&path::Path::from(prefix))).try_collect().await.map_err(failure)
    }

    async fn names(&self, prefix: &str) -> Result<Vec<ChunkName>, SessionError> {
        Ok(self.list(prefix).await?.iter().filter_map(name_of).collect())
    }

    /// Reads a chunk. One that was deleted since it was listed has no events.
    async fn read(&self, visitor: &Visitor, name: ChunkName) -> Result<Vec<chunk::StoredEvent>, SessionError> {
        let path = name.path(visitor);
        let bytes = match self.store.get(&path::Path::from(&*path)).await {
            Ok(found) => found.bytes().await.map_err(failure)?,
            Err(object_store::Error::NotFound { .. }) => return Ok(Vec::new()),
            Err(error) => return Err(failure(error)),
        };
        chunk::unpack(&bytes)
            .ok_or_else(|| SessionError::Corrupt { item: path, reason: "the chunk of a replay is damaged".to_owned() })
    }
}

fn name_of(meta: &ObjectMeta) -> Option<ChunkName> {
    ChunkName::parse(meta.location.filename()?)
}

/// Returns the error of a store that failed.
fn failure(error: object_store::Error) -> SessionError {
    use object_store::Error::{PermissionDenied, Unauthenticated};
    let kind = match &error {
        PermissionDenied { .. } | Unauthenticated { .. } => StorageErrorKind::Denied,
        _ => StorageErrorKind::Other,
    };
    SessionError::storage(kind, error)
}
