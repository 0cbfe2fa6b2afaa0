//! Closing what went stale: say it, archive it, take it out of the timeline, in this order. A crash between any two
//! steps repeats them with the same content, and loses nothing.

use std::collections::HashSet;

use futures_util::StreamExt;
use futures_util::stream;
use serde::Serialize;

use super::SessionManager;
use crate::clock::Clock;
use crate::ends::{end_line, notice_line};
use crate::output::Output;
use crate::session::{Millis, Visitor};
use crate::storage::{Committed, DUE_SHARDS, Due, MAX_LOAD, Reading, SessionError, SessionStorage, Stored};
use crate::timeline::{Closing, Timeline};

/// Timelines of one shard that are worked on together.
const SLICE: usize = 32;
/// How long after it is due a timeline is closed by default, in milliseconds: a minute for clocks that differ and for invocations
/// that are still at work on events they received in time.
pub const CLOSE_GRACE_MS: Millis = 60_000;

/// How long a timeline in which nothing is over stays due, in milliseconds. To look at it costs a read, a fifth of a write
/// unit; to move its time in the index costs three. Most visits are over after less than 15 looks, one a minute; for longer
/// ones it never costs more than twice of what knowing their length would.
const PATIENCE_MS: Millis = 15 * 60_000;

/// What a run of the close function did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CloseReport {
    /// Timelines looked at.
    pub examined: usize,
    /// Sessions whose end was said and that were archived.
    pub closed: usize,
    /// Merges and splits said.
    pub notices: usize,
    /// Timelines in which nothing is over yet: looked at again in the next run.
    pub waiting: usize,
    /// Timelines in which nothing was over for long: looked at again when it may be.
    pub rescheduled: usize,
    /// Timelines that changed meanwhile: looked at again in the next run.
    pub lost: usize,
    /// Timelines that could not be closed: looked at again in the next run.
    pub failed: usize,
    /// Whether the time ran out before everything due was looked at.
    pub is_incomplete: bool,
}

/// How far a run has come in a shard: each timeline is looked at once.
#[derive(Debug, Clone, Default)]
struct Cursor {
    from: Millis,
    /// Those due at that very time that were looked at and are still due.
    seen: HashSet<Visitor>,
}

impl Cursor {
    /// Moves behind what is due; returns what was not looked at before.
    fn advance(&mut self, due: Vec<Due>) -> Vec<Visitor> {
        let Some(last) = due.last().map(|due| due.due_at) else { return Vec::new() };
        let before = std::mem::take(&mut self.seen);
        let is_same = last == self.from;
        self.seen = due.iter().filter(|due| due.due_at == last).map(|due| due.visitor.clone()).collect();
        self.from = last;
        let fresh = due.into_iter().map(|due| due.visitor).filter(|visitor| !before.contains(visitor)).collect();
        if is_same {
            self.seen.extend(before);
        }
        fresh
    }
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
        let now = self.clock.now() - self.close_grace;
        let mut cursors: Vec<Cursor> = vec![Cursor::default(); usize::from(DUE_SHARDS)];
        let mut open: Vec<u8> = (0..DUE_SHARDS).collect();
        while !open.is_empty() {
            for shard in std::mem::take(&mut open) {
                if self.is_late(deadline) {
                    report.is_incomplete = true;
                    return report;
                }
                let cursor = &mut cursors[usize::from(shard)];
                match self.close_slice(shard, now, cursor, output, &mut report).await {
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
        cursor: &mut Cursor,
        output: &O,
        report: &mut CloseReport,
    ) -> Result<bool, SessionError> {
        let limit = SLICE + cursor.seen.len();
        let due = self.storage.due(shard, cursor.from, now, limit).await?;
        let visitors = cursor.advance(due);
        if visitors.is_empty() {
            return Ok(false);
        }
        report.examined += visitors.len();
        let mut read = Vec::with_capacity(visitors.len());
        for visitors in visitors.chunks(MAX_LOAD) {
            read.extend(self.storage.load(visitors, Reading::Strong).await);
        }
        let mut lines = Vec::new();
        let mut work = Vec::new();
        for (visitor, stored) in visitors.iter().zip(read) {
            match stored {
                Ok(Some(stored)) if stored.timeline.due_at.is_some_and(|due_at| due_at <= now) => {
                    match self.plan(visitor.clone(), stored, now, &mut lines) {
                        Some(planned) => work.push(planned),
                        None => report.waiting += 1,
                    }
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
        let mut done = stream::iter(finish).buffer_unordered(SLICE);
        while let Some((work, fate)) = done.next().await {
            match fate {
                Fate::Closed => {
                    cursor.seen.remove(&work.visitor);
                    report.closed += work.closing.ended.len();
                    report.notices += work.closing.notices.len();
                    report.rescheduled += usize::from(work.lines.is_empty());
                }
                Fate::Lost => report.lost += 1,
                Fate::Failed => report.failed += 1,
            }
        }
        // Rows that cannot be read are not among them, so that fewer than asked for say nothing.
        Ok(true)
    }

    /// What there is to say of a timeline, and what remains of it; none where it had better wait.
    fn plan(&self, visitor: Visitor, stored: Stored, now: Millis, lines: &mut Vec<String>) -> Option<Work> {
        let mut remaining = stored.timeline;
        let waits = remaining.due_at.is_some_and(|due_at| now - due_at < PATIENCE_MS);
        let closing = remaining.close(now, &self.config);
        if closing.ended.is_empty() && closing.notices.is_empty() && remaining.due_at.is_some() && waits {
            return None;
        }
        let first = lines.len();
        lines.extend(closing.notices.iter().map(|notice| notice_line(&visitor, notice)));
        lines.extend(closing.ended.iter().map(|tally| end_line(&tally.session(&visitor, false))));
        Some(Work { visitor, remaining, etag: stored.etag, closing, lines: first..lines.len() })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_gives_each_timeline_once_and_forgets_those_of_times_gone_by() {
        let mut cursor = Cursor::default();
        let mut advance = |due: &[(&str, Millis)]| {
            let due = due.iter().map(|(name, due_at)| Due { visitor: Visitor::new(name), due_at: *due_at });
            let fresh = cursor.advance(due.collect());
            let mut seen: Vec<String> = cursor.seen.iter().map(|visitor| visitor.distinct_id.clone()).collect();
            seen.sort();
            let fresh: Vec<String> = fresh.into_iter().map(|visitor| visitor.distinct_id).collect();
            (fresh.concat(), cursor.from, seen.concat())
        };
        let expected = |fresh: &str, from, seen: &str| (fresh.to_owned(), from, seen.to_owned());
        assert_eq!(advance(&[("a", 1), ("b", 2)]), expected("ab", 2, "b"));
        assert_eq!(advance(&[("b", 2), ("c", 2)]), expected("c", 2, "bc"));
        // The index may leave one out and show it again.
        assert_eq!(advance(&[("c", 2), ("d", 2)]), expected("d", 2, "bcd"));
        assert_eq!(advance(&[("b", 2), ("e", 3)]), expected("e", 3, "e"));
        assert_eq!(advance(&[]), expected("", 3, "e"));
    }
}
