//! One step of closing a timeline: a bounded number of its sessions is emitted, archived, and taken out.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt;
use futures_util::stream;

use super::Run;
use crate::clock::Clock;
use crate::emitted::{correction_line, end_line};
use crate::manager::DEADLINE_MARGIN_MS;
use crate::model::SessionState;
use crate::output::Output;
use crate::session::{Millis, Visitor};
use crate::storage::{CommitOutcome, Found, SessionError, SessionStorage, Stored};
use crate::timeline::{Closing, Timeline};

/// Sessions of a timeline that are archived at once. Few, so that a timeline of thousands leaves room for others.
const ARCHIVED_AT_ONCE: usize = 16;
/// Attempts to take out what was archived, each after another writer was first.
const ATTEMPTS: usize = 3;

/// How long a timeline in which nothing is over stays due, in milliseconds. To look at it costs a read, a fifth of a write
/// unit; to move its time in the index costs three. Most visits are over after less than 15 looks, one a minute; for longer
/// ones it never costs more than twice of what knowing their length would.
const PATIENCE_MS: Millis = 15 * 60_000;

/// What became of a timeline in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was closed or rescheduled meanwhile; or it is gone, and the index does not know yet.
    NotDue,
    /// Nothing is over yet.
    Waiting,
    /// Nothing was over for long: another time stands in the index.
    Rescheduled,
    /// All that is over was closed.
    Closed,
    /// As much as fits a step was closed, and there is more.
    More,
    /// It was not read, because it is large.
    TooLarge,
    /// Others kept changing it.
    Conflict,
    /// Something could not be emitted, archived or written.
    Failed,
    /// It could not be read.
    Unread,
    /// What is stored breaks our rules, or has a newer form.
    Corrupt,
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub outcome: Outcome,
    /// Sessions that were closed.
    pub ended: usize,
    /// Corrections that were emitted.
    pub corrections: usize,
}

impl Step {
    fn nothing(outcome: Outcome) -> Self {
        Self { outcome, ended: 0, corrections: 0 }
    }

    /// Whether it may have been too much to read.
    pub fn is_heavy(&self) -> bool {
        matches!(self.outcome, Outcome::TooLarge | Outcome::Unread)
    }
}

/// A timeline, and what of it this step closes.
struct Work {
    visitor: Visitor,
    /// What the timeline is without that.
    remaining: Timeline,
    etag: u64,
    /// When it was due as it was read.
    was_due: Option<Millis>,
    closing: Closing,
    /// Whether more is over than this step closes.
    has_more: bool,
    /// Whether something could not be emitted or archived.
    has_failed: bool,
}

impl<S: SessionStorage, C: Clock, O: Output> Run<'_, S, C, O> {
    /// Closes what was found of a timeline, at most so many sessions.
    pub(super) async fn close_found(&self, found: Result<Option<Found>, SessionError>, most: usize) -> Step {
        match found {
            Ok(Some(Found::Timeline(stored))) => match stored.timeline.due_at {
                Some(due_at) if due_at <= self.now => self.step(stored, most).await,
                _ => Step::nothing(Outcome::NotDue),
            },
            Ok(Some(Found::TooLarge)) => Step::nothing(Outcome::TooLarge),
            Ok(None) => Step::nothing(Outcome::NotDue),
            Err(error) => {
                let is_corrupt = matches!(error, SessionError::Corrupt { .. } | SessionError::Newer { .. });
                let (kind, error) = (error.kind_name(), error.with_causes());
                tracing::error!(kind, %error, "a due timeline cannot be read");
                Step::nothing(if is_corrupt { Outcome::Corrupt } else { Outcome::Unread })
            }
        }
    }

    async fn step(&self, stored: Stored, most: usize) -> Step {
        let Some(mut work) = self.plan(stored, most) else { return Step::nothing(Outcome::Waiting) };
        let planned = work.closing.len();
        self.emit(&mut work).await;
        self.archive(&mut work).await;
        let (ended, corrections) = (work.closing.ended.len(), work.closing.corrections.len());
        if planned > 0 && work.closing.is_empty() {
            return Step::nothing(Outcome::Failed);
        }
        let (has_more, has_failed) = (work.has_more, work.has_failed);
        match self.take_out(work).await {
            Ok(true) if planned == 0 => Step::nothing(Outcome::Rescheduled),
            Ok(true) if has_failed => Step { outcome: Outcome::Failed, ended, corrections },
            Ok(true) if has_more => Step { outcome: Outcome::More, ended, corrections },
            Ok(true) => Step { outcome: Outcome::Closed, ended, corrections },
            Ok(false) => Step::nothing(Outcome::Conflict),
            Err(error) => {
                let (kind, error) = (error.kind_name(), error.with_causes());
                tracing::error!(kind, %error, "a timeline cannot be closed");
                Step::nothing(Outcome::Failed)
            }
        }
    }

    /// What to close of a timeline, and what remains of it; none where it had better wait.
    fn plan(&self, stored: Stored, most: usize) -> Option<Work> {
        let Stored { timeline: mut remaining, etag } = stored;
        let was_due = remaining.due_at;
        let mut closing = remaining.close(self.now, &self.manager.config);
        let waits = was_due.is_some_and(|due_at| self.now - due_at < PATIENCE_MS);
        if closing.is_empty() && remaining.due_at.is_some() && waits {
            return None;
        }
        let rest = closing.split_off(most);
        let has_more = !rest.is_empty();
        remaining.put_back(rest, was_due);
        let visitor = remaining.visitor.clone();
        Some(Work { visitor, remaining, etag, was_due, closing, has_more, has_failed: false })
    }

    /// Emits what the step closes. What is not taken stays in the timeline.
    async fn emit(&self, work: &mut Work) {
        let Closing { ended, corrections } = &work.closing;
        let mut lines: Vec<String> =
            corrections.iter().map(|correction| correction_line(&work.visitor, correction)).collect();
        lines.extend(ended.iter().map(|state| end_line(&state.ended_session(&work.visitor))));
        let taken = self.outbox.send(lines).await;
        work.has_failed |= taken.contains(&false);
        work.keep(&taken);
    }

    /// Archives what was emitted. What cannot be archived stays in the timeline; so does what there is no time left for, but
    /// the first of it, so that every step comes further.
    async fn archive(&self, work: &mut Work) {
        let expires_at = self.manager.clock.now() + self.manager.retention;
        // Behind what begins before this the write still has its time.
        let last_begin = self.deadline.saturating_sub(2 * DEADLINE_MARGIN_MS);
        let begun = AtomicUsize::new(0);
        let sessions: Vec<_> = work
            .closing
            .ended
            .iter()
            .map(|state| self.archive_one(&work.visitor, state, expires_at, last_begin, &begun))
            .collect();
        let results: Vec<Result<(), SessionError>> = stream::iter(sessions).buffered(ARCHIVED_AT_ONCE).collect().await;
        let mut archived = vec![true; work.closing.corrections.len()];
        archived.extend(results.iter().map(Result::is_ok));
        let is_late = |result: &Result<(), SessionError>| matches!(result, Err(SessionError::Deadline));
        work.has_more |= results.iter().any(is_late);
        let failed: Vec<&SessionError> =
            results.iter().filter(|result| !is_late(result)).filter_map(|result| result.as_ref().err()).collect();
        if let Some(error) = failed.first() {
            let (kind, error) = (error.kind_name(), error.with_causes());
            tracing::error!(kind, %error, sessions = failed.len(), "sessions cannot be archived");
            work.has_failed = true;
        }
        work.keep(&archived);
    }

    async fn archive_one(
        &self,
        visitor: &Visitor,
        session: &SessionState,
        expires_at: Millis,
        last_begin: Millis,
        begun: &AtomicUsize,
    ) -> Result<(), SessionError> {
        let _turn = self.writes.acquire().await;
        let is_first = begun.fetch_add(1, Ordering::Relaxed) < ARCHIVED_AT_ONCE;
        if !is_first && self.manager.clock.now() > last_begin {
            return Err(SessionError::Deadline);
        }
        self.manager.storage.archive(visitor, session, expires_at).await
    }

    /// Takes out what was archived; says whether that went well, or others kept changing the timeline.
    async fn take_out(&self, work: Work) -> Result<bool, SessionError> {
        let Work { mut remaining, mut etag, closing, .. } = work;
        for _ in 0..ATTEMPTS {
            let _turn = self.writes.acquire().await;
            let winner = match self.manager.write(&remaining, Some(etag), self.manager.clock.random()).await? {
                CommitOutcome::Done => return Ok(true),
                CommitOutcome::Conflict(winner) => winner,
            };
            // What was emitted and archived is taken out of what is there now, so far as it is still the same.
            let Some(winner) = winner.filter(|_| !closing.is_empty()) else { return Ok(false) };
            Stored { timeline: remaining, etag } = *winner;
            let was_due = remaining.due_at;
            let rest = remaining.close(self.now, &self.manager.config).without(&closing);
            remaining.put_back(rest, was_due);
        }
        Ok(false)
    }
}

impl Work {
    /// Of what the step closes keeps that for which it is `true`, corrections first; the rest goes back.
    fn keep(&mut self, are_kept: &[bool]) {
        if are_kept.iter().all(|is_kept| *is_kept) {
            return;
        }
        let (corrections, ended) = are_kept.split_at(self.closing.corrections.len());
        let rest = self.closing.split(corrections, ended);
        self.remaining.put_back(rest, self.was_due);
    }
}
