//! What a run of the close function is asked to do, and what it did.

use serde::Serialize;

use super::step::{Outcome, Step};
use crate::storage::DUE_SHARDS;

/// A chunk of the shards: those whose number leaves `index` when it is divided by `count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    index: u8,
    count: u8,
}

impl Share {
    /// All shards.
    pub const WHOLE: Self = Self { index: 0, count: 1 };

    /// The share `index`, from 0 on, of `count`; none where there is no such share.
    pub fn new(index: u8, count: u8) -> Option<Self> {
        (index < count && count <= DUE_SHARDS).then_some(Self { index, count })
    }

    /// Its shards.
    pub fn shards(self) -> impl Iterator<Item = u8> {
        (self.index..DUE_SHARDS).step_by(usize::from(self.count))
    }
}

/// What a run of the close function did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CloseReport {
    /// Timelines looked at.
    pub examined: usize,
    /// Sessions whose end was emitted and that were archived.
    pub closed: usize,
    /// Corrections (merges and splits) that were emitted.
    pub corrections: usize,
    /// Timelines in which nothing is over yet: looked at again in the next run.
    pub waiting: usize,
    /// Timelines in which nothing was over for long: looked at again when it may be.
    pub rescheduled: usize,
    /// Timelines that others kept changing meanwhile: looked at again in the next run.
    pub conflicts: usize,
    /// Timelines of which something could not be read, emitted, archived or written: looked at again in the next run.
    pub failed: usize,
    /// Those of the failed that no later run of this version can close either: what is stored breaks our rules, or has a newer form.
    pub corrupt: usize,
    /// Shards of the due index that could not be listed.
    pub unlisted: usize,
    /// Whether the time ran out before everything due was closed.
    pub is_incomplete: bool,
    /// How long the oldest timeline that the run left behind has been due, in seconds; none if it left nothing behind, or
    /// does not know what, because nothing could be listed.
    pub oldest_due_seconds: Option<i64>,
}

impl CloseReport {
    /// Whether the run could not do its work: a shard could not be listed, or nothing that failed for the store or the
    /// output went well for any other timeline.
    pub fn is_failure(&self) -> bool {
        let is_nothing_done = self.closed + self.corrections + self.rescheduled == 0;
        self.unlisted > 0 || (self.failed > self.corrupt && is_nothing_done)
    }

    /// Whether something due was left for the next run.
    pub fn has_left_work(&self) -> bool {
        self.is_incomplete || self.unlisted + self.failed + self.conflicts > 0
    }

    /// Writes the report to the log, as fields.
    pub fn log(&self) {
        let Self { examined, closed, corrections, waiting, rescheduled, conflicts, .. } = *self;
        let Self { failed, corrupt, unlisted, is_incomplete, oldest_due_seconds, .. } = *self;
        tracing::info!(
            examined,
            closed,
            corrections,
            waiting,
            rescheduled,
            conflicts,
            failed,
            corrupt,
            unlisted,
            is_incomplete,
            oldest_due_seconds,
            "closed"
        );
        if self.has_left_work() {
            tracing::warn!(
                oldest_due_seconds,
                is_incomplete,
                failed,
                conflicts,
                unlisted,
                "something due was left behind"
            );
        }
    }

    /// Adds what became of a timeline; says whether it is left behind.
    pub(super) fn add(&mut self, step: &Step) -> bool {
        self.closed += step.ended;
        self.corrections += step.corrections;
        let (count, is_left) = match step.outcome {
            Outcome::NotDue | Outcome::Closed | Outcome::TooLarge | Outcome::More => return false,
            Outcome::Waiting => (&mut self.waiting, false),
            Outcome::Rescheduled => (&mut self.rescheduled, false),
            Outcome::Conflict => (&mut self.conflicts, true),
            Outcome::Failed | Outcome::Unread | Outcome::Corrupt => (&mut self.failed, true),
        };
        *count += 1;
        self.corrupt += usize::from(step.outcome == Outcome::Corrupt);
        is_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_all_shards_once() {
        for count in [1, 2, 3, 8, DUE_SHARDS] {
            let mut shards: Vec<u8> = (0..count).flat_map(|index| Share::new(index, count).unwrap().shards()).collect();
            shards.sort_unstable();
            assert_eq!(shards, (0..DUE_SHARDS).collect::<Vec<_>>());
        }
        for (index, count) in [(0, 0), (1, 1), (8, 8), (0, DUE_SHARDS + 1)] {
            assert_eq!(Share::new(index, count), None);
        }
    }

    #[test]
    fn a_run_that_could_do_nothing_has_failed() {
        let report = CloseReport::default();
        for (report, is_failure) in [
            (report.clone(), false),
            (CloseReport { unlisted: 1, closed: 9, ..report.clone() }, true),
            (CloseReport { failed: 2, ..report.clone() }, true),
            (CloseReport { failed: 2, corrupt: 2, ..report.clone() }, false),
            (CloseReport { failed: 2, corrupt: 1, waiting: 5, ..report.clone() }, true),
            (CloseReport { failed: 2, closed: 1, ..report.clone() }, false),
            (CloseReport { failed: 2, rescheduled: 1, ..report }, false),
        ] {
            assert_eq!(report.is_failure(), is_failure, "{report:?}");
        }
    }
}
