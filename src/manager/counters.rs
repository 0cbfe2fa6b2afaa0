//! What a manager counts while it applies events, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::timeline::Applied;

/// The counters of a manager. The invocations of a process share them, and each takes what was counted since the last.
#[derive(Debug, Default)]
pub(super) struct Counters {
    conflicts: AtomicU64,
    speculative_right: AtomicU64,
    speculative_wrong: AtomicU64,
    finalized_early: AtomicU64,
    reopened: AtomicU64,
    #[cfg(feature = "replay")]
    replay: ReplayCounters,
}

/// What became of recorded events.
#[cfg(feature = "replay")]
#[derive(Debug, Default)]
struct ReplayCounters {
    kept: AtomicU64,
    bytes: AtomicU64,
    dropped: AtomicU64,
}

/// What was counted since it was last taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Conditional writes whose condition failed, because another write came first.
    pub conflicts: u64,
    /// Writes on a cached timeline that was the stored one.
    pub speculative_right: u64,
    /// Writes on a cached timeline that was not the stored one any more. Each is also a conflict.
    pub speculative_wrong: u64,
    /// Events that were finalized early, because their visitor had more than a timeline holds.
    pub finalized_early: u64,
    /// Sessions that late events changed after their end was emitted.
    pub reopened: u64,
    /// Recorded events of session replay that were kept.
    #[cfg(feature = "replay")]
    pub replay_kept: u64,
    /// Bytes of the chunks that were written for them.
    #[cfg(feature = "replay")]
    pub replay_bytes: u64,
    /// Recorded events that were dropped, because their visitor is nobody or an excluded bot.
    #[cfg(feature = "replay")]
    pub replay_dropped: u64,
}

impl Counters {
    /// Counts a conditional write. `is_done` is false after a conflict.
    pub fn count_write(&self, is_done: bool, is_speculative: bool) {
        add(&self.conflicts, u64::from(!is_done));
        add(&self.speculative_right, u64::from(is_speculative && is_done));
        add(&self.speculative_wrong, u64::from(is_speculative && !is_done));
    }

    /// Counts what followed from events, once they are written.
    pub fn count_applied(&self, applied: &Applied) {
        add(&self.finalized_early, applied.overflow.finalized_early as u64);
        add(&self.reopened, u64::from(applied.reopened));
    }

    /// Counts recorded events that were kept, in chunks of this many bytes.
    #[cfg(feature = "replay")]
    pub fn count_replay(&self, kept: usize, bytes: usize) {
        add(&self.replay.kept, kept as u64);
        add(&self.replay.bytes, bytes as u64);
    }

    /// Counts recorded events that were dropped.
    #[cfg(feature = "replay")]
    pub fn count_dropped_replay(&self, dropped: usize) {
        add(&self.replay.dropped, dropped as u64);
    }

    /// Returns the counters and sets them to zero.
    pub fn take(&self) -> Counted {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        Counted {
            conflicts: take(&self.conflicts),
            speculative_right: take(&self.speculative_right),
            speculative_wrong: take(&self.speculative_wrong),
            finalized_early: take(&self.finalized_early),
            reopened: take(&self.reopened),
            #[cfg(feature = "replay")]
            replay_kept: take(&self.replay.kept),
            #[cfg(feature = "replay")]
            replay_bytes: take(&self.replay.bytes),
            #[cfg(feature = "replay")]
            replay_dropped: take(&self.replay.dropped),
        }
    }
}

fn add(counter: &AtomicU64, count: u64) {
    if count > 0 {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}
