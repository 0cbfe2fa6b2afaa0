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
    /// Chunks of recorded events.
    #[cfg(feature = "replay")]
    #[serde(skip_serializing_if = "is_zero")]
    pub replay_chunks: usize,
}

#[cfg(feature = "replay")]
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes the field by reference")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}
