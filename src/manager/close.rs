//! Closing what went stale: say it, archive it, take it out of the timeline, in this order. A crash between any two
//! steps repeats them with the same content, and loses nothing.

use std::collections::HashSet;

use futures_util::StreamExt;
use futures_util::stream;
use serde::Serialize;

use super::{PARALLEL_WRITES, SessionManager};
use crate::clock::Clock;
use crate::ends::{end_line, notice_line};
use crate::output::Output;
use crate::session::{Millis, Visitor};
use crate::storage::{Committed, DUE_SHARDS, MAX_LOAD, Reading, SessionError, SessionStorage, Stored};
use crate::timeline::{Closing, Timeline};

/// Timelines of one shard that are worked on together.
const SLICE: usize = 32;
/// How long after it is due a timeline is closed, in milliseconds: a minute for clocks that differ and for invocations
/// that are still at work on events they received in time.
pub const CLOSE_GRACE_MS: Millis = 60_000;

/// What a run of the close function did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CloseReport {
    /// Timelines looked at.
    pub examined: usize,
    /// Sessions whose end was said and that were archived.
    pub closed: usize,
    /// Merges and splits said.
    pub notices: usize,
    /// Timelines in which nothing was over: looked at again later.
    pub rescheduled: usize,
    /// Timelines that changed meanwhile: looked at again in the next run.
    pub lost: usize,
    /// Timelines that could not be closed: looked at again in the next run.
    pub failed: usize,
    /// Whether the time ran out before everything due was looked at.
    pub is_incomplete: bool,
}

/// A timeline with what there is to say of it.
struct Work {
    visitor: Visitor,
    remaining: Timeline,
    etag: u64,
    closing: Closing,
    lines: std::ops::Range<usize>,
}

/// How the closing of one timeline went.
enum Fate {
    Closed,
    Lost,
    Failed,
}

impl<S: SessionStorage, C: Clock> SessionManager<S, C> {
    /// Closes what is due, slice by slice, shard by shard, until nothing is left or the time is up.
    #[doc(alias = "close_due")]
    pub async fn cleanup<O: Output>(&self, output: &O, deadline: Millis) -> CloseReport {
        let mut report = CloseReport::default();
        let now = self.clock.now() - CLOSE_GRACE_MS;
        // Whom this run could not close: passed over from then on, so that they hold up nobody else.
        let mut stuck: Vec<HashSet<Visitor>> = vec![HashSet::new(); usize::from(DUE_SHARDS)];
        let mut open: Vec<u8> = (0..DUE_SHARDS).collect();
        while !open.is_empty() {
            for shard in std::mem::take(&mut open) {
                if self.is_late(deadline) {
                    report.is_incomplete = true;
                    return report;
                }
                let stuck = &mut stuck[usize::from(shard)];
                match self.close_slice(shard, now, stuck, output, &mut report).await {
                    Ok(more) if more => open.push(shard),
                    Ok(_) => {}
                    Err(error) => {
                        tracing::error!(shard, %error, "due timelines cannot be listed");
                        report.failed += 1;
                    }
                }
            }
        }
        report
    }

    /// Closes one slice of a shard; says whether there may be more.
    async fn close_slice<O: Output>(
        &self,
        shard: u8,
        now: Millis,
        stuck: &mut HashSet<Visitor>,
        output: &O,
        report: &mut CloseReport,
    ) -> Result<bool, SessionError> {
        let limit = SLICE + stuck.len();
        let due = self.storage.due(shard, now, limit).await?;
        let may_be_more = due.len() == limit;
        let visitors: Vec<Visitor> =
            due.into_iter().map(|due| due.visitor).filter(|visitor| !stuck.contains(visitor)).collect();
        if visitors.is_empty() {
            return Ok(false);
        }
        report.examined += visitors.len();
        let mut read = Vec::with_capacity(visitors.len());
        for visitors in visitors.chunks(MAX_LOAD) {
            read.extend(self.storage.load(visitors, Reading::Strong).await);
        }
        // What this slice does not close is passed over from then on; that the index lists a closed one a little longer is
        // found out by reading it.
        stuck.extend(visitors.iter().cloned());
        let mut lines = Vec::new();
        let mut work = Vec::new();
        for (visitor, stored) in visitors.iter().zip(read) {
            match stored {
                Ok(Some(stored)) if stored.timeline.due_at.is_some_and(|due_at| due_at <= now) => {
                    work.push(self.plan(visitor.clone(), stored, now, &mut lines));
                }
                // Closed or rescheduled meanwhile; or gone, and the index does not know yet.
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(shard, %error, "a due timeline cannot be read");
                    report.failed += 1;
                }
            }
        }
        let unsent: HashSet<usize> = output.send(&lines).await.into_iter().collect();
        let is_said = |work: &Work| !work.lines.clone().any(|line| unsent.contains(&line));
        let finish: Vec<_> = work.iter().map(|work| self.finish(work, is_said(work))).collect();
        let mut done = stream::iter(finish).buffer_unordered(PARALLEL_WRITES);
        while let Some((work, fate)) = done.next().await {
            match fate {
                Fate::Closed => {
                    stuck.remove(&work.visitor);
                    report.closed += work.closing.ended.len();
                    report.notices += work.closing.notices.len();
                    report.rescheduled += usize::from(work.lines.is_empty());
                }
                Fate::Lost => report.lost += 1,
                Fate::Failed => report.failed += 1,
            }
        }
        Ok(may_be_more)
    }

    /// What there is to say of a timeline, and what remains of it.
    fn plan(&self, visitor: Visitor, stored: Stored, now: Millis, lines: &mut Vec<String>) -> Work {
        let mut remaining = stored.timeline;
        let closing = remaining.close(now, &self.config);
        let first = lines.len();
        lines.extend(closing.notices.iter().map(|notice| notice_line(&visitor, notice)));
        lines.extend(closing.ended.iter().map(|tally| end_line(&tally.session(&visitor, false))));
        Work { visitor, remaining, etag: stored.etag, closing, lines: first..lines.len() }
    }

    /// Archives what was said and takes it out of the timeline; touches nothing where it was not said.
    async fn finish<'w>(&self, work: &'w Work, is_said: bool) -> (&'w Work, Fate) {
        if !is_said {
            return (work, Fate::Failed);
        }
        let fate = self.take_out(work).await.unwrap_or_else(|error| {
            tracing::error!(%error, "a timeline cannot be closed");
            Fate::Failed
        });
        (work, fate)
    }

    async fn take_out(&self, work: &Work) -> Result<Fate, SessionError> {
        let expires_at = self.clock.now() + self.retention;
        for session in &work.closing.ended {
            self.storage.archive(&work.visitor, session, expires_at).await?;
        }
        match self.write(&work.remaining, Some(work.etag), self.clock.random()).await? {
            Committed::Done => Ok(Fate::Closed),
            Committed::Lost(_) => Ok(Fate::Lost),
        }
    }
}
