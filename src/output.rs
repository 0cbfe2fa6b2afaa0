//! Where annotated events, ends of sessions and rejected events go: lines of JSON.

use std::future::Future;

/// A sink for lines of JSON. Sending a line again is allowed: it means the same.
pub trait Output: Send + Sync {
    /// Sends lines; returns the indexes, in order, of those that were not taken. An empty answer means all were.
    fn send(&self, lines: &[String]) -> impl Future<Output = Vec<usize>> + Send;
}
