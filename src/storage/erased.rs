//! What an erasure deletes.

use serde::Serialize;

/// What [`SessionStorage::erase`](super::SessionStorage::erase) deleted: numbers of stored items.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Erased {
    /// Timelines: one, or none if the visitor had none.
    pub timelines: usize,
    /// Archived sessions.
    pub archived_sessions: usize,
    /// Archived aliases: ids that were merged into a session.
    pub merged_ids: usize,
    /// Pages of fingerprints.
    pub pages: usize,
}
