//! One step of closing a timeline: a bounded number of its sessions is emitted, then archived and taken out, or kept as closed.

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
use crate::timeline::{ClosedSession, Closing, Correction, Timeline};

/// The maximum number of sessions of a timeline that are archived concurrently. It is small, so that a timeline with thousands of
/// sessions leaves room for others.
const ARCHIVED_AT_ONCE: usize = 16;
/// The maximum number of attempts to take out what was archived. Each further one follows a conflict.
const MAX_TAKE_OUT_ATTEMPTS: usize = 3;

/// How long a timeline in which nothing is over stays due before it is rescheduled, in milliseconds. It is examined once a
/// minute, which costs a read, a fifth of a write unit. To change its time in the index costs three write units, as much as 15
/// reads. Most visits are over before that. For a longer one the cost is at most twice what it would be if its length were known.
const RESCHEDULE_AFTER_MS: Millis = 15 * 60_000;

/// The outcome of a step of a timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StepOutcome {
    /// The timeline is not due: it was closed or rescheduled since it was listed. Or it no longer exists, and the index still
    /// lists it.
    NotDue,
    /// Nothing is over yet.
    Waiting,
    /// Nothing was over for [`RESCHEDULE_AFTER_MS`]. The index has a later time now.
    Rescheduled,
    /// Everything that is over was closed.
    Closed,
    /// The maximum of a step was closed, and more is over.
    More,
    /// The timeline was not read, because it is too large for a group.
    TooLarge,
    /// Other writers kept changing the timeline.
    Conflict,
    /// Something could not be emitted, archived or written.
    Failed,
    /// The timeline could not be read.
    Unread,
    /// The stored item breaks a rule, or a newer version wrote it.
    Corrupt,
}

/// The result of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    /// Its outcome.
    pub outcome: StepOutcome,
    /// Sessions that were closed.
    pub ended: usize,
    /// Corrections that were emitted.
    pub corrections: usize,
    /// Those of the corrections that are merges.
    pub merged: usize,
}

impl Step {
    /// Returns the result of a step that closed nothing.
    fn nothing(outcome: StepOutcome) -> Self {
        Self { outcome, ended: 0, corrections: 0, merged: 0 }
    }

    /// Returns whether the timeline was too large to read in a group, or can have been.
    pub fn is_heavy(&self) -> bool {
        matches!(self.outcome, StepOutcome::TooLarge | StepOutcome::Unread)
    }
}

/// A timeline, and what this step closes of it.
struct Work {
    visitor: Visitor,
    /// The timeline without what this step closes.
    remaining: Timeline,
    etag: u64,
    /// The due time of the timeline that was read.
    was_due: Option<Millis>,
    closing: Closing,
    /// The sessions that were emitted and stay in the timeline as closed ones. They are no longer in `closing`.
    kept: Vec<ClosedSession>,
    /// Whether more is over than this step closes.
    has_more: bool,
    /// Whether something could not be emitted or archived.
    has_failed: bool,
}

impl<S: SessionStorage, C: Clock, O: Output> Run<'_, S, C, O> {
    /// Closes one step of a timeline that was read: at most this many sessions, and as many corrections.
    pub(super) async fn close_found(&self, found: Result<Option<Found>, SessionError>, max_sessions: usize) -> Step {
        match found {
            Ok(Some(Found::Timeline(stored))) => match stored.timeline.due_at {
                Some(due_at) if due_at <= self.now => self.step(stored, max_sessions).await,
                _ => Step::nothing(StepOutcome::NotDue),
            },
            Ok(Some(Found::TooLarge)) => Step::nothing(StepOutcome::TooLarge),
            Ok(None) => Step::nothing(StepOutcome::NotDue),
            Err(error) => {
                let is_corrupt = matches!(error, SessionError::Corrupt { .. } | SessionError::Newer { .. });
                let (kind, error) = (error.kind_name(), error.with_causes());
                tracing::error!(kind, %error, "a due timeline cannot be read");
                Step::nothing(if is_corrupt { StepOutcome::Corrupt } else { StepOutcome::Unread })
            }
        }
    }

    /// Plans a step, emits, archives what cannot stay, and writes what remains.
    async fn step(&self, mut stored: Stored, max_sessions: usize) -> Step {
        match self.realign(&mut stored).await {
            Ok(true) => {}
            Ok(false) => return Step::nothing(StepOutcome::Conflict),
            Err(error) => return not_closed(&error),
        }
        let Some(mut work) = self.plan(stored, max_sessions) else { return Step::nothing(StepOutcome::Waiting) };
        let planned = work.closing.len();
        self.emit(&mut work).await;
        let Work { remaining, closing, .. } = &mut work;
        work.kept = self.manager.keep_closed(remaining, &mut closing.ended);
        self.archive(&mut work).await;
        let (ended, corrections) = (work.closing.ended.len() + work.kept.len(), work.closing.corrections.len());
        let is_merge = |correction: &&Correction| matches!(correction, Correction::Merged { .. });
        let merged = work.closing.corrections.iter().filter(is_merge).count();
        if planned > 0 && work.is_empty() {
            return Step::nothing(StepOutcome::Failed);
        }
        let (has_more, has_failed) = (work.has_more, work.has_failed);
        match self.take_out(work).await {
            Ok(true) if planned == 0 => Step::nothing(StepOutcome::Rescheduled),
            Ok(true) if has_failed => Step { outcome: StepOutcome::Failed, ended, corrections, merged },
            Ok(true) if has_more => Step { outcome: StepOutcome::More, ended, corrections, merged },
            Ok(true) => Step { outcome: StepOutcome::Closed, ended, corrections, merged },
            Ok(false) => Step::nothing(StepOutcome::Conflict),
            Err(error) => not_closed(&error),
        }
    }

    /// Writes the timeline if other rules gave out its ids, before anything of it is emitted or archived. Otherwise a run that
    /// dies after that leaves sessions and corrections behind that the stored timeline does not know. A run under the other rules
    /// would never take them back. Returns `false` if another writer changed the timeline.
    async fn realign(&self, stored: &mut Stored) -> Result<bool, SessionError> {
        let config = self.manager.rules_of(&stored.timeline.visitor);
        if !stored.timeline.realign(config) {
            return Ok(true);
        }
        let _turn = self.writes.acquire().await;
        let replaces = Some(stored.etag);
        stored.etag = self.manager.clock.random();
        Ok(self.manager.write(&stored.timeline, replaces, stored.etag).await? == CommitOutcome::Done)
    }

    /// Returns what to close of a timeline and what remains of it. Returns `None` if nothing is over and the timeline is not to
    /// be rescheduled yet.
    fn plan(&self, stored: Stored, max_sessions: usize) -> Option<Work> {
        let Stored { timeline: mut remaining, etag } = stored;
        remaining.remove_closed_before(self.manager.kept_since(self.manager.clock.now()));
        let was_due = remaining.due_at;
        let mut closing = remaining.close(self.now, self.manager.rules_of(&remaining.visitor));
        let waits = was_due.is_some_and(|due_at| self.now - due_at < RESCHEDULE_AFTER_MS);
        if closing.is_empty() && remaining.due_at.is_some() && waits {
            return None;
        }
        let rest = closing.split_off(max_sessions);
        let has_more = !rest.is_empty();
        remaining.put_back(rest, was_due);
        let visitor = remaining.visitor.clone();
        Some(Work { visitor, remaining, etag, was_due, closing, kept: Vec::new(), has_more, has_failed: false })
    }

    /// Emits what the step closes. What the output does not accept stays in the timeline.
    async fn emit(&self, work: &mut Work) {
        let Closing { ended, corrections } = &work.closing;
        let mut lines: Vec<String> =
            corrections.iter().map(|correction| correction_line(&work.visitor, correction)).collect();
        let config = self.manager.rules_of(&work.visitor);
        let end = |state: &SessionState| end_line(&state.ended_session(&work.visitor), state.end_reason(config));
        lines.extend(ended.iter().map(end));
        let accepted = self.outbox.send(lines).await;
        work.has_failed |= accepted.contains(&false);
        work.keep(&accepted);
    }

    /// Archives what was emitted and is not kept as closed. A session that cannot be archived waits in the timeline, and so does one
    /// for which there is no time left. The first [`ARCHIVED_AT_ONCE`] sessions are always tried, so that every step makes progress.
    async fn archive(&self, work: &mut Work) {
        let expires_at = self.manager.clock.now() + self.manager.retention;
        // After an archive call that begins before this, there is still time to write the timeline.
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
        let is_out_of_time = |result: &Result<(), SessionError>| matches!(result, Err(SessionError::Deadline));
        work.has_more |= results.iter().any(is_out_of_time);
        let failed: Vec<&SessionError> = results
            .iter()
            .filter(|result| !is_out_of_time(result))
            .filter_map(|result| result.as_ref().err())
            .collect();
        if let Some(error) = failed.first() {
            let (kind, error) = (error.kind_name(), error.with_causes());
            tracing::error!(kind, %error, sessions = failed.len(), "sessions cannot be archived");
            work.has_failed = true;
        }
        work.keep(&archived);
    }

    /// Archives a session. `begun` counts the calls of the step.
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
        self.expire_pages(visitor, session, expires_at).await?;
        self.manager.storage.archive(visitor, session, expires_at).await
    }

    /// Makes the pages of a session expire with it, at the earliest.
    async fn expire_pages(
        &self,
        visitor: &Visitor,
        session: &SessionState,
        expires_at: Millis,
    ) -> Result<(), SessionError> {
        if !session.may_have_stored_pages(self.manager.page_size) {
            return Ok(());
        }
        // If the session goes on after all, because an event comes before it is taken out, its pages are needed until it is over.
        let expires_at = expires_at + self.manager.rules_of(visitor).max_duration_ms();
        let pages = self.manager.storage.pages(visitor, session.id).await?;
        self.manager.storage.put_pages(visitor, &pages, Some(expires_at)).await
    }

    /// Writes the timeline without what was archived, and with the sessions that are kept as closed ones. Returns `false` if other
    /// writers kept changing it. A step that only reschedules makes one attempt.
    async fn take_out(&self, work: Work) -> Result<bool, SessionError> {
        let is_reschedule = work.is_empty();
        let Work { mut remaining, mut etag, closing, kept, .. } = work;
        for _ in 0..MAX_TAKE_OUT_ATTEMPTS {
            let _turn = self.writes.acquire().await;
            let winner = match self.manager.write(&remaining, Some(etag), self.manager.clock.random()).await? {
                CommitOutcome::Done => return Ok(true),
                CommitOutcome::Conflict(winner) => winner,
            };
            // What was emitted is taken out of the item of the other writer or kept there, unless that writer changed it.
            let Some(winner) = winner.filter(|_| !is_reschedule) else { return Ok(false) };
            Stored { timeline: remaining, etag } = *winner;
            let was_due = remaining.due_at;
            let mut over = remaining.close(self.now, self.manager.rules_of(&remaining.visitor));
            remaining.keep_closed_again(&kept, &mut over);
            remaining.put_back(over.without(&closing), was_due);
        }
        Ok(false)
    }
}

/// Logs why a timeline cannot be closed.
fn not_closed(error: &SessionError) -> Step {
    let (kind, error) = (error.kind_name(), error.with_causes());
    tracing::error!(kind, %error, "a timeline cannot be closed");
    Step::nothing(StepOutcome::Failed)
}

impl Work {
    /// Returns whether the step closes nothing.
    fn is_empty(&self) -> bool {
        self.closing.is_empty() && self.kept.is_empty()
    }

    /// Keeps the corrections and sessions whose flag is `true`, corrections first. Puts the others back into the timeline.
    fn keep(&mut self, are_kept: &[bool]) {
        if are_kept.iter().all(|is_kept| *is_kept) {
            return;
        }
        let (corrections, ended) = are_kept.split_at(self.closing.corrections.len());
        let rest = self.closing.split(corrections, ended);
        self.remaining.put_back(rest, self.was_due);
    }
}
