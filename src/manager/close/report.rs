//! The input of a run of the close function, its [`Share`], and its result, the [`CloseReport`].

use std::collections::BTreeMap;

use serde::Serialize;

use super::step::{Step, StepOutcome};
use crate::config::Projects;
use crate::storage::DUE_SHARDS;

/// A share of the shards: those whose number modulo `count` is `index`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    index: u8,
    count: u8,
}

impl Share {
    /// All shards.
    pub const WHOLE: Self = Self { index: 0, count: 1 };

    /// Returns the share `index`, from 0, of `count` shares. Returns `None` if `index` is not less than `count`, or if `count` is
    /// more than the number of shards.
    pub fn new(index: u8, count: u8) -> Option<Self> {
        (index < count && count <= DUE_SHARDS).then_some(Self { index, count })
    }

    /// Returns the numbers of its shards.
    pub fn shards(self) -> impl Iterator<Item = u8> {
        (self.index..DUE_SHARDS).step_by(usize::from(self.count))
    }
}

/// The result of a run of the close function. Timelines that are left are tried again in the next run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CloseReport {
    /// Due timelines that were examined.
    pub examined: usize,
    /// Sessions whose end was emitted, and that were archived or stay in their timeline as closed ones.
    pub closed: usize,
    /// Those of each project that has metrics of its own.
    #[serde(skip)]
    pub closed_by_project: BTreeMap<String, usize>,
    /// Corrections (merges and splits) that were emitted.
    pub corrections: usize,
    /// Those of the corrections that are merges; the others are splits.
    #[serde(skip)]
    pub merged: usize,
    /// Timelines in which nothing is over yet. The next run examines them again.
    pub waiting: usize,
    /// Timelines in which nothing was over for a long time. They have a later due time now.
    pub rescheduled: usize,
    /// Timelines that other writers kept changing. They are left.
    pub conflicts: usize,
    /// Timelines of which something could not be read, emitted, archived or written. They are left.
    pub failed: usize,
    /// The failed timelines that no later run of this version can close either: the stored item breaks a rule, or a newer version
    /// wrote it.
    pub corrupt: usize,
    /// Shards of the due index that could not be listed.
    pub unlisted: usize,
    /// Whether the time ran out before everything due was closed.
    pub is_incomplete: bool,
    /// How long the oldest timeline that was left has been due, in seconds. `None` if no timeline was left, or if it is not known
    /// because nothing could be listed.
    pub oldest_due_seconds: Option<i64>,
}

impl CloseReport {
    /// Returns whether the run as a whole failed: a shard could not be listed, or a timeline failed because of the store or the
    /// output and nothing was done for any other timeline.
    pub fn is_failure(&self) -> bool {
        let is_nothing_done = self.closed + self.corrections + self.rescheduled == 0;
        self.unlisted > 0 || (self.failed > self.corrupt && is_nothing_done)
    }

    /// Returns how many timelines were examined and left for the next run.
    pub fn left(&self) -> usize {
        self.failed + self.conflicts
    }

    /// Returns whether something due was left for the next run.
    pub fn has_left_work(&self) -> bool {
        self.is_incomplete || self.unlisted + self.failed + self.conflicts > 0
    }

    /// Writes a warning to the log if something due was left.
    pub fn warn(&self) {
        let Self { conflicts, failed, unlisted, is_incomplete, oldest_due_seconds, .. } = *self;
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

    /// Adds a step of a timeline of this project. Returns whether the timeline is left for the next run.
    pub(super) fn add(&mut self, step: &Step, project: &str, projects: &Projects) -> bool {
        self.closed += step.ended;
        if step.ended > 0 && projects.have_metrics_of(project) {
            *self.closed_by_project.entry(project.to_owned()).or_default() += step.ended;
        }
        self.corrections += step.corrections;
        self.merged += step.merged;
        let (count, is_left) = match step.outcome {
            StepOutcome::NotDue | StepOutcome::Closed | StepOutcome::TooLarge | StepOutcome::More => return false,
            StepOutcome::Waiting => (&mut self.waiting, false),
            StepOutcome::Rescheduled => (&mut self.rescheduled, false),
            StepOutcome::Conflict => (&mut self.conflicts, true),
            StepOutcome::Failed | StepOutcome::Unread | StepOutcome::Corrupt => (&mut self.failed, true),
        };
        *count += 1;
        self.corrupt += usize::from(step.outcome == StepOutcome::Corrupt);
        is_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::GivenRules;

    #[test]
    fn the_shares_contain_each_shard_once() {
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
    fn only_projects_with_metrics_are_counted_apart() {
        let projects = Projects::from_json(&GivenRules::default(), r#"{"shop":{}}"#).unwrap();
        let step = Step { outcome: StepOutcome::Closed, ended: 2, corrections: 0, merged: 0 };
        let counted = |projects: &Projects| {
            let mut report = CloseReport::default();
            for project in ["shop", "", "other", "shop"] {
                report.add(&step, project, projects);
            }
            assert_eq!(report.closed, 8);
            report.closed_by_project
        };
        assert_eq!(counted(&projects), BTreeMap::new());
        assert_eq!(counted(&projects.with_metrics(true)), BTreeMap::from([("shop".to_owned(), 4)]));
    }

    #[test]
    fn a_run_that_achieves_nothing_has_failed() {
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
